"""Tables that a study left in a run folder, such as how few pictures are enough."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ValidationError

from kenpin.errors import ConfigError

FILES = ("few_pictures.json", "ablation.json")


class Study(BaseModel):
    """One table with where and when it was measured.

    Attributes:
        title: Headline.
        machine: What it was measured on.
        commit: Commit of kenpin; all of them, with commas, where results of several were kept.
        date: Day, YYYY-MM-DD, or several.
        columns: Heads.
        rows: Cells, as many as heads.
        notes: Sentences below the table.
    """

    title: str = ""
    machine: str = ""
    commit: str = ""
    date: str = ""
    columns: list[str] = []
    rows: list[list[str | int | float | None]] = []
    notes: list[str] = []

    @property
    def origin(self) -> str:
        """Machine, commit and date, as far as they are known."""
        known = (self.machine, f"commit {self.commit}" if self.commit else "", self.date)
        return ", ".join(text for text in known if text)

    @property
    def cells(self) -> list[list[str]]:
        """The rows as text."""
        return [[_text(cell) for cell in row] for row in self.rows]


def read_studies(root: Path) -> list[Study]:
    """The studies of a run folder; none is no error.

    Raises:
        ConfigError: A file is not such a table.
    """
    found = []
    for path in (root / name for name in FILES):
        if path.exists():
            try:
                found.append(Study.model_validate_json(path.read_bytes()))
            except ValidationError as error:
                first = error.errors()[0]
                raise ConfigError(
                    f"not a table of a study: {first['msg']}",
                    where=f"{path} {'.'.join(map(str, first['loc']))}".strip(),
                    cure="measure it again, or remove the file",
                ) from None
    return found


def _text(cell: str | int | float | None) -> str:
    if isinstance(cell, float):
        return f"{cell:.3f}" if abs(cell) < 100 else f"{cell:.0f}"
    return "-" if cell is None else str(cell)
