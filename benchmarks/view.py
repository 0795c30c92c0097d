"""What a view costs on 1080p frames, and how well it follows a part: python -m benchmarks.view.

Costs are processor time on one core, so that they mean the same on a busy machine.

The part is a drawn board of 1080p; each frame is shifted, and has its own light and noise.
"""

from __future__ import annotations

import hashlib
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable

import cv2
import numpy as np

from kenpin.cutout import turned_about
from kenpin.edge_runtime.quality_gate import QualityGate
from kenpin.errors import OutOfView
from kenpin.frame import Image
from kenpin.quality import measure
from kenpin.quality_limits import learn_limits
from kenpin.sight import Sight
from kenpin.synthetic import draw_part
from kenpin.view import Align, Box, View

_SIZE = (1920, 1080)
_ROI = Box(200, 150, 1500, 780)
_TEMPLATE = Box(760, 400, 320, 240)
_IGNORE = (((1200, 300), (1500, 300), (1500, 420), (1200, 420)), ((400, 700), (600, 720), (500, 800)))
_SHIFT = 80
_TIMED, _FRAMES = 300, 100


def board(index: int) -> Image:
    """A drawn good part that fills a frame."""
    drawn = draw_part("board", seed=1, index=index, defect_share=0).image
    return np.asarray(cv2.resize(drawn, _SIZE, interpolation=cv2.INTER_CUBIC), np.uint8)


def moved(image: Image, right: int, down: int, rng: np.random.Generator, *, turn_deg: float = 0) -> Image:
    """A part elsewhere, in other light, with noise."""
    shift = turned_about(_TEMPLATE.middle, turn_deg) + np.array([[0, 0, right], [0, 0, down]])
    shifted = cv2.warpAffine(image, shift, _SIZE, borderMode=cv2.BORDER_REFLECT)
    noise = rng.standard_normal(shifted.shape, dtype=np.float32) * 4
    return np.asarray(np.clip(shifted * rng.uniform(0.7, 1.3) + noise, 0, 255), np.uint8)


def sight(*, ignores: bool, aligns: bool, max_turn_deg: float = 0) -> Sight:
    """A view of the board."""
    align = Align(template=_TEMPLATE, max_shift_px=_SHIFT, max_turn_deg=max_turn_deg)
    reference = cv2.imencode(".png", board(0))[1].tobytes()
    view = View(
        frame_size=_SIZE,
        roi=_ROI,
        ignore=_IGNORE if ignores else (),
        align=align if aligns else None,
        reference=hashlib.sha256(reference).hexdigest(),
    )
    return Sight(view, reference, where="benchmark")


def timed(look: Callable[[Image], object], frames: list[Image]) -> str:
    """Median and 99th percentile of the milliseconds for a frame."""
    times = []
    for number in range(_TIMED):
        started = time.thread_time()
        look(frames[number % len(frames)])
        times.append((time.thread_time() - started) * 1000)
    return f"median {statistics.median(times):.2f} ms, 99 % {np.percentile(times, 99):.2f} ms"


def costs() -> None:
    """Print what each piece costs."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    frames = [moved(board(0), step, -step, rng) for step in range(-20, 20, 2)]
    gate = QualityGate(learn_limits([measure(frame) for frame in frames], place=False), live=True)
    print(f"quality gate          {timed(gate.check, frames)}")
    print(f"roi                   {timed(sight(ignores=False, aligns=False).take, frames)}")
    print(f"roi, ignore           {timed(sight(ignores=True, aligns=False).take, frames)}")
    both = sight(ignores=True, aligns=True)
    print(f"roi, ignore, align    {timed(both.take, frames)}")
    for most, name in ((10, "10 degrees"), (180, "any turn")):
        turning = sight(ignores=True, aligns=True, max_turn_deg=most)
        print(f"the same, {name:11} {timed(turning.take, frames)}")
    print(f"gate and all of these {timed(lambda frame: (gate.check(frame), both.take(frame)), frames)}")


def turning() -> None:
    """Print how far the view is off where the part may lie anyhow."""
    rng, view = np.random.default_rng(2), sight(ignores=True, aligns=True, max_turn_deg=180)
    off = []
    for _ in range(_FRAMES):
        turn = float(rng.uniform(-180, 180))
        right, down = (int(v) for v in rng.integers(-_SHIFT + 4, _SHIFT - 3, 2))
        cutout = view.take(moved(board(0), right, down, rng, turn_deg=turn)).cutout
        pixels = max(abs(cutout.box.x - _ROI.x - right), abs(cutout.box.y - _ROI.y - down))
        off.append((abs(math.remainder(cutout.turn_deg - turn, 360)), pixels))
    degrees, pixels = np.array(off).T
    print(f"{_FRAMES} turns: off by {np.median(degrees):.2f} degrees, {degrees.max():.2f} at most;", end=" ")
    print(f"by {np.median(pixels):.0f} px, {pixels.max():.0f} at most")


def following() -> None:
    """Print how far the view is off, and what it says of parts that are not there."""
    rng, view = np.random.default_rng(1), sight(ignores=True, aligns=True)
    off = []
    for _ in range(_FRAMES):
        right, down = (int(v) for v in rng.integers(-_SHIFT + 1, _SHIFT, 2))
        box = view.take(moved(board(0), right, down, rng)).cutout.box
        off.append(max(abs(box.x - _ROI.x - right), abs(box.y - _ROI.y - down)))
    print(f"{_FRAMES} shifts within {_SHIFT} px: off by {statistics.median(off):.0f} px, {max(off)} at most")
    others = [board(k) for k in range(1, 21)]
    fabric = [draw_part("fabric", seed=1, index=k, defect_share=0).image for k in range(20)]
    for right in (0, 5, 20, 100):
        far = right and _SHIFT + right
        told = refusals(view, [moved(part, far, 0, rng) for part in others])
        print(f"other parts of the product, shifted by {far} px: {told}")
    empty = np.full((_SIZE[1], _SIZE[0], 3), 90, np.uint8)
    print(f"no part: {refusals(view, [moved(empty, 0, 0, rng) for _ in range(20)])}")
    told = refusals(view, [moved(np.asarray(cv2.resize(f, _SIZE), np.uint8), 0, 0, rng) for f in fabric])
    print(f"another product: {told}")


def refusals(view: Sight, frames: Iterable[Image]) -> str:
    """What becomes of frames."""
    found = Counter[str]()
    for frame in frames:
        try:
            view.take(frame)
            found["looked at"] += 1
        except OutOfView as error:
            found[error.finding] += 1
    return ", ".join(f"{count} {said}" for said, count in found.items())


if __name__ == "__main__":
    costs()
    following()
    turning()
