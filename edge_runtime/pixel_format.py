"""Pixel formats of GenICam cameras, by their codes in the PFNC, and the way to BGR."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from kenpin.frame import Image


@dataclass(frozen=True)
class _Format:
    name: str
    channels: int
    to_bgr: int | None


# PFNC 2.4. OpenCV names a Bayer pattern by its second row, the PFNC by its first.
_FORMATS: Mapping[int, _Format] = {
    0x01080001: _Format("Mono8", 1, cv2.COLOR_GRAY2BGR),
    0x01080008: _Format("BayerGR8", 1, cv2.COLOR_BayerGB2BGR),
    0x01080009: _Format("BayerRG8", 1, cv2.COLOR_BayerBG2BGR),
    0x0108000A: _Format("BayerGB8", 1, cv2.COLOR_BayerGR2BGR),
    0x0108000B: _Format("BayerBG8", 1, cv2.COLOR_BayerRG2BGR),
    0x02180014: _Format("RGB8", 3, cv2.COLOR_RGB2BGR),
    0x02180015: _Format("BGR8", 3, None),
}
PIXEL_FORMATS = tuple(known.name for known in _FORMATS.values())


@dataclass(frozen=True)
class Layout:
    """How a camera's picture lies in memory.

    Attributes:
        pixel_format: Code in the PFNC.
        height: Rows.
        width: Columns.
    """

    pixel_format: int
    height: int
    width: int

    def __str__(self) -> str:
        known = _FORMATS.get(self.pixel_format)
        name = known.name if known else f"pixel format {self.pixel_format:#010x}"
        return f"{name} {self.width}x{self.height}"


def code_of(name: str) -> int | None:
    """Code of a pixel format that can become BGR; `None` for any other.

    Args:
        name: Its name in the camera; before the PFNC, `Packed` stood after it.
    """
    name = name.removesuffix("Packed")
    return next((code for code, known in _FORMATS.items() if known.name == name), None)


def to_bgr(data: NDArray[np.uint8], layout: Layout, *, padding: int = 0) -> Image:
    """Make a frame's picture of what a camera sent; always a copy.

    Args:
        data: Bytes, shape (N,).
        layout: How they lie; a format of `PIXEL_FORMATS`.
        padding: Bytes at the end of each row that are no pixels.

    Returns:
        BGR uint8, shape (H, W, 3).

    Raises:
        ValueError: There are fewer bytes than the layout says.
    """
    known = _FORMATS[layout.pixel_format]
    row = layout.width * known.channels
    size = layout.height * (row + padding)
    if data.size < size:
        raise ValueError(f"{data.size} bytes of {size}")
    rows = data[:size].reshape(layout.height, row + padding)[:, :row]
    pixels = np.ascontiguousarray(rows).reshape(layout.height, layout.width, known.channels)
    if known.to_bgr is None:
        return np.array(pixels)
    image: Image = np.ascontiguousarray(cv2.cvtColor(pixels, known.to_bgr), dtype=np.uint8)
    return image
