from __future__ import annotations

import numpy as np

from kenpin.cutout import Cutout
from kenpin.edge_runtime.region import Region, hottest_region
from kenpin.view import Box


def upright(box: Box) -> Cutout:
    return Cutout(box, (2000, 1000))


def test_the_box_covers_the_hottest_region_in_frame_pixels() -> None:
    heat = np.zeros((8, 16), np.float32)
    heat[2:4, 4:7] = 10
    heat[6, 14] = 9  # another one, nearly as hot
    found = hottest_region(heat, upright(Box(0, 0, 320, 80)))
    assert found == Region(x=80, y=20, width=60, height=20, area=6 * 10 * 20)


def test_the_region_of_a_view_lies_where_the_view_lay_in_the_frame() -> None:
    heat = np.zeros((8, 16), np.float32)
    heat[2:4, 4:7] = 10
    found = hottest_region(heat, upright(Box(500, 70, 320, 80)))
    assert found == Region(x=580, y=90, width=60, height=20, area=1200)


def test_the_region_of_a_turned_view_is_turned_with_it() -> None:
    heat = np.zeros((8, 16), np.float32)
    heat[2:4, 4:7] = 10
    # A quarter clockwise about the upper left corner: right becomes down, and down becomes left.
    cutout = Cutout(Box(500, 70, 320, 80), (2000, 1000), turn_deg=90, pivot=(499.5, 69.5))
    assert hottest_region(heat, cutout) == Region(x=460, y=150, width=20, height=60, area=1200)


def test_a_flat_map_is_all_one_region() -> None:
    flat = np.full((4, 4), 3, np.float32)
    assert hottest_region(flat, upright(Box(0, 0, 8, 8))) == Region(0, 0, 8, 8, 64)


def test_a_frame_smaller_than_the_map_keeps_a_box_of_at_least_one_pixel() -> None:
    heat = np.zeros((64, 64), np.float32)
    heat[63, 63] = 1
    region = hottest_region(heat, upright(Box(0, 0, 4, 4)))
    assert (region.width, region.height, region.area) == (1, 1, 1)
    assert region.x + region.width <= 4
