"""The cutout: where in a frame lies what a model is shown of it, upright or turned with the part."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kenpin.frame import Image
from kenpin.view import Box


@dataclass(frozen=True)
class Cutout:
    """A box in a frame, turned with the part in it.

    Attributes:
        box: As it lies before it is turned, in pixels of the frame.
        frame_size: Width and height of the frame.
        turn_deg: Degrees clockwise.
        pivot: Where x and y stay as they are while it is turned.
    """

    box: Box
    frame_size: tuple[int, int]
    turn_deg: float = 0.0
    pivot: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def whole(cls, image: Image) -> Cutout:
        """All of a frame (H, W, 3)."""
        height, width = image.shape[:2]
        return cls(Box(0, 0, width, height), (width, height))

    def cut(self, image: Image, *, interpolation: int = cv2.INTER_LINEAR) -> Image:
        """What of a frame (H, W, 3) lies there, upright; it may share the frame's memory.

        A turned box may reach beyond the frame: there the frame's outermost pixels go on.
        """
        if not self.turn_deg:
            return image[self.box.slices]
        size = (self.box.width, self.box.height)
        flags = interpolation | cv2.WARP_INVERSE_MAP
        upright = cv2.warpAffine(image, self._to_frame(), size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(upright, np.uint8)

    def in_frame(self, inner: Box) -> Box:
        """The smallest upright box of the frame around a box that is given in pixels of `cut`."""
        if not self.turn_deg:
            return inner.moved(self.box.x, self.box.y)
        x, y = inner.x - 0.5, inner.y - 0.5  # edges, where whole numbers are the middles of pixels
        corners = [(x + across, y + down) for across in (0, inner.width) for down in (0, inner.height)]
        matrix = self._to_frame()
        turned = (np.array(corners) @ matrix[:, :2].T + matrix[:, 2] + 0.5).round()
        most = np.array(self.frame_size)
        left, top = (int(v) for v in np.clip(turned.min(0), 0, most - 1))
        right, bottom = (int(v) for v in np.clip(turned.max(0), 1, most))
        return Box(left, top, max(1, right - left), max(1, bottom - top))

    def spread(self, values: NDArray[np.float32], size: tuple[int, int], *, fill: float) -> NDArray[np.float32]:
        """Lay values that cover the cutout over a picture of the whole frame.

        Args:
            values: Shape (h, w).
            size: Width and height of the picture, of any scale.
            fill: What stands beside the cutout.

        Returns:
            Shape (height, width).
        """
        height, width = values.shape
        from_middle = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        to_middle = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
        to_box = np.diag([self.box.width / width, self.box.height / height, 1.0])
        to_size = np.diag([size[0] / self.frame_size[0], size[1] / self.frame_size[1], 1.0])
        turn = np.vstack([self._to_frame(), [0, 0, 1]])
        matrix = to_middle @ to_size @ from_middle @ turn @ to_middle @ to_box @ from_middle
        laid: Any = np.full((size[1], size[0]), fill, np.float32)
        cv2.warpAffine(values, matrix[:2], size, dst=laid, borderMode=cv2.BORDER_TRANSPARENT)
        return np.asarray(laid, np.float32)

    def _to_frame(self) -> NDArray[np.float64]:
        """Maps a pixel of `cut` to the frame, shape (2, 3)."""
        turn = turned_about(self.pivot, self.turn_deg)
        turn[:, 2] += turn[:, :2] @ (self.box.x, self.box.y)
        return turn


def turned_about(pivot: tuple[float, float], turn_deg: float) -> NDArray[np.float64]:
    """The matrix (2, 3) that turns points clockwise about a pivot, y pointing down."""
    cosine, sine = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([turn, np.array(pivot) - turn @ pivot])
