"""Whether the light is the one that thresholds rest on: where it is another, none is moved.

A score says nothing about a part that is lit otherwise, and moving a threshold would hide what has happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kenpin.edge_runtime.database import reading
from kenpin.errors import CalibrationError, KenpinError
from kenpin.quality_limits import WHITE, light_limits
from kenpin.record import record_in_force
from kenpin.station_folder import StationFolder

_NEWEST = 100  # parts among which one with a picture is looked for


@dataclass(frozen=True)
class Light:
    """The light of the newest picture, and what is allowed.

    Attributes:
        now: Mean grey, 0 to 255.
        low: The least allowed.
        high: The most allowed.
    """

    now: float
    low: float
    high: float

    @property
    def is_other(self) -> bool:
        """Whether it is not the light that was there before."""
        return not self.low <= self.now <= self.high

    @property
    def rounded(self) -> dict[str, int]:
        """The three numbers as people read them."""
        return {"now": round(self.now), "low": round(self.low), "high": round(min(self.high, WHITE))}


def light_against_sign_off(folder: StationFolder) -> Light | None:
    """Compare the newest part with the sign-off; `None` where one of them is not known."""
    try:
        record = record_in_force(folder)
        if record is None or record.quality is None:
            return None
        now = newest_light(folder.database, after=0, but=())
    except KenpinError:
        return None  # what cannot be read is said where it is used
    return None if now is None else Light(now, *record.quality.light)


def check_light(folder: StationFolder) -> None:
    """Refuse to move a threshold where the newest part is lit otherwise than at the sign-off.

    Raises:
        CalibrationError: It is.
    """
    light = light_against_sign_off(folder)
    if light is not None and light.is_other:
        now, low, high = light.rounded.values()
        raise CalibrationError(
            f"the newest part has light {now}, signed for {low} to {high}: no threshold can be moved",
            where=folder.database,
            cure="put the light right and let a good part run by; if it is meant, calibrate again",
        )


def light_against_parts(now: float | None, good: Sequence[float], *, parts: int) -> Light | None:
    """Compare the newest part with the good parts of a calibration, by the limits that it would sign.

    Args:
        now: Light of the newest part; `None` = not known.
        good: Light of each picture of a good part.
        parts: How many parts they show.
    """
    return Light(now, *light_limits(good, parts=parts)) if now is not None and good else None


def newest_light(database: Path, *, after: int, but: Sequence[int]) -> float | None:
    """Light of the newest part that has a picture; `None` without one.

    Args:
        database: Of the station.
        after: Only parts with a higher number.
        but: Numbers of parts that do not count, as a defect may change the light of a picture.

    Raises:
        StoreError: The database is missing or cannot be read.
    """
    sql = """SELECT seq, light FROM (SELECT seq, light FROM part WHERE seq > ? ORDER BY seq DESC LIMIT ?)
        WHERE light IS NOT NULL ORDER BY seq DESC"""
    with reading(database) as connection:
        rows = connection.execute(sql, (after, _NEWEST + len(but)))
        return next((float(light) for seq, light in rows if seq not in but), None)
