"""What the quality gate costs, catches and stops wrongly: make bench-gate SETS="DIR DIR".

Limits are learned on half of the good pictures. The other half, untouched, counts as false stops; the same
pictures with more or less light, blurred or shifted count as caught.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from kenpin.edge_runtime.quality_gate import QualityGate
from kenpin.frame import Image, read_picture
from kenpin.picture_files import list_pictures
from kenpin.quality import measure
from kenpin.quality_limits import learn_limits
from kenpin.synthetic import PRODUCTS, draw_part

_MOST = 400
_DRAWN = 200
_LIVE = 1_000_000
_TIMED = 200


def gain(factor: float) -> Callable[[Image], Image]:
    """More or less light."""
    return lambda image: np.clip(image.astype(np.float32) * factor, 0, 255).astype(np.uint8)


def tint(*, red: float = 1.0, blue: float = 1.0) -> Callable[[Image], Image]:
    """Another white balance."""
    gains = np.array([blue, 1.0, red], np.float32)
    return lambda image: np.clip(image.astype(np.float32) * gains, 0, 255).astype(np.uint8)


def blur(share: float) -> Callable[[Image], Image]:
    """Out of focus, by a share of the longer side."""
    return lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), share * max(image.shape)), np.uint8)


def shift(share: float) -> Callable[[Image], Image]:
    """The part lies elsewhere, by a share of the longer side."""
    return lambda image: np.roll(image, round(share * max(image.shape)), axis=1)


SWEEP = {
    "light x 0.3": gain(0.3),
    "light x 0.5": gain(0.5),
    "light x 0.7": gain(0.7),
    "light x 1.5": gain(1.5),
    "light x 2.0": gain(2.0),
    "light x 3.0": gain(3.0),
    "red x 0.95": tint(red=0.95),
    "red x 0.9": tint(red=0.9),
    "blue x 1.1": tint(blue=1.1),
    "blur 0.5 %": blur(0.005),
    "blur 1 %": blur(0.01),
    "blur 2 %": blur(0.02),
    "shift 3 %": shift(0.03),
    "shift 6 %": shift(0.06),
    "shift 10 %": shift(0.10),
    "black": gain(0.0),
}


def sets(folders: list[str]) -> Iterator[tuple[str, list[Image]]]:
    """Good pictures: drawn ones, and those of folders."""
    for product in PRODUCTS:
        yield product, [draw_part(product, seed=5, index=k, defect_share=0).image for k in range(_DRAWN)]
    for name in folders:
        good = next((d for d in (Path(name) / "train/good", Path(name) / "good") if d.is_dir()), Path(name))
        yield Path(name).name, [read_picture(p) for p in list_pictures(good)[:_MOST]]


def sweep(images: list[Image]) -> tuple[str, dict[str, str]]:
    """False stops, and the share of each kind that is caught."""
    order = np.random.default_rng(0).permutation(len(images))
    half = len(images) // 2
    limits = learn_limits([measure(images[k]) for k in order[:half]])
    assert limits is not None
    fresh = [images[k] for k in order[half:]]

    def stopped(change: Callable[[Image], Image]) -> int:
        gate = QualityGate(limits, live=False)
        return sum(gate.check(change(image)) is not None for image in fresh)

    place = "" if limits.reference else " (no place)"
    return f"{stopped(lambda image: image)} of {len(fresh)}{place}", {
        kind: f"{stopped(change) / len(fresh):.3f}" for kind, change in SWEEP.items()
    }


def cost() -> str:
    """Milliseconds for a frame of 1080p."""
    rng = np.random.default_rng(1)
    drawn = cv2.resize(draw_part("board", seed=1, index=0, defect_share=0).image, (1920, 1080))
    frames = [np.clip(drawn + rng.normal(0, 2, drawn.shape), 0, 255).astype(np.uint8) for _ in range(30)]
    gate = QualityGate(learn_limits([measure(frame) for frame in frames]), live=True)
    times = []
    for number in range(_TIMED):
        started = time.perf_counter()
        gate.check(frames[number % len(frames)])
        times.append((time.perf_counter() - started) * 1000)
    return f"1080p frame: median {statistics.median(times):.2f} ms, 99 % {np.percentile(times, 99):.2f} ms"


def frozen(count: int) -> str:
    """False alarms over live-like frames with very little noise."""
    rng = np.random.default_rng(2)
    still = rng.integers(20, 230, (64, 96, 3)).astype(np.float32)
    gate = QualityGate(None, live=True)
    alarms = 0
    for _ in range(count):
        noisy = still + rng.standard_normal(still.shape, dtype=np.float32) * np.float32(0.2)
        alarms += gate.check(np.rint(noisy).astype(np.uint8)) is not None
    return f"{alarms} false alarms of a frozen picture in {count:,} frames of 96 x 64, noise 0.2 steps"


def main() -> None:
    """Print all of it."""
    print(cost())
    for name, images in sets(sys.argv[1:]):
        false_stops, caught = sweep(images)
        print(f"\n{name}: {false_stops} good frames stopped")
        for kind, share in caught.items():
            print(f"  {kind:<12} {share}")
    print("\n" + frozen(_LIVE))


if __name__ == "__main__":
    main()
