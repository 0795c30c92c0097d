"""Shift check, Review bench, What-if and Drift in a real Chromium: what people see, touch and type."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from kenpin.calibration.review import keep_answer, reviewed_parts
from kenpin.calibration.review_bench import waiting_parts
from kenpin.masters import read_masters
from kenpin.station_folder import StationFolder
from tests.calibration.inspected import Made, inspect, inspected
from tests.calibration.web.page_station import PANEL, PIN, WAIT_MS, Server, show_live
from tests.calibration.web.test_browser import LANGUAGES, choose, fits, log_in

SHOWN = Made(0.8, cause="calibrating"), Made(0.2, cause="calibrating")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, users_file: Path) -> StationFolder:
    """One for all tests, as each page's process takes seconds."""
    made = inspected(tmp_path_factory.mktemp("inspected"), users_file)
    show_live(made)
    return made


@pytest.fixture(scope="module")
def server(folder: StationFolder) -> Iterator[Server]:
    started = Server(folder, second_person=True)  # then the forms are longest
    started.wait()
    yield started
    started.stop()


@pytest.fixture
def page(context: BrowserContext, server: Server) -> Iterator[Page]:
    opened = context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))

    def hear(message: ConsoleMessage) -> None:
        # A check that was just ended answers the page's last question with 404.
        if message.type == "error" and not message.location["url"].endswith("/shift/panel"):
            faults.append(message.text)

    opened.on("console", hear)
    log_in(opened, server, "sato")
    yield opened
    assert faults == []


def smallest_target(page: Page) -> float:
    """Of what can be seen."""
    sides = page.evaluate(
        """() => Array.from(document.querySelectorAll("a, button, select, input:not([type=hidden])"), e => {
            var box = e.getBoundingClientRect(); return Math.min(box.width, box.height); }).filter(Boolean)"""
    )
    assert len(sides) >= 6
    return float(min(sides))


def check_everywhere(page: Page, *urls: str) -> None:
    for language in LANGUAGES:
        choose(page, language)
        for url in urls:
            page.goto(url)
            assert fits(page), (url, language)
            assert smallest_target(page) >= 48, (url, language)
    choose(page, "en")


def test_every_page_fits_in_every_language(page: Page, server: Server, folder: StationFolder) -> None:
    first, second, *rest = waiting_parts(folder, [], limit=9)
    keep_answer(folder, first, "bad", name="abe", is_master=True)
    keep_answer(folder, rest[0], "good", name="abe", is_master=False)
    where = ["/shift", f"/review?part={second.seq}&done={rest[0].seq}", "/review/near", "/review/second"]
    where += ["/what-if?t1=0.3&t2=0.5", "/what-if?t1=0.6", "/drift", "/drift?show=mid", "/drift?show=picture"]
    check_everywhere(page, *(server.url + path for path in where))
    keep_answer(folder, first, "bad", name="vera", is_master=False)
    check_everywhere(page, f"{server.url}/review/second")


def test_a_check_is_followed_and_a_failed_one_lists_parts(
    page: Page, server: Server, folder: StationFolder
) -> None:
    page.goto(f"{server.url}/shift")
    page.get_by_role("button", name="Begin the shift check").click()
    expect(page.locator(".big")).to_contain_text("Show master M-01-scratch 1 / 3")
    inspect(folder, [Made(0.2, cause="calibrating")])
    expect(page.locator(".big")).to_have_text("Show a good part")
    expect(page.locator(".just .large")).to_contain_text("OK")
    end = page.get_by_role("button", name="Write the result down")
    expect(end).to_be_disabled()
    check_everywhere(page, f"{server.url}/shift", f"{server.url}/shift/give-up")
    inspect(folder, [SHOWN[1], *SHOWN * 35])
    page.goto(f"{server.url}/shift")
    expect(end).to_be_enabled()
    end.click()
    expect(page.locator(".doubt h1")).to_have_text("Parts in doubt: 1,260")
    check_everywhere(page, f"{server.url}/shift")
    assert read_masters(folder).last is not None


