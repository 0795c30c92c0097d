"""A frame: one camera picture, BGR uint8 (H, W, 3), with its identity and its times."""

from __future__ import annotations

import re
import stat
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kenpin.errors import DataError

Image = NDArray[np.uint8]

# Of 255; what a 12-bit camera's 16-bit picture has in its high bytes.
_STEPS = 16

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
# Marks of a JPEG (ITU-T T.81, B.1.1.3), but for those that stand in the data of a scan.
_MARK = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_SCAN, _END = b"\xda", b"\xd9"
# Another scan, and tables and a number of lines for it.
_BETWEEN_SCANS = b"\xda\xc4\xcc\xdb\xdc\xdd"
PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class Frame:
    """One camera picture of one part.

    Attributes:
        image: BGR uint8, shape (H, W, 3).
        part_id: Identity of the part, from the trigger, the file name or a counter.
        camera: Name of the camera or source.
        captured_ns: Monotonic clock at exposure, nanoseconds; for latencies only.
        ts_ms: UTC at exposure, milliseconds since 1970.
        frame_id: Number that the source gave to the picture, rising; it tells a new picture from an old one.
        trigger_id: Number of the trigger that asked for it; `None` where nobody counts triggers.
    """

    image: Image
    part_id: str
    camera: str
    captured_ns: int = field(default_factory=time.monotonic_ns)
    ts_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    frame_id: int = 0
    trigger_id: int | None = None


def read_picture(path: Path) -> Image:
    """Read a picture file as BGR uint8 (H, W, 3).

    Grey pictures get three equal channels, alpha is dropped, 16 bit becomes 8 bit (the high byte).

    Raises:
        DataError: The file is missing, empty, cut short, damaged inside (as far as that shows), too large or no
            picture, or uses 12 or fewer of its 16 bits.
    """
    return decode_picture(_bytes_of(path), where=path)


def read_mask(path: Path) -> Image:
    """Read the mask of a picture as uint8 (H, W, 3): 255 where the file has anything above 0, else 0.

    A mask may name kinds of defects by small numbers in 16 bit, of which the high byte is 0. In a JPEG, which
    surrounds edges with small numbers, it is what is brighter than half of the brightest.

    Raises:
        DataError: As `read_picture`, or all of it is marked.
    """
    data = _bytes_of(path)
    mask = _decode(data, path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    marked = np.any(np.greater(mask, mask.max() // 2 if data.startswith(_JPEG) else 0), axis=2)
    if marked.all():
        raise DataError(
            "the mask marks the whole picture",
            where=path,
            cure="draw the defect bright on black, without transparency, or remove the mask",
        )
    return np.dstack([marked.astype(np.uint8) * 255] * 3)


def lost_of(path: Path) -> tuple[bool, int, int]:
    """What a picture lacks as it is read: whether parts are clear, its brightest value, and that of white.

    Raises:
        DataError: As `read_picture`, but for the bits.
    """
    image = _decode(_bytes_of(path), path, cv2.IMREAD_UNCHANGED)
    white = np.iinfo(image.dtype).max
    is_clear = image.ndim == 3 and image.shape[2] == 4 and image[..., 3].min() < white
    colours = image[..., :3] if image.ndim == 3 else image
    return bool(is_clear), int(colours.max()), white


def decode_picture(data: bytes, *, where: object) -> Image:
    """Decode the bytes of a picture file to BGR uint8 (H, W, 3).

    Args:
        data: The whole file.
        where: What to name in an error, usually the path.

    Raises:
        DataError: The bytes are empty, cut short, damaged inside (as far as that shows), too large or not a
            picture, or it uses 12 or fewer of its 16 bits.
    """
    image = np.ascontiguousarray(_decode(data, where, cv2.IMREAD_COLOR), dtype=np.uint8)
    # So few steps of grey are enough to train and to calibrate on, and show next to nothing.
    if image.max() < _STEPS and _decode(data, where, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH).itemsize > 1:
        raise DataError(
            "the picture has 16 bits and uses 12 or fewer of them, as of a 12-bit camera",
            where=where,
            cure=f"save it with 8 bits, or multiply it so that white is near 65535, not below {_STEPS * 256}",
        )
    return image


def _bytes_of(path: Path) -> bytes:
    try:
        # A link to /dev/zero never ends, and a pipe never begins.
        if stat.S_IFMT(path.stat().st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            raise DataError("the picture is no file", where=path, cure="remove it: it is a device or a pipe")
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read the picture: {error.strerror}", where=path, cure="check the path and its permissions"
        ) from None


def _decode(data: bytes, where: object, flags: int) -> NDArray[Any]:
    replace = "replace the file with a complete PNG, JPEG or TIFF of 8 or 16 bits, or remove it"
    if not data:
        raise DataError("the picture file is empty", where=where, cure=replace)
    if fault := _fault(data):
        raise DataError(f"the picture file is {fault}", where=where, cure=replace)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if "PIXELS" in str(error):
            raise DataError(
                "the picture has more pixels than allowed (OPENCV_IO_MAX_IMAGE_PIXELS)",
                where=where,
                cure="crop or shrink it; a small file that claims a huge size may be an attack",
            ) from None
        image = None
    if image is None:
        raise DataError("the file is not a picture that can be decoded", where=where, cure=replace)
    return image


def _fault(data: bytes) -> str:
    """OpenCV fills what a JPEG or PNG lacks with grey and says nothing, so look for the marks."""
    if data.startswith(_JPEG):
        return _fault_of_jpeg(data)
    return _fault_of_png(data) if data.startswith(_PNG) else ""


def _fault_of_png(data: bytes) -> str:
    """Whether the end is missing, or a chunk does not fit its CRC (ISO/IEC 15948, 5.3)."""
    view, at, kind = memoryview(data), len(_PNG), b""
    while kind != b"IEND":
        kind, end = data[at + 4 : at + 8], at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            return "cut short"
        if zlib.crc32(view[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return "damaged inside"
        at = end + 4
    return ""


def _fault_of_jpeg(data: bytes) -> str:
    """Whether the end is missing, or a scan ends in a mark that cannot follow one: foreign bytes make such."""
    at, in_scans = len(_JPEG), False
    while mark := _MARK.search(data, at):
        if mark[1] == _END:
            return ""
        if in_scans and mark[1] not in _BETWEEN_SCANS:
            return "damaged inside"
        in_scans = in_scans or mark[1] == _SCAN
        # All other marks have a length, which a thumbnail in one of them is part of.
        at = mark.end() + int.from_bytes(data[mark.end() : mark.end() + 2], "big")
    return "cut short"
