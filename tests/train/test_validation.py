"""Defects that are drawn to weigh the maps and to prove INT8 with."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kenpin.frame import Image
from kenpin.strips import OVERLAP, Strips
from kenpin.train.fold import fold
from kenpin.train.validation import draw_validation_defects

SIDE, KINDS = 128, 7


def folded(image: Image) -> Image:
    return fold(torch.from_numpy(image).permute(2, 0, 1)).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("strips", [Strips(across=2), Strips(across=4), Strips(down=2), Strips(down=4)])
def test_a_long_picture_gets_what_is_drawn_on_the_square_of_its_strips(strips: Strips) -> None:
    picture = np.random.default_rng(0).integers(60, 190, (*strips.shape(SIDE), 3), np.uint8)
    square = folded(picture)
    alone = np.zeros((SIDE, SIDE), bool)  # what no other strip shows
    alone[:, OVERLAP:-OVERLAP] = True
    alone = alone if strips.across > 1 else alone.T
    wanted = draw_validation_defects([square], per_picture=KINDS, seed=1)
    drawn = draw_validation_defects([picture], per_picture=KINDS, seed=1)
    for long, short in zip(drawn, wanted, strict=True):
        assert long.shape == picture.shape
        assert (short[alone] != square[alone]).any()
        np.testing.assert_allclose(folded(long)[alone], short[alone], atol=1)  # rounded once more