def test_keys_answer_at_the_bench(page: Page, server: Server, folder: StationFolder) -> None:
    answered = [r.newest.part_seq for r in reviewed_parts(folder)]
    first, second, third = waiting_parts(folder, answered, limit=3)
    page.goto(f"{server.url}/review")
    page.keyboard.press("ArrowRight")
    page.wait_for_url(f"**/review?part={second.seq}")
    page.keyboard.press("m")
    page.keyboard.press("n")
    page.wait_for_url(f"**/review?done={second.seq}")
    page.keyboard.press("O")
    page.wait_for_url(f"**/review?done={first.seq}")
    expect(page.locator(".facts-of-part")).to_contain_text(third.part_id)
    found = {r.newest.part_seq: (r.label, r.is_master) for r in reviewed_parts(folder)}
    assert (found[first.seq], found[second.seq]) == (("good", False), ("bad", True))
    assert third.seq not in found


def test_moving_t1_shows_at_once_what_would_change(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/what-if")
    expect(page.locator(".changed")).to_contain_text("no part would be judged otherwise")
    page.focus("#t1")
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    expect(page.locator(".changed")).to_contain_text("OK → REVIEW")
    page.locator("#t1").fill(page.locator("#t1").get_attribute("max") or "")
    expect(page.locator(".changed")).to_contain_text("NG → OK")
    assert page.locator("#t2").input_value() == page.locator("#t1").input_value()


def test_nothing_old_stands_beside_a_slider_that_was_moved(context: BrowserContext, server: Server) -> None:
    page = context.new_page()  # one whose faults are not counted: the browser tells of the request that fails
    log_in(page, server, "sato")
    page.goto(f"{server.url}/what-if")
    page.route("**/what-if/panel?*", lambda route: route.abort())
    page.focus("#t1")
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("alert")).to_contain_text("No connection to the station")
    expect(page.locator("#outcome .figure")).to_have_count(0)
    page.unroute("**/what-if/panel?*")
    expect(page.locator("#outcome .figure").first).to_be_visible()


def test_all_of_it_works_without_javascript(chromium: Browser, server: Server, folder: StationFolder) -> None:
    context = chromium.new_context(viewport=PANEL, java_script_enabled=False)
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    log_in(page, server, "sato")
    page.goto(f"{server.url}/review")
    page.get_by_role("button", name="Bad (N)").click()
    expect(page.get_by_role("link", name="Correct the last answer")).to_be_visible()
    page.goto(f"{server.url}/what-if")
    page.get_by_role("button", name="Show").click()
    expect(page.locator(".changed")).to_contain_text("no part would be judged otherwise")
    page.goto(f"{server.url}/shift")
    page.get_by_role("button", name="Begin the shift check").click()
    inspect(folder, SHOWN * 36)
    expect(page.get_by_role("button", name="Write the result down")).to_be_enabled()  # it reloads every 3 s
    page.get_by_role("link", name="Give this check up").click()
    page.fill("#why", "test")
    page.fill("#sign-pin", PIN)
    page.select_option("#second-name", "abe")
    page.fill("#second-pin", PIN)
    page.get_by_role("button", name="Give this check up").click()
    expect(page.get_by_role("button", name="Begin the shift check")).to_be_visible()
    context.close()


def test_a_second_tap_sends_nothing(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/shift")
    stopped = page.evaluate(
        """() => {
            var form = document.querySelector("main form"), stopped = [];
            addEventListener("submit", e => { stopped.push(e.defaultPrevented); e.preventDefault(); });
            form.requestSubmit();
            form.requestSubmit();
            dispatchEvent(new Event("pageshow"));  // back by the browser's own way: the form may be sent again
            form.requestSubmit();
            return stopped;
        }"""
    )
    assert stopped == [False, True, False]


def test_two_persons_sign_without_a_keyboard(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/shift")
    page.get_by_role("button", name="Begin the shift check").click()
    page.get_by_role("link", name="Give this check up").click()
    usual = page.locator("#reasons option").first.get_attribute("value")
    assert usual == "a wrong part was shown"
    page.fill("#why", usual)  # offered by the field's own list, which no script can open
    assert page.locator("#second-name option").all_inner_texts() == ["", "abe"]  # neither a viewer nor oneself
    for digit in PIN:
        page.locator(".pad").get_by_text(digit, exact=True).click()
    page.select_option("#second-name", "abe")
    page.locator("#second-pin").click()
    for digit in PIN + "1":
        page.locator(".pad").get_by_text(digit, exact=True).click()
    page.locator(".pad").get_by_text("\u232b").click()
    assert (page.input_value("#sign-pin"), page.input_value("#second-pin")) == (PIN, PIN)
    page.get_by_role("button", name="Give this check up").click()
    expect(page.get_by_role("button", name="Begin the shift check")).to_be_visible()
