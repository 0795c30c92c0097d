"""The page in a real Chromium: what people see, touch and type, in three languages."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from kenpin import audit
from kenpin.calibration.web.app import _PAGES
from kenpin.calibration.web.line_alarms import shown_alarms
from kenpin.calibration.web.users import Users
from kenpin.calibration.web.words import load_words
from kenpin.edge_runtime.alarm_catalogue import CATALOGUE
from kenpin.station_folder import StationFolder
from tests.calibration.inspected import Made, inspect
from tests.calibration.web.page_station import (
    PANEL,
    PEOPLE,
    PIN,
    WAIT_MS,
    Server,
    add_parts,
    raise_alarms,
    show_live,
)

Running = tuple[StationFolder, Server]
LANGUAGES = ("en", "ja", "de")
URGENT = {
    "engine_integrity": "UNACK",
    "ng_consecutive": "LATCH_UNACK",
    "camera_lost": "ACKED",
    "disk_low": "UNACK",
}


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What the station tells besides the usual."""
    return {}


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, users_file: Path, told: dict[str, Any]
) -> Iterator[Running]:
    """The page of a station that gives signs of life; one for all tests, as each process takes seconds."""
    folder = StationFolder(tmp_path_factory.mktemp("browsed"))
    folder.create()
    folder.run.mkdir()
    shutil.copy(users_file, Users(folder).path)
    stopping = threading.Event()

    def live() -> None:
        while not stopping.is_set():
            show_live(folder, **told)
            stopping.wait(1)

    living = threading.Thread(target=live)
    living.start()
    server = Server(folder)
    server.wait()
    yield folder, server
    server.stop()
    stopping.set()
    living.join()


@pytest.fixture
def folder(running: Running) -> StationFolder:
    add_parts(running[0], ["OK", "REVIEW", "NG", "OK"] * 20)
    raise_alarms(running[0], {})
    return running[0]


@pytest.fixture
def server(running: Running, folder: StationFolder) -> Server:
    return running[1]


@pytest.fixture
def page(context: BrowserContext, server: Server) -> Page:
    opened = context.new_page()
    opened.goto(f"{server.url}/line")
    return opened


def choose(page: Page, language: str) -> None:
    page.click(f".languages button[value={language}]")
    expect(page.locator("html")).to_have_attribute("lang", language)


def log_in(page: Page, server: Server, name: str, pin: str = PIN) -> None:
    page.goto(f"{server.url}/login")
    page.select_option("#name", name)
    page.fill("#pin", pin)
    page.click("main button.primary")


def fits(page: Page) -> bool:
    """Nothing to scroll, and no text that is cut off at the right of its box."""
    return bool(
        page.evaluate(
            """() => {
            var root = document.documentElement, all = document.querySelectorAll("main *"), k;
            if (root.scrollWidth > 1280 || root.scrollHeight > 800) { return false; }
            for (k = 0; k < all.length; k += 1) {
                if (all[k].closest("svg, .cut, .id") === null && all[k].scrollWidth > all[k].clientWidth + 1
                    && getComputedStyle(all[k]).display !== "inline") { return false; }
                if (all[k].getBoundingClientRect().bottom > 800) { return false; }
            }
            return true;
        }"""
        )
    )


def font_size(page: Page, selector: str) -> float:
    """In one step: the page renews itself."""
    return float(
        page.evaluate("s => parseFloat(getComputedStyle(document.querySelector(s)).fontSize)", selector)
    )


def smallest_target(page: Page) -> float:
    sides = page.evaluate(
        """() => Array.from(document.querySelectorAll("a, button, select, input:not([type=hidden])"), e => {
            var box = e.getBoundingClientRect(); return Math.min(box.width, box.height); })"""
    )
    assert len(sides) >= 6
    return float(min(sides))


def test_the_page_gives_way_to_the_station(server: Server) -> None:
    assert os.sched_getscheduler(server.process.pid) == os.SCHED_IDLE


