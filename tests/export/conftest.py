"""A small model of the same kind as the real one, exported and quantised once for all tests here."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from onnx import ModelProto
from torch import Tensor, nn
from torch.nn import functional

from kenpin.errors import ExportError
from kenpin.export.half import check_rounding, to_half
from kenpin.export.onnx_model import to_onnx
from kenpin.export.placement import Placement, find_placement
from kenpin.export.quantize import quantize
from kenpin.export.range_methods import ranges_by
from kenpin.export.ranges import measure_reach
from kenpin.export.scheme import Scheme
from kenpin.frame import Image
from kenpin.synthetic import draw_part
from kenpin.train.cli import train
from kenpin.train.encoder import Encoder

# NVIDIA's builder is large and proprietary: it is checked where somebody installed it.
collect_ignore = [] if find_spec("tensorrt_rtx") else ["test_tensorrt_rtx.py"]

SIDE = 64


class Head(nn.Module):
    """Distance to a memory bank and a 1x1 map, resized, and the mean of the highest places."""

    bank: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Conv2d(16, 1, 1)
        self.register_buffer("bank", torch.randn(32, 20))

    def forward(self, taps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        near = functional.avg_pool2d(taps[2], 3, 1, 1, count_include_pad=False)
        places = near.flatten(2).transpose(1, 2)
        squared = (places**2).sum(2, keepdim=True) - 2 * places @ self.bank + (self.bank**2).sum(0)
        distance = squared.amin(2).clamp(min=0).sqrt().unflatten(1, near.shape[2:])[:, None]
        large = functional.interpolate(distance, size=(16, 16), mode="bilinear", align_corners=False)
        other = functional.interpolate(self.map(taps[1]), size=(16, 16), mode="bilinear", align_corners=False)
        maps = torch.cat([large, other, large + other], 1)
        levels = maps.flatten(2).topk(4, dim=-1).values.mean(-1)
        return levels[:, 2], levels, maps[:, 2]


class Model(nn.Module):
    """Encoder and head; not trained, but with batch norms that have seen pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder(8)
        self.head = Head()

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores: tuple[Tensor, Tensor, Tensor] = self.head(self.taps(frames))
        return scores

    def taps(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        taps: tuple[Tensor, Tensor, Tensor] = self.encoder(frames.permute(0, 3, 1, 2).float() / 128 - 1)
        return taps


def waves(count: int, *, seed: int) -> Image:
    """Smooth pictures with a pattern, BGR uint8 (N, SIDE, SIDE, 3)."""
    rng = np.random.default_rng(seed)
    x = np.linspace(0, 6.28, SIDE)
    frequency, phase = rng.integers(1, 9, (count, 1, 3)), rng.uniform(0, 6.28, (count, 1, 3))
    wave = np.sin(frequency * x[None, :, None] + phase)
    pictures = wave[:, None] * wave[:, :, None] * 100 + 127 + rng.normal(0, 4, (count, SIDE, SIDE, 3))
    return pictures.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def pictures() -> Image:
    return waves(12, seed=0)


@pytest.fixture(scope="session")
def model(pictures: Image) -> Model:
    torch.manual_seed(0)
    model = Model().train()
    with torch.no_grad():
        for _ in range(20):
            taps = model.taps(torch.from_numpy(pictures))
        columns = taps[2].permute(1, 0, 2, 3).flatten(1)
        model.head.bank = columns[:, :: columns.shape[1] // 20][:, :20].clone()
    return model.eval()


@pytest.fixture(scope="session")
def float_model(model: Model) -> ModelProto:
    return to_onnx(model, shape=(SIDE, SIDE))


@pytest.fixture(scope="session")
def placement(float_model: ModelProto) -> Placement:
    return find_placement(float_model)


@pytest.fixture(scope="session")
def ranges(float_model: ModelProto, placement: Placement, pictures: Image) -> dict[str, float]:
    return ranges_by("max_1.25", measure_reach(float_model, placement.activations, pictures))


@pytest.fixture(scope="session")
def int8_model(float_model: ModelProto, placement: Placement, ranges: dict[str, float]) -> ModelProto:
    return quantize(float_model, placement, ranges)


@pytest.fixture(scope="session")
def pair_model(float_model: ModelProto, placement: Placement, ranges: dict[str, float]) -> ModelProto:
    """Weights as fp32 with a Q/DQ pair."""
    return quantize(float_model, placement, ranges, Scheme(weights="fp32qdq"))


@pytest.fixture(scope="session")
def half_model(float_model: ModelProto, placement: Placement, ranges: dict[str, float]) -> ModelProto:
    """INT8 and fp16."""
    return to_half(quantize(float_model, placement, ranges, Scheme("fp16")))


@pytest.fixture(scope="session")
def rounding() -> None:
    """Needs an ONNX Runtime that rounds fp16; Python 3.10 has none."""
    try:
        check_rounding()
    except ExportError as error:
        pytest.skip(error.what)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C is heard: what a shell starts in its background is born deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training on drawn caps."""
    root = tmp_path_factory.mktemp("trained")
    for part, count, seed, share in (("train/good", 24, 1, 0), ("test/good", 6, 2, 0), ("test/bad", 6, 3, 1)):
        folder = root / "caps" / part
        folder.mkdir(parents=True)
        for index in range(count):
            image = draw_part("cap", seed=seed, index=index, defect_share=share).image
            assert cv2.imwrite(str(folder / f"{index:02}.png"), image)
    options = ["--data", str(root / "caps"), "--run", str(root / "run"), "--steps", "6", "--size", "64"]
    done = CliRunner().invoke(train, options, catch_exceptions=False)
    assert done.exit_code == 0
    return root / "run"
