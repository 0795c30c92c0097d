"""A request that is refused, in words that can be translated."""

from __future__ import annotations

from fastapi import HTTPException


class Refused(HTTPException):
    """A refusal that a person reads.

    Args:
        status_code: Of HTTP.
        key: Of its words.
        values: What the words want to know.
    """

    def __init__(self, status_code: int, key: str, **values: object) -> None:
        super().__init__(status_code, detail=key)
        self.key = key
        self.values = values
