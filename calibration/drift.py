"""Drift: whether the parts of the last hours still look and score like those the thresholds rest on."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kenpin.calibration.spread import MEASURES, Allowed, Spread, allowed_by, spread_of
from kenpin.calibration.stored import HOUR_MS, first_since
from kenpin.edge_runtime.database import reading
from kenpin.record import CalibrationRecord
from kenpin.stability import ENOUGH, Psi, Word, bin_edges, population_stability, shares
from kenpin.station_folder import StationFolder

LEVELS = ("score", "coarse", "mid", "fine")
HOURS = 24
Reference = tuple[NDArray[np.float64], int]  # scores, and how many parts they are of
_WORST_FIRST: tuple[Word, ...] = ("drifted", "moved", "unknown")
_FIRST_PARTS = 500  # what the levels are compared with where the record is old and does not keep them
_COLUMNS = """ts_ms, CASE verdict WHEN 'OK' THEN 0 WHEN 'REVIEW' THEN 1 WHEN 'NG' THEN 2 ELSE 3 END,
    score, score_coarse, score_mid, score_fine, light, focus"""
_SEEN = f"""SELECT {_COLUMNS} FROM part WHERE seq >= ? AND cause <> 'calibrating'
    AND (bundle_sha256 = ? OR bundle_sha256 IS NULL) ORDER BY seq"""  # noqa: S608 our own column names
_FIRST_SCORED = f"""SELECT {_COLUMNS} FROM part WHERE seq >= ? AND cause <> 'calibrating'
    AND bundle_sha256 = ? AND score IS NOT NULL ORDER BY seq LIMIT {_FIRST_PARTS}"""  # noqa: S608
_ROW = np.dtype(
    [("ts_ms", np.int64), ("verdict", np.int8), *((name, np.float32) for name in (*LEVELS, *MEASURES))]
)


@dataclass(frozen=True)
class Hour:
    """One hour.

    Attributes:
        start_ms: UTC of its begin, milliseconds since 1970.
        parts: Number of parts.
        review: How many of them were REVIEW.
        ng: How many were NG.
        no_verdict: How many were MISSED or NO_DECISION.
        psi: Of each level.
        spreads: Of light and focus; empty where the record has no limits for them.
    """

    start_ms: int
    parts: int
    review: int
    ng: int
    no_verdict: int
    psi: Mapping[str, Psi]
    spreads: Mapping[str, Spread]


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
class Measure:
    """Light or focus over the last hours.

    Attributes:
        name: `light` or `focus`.
        allowed: What the sign-off allows.
        day: Over all of the last hours.
        hour: Over the newest hour with parts.
    """

    name: str
    allowed: Allowed
    day: Spread
    hour: Spread


@dataclass(frozen=True)
class Drift:
    """How the last hours compare with the calibration.

    Attributes:
        hours: Oldest first, hours without parts left out.
        levels: The whole score, then coarse, mid and fine.
        measures: Light and focus; empty where the record has no limits for them.
    """

    hours: Sequence[Hour]
    levels: Sequence[Level]
    measures: Sequence[Measure]

    @property
    def word(self) -> Word:
        """How the last hour is: the worst of whole score, light and focus; not steady while one is unknown."""
        words = {self.levels[0].hour.word, *(measure.hour.word for measure in self.measures)}
        return next((word for word in _WORST_FIRST if word in words), "steady")


def read_drift(folder: StationFolder, record: CalibrationRecord, *, now_ms: int) -> Drift:
    """Compare the last hours with the calibration.

    Scores are compared with the record's good parts. An old record does not keep their levels: those are
    compared with the first parts that were judged by it. Parts that were shown in a calibration or a shift
    check are left out.

    Args:
        folder: The station's folder.
        record: The calibration in force.
        now_ms: UTC, milliseconds since 1970.

    Raises:
        StoreError: The database cannot be read.
    """
    with reading(folder.database) as connection:
        rows = _rows(connection, record, _SEEN, since_ms=now_ms - HOURS * HOUR_MS)
        rows = rows[rows["ts_ms"] <= now_ms]  # later ones are from before the clock was set back
        early = None
        if record.good_levels is None:
            early = _rows(connection, record, _FIRST_SCORED, since_ms=record.created_ms)
    references = _references(record, early)
    allowed = allowed_by(record.quality)
    hours = _count_hours(rows)
    scored = _count_hours(rows[np.isfinite(rows["score"])])
    newest = max((h for h, n in scored if n >= ENOUGH), default=-1)
    return Drift(
        [_hour(rows, hour, references, allowed) for hour, _ in hours],
        [_level(name, reference, rows, newest) for name, reference in references.items()],
        [_measure(name, limits, rows, hours[-1][0] if hours else -1) for name, limits in allowed.items()],
    )


def _rows(
    connection: sqlite3.Connection, record: CalibrationRecord, sql: str, *, since_ms: int
) -> NDArray[Any]:
    """One by one: a day of a fast line is a million of them."""
    first = first_since(connection, since_ms)
    return np.fromiter(connection.execute(sql, (first, record.bundle_sha256)), dtype=_ROW)


def _references(record: CalibrationRecord, early: NDArray[Any] | None) -> dict[str, Reference]:
    """What each level is compared with."""
    good = np.array(list(record.good.values()), dtype=np.float64)
    parts = record.good_parts or len(good)
    if record.good_levels is not None:
        levels = np.array(list(record.good_levels.values()), dtype=np.float64)
        return {name: (found, parts) for name, found in zip(LEVELS, (good, *levels.T), strict=True)}
    assert early is not None
    first = {name: _finite(early, name) for name in LEVELS[1:]}
    return {"score": (good, parts), **{name: (found, len(found)) for name, found in first.items()}}


def _count_hours(rows: NDArray[Any]) -> list[tuple[int, int]]:
    hours, counts = np.unique(rows["ts_ms"] // HOUR_MS, return_counts=True)
    return list(zip(hours.tolist(), counts.tolist(), strict=True))


def _finite(rows: NDArray[Any], column: str) -> NDArray[np.float64]:
    values = rows[column].astype(np.float64)
    return values[np.isfinite(values)]


def _inside(rows: NDArray[Any], hour: int) -> NDArray[Any]:
    inside: NDArray[Any] = rows[rows["ts_ms"] // HOUR_MS == hour]
    return inside


def _hour(
    rows: NDArray[Any], hour: int, references: Mapping[str, Reference], allowed: Mapping[str, Allowed]
) -> Hour:
    inside = _inside(rows, hour)
    ok, review, ng, none = np.bincount(inside["verdict"], minlength=4).tolist()
    psi = {
        name: population_stability(good, _finite(inside, name), parts=parts)
        for name, (good, parts) in references.items()
    }
    spreads = {name: spread_of(_finite(inside, name), limits) for name, limits in allowed.items()}
    return Hour(hour * HOUR_MS, ok + review + ng + none, review, ng, none, psi, spreads)


def _level(name: str, compared: Reference, rows: NDArray[Any], newest: int) -> Level:
    reference, parts = compared
    day, hour = (_finite(some, name) for some in (rows, _inside(rows, newest)))
    edges = bin_edges(reference, parts=parts) if parts >= ENOUGH else np.empty(0)
    return Level(
        name,
        parts,
        population_stability(reference, day, parts=parts),
        population_stability(reference, hour, parts=parts),
        edges.tolist(),
        shares(reference, edges).tolist(),
        shares(day, edges).tolist(),
    )


def _measure(name: str, allowed: Allowed, rows: NDArray[Any], newest: int) -> Measure:
    day, hour = (_finite(part, name) for part in (rows, _inside(rows, newest)))
    return Measure(name, allowed, spread_of(day, allowed), spread_of(hour, allowed))
