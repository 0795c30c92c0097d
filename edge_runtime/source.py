"""A source: what delivers one frame or one fault for each part, and its address."""

from __future__ import annotations

import difflib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol, TypeAlias
from urllib.parse import parse_qsl

from kenpin.edge_runtime.decide import Verdict
from kenpin.errors import ConfigError, SourceError
from kenpin.events import now_ms
from kenpin.frame import Frame

Settings: TypeAlias = Mapping[str, float | str]
NO_SETTINGS: Settings = MappingProxyType({})

_GENICAM = ("exposure_us", "gain_db", "height", "pixel_format", "trigger", "width")
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "aravis": _GENICAM,
    "pylon": _GENICAM,
    "folder": ("loop", "rate"),
    "video": (),
    "replay": ("speed",),
    "usb": ("exposure_us", "fps", "height", "width"),
    "rtsp": ("password_file", "user"),
    "csi": ("exposure_us", "fps", "gain", "height", "width"),
    "synthetic": ("defects", "height", "rate", "seed", "trigger", "width"),
}
_PATHS = {"folder": "picture folder", "video": "video", "replay": "recording"}
_EXAMPLES = (
    "folder:DIR?rate=5&loop=1  video:FILE  replay:DIR  usb:0?width=1280&height=720  csi:0  rtsp://HOST/PATH  "
    "aravis:192.168.1.20?exposure_us=4000&trigger=line1  pylon:0  synthetic:board?rate=10&seed=1"
)


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
        trigger_id: Number of the trigger that asked for it; `None` where nobody counts triggers.
    """

    part_id: str
    camera: str
    verdict: Literal[Verdict.MISSED, Verdict.NO_DECISION]
    reason: str
    captured_ns: int = field(default_factory=time.monotonic_ns)
    ts_ms: int = field(default_factory=now_ms)
    trigger_id: int | None = None


@dataclass(frozen=True)
class Trigger:
    """The line asks for a verdict on one part.

    Attributes:
        trigger_id: Its number as the line counts; a number that is left out is a part that was missed.
        part_id: Identity of the part; empty = made from the number.
        mono_ns: Monotonic clock when it came, nanoseconds.
        ts_ms: The same in UTC, milliseconds since 1970.
    """

    trigger_id: int
    part_id: str = ""
    mono_ns: int = field(default_factory=time.monotonic_ns)
    ts_ms: int = field(default_factory=now_ms)

    def name_at(self, camera: str) -> str:
        """What its part is called: as somebody named it, else by camera and number."""
        return self.part_id or f"{camera}-{self.trigger_id:06d}"

    def missed(self, camera: str, reason: str) -> Fault:
        """The fault of its part, where a camera takes no picture of it.

        Args:
            camera: Name of the camera.
            reason: Why, in words.
        """
        return Fault(
            self.name_at(camera), camera, Verdict.MISSED, reason, self.mono_ns, self.ts_ms, self.trigger_id
        )


def too_old(trigger: Trigger, wait_s: float) -> str:
    """Why a picture would show another part than that of a trigger, in words; empty where it is in time.

    Args:
        trigger: The trigger.
        wait_s: Longest time from a trigger to its frame, in seconds.
    """
    age_s = time.monotonic() - trigger.mono_ns / 1e9
    if age_s <= wait_s:
        return ""
    return f"late: its trigger may have come {age_s * 1000:.0f} ms before it was heard"


class Lull(Enum):
    """No part came."""

    IDLE = "none was due in time"
    END = "none will come any more"


class FrameSource(Protocol):
    """Delivers one frame or one fault for each part.

    Attributes:
        camera: Name of the camera or source.
        drawn: Whether the parts are not real; their events are marked as tests.
        waits: Whether it waits for the station, as files do; a line does not.
        live: Whether no two of its pictures are alike unless it has frozen: an uncompressed camera's noise
            sees to that.
        down_reason: Why it delivers nothing, in words; empty while it does.
        settings: What a calibration is signed for, as the camera said when it was opened; empty where nothing
            can be set.
    """

    camera: str
    drawn: bool
    waits: bool
    live: bool
    down_reason: str
    settings: Settings

    def open(self) -> None:
        """Open the device or file; may be called again after `close`.

        Raises:
            SourceError: It does not open.
        """
        ...

    def next(self, deadline_s: float) -> Frame | Fault | Lull:
        """Wait for the next part.

        A frame's picture may be overwritten after the next call.

        Args:
            deadline_s: Until when on `time.monotonic()`, seconds.

        Raises:
            SourceError: The source has failed for good. A camera that is away has not: it gives faults or
                idles until it is back.
        """
        ...

    def trigger(self, trigger: Trigger) -> None:
        """Take a picture for this part now; its frame or fault comes with `next`. Returns at once.

        May be called from another thread than `next`.

        Raises:
            SourceError: This source takes no triggers.
        """
        ...

    def close(self) -> None:
        """Let the device or file go; without effect where it is not open."""
        ...


class Untriggered:
    """A source whose pictures are parts by themselves, as those of a file or of a camera that runs freely."""

    camera: str

    def trigger(self, trigger: Trigger) -> None:
        """Not here.

        Raises:
            SourceError: Always.
        """
        raise takes_no_trigger(self.camera)


def without_login(url: str) -> str:
    """An address that can be shown: up to the last @, and behind the ? of a network camera, stands a login.

    Where the @ comes behind the ?, nobody can tell whether a password has a ? in it: nothing is shown then.
    """
    scheme, _, rest = url.partition(":")
    if scheme.strip().lower().startswith("rtsp"):
        address, _, options = rest.partition("?")
        return f"{scheme}://" + ("…" if "@" in options else address.rpartition("@")[2].removeprefix("//"))
    address, slashes, rest = url.partition("//")
    return f"{address}{slashes}{rest.rpartition('@')[2]}" if slashes else url


@dataclass(frozen=True)
class SourceUrl:
    """A source's address, taken apart.

    Attributes:
        url: The address for messages: of a network camera without its login.
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
        shown = without_login(url)
        if scheme not in _OPTIONS or not colon:
            raise ConfigError(
                f"unknown source {scheme!r}",
                where=shown,
                cure=_did_you_mean(scheme, tuple(_OPTIONS), _EXAMPLES),
            )
        # A folder or file may have a ? in its name, where the kind of source takes no option after it.
        target, _, query = rest.rpartition("?") if "?" in rest and _OPTIONS[scheme] else (rest, "", "")
        options = dict(parse_qsl(query, keep_blank_values=True))
        unknown = options.keys() - set(_OPTIONS[scheme])
        if scheme == "rtsp" and "@" in (rest if unknown else target):
            raise ConfigError(  # what is unknown is not named: it may be the end of a password
                "the camera's address is not usable",
                where="[source] url",
                cure="write rtsp://HOST/PATH?user=NAME&password_file=FILE; no password in the address",
            )
        for name in unknown:
            known = ", ".join(_OPTIONS[scheme])
            raise ConfigError(
                f"{scheme}: has no option {name!r}",
                where=shown,
                cure=_did_you_mean(name, _OPTIONS[scheme], f"known are {known}"),
            )
        if not target:
            raise ConfigError(f"{scheme}: names nothing", where=shown, cure=f"for example {_EXAMPLES}")
        return cls(shown, scheme, target, options)

    @property
    def takes_triggers(self) -> bool:
        """Whether it has an option for what it waits for; a camera that runs freely has none."""
        return "trigger" in _OPTIONS[self.scheme]

    @property
    def files(self) -> tuple[Path, ...]:
        """What it names on the disk."""
        password = self.options.get("password_file")
        named = (Path(self.target),) if self.scheme in _PATHS else ()
        return (*named, Path(password)) if password else named

    def check_there(self) -> None:
        """Find a missing folder or file before any process is started for it.

        Raises:
            SourceError: It is not there.
        """
        if self.scheme in _PATHS and not Path(self.target).exists():
            raise SourceError(
                f"the {_PATHS[self.scheme]} does not exist", where=self.target, cure="check the path"
            )

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


def storable(name: str) -> str:
    """A name of a file or folder, what is not UTF-8 as numbers: else it can be neither stored nor sent."""
    return name.encode("utf-8", "backslashreplace").decode()


def takes_no_trigger(camera: str) -> SourceError:
    """What a source raises that cannot be triggered."""
    return SourceError(
        "this source takes no triggers", where=camera, cure="leave out [source] trigger, or use a camera"
    )


def _did_you_mean(word: str, known: tuple[str, ...], otherwise: str) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else otherwise
