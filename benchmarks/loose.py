"""What it brings to turn loose parts upright: python -m benchmarks.loose [--steps 60] [--size 128] [--seeds 2].

Five drawn parts, each alone on a belt, turned by any angle, in light that stays where it is: 96 good ones to
learn from, 100 good and 100 bad ones to test. Each is trained on whole pictures, on a square around where the
part lies (what a person would draw as a region of interest), and as `kenpin train` does by itself.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.real_pictures import kenpin
from benchmarks.stamp import stamp
from kenpin.cutout import turned_about
from kenpin.frame import Image

_WIDTH, _HEIGHT = 640, 480
_MIDDLE = (_WIDTH / 2, _HEIGHT / 2)
_REGION = (130, 50, 380, 380)
_SHIFT_PX = 25
_FIGURES = {"image_auroc": "{:.3f}", "aupro_30": "{:.3f}", "escapes_at_10_per_1000": "{:.0f}"}

Canvas = NDArray[np.float32]
Mask = NDArray[np.uint8]
Rng = np.random.Generator


def key(_rng: Rng) -> tuple[Canvas, Mask]:
    """A flat key."""
    canvas, mask = _blank((70, 150, 175))
    cv2.circle(mask, (230, 240), 60, 255, -1)
    cv2.rectangle(mask, (280, 222), (480, 250), 255, -1)
    for number, depth in enumerate((18, 8, 22, 12, 20, 6)):
        cv2.rectangle(mask, (340 + 22 * number, 250), (352 + 22 * number, 250 + depth), 255, -1)
    cv2.circle(mask, (212, 240), 18, 0, -1)
    cv2.rectangle(canvas, (290, 232), (470, 238), (50, 110, 130), -1)
    cv2.ellipse(canvas, (230, 270), (16, 8), 20, 0, 250, (40, 90, 110), 3, cv2.LINE_AA)
    return canvas, mask


def gear(_rng: Rng) -> tuple[Canvas, Mask]:
    """A gear of sixteen teeth and five holes, with a keyway: nearly the same after a fifth of a turn."""
    canvas, mask = _blank((200, 205, 205))
    angle = np.arange(0, 2 * np.pi, np.pi / 360)
    radius = np.where(np.sin(16 * angle) > 0, 130, 112)
    _fill(mask, radius * np.cos(angle), radius * np.sin(angle))
    cv2.circle(mask, (320, 240), 28, 0, -1)
    cv2.rectangle(mask, (312, 200), (328, 225), 0, -1)
    for turn in np.arange(5) * 2 * np.pi / 5:
        middle = (int(320 + 70 * np.cos(turn)), int(240 + 70 * np.sin(turn)))
        cv2.circle(canvas, middle, 17, (120, 125, 125), -1, cv2.LINE_AA)
    return canvas, mask


def hazelnut(rng: Rng) -> tuple[Canvas, Mask]:
    """A nut that grew: no two have the same outline or the same stripes."""
    canvas, mask = _blank((45, 85, 150))
    angle, high = np.linspace(0, 2 * np.pi, 200), rng.uniform(0.8, 1.0)
    waves = sum(rng.normal(0, 0.035) * np.cos(order * angle + rng.uniform(0, 6)) for order in (2, 3))
    radius = 120 * (1 + waves + 0.12 * np.exp(-(((angle - np.pi) / 0.35) ** 2)))
    _fill(mask, radius * np.cos(angle), high * radius * np.sin(angle))
    y, x = np.mgrid[0:_HEIGHT, 0:_WIDTH].astype(np.float32)
    stripes = np.sin(30 * np.arctan2(y - 240, x - 200) + 0.8 * _clouds(rng, 12))
    canvas *= (1 + 0.12 * stripes + 0.05 * _clouds(rng, 40))[..., None]
    canvas[((x - 440) / 30) ** 2 + ((y - 240) / 60) ** 2 < 1] = (110, 150, 190)
    return canvas, mask


def connector(_rng: Rng) -> tuple[Canvas, Mask]:
    """A connector of two rows of contacts: only a lug tells one side from the other."""
    canvas, mask = _blank((60, 60, 60))
    cv2.rectangle(mask, (190, 190), (450, 290), 255, -1)
    cv2.rectangle(mask, (300, 180), (340, 190), 255, -1)
    for left in range(205, 445, 24):
        cv2.rectangle(canvas, (left, 205), (left + 12, 235), (190, 200, 200), -1)
        cv2.rectangle(canvas, (left, 250), (left + 12, 275), (190, 200, 200), -1)
    return canvas, mask


def board(rng: Rng) -> tuple[Canvas, Mask]:
    """A small circuit board, always with the same components."""
    canvas, mask = _blank((60, 110, 40))
    cv2.rectangle(mask, (210, 150), (430, 330), 255, -1)
    layout = np.random.default_rng(5)
    for _ in range(14):
        x, y, wide, high = (int(n) for n in layout.integers((220, 160, 10, 8), (390, 300, 36, 26)))
        colour = tuple(float(n) for n in layout.integers(20, 220, 3))
        cv2.rectangle(canvas, (x, y), (x + wide, y + high), colour, -1)
    return canvas + 4 * _clouds(rng, 60)[..., None], mask


# What is drawn, and how bright the belt is.
PARTS: dict[str, tuple[Callable[[Rng], tuple[Canvas, Mask]], int]] = {
    "key": (key, 205),
    "gear": (gear, 40),
    "hazelnut": (hazelnut, 25),
    "connector": (connector, 225),
    "board": (board, 200),
}


def picture(name: str, rng: Rng, *, is_bad: bool) -> tuple[Image, Mask]:
    """A part as it fell, and where its defect is."""
    draw, belt = PARTS[name]
    canvas, mask = draw(rng)
    defect = np.zeros_like(mask)
    if is_bad:
        canvas, mask, defect = _with_defect(rng, canvas, mask)
    lying = turned_about(_MIDDLE, rng.uniform(0, 360))
    lying[:, 2] += rng.uniform(-_SHIFT_PX, _SHIFT_PX, 2)
    canvas, mask, defect = (cv2.warpAffine(one, lying, (_WIDTH, _HEIGHT)) for one in (canvas, mask, defect))
    cover = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), 0.8)
    # Edges catch the light of one corner and shade the belt on the other side, however the part lies.
    edge = cv2.Sobel(cv2.GaussianBlur(cover, (0, 0), 3), cv2.CV_32F, 1, 1, ksize=3)
    shade = cv2.GaussianBlur(np.roll(cover, (6, 6), (0, 1)), (0, 0), 5)
    ground = (belt + 2 * _clouds(rng, 6) + 2 * _clouds(rng, 200)) * (1 - 0.25 * shade)
    seen = ground[..., None] * (1 - cover[..., None]) + (canvas + 60 * edge[..., None]) * cover[..., None]
    y, x = np.mgrid[0:_HEIGHT, 0:_WIDTH]
    fall_off = 1.08 - 0.35 * (((x - 280) / _WIDTH) ** 2 + ((y - 200) / _HEIGHT) ** 2)
    seen = cv2.GaussianBlur((seen * fall_off[..., None] * rng.normal(1, 0.05)).astype(np.float32), (0, 0), 0.7)
    return np.clip(seen + rng.normal(0, 2.5, seen.shape), 0, 255).astype(np.uint8), defect


def _with_defect(rng: Rng, canvas: Canvas, mask: Mask) -> tuple[Canvas, Mask, Mask]:
    """A spot, a scratch, a piece broken off the outline, or a blurred patch; where it is comes last."""
    rows, columns = np.nonzero(mask)
    at = int(rng.integers(len(rows)))
    place, defect = (int(columns[at]), int(rows[at])), np.zeros_like(mask)
    kind = ("spot", "scratch", "break", "patch")[int(rng.integers(4))]
    if kind == "scratch":
        turn, length = rng.uniform(0, 2 * np.pi), rng.uniform(25, 60)
        end = (int(place[0] + length * np.cos(turn)), int(place[1] + length * np.sin(turn)))
        cv2.line(defect, place, end, 255, int(rng.integers(2, 5)))
    elif kind == "break":
        outline = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0][0]
        x, y = (int(n) for n in outline[rng.integers(len(outline))][0])
        cv2.circle(defect, (x, y), int(rng.integers(8, 16)), 255, -1)
    else:
        cv2.circle(defect, place, int(rng.integers(4, 10) if kind == "spot" else rng.integers(10, 22)), 255, -1)
    defect = np.where(mask > 0, defect, 0).astype(np.uint8)
    if kind == "break":
        return canvas, np.where(defect > 0, 0, mask).astype(np.uint8), defect
    where = defect[..., None] > 0
    blurred = cv2.GaussianBlur(canvas, (0, 0), 7) * rng.choice([0.75, 1.25])
    scratched = 0.3 * canvas + 0.7 * rng.choice([15, 240])
    other = {"spot": rng.uniform(0, 255, 3), "scratch": scratched, "patch": blurred}[kind]
    return np.where(where, other, canvas).astype(np.float32), mask, defect


def _blank(colour: tuple[int, int, int]) -> tuple[Canvas, Mask]:
    canvas = np.tile(np.array(colour, np.float32), (_HEIGHT, _WIDTH, 1))
    return canvas, np.zeros((_HEIGHT, _WIDTH), np.uint8)


def _fill(mask: Mask, right: NDArray[np.float64], down: NDArray[np.float64]) -> None:
    corners = np.stack([320 + right, 240 + down], 1).astype(np.int32)
    cv2.fillPoly(mask, [corners], 255)


def _clouds(rng: Rng, across: int) -> Canvas:
    grid = rng.standard_normal((across * _HEIGHT // _WIDTH + 2, across), dtype=np.float32)
    return np.asarray(cv2.resize(grid, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_CUBIC), np.float32)


def write(name: str, root: Path) -> None:
    """Draw all pictures of one part, MVTec style."""
    for seed, (folder, count) in enumerate((("train/good", 96), ("test/good", 100), ("test/bad", 100))):
        (root / folder).mkdir(parents=True)
        (root / "ground_truth/bad").mkdir(parents=True, exist_ok=True)
        for number in range(count):
            rng = np.random.default_rng([seed, number, *name.encode()])
            image, defect = picture(name, rng, is_bad=folder == "test/bad")
            cv2.imwrite(str(root / folder / f"{number:03}.png"), image)
            if folder == "test/bad":
                cv2.imwrite(str(root / "ground_truth/bad" / f"{number:03}_mask.png"), defect)


def figures(data: Path, run: Path, given: list[str]) -> str:
    """Train and measure."""
    found = kenpin("train", "--data", str(data), "--run", str(run), *given)
    values = (found[name]["value"] if isinstance(found[name], dict) else found[name] for name in _FIGURES)
    return " / ".join(form.format(value) for form, value in zip(_FIGURES.values(), values, strict=True))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    print(stamp())
    print(f"{given.size} px, {given.steps} steps; {' / '.join(_FIGURES)}")
    with tempfile.TemporaryDirectory() as work:
        region = Path(work, "region.toml")
        region.write_text(f"frame_size = [{_WIDTH}, {_HEIGHT}]\nroi = {list(_REGION)}\n")
        ways = {"whole": ["--whole"], "region": ["--view", str(region)], "upright": []}
        for name in PARTS:
            write(name, Path(work, name))
            for seed in range(given.seeds):
                usual = ["--steps", str(given.steps), "--size", str(given.size), "--seed", str(seed)]
                for way, more in ways.items():
                    found = figures(Path(work, name), Path(work, f"{name}-{way}-{seed}"), [*usual, *more])
                    print(f"{name:10} seed {seed}  {way:8} {found}", flush=True)


if __name__ == "__main__":
    main()
