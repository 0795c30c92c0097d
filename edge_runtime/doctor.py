"""The doctor: looks at everything that a station needs, and says for each thing how it is and what to do."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from kenpin.errors import KenpinError, reason_of

_LIMIT_S = 30.0


Rating = Literal["PASS", "WARN", "FAIL"]


class Diagnosis(NamedTuple):
    """What a look showed.

    Attributes:
        verdict: FAIL means that the station cannot release parts, or not be trusted.
        words: How it is.
        cure: What to do about it; empty where nothing is to be done.
    """

    verdict: Rating
    words: str
    cure: str = ""


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        name: What was looked at.
        verdict: As in `Diagnosis`.
        words: The same.
        cure: The same.
    """

    name: str
    verdict: Rating
    words: str
    cure: str


@dataclass(frozen=True)
class Check:
    """One thing to look at.

    Attributes:
        name: What.
        look: Looks at it.
        needs: Name of an earlier check without which this one would only repeat its failure; empty = none.
    """

    name: str
    look: Callable[[], Diagnosis]
    needs: str = ""


def passed(words: str) -> Diagnosis:
    """All is well."""
    return Diagnosis("PASS", words)


def warned(words: str, cure: str) -> Diagnosis:
    """It works, but should be seen to."""
    return Diagnosis("WARN", words, cure)


def failed(words: str, cure: str) -> Diagnosis:
    """It does not work."""
    return Diagnosis("FAIL", words, cure)


def examine(checks: Sequence[Check], *, limit_s: float = _LIMIT_S) -> list[Finding]:
    """Make all checks; one that fails or hangs is a finding like any other.

    Args:
        checks: What to look at.
        limit_s: Longest time for one of them, in seconds.
    """
    findings: list[Finding] = []
    for check in checks:
        if any(f.name == check.needs and f.verdict == "FAIL" for f in findings):
            found = warned(f"not looked at, for want of {check.needs}", f"see to {check.needs} first")
        else:
            found = _examine(check, limit_s)
        findings.append(Finding(check.name, *found))
    return findings


def _examine(check: Check, limit_s: float) -> Diagnosis:
    found: queue.SimpleQueue[Diagnosis] = queue.SimpleQueue()
    threading.Thread(target=lambda: found.put(_look(check)), daemon=True).start()
    try:
        return found.get(timeout=limit_s)
    except queue.Empty:
        return failed(f"no answer within {limit_s:g} s", "look whether the device or disk hangs: dmesg")


def _look(check: Check) -> Diagnosis:
    try:
        return check.look()
    except KenpinError as error:
        return failed(f"{error.what}: {error.where}" if error.where else error.what, error.cure)
    except Exception as error:
        if isinstance(error, OSError) and error.filename:
            cure = "let this user work there, or run this as the station's user"
            return failed(f"{reason_of(error)}: {error.filename}", cure)
        return failed(f"{type(error).__name__}: {error}", "report this with the output of kenpin doctor --json")
