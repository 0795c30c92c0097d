"""The view: which part of a frame a model is shown, drawn once for training, calibration and the station."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError as Unfit

from kenpin.errors import ConfigError, WrongView

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

VIEW = "view.json"
REFERENCE = "reference.png"
_TEMPLATE_SIDE = 48  # a template is shrunk to about this many pixels a side before it is searched for
_LEAST_TEMPLATE = 16
_DRAW_AGAIN = "draw the view on a frame of the station's camera"


class Box(NamedTuple):
    """A rectangle in frame pixels.

    Attributes:
        x: Left edge.
        y: Top edge.
        width: Columns.
        height: Rows.
    """

    x: int
    y: int
    width: int
    height: int

    def moved(self, right: int, down: int) -> Box:
        """The same box elsewhere."""
        return Box(self.x + right, self.y + down, self.width, self.height)

    def has_room(self, margin: int, *, within: tuple[int, int]) -> bool:
        """Whether it lies in a picture of a width and height, with so many pixels to spare on every side."""
        width, height = within
        fits_across = margin <= self.x and self.x + self.width + margin <= width
        return fits_across and margin <= self.y and self.y + self.height + margin <= height

    @property
    def middle(self) -> tuple[float, float]:
        """Its x and y, where whole numbers are the middles of pixels."""
        return self.x + (self.width - 1) / 2, self.y + (self.height - 1) / 2

    @property
    def slices(self) -> tuple[slice, slice]:
        """Its rows and columns in an array."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Align(_Strict):
    """How the view follows a part that does not lie quite where it lay in the reference picture.

    Attributes:
        template: A place of the reference picture that looks the same on every part.
        max_shift_px: The part may lie so far off, across and down, in frame pixels; farther it is misplaced.
        max_turn_deg: It may be turned so far from how it lay there, either way; 180 = it may lie anyhow.
        min_match: Least normalised correlation with the template, 0 to 1; below, the part is absent.
    """

    template: Box
    max_shift_px: int = Field(ge=1)
    max_turn_deg: float = Field(default=0, ge=0, le=180)
    min_match: float = Field(default=0.7, gt=0, lt=1)

    @property
    def reduction(self) -> int:
        """The search looks at pictures that are shrunk by this factor."""
        return max(1, math.ceil(math.sqrt(self.template.width * self.template.height) / _TEMPLATE_SIDE))

    @property
    def room_px(self) -> int:
        """Pixels that the frame must have around the template, so that a shift of all of it can be told."""
        return self.max_shift_px + self.reduction


class View(_Strict):
    """What of a frame a model is shown. All in pixels of the frame, x and y from its upper left corner.

    Attributes:
        frame_size: Width and height of every frame.
        roi: The region of interest: only this is shown.
        ignore: Polygons, each of three corners (x, y) or more. What lies in them, edge included, is replaced by
            the reference picture's own pixels, so that nothing in there can cause an alarm.
        align: How the view follows the part; `None` = it stays where it is.
        reference: SHA-256 of the picture of a good part that the view was drawn on; empty where neither
            `ignore` nor `align` needs one.
    """

    frame_size: tuple[int, int]
    roi: Box
    ignore: tuple[tuple[tuple[int, int], ...], ...] = ()
    align: Align | None = None
    reference: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")

    @property
    def needs_reference(self) -> bool:
        """Whether it means something only together with the reference picture."""
        return bool(self.ignore) or self.align is not None

    @model_validator(mode="after")
    def _inside(self) -> View:
        frame = "{} x {}".format(*self.frame_size)
        if min(self.roi.width, self.roi.height) < 1 or not self.roi.has_room(0, within=self.frame_size):
            told = {"roi": str(list(self.roi)), "frame": frame}
            raise Unfit("roi_outside", "roi {roi} does not lie in the frame of {frame} pixels", told)
        for polygon in self.ignore:
            if len(polygon) < 3:
                told = {"polygon": str(list(polygon))}
                raise Unfit("mask_corners", "ignore: {polygon} has fewer than three corners", told)
            outside = [
                corner for corner in polygon if not Box(*corner, 1, 1).has_room(0, within=self.frame_size)
            ]
            if outside:
                told = {"corner": str(outside[0]), "frame": frame}
                raise Unfit(
                    "mask_outside",
                    "ignore: the corner {corner} does not lie in the frame of {frame} pixels",
                    told,
                )
        return self

    @model_validator(mode="after")
    def _has_room(self) -> View:
        if self.align is None:
            return self
        template, shift = self.align.template, self.align.max_shift_px
        if min(template.width, template.height) < _LEAST_TEMPLATE:
            least = {"least": _LEAST_TEMPLATE}
            raise Unfit("part_small", "align.template: each side needs {least} pixels at the least", least)
        if not self.roi.has_room(shift, within=self.frame_size):
            room = {"roi": str(list(self.roi)), "shift": str(shift)}
            raise Unfit("roi_room", "roi {roi} leaves no room for a part that is off by {shift} pixels", room)
        if not template.has_room(self.align.room_px, within=self.frame_size):
            room = {"template": str(list(template)), "room": str(self.align.room_px)}
            needs = "align.template {template} needs {room} pixels of frame on every side to be searched in"
            raise Unfit("part_room", needs, room)
        return self


def looked_at(view: View | None) -> str:
    """What of each frame a model is shown, in words."""
    if view is None:
        return "whole pictures"
    text = f"{view.roi.width} x {view.roi.height} px of {view.frame_size[0]} x {view.frame_size[1]}"
    if view.align is not None:
        text += f", shifted with the part by up to {view.align.max_shift_px} px"
        if view.align.max_turn_deg:
            text += f" and turned with it by up to {view.align.max_turn_deg:g} degrees"
    return text


def read_view(path: Path) -> tuple[View, bytes]:
    """Read a view that somebody drew, and the reference picture beside it.

    Args:
        path: A `.toml` or `.json` file, or a folder that holds `view.json`. Where the view ignores something
            or aligns, `reference.png` lies beside the file.

    Returns:
        The view, naming its reference picture, and that picture's file; without one no bytes.

    Raises:
        ConfigError: A file is missing, or the view is not one; the key is named.
    """
    file = path / VIEW if path.is_dir() else path
    view = _parse(_read(file), file)
    if not view.needs_reference:
        return view, b""
    picture = _read(file.with_name(REFERENCE))
    sha256 = hashlib.sha256(picture).hexdigest()
    return (view if view.reference else view.model_copy(update={"reference": sha256})), picture


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read the view: {error.strerror}",
            where=file,
            cure=f"give --view FILE.toml, FILE.json or a folder with {VIEW}, and {REFERENCE} beside it",
        ) from None


def _parse(content: bytes, file: Path) -> View:
    try:
        # Editors of Windows begin a file with a mark.
        text = content.decode("utf-8-sig")
        read: Any = tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
        return View.model_validate(read)
    except ValidationError as error:
        # A misspelt key is often the reason why another one is missing, so it comes first.
        first = min(error.errors(), key=lambda finding: finding["type"] != "extra_forbidden")
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            cure = "correct its name or its place: the keys stand in docs/view.md"
            raise ConfigError(f"unknown key {key}", where=file, cure=cure) from None
        what = f"{key}: {first['msg']}" if key else first["msg"]
        values = first.get("ctx", {})
        raise WrongView(what, finding=first["type"], values=values, where=file, cure=_DRAW_AGAIN) from None
    except ValueError as error:
        kind = "TOML" if file.suffix == ".toml" else "JSON"
        raise ConfigError(f"the view is not {kind}: {error}", where=file, cure="correct the line") from None
