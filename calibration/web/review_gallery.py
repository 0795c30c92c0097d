"""Beside the bench: parts that only just went one way, and the second opinion that makes a part a master."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response

from kenpin.calibration.masters_book import add_master, make_master
from kenpin.calibration.review import Reviewed, kept_picture, picture_path, reviewed_parts
from kenpin.calibration.review_bench import near_misses, waiting_parts
from kenpin.calibration.web.access import needs
from kenpin.calibration.web.page import page
from kenpin.calibration.web.refusal import Refused
from kenpin.calibration.web.review_tabs import LIMIT, Tabs, tabs_of
from kenpin.calibration.web.role import Role
from kenpin.calibration.web.shift_run import shift_under_way
from kenpin.calibration.web.signature import Signature, signature
from kenpin.calibration.web.visitor import site_of, visitor_of
from kenpin.errors import ConfigError
from kenpin.masters import Expected, read_masters
from kenpin.record import record_in_force
from kenpin.station_folder import StationFolder

SHOWN = 12
router = APIRouter()


@router.get("/review/near", dependencies=needs(Role.VIEWER))
def near(request: Request) -> Response:
    """The parts whose scores are nearest to T1: here false calls and escapes are found first."""
    folder = site_of(request).folder
    reviewed = reviewed_parts(folder)
    record = record_in_force(folder)
    found = near_misses(folder, record.bundle_sha256, record.t1, limit=SHOWN) if record else ()
    show = {
        "tabs": _tabs("near", request, reviewed),
        "record": record,
        "parts": found,
        "labels": {r.newest.part_seq: r.label for r in reviewed},
    }
    return page(request, "review_near.html", show)


@router.get("/review/second", dependencies=needs(Role.VIEWER))
def second(request: Request) -> Response:
    """A part that somebody wants to keep as a master, without what was said of it; or one that two agree on."""
    folder, visitor = site_of(request).folder, visitor_of(request)
    reviewed = reviewed_parts(folder)
    # Those on which this visitor has had a say come last: else they would stand before all others.
    wanted = sorted(
        (r for r in reviewed if r.awaits(visitor.name)), key=lambda r: r.is_answered_by(visitor.name)
    )
    agreed = next(iter(_agreed(folder, reviewed)), None)
    shown = wanted[0] if wanted else agreed
    show = {
        "tabs": _tabs("second", request, reviewed),
        "part": wanted[0].newest if wanted else None,
        "agreed": agreed,
        "has_picture": shown is not None and kept_picture(folder, shown) is not None,
        "may": visitor.role >= Role.TECHNICIAN,
    }
    return page(request, "review_second.html", show)


@router.post("/review/master", dependencies=needs(Role.TECHNICIAN))
def register(
    request: Request,
    signed: Annotated[Signature, Depends(signature)],
    seq: Annotated[int, Form(ge=0, lt=1 << 62)],
    master: Annotated[str, Form(max_length=64)],
    kind: Annotated[str, Form(max_length=64)],
) -> Response:
    """Register a part as an NG master, with its picture.

    Raises:
        Refused: 409 if not two people agree that it is bad, or a shift check goes on; 422 if the name cannot be
            used or is taken.
    """
    folder = site_of(request).folder
    if shift_under_way(folder) is not None:  # the masters stay as they are while they are shown
        raise Refused(409, "shift_busy")
    part = next((r for r in _agreed(folder, reviewed_parts(folder)) if r.newest.part_seq == seq), None)
    if part is None:
        raise Refused(409, "review_not_agreed")
    if master in read_masters(folder).registered:
        raise Refused(422, "review_master_taken")
    content = picture_path(folder, part.newest).read_bytes()
    # More than it was judged the station cannot be asked for: no shift check would be passed any more.
    expected: Expected = "NG" if part.newest.verdict == "NG" else "REVIEW"
    try:
        made = make_master(master, kind.strip(), expected, picture=content, suffix=".png")
    except ConfigError:
        raise Refused(422, "review_master_name") from None
    add_master(folder, made, content, by=signed.by, why=signed.why)
    return RedirectResponse("/review/second", status_code=303)


def _tabs(on: str, request: Request, reviewed: Sequence[Reviewed]) -> Tabs:
    answered = {part.newest.part_seq for part in reviewed}
    return tabs_of(request, on, waiting_parts(site_of(request).folder, answered, limit=LIMIT), reviewed)


def _agreed(folder: StationFolder, reviewed: Sequence[Reviewed]) -> Sequence[Reviewed]:
    """Parts that two people hold to be bad and that shall become masters, but are none yet."""
    known = {master.picture_sha256 for master in read_masters(folder).registered.values()}
    return [
        part
        for part in reviewed
        if part.is_master
        and part.label == "bad"
        and len(part.answers) > 1
        and part.newest.picture_sha256 not in known
        and picture_path(folder, part.newest).is_file()
    ]
