"""Drawing a view for the next training: what a model is shown, what is ignored, and which part is followed."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import BaseModel, Field

from kenpin import audit
from kenpin.calibration.web.access import needs
from kenpin.calibration.web.align_in_use import align_in_use
from kenpin.calibration.web.page import page
from kenpin.calibration.web.refusal import Refused
from kenpin.calibration.web.role import Role
from kenpin.calibration.web.visitor import site_of, visitor_of
from kenpin.canonical_json import canonical_json
from kenpin.edge_runtime.database import reading
from kenpin.errors import ConfigError, DataError, StoreError, WrongView
from kenpin.frame import decode_picture, read_picture
from kenpin.sight import read_sight
from kenpin.station_folder import StationFolder
from kenpin.synced_file import replace_synced
from kenpin.view import REFERENCE, VIEW, View, read_view

DRAWN = "view"  # below the station's folder
_PATH = "/calibrate/view"
_NEWEST = 1 << 62
router = APIRouter()


@router.get(_PATH, dependencies=needs(Role.VIEWER))
def view(request: Request, before: int = Query(default=_NEWEST, ge=0, le=_NEWEST)) -> Response:
    """The page to draw on, over the newest picture that was kept, or an older one than that of a part."""
    folder = site_of(request).folder
    seq = _newest_picture(folder, before)
    drawn = _saved(folder)
    size = (0, 0)
    if seq:
        height, width = read_picture(_picture_file(folder, seq)).shape[:2]
        size = (width, height)
    show = {"seq": seq, "size": size, "form": _form_of(drawn, size)}
    show |= {"folder": folder.root / DRAWN, "is_saved": drawn is not None}
    return page(request, "calibrate_view.html", show)


class Drawn(BaseModel):
    """What stands in the form.

    Attributes:
        seq: Number of the part in the picture.
        roi: Left, top, width and height, in pixels of the frame.
        ignore: One polygon per line: x,y x,y x,y.
        part: Left, top, width and height of what is followed; empty where the part lies still.
        shift: So many pixels it may lie off.
        turn: So many degrees it may be turned.
    """

    seq: int = Field(default=0, ge=0, lt=1 << 62)
    roi: str = Field(default="", max_length=100)
    ignore: str = Field(default="", max_length=20_000)
    part: str = Field(default="", max_length=100)
    shift: str = Field(default="20", max_length=20)
    turn: str = Field(default="0", max_length=20)

    def view(self, kept: Mapping[str, float]) -> dict[str, object]:
        """The same as a view has it.

        Args:
            kept: What stands in its `align` beside, as it cannot be drawn.

        Raises:
            ValueError, OverflowError: Something is no number.
        """
        drawn: dict[str, object] = {"roi": _numbers(self.roi), "ignore": _polygons(self.ignore)}
        if self.part.strip():
            drawn["align"] = {
                "template": _numbers(self.part),
                "max_shift_px": round(float(self.shift)),
                "max_turn_deg": float(self.turn),
                **kept,
            }
        return drawn


@router.post(_PATH, dependencies=needs(Role.TECHNICIAN))
def save(request: Request, form: Annotated[Drawn, Form()]) -> Response:
    """Save what was drawn, with the picture that it was drawn on."""
    folder = site_of(request).folder
    reference = _picture_file(folder, form.seq).read_bytes()
    try:
        height, width = decode_picture(reference, where=REFERENCE).shape[:2]
        sha256 = hashlib.sha256(reference).hexdigest()
        whole = {**form.view(_least_match(folder)), "frame_size": [width, height], "reference": sha256}
        _save(folder, {VIEW: canonical_json(whole), REFERENCE: reference}, by=visitor_of(request).name)
    except (ValueError, OverflowError):
        raise Refused(422, "view_not_numbers") from None
    except WrongView as error:
        key = f"unfit_{error.finding}"
        is_known = key in site_of(request).languages["en"]
        raise Refused(422, key if is_known else "view_not_numbers", **error.values) from None
    except (ConfigError, DataError) as error:
        raise Refused(422, "view_wrong", error=error.what) from None
    return RedirectResponse(_PATH, status_code=303)


@router.get("/calibrate/view.zip", dependencies=needs(Role.VIEWER))
def download(request: Request) -> Response:
    """What was saved, as one file to carry to the workstation."""
    target = site_of(request).folder.root / DRAWN
    packed = io.BytesIO()
    try:
        with zipfile.ZipFile(packed, "w") as out:
            for name in (VIEW, REFERENCE):
                out.writestr(f"{DRAWN}/{name}", (target / name).read_bytes())
    except OSError:
        raise Refused(404, "view_none") from None
    name = f"{site_of(request).station}-view.zip"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(packed.getvalue(), media_type="application/zip", headers=headers)


def _save(folder: StationFolder, files: Mapping[str, bytes], *, by: str) -> None:
    """Only a view that can be used takes the place of the last one.

    Raises:
        ConfigError, DataError: It cannot be used.
        StoreError: It cannot be written.
    """
    pending, target = folder.root / f".{DRAWN}.new", folder.root / DRAWN
    try:
        for place in (pending, target):
            place.mkdir(exist_ok=True)
        for name, content in files.items():
            (pending / name).write_bytes(content)
        read_sight(pending)
        audit.append(folder, audit.Entry("view", by, "", files[VIEW].decode()[:300]))
        for name, content in files.items():
            replace_synced(target / name, content)
    except OSError as error:
        raise StoreError(
            f"the view cannot be written: {error.strerror}", where=error.filename, cure="make room on the disk"
        ) from None


def _newest_picture(folder: StationFolder, before: int) -> int:
    """Number of the newest part before that one that was not stopped and has its picture; 0 = none."""
    sql = """SELECT seq, image_ref FROM (SELECT * FROM part WHERE seq < ? ORDER BY seq DESC LIMIT 2000)
        WHERE image_ref <> '' AND verdict NOT IN ('NG', 'REVIEW')"""
    try:
        with reading(folder.database) as connection:
            rows = connection.execute(sql, (before,)).fetchall()
    except StoreError:
        return 0
    return next((seq for seq, ref in sorted(rows, reverse=True) if (folder.images / ref).is_file()), 0)


def _saved(folder: StationFolder) -> View | None:
    """What was drawn before; `None` = nothing that can be used."""
    try:
        return read_view(folder.root / DRAWN)[0]
    except ConfigError:
        return None


def _least_match(folder: StationFolder) -> Mapping[str, float]:
    """`min_match` of the view that was drawn before, else of the bundle in use; empty without."""
    drawn = _saved(folder)
    if drawn is not None and drawn.align is not None:
        return {"min_match": drawn.align.min_match}
    try:
        align = align_in_use(folder)
    except FileNotFoundError:  # no bundle yet
        return {}
    return {"min_match": align["min_match"]} if align else {}


def _form_of(drawn: View | None, size: tuple[int, int]) -> Drawn:
    """The form as it is shown; one that was drawn on frames of another size is of no use."""
    if drawn is None or drawn.frame_size != size:
        return Drawn(roi=_listed((0, 0, *size)))
    form = Drawn(roi=_listed(drawn.roi), ignore="\n".join(_in_words(polygon) for polygon in drawn.ignore))
    if align := drawn.align:
        form.part = _listed(align.template)
        form.shift, form.turn = str(align.max_shift_px), f"{align.max_turn_deg:g}"
    return form


def _listed(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def _in_words(polygon: Sequence[tuple[int, int]]) -> str:
    return " ".join(f"{x},{y}" for x, y in polygon)


def _numbers(text: str) -> list[int]:
    numbers = [round(float(word)) for word in text.replace(",", " ").split()]
    if len(numbers) != 4:  # left, top, width, height
        raise ValueError(text)
    return numbers


def _polygons(text: str) -> list[list[list[int]]]:
    lines = [line.split() for line in text.splitlines() if line.strip()]
    return [[[round(float(n)) for n in corner.split(",")] for corner in line] for line in lines]


def _picture_file(folder: StationFolder, seq: int) -> Path:
    """Where the picture of a part lies.

    Raises:
        Refused: 404 if none was kept.
    """
    try:
        with reading(folder.database) as connection:
            row = connection.execute("SELECT image_ref FROM part WHERE seq = ?", (seq,)).fetchone()
    except StoreError:
        row = None
    if row is None or not (folder.images / row[0]).is_file():
        raise Refused(404, "calibrate_no_picture")
    return folder.images / str(row[0])
