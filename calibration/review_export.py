"""The answers of the review bench as a folder of pictures, for the next training."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from kenpin.calibration.review import Answer, Reviewed, picture_path, reviewed_parts
from kenpin.calibration.review_room import gone_pictures
from kenpin.cell import plain_table
from kenpin.errors import DataError
from kenpin.events import rfc3339
from kenpin.part_groups import MANIFEST
from kenpin.station_folder import StationFolder

_COLUMNS = ("file", "group", "label", "part_id", "ts", "verdict", "score", "by", "sha256")


def export_review(folder: StationFolder, out: Path) -> Mapping[str, int]:
    """Write the pictures that people agree on to `good/` and `bad/`, and a manifest that groups them by part.

    `kenpin train --data` reads such a folder.

    Args:
        folder: The station's folder.
        out: A new or empty folder.

    Returns:
        Number of pictures by label, and of the parts left out as `disputed`, `without_picture` or `gone`
        to make room for newer ones.

    Raises:
        DataError: The folder is not empty or cannot be written, or a picture is not the one that was labelled.
        StoreError: The answers cannot be read.
    """
    if out.exists() and any(out.iterdir()):
        raise DataError("the folder is not empty", where=out, cure="give a new one: --out DIR")
    parts = reviewed_parts(folder)
    if not parts:
        raise DataError("no part was looked at yet", where=folder.root, cure="answer on the page: Review bench")
    agreed = [(part, part.agreed) for part in parts if part.agreed]
    gone = gone_pictures(folder)
    kept = [(part, answer) for part, answer in agreed if answer.picture_sha256]
    shown = [(part, answer) for part, answer in kept if answer.picture_sha256 not in gone]
    try:
        rows = [_write(folder, out, part, answer) for part, answer in shown]
        out.mkdir(parents=True, exist_ok=True)
        # A spreadsheet must not take what a line sent as an identity for a formula.
        (out / MANIFEST).write_text(plain_table([_COLUMNS, *rows]), encoding="utf-8", newline="")
    except OSError as error:
        raise DataError(
            f"cannot write: {error.strerror}",
            where=error.filename or out,
            cure="make room, or give another --out",
        ) from None
    left_out = {
        "disputed": len(parts) - len(agreed),
        "without_picture": len(agreed) - len(kept),
        "gone": len(kept) - len(shown),
    }
    return {"good": 0, "bad": 0, **left_out, **Counter(str(answer.label) for _, answer in shown)}


def _write(folder: StationFolder, out: Path, part: Reviewed, answer: Answer) -> Sequence[object]:
    path = picture_path(folder, answer)
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    if hashlib.sha256(content).hexdigest() != answer.picture_sha256:
        raise DataError(
            f"the picture of part {answer.part_id} is missing or was altered since it was labelled",
            where=path,
            cure="find out who changed it; take it from a backup",
        )
    name = f"{answer.label}/{answer.part_seq:09}.png"
    target = out / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    names = "+".join(a.name for a in part.answers if a.label == answer.label)
    told = (answer.part_id, rfc3339(answer.ts_ms), answer.verdict, answer.score, names, answer.picture_sha256)
    return (name, answer.part_id or answer.part_seq, answer.label, *told)
