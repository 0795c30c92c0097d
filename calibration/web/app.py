"""The application: which pages there are, and what becomes of errors."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from kenpin.calibration.web import (
    calibrate_page,
    drift_page,
    line_page,
    log_page,
    login,
    review_page,
    shift_page,
    what_if_page,
)
from kenpin.calibration.web.access import check_declared
from kenpin.calibration.web.attempts import Attempts
from kenpin.calibration.web.calibrate_camera import CameraReader
from kenpin.calibration.web.calibrate_fresh import watching
from kenpin.calibration.web.guard import Guard
from kenpin.calibration.web.line_state import LineReader
from kenpin.calibration.web.login import login_page
from kenpin.calibration.web.page import here, page, page_before, part
from kenpin.calibration.web.page_database import page_file, prepare_page_database
from kenpin.calibration.web.pin_check import PinCheck
from kenpin.calibration.web.pin_trail import PinTrail
from kenpin.calibration.web.refusal import Refused
from kenpin.calibration.web.session import Sessions
from kenpin.calibration.web.site import Site
from kenpin.calibration.web.static_files import static_router, static_url
from kenpin.calibration.web.users import Users
from kenpin.calibration.web.what_if_history import Histories
from kenpin.calibration.web.words import load_words
from kenpin.config import REVIEW_MB, WebSection
from kenpin.errors import KenpinError
from kenpin.station_folder import StationFolder

# In the order of the menu. Each module has a `router` and its `MENU` entry.
_PAGES = (line_page, calibrate_page, shift_page, review_page, what_if_page, drift_page, log_page)


def create_app(
    folder: StationFolder, section: WebSection, *, station: str, review_mb: int = REVIEW_MB
) -> FastAPI:
    """The application, ready to be served.

    Args:
        folder: The station's folder.
        section: How the page is configured.
        station: The station's id.
        review_mb: Room for the pictures that people have labelled.

    Raises:
        ConfigError: A route declares no role.
        StoreError: The page's database cannot be opened.
    """
    routers = [login.router, static_router(), *(p.router for p in _PAGES)]
    routes = [route for router in routers for route in router.routes]
    check_declared(routes)
    app = FastAPI(
        title="kenpin",
        routes=routes,
        lifespan=watching,
        # The pages that FastAPI would offer load scripts from elsewhere.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        middleware=[Middleware(Guard, local_only=not section.has_tls)],
    )
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(KenpinError, _broken)
    app.state.site = _site(folder, section, station, review_mb)
    app.state.line = LineReader(folder)
    app.state.camera = CameraReader(folder)
    app.state.readings = drift_page.Readings(folder)
    app.state.histories = Histories(folder)
    return app


def _site(folder: StationFolder, section: WebSection, station: str, review_mb: int) -> Site:
    users = Users(folder)
    database = page_file(folder)
    prepare_page_database(database)
    return Site(
        station=station,
        folder=folder,
        section=section,
        review_mb=review_mb,
        users=users,
        sessions=Sessions(database),
        pins=PinCheck(users, Attempts(), PinTrail(folder)),
        languages=load_words(),
        templates=_templates(),
        menu=[p.MENU for p in _PAGES],
    )


def _templates() -> Environment:
    loader = PackageLoader("kenpin.calibration.web")
    made = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.globals["static_url"] = static_url
    return made


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    if error.key == "refused_login":
        back = here(request) if request.method == "GET" else page_before(request) or "/"
        return login_page(request, refused=error, back=back)
    return _error_page(request, error.status_code, error.key, error.values)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    key = {404: "refused_unknown", 413: "refused_large"}.get(error.status_code, "refused_request")
    response = _error_page(request, error.status_code, key)
    response.headers.update(error.headers or {})
    return response


def _invalid(request: Request, _error: Exception) -> Response:
    return _error_page(request, 422, "refused_request")


def _broken(request: Request, error: Exception) -> Response:
    """Something of the station cannot be used: say what, and the cure."""
    # Without the menu: who the visitor is may be just what cannot be found out.
    return part(request, "broken.html", {"error": str(error)}, status=503)


def _error_page(
    request: Request, status: int, key: str, values: Mapping[str, object] | None = None
) -> Response:
    show = {"key": key, "values": values or {}, "before": page_before(request)}
    return page(request, "error.html", show, status=status)
