"""Cells of a CSV file: what somebody typed, or a scanner read, must not become a formula in a spreadsheet."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable

# The signs = + - @, and full-width ones, which are taken for them in Japanese. German files are split at
# semicolons, so a cell may begin in the midst of what was written as one.
_FORMULA = re.compile(r'(?:^|[;\t\r\n])[\s"]*(?=[=+\-@\uff1d\uff0b\uff0d\uff20])')


def plain_cell(text: str) -> str:
    """The text, with an apostrophe before everything that a spreadsheet could take for a formula."""
    return _FORMULA.sub(lambda found: f"{found[0]}'", text)


def plain_table(rows: Iterable[Iterable[object]], *, separator: str = ",") -> str:
    """The text of a CSV file in which every text is a `plain_cell`; numbers stay numbers."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator)
    for row in rows:
        writer.writerow([plain_cell(value) if isinstance(value, str) else value for value in row])
    return out.getvalue()
