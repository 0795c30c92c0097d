"""The drawn pictures, and the weights that are trained on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from kenpin.train.encoder import Encoder
from kenpin.train.init import load_initial_weights
from scripts import drawn_pictures
from scripts.train_drawn import SIDE, draw_pictures, save, train


def test_pictures_differ_and_a_seed_gives_them_again() -> None:
    pictures = draw_pictures(12, seed=3)
    assert pictures.shape == (12, 3, SIDE, SIDE)
    assert pictures.dtype == torch.uint8
    assert torch.equal(pictures, draw_pictures(12, seed=3))
    assert len({picture.numpy().tobytes() for picture in pictures}) == 12


def test_every_texture_shows_something_in_most_draws() -> None:
    r = np.random.default_rng(0)
    for texture in {*drawn_pictures._TEXTURES, drawn_pictures._part}:
        drawn = [texture(r, 64) for _ in range(20)]
        assert all(image.shape == (64, 64, 3) for image in drawn)
        assert np.median([image.std((0, 1)).max() for image in drawn]) > 5, texture.__name__


def test_what_is_trained_is_what_a_training_starts_from(tmp_path: Path) -> None:
    encoder = train(draw_pictures(30, seed=0), steps=2, seed=0, device="cpu", width=8)
    save(encoder, tmp_path / "w.safetensors")
    again = Encoder(8).eval()
    load_initial_weights(again, tmp_path / "w.safetensors")
    pictures = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(again(pictures), encoder.eval()(pictures), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)
