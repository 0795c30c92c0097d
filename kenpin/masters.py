"""Masters (限度見本): parts of known verdict, kept to show the station every shift that it still sees them.

They, and every check of them, are rows of a signed ledger in the station's folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kenpin import ledger
from kenpin.errors import KenpinError, StoreError
from kenpin.record import newest_for, station_records
from kenpin.signing import PublicKey
from kenpin.station_folder import StationFolder

DEFAULT_INTERVAL_H = 12.0
_HOUR_MS = 3_600_000
_LISTED = 8

Expected = Literal["OK", "REVIEW", "NG"]
DueKey = Literal["fault", "never", "failed", "clock", "late", "bundle", "thresholds"]


class Row(BaseModel):
    """What a row of the ledger says."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class Master(Row):
    """A part of known verdict.

    Attributes:
        id: Its name, as it stands on the part.
        type: What is wrong with it, or that nothing is.
        expected: The least that the station must say of it; an `OK` one must be OK.
        picture: Its picture, below the station's folder.
        picture_sha256: Of the picture.
    """

    kind: Literal["add"] = "add"
    id: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    type: str = Field(min_length=1, max_length=64)
    expected: Expected = "NG"
    picture: str
    picture_sha256: str


class Removal(Row):
    """A master is taken off the list."""

    kind: Literal["remove"] = "remove"
    id: str


class Interval(Row):
    """After how many hours the masters must be shown again; 0 = no demand."""

    kind: Literal["interval"] = "interval"
    hours: float = Field(ge=0)


class Showing(Row):
    """A part that was shown in a check.

    Attributes:
        master: Id of the master; empty = a good part.
        expected: What was to come.
        verdict: What came; NO_DECISION where the part has no score.
        seq: Number of the part in the station's database.
        score: Its score; missing where there is none.
    """

    master: str
    expected: Expected
    verdict: Literal["OK", "REVIEW", "NG", "NO_DECISION"]
    seq: int
    score: float | None

    @property
    def is_right(self) -> bool:
        """A bad part may be judged harder than expected; a good one, and any part without a score, may not."""
        if self.expected == "REVIEW":
            return self.verdict in ("REVIEW", "NG")
        return self.verdict == self.expected


class Check(Row):
    """One check of the masters.

    Attributes:
        passed: Whether every part was judged as expected.
        bundle_sha256: The bundle that scored.
        t1: Threshold in force.
        t2: Threshold in force.
        showings: What was shown, in order.
        ts_ms: UTC of its end, milliseconds since 1970.
    """

    kind: Literal["check"] = "check"
    passed: bool
    bundle_sha256: str
    t1: float
    t2: float
    showings: tuple[Showing, ...]
    ts_ms: int = 0

    @property
    def masters(self) -> set[str]:
        """Ids of the masters that were shown."""
        return {s.master for s in self.showings if s.master}


@dataclass
class Masters:
    """What the ledger says.

    Attributes:
        registered: The masters by id.
        interval_h: Hours after which they must be shown again; 0 = whenever somebody likes.
        unseen: Ids of those that no check has shown since they were registered.
        last: The newest check.
        last_passed: The newest one that was passed.
    """

    registered: dict[str, Master] = field(default_factory=dict)
    interval_h: float = DEFAULT_INTERVAL_H
    unseen: set[str] = field(default_factory=set)
    last: Check | None = None
    last_passed: Check | None = None

    @property
    def is_demanded(self) -> bool:
        """Whether they must be shown at all."""
        return bool(self.registered) and self.interval_h > 0


@dataclass(frozen=True)
class Due:
    """Why the masters must be shown.

    Attributes:
        key: The page's word for it.
        words: The same in words.
        values: What the words of another language want to know.
    """

    key: DueKey
    words: str
    values: Mapping[str, object] = field(default_factory=dict)


_FAILED = Due("failed", "the last check of the masters failed")


@dataclass(frozen=True)
class Demand:
    """What the masters ask for, as long as no file changes.

    Attributes:
        masters: What the ledger says.
        stale: Why the last check no longer holds, whatever the time is; `None` while it does.
        fault: Why the ledger cannot be read; `None` where it was.
    """

    masters: Masters = field(default_factory=Masters)
    stale: Due | None = None
    fault: Due | None = None

    def why(self, now_ms: int) -> Due | None:
        """Why they must be shown; `None` when they need not."""
        return self.fault or _why_due(self.masters, now_ms) or self.stale

    def due(self, now_ms: int) -> str:
        """As `masters_due` says it."""
        due = self.why(now_ms)
        return due.words if due else ""


