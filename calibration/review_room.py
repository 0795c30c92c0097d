"""The room for pictures beside the answers, and which of them go when it is used up; the answers all stay.

Those that nobody has to judge any more go first, the oldest of them first. What goes is written down, so that
it is told apart from a picture that somebody took away.
"""

from __future__ import annotations

from kenpin.calibration.review import answers_database, picture_folder, picture_path, reviewed_parts
from kenpin.edge_runtime.database import explained
from kenpin.events import now_ms
from kenpin.station_folder import StationFolder


def make_room(folder: StationFolder, max_bytes: int) -> None:
    """Let pictures go until all of them have room.

    Args:
        folder: The station's folder.
        max_bytes: Room for them.

    Raises:
        StoreError: The answers cannot be read, or a picture not be removed.
    """
    with explained(picture_folder(folder)):
        files = {path: path.stat() for path in picture_folder(folder).glob("*.png")}
    over = sum(file.st_size for file in files.values()) - max_bytes
    if over <= 0:
        return
    wanted = {picture_path(folder, a) for part in reviewed_parts(folder) if part.is_open for a in part.answers}
    for path in sorted(files, key=lambda path: (path in wanted, files[path].st_mtime_ns)):
        if over <= 0:
            return
        over -= files[path].st_size
        with answers_database(folder) as connection:  # first: what was not written down would look stolen
            connection.execute("INSERT INTO gone VALUES (?, ?)", (path.stem, now_ms()))
        with explained(path):
            path.unlink(missing_ok=True)


def gone_pictures(folder: StationFolder) -> frozenset[str]:
    """SHA-256 of the pictures that had to go, and are not there again.

    Raises:
        StoreError: It cannot be read.
    """
    if not picture_folder(folder).exists():  # nobody has answered yet
        return frozenset()
    with answers_database(folder) as connection:
        noted = frozenset(str(sha256) for (sha256,) in connection.execute("SELECT picture_sha256 FROM gone"))
    # One look at the folder: what has gone grows for years, what is there does not.
    return noted - {path.stem for path in picture_folder(folder).glob("*.png")} if noted else noted
