"""The Review bench: people say what stopped parts are; every answer is a picture for the next training."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from kenpin.calibration.review import find_picture, keep_answer, reviewed_parts
from kenpin.calibration.review_bench import part_of, waiting_parts
from kenpin.calibration.review_room import make_room
from kenpin.calibration.web import review_gallery, review_picture
from kenpin.calibration.web.access import needs
from kenpin.calibration.web.page import page
from kenpin.calibration.web.refusal import Refused
from kenpin.calibration.web.review_tabs import LIMIT, tabs_of
from kenpin.calibration.web.role import Role
from kenpin.calibration.web.site import Page
from kenpin.calibration.web.visitor import site_of, visitor_of
from kenpin.errors import DataError

MENU = Page("review", "/review")
router = APIRouter()
router.routes.extend(review_picture.router.routes)
router.routes.extend(review_gallery.router.routes)

Back = Literal["/review", "/review/near", "/review/second"]
Seq = Annotated[int, Form(ge=0, lt=1 << 62)]


@router.get(MENU.path, dependencies=needs(Role.VIEWER))
def bench(
    request: Request,
    part: Annotated[int | None, Query(ge=0, lt=1 << 62)] = None,
    done: Annotated[int | None, Query(ge=0, lt=1 << 62)] = None,
    back: Back = "/review",
) -> Response:
    """One part, large, and those that wait behind it.

    Raises:
        Refused: 404 if there is no such part.
    """
    folder = site_of(request).folder
    reviewed = {r.newest.part_seq: r for r in reviewed_parts(folder)}
    waiting = waiting_parts(folder, reviewed.keys(), limit=LIMIT)
    shown = part_of(folder, part) if part is not None else next(iter(waiting), None)
    if part is not None and shown is None:
        raise Refused(404, "review_no_picture")
    show = {
        "tabs": tabs_of(request, "waiting", waiting, list(reviewed.values())),
        "part": shown,
        "has_picture": shown is not None and find_picture(folder, shown.seq, shown.image_ref) is not None,
        "answers": reviewed[shown.seq].answers if shown and shown.seq in reviewed else (),
        "next": [p for p in waiting if shown is None or p.seq != shown.seq],
        "done": done,
        "back": back,
        "may": visitor_of(request).role >= Role.TECHNICIAN,
    }
    return page(request, "review.html", show)


@router.post("/review/answer", dependencies=needs(Role.TECHNICIAN))
def answer(
    request: Request,
    seq: Seq,
    label: Annotated[Literal["good", "bad"], Form()],
    back: Annotated[Back, Form()] = "/review",
    is_master: Annotated[bool, Form()] = False,
) -> Response:
    """Write an answer down, and show the next part.

    Raises:
        Refused: 404 if there is no such part, or its picture cannot be used.
    """
    folder = site_of(request).folder
    part = part_of(folder, seq)
    if part is None:
        raise Refused(404, "review_no_picture")
    try:
        keep_answer(folder, part, label, name=visitor_of(request).name, is_master=is_master and label == "bad")
    except DataError:
        raise Refused(404, "review_no_picture") from None
    make_room(folder, site_of(request).review_mb * 1_000_000)
    return RedirectResponse(f"{back}?done={seq}", status_code=303)
