"""A hold: a note in the station's folder, and while it lies there no part is released.

Whoever writes it removes it: it does not expire. The station looks for it between parts.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from kenpin.canonical_json import canonical_json
from kenpin.events import now_ms
from kenpin.synced_file import replace_synced, sync_folder


class Hold(BaseModel):
    """Content of the note.

    Attributes:
        by: Who holds the station.
        since_ms: UTC, milliseconds since 1970.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: str
    since_ms: int


def hold(note: Path, by: str) -> Hold:
    """Let the station release nothing.

    Returns:
        What the note says.

    Raises:
        OSError: The note cannot be written.
    """
    content = Hold(by=by, since_ms=now_ms())
    replace_synced(note, canonical_json(content.model_dump(mode="json")))
    return content


def let_go(note: Path) -> None:
    """Let the station go on by its calibration record.

    Raises:
        OSError: The note cannot be removed.
    """
    note.unlink(missing_ok=True)
    sync_folder(note.parent)


def read_hold(note: Path) -> Hold | None:
    """Who holds the station; `None` when nobody does. A note that is damaged still says that somebody does."""
    try:
        return Hold.model_validate_json(note.read_bytes())
    except FileNotFoundError:
        return None
    except (ValidationError, OSError):
        return Hold(by="somebody", since_ms=0)
