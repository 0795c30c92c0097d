"""The ten minutes of a technician at a running station, in a real Chromium and in three languages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from kenpin.calibrating import end_calibrating
from kenpin.calibration.web.calibrate_parts import newest_seq
from kenpin.calibration.web.calibrate_run import Runs
from kenpin.record import load_records
from kenpin.sight import read_sight
from kenpin.signing import PublicKey
from tests.calibration.web.page_station import PANEL, PIN, WAIT_MS, Server
from tests.calibration.web.shown_line import ShownLine
from tests.calibration.web.test_browser import fits, smallest_target

LANGUAGES = ("ja", "de", "en")  # ends in the one in which the test reads
STRENGTHS = (0.62, 0.66, 0.7, 0.74, 0.78, 0.82, 0.86, 0.9, 0.95, 1.0)


@pytest.fixture
def page(context: BrowserContext, server: Server, line: ShownLine) -> Iterator[Page]:
    opened = context.new_page()
    log_in(opened, server)
    yield opened
    end_calibrating(line.folder)
    Runs(line.folder.root / "page.db").end()


def log_in(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/login")
    page.select_option("#name", "sato")
    page.fill("#pin", PIN)
    page.click("main button.primary")
    page.goto(f"{server.url}/calibrate")


def begin(page: Page, line: ShownLine) -> None:
    page.get_by_text("Camera is good").click()
    line.wait(lambda: line.state() == "CALIBRATING", "the calibration")


def fits_in_every_language(page: Page) -> None:
    for language in LANGUAGES:
        page.click(f".languages button[value={language}]")
        expect(page.locator("html")).to_have_attribute("lang", language)
        line = page.locator("main").inner_text()[:40]
        assert fits(page), (language, line)
        assert smallest_target(page) >= 48, (language, line)


def drag(page: Page, handle: str, by_px: int) -> None:
    box = page.locator(f"[data-handle={handle}] .knob").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + by_px, y, steps=4)
    page.mouse.up()


def name_masters(page: Page, line: ShownLine, strengths: Sequence[float]) -> None:
    page.get_by_text("Done: show the NG masters").click()
    expect(page.locator(".choices")).to_be_visible()
    already = page.locator("a.master").count()
    for number, strength in enumerate(strengths, start=already + 1):
        line.bad(strength)
        page.locator(".choice input").first.check()
        page.fill("#type", "stain")
        page.get_by_text("This is the master").click()
        expect(page.locator("a.master")).to_have_count(number)


def test_ten_minutes_of_a_technician(page: Page, line: ShownLine) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    check_camera(page, line)
    begin(page, line)
    show_good_parts(page, line)
    name_masters(page, line, STRENGTHS)
    fits_in_every_language(page)
    page.get_by_role("link", name="Give this calibration up").click()
    fits_in_every_language(page)
    page.get_by_text("Back to the calibration").click()
    page.get_by_text("Done: set the thresholds").click()
    suggested = find_thresholds(page)
    page.get_by_text("Accept for TRIAL").click()
    sign(page)
    line.wait(lambda: line.state() == "RUNNING", "the station by its new record")
    see_fresh_parts_counted(page, line)
    (record,) = load_records(line.folder.records, PublicKey.load(line.folder.public_key))
    assert len(suggested.partition(".")[2]) <= 3  # few digits are shown, and nothing was moved by that
    assert float(suggested) <= record.t1 < float(suggested) + 0.1
    assert record.rank == 1
    assert (record.by, record.why.partition(" (")[0]) == ("sato", "first set-up")
    assert {urlsplit(url).hostname for url in asked} == {"127.0.0.1"}


def check_camera(page: Page, line: ShownLine) -> None:
    expect(page.locator("#live")).to_be_visible()
    line.good(1)
    expect(page.locator(".bar-row")).to_have_count(5)  # while somebody looks the station tells
    fits_in_every_language(page)


def show_good_parts(page: Page, line: ShownLine) -> None:
    line.good(50)
    line.bad(0.9)
    expect(page.locator(".doubt .num")).to_have_text("51 / 50")
    expect(page.locator(".doubt h2")).to_contain_text("Is this one good?")
    fits_in_every_language(page)
    page.locator(".doubt a.thumb").click()
    fits_in_every_language(page)
    page.get_by_text("Leave it out").click()
    expect(page.locator(".doubt .num")).to_have_text("50 / 50")
    fits_in_every_language(page)
    page.get_by_role("link", name="1 left out").click()  # it is bad, so it is a master
    page.fill("#name", "M-00")
    page.fill("#type", "stain")
    page.get_by_text("This is the master").click()
    expect(page.locator(".doubt .num")).to_have_text("50 / 50")


def find_thresholds(page: Page) -> str:
    expect(page.locator("#calls .bound")).to_have_text("95 % certain: not more than 58.2 per 1,000")
    expect(page.locator(".near a.thumb")).to_have_count(8)
    fits_in_every_language(page)
    suggested = page.input_value("#t1")
    drag(page, "t1", 400)  # beyond some masters
    expect(page.locator("#accept")).to_be_disabled()
    expect(page.locator("#accept")).to_contain_text("NG masters would be let through: M-00, M-01")
    expect(page.locator("#escapes .tag")).to_have_text("FAIL")
    assert page.input_value("#t1") == page.input_value("#t2")  # T1 has pushed T2
    page.locator("main").press("s")
    expect(page.locator("#t1")).to_have_value(suggested)
    drag(page, "t1", -60)  # below the highest good parts
    expect(page.locator("#calls .bound")).to_have_text("Nothing is proved at this T1")
    expect(page.locator("#calls .tag")).to_have_text("NOT PROVED")
    before = [float(page.input_value(f"#{name}")) for name in ("t1", "t2")]
    page.locator("main").press("ArrowRight")
    page.locator("main").press("Shift+ArrowRight")
    assert all(float(page.input_value(f"#t{k + 1}")) > before[k] for k in (0, 1))
    page.get_by_text("Suggest", exact=True).click()
    expect(page.locator("#t1")).to_have_value(suggested)
    return suggested


def sign(page: Page) -> None:
    fits_in_every_language(page)
    page.fill("#why", "first set-up")
    page.select_option("[name=lots]", "2")
    page.fill("#sign-pin", "000000")
    page.get_by_role("button", name="Sign", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("Name or PIN is wrong.")
    page.get_by_role("link", name="Back", exact=True).click()
    expect(page.locator("#why")).to_have_value("first set-up")  # what was typed is not lost
    expect(page.locator("[name=lots]")).to_have_value("2")
    page.wait_for_timeout(2500)  # a wrong PIN must wait
    for digit in PIN:
        page.locator(".pad").get_by_text(digit, exact=True).click()
    page.uncheck("[name=keep]")
    page.get_by_role("button", name="Sign", exact=True).click()
    expect(page.locator(".num.huge")).to_have_text("50 / 299")


def see_fresh_parts_counted(page: Page, line: ShownLine) -> None:
    line.good(20)
    line.bad(0.7)
    assert line.verdicts()[:3] == ["NG", "OK", "OK"]
    expect(page.locator(".num.huge")).to_have_text("70 / 299")
    expect(page.locator(".near h2")).to_contain_text("Stopped: 1.")
    fits_in_every_language(page)


def test_thresholds_by_forms_without_javascript(
    chromium: Browser, server: Server, line: ShownLine, page: Page
) -> None:
    page.goto(f"{server.url}/calibrate?step=camera")
    begin(page, line)
    line.good(8)
    name_masters(page, line, STRENGTHS[:2])
    plain = chromium.new_context(viewport=PANEL, java_script_enabled=False)
    plain.set_default_timeout(WAIT_MS)
    without = plain.new_page()
    log_in(without, server)
    without.get_by_text("Done: set the thresholds").click()
    suggested = without.input_value("#t1")
    without.click("[data-move=t1][data-by='1']")
    assert without.input_value("#t1") != suggested
    without.fill("#t1", "230")
    without.fill("#t2", "240")
    without.press("#t2", "Enter")
    expect(without.locator("#accept")).to_be_disabled()
    without.get_by_text("Suggest", exact=True).click()
    without.get_by_text("Accept for TRIAL").click()
    expect(without.locator("#why")).to_be_visible()
    plain.close()


def test_nothing_old_stands_beside_thresholds_that_were_moved(page: Page, line: ShownLine) -> None:
    page.goto(page.url.partition("?")[0] + "?step=camera")
    begin(page, line)
    line.good(8)
    name_masters(page, line, STRENGTHS[:1])
    page.get_by_text("Done: set the thresholds").click()
    expect(page.locator("#escapes .tag")).to_be_visible()
    page.route("**/calibrate/limits?*", lambda route: route.abort())
    drag(page, "t1", 400)
    expect(page.get_by_role("alert")).to_contain_text("No connection to the station")
    expect(page.locator("#escapes")).to_have_count(0)
    page.unroute("**/calibrate/limits?*")
    expect(page.locator("#escapes .tag")).to_have_text("FAIL")


def test_a_step_that_somebody_else_makes_is_followed(page: Page, line: ShownLine) -> None:
    page.goto(page.url.partition("?")[0] + "?step=camera")
    begin(page, line)
    line.good(8)
    page.route("**/calibrate/shown?*", lambda route: route.abort())
    expect(page.get_by_role("alert")).to_contain_text("No connection to the station")
    page.unroute("**/calibrate/shown?*")
    expect(page.locator(".doubt .num")).to_have_text("8 / 50")
    Runs(line.folder.root / "page.db").go("masters", newest_seq=newest_seq(line.folder.database))
    expect(page.get_by_text("Show one master, then tap its picture")).to_be_visible()
    Runs(line.folder.root / "page.db").end()
    expect(page.get_by_text("Show one master, then tap its picture")).to_have_count(0)


def on_the_drawing(page: Page) -> Callable[[int, int], tuple[float, float]]:
    """Where on the screen a pixel of the picture is that is drawn on."""
    box = page.locator("#drawing").bounding_box()
    assert box is not None
    scale = min(box["width"], box["height"]) / 256
    left, top = box["x"] + (box["width"] - 256 * scale) / 2, box["y"] + (box["height"] - 256 * scale) / 2
    return lambda x, y: (left + x * scale, top + y * scale)


def test_region_and_masks_are_drawn_by_finger(page: Page, server: Server, line: ShownLine) -> None:
    page.goto(f"{server.url}/calibrate?step=camera")
    begin(page, line)
    line.good(1)
    page.goto(f"{server.url}/calibrate/view")
    fits_in_every_language(page)
    at = on_the_drawing(page)
    page.mouse.move(*at(2, 2))
    page.mouse.down()
    page.mouse.move(*at(40, 30), steps=3)
    page.mouse.up()
    page.click("[data-tool=ignore]")
    for corner in ((100, 100), (160, 100), (160, 150), (101, 102)):
        page.mouse.click(*at(*corner))
    page.mouse.click(*at(200, 200))
    page.click("[data-tool=undo]")
    page.get_by_role("button", name="Save the view").click()
    expect(page.locator("main pre")).to_contain_text("kenpin train --view")
    view = read_sight(line.folder.root / "view").view
    assert all(abs(a - b) <= 2 for a, b in zip(view.roi, (40, 30, 216, 226), strict=True))
    assert len(view.ignore) == 1
    assert all(abs(a - b) <= 2 for a, b in zip(view.ignore[0][1], (160, 100), strict=True))
    fits_in_every_language(page)


def test_a_part_to_follow_is_drawn_and_what_is_refused_is_not_lost(
    page: Page, server: Server, line: ShownLine
) -> None:
    page.goto(f"{server.url}/calibrate?step=camera")
    begin(page, line)
    line.good(1)
    page.goto(f"{server.url}/calibrate/view")
    at = on_the_drawing(page)

    def drag(x: int, y: int, to_x: int, to_y: int) -> None:
        page.mouse.move(*at(x, y))
        page.mouse.down()
        page.mouse.move(*at(to_x, to_y), steps=3)
        page.mouse.up()

    save = page.get_by_role("button", name="Save the view")
    part = page.locator("#part")
    page.fill("#roi", "0,0,256,256")
    page.fill("#ignore", "")
    page.click("[data-tool=part]")
    expect(part).to_have_value("64,64,128,128")
    page.click("[data-tool=undo]")
    expect(part).to_have_value("")
    expect(page.locator("#drawing .part")).to_have_count(0)
    page.click("[data-tool=roi]")
    page.click("[data-tool=part]")
    drag(64, 64, 84, 74)
    page.fill("#shift", "90")
    page.fill("#turn", "180")
    save.click()
    expect(page.get_by_role("alert")).to_contain_text("leaves no room for a part that is off by 90 pixels")
    page.get_by_role("link", name="Back").click()
    expect(page.locator("#shift")).to_have_value("90")
    expect(page.locator("#drawing .part")).to_have_count(1)
    page.fill("#shift", "15")
    page.fill("#roi", "30,30,190,190")
    save.click()
    expect(page.locator("main pre")).to_contain_text("kenpin train --view")
    align = read_sight(line.folder.root / "view").view.align
    assert align is not None
    assert all(abs(a - b) <= 2 for a, b in zip(align.template, (84, 74, 108, 118), strict=True))
    assert (align.max_shift_px, align.max_turn_deg) == (15, 180)
    expect(page.locator("#drawing .part")).to_have_count(1)
    fits_in_every_language(page)
