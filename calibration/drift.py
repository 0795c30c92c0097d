"""Drift: whether the parts of the last hours still score like those the thresholds rest on.

The measure is the population stability index (PSI) over bins that held equal shares of the reference. Between
two samples of the same parts it is not 0: with B bins, PSI / (1/n + 1/m) has about the chi-squared distribution
with B - 1 degrees of freedom (Yurdakul, "Statistical Properties of Population Stability Index", 2018). A
difference counts only beyond both the customary 0.1 and 0.25 and what chance would do once in a thousand times.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kenpin.calibration.stored import HOUR_MS, first_since
from kenpin.edge_runtime.database import connect_to_read, explained
from kenpin.record import CalibrationRecord
from kenpin.station_folder import StationFolder

LEVELS = ("score", "coarse", "mid", "fine")
HOURS = 24
ENOUGH = 50
_BINS = 10
_PER_BIN = 10
_FIRST_PARTS = 500  # what coarse, mid and fine are compared with: the record keeps the whole score only
_SMALL, _LARGE = 0.1, 0.25
_Z_999 = 3.0902
_COLUMNS = """ts_ms, CASE verdict WHEN 'OK' THEN 0 WHEN 'REVIEW' THEN 1 WHEN 'NG' THEN 2 ELSE 3 END,
    score, score_coarse, score_mid, score_fine"""
_ROW = np.dtype([("ts_ms", np.int64), ("verdict", np.int8), *((name, np.float32) for name in LEVELS)])

Word = Literal["steady", "moved", "drifted", "unknown"]


@dataclass(frozen=True)
class Psi:
    """How far a sample is from a reference.

    Attributes:
        psi: The index; 0 where too few parts are known.
        chance: What it stays below in 999 of 1,000 cases when nothing has changed.
        parts: Size of the sample.
        word: `steady`, `moved` (above 0.1), `drifted` (above 0.25), or `unknown` with too few parts.
    """

    psi: float
    chance: float
    parts: int
    word: Word


@dataclass(frozen=True)
class Hour:
    """One hour.

    Attributes:
        start_ms: UTC of its begin, milliseconds since 1970.
        parts: Number of parts.
        review: How many of them were REVIEW.
        ng: How many were NG.
        no_verdict: How many were MISSED or NO_DECISION.
        psi: Of the whole score.
    """

    start_ms: int
    parts: int
    review: int
    ng: int
    no_verdict: int
    psi: Psi


@dataclass(frozen=True)
class Level:
    """One level over the last hours.

    Attributes:
        name: `score`, `coarse`, `mid` or `fine`.
        reference: Number of parts that it is compared with.
        day: Over all of the last hours.
        hour: Over the newest hour with enough parts.
        edges: Inner borders of the bins.
        expected: Share of the reference in each bin, 0 to 1.
        found: Share of the last hours in each bin.
    """

    name: str
    reference: int
    day: Psi
    hour: Psi
    edges: Sequence[float]
    expected: Sequence[float]
    found: Sequence[float]


@dataclass(frozen=True)
class Drift:
    """How the last hours compare with the calibration.

    Attributes:
        hours: Oldest first, hours without parts left out.
        levels: The whole score, then coarse, mid and fine.
    """

    hours: Sequence[Hour]
    levels: Sequence[Level]


def read_drift(folder: StationFolder, record: CalibrationRecord, *, now_ms: int) -> Drift:
    """Compare the last hours with the calibration.

    The whole score is compared with the record's good parts; the levels, which no record keeps, with the first
    parts that were judged by it. Parts that were shown in a calibration or a shift check are left out.

    Args:
        folder: The station's folder.
        record: The calibration in force.
        now_ms: UTC, milliseconds since 1970.

    Raises:
        StoreError: The database cannot be read.
    """
    with closing(connect_to_read(folder.database)) as connection, explained(folder.database):
        where = "cause <> 'calibrating' AND (bundle_sha256 = ? OR bundle_sha256 IS NULL)"
        sql = f"SELECT {_COLUMNS} FROM part WHERE seq >= ? AND {where} ORDER BY seq"  # noqa: S608
        first = first_since(connection, now_ms - HOURS * HOUR_MS)
        rows = _rows(connection.execute(sql, (first, record.bundle_sha256)))
        first = first_since(connection, record.created_ms)
        after = f"{sql.replace('WHERE', 'WHERE score IS NOT NULL AND')} LIMIT {_FIRST_PARTS}"
        early = _rows(connection.execute(after, (first, record.bundle_sha256)))
    references = [np.array(sorted(record.good.values())), *(_scores(early, name) for name in LEVELS[1:])]
    newest = max((h for h, n in _count_hours(rows) if n >= ENOUGH), default=-1)
    return Drift(
        [_hour(rows, hour, references[0]) for hour, _ in _count_hours(rows)],
        [_level(name, reference, rows, newest) for name, reference in zip(LEVELS, references, strict=True)],
    )


def population_stability(reference: NDArray[np.float64], sample: NDArray[np.float64]) -> Psi:
    """How far a sample is from a reference.

    Args:
        reference: Scores, finite, shape (N,).
        sample: Scores, finite, shape (M,).
    """
    n, m = len(reference), len(sample)
    if n < ENOUGH or m < ENOUGH:
        return Psi(0.0, 0.0, m, "unknown")
    edges = bin_edges(reference)
    expected, found = _smoothed(reference, edges), _smoothed(sample, edges)
    psi = float(((found - expected) * np.log(found / expected)).sum())
    chance = (1 / n + 1 / m) * _chi_squared_999(len(edges))
    word: Word = "steady"
    if psi > max(_SMALL, chance):
        word = "drifted" if psi > max(_LARGE, chance) else "moved"
    return Psi(psi, chance, m, word)


def bin_edges(reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inner borders of bins with equal shares of the reference; fewer than ten where it is small.

    Args:
        reference: Scores, shape (N,).
    """
    bins = max(2, min(_BINS, len(reference) // _PER_BIN))
    return np.unique(np.quantile(reference, np.arange(1, bins) / bins))


def shares(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the values in each bin, 0 to 1.

    Args:
        values: Scores, shape (N,).
        edges: Inner borders, shape (B - 1,).
    """
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return counts / max(len(values), 1)


def _smoothed(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half a part more in each bin, so that an empty one does not make the index infinite."""
    bins = len(edges) + 1
    smoothed: NDArray[np.float64] = (shares(values, edges) * len(values) + 0.5) / (len(values) + 0.5 * bins)
    return smoothed


def _chi_squared_999(freedom: int) -> float:
    """Quantile 0.999 of the chi-squared distribution (Wilson and Hilferty, PNAS 17, 1931); within 4 %."""
    spread = 2 / (9 * freedom)
    return float(freedom * (1 - spread + _Z_999 * math.sqrt(spread)) ** 3)


def _rows(found: Iterable[tuple[Any, ...]]) -> NDArray[Any]:
    """One by one: a day of a fast line is a million of them."""
    return np.fromiter(found, dtype=_ROW)


def _count_hours(rows: NDArray[Any]) -> list[tuple[int, int]]:
    hours, counts = np.unique(rows["ts_ms"] // HOUR_MS, return_counts=True)
    return list(zip(hours.tolist(), counts.tolist(), strict=True))


def _scores(rows: NDArray[Any], level: str, hour: int | None = None) -> NDArray[np.float64]:
    values = rows[level].astype(np.float64)
    kept = np.isfinite(values)
    if hour is not None:
        kept &= rows["ts_ms"] // HOUR_MS == hour
    return values[kept]


def _hour(rows: NDArray[Any], hour: int, reference: NDArray[np.float64]) -> Hour:
    inside = rows[rows["ts_ms"] // HOUR_MS == hour]
    ok, review, ng, none = np.bincount(inside["verdict"], minlength=4).tolist()
    psi = population_stability(reference, _scores(inside, "score"))
    return Hour(hour * HOUR_MS, ok + review + ng + none, review, ng, none, psi)


def _level(name: str, reference: NDArray[np.float64], rows: NDArray[Any], newest: int) -> Level:
    day = _scores(rows, name)
    edges = bin_edges(reference) if len(reference) >= ENOUGH else np.empty(0)
    return Level(
        name,
        len(reference),
        population_stability(reference, day),
        population_stability(reference, _scores(rows, name, newest)),
        edges.tolist(),
        shares(reference, edges).tolist(),
        shares(day, edges).tolist(),
    )
