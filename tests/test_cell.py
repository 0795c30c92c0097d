from __future__ import annotations

import csv
import io

import pytest

from kenpin.cell import plain_cell

SIGNS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
ATTACKS = [
    "=1+1",
    " =1+1",
    "\t=1+1",
    "\n=1+1",
    "\uff1d1+1",
    "\uff20SUM(A1)",
    "-2+3",
    "x;=cmd|' /C calc'!A0",
    "x; \uff1d1+1",
    'x;"=1+1',
    "x\n=1+1",
]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_no_cell_begins_like_a_formula_wherever_a_spreadsheet_splits(attack: str, separator: str) -> None:
    out = io.StringIO()
    csv.writer(out).writerow(["A-1", plain_cell(attack), "end"])
    for row in csv.reader(io.StringIO(out.getvalue()), delimiter=separator):
        assert not any(cell.lstrip(' \t\r\n"').startswith(SIGNS) for cell in row)


@pytest.mark.parametrize("text", ["", "A-1", "T1 = 3, T2 = 4", "a;b", "5 - 3", "検品"])
def test_what_is_no_formula_stays_as_it_is(text: str) -> None:
    assert plain_cell(text) == text
