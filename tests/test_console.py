"""Where text for people goes."""

from __future__ import annotations

import pytest
from rich.table import Table

from kenpin.console import human_console


def test_square_brackets_are_text_and_all_of_it_goes_to_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = Table()
    table.add_column("part [a]")
    table.add_row("[station] x[/y]")
    console = human_console()
    console.print("runs/[red]x[/y].kenpin")
    console.print(table)
    told = capsys.readouterr()
    assert told.out == ""
    for text in ("runs/[red]x[/y].kenpin", "part [a]", "[station] x[/y]"):
        assert text in told.err


def test_a_quiet_one_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    human_console(quiet=True).print("something")
    assert capsys.readouterr().err == ""
