"""Answers from the review bench: what people say of parts that the station stopped, each with its picture.

They lie in `review.db` of the station's folder, and a copy of each picture in `review/`: the pictures of the
line are thrown away when their room is used up, those that somebody has labelled have a room of their own.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal

from kenpin.answers import answers_file
from kenpin.calibration.review_bench import BenchPart
from kenpin.edge_runtime.database import explained
from kenpin.errors import DataError
from kenpin.events import now_ms
from kenpin.station_folder import StationFolder
from kenpin.synced_file import replace_synced

Label = Literal["good", "bad"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answer (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- nothing is changed: who thinks better of it answers again
    part_seq INTEGER NOT NULL,
    part_id TEXT NOT NULL,
    ts_ms INTEGER NOT NULL,
    verdict TEXT NOT NULL,
    score REAL,
    bundle_sha256 TEXT NOT NULL,
    label TEXT NOT NULL CHECK (label IN ('good', 'bad')),
    is_master INTEGER NOT NULL,
    name TEXT NOT NULL,
    answered_ms INTEGER NOT NULL,
    picture_sha256 TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS gone (picture_sha256 TEXT NOT NULL, gone_ms INTEGER NOT NULL);  -- for want of room
"""


@dataclass(frozen=True)
class Answer:
    """What one person says of one part.

    Attributes:
        part_seq: Number of the part.
        part_id: Its identity.
        ts_ms: UTC of its exposure, milliseconds since 1970.
        verdict: What the station said.
        score: Its score; `None` where it had none.
        bundle_sha256: What scored it; empty where nothing did.
        label: What it is.
        is_master: Whether it shall become a master; then a second person looks at it.
        name: Who says so.
        answered_ms: UTC of the answer.
        picture_sha256: Of the picture; empty where there was none, and only the part itself was looked at.
    """

    part_seq: int
    part_id: str
    ts_ms: int
    verdict: str
    score: float | None
    bundle_sha256: str
    label: Label
    is_master: bool
    name: str
    answered_ms: int
    picture_sha256: str


@dataclass(frozen=True)
class Reviewed:
    """A part that people have looked at.

    Attributes:
        answers: The newest of each person, oldest first.
    """

    answers: tuple[Answer, ...]

    @property
    def newest(self) -> Answer:
        """The last answer."""
        return self.answers[-1]

    @property
    def agreed(self) -> Answer | None:
        """The last answer of what all say, or most of three or more; `None` where people do not agree."""
        (most, count), *others = Counter(answer.label for answer in self.answers).most_common()
        if others and count == others[0][1]:
            return None
        return next(answer for answer in reversed(self.answers) if answer.label == most)

    @property
    def label(self) -> Label | None:
        """What the part is; `None` where people do not agree."""
        return self.agreed.label if self.agreed else None

    @property
    def is_master(self) -> bool:
        """Whether anybody wants to keep it as a master."""
        return any(answer.is_master for answer in self.answers)

    @property
    def is_open(self) -> bool:
        """Whether its picture is still looked at: people do not agree, or it shall become a master."""
        return self.label is None or (self.is_master and self.label == "bad")

    def awaits(self, name: str) -> bool:
        """Whether this person should look: a master-to-be that nobody else has seen, or a dispute."""
        alone = self.is_master and len(self.answers) == 1 and not self.is_answered_by(name)
        return alone or self.label is None

    def is_answered_by(self, name: str) -> bool:
        """Whether this person has looked."""
        return any(answer.name == name for answer in self.answers)


