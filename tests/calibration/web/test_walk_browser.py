"""From nothing to CONFIRMED, and the light breaks: the whole walk of a technician, read in Japanese."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from kenpin import audit
from kenpin.calibrating import end_calibrating, read_calibrating
from kenpin.calibration.web.calibrate_run import Runs
from kenpin.calibration.web.words import LANGUAGES, load_words
from kenpin.edge_runtime.light import light_against_sign_off
from kenpin.record import CalibrationRecord, station_records
from kenpin.signing import PublicKey
from tests.calibration.web.page_station import PIN, Server
from tests.calibration.web.shown_line import ShownLine
from tests.calibration.web.test_browser import choose, fits, log_in, smallest_target

WALKED = "ja"
DARK = 0.6
SAID = load_words()


@pytest.fixture
def page(context: BrowserContext, server: Server, line: ShownLine) -> Iterator[Page]:
    opened = context.new_page()
    log_in(opened, server, "sato")
    opened.goto(f"{server.url}/calibrate")
    choose(opened, WALKED)
    yield opened
    line.light = 1.0
    end_calibrating(line.folder)
    Runs(line.folder.root / "page.db").end()


def button(page: Page, key: str) -> Locator:
    return page.get_by_role("button", name=SAID[WALKED](key), exact=True)


def said_in_every_language(page: Page, key: str) -> None:
    """The sentence stands there, its numbers aside, and the page needs no scrolling."""
    url = page.url
    for language in (*LANGUAGES, WALKED):
        choose(page, language)
        page.goto(url)
        parts = SAID[language](key, now="@", low="@", high="@").split("@")
        expect(page.locator("main")).to_contain_text(re.compile(r"\d+".join(map(re.escape, parts))))
        assert fits(page), language
        assert smallest_target(page) >= 48, language


def records(line: ShownLine) -> list[CalibrationRecord]:
    return station_records(line.folder)


def begin(page: Page, line: ShownLine) -> None:
    button(page, "camera_begin").click()
    line.wait(lambda: line.state() == "CALIBRATING", "the calibration")


def shows_other_light(line: ShownLine) -> bool:
    line.good()
    light = light_against_sign_off(line.folder)
    return light is not None and light.is_other


def show_parts(page: Page, line: ShownLine, good: int, masters: int) -> None:
    line.run_by(good)
    expect(page.locator(".doubt .num")).to_have_text(f"{good} / 50")
    button(page, "good_next").click()
    for number in range(1, masters + 1):
        line.bad(0.6 + 0.1 * number)
        page.locator(".choice input").first.check()
        page.fill("#type", "汚れ")
        button(page, "masters_save").click()
        expect(page.locator("a.master")).to_have_count(number)
    button(page, "masters_next").click()
    expect(page.locator("#accept")).to_be_enabled()


def sign(page: Page) -> None:
    button(page, "limits_accept").click()
    page.fill("#why", "初期設定")
    page.fill("#sign-pin", PIN)
    if page.locator("[name=keep]").count():
        page.uncheck("[name=keep]")
    button(page, "sign_do").click()


def test_from_nothing_to_confirmed_and_the_light_breaks(page: Page, line: ShownLine, server: Server) -> None:
    assert not line.folder.records.exists()
    begin(page, line)
    show_parts(page, line, good=50, masters=2)
    page.fill("#t1", "250")  # beyond every master
    page.press("#t1", "Enter")
    expect(page.locator("#accept")).to_be_disabled()
    expect(page.locator("#accept")).to_contain_text(SAID[WALKED]("limits_passing", names="M-01, M-02"))
    page.fill("#t1", "")  # whatever the fields say
    button(page, "limits_suggest").click()
    expect(page.locator("#accept")).to_be_enabled()
    sign(page)
    expect(page.locator(".num.huge")).to_have_text("50 / 299")
    expect(page.locator("main")).to_contain_text(SAID[WALKED]("calibration_TRIAL"))
    line.wait(lambda: line.state() == "RUNNING", "the station by its new record")
    line.run_by(249)
    expect(page.locator(".tag.ok")).to_have_text(SAID[WALKED]("calibration_CONFIRMED"))
    assert [record.state for record in records(line)] == ["TRIAL", "CONFIRMED"]
    page.goto(f"{server.url}/calibrate?step=confirm")
    said_in_every_language(page, "calibration_CONFIRMED")
    no_threshold_is_moved_in_the_dark(page, line, server)


def no_threshold_is_moved_in_the_dark(page: Page, line: ShownLine, server: Server) -> None:
    page.goto(f"{server.url}/calibrate?step=camera")
    expect(button(page, "camera_begin")).to_be_visible()
    line.light = DARK
    line.good()
    assert line.verdicts()[0] == "NO_DECISION"
    expect(page.get_by_role("alert")).to_be_visible()  # by itself
    expect(button(page, "camera_begin")).to_have_count(0)
    said_in_every_language(page, "light_not_signed")
    page.evaluate("document.getElementById('why').required = false")  # the server does not rely on browsers
    button(page, "light_meant").click()
    expect(page.get_by_role("heading", name=SAID[WALKED]("error_title"))).to_be_visible()
    assert read_calibrating(line.folder) is None
    page.goto(f"{server.url}/calibrate?step=confirm")
    said_in_every_language(page, "light_not_signed")
    page.goto(f"{server.url}/calibrate?step=camera")
    line.light = 1.0
    line.good()
    assert line.verdicts()[0] == "OK"
    expect(button(page, "camera_begin")).to_be_visible()
    assert len(records(line)) == 2


def test_the_light_breaks_while_thresholds_are_moved(page: Page, line: ShownLine, server: Server) -> None:
    page.goto(f"{server.url}/calibrate?step=camera")
    begin(page, line)
    show_parts(page, line, good=8, masters=0)
    line.light = DARK
    line.good()
    button(page, "limits_suggest").click()
    expect(page.get_by_role("alert")).to_contain_text(
        SAID[WALKED]("light_held", now="@", low="", high="").split("@")[0]
    )
    page.goto(f"{server.url}/calibrate")
    expect(page.locator("#limits")).to_have_count(0)
    said_in_every_language(page, "light_held")
    line.light = 1.0
    line.good()
    page.get_by_role("link", name=SAID[WALKED]("light_go_on")).click()  # comes by itself
    expect(page.locator("#accept")).to_be_enabled()


def test_another_light_that_is_meant_begins_with_a_reason(page: Page, line: ShownLine, server: Server) -> None:
    page.goto(f"{server.url}/calibrate?step=camera")
    line.light = DARK
    begin(page, line)
    line.run_by(25)
    button(page, "good_next").click()
    button(page, "masters_next").click()
    sign(page)
    line.wait(lambda: line.state() == "RUNNING", "the station by its new record")
    line.light = 1.0
    line.wait(lambda: shows_other_light(line), "a part in another light than the signed one")
    page.goto(f"{server.url}/calibrate?step=camera")
    expect(page.get_by_role("alert")).to_be_visible()
    page.fill("#why", "新しいランプ")
    page.wait_for_timeout(2500)  # what is typed outlives the renewal of the page
    button(page, "light_meant").click()
    line.wait(lambda: line.state() == "CALIBRATING", "the calibration")
    rows = audit.read_audit(line.folder, PublicKey.load(line.folder.public_key))
    (row,) = [row for row in rows if row["what"] == "calibrating" and "is meant" in str(row["new"])]
    assert (row["by"], row["why"]) == ("sato", "新しいランプ")
