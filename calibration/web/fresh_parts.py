"""Parts in production that a calibration has judged, each picture once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kenpin.calibration.confirm import shown_pictures
from kenpin.calibration.web.calibrate_shown import learned_from
from kenpin.edge_runtime.database import reading
from kenpin.record import CalibrationRecord
from kenpin.station_folder import StationFolder

Measures = tuple[float | None, ...]

_PARTS = 20_000
_SEQ = "seq "  # before the number of a part, where it is the name of a score
# A record that was cut off gave its number to another one, with other thresholds.
# The first, not the newest: a false call that waits for its answer would leave the count as others come.
_MEASURES = "score, score_coarse, score_mid, score_fine, light, focus"
_JUDGED = f"""SELECT seq, part_id, score, image_sha256, verdict, ts_ms, captured_mono_ns, {_MEASURES} FROM part
    WHERE threshold_rev = ? AND bundle_sha256 = ? AND t1 = ? AND t2 = ?
        AND verdict IN ('OK', 'REVIEW', 'NG') ORDER BY seq LIMIT ?"""  # noqa: S608 our own column names


@dataclass(frozen=True)
class FreshPart:
    """A part that was judged by the record.

    Attributes:
        seq: Its number.
        part_id: Its identity.
        score: Its score.
        image_sha256: Of its picture; empty without one.
        verdict: What the station said: OK, REVIEW or NG.
        ts_ms: UTC of the exposure, milliseconds since 1970.
        captured_mono_ns: The same by the clock that nobody sets.
        measures: Scores of the whole and of the levels, light and focus, by which one picture is known again.
    """

    seq: int
    part_id: str
    score: float
    image_sha256: str
    verdict: str
    ts_ms: int
    captured_mono_ns: int
    measures: Measures

    @property
    def stopped(self) -> bool:
        """Whether it was not released."""
        return self.verdict != "OK"


def judged_by(folder: StationFolder, records: Sequence[CalibrationRecord]) -> list[FreshPart]:
    """The first parts in production but those whose pictures were shown for a calibration or the training.

    Args:
        folder: The station's folder.
        records: Of a bundle, oldest first; the last one is in force.
    """
    record = records[-1]
    with reading(folder.database) as connection:
        by = (record.rev, record.bundle_sha256, record.t1, record.t2)
        rows = connection.execute(_JUDGED, (*by, _PARTS)).fetchall()
    known = {*record.good, *(record.fresh.scores if record.fresh else ())}
    parts = [
        FreshPart(seq, part_id, score, sha256, verdict, ts_ms, mono_ns, tuple(measures))
        for seq, part_id, score, sha256, verdict, ts_ms, mono_ns, *measures in rows
    ]
    shown = shown_pictures(records) | learned_from(folder, record.bundle_sha256)
    return [p for p in parts if f"seq {p.seq}" not in known and p.image_sha256 not in shown]


def seen_once(folder: StationFolder, good: Sequence[FreshPart], record: CalibrationRecord) -> list[FreshPart]:
    """Without those whose picture came before: of what is released no picture is kept, but all measures are.

    No camera gives the same picture twice, and no two pictures measure alike to the last digit. A physical part
    that is shown again has another picture, and cannot be known again.
    """
    from_files = {
        (record.good[name], *levels)
        for name, levels in (record.good_levels or {}).items()
        if not name.startswith(_SEQ)
    }
    seen = _fitted_at_station(folder, record)
    once = []
    for part in good:
        has_levels = part.measures[1] is not None
        if has_levels and (part.measures in seen or part.measures[:4] in from_files):
            continue
        seen.add(part.measures)
        once.append(part)
    return once


def _fitted_at_station(folder: StationFolder, record: CalibrationRecord) -> set[Measures]:
    """What was measured of the parts that the station itself has seen for these thresholds."""
    seqs = [int(name.removeprefix(_SEQ)) for name in record.good if name.startswith(_SEQ)]
    marks = ", ".join("?" * len(seqs))
    sql = f"SELECT {_MEASURES} FROM part WHERE seq IN ({marks})"  # noqa: S608
    with reading(folder.database) as connection:
        return set(connection.execute(sql, seqs))
