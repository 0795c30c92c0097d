"""The words of the page, one flat JSON file per language, and how numbers and times are written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from importlib.resources import files

LANGUAGES: Mapping[str, str] = {"ja": "日本語", "en": "EN", "de": "DE"}
_THOUSANDS = {"en": ",", "ja": ",", "de": "."}
_POINTS = {"en": ".", "ja": ".", "de": ","}
_SEPARATORS = {"en": ",", "ja": ",", "de": ";"}  # Excel puts a whole row into one cell where it is another


class Words:
    """The words of one language.

    Args:
        language: `en`, `ja` or `de`.
        texts: Words by key, with `{placeholders}`.
    """

    def __init__(self, language: str, texts: Mapping[str, str]) -> None:
        self.language = language
        self._texts = texts

    def __call__(self, key: str, **values: object) -> str:
        """The words of a key.

        Args:
            key: As in the file; one that is missing there is an error in the program, and raises KeyError.
            values: What the placeholders stand for; numbers are written as the language does.
        """
        shown = {k: self.number(v) if isinstance(v, (int, float)) else v for k, v in values.items()}
        return self._texts[key].format(**shown)

    @property
    def separator(self) -> str:
        """What parts the cells of a CSV file for spreadsheets of the language."""
        return _SEPARATORS[self.language]

    def __contains__(self, key: str) -> bool:
        return key in self._texts

    def number(self, value: float, digits: int = 0) -> str:
        """A number with so many digits behind the point: 1,284.5 or 1.284,5."""
        text = f"{value:,.{digits}f}"
        swapped = {",": _THOUSANDS[self.language], ".": _POINTS[self.language]}
        return "".join(swapped.get(c, c) for c in text)

    def per_thousand(self, seen: int, of: int) -> str:
        """How many of 1,000, rounded up to a tenth: one of 3,000 is 0.4, never none."""
        tenths = -(-10_000 * seen // of)
        return self.number(tenths / 10, 1 if tenths % 10 else 0)

    def score(self, value: float) -> str:
        """A score, to four digits that matter: scores have no scale of their own."""
        return self.typed(f"{value:#.4g}".rstrip("."))

    def typed(self, text: str) -> str:
        """A number as it stands in a form, with the point of the language."""
        return text.replace(".", _POINTS[self.language])

    def time(self, ts_ms: int, *, seconds: bool = True) -> str:
        """Date and time at the station's place, from UTC in milliseconds since 1970."""
        at = datetime.fromtimestamp(ts_ms / 1000).astimezone()
        return at.strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")

    def clock(self, ts_ms: int) -> str:
        """The time of day at the station's place."""
        return datetime.fromtimestamp(ts_ms / 1000).astimezone().strftime("%H:%M:%S")


def load_words() -> Mapping[str, Words]:
    """The words of all languages."""
    folder = files("kenpin.calibration.web")
    found = {}
    for language in LANGUAGES:
        texts = json.loads((folder / f"{language}.json").read_text(encoding="utf-8"))
        found[language] = Words(language, texts)
    return found
