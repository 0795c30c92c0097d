"""What the GPU checks say of each thing they tried."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        check: What was checked.
        found: What was seen, by name; numbers with their unit in the name.
        holds: Whether it is as it should be; None where that is not a question or could not be tried.
    """

    check: str
    found: dict[str, float | str | None]
    holds: bool | None = None
