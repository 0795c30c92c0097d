"""A station's folder as the page sees it, and the page itself, in this process or in one of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright

from kenpin.calibration.web.app import create_app
from kenpin.calibration.web.users import Users
from kenpin.config import WebSection
from kenpin.station_folder import StationFolder
from tests.calibration.web.page_station import PANEL, PEOPLE, PIN, WAIT_MS, MakeVisit, Server, Visit
from tests.calibration.web.shown_line import ShownLine


@pytest.fixture
def folder(tmp_path: Path) -> StationFolder:
    made = StationFolder(tmp_path / "state")
    made.create()
    made.run.mkdir()
    return made


@pytest.fixture(scope="session")
def users_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One user of each role; made once, as PINs are slow to hash on purpose."""
    made = StationFolder(tmp_path_factory.mktemp("users"))
    for name, role in PEOPLE.items():
        Users(made).add(name, role, PIN, by="test")  # type: ignore[arg-type]
    return Users(made).path


@pytest.fixture
def people(folder: StationFolder, users_file: Path) -> StationFolder:
    """A station's folder with one user of each role."""
    shutil.copy(users_file, Users(folder).path)
    return folder


@pytest.fixture
def visit(people: StationFolder) -> MakeVisit:
    """A new browser at a page of its own."""

    def open_page(*, address: str = "127.0.0.1", **section: Any) -> Visit:
        app = create_app(people, WebSection(**section), station="L2-03")
        # `https`, as the client of the tests sends no Secure cookies over http, not even to loopback.
        return Visit(app, base_url="https://127.0.0.1", client=(address, 50000), follow_redirects=False)

    return open_page


@pytest.fixture
def serve_page() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(folder: StationFolder, **section: Any) -> Server:
        servers.append(Server(folder, **section))
        servers[-1].wait()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests; each opens a context of its own."""
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """A visitor with the panel of a station."""
    made = chromium.new_context(viewport=PANEL)
    made.set_default_timeout(WAIT_MS)
    yield made
    made.close()


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory, users_file: Path) -> Iterator[ShownLine]:
    """A station that runs, for the tests of one module."""
    made = ShownLine(tmp_path_factory.mktemp("shown"), users_file)
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(line: ShownLine) -> Iterator[Server]:
    """Its page, in a process of its own."""
    made = Server(line.folder)
    made.wait()
    yield made
    made.stop()