def keep_answer(folder: StationFolder, part: BenchPart, label: Label, *, name: str, is_master: bool) -> Answer:
    """Write an answer down, with a copy of the picture where there is one.

    Args:
        folder: The station's folder.
        part: What was looked at.
        label: What it is.
        name: Who says so.
        is_master: Whether it shall become a master, which takes a picture.

    Raises:
        DataError: The picture cannot be read, or is not the one that the station kept; a master has none.
        StoreError: It cannot be written.
    """
    sha256 = _keep_picture(folder, part)
    if is_master and not sha256:
        raise DataError(
            f"there is no picture of part {part.part_id}", where=folder.images, cure="choose another master"
        )
    where = (part.seq, part.part_id, part.ts_ms, part.verdict, part.score, part.bundle_sha256)
    answer = Answer(*where, label, is_master, name, now_ms(), sha256)
    columns = ", ".join(field.name for field in fields(Answer))
    marks = ", ".join("?" * len(fields(Answer)))
    with answers_database(folder) as connection:
        connection.execute(f"INSERT INTO answer ({columns}) VALUES ({marks})", astuple(answer))  # noqa: S608
    return answer


def reviewed_parts(folder: StationFolder) -> Sequence[Reviewed]:
    """All parts that were looked at, in the order of their numbers.

    Raises:
        StoreError: The answers cannot be read.
    """
    if not answers_file(folder).exists():
        return ()
    columns = ", ".join(field.name for field in fields(Answer))
    sql = (
        f"SELECT {columns} FROM answer WHERE number IN (SELECT max(number) FROM answer GROUP BY part_seq, name)"  # noqa: S608
    )
    found: dict[int, list[Answer]] = defaultdict(list)
    with answers_database(folder) as connection:
        for row in connection.execute(f"{sql} ORDER BY part_seq, number"):
            answer = Answer(*row)
            found[answer.part_seq].append(answer)
    return [Reviewed(tuple(answers)) for answers in found.values()]


def picture_path(folder: StationFolder, answer: Answer) -> Path:
    """Where the picture of an answer lies, if it has one."""
    return _copy_path(folder, answer.picture_sha256)


def picture_folder(folder: StationFolder) -> Path:
    """Where the pictures of answers lie."""
    return folder.root / "review"


def find_picture(folder: StationFolder, seq: int, image_ref: str) -> Path | None:
    """Where the picture of a part is now: where the station kept it, or beside an answer; `None` without one.

    Args:
        folder: The station's folder.
        seq: Number of the part.
        image_ref: As in `BenchPart`.

    Raises:
        StoreError: The answers cannot be read.
    """
    if image_ref and (folder.images / image_ref).is_file():
        return folder.images / image_ref
    reviewed = next((part for part in reviewed_parts(folder) if part.newest.part_seq == seq), None)
    return kept_picture(folder, reviewed) if reviewed is not None else None


def kept_picture(folder: StationFolder, reviewed: Reviewed) -> Path | None:
    """The picture beside the answers on a part; `None` without one."""
    paths = (picture_path(folder, answer) for answer in reviewed.answers)
    return next((path for path in paths if path.is_file()), None)


def _keep_picture(folder: StationFolder, part: BenchPart) -> str:
    """Copy the picture of a part to where it stays; its SHA-256, empty where there is none any more."""
    path = find_picture(folder, part.seq, part.image_ref)
    if path is None:
        return ""
    content = _read(path, part)
    sha256 = hashlib.sha256(content).hexdigest()
    target = _copy_path(folder, sha256)
    with explained(target):
        target.parent.mkdir(exist_ok=True)
        if not target.exists():
            replace_synced(target, content)
    return sha256


def _read(path: Path, part: BenchPart) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"the picture of part {part.part_id} cannot be read: {error.strerror}",
            where=path,
            cure="answer earlier, or give pictures more room: max_mb in [evidence]",
        ) from None
    if part.image_sha256 and hashlib.sha256(content).hexdigest() != part.image_sha256:
        raise DataError(
            f"the picture of part {part.part_id} was altered since the station kept it",
            where=path,
            cure="find out who changed it; nothing was written down",
        )
    return content


def _copy_path(folder: StationFolder, sha256: str) -> Path:
    return picture_folder(folder) / f"{sha256}.png"


@contextmanager
def answers_database(folder: StationFolder) -> Iterator[sqlite3.Connection]:
    """The answers, to read and to add to.

    Raises:
        StoreError: They cannot be opened, or what is done with them fails.
    """
    path = answers_file(folder)
    with explained(path), closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(_SCHEMA)
        yield connection
