"""What lies on the review bench: parts that the station stopped, and those that only just went one way."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields

from kenpin.calibration.stored import WEEK_MS, first_since
from kenpin.edge_runtime.database import reading
from kenpin.events import now_ms
from kenpin.station_folder import StationFolder


@dataclass(frozen=True)
class BenchPart:
    """A part whose picture was kept.

    Attributes:
        seq: Its number.
        part_id: Its identity.
        ts_ms: UTC of its exposure, milliseconds since 1970.
        verdict: What the station said.
        reason: Why there is none of OK, REVIEW and NG, in words.
        cause: The same as one word of a fixed list.
        score: `None` where it had none.
        t1: Threshold it was judged by; `None` where there was none.
        t2: Threshold it was judged by.
        bundle_sha256: What scored it; empty where nothing did.
        image_ref: Its picture, below the folder of pictures.
        image_sha256: Of the picture; empty while it is being written.
        roi_x_px: Left edge of the strangest place, in pixels of the frame; `None` where none is known.
        roi_y_px: Upper edge.
        roi_w_px: Width.
        roi_h_px: Height.
    """

    seq: int
    part_id: str
    ts_ms: int
    verdict: str
    reason: str
    cause: str
    score: float | None
    t1: float | None
    t2: float | None
    bundle_sha256: str
    image_ref: str
    image_sha256: str
    roi_x_px: int | None
    roi_y_px: int | None
    roi_w_px: int | None
    roi_h_px: int | None


_COLUMNS = ", ".join(field.name for field in fields(BenchPart)).replace(
    "bundle_sha256", "coalesce(bundle_sha256, '')"
)


def waiting_parts(folder: StationFolder, answered: Collection[int], *, limit: int) -> Sequence[BenchPart]:
    """Parts of the last 7 days that were stopped and that nobody has looked at, newest first.

    Parts that were shown in a calibration or a shift check are not among them.

    Args:
        folder: The station's folder.
        answered: Numbers of parts that were looked at.
        limit: How many at most.

    Raises:
        StoreError: The database cannot be read.
    """
    sql = f"""SELECT {_COLUMNS} FROM part WHERE seq >= ? AND image_ref <> '' AND cause <> 'calibrating'
        AND verdict IN ('REVIEW', 'NG', 'NO_DECISION') ORDER BY seq DESC"""  # noqa: S608 our own column names
    found: list[BenchPart] = []
    with reading(folder.database) as connection:
        for row in connection.execute(sql, (first_since(connection, now_ms() - WEEK_MS),)):
            part = BenchPart(*row)
            if part.seq not in answered and _has_picture(folder, part):
                found.append(part)
            if len(found) == limit:
                break
    return found


def near_misses(folder: StationFolder, bundle_sha256: str, t1: float, *, limit: int) -> Sequence[BenchPart]:
    """Parts of the last 7 days whose scores are nearest to a threshold, lowest score first.

    Args:
        folder: The station's folder.
        bundle_sha256: The bundle whose scores count.
        t1: The threshold.
        limit: How many at most.

    Raises:
        StoreError: The database cannot be read.
    """
    sql = f"""SELECT {_COLUMNS} FROM part WHERE seq >= ? AND image_ref <> '' AND cause <> 'calibrating'
        AND bundle_sha256 = ? AND score IS NOT NULL ORDER BY abs(score - ?) LIMIT ?"""  # noqa: S608
    with reading(folder.database) as connection:
        first = first_since(connection, now_ms() - WEEK_MS)
        rows = connection.execute(sql, (first, bundle_sha256, t1, 4 * limit)).fetchall()
    nearest = [part for part in (BenchPart(*row) for row in rows) if _has_picture(folder, part)][:limit]
    return sorted(nearest, key=lambda part: part.score or 0.0)


def part_of(folder: StationFolder, seq: int) -> BenchPart | None:
    """One part; `None` where there is none with this number.

    Raises:
        StoreError: The database cannot be read.
    """
    return next(iter(parts_of(folder, [seq])), None)


def parts_of(folder: StationFolder, seqs: Sequence[int]) -> Sequence[BenchPart]:
    """Some parts, in the order of their numbers, with or without a picture.

    Raises:
        StoreError: The database cannot be read.
    """
    marks = ", ".join("?" * len(seqs))
    sql = f"SELECT {_COLUMNS} FROM part WHERE seq IN ({marks}) ORDER BY seq"  # noqa: S608
    with reading(folder.database) as connection:
        return [BenchPart(*row) for row in connection.execute(sql, tuple(seqs))]


def _has_picture(folder: StationFolder, part: BenchPart) -> bool:
    return (folder.images / part.image_ref).is_file()
