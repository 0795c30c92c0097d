"""The name of a series with its labels, as processes tell it in their vitals and Prometheus writes it."""

from __future__ import annotations

import re
from collections.abc import Mapping

_LABEL = r'([a-z0-9_]+)="((?:[^"\\\n]|\\["\\n])*)"'
_NAME = re.compile(rf"([a-z_]+)(?:\{{(?:{_LABEL}(?:,|(?=\}})))+\}})?")
_LABELS = re.compile(_LABEL)
_ESCAPED = {"\\": r"\\", '"': r"\"", "\n": r"\n"}
_MEANT = {written: meant for meant, written in _ESCAPED.items()}


def series_name(name: str, **labels: str) -> str:
    """A name with labels, of which a value may be whatever a folder of pictures is called."""
    written = ",".join(f'{label}="{_escaped(value)}"' for label, value in labels.items())
    return f"{name}{{{written}}}"


def parse_series(text: str) -> tuple[str, Mapping[str, str]]:
    """Name and labels of what `series_name` wrote, or of a bare name; an empty name for anything else."""
    parsed = _NAME.fullmatch(text)
    if parsed is None:
        return "", {}
    return parsed[1], {label: _meant(value) for label, value in _LABELS.findall(text.partition("{")[2])}


def _escaped(value: str) -> str:
    return re.sub(r'[\\"\n]', lambda found: _ESCAPED[found[0]], value)


def _meant(value: str) -> str:
    return re.sub(r'\\["\\n]', lambda found: _MEANT[found[0]], value)
