"""Masters (限度見本): parts of known verdict, kept to show the station every shift that it still sees them.

They, and every check of them, are rows of a signed ledger in the station's folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kenpin import ledger
from kenpin.bundle import MANIFEST
from kenpin.errors import StoreError
from kenpin.station_folder import StationFolder
from kenpin.station_key import station_public_key

DEFAULT_INTERVAL_H = 12.0

Expected = Literal["OK", "REVIEW", "NG"]


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
        product: Whose part it is, as the bundles say; empty = of every product, as before there was this field.
    """

    kind: Literal["add"] = "add"
    id: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    type: str = Field(min_length=1, max_length=64)
    expected: Expected = "NG"
    picture: str
    picture_sha256: str
    product: str = ""


class Removal(Row):
    """A master is taken off the list."""

    kind: Literal["remove"] = "remove"
    id: str
    product: str = ""


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
        product: Whose masters were shown; empty = of every product.
        ts_ms: UTC of its end, milliseconds since 1970.
    """

    kind: Literal["check"] = "check"
    passed: bool
    bundle_sha256: str
    t1: float
    t2: float
    showings: tuple[Showing, ...]
    product: str = ""
    ts_ms: int = 0

    @property
    def masters(self) -> set[str]:
        """Ids of the masters that were shown."""
        return {s.master for s in self.showings if s.master}


@dataclass
class Masters:
    """What the ledger says of one product.

    Attributes:
        product: Whose masters these are; empty where no bundle says it: then those of all products.
        registered: Its masters by id.
        others: Products of which masters are registered besides, with the ids of these.
        interval_h: Hours after which they must be shown again; 0 = whenever somebody likes.
        unseen: Ids of those that no check has shown since they were registered.
        last: The newest check of this product.
        last_passed: The newest one of this product that was passed.
        newest: The newest check of all: the station may have been set for another product since.
    """

    product: str = ""
    registered: dict[str, Master] = field(default_factory=dict)
    others: dict[str, set[str]] = field(default_factory=dict)
    interval_h: float = DEFAULT_INTERVAL_H
    unseen: set[str] = field(default_factory=set)
    last: Check | None = None
    last_passed: Check | None = None
    newest: Check | None = None

    @property
    def is_demanded(self) -> bool:
        """Whether they must be shown at all."""
        return bool(self.registered) and self.interval_h > 0

    def concerns(self, product: str) -> bool:
        """Whether what was written down of a product counts for this one."""
        return not self.product or product in ("", self.product)


def masters_file(folder: StationFolder) -> Path:
    """Where the masters and their checks lie: one row per line."""
    return folder.root / "masters.jsonl"


def active_product(folder: StationFolder) -> str:
    """Whose parts the active bundle judges; empty where none says it."""
    try:
        # The station has verified this file.
        return str(json.loads((folder.active / MANIFEST).read_bytes())["product"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def read_masters(folder: StationFolder, product: str | None = None) -> Masters:
    """What is registered for a product, and how its checks went.

    Args:
        folder: The station's folder.
        product: Whose masters; default: those of the active bundle.

    Raises:
        StoreError: The ledger is damaged, altered or not signed by this station.
        ConfigError: The station's public key cannot be read.
    """
    masters = Masters(active_product(folder) if product is None else product)
    for row in _rows(folder):
        _apply(row, masters, masters_file(folder))
    return masters


def shown_in_checks(folder: StationFolder) -> frozenset[int]:
    """Numbers of all parts that were shown in checks.

    Raises:
        StoreError: The ledger is damaged, altered or not signed by this station.
        ConfigError: The station's public key cannot be read.
    """
    checks = (row for row in _rows(folder) if row["kind"] == "check")
    return frozenset(shown["seq"] for check in checks for shown in check["showings"])


def _rows(folder: StationFolder) -> Sequence[Mapping[str, Any]]:
    path = masters_file(folder)
    return ledger.read_rows(path, station_public_key(folder)) if path.exists() else ()


def _apply(row: Mapping[str, Any], masters: Masters, path: Path) -> None:
    try:
        if row["kind"] == "add":
            _add(Master.model_validate(row), masters)
        elif row["kind"] == "remove":
            _remove(Removal.model_validate(row), masters)
        elif row["kind"] == "interval":
            masters.interval_h = Interval.model_validate(row).hours
        else:
            _checked(Check.model_validate(row), masters)
    except (KeyError, ValidationError):
        raise StoreError(
            "a row of the masters is not understood",
            where=f"{path}, line {row['seq']}",
            cure="update kenpin here",
        ) from None


def _add(master: Master, masters: Masters) -> None:
    if masters.concerns(master.product):
        masters.registered[master.id] = master
        masters.unseen.add(master.id)
    else:
        masters.others.setdefault(master.product, set()).add(master.id)


def _remove(gone: Removal, masters: Masters) -> None:
    if not masters.concerns(gone.product):
        masters.others.get(gone.product, set()).discard(gone.id)
        if not masters.others.get(gone.product):
            masters.others.pop(gone.product, None)
    elif gone.id in masters.registered and masters.registered[gone.id].product == gone.product:
        # One of every product may have another of its name beside it, which is of this product alone.
        del masters.registered[gone.id]
        masters.unseen.discard(gone.id)


def _checked(check: Check, masters: Masters) -> None:
    masters.newest = check
    if masters.concerns(check.product):
        masters.last = check
        masters.unseen -= check.masters
        masters.last_passed = check if check.passed else masters.last_passed
