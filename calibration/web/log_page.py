"""The Log page: who changed what, and why."""

from __future__ import annotations

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from kenpin.calibration.web.access import needs
from kenpin.calibration.web.log_rows import read_log, to_csv
from kenpin.calibration.web.page import page, spreadsheet, words_of
from kenpin.calibration.web.role import Role
from kenpin.calibration.web.site import Page
from kenpin.calibration.web.visitor import site_of

MENU = Page("log", "/log")
ROWS = 8
router = APIRouter()


@router.get(MENU.path, dependencies=needs(Role.VIEWER))
def log(request: Request, sheet: int = Query(default=1, ge=1, le=100_000)) -> Response:
    """One sheet of the log, newest first."""
    found = read_log(site_of(request).folder)
    each = ROWS - 2 if found.fault else ROWS  # what is wrong takes the room of two
    sheets = max(1, -(-len(found.rows) // each))
    sheet = min(sheet, sheets)
    rows = found.rows[(sheet - 1) * each : sheet * each]
    show = {"rows": rows, "found": found, "sheet": sheet, "sheets": sheets}
    return page(request, "log.html", show)


@router.get("/log.csv", dependencies=needs(Role.VIEWER))
def log_csv(request: Request) -> Response:
    """All of it, for a spreadsheet."""
    text = to_csv(read_log(site_of(request).folder), separator=words_of(request).separator)
    return spreadsheet(request, text, "log")
