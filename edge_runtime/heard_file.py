"""What a subscriber has heard, as a file: a restart goes on where it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kenpin.edge_runtime.heard import Heard, Numbers
from kenpin.errors import StoreError, reason_of
from kenpin.synced_file import replace_synced


class _Station(BaseModel):
    model_config = ConfigDict(extra="forbid")

    start: int = Field(ge=0)
    had: dict[str, list[tuple[int, int]]]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    schema_: Literal["kenpin.heard.v1"] = Field(default="kenpin.heard.v1", alias="schema")
    stations: dict[str, _Station]


def load_heard(path: Path) -> dict[str, Heard]:
    """Read what was heard, by the station's topic; nothing where there is no file yet.

    Raises:
        StoreError: The file cannot be read or is damaged.
    """
    try:
        read = _File.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        why = reason_of(error) if isinstance(error, OSError) else "it is damaged"
        raise StoreError(
            f"what a subscriber has heard cannot be read: {why}",
            where=path,
            cure="remove the file: the subscriber then starts with the next event, and some may come twice",
        ) from None
    return {
        topic: Heard(s.start, {k: Numbers(v) for k, v in s.had.items()}) for topic, s in read.stations.items()
    }


def save_heard(path: Path, heard: Mapping[str, Heard]) -> None:
    """Write it; on disk, whole, when this returns.

    Args:
        path: The file; its folder exists.
        heard: By the station's topic.

    Raises:
        StoreError: It cannot be written; the old file is as it was.
    """
    stations = {
        topic: _Station(start=one.start, had={k: numbers.ranges for k, numbers in one.had.items()})
        for topic, one in heard.items()
    }
    try:
        replace_synced(path, _File(stations=stations).model_dump_json(by_alias=True).encode())
    except OSError as error:
        raise StoreError(
            f"what a subscriber has heard cannot be written: {error.strerror}",
            where=path,
            cure="check that the folder exists, is writable and has room",
        ) from None
