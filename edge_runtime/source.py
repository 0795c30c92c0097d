"""A source: what delivers one frame or one fault for each part, and its address."""

from __future__ import annotations

import difflib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol
from urllib.parse import parse_qsl

from kenpin.edge_runtime.decide import Verdict
from kenpin.errors import ConfigError
from kenpin.events import now_ms
from kenpin.frame import Frame

_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "folder": ("loop", "rate"),
    "video": (),
    "usb": ("fps", "height", "width"),
    "synthetic": ("defects", "rate", "seed"),
}
_EXAMPLES = "folder:DIR?rate=5&loop=1  video:FILE  usb:0?width=1280&height=720  synthetic:board?rate=10&seed=1"


@dataclass(frozen=True)
class Fault:
    """A part of which there is no usable frame.

    Attributes:
        part_id: Identity of the part.
        camera: Name of the camera or source.
        verdict: MISSED when no frame came, NO_DECISION when one came that cannot be used.
        reason: Why, in words.
        captured_ns: Monotonic clock at the trigger or the attempt, nanoseconds.
        ts_ms: The same in UTC, milliseconds since 1970.
    """

    part_id: str
    camera: str
    verdict: Literal[Verdict.MISSED, Verdict.NO_DECISION]
    reason: str
    captured_ns: int = field(default_factory=time.monotonic_ns)
    ts_ms: int = field(default_factory=now_ms)


class Source(Protocol):
    """Delivers one frame or one fault for each part.

    Attributes:
        camera: Name of the camera or source.
        drawn: Whether the parts are not real; their events are marked as tests.
    """

    camera: str
    drawn: bool

    def next(self) -> Frame | Fault | None:
        """Wait for the next part; `None` at the end of the stream."""
        ...

    def close(self) -> None:
        """Let the device or file go."""
        ...


@dataclass(frozen=True)
class SourceUrl:
    """A source's address, taken apart.

    Attributes:
        url: The whole address, for messages.
        scheme: Kind of source.
        target: Folder, file, camera index or product.
        options: What stands after `?`.
    """

    url: str
    scheme: str
    target: str
    options: Mapping[str, str]

    @classmethod
    def parse(cls, url: str) -> SourceUrl:
        """Take an address apart.

        Raises:
            ConfigError: The kind of source or an option is unknown.
        """
        scheme, colon, rest = url.partition(":")
        if scheme not in _OPTIONS or not colon:
            raise ConfigError(
                f"unknown source {scheme!r}", where=url, cure=_did_you_mean(scheme, tuple(_OPTIONS), _EXAMPLES)
            )
        # A folder or file may have a ? in its name, where the kind of source takes no option after it.
        target, _, query = rest.rpartition("?") if "?" in rest and _OPTIONS[scheme] else (rest, "", "")
        options = dict(parse_qsl(query, keep_blank_values=True))
        for name in options.keys() - set(_OPTIONS[scheme]):
            known = ", ".join(_OPTIONS[scheme])
            raise ConfigError(
                f"{scheme}: has no option {name!r}",
                where=url,
                cure=_did_you_mean(name, _OPTIONS[scheme], f"known are {known}"),
            )
        if not target:
            raise ConfigError(f"{scheme}: names nothing", where=url, cure=f"for example {_EXAMPLES}")
        return cls(url, scheme, target, options)

    def number(self, name: str, default: float, *, low: float, high: float) -> float:
        """Read an option that is a number.

        Raises:
            ConfigError: It is not a number, or out of range.
        """
        text = self.options.get(name, str(default))
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise ConfigError(
                f"{name}={text} is not usable", where=self.url, cure=f"give a number from {low:g} to {high:g}"
            )
        return value


def _did_you_mean(word: str, known: tuple[str, ...], otherwise: str) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else otherwise
