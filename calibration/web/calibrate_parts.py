"""The parts that were shown for a calibration, read from the station's database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil
from pathlib import Path
from statistics import median

from kenpin.calibration.likeness import Unlike, fence_above
from kenpin.calibration.scores import PictureScore
from kenpin.calibration.web.calibrate_run import Label, Run
from kenpin.calibration.web.part_time import minutes_of
from kenpin.calibration.words import WIDE_LIGHT
from kenpin.edge_runtime.database import reading
from kenpin.edge_runtime.light import Light, light_against_parts, newest_light
from kenpin.quality_limits import LEAST
from kenpin.record import Origin

MOST_LOTS = 9  # more is not asked for
MOST_GOOD = 3000  # who shows more has forgotten to go on
NEWEST = 8
_COLUMNS = """seq, part_id, ts_ms, score, image_ref, image_sha256, score_coarse, score_mid, score_fine, light,
    captured_mono_ns"""
_SCORED = "bundle_sha256 = ? AND cause = 'calibrating' AND score IS NOT NULL"


@dataclass(frozen=True)
class ShownPart:
    """A part that was shown.

    Attributes:
        seq: Its number.
        part_id: Its identity.
        ts_ms: UTC of the exposure, milliseconds since 1970.
        score: Its score.
        image_ref: Its picture, below the folder of pictures; empty if none was kept.
        image_sha256: Of the picture; empty until it is written.
        coarse: Its score at that level; `None` = not known.
        mid: Its score at that level; `None` = not known.
        fine: Its score at that level; `None` = not known.
        light: Of its picture, 0 to 255; `None` = not known.
        captured_mono_ns: Its exposure by the clock that nobody sets; `None` = not known.
    """

    seq: int
    part_id: str
    ts_ms: int
    score: float
    image_ref: str
    image_sha256: str
    coarse: float | None = None
    mid: float | None = None
    fine: float | None = None
    light: float | None = None
    captured_mono_ns: int | None = None

    def as_score(self, name: str, group: str) -> PictureScore:
        """The part as the calibration takes it."""
        levels = None
        if self.coarse is not None and self.mid is not None and self.fine is not None:
            levels = (self.coarse, self.mid, self.fine)
        return PictureScore(name, self.score, group, self.image_sha256, levels)


@dataclass(frozen=True)
class NamedMaster:
    """A part that was shown as a master.

    Attributes:
        part: The part.
        label: Its name and type.
    """

    part: ShownPart
    label: Label


@dataclass(frozen=True)
class Shown:
    """All that was shown.

    Attributes:
        good: Good parts that count, in their order.
        masters: Masters, lowest score first.
        doubtful: Good parts that score far above the others, where nobody has said that they are good.
        left: Parts that were left out.
        left_good: Those of them that were shown as good parts.
        newest: Newest parts after the good ones that nobody has named yet, newest first.
        unscored: Number of pictures that could not be judged, by cause.
        learned: Good parts whose pictures the model was trained on: their scores prove nothing.
        lots: Of how many lots the good parts are, as the technician says; 0 = not known.
        light: Of the newest part that is no master; `None` = not known.
        unnamed: Scores of the parts after the good ones that nobody has named, lowest first.
        model: What judged them, product and version; empty = not known.
        unlike: What tells that the good parts are not like those of the training; `None` = nothing does.
    """

    good: Sequence[ShownPart] = ()
    masters: Sequence[NamedMaster] = ()
    doubtful: Sequence[ShownPart] = ()
    left: Sequence[ShownPart] = ()
    left_good: Sequence[ShownPart] = ()
    newest: Sequence[ShownPart] = ()
    unscored: Mapping[str, int] = field(default_factory=dict)
    learned: Sequence[ShownPart] = ()
    lots: int = 0
    light: Light | None = None
    unnamed: Sequence[float] = ()
    model: str = ""
    unlike: Unlike | None = None

    @property
    def good_parts(self) -> int:
        """Number of good parts: one that is shown again, by its identity, counts once."""
        return len({part.part_id for part in self.good})

    @property
    def master_parts(self) -> int:
        """Number of masters: one that is shown again, by its name, counts once."""
        return len({master.label.name for master in self.masters})

    @property
    def good_scores(self) -> tuple[PictureScore, ...]:
        """The good parts as the calibration takes them; the names are the numbers of the parts."""
        return tuple(p.as_score(f"seq {p.seq}", p.part_id) for p in self.good)

    @property
    def master_scores(self) -> tuple[PictureScore, ...]:
        """The masters as the calibration takes them."""
        return tuple(m.part.as_score(f"{m.label.name} seq {m.part.seq}", m.label.name) for m in self.masters)

    @property
    def left_scores(self) -> tuple[PictureScore, ...]:
        """The good parts that were left out, as the calibration takes them."""
        return tuple(p.as_score(f"seq {p.seq}", p.part_id) for p in self.left_good)

    @property
    def origin(self) -> Origin:
        """Where the good parts came from."""
        return Origin(lots=self.lots, minutes=minutes_of(self.good))

    @property
    def minutes(self) -> int:
        """In how many minutes they were shown, begun ones counted."""
        return max(1, ceil(self.origin.minutes))

    @property
    def is_light_wide(self) -> bool:
        """Whether the good parts were lit so differently that half or double the light would be allowed."""
        light = self.light
        return light is not None and len(self.good) >= LEAST and light.high >= WIDE_LIGHT * light.low

    def part(self, seq: int) -> ShownPart | None:
        """The part of this number, if it can be said of it what it is."""
        known = (*self.good, *self.newest, *self.left, *(m.part for m in self.masters))
        return next((part for part in known if part.seq == seq), None)

    @property
    def cycle_s(self) -> float:
        """Usual time from one good part to the next, seconds; 0 = not known."""
        times = sorted(p.ts_ms for p in self.good)
        steps = [(after - before) / 1000 for before, after in pairwise(times)]
        return median(steps) if steps else 0.0


def newest_seq(database: Path) -> int:
    """Number of the newest part; 0 without parts.

    Raises:
        StoreError: The database is missing or cannot be read.
    """
    with reading(database) as connection:
        return int(connection.execute("SELECT coalesce(max(seq), 0) FROM part").fetchone()[0])


def read_shown(database: Path, run: Run) -> Shown:
    """What was shown so far.

    Raises:
        StoreError: The database is missing or cannot be read.
    """
    first, last, bundle = run.start.first_seq, run.last_seq, run.start.bundle_sha256
    until = last if last is not None else 1 << 62
    window = f"SELECT {_COLUMNS} FROM part WHERE seq > ? AND seq <= ? AND {_SCORED}"  # noqa: S608 constants
    after = f"SELECT {_COLUMNS} FROM part WHERE seq > ? AND {_SCORED} ORDER BY seq DESC LIMIT ?"  # noqa: S608
    named = f"SELECT {_COLUMNS} FROM part WHERE seq = ? AND {_SCORED}"  # noqa: S608
    later = f"SELECT seq, score FROM part WHERE seq > ? AND {_SCORED} ORDER BY seq LIMIT ?"  # noqa: S608
    lost = "SELECT cause, count(*) FROM part WHERE seq > ? AND seq <= ? AND score IS NULL GROUP BY cause"
    labels = run.labels
    said = sorted(seq for seq, label in labels.items() if label.kind != "good")
    with reading(database) as connection:
        rows = connection.execute(f"{window} ORDER BY seq LIMIT ?", (first, until, bundle, MOST_GOOD))
        shown = [ShownPart(*row) for row in rows]
        found = [connection.execute(named, (seq, bundle)).fetchone() for seq in said]
        rows = connection.execute(after, (until, bundle, NEWEST + len(labels)))
        newest = [ShownPart(*row) for row in rows if row[0] not in labels][:NEWEST]
        rows = connection.execute(later, (until, bundle, MOST_GOOD))
        unnamed = [score for seq, score in rows if seq not in labels]
        unscored = dict(connection.execute(lost, (first, until)).fetchall())
    good = [part for part in shown if part.seq not in labels or labels[part.seq].kind == "good"]
    unlike = [ShownPart(*row) for row in found if row]
    masters = [NamedMaster(part, labels[part.seq]) for part in unlike if labels[part.seq].kind == "master"]
    left = [part for part in unlike if labels[part.seq].kind == "left"]
    now = newest_light(database, after=first, but=said)
    lit = [(part.part_id, part.light) for part in good if part.light is not None]
    return Shown(
        good,
        sorted(masters, key=lambda m: m.part.score),
        [part for part in _far_out(good) if part.seq not in labels],
        left,
        [part for part in left if part.seq <= until],
        newest,
        unscored,
        light=light_against_parts(now, [light for _, light in lit], parts=len({name for name, _ in lit})),
        unnamed=sorted(unnamed),
    )


def _far_out(good: Sequence[ShownPart]) -> list[ShownPart]:
    """Those that score far above the others, highest first."""
    fence = fence_above([part.score for part in good])
    return sorted((part for part in good if part.score > fence), key=lambda part: -part.score)