def masters_file(folder: StationFolder) -> Path:
    """Where the masters and their checks lie: one row per line."""
    return folder.root / "masters.jsonl"


def read_masters(folder: StationFolder) -> Masters:
    """What is registered, and how the checks went.

    Raises:
        StoreError: The ledger is damaged, altered or not signed by this station.
        ConfigError: The station's public key cannot be read.
    """
    masters = Masters()
    path = masters_file(folder)
    if not path.exists():
        return masters
    for row in ledger.read_rows(path, PublicKey.load(folder.key.with_suffix(".pub"))):
        _apply(row, masters, path)
    return masters


def shown_in_checks(folder: StationFolder) -> frozenset[int]:
    """Numbers of all parts that were shown in checks.

    Raises:
        StoreError: The ledger is damaged, altered or not signed by this station.
        ConfigError: The station's public key cannot be read.
    """
    path = masters_file(folder)
    if not path.exists():
        return frozenset()
    rows = ledger.read_rows(path, PublicKey.load(folder.key.with_suffix(".pub")))
    return frozenset(shown["seq"] for row in rows if row["kind"] == "check" for shown in row["showings"])


def masters_due(folder: StationFolder, now_ms: int) -> str:
    """Why the masters must be shown before parts may be released, in words; empty when they need not.

    Nothing in the folder makes this raise. Without registered masters there is no demand.

    Args:
        folder: The station's folder.
        now_ms: UTC, milliseconds since 1970.
    """
    return read_demand(folder).due(now_ms)


def read_demand(folder: StationFolder) -> Demand:
    """What the masters ask for. Nothing in the folder makes this raise."""
    try:
        masters = read_masters(folder)
        return Demand(masters, stale=_why_stale(folder, masters))
    except (KenpinError, OSError) as error:
        what = error.what if isinstance(error, KenpinError) else error
        return Demand(fault=Due("fault", f"the masters cannot be read: {what}", {"fault": str(what)}))


def _why_due(masters: Masters, now_ms: int) -> Due | None:
    failed = bool(masters.registered) and masters.last is not None and not masters.last.passed
    if not masters.is_demanded:
        # Nobody demands a check, but one was made, and a known bad part passed.
        return _FAILED if failed else None
    if masters.last is None or masters.unseen:
        names = ", ".join(sorted(masters.unseen)[:_LISTED])
        return Due("never", f"masters were never shown: {names}", {"names": names})
    if failed:
        return _FAILED
    age_h = (now_ms - masters.last.ts_ms) / _HOUR_MS
    if age_h < 0:
        return Due("clock", "the clock stands before the last check of the masters")
    late = f"the masters were last shown {age_h:.1f} h ago; they are due every {masters.interval_h:g} h"
    return Due("late", late, {"h": int(age_h)}) if age_h > masters.interval_h else None


def _why_stale(folder: StationFolder, masters: Masters) -> Due | None:
    """A check holds for the bundle and the thresholds that it was made with."""
    if not masters.is_demanded or masters.last is None or not folder.active.exists():
        return None
    active = folder.active.resolve().name
    if masters.last.bundle_sha256 != active:
        return Due("bundle", "another bundle is active than at the last check of the masters")
    newest = newest_for(station_records(folder), active)
    if newest is not None and (newest.t1, newest.t2) != (masters.last.t1, masters.last.t2):
        return Due("thresholds", "the thresholds were changed after the last check of the masters")
    return None


def _apply(row: Mapping[str, Any], masters: Masters, path: Path) -> None:
    try:
        if row["kind"] == "add":
            master = Master.model_validate(row)
            masters.registered[master.id] = master
            masters.unseen.add(master.id)
        elif row["kind"] == "remove":
            gone = Removal.model_validate(row).id
            masters.registered.pop(gone, None)
            masters.unseen.discard(gone)
        elif row["kind"] == "interval":
            masters.interval_h = Interval.model_validate(row).hours
        else:
            masters.last = Check.model_validate(row)
            masters.unseen -= masters.last.masters
            masters.last_passed = masters.last if masters.last.passed else masters.last_passed
    except (KeyError, ValidationError):
        raise StoreError(
            "a row of the masters is not understood",
            where=f"{path}, line {row['seq']}",
            cure="update kenpin here",
        ) from None
