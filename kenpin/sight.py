"""A view at work: it takes from a frame what the model is shown, the same way wherever pictures are read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from kenpin.alignment import Alignment
from kenpin.bundle import Bundle
from kenpin.cutout import Cutout
from kenpin.errors import ConfigError, OutOfView, WrongView
from kenpin.frame import Image, decode_picture
from kenpin.preprocess import check_frame
from kenpin.quality_limits import Finding
from kenpin.view import REFERENCE, Box, View, read_view

_OTHER_PICTURE = "use pictures of the camera that the view was drawn for, or draw a view for this one"
_PLACE_AGAIN = "put the part back to its place, or leave this picture out; else allow more in the view's align"


@dataclass(frozen=True)
class Taken:
    """What the model is shown of a frame.

    Attributes:
        image: BGR uint8 (h, w, 3); it may share the frame's memory.
        cutout: Where in the frame that is.
    """

    image: Image
    cutout: Cutout


class Sight:
    """Takes what one view shows.

    Args:
        view: The view.
        reference: The file of its reference picture; empty where it needs none.
        where: What to name in an error.

    Attributes:
        view: The view.
        reference: The file of its reference picture.

    Raises:
        ConfigError: The reference picture is another one than the view was drawn on, or does not fit it.
        DataError: The reference picture is no picture.
    """

    def __init__(self, view: View, reference: bytes, *, where: object) -> None:
        self.view = view
        self.reference = reference
        self._ignored = np.zeros((view.roi.height, view.roi.width), np.uint8)
        self._patches: list[_Patch] = []
        self._alignment: Alignment | None = None
        if view.needs_reference:
            picture = self._picture(where)
            self._ignore(picture, where)
            if view.align is not None:
                self._alignment = Alignment(view.align, picture, where=where)

    def take(self, image: Image, *, where: object = "") -> Taken:
        """Take what the model is shown. The frame itself is not changed.

        Args:
            image: BGR uint8, shape (H, W, 3).
            where: What to name in an error.

        Raises:
            DataError: It is no frame at all.
            OutOfView: The frame has another size, or the part is absent or misplaced.
        """
        check_frame(image)
        self._check_size(image, where)
        cutout = self._place(image, where)
        cut = cutout.cut(image)
        if self._patches:
            cut = cut.copy()
            for patch in self._patches:
                cut[patch.at] = cv2.copyTo(patch.pixels, patch.mask, cut[patch.at])
        return Taken(cut, cutout)

    def take_mask(self, mask: Image, cutout: Cutout) -> Image:
        """Take the same from the mask of a frame: what is ignored holds no defect.

        Args:
            mask: Shape (H, W, 3).
            cutout: Where the view was in its frame: `Taken.cutout`.
        """
        cut = cutout.cut(mask, interpolation=cv2.INTER_NEAREST)
        return np.where(self._ignored[..., None] > 0, np.uint8(0), cut)

    def _check_size(self, image: Image, where: object) -> None:
        (height, width), (wide, high) = image.shape[:2], self.view.frame_size
        if (width, height) != (wide, high):
            what = f"the frame is {width} x {height} pixels, not {wide} x {high}"
            raise OutOfView(what, finding=Finding.WRONG_SIZE.value, where=where, cure=_OTHER_PICTURE)

    def _place(self, image: Image, where: object) -> Cutout:
        align, roi, size = self.view.align, self.view.roi, self.view.frame_size
        if self._alignment is None or align is None:
            return Cutout(roi, size)
        found = self._alignment.find(image)
        # Not the other way round: a match that is not a number is no match.
        if not found.match >= align.min_match:
            what = f"no part, or another one: match {found.match:.2f}, allowed from {align.min_match:.2f}"
            raise OutOfView(what, finding=Finding.ABSENT.value, where=where, cure=_PLACE_AGAIN)
        if found.farthest > align.max_shift_px:
            off = f"{found.right} pixels to the right and {found.down} down, allowed {align.max_shift_px}"
            what = f"the part lies elsewhere: shifted by {off}"
            raise OutOfView(what, finding=Finding.MISPLACED.value, where=where, cure=_PLACE_AGAIN)
        if abs(found.turn_deg) > align.max_turn_deg:
            off = f"{found.turn_deg:.1f} degrees clockwise, allowed {align.max_turn_deg:g} either way"
            what = f"the part lies askew: turned by {off}"
            raise OutOfView(what, finding=Finding.MISPLACED.value, where=where, cure=_PLACE_AGAIN)
        x, y = self._alignment.middle
        pivot = (x + found.right, y + found.down)
        return Cutout(roi.moved(found.right, found.down), size, found.turn_deg, pivot)

    def _picture(self, where: object) -> Image:
        if hashlib.sha256(self.reference).hexdigest() != self.view.reference:
            raise ConfigError(
                f"{REFERENCE} is not the picture that the view was drawn on",
                where=where,
                cure=f"put the right {REFERENCE} beside the view, or draw the view again",
            )
        picture = decode_picture(self.reference, where=f"{where}: {REFERENCE}")
        height, width = picture.shape[:2]
        if (width, height) != self.view.frame_size:
            wide, high = self.view.frame_size
            raise ConfigError(
                f"{REFERENCE} is {width} x {height} pixels, but frame_size is {wide} x {high}",
                where=where,
                cure="take a frame of the station's camera as it is, neither cropped nor resized",
            )
        return picture

    def _ignore(self, picture: Image, where: object) -> None:
        roi, align = self.view.roi, self.view.align
        drawn = np.zeros(picture.shape[:2], np.uint8)
        for polygon in self.view.ignore:
            cv2.fillPoly(drawn, [np.array(polygon, np.int32)], 1)
        self._ignored = drawn[roi.slices].copy()
        if self._ignored.all():
            what, cure = "the view ignores all of its roi", "draw smaller polygons"
            raise WrongView(what, finding="mask_all", where=where, cure=cure)
        if align is not None and drawn[align.template.slices].any():
            raise WrongView(
                "align.template lies partly in what is ignored",
                finding="part_masked",
                where=where,
                cure="choose a place that must look the same on every part",
            )
        self._patches = [
            _patch(polygon, self._ignored, picture[roi.slices], roi) for polygon in self.view.ignore
        ]


@dataclass(frozen=True)
class _Patch:
    """What is put over one polygon: pixels where the mask (h, w) is not 0, at rows and columns."""

    at: tuple[slice, slice]
    mask: Image
    pixels: Image


def _patch(polygon: tuple[tuple[int, int], ...], ignored: Image, pixels: Image, roi: Box) -> _Patch:
    xs, ys = [x - roi.x for x, _ in polygon], [y - roi.y for _, y in polygon]
    at = (slice(max(0, min(ys)), max(0, max(ys) + 1)), slice(max(0, min(xs)), max(0, max(xs) + 1)))
    return _Patch(at, ignored[at].copy(), pixels[at].copy())


def take(image: Image, sight: Sight | None, *, where: object = "") -> Taken:
    """Take what the model is shown: what the view says, or all of it without one.

    Args:
        image: BGR uint8, shape (H, W, 3).
        sight: The view; `None` = there is none.
        where: What to name in an error.

    Raises:
        DataError: It is no frame at all.
        OutOfView: The frame does not show the part where the view expects it.
    """
    if sight is not None:
        return sight.take(image, where=where)
    return Taken(image, Cutout.whole(image))


def sight_of(bundle: Bundle) -> Sight | None:
    """The view of a verified bundle at work; `None` where it has none.

    Raises:
        ConfigError, DataError: The view cannot be used.
    """
    view = bundle.manifest.view
    if view is None:
        return None
    return Sight(view, bundle.files.get(REFERENCE, b""), where=bundle.path)


def read_sight(path: Path) -> Sight:
    """Read a view that somebody drew: see `kenpin.view.read_view`.

    Raises:
        ConfigError: It cannot be used.
        DataError: Its reference picture is no picture.
    """
    view, reference = read_view(path)
    return Sight(view, reference, where=path)
