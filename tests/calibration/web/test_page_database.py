"""The page's own database, opened by several processes at once."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier

from kenpin.calibration.web.page_database import prepare_page_database


def test_pages_that_begin_at_once_bring_the_file_up_to_date_together(tmp_path: Path) -> None:
    """As `kenpin web` does beside the page that `kenpin run` starts."""
    together = Barrier(3)

    def begin(path: Path) -> int:
        together.wait()
        prepare_page_database(path)
        with closing(sqlite3.connect(path)) as connection:
            return int(connection.execute("PRAGMA user_version").fetchone()[0])

    with ThreadPoolExecutor(3) as pool:
        for k in range(20):
            versions = list(pool.map(begin, [tmp_path / f"page{k}.db"] * 3))
            assert len(set(versions)) == 1
