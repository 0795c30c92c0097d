"""Scores of parts that were shown for calibration, from pictures or from a list."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kenpin.edge_runtime.engine import Engine
from kenpin.errors import DataError, reason_of
from kenpin.folder_names import GOOD
from kenpin.frame import Image, read_picture
from kenpin.manifest import Manifest
from kenpin.picture_files import sha256_of
from kenpin.pictures import Picture
from kenpin.quality_limits import QualityLimits
from kenpin.record import Origin
from kenpin.sight import take

MASTER = "master"


@dataclass(frozen=True)
class PictureScore:
    """The score of one picture.

    Attributes:
        name: File or identity; unique.
        score: The anomaly score, finite.
        group: The physical part; pictures of one part are not independent.
        sha256: Of the picture; empty where only its score is known.
        levels: Scores of the levels coarse, mid and fine; `None` where only the whole score is known.
    """

    name: str
    score: float
    group: str
    sha256: str = ""
    levels: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class ScoreSet:
    """Scores of good parts and of masters.

    Attributes:
        good: Of good parts.
        masters: Of known bad parts.
        quality: Limits of a frame's quality, learned from the pictures of good parts; `None` without pictures,
            or with too few.
        origin: Where the good parts came from; `None` where only their scores are known.
        left: Of parts that were shown as good and that somebody has left out in view of their scores.
    """

    good: tuple[PictureScore, ...]
    masters: tuple[PictureScore, ...] = ()
    quality: QualityLimits | None = None
    origin: Origin | None = None
    left: tuple[PictureScore, ...] = ()


def worst_of_parts(scores: Sequence[PictureScore]) -> dict[str, float]:
    """The highest score of each physical part: a good part is a false call if any picture of it is stopped."""
    worst: dict[str, float] = {}
    for s in scores:
        worst[s.group] = max(s.score, worst.get(s.group, -math.inf))
    return worst


def best_of_parts(scores: Sequence[PictureScore]) -> dict[str, float]:
    """The lowest score of each physical part: a master is caught if every picture of it is stopped."""
    best: dict[str, float] = {}
    for s in scores:
        best[s.group] = min(s.score, best.get(s.group, math.inf))
    return best


def check_fresh(shown: Sequence[Picture], manifest: Manifest) -> None:
    """Refuse pictures that the model was trained on, bad ones too: it knows them, their scores prove nothing.

    Raises:
        DataError: It names the first one.
    """
    learned = set(manifest.learned_from)
    known = [p.path for p in shown if sha256_of(p.path) in learned]
    if known:
        raise DataError(
            f"the model was trained on {len(known)} of these {len(shown)} pictures; their scores prove nothing",
            where=known[0],
            cure="show parts that it did not learn from; with --teach it learned from bad ones, too",
        )


def score_pictures(
    engine: Engine, pictures: Sequence[Picture], root: Path, *, scored: Callable[[Image], None]
) -> tuple[PictureScore, ...]:
    """Score pictures as the station would.

    Args:
        engine: The model.
        pictures: What to score.
        root: Folder that the names are relative to.
        scored: Called with each picture after it was scored.

    Raises:
        DataError: A picture cannot be read, or does not show the part where the view wants it; it is named.
        EngineError: The model failed.
    """
    scores = []
    for picture in pictures:
        name = picture.path.relative_to(root.resolve()).as_posix()
        image = read_picture(picture.path)
        taken = take(image, engine.sight, where=picture.path)
        sha256 = sha256_of(picture.path)
        scored_now = engine.score(taken.image)
        scores.append(PictureScore(name, scored_now.score, picture.group, sha256, scored_now.level_scores))
        scored(image)
    return tuple(scores)


def read_scores(path: Path) -> ScoreSet:
    """Read a list of scores: CSV with the columns name, score, label (good or master) and, optionally, group.

    Raises:
        DataError: The file cannot be read, or a line is wrong; it is named.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.DictReader(lines))
    except OSError as error:
        raise DataError(
            f"cannot read the scores: {error.strerror}", where=path, cure="check the path"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"not a CSV file: {reason_of(error)}", where=path, cure="save it as CSV in UTF-8"
        ) from None
    labelled = [_read_row(row, f"{path}, line {number}") for number, row in enumerate(rows, start=2)]
    scores = [score for _, score in labelled]
    if len({s.name for s in scores}) < len(scores):
        names = [s.name for s in scores]
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"the name {twice!r} stands there twice", where=path, cure="give each its own name")
    good, masters = (tuple(s for kind, s in labelled if kind == wanted) for wanted in (GOOD, MASTER))
    return ScoreSet(good, masters)


def _read_row(row: dict[str, str | None], where: str) -> tuple[str, PictureScore]:
    name, score, label = row.get("name"), row.get("score"), row.get("label")
    if not name or score is None or label is None:
        raise DataError(
            "name, score or label is missing", where=where, cure="give all three columns, separated by commas"
        )
    if label not in (GOOD, MASTER):
        raise DataError(f"the label is {label!r}", where=where, cure=f"use {GOOD} or {MASTER}")
    try:
        value = float(score)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"the score {score!r} is not a finite number", where=where, cure="score it again")
    return label, PictureScore(name, value, row.get("group") or name)
