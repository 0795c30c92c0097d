"""The hottest region of an anomaly map, as a box in the frame."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from kenpin.cutout import Cutout
from kenpin.view import Box


@dataclass(frozen=True)
class Region:
    """A box and an area in frame pixels.

    Attributes:
        x: Left edge.
        y: Top edge.
        width: Width of the box.
        height: Height of the box.
        area: Area of the region itself, which need not fill the box.
    """

    x: int
    y: int
    width: int
    height: int
    area: int


def hottest_region(anomaly_map: NDArray[np.float32], cutout: Cutout) -> Region:
    """Find the connected region around the hottest place of the map.

    It holds what lies above the middle between the map's median (the usual level of this part) and its peak.

    Args:
        anomaly_map: Finite values, shape (h, w).
        cutout: What of the frame it covers.
    """
    peak = float(anomaly_map.max())
    hot = anomaly_map >= (peak + float(np.median(anomaly_map))) / 2
    _, labels, stats, _ = cv2.connectedComponentsWithStats(hot.astype(np.uint8))
    row, column = np.unravel_index(int(anomaly_map.argmax()), anomaly_map.shape)
    left, top, width, height, area = (int(v) for v in stats[labels[row, column]])
    scale_y, scale_x = cutout.box.height / anomaly_map.shape[0], cutout.box.width / anomaly_map.shape[1]
    x, y = int(left * scale_x), int(top * scale_y)
    width, height = round((left + width) * scale_x) - x, round((top + height) * scale_y) - y
    found = cutout.in_frame(Box(x, y, max(1, width), max(1, height)))
    return Region(*found, area=max(1, round(area * scale_x * scale_y)))
