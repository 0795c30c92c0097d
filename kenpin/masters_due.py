"""When the masters are due: whether a check must be passed before parts may be released, and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from kenpin.audit import names_masters
from kenpin.errors import KenpinError, StoreError, reason_of
from kenpin.masters import Masters, masters_file, read_masters
from kenpin.record import newest_for, station_records
from kenpin.station_folder import StationFolder

_HOUR_MS = 3_600_000
_LISTED = 8

DueKey = Literal["fault", "product", "never", "failed", "clock", "late", "bundle", "thresholds"]


@dataclass(frozen=True)
class Due:
    """Why the masters must be shown.

    Attributes:
        key: The page's word for it.
        words: The same in words.
        values: What the words of another language want to know.
        cure: What to do about it.
    """

    key: DueKey
    words: str
    values: Mapping[str, object] = field(default_factory=dict)
    cure: str = "show them: kenpin masters check"


_REGISTER = "register one: kenpin masters add; then show it: kenpin masters check"
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


def masters_due(folder: StationFolder, now_ms: int) -> str:
    """Why the masters must be shown before parts may be released, in words; empty when they need not.

    Nothing in the folder makes this raise. Without registered masters, of this product or another, there is no
    demand.

    Args:
        folder: The station's folder.
        now_ms: UTC, milliseconds since 1970.
    """
    due = read_demand(folder).why(now_ms)
    return due.words if due else ""


def read_demand(folder: StationFolder) -> Demand:
    """What the masters ask for. Nothing in the folder makes this raise."""
    try:
        masters = read_masters(folder)
        if not masters_file(folder).exists() and names_masters(folder):
            raise StoreError(
                "their file is gone, though the audit tells of masters",
                where=masters_file(folder),
                cure="put it back, or register the masters again",
            )
        return Demand(masters, stale=_why_stale(folder, masters))
    except (KenpinError, OSError) as error:
        what, cure = (
            (error.what, error.cure)
            if isinstance(error, KenpinError)
            else (f"{reason_of(error)}: {error.filename}", "let the station's user read and write its folder")
        )
        return Demand(fault=Due("fault", f"the masters cannot be read: {what}", {"fault": what}, cure))


def _why_due(masters: Masters, now_ms: int) -> Due | None:
    if not masters.is_demanded:
        # Nobody demands a check, or nothing is left to show, but a known bad part passed.
        if not _failed(masters):
            return _why_others(masters)
        return _FAILED if masters.registered else replace(_FAILED, cure=_REGISTER)
    if masters.last is None or masters.unseen:
        names = _listed(masters.unseen)
        return Due("never", f"masters were never shown: {names}", {"names": names})
    if _failed(masters):
        return _FAILED
    age_h = (now_ms - masters.last.ts_ms) / _HOUR_MS
    if age_h < 0:
        return Due("clock", "the clock stands before the last check of the masters")
    late = f"the masters were last shown {age_h:.1f} h ago; they are due every {masters.interval_h:g} h"
    return Due("late", late, {"h": int(age_h)}) if age_h > masters.interval_h else None


def _listed(names: Collection[str]) -> str:
    """Some of the names; a mark says that there are more."""
    return ", ".join(sorted(names)[:_LISTED]) + (", …" if len(names) > _LISTED else "")


def _failed(masters: Masters) -> bool:
    return masters.last is not None and not masters.last.passed


def _why_others(masters: Masters) -> Due | None:
    """A product that was given another name has lost its masters, and must not lose the check with them.

    Asked where nobody demands a check: no master is registered, or the interval is 0.
    """
    if not masters.others or not masters.interval_h:
        return None
    others = _listed(masters.others)
    words = f"no master of {masters.product} is registered, only of {others}"
    values = {"product": masters.product, "others": others}
    return Due("product", words, values, _REGISTER)


def _why_stale(folder: StationFolder, masters: Masters) -> Due | None:
    """A check holds for the bundle and the thresholds that it was made with."""
    active = folder.active_sha256
    if not masters.is_demanded or masters.last is None or not active:
        return None
    if masters.newest is None or masters.newest.bundle_sha256 != active:
        return Due("bundle", "another bundle is active than at the last check of the masters")
    newest = newest_for(station_records(folder), active)
    if newest is not None and (newest.t1, newest.t2) != (masters.last.t1, masters.last.t2):
        return Due("thresholds", "the thresholds were changed after the last check of the masters")
    return None
