"""Pictures of every page of the technician, in English and Japanese, for docs/page: a calibration.

    python -m scripts.page_shots

The parts are drawn. Needs Chromium.
"""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import Page, sync_playwright

from kenpin.calibration.web.users import Users
from kenpin.station_folder import StationFolder
from tests.calibration.web.page_station import PANEL, PIN, Server
from tests.calibration.web.shown_line import ShownLine

OUT = Path(__file__).parents[1] / "docs/page"
LANGUAGES = ("ja", "en")  # ends in the one in which the buttons are read
STRENGTHS = (0.62, 0.66, 0.7, 0.74, 0.78, 0.82, 0.86, 0.9, 0.95, 1.0)
_QUALITY = 82


def shoot(page: Page, name: str) -> None:
    """Keep what is shown, in each language."""
    for language in LANGUAGES:
        page.click(f".languages button[value={language}]")
        page.wait_for_timeout(1500)
        png = np.frombuffer(page.screenshot(), np.uint8)
        picture = cv2.imdecode(png, cv2.IMREAD_COLOR)
        cv2.imwrite(str(OUT / f"{name}-{language}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])


def calibrate(page: Page, line: ShownLine) -> None:
    """From nothing to a signed trial."""
    line.good(1)
    shoot(page, "1-camera")
    page.get_by_text("Camera is good").click()
    line.wait(lambda: line.state() == "CALIBRATING", "the calibration")
    line.good(50)
    shoot(page, "2-good-parts")
    page.get_by_text("Done: show the NG masters").click()
    for strength in STRENGTHS:
        line.bad(strength)
        page.locator(".choice input").first.check()
        page.fill("#type", "stain")
        page.get_by_text("This is the master").click()
        page.wait_for_timeout(300)
    shoot(page, "3-masters")
    page.get_by_text("Done: set the thresholds").click()
    shoot(page, "4-thresholds")
    page.get_by_text("Accept for TRIAL").click()
    shoot(page, "5-sign")
    page.fill("#why", "first set-up")
    for digit in PIN:
        page.locator(".pad").get_by_text(digit, exact=True).click()
    page.uncheck("[name=keep]")
    page.get_by_role("button", name="Sign", exact=True).click()
    line.wait(lambda: line.state() == "RUNNING", "the station by its new record")
    line.good(20)
    line.bad(0.7)
    shoot(page, "6-confirm")


def main() -> None:
    """Make them all."""
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        root = Path(name, "line")
        root.mkdir()
        users = Users(StationFolder(Path(name)))
        users.add("sato", "technician", PIN, by="root")
        with closing(ShownLine(root, users.path)) as line:
            server = Server(line.folder)
            server.wait()
            chromium = playwright.chromium
            browser = chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            try:
                walk(browser.new_page(viewport=PANEL), server, line)
            finally:
                browser.close()
                server.stop()


def walk(page: Page, server: Server, line: ShownLine) -> None:
    """Log in, calibrate, and look at the other pages."""
    page.goto(f"{server.url}/login")
    page.select_option("#name", "sato")
    page.fill("#pin", PIN)
    page.click("main button.primary")
    page.goto(f"{server.url}/calibrate")
    calibrate(page, line)
    for place in ("line", "line/alarms", "review", "what-if", "drift", "shift", "log"):
        page.goto(f"{server.url}/{place}")
        if place == "line":
            line.bad(0.75)
        shoot(page, place.rpartition("/")[2])


if __name__ == "__main__":
    main()
