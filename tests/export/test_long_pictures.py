"""Parts four times as long as wide, from their pictures to the station's answer where the defect is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from kenpin.bundle import Bundle, open_bundle
from kenpin.cli import cli
from kenpin.cutout import Cutout
from kenpin.edge_runtime.engine_ort import load_engine
from kenpin.edge_runtime.region import hottest_region
from kenpin.frame import Image
from kenpin.signing import PublicKey, SecretKey
from kenpin.strips import Strips
from kenpin.train.doubts import read_doubts
from kenpin.train.run import RunFolder
from kenpin.train.transfer import load_origin

Way = Literal["wide", "high"]
LONG, SHORT = 512, 128


def part(seed: int, way: Way, *, spot_at: int | None = None) -> tuple[Image, Image]:
    """A strip with a pattern, a dark spot so many pixels along it, and the spot's mask."""
    rng = np.random.default_rng(seed)
    along, across = np.meshgrid(np.arange(LONG), np.arange(SHORT))
    grey = 128 + 40 * np.sin(along / 9) + 20 * np.sin(across / 7) + rng.normal(0, 4, (SHORT, LONG))
    mask = np.zeros((SHORT, LONG), np.uint8)
    if spot_at is not None:
        cv2.circle(mask, (spot_at, SHORT // 3), 14, 255, -1)
    grey[mask > 0] = 20
    image = np.dstack([grey.clip(0, 255).astype(np.uint8)] * 3)
    turned = (lambda x: x) if way == "wide" else (lambda x: np.ascontiguousarray(np.rot90(x, -1)))
    return turned(image), turned(mask)


def write(path: Path, image: Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def kenpin(*arguments: object) -> tuple[dict[str, Any], str]:
    done = CliRunner().invoke(cli, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    return json.loads(done.stdout), " ".join(done.stderr.split())


@dataclass(frozen=True)
class Made:
    """A run and its bundle, and what the training told."""

    way: Way
    data: Path
    run: Path
    figures: dict[str, Any]
    told: str
    bundle: Bundle
    key: Path

    @property
    def shape(self) -> tuple[int, int]:
        return (32, 112) if self.way == "wide" else (112, 32)


@pytest.fixture(scope="module", params=["wide", "high"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    root, way = tmp_path_factory.mktemp("long"), request.param
    for seed in range(30):
        write(root / f"rail/{'train' if seed < 24 else 'test'}/good/{seed:02}.png", part(seed, way)[0])
    for seed in range(6):
        image, mask = part(100 + seed, way, spot_at=60 + 75 * seed)
        write(root / f"rail/test/spot/{seed:02}.png", image)
        write(root / f"rail/ground_truth/spot/{seed:02}_mask.png", mask)
    run = root / "run"
    figures, told = kenpin("train", "--data", root / "rail", "--run", run, "--steps", 6, "--size", 64)
    key, out = root / "signing.key", root / "rail.kenpin"
    SecretKey.generate().save(key)
    kenpin("export", run, "--out", out, "--key", key)
    public = key.with_suffix(".pub")
    bundle = open_bundle(out, [PublicKey.load(public)])
    return Made(way, root / "rail", run, figures, told, bundle, public)


def test_the_training_says_how_it_sees_them(made: Made) -> None:
    way, size = ("wide as high", "112 x 32") if made.way == "wide" else ("high as wide", "32 x 112")
    told = f"the pictures are 4.0 times as {way}: the model sees each at {size} pixels, in 2 strips"
    assert told in made.told
    assert f"{size} px, 6 steps" in (made.run / "report.html").read_text()
    assert RunFolder(made.run).config.strips == Strips.of(4.0 if made.way == "wide" else 0.25)


def test_maps_lie_as_the_pictures_and_their_masks_do(made: Made) -> None:
    assert made.figures["pixel_auroc"] > 0.95
    doubts = read_doubts(RunFolder(made.run))
    assert doubts is not None
    assert {picture.strips for picture in doubts.pictures} == {RunFolder(made.run).config.strips}
    height, width = made.shape
    assert doubts.maps.shape[1:] == (height // 4, width // 4)
    evaluated, _ = kenpin("evaluate", made.run, "--data", made.data)
    assert evaluated["aupro_30"] == made.figures["aupro_30"]


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_station_finds_the_defect_where_it_is(made: Made, precision: Literal["int8", "fp32"]) -> None:
    assert made.bundle.manifest.input_shape == (1, *made.shape, 3)
    engine = load_engine(made.bundle, precision)
    usual = max(engine.score(part(seed, made.way)[0]).score for seed in range(24, 30))
    for spot_at in (60, 200, 256, 330, 450):  # 256: where the strips meet
        frame, mask = part(200 + spot_at, made.way, spot_at=spot_at)
        scored = engine.score(frame)
        assert scored.score > usual
        found = hottest_region(scored.anomaly_map, Cutout.whole(frame))
        rows, columns = np.nonzero(mask)
        assert found.x <= columns.mean() <= found.x + found.width
        assert found.y <= rows.mean() <= found.y + found.height
        assert max(found.width, found.height) < LONG // 4


def test_further_pictures_are_seen_as_the_model_saw_the_first(made: Made, tmp_path: Path) -> None:
    """Whatever their own proportions say."""
    for seed in range(40, 52):
        write(tmp_path / f"later/{seed}.png", part(seed, made.way)[0][:SHORT, :SHORT])
    kenpin("train", "--good", tmp_path / "later", "--update", made.run, "--run", tmp_path / "run")
    strips = RunFolder(made.run).config.strips
    assert RunFolder(tmp_path / "run").config.strips == strips
    assert load_origin(made.bundle.path, same_parts=True, trust=(made.key,)).strips == strips


def test_one_strip_squeezes_them_into_a_square(made: Made, tmp_path: Path) -> None:
    options = ["--steps", 1, "--size", 64, "--strips", 1]
    _, told = kenpin("train", "--good", made.data / "train/good", "--run", tmp_path / "run", *options)
    assert "strips" not in told
    assert RunFolder(tmp_path / "run").config.input_shape == (64, 64)
