"""A score that never changes comes from an engine that looks at nothing."""

from __future__ import annotations

STUCK_AT = 50  # parts in a row


class StuckScore:
    """Watches the scores of live cameras, whose noise makes every two of them differ."""

    def __init__(self) -> None:
        self._score: float | None = None
        self._repeats = 0

    def check(self, score: float) -> str:
        """Take the next score; why it cannot be believed, in words, or nothing where it can.

        Args:
            score: Of a frame that differs from the one before.
        """
        self._repeats = self._repeats + 1 if score == self._score else 1
        self._score = score
        return f"the engine gave the same score {self._repeats} times" if self._repeats >= STUCK_AT else ""