def test_every_page_fits_the_panel_in_every_language(page: Page, server: Server, folder: StationFolder) -> None:
    words = "record 12, TRIAL, bundle 7f3a91c27f3a91c2, T1 0.37, T2 0.45"
    for _ in range(9):
        audit.append(folder, audit.Entry("masters interval", "sato + abe", words, words, "why " * 70))
    raise_alarms(folder, URGENT)
    log_in(page, server, "sato")
    for language in LANGUAGES:
        choose(page, language)
        for path in (*(module.MENU.path for module in _PAGES), "/line/alarms", "/login", "/nowhere"):
            page.goto(server.url + path)
            assert fits(page), (path, language)
            assert smallest_target(page) >= 48, (path, language)


def test_all_that_can_be_said_at_once_fits_in_every_language(
    page: Page, server: Server, folder: StationFolder, told: dict[str, Any]
) -> None:
    """Nothing is released, parts wait, and every alarm there is."""
    inspect(folder, [Made(0.4)] * 3)
    raise_alarms(folder, {alarm.key: "UNACK" for alarm in CATALOGUE})
    told |= {"state": "FAULT", "reason": "the camera is set otherwise: " * 9, "numbers": {"ready": 0}}
    show_live(folder, **told)
    log_in(page, server, "sato")
    for language in LANGUAGES:
        choose(page, language)
        page.goto(f"{server.url}/line/alarms")
        assert fits(page), language
        assert smallest_target(page) >= 48, language
        for verdict in ("NG", "NO_DECISION"):
            add_parts(folder, [verdict])
            page.goto(f"{server.url}/line")
            expect(page.locator("#held")).to_be_visible()
            expect(page.locator("#waiting")).to_be_visible()
            assert fits(page), (language, verdict)
            assert font_size(page, "#verdict b") >= 46
            assert page.evaluate("document.querySelector('.why').getBoundingClientRect().bottom") <= 790
    told.clear()
    show_live(folder)


def test_an_alarm_is_acknowledged_while_the_panel_renews_itself(
    page: Page, server: Server, folder: StationFolder
) -> None:
    raise_alarms(folder, {"camera_lost": "UNACK"})
    log_in(page, server, "sato")
    button = page.get_by_role("button", name="Acknowledge")
    box = button.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    for _ in range(3):  # what comes meanwhile does not take the button away from under the finger
        add_parts(folder, ["NG"])
        with page.expect_response("**/line/panel"):
            pass
    page.mouse.up()
    expect(page.get_by_text("✓ sato")).to_be_visible()
    assert shown_alarms(folder.database)[0].standing.acked_by == "sato"


def test_the_focus_stays_where_it_was_while_the_panel_renews_itself(
    page: Page, server: Server, folder: StationFolder
) -> None:
    raise_alarms(folder, {"camera_lost": "UNACK"})
    log_in(page, server, "sato")
    page.get_by_role("button", name="Acknowledge").focus()
    add_parts(folder, ["NG"])
    expect(page.locator("#verdict")).to_have_class("verdict NG")
    assert page.evaluate("document.activeElement.id") == "ack-camera_lost-0"
    page.keyboard.press("Enter")
    expect(page.get_by_text("✓ sato")).to_be_visible()


def test_a_verdict_is_whole_and_large_in_every_language(
    page: Page, folder: StationFolder, server: Server
) -> None:
    for language in LANGUAGES:
        choose(page, language)
        for verdict in ("OK", "REVIEW", "NG", "MISSED", "NO_DECISION"):
            add_parts(folder, [verdict])
            page.goto(f"{server.url}/line")
            shown = page.locator("#verdict b")
            expect(shown).to_contain_text(load_words()[language](f"verdict_{verdict}"))
            assert fits(page), (verdict, language)
            # At 2 m on a 15-inch panel, capitals of 46 px text are 8.7 mm or 15 arc minutes high.
            assert font_size(page, "#verdict b") >= 46
        assert font_size(page, ".state") >= 46


def test_nothing_is_asked_of_another_host(page: Page, context: BrowserContext, server: Server) -> None:
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    failed: list[str] = []
    page.on("console", lambda message: failed.append(message.text))
    page.on("pageerror", lambda error: failed.append(str(error)))
    log_in(page, server, "sato")
    for path in ("/line", "/log"):
        page.goto(server.url + path)
    page.goto(f"{server.url}/line")
    with page.expect_response("**/line/panel"):
        pass
    assert {urlsplit(url).hostname for url in asked} == {"127.0.0.1"}
    assert {"/line/panel", "/live.jpg", "/static/page.js"} <= {urlsplit(url).path for url in asked}
    assert failed == []


