"""Who may do what: a matrix of the application's own routes and all roles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import APIRoute

from kenpin.calibration.web.access import check_declared, needs, role_of
from kenpin.calibration.web.app import create_app
from kenpin.calibration.web.role import Role
from kenpin.calibration.web.signature import Signature, signature
from kenpin.config import WebSection
from kenpin.errors import ConfigError
from kenpin.station_folder import StationFolder
from tests.calibration.web.page_station import PEOPLE, PIN, MakeVisit, Visit

changes = APIRouter()


@changes.post("/change", dependencies=needs(Role.TECHNICIAN))
def change(signed: Annotated[Signature, Depends(signature)], t1: float) -> dict[str, object]:
    """A change as another page may offer it: signed by a technician."""
    return {"by": signed.by, "why": signed.why, "t1": t1}


@changes.get("/bench", dependencies=needs(Role.TECHNICIAN))
def bench() -> str:
    return "bench"


@changes.post("/station", dependencies=needs(Role.ENGINEER))
def station() -> str:
    return "station"


@pytest.fixture
def changing(visit: MakeVisit) -> MakeVisit:
    """A browser at a page that has changes to offer as well."""

    def open_page(**section: Any) -> Visit:
        browser = visit(**section)
        app: Any = browser.app
        app.router.routes.extend(changes.routes)
        return browser

    return open_page


def routes_of(browser: Visit) -> Iterator[tuple[str, str, Role]]:
    app: Any = browser.app
    for route in app.routes:
        assert isinstance(route, APIRoute)
        role = role_of(route)
        assert role is not None, route.path
        for method in route.methods:
            yield method, route.path, role


@pytest.mark.parametrize("open_view", [True, False])
@pytest.mark.parametrize("name", ["", *PEOPLE])
def test_each_route_is_open_to_its_role_and_those_above(
    changing: MakeVisit, name: str, *, open_view: bool
) -> None:
    browser = changing(open_view=open_view)
    if name:
        assert browser.log_in(name).status_code == 303
    own = Role[PEOPLE[name].upper()] if name else Role.VIEWER if open_view else Role.ANYONE
    seen = 0
    for method, path, role in routes_of(browser):
        if path in ("/logout", "/login"):  # they end the login, and are tried below
            continue
        seen += 1
        answer = browser.get(path) if method == "GET" else browser.submit(f"{path}?t1=1", pin=PIN, why="test")
        if own >= role:
            assert answer.status_code not in (401, 403), (method, path)
        else:
            assert answer.status_code == (403 if name else 401), (method, path)
    assert seen >= 11


def test_anybody_may_log_in_and_out(visit: MakeVisit) -> None:
    browser = visit(open_view=False)
    assert browser.get("/login").status_code == 200
    assert browser.log_in("vera").headers["location"] == "/"
    assert browser.get("/line").status_code == 200
    assert browser.submit("/logout").status_code == 303
    assert browser.get("/line").status_code == 401


def test_a_route_without_a_role_is_refused_at_the_start(
    folder: StationFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kenpin.calibration.web import log_page  # noqa: PLC0415

    undeclared = APIRouter()
    undeclared.add_api_route("/forgotten", lambda: "x")
    monkeypatch.setattr(log_page, "router", undeclared)
    with pytest.raises(ConfigError, match="declares no role") as error:
        create_app(folder, WebSection(), station="L2-03")
    assert error.value.where == "/forgotten"


def test_a_mounted_application_is_no_declared_route() -> None:
    app = FastAPI(openapi_url=None)
    app.mount("/elsewhere", FastAPI())
    with pytest.raises(ConfigError, match="declares no role"):
        check_declared(app.routes)


def test_a_change_is_signed(changing: MakeVisit) -> None:
    browser = changing()
    browser.log_in("sato")
    answer = browser.submit("/change?t1=0.5", pin=PIN, why=" lens cleaned ")
    assert answer.json() == {"by": "sato", "why": "lens cleaned", "t1": 0.5}


def test_a_signature_needs_the_pin_again_and_a_reason(changing: MakeVisit) -> None:
    browser = changing()
    browser.log_in("sato")
    assert browser.submit("/change?t1=1", pin=PIN, why=" ").status_code == 422
    assert browser.submit("/change?t1=1", pin="wrong-pin", why="x").status_code == 401
    early = browser.submit("/change?t1=1", pin=PIN, why="x")
    assert early.status_code == 429
    assert "Too early" in early.text


@pytest.mark.parametrize(
    ("second", "pin", "status"),
    [("abe", PIN, 200), ("", "", 422), ("sato", PIN, 422), ("vera", PIN, 403), ("abe", "wrong-pin", 401)],
)
def test_a_second_person_signs_too_where_one_is_wanted(
    changing: MakeVisit, second: str, pin: str, status: int
) -> None:
    browser = changing(second_person=True)
    browser.log_in("sato")
    answer = browser.submit("/change?t1=1", pin=PIN, why="x", second_name=second, second_pin=pin)
    assert answer.status_code == status
    if status == 200:
        assert answer.json()["by"] == "sato + abe"
