"""From a frame to the model's input: the one definition for training, calibration and the station."""

from __future__ import annotations

import cv2
import numpy as np

from kenpin.errors import DataError
from kenpin.frame import Image


def to_input(image: Image, *, height: int, width: int) -> Image:
    """Stretch a frame to the model's input size.

    Shrinking averages over the covered area, so that a one-pixel scratch fades but is never skipped;
    enlarging is bilinear. The aspect ratio is not kept: a camera on a line always has the same one.

    Args:
        image: BGR uint8, shape (H, W, 3).
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        BGR uint8, shape (height, width, 3), contiguous.

    Raises:
        DataError: The frame is not BGR uint8 (H, W, 3).
    """
    check_frame(image)
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    # Each side is shrunk or enlarged for itself: OpenCV averages only where neither side grows.
    least = (min(image.shape[1], width), min(image.shape[0], height))
    resized = cv2.resize(image, least, interpolation=cv2.INTER_AREA)
    if least != (width, height):
        resized = cv2.resize(resized, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(resized, dtype=np.uint8)


def check_frame(image: Image) -> None:
    """Refuse what is no frame.

    Raises:
        DataError: It is not BGR uint8 (H, W, 3).
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise DataError(
            f"a frame must be BGR uint8 (H, W, 3), not {image.dtype} {image.shape}",
            cure="set the camera to 8-bit colour or mono converted to BGR",
        )
