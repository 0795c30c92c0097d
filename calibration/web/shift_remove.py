"""Beside the shift check: a master is taken off the list, as when it is worn or lost."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from kenpin.calibrating import read_calibrating
from kenpin.calibration.masters_book import remove_master
from kenpin.calibration.web.access import needs
from kenpin.calibration.web.page import page
from kenpin.calibration.web.refusal import Refused
from kenpin.calibration.web.role import Role
from kenpin.calibration.web.signature import Signature, signature
from kenpin.calibration.web.visitor import site_of
from kenpin.errors import DataError
from kenpin.masters import read_masters

router = APIRouter()


@router.get("/shift/remove", dependencies=needs(Role.TECHNICIAN))
def ask_to_remove(request: Request, master: Annotated[str, Query(max_length=64)] = "") -> Response:
    """The form that takes a master off the list.

    Raises:
        Refused: 404 if none is registered.
    """
    known = read_masters(site_of(request).folder).registered
    if not known:
        raise Refused(404, "shift_no_masters")
    return page(request, "shift_remove.html", {"masters": known, "chosen": master})


@router.post("/shift/remove", dependencies=needs(Role.TECHNICIAN))
def remove(
    request: Request,
    signed: Annotated[Signature, Depends(signature)],
    master: Annotated[str, Form(max_length=64)] = "",
) -> Response:
    """Take a master off the list; not while they are shown, as nobody could tell then what was to be seen.

    Raises:
        Refused: 409 if somebody calibrates or checks, or there is no such master.
    """
    folder = site_of(request).folder
    if read_calibrating(folder) is not None:
        raise Refused(409, "shift_busy")
    try:
        remove_master(folder, master, by=signed.by, why=signed.why)
    except DataError:
        raise Refused(409, "shift_no_master") from None
    return RedirectResponse("/shift", status_code=303)
