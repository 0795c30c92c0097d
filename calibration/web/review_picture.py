"""Pictures of parts on the review bench; one that somebody has labelled is there for good."""

from __future__ import annotations

from pathlib import Path

import cv2
from fastapi import APIRouter, Request
from fastapi import Path as InPath
from fastapi.responses import Response

from kenpin.calibration.review import find_picture
from kenpin.calibration.review_bench import BenchPart, part_of
from kenpin.calibration.web.access import needs
from kenpin.calibration.web.refusal import Refused
from kenpin.calibration.web.role import Role
from kenpin.calibration.web.visitor import site_of
from kenpin.errors import DataError, StoreError
from kenpin.frame import Image, read_picture
from kenpin.station_folder import StationFolder

SMALL_PX, LARGE_PX = 240, 1000
_RED = (38, 38, 230)
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 85]
_KEPT = {"Cache-Control": "private, max-age=3600"}  # the picture of a part does not change

router = APIRouter()
Seq = InPath(ge=0, lt=1 << 62)


@router.get("/review/small/{seq}.jpg", dependencies=needs(Role.VIEWER))
def small(request: Request, seq: int = Seq) -> Response:
    """The picture of a part, small."""
    _, image = _read(site_of(request).folder, seq)
    return as_jpeg(image, SMALL_PX)


@router.get("/review/large/{seq}.jpg", dependencies=needs(Role.VIEWER))
def large(request: Request, seq: int = Seq) -> Response:
    """The picture of a part, with a frame around the strangest place."""
    part, image = _read(site_of(request).folder, seq)
    if part is not None and part.roi_x_px is not None:
        _mark(image, part)
    return as_jpeg(image, LARGE_PX)


def as_jpeg(image: Image, width: int) -> Response:
    """A picture, no wider than this.

    Args:
        image: BGR uint8, shape (H, W, 3).
        width: Pixels.
    """
    height, wide = image.shape[:2]
    if wide > width:
        size = (width, max(1, round(height * width / wide)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return Response(cv2.imencode(".jpg", image, _JPEG)[1].tobytes(), media_type="image/jpeg", headers=_KEPT)


def _read(folder: StationFolder, seq: int) -> tuple[BenchPart | None, Image]:
    try:
        part = part_of(folder, seq)
        return part, read_picture(_file(folder, part, seq))
    except (StoreError, DataError):
        raise Refused(404, "review_no_picture") from None


def _file(folder: StationFolder, part: BenchPart | None, seq: int) -> Path:
    path = find_picture(folder, seq, part.image_ref if part else "")
    if path is None:
        raise Refused(404, "review_no_picture")
    return path


def _mark(image: Image, part: BenchPart) -> None:
    x, y = part.roi_x_px or 0, part.roi_y_px or 0
    corner = (x + (part.roi_w_px or 0), y + (part.roi_h_px or 0))
    cv2.rectangle(image, (x, y), corner, _RED, max(1, image.shape[1] // 320))