def test_the_line_renews_itself(page: Page, folder: StationFolder) -> None:
    expect(page.locator("#verdict")).to_have_class("verdict OK")
    add_parts(folder, ["NG"])
    expect(page.locator("#verdict")).to_have_class("verdict NG")
    assert (folder.run / "watched").exists()


def test_an_alarm_that_stands_is_read_aloud_once(page: Page, folder: StationFolder) -> None:
    """A screen reader reads an alert again whenever it is made anew."""
    raise_alarms(folder, {"camera_lost": "UNACK"})
    expect(page.get_by_role("alert")).to_be_visible()

    def is_left_alone() -> bool:
        page.evaluate("document.querySelector('[role=alert]').isFirst = true")
        for _ in range(3):
            with page.expect_response("**/line/panel"):
                pass
        return bool(page.evaluate("document.querySelector('[role=alert]').isFirst"))

    assert any(is_left_alone() for _ in range(6))  # the counts beside it change once more


def test_an_unreachable_page_shows_no_old_verdict(
    page: Page, folder: StationFolder, serve_page: Callable[..., Server]
) -> None:
    other = serve_page(folder)
    page.goto(f"{other.url}/line")
    expect(page.locator("#verdict")).to_be_visible()
    other.stop()
    expect(page.locator(".lost")).to_contain_text("what was shown is old")
    assert page.locator("#verdict").count() == 0


def test_login_wrong_pin_wait_and_logout(page: Page, server: Server) -> None:
    log_in(page, server, "sato", "000000")
    alert = page.get_by_role("alert")
    expect(alert).to_have_text("Name or PIN is wrong.")
    while "Too early for another try" not in alert.inner_text():  # each wrong PIN makes the wait longer
        log_in(page, server, "sato", "000000")
        expect(alert).to_be_visible()
    page.wait_for_timeout(1000 * int(re.findall(r"\d+", alert.inner_text())[0]))
    log_in(page, server, "sato")
    page.get_by_role("button", name="sato: log out").click()
    expect(page.get_by_role("link", name="Log in")).to_be_visible()


def test_a_pin_can_be_tapped(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/login")
    page.select_option("#name", "vera")
    for digit in "1" + PIN:
        page.locator(".pad button", has_text=digit).click()
    for _ in PIN:
        page.locator(".pad button", has_text="\u232b").click()
    page.locator(".pad button", has_text="\u232b").click()
    for digit in PIN:
        page.locator(".pad button", has_text=digit).click()
    page.click("main button.primary")
    expect(page.get_by_role("button", name="vera: log out")).to_be_visible()


def test_the_keyboard_reaches_every_page(page: Page) -> None:
    page.keyboard.press(str(len(_PAGES)))
    page.wait_for_url("**/log")
    page.keyboard.press("1")
    page.wait_for_url("**/line")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "/line"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "4px"


def test_everything_works_without_javascript(chromium: Browser, server: Server, folder: StationFolder) -> None:
    context = chromium.new_context(viewport=PANEL, java_script_enabled=False)
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    for name in PEOPLE:
        log_in(page, server, name)
        expect(page.get_by_role("button", name=f"{name}: log out")).to_be_visible()
        page.get_by_role("button", name=f"{name}: log out").click()
    raise_alarms(folder, {"camera_lost": "UNACK"})
    log_in(page, server, "sato")
    page.get_by_role("button", name="Acknowledge").click()
    expect(page.get_by_text("✓ sato")).to_be_visible()
    page.get_by_role("link", name="All alarms: 1").click()
    page.get_by_role("button", name="Set aside 30 min").click()
    page.get_by_role("button", name="Bring back").click()
    raise_alarms(folder, {})
    page.goto(f"{server.url}/line")
    page.click("button[value=ja]")
    expect(page.get_by_role("link", name="履歴")).to_be_visible()
    page.click("button[value=en]")
    expect(page.locator("#verdict")).to_have_class("verdict OK")
    add_parts(folder, ["NG"])
    expect(page.locator("#verdict")).to_have_class("verdict NG")  # it reloads every 5 s
    context.close()
