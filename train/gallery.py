"""Pictures of the report: the parts that a person should look at, and where in the picture maps light up."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from kenpin.counted import counted
from kenpin.frame import Image
from kenpin.train.data import read_image
from kenpin.train.evaluate import Scores
from kenpin.train.metrics import Floats

SHOWN = 6
SIDE = 160
# A mean picture changes little after this many.
AVERAGED = 50
AREAS = (
    ("upper left", "upper middle", "upper right"),
    ("left", "the middle", "right"),
    ("lower left", "lower middle", "lower right"),
)


@dataclass(frozen=True)
class Part:
    """One part in the gallery: name, score, and picture and overlaid map as base64 JPEG."""

    name: str
    score: str
    picture: str
    overlay: str


@dataclass(frozen=True)
class Shelf:
    """Parts under one headline."""

    title: str
    parts: list[Part]


@dataclass(frozen=True)
class MeanMap:
    """A mean anomaly map as base64 JPEG.

    Attributes:
        title: Of what.
        jpeg: The map, dark = low.
        scale: What dark and bright stand for; empty for a picture.
        where: Sentence on where the highest places are; empty for a picture.
    """

    title: str
    jpeg: str
    scale: str = ""
    where: str = ""


def shelves(scores: Scores, limit: float) -> list[Shelf]:
    """The best, the worst and the borderline parts.

    Args:
        scores: Of the pictures to choose from.
        limit: Score that borderline parts are nearest to.
    """
    bad, good = np.flatnonzero(scores.bad), np.flatnonzero(~scores.bad)
    score, distance = scores.score, np.abs(scores.score - limit)
    chosen = (
        ("Defects that score lowest: would they escape?", bad[np.argsort(score[bad])]),
        ("Good parts that score highest: would they be stopped?", good[np.argsort(-score[good])]),
        (f"Borderline defects: nearest to a score of {limit:.2f}", bad[np.argsort(distance[bad])]),
        (f"Borderline good parts: nearest to a score of {limit:.2f}", good[np.argsort(distance[good])]),
        ("Defects that score highest: clearly found", bad[np.argsort(-score[bad])]),
        ("Good parts that score lowest: clearly good", good[np.argsort(score[good])]),
    )
    # The map's colour must not hang on one extreme defect.
    brightest = float(np.percentile(scores.maps.max((1, 2)), 90))
    return [
        Shelf(title, [_part(scores, int(n), brightest) for n in members[:SHOWN]])
        for title, members in chosen
        if len(members)
    ]


def doubt_shelf(doubts: Scores) -> Shelf:
    """The good parts that are most unlike the others of what was learned from."""
    brightest = float(np.percentile(doubts.maps.max((1, 2)), 90))
    parts = [_part(doubts, number, brightest) for number in range(len(doubts.pictures))]
    title = (
        "Good parts that are most unlike the others that were learned from: are they good? (Score and colour "
        "of light, pattern and grain alone, by what the others teach: neither compares with those of other "
        "groups.)"
    )
    return Shelf(title, parts)


def mean_maps(held_back: Scores, test: Scores | None) -> list[MeanMap]:
    """The mean good part, the mean map of good parts and, where there are some, the one of defects."""
    pictures = [_input(held_back, n) for n in range(min(AVERAGED, len(held_back.pictures)))]
    mean = np.mean(pictures, axis=0, dtype=np.float32)
    found = [
        MeanMap(f"mean of {len(pictures)} pictures of good parts", _jpeg(np.asarray(mean, np.uint8))),
        _mean_map(f"map of {len(held_back.score)} pictures of good parts, held back", held_back.maps),
    ]
    if test is not None and test.bad.any():
        shown = counted(int(test.bad.sum()), "test picture")
        found.append(_mean_map(f"map of {shown} of bad parts", test.maps[test.bad]))
    return found


def usual_areas(maps: Floats) -> list[tuple[str, float]]:
    """In which ninth of the picture the highest place of maps (N, h, w) lies: names and shares, most first."""
    height, width = maps.shape[1:]
    rows, columns = np.unravel_index(maps.reshape(len(maps), -1).argmax(1), (height, width))
    ninths = rows * 3 // height * 3 + columns * 3 // width
    shares = np.bincount(ninths, minlength=9) / len(maps)
    names = [name for row in AREAS for name in row]
    return sorted(zip(names, shares.tolist(), strict=True), key=lambda pair: -pair[1])


def _mean_map(title: str, maps: Floats) -> MeanMap:
    mean = maps.mean(0)
    low, high = float(mean.min()), float(mean.max())
    areas: Sequence[str] = [
        f"{name} ({100 * share:.0f} %)" for name, share in usual_areas(maps)[:3] if share > 0
    ]
    return MeanMap(
        title,
        _jpeg(_heat((mean - low) / max(high - low, 1e-6))),
        f"dark {low:.2f}, bright {high:.2f}",
        f"highest place most often: {', '.join(areas)}",
    )


def _part(scores: Scores, number: int, brightest: float) -> Part:
    picture, image = scores.pictures[number], _input(scores, number)
    heat = cv2.resize(_heat(scores.maps[number] / max(brightest, 1e-6)), image.shape[1::-1])
    overlay = np.asarray(cv2.addWeighted(image, 0.6, heat, 0.6, 0), np.uint8)
    name = f"{picture.label}/{picture.path.name}"
    return Part(name, f"{scores.score[number]:.2f}", _jpeg(image), _jpeg(overlay))


def _input(scores: Scores, number: int) -> Image:
    height, width = scores.maps[number].shape
    return read_image(scores.pictures[number], shape=(4 * height, 4 * width))


def _heat(share: Floats) -> Image:
    """A map (h, w) of 0..1, clipped, as colours, (h, w, 3)."""
    levels = (np.clip(share, 0, 1) * 255).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), np.uint8)


def _jpeg(image: Image) -> str:
    """A picture (h, w, 3) with about as many pixels as a square of `SIDE`."""
    height, width = image.shape[:2]
    scale = SIDE / math.sqrt(height * width)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    shrunk = cv2.resize(image, (round(scale * width), round(scale * height)), interpolation=interpolation)
    return base64.b64encode(cv2.imencode(".jpg", shrunk)[1].tobytes()).decode("ascii")
