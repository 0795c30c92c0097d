"""What the GPU checks say of each thing they tried, and how that outlives whatever happens to the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

import click


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


def attempt(name: str, check: Callable[[], Finding]) -> Finding:
    """What a check found; where it breaks, in whatever way, the others go on."""
    try:
        return check()
    except Exception as error:
        return broken(name, in_words(error)[-500:])


def broken(name: str, why: str) -> Finding:
    """A check that came to no end."""
    return Finding(name, {"error": why}, holds=False)


def in_words(error: Exception) -> str:
    """What an error says, or at least what it is."""
    return str(error) or type(error).__name__


def tell(finding: Finding) -> None:
    """Print a finding at once, as one line: what comes after it may take the process along."""
    click.echo(json.dumps(asdict(finding), default=str))


def findings_in(said: str) -> list[Finding]:
    """The findings among what a script printed; libraries print, too."""
    findings = []
    for line in said.splitlines():
        try:
            findings.append(Finding(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return findings
