"""What people said on the review bench, as a calibration record pins it: which answers stood when it was made.

The answers lie in `review.db` of the station's folder, unsigned, and none is ever changed: who thinks better of
it answers again. So a number and a hash of all answers up to it tell whether any of them was changed since.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from kenpin.canonical_json import canonical_json
from kenpin.errors import StoreError
from kenpin.station_folder import StationFolder

_SQL = """SELECT number, part_seq, part_id, ts_ms, verdict, score, bundle_sha256, label, is_master, name,
    answered_ms, picture_sha256 FROM answer ORDER BY number"""


class Answers(BaseModel):
    """The answers that stood when a record was made.

    Attributes:
        upto: Number of the newest one.
        sha256: Of all answers up to it, one canonical JSON list each, line by line.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    upto: int = Field(ge=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def answers_file(folder: StationFolder) -> Path:
    """Where the answers lie."""
    return folder.root / "review.db"


def standing_answers(folder: StationFolder) -> Answers | None:
    """All answers that stand now; `None` without any.

    Raises:
        StoreError: They cannot be read.
    """
    return next(iter(_hashed(folder)[::-1]), None)


def changed_answers(folder: StationFolder, pinned: Sequence[Answers]) -> list[Answers]:
    """Which of these no longer say what stands there.

    Raises:
        StoreError: The answers cannot be read.
    """
    standing = set(_hashed(folder)) if pinned else set()
    return [answers for answers in pinned if answers not in standing]


def _hashed(folder: StationFolder) -> list[Answers]:
    """Number and hash at each answer."""
    path = answers_file(folder)
    if not path.is_file():
        return []
    found, sha256 = [], hashlib.sha256()
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
            for number, *said in connection.execute(_SQL):
                sha256.update(canonical_json([number, *said]) + b"\n")
                found.append(Answers(upto=number, sha256=sha256.hexdigest()))
    except (sqlite3.Error, TypeError, ValueError) as error:
        raise StoreError(
            f"the answers of the review bench cannot be read: {error}",
            where=path,
            cure="check the permissions and the disk; keep the file as evidence",
        ) from None
    return found
