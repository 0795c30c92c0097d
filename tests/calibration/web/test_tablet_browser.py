"""Every page on a telephone, a tablet, a small panel and the one it is made for, in a real Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from kenpin.book import calibration_lock, open_book
from kenpin.calibration.review import keep_answer
from kenpin.calibration.review_bench import waiting_parts
from kenpin.calibration.web.app import _PAGES
from kenpin.calibration.web.calibrate_parts import newest_seq
from kenpin.calibration.web.calibrate_run import Label, Runs, Start, Step
from kenpin.calibration.web.users import Users
from kenpin.edge_runtime.database import open_database
from kenpin.station_folder import StationFolder
from tests.calibration.inspected import BUNDLE, Made, inspect, inspected
from tests.calibration.web.page_station import PIN, Server, raise_alarms, show_live
from tests.calibration.web.test_browser import LANGUAGES, choose, fits, log_in
from tests.calibration.web.test_review_browser import smallest_target

SIZES: list[Any] = [
    {"width": 768, "height": 1024},
    {"width": 1024, "height": 768},
    {"width": 1280, "height": 800},
]
PHONE: Any = {"width": 390, "height": 844}
FURTHER = ["/line/alarms", "/review/near", "/review/second", "/what-if?t1=0.3&t2=0.5", "/login", "/nowhere"]
FURTHER += ["/drift?show=picture", "/calibrate?step=camera", "/calibrate?step=confirm", "/calibrate/view"]
TOO_WIDE = """() => {
    var root = document.documentElement, found = [];
    if (root.scrollWidth > innerWidth) { found.push("the page: " + root.scrollWidth); }
    document.querySelectorAll("header, header *, main, main *").forEach(e => {
        if (!e.closest("svg, .cut, .id, .hidden-first") && getComputedStyle(e).display !== "inline"
            && (e.scrollWidth > e.clientWidth + 1 || e.getBoundingClientRect().right > innerWidth)) {
            found.push(e.tagName + " " + e.className + ": " + e.scrollWidth);
        }
    });
    return found;
}"""
BOXES = """() => [".state", "#verdict", ".alarms button.primary"].map(s => {
    var box = document.querySelector(s).getBoundingClientRect();
    return [box.left, box.right, box.bottom];
})"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, users_file: Path) -> StationFolder:
    """A station that has stopped, with parts, masters and alarms."""
    made = inspected(tmp_path_factory.mktemp("tablet"), users_file)
    keep_answer(made, waiting_parts(made, [], limit=1)[0], "bad", name="abe", is_master=True)
    raise_alarms(made, {"engine_integrity": "UNACK", "ng_consecutive": "LATCH_UNACK"})
    return made


@pytest.fixture(scope="module")
def server(folder: StationFolder) -> Iterator[Server]:
    started = Server(folder)
    started.wait()
    yield started
    started.stop()


@pytest.fixture
def page(context: BrowserContext, server: Server) -> Page:
    opened = context.new_page()
    log_in(opened, server, "sato")
    return opened


def check(page: Page, *urls: str) -> None:
    """Nothing is wider than its place, at any size and in any language; on the panel nothing is to scroll."""
    for language in LANGUAGES:
        page.set_viewport_size(SIZES[-1])
        choose(page, language)
        for url in urls:
            page.goto(url)
            for size in (PHONE, *SIZES):
                page.set_viewport_size(size)
                assert page.evaluate(TOO_WIDE) == [], (url, language, size)
                assert smallest_target(page) >= 48, (url, language, size)
            assert fits(page), (url, language)


def test_no_page_is_wider_than_the_screen(page: Page, server: Server) -> None:
    check(page, *(server.url + path for path in [*(module.MENU.path for module in _PAGES), *FURTHER]))


def test_the_longest_name_and_a_reason_without_a_blank_are_not_wider_than_the_screen(
    context: BrowserContext, server: Server, folder: StationFolder
) -> None:
    name = "Maximilian-Alexander_Mustermannx"
    Users(folder).add(name, "technician", PIN, by="test")
    with calibration_lock(folder):
        book = open_book(folder)
        book.append({**book.records[-1].model_dump(by_alias=True), "by": f"{name} + {name}", "why": "w" * 300})
    opened = context.new_page()
    log_in(opened, server, name)
    check(opened, f"{server.url}/line", f"{server.url}/calibrate?step=confirm", f"{server.url}/log")
    expect(opened.get_by_title(f"{name}, ")).to_contain_text("Maximilia…")


def test_a_shift_check_is_not_wider_than_the_screen(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/shift")
    page.get_by_role("button", name="Begin the shift check").click()
    check(page, f"{server.url}/shift", f"{server.url}/shift/give-up")


def test_no_step_of_a_calibration_is_wider_than_the_screen(
    page: Page, server: Server, folder: StationFolder
) -> None:
    runs = Runs(folder.root / "page.db")
    runs.begin(Start("sato", BUNDLE, "int8", newest_seq(folder.database)))
    good = inspect(
        folder, [Made(0.2 + 0.002 * k, cause="calibrating", light=60.0 + 60 * (k % 2)) for k in range(30)]
    )
    steps: list[Step] = ["good", "masters", "limits", "sign"]
    for step in steps:
        runs.go(step, newest_seq=good[-1])
        if step == "masters":
            bad = inspect(folder, [Made(0.5 + 0.02 * k, cause="calibrating") for k in range(12)])
            for number, seq in enumerate(bad[:8], start=1):
                runs.label(seq, Label("master", f"M-{number:02}-scratch", "scratch 0.3 mm"))
        check(page, f"{server.url}/calibrate")
        assert page.locator("#light-wide").count() == (step in ("limits", "sign"))
    with closing(open_database(folder.database)) as connection:
        connection.execute("UPDATE part SET part_id = ? WHERE seq = ?", (f"SN-{'7' * 61}", good[0]))
    check(page, f"{server.url}/calibrate/look/{good[0]}")
    runs.end()


def test_a_stopped_station_is_seen_to_be_stopped(page: Page, server: Server, folder: StationFolder) -> None:
    for language in LANGUAGES:
        choose(page, language)
        show_live(folder, state="STOPPED")
        inspect(folder, [Made(None, cause="blurred")])
        for size in SIZES:
            page.set_viewport_size(size)
            page.goto(f"{server.url}/line")
            expect(page.locator(".state")).to_have_class("state STOPPED")
            state, verdict, acknowledge = page.evaluate(BOXES)
            for left, right, _ in (state, verdict, acknowledge):
                assert left >= 0, (language, size)
                assert right <= size["width"], (language, size)
            assert state[2] < verdict[2] <= size["height"], (language, size)
            assert acknowledge[2] <= size["height"], (language, size)
            assert page.evaluate(TOO_WIDE) == [], (language, size)


def test_the_scores_of_the_last_parts_are_not_cut_off(
    page: Page, server: Server, folder: StationFolder
) -> None:
    """A score without its end is another score."""
    inspect(folder, [Made(123.4, cause="masters_due")] * 3)
    check(page, f"{server.url}/line")
