"""Warnings that are said once, however often there is a reason."""

from __future__ import annotations

import logging

_log = logging.getLogger(__name__)


class Once:
    """Says each thing once, until it is forgotten."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def say(self, key: str, text: str) -> None:
        """Say it, unless something with this key was said already."""
        if key not in self._said:
            self._said.add(key)
            _log.warning("%s", text)

    def forget(self, key: str) -> bool:
        """Whether it was said; it will be said again."""
        was_said = key in self._said
        self._said.discard(key)
        return was_said
