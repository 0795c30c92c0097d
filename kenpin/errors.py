"""The one error tree. Each error says what is wrong, where, and the cure.

KenpinError
├── ConfigError        wrong usage, wrong configuration file            exit 2
│   └── WrongView      a view that somebody drew and that is none       exit 2
├── DataError          pictures, folders and score lists that are given exit 2
│   └── OutOfView      a frame without the part where the view wants it exit 2
├── BundleError        a bundle that is damaged, unsigned or unknown    exit 1
├── CalibrationError   thresholds that are missing or do not fit        exit 1
├── SourceError        a camera, video or folder that does not deliver  exit 1
├── EngineError        a model that does not run or gives other scores  exit 1
│   └── DeviceLost     a GPU that answers no more in this process       exit 3
├── StoreError         the station's database                           exit 1
│   └── StoreDamaged   one whose file is bad, not the disk full         exit 1
├── BrokerError        MQTT                                             exit 1
├── TrainError         training that cannot go on                       exit 1
└── ExportError        a model that cannot be turned into a bundle      exit 1
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from kenpin.tls_refusal import tls_words


def printable(text: str) -> str:
    """Text without what a terminal or a log would take for a command or another line; only line ends stay.

    Names of files and of what lies in a zip are chosen by whoever made them.

    Args:
        text: Anything, bytes of names that are no UTF-8 included.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def private_again(*paths: object) -> str:
    """The command after which nobody else can read some files, to be pasted into a shell."""
    return shlex.join(["chmod", "600", *map(str, paths)])


def reason_of(error: Exception) -> str:
    """What an exception of the system or a library says, without number, path and codec; of TLS in our words.

    Args:
        error: Caught where a file or a connection was used; where it lies is said beside it.
    """
    if isinstance(error, UnicodeError):
        return "it is not UTF-8 text"
    if isinstance(error, OSError) and error.strerror:
        return tls_words(error.strerror)
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error)


def reason_and_file(error: Exception) -> str:
    """The same with the file that the system names, for a log line that names none."""
    file = error.filename if isinstance(error, OSError) else None
    return f"{reason_of(error)}: {file}" if file else reason_of(error)


class KenpinError(Exception):
    """An error that a person can act on.

    Args:
        what: What is wrong, one sentence without a full stop.
        where: File, line, key or device it concerns.
        cure: What to do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: object = "", cure: str = "") -> None:
        self.what = printable(what)
        super().__init__(self.what)
        self.where = printable(str(where)).replace("\n", "\\n")
        self.cure = printable(cure)

    @property
    def in_one_line(self) -> str:
        """What is wrong, and the cure where there is one."""
        return f"{self.what}; {self.cure}" if self.cure else self.what

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.cure:
            lines.append(f"  cure:  {self.cure}")
        return "\n".join(lines)


class ConfigError(KenpinError):
    """Wrong usage or a wrong configuration file."""

    exit_code = 2


class WrongView(ConfigError):  # noqa: N818 - said as it is told
    """A view that somebody drew and that cannot be used.

    Args:
        what: What is wrong, one sentence without a full stop.
        finding: The same as one word, for pages in other languages.
        values: What the sentence names, by its name.
        where: File it concerns.
        cure: What to do about it.
    """

    def __init__(
        self,
        what: str,
        *,
        finding: str,
        values: Mapping[str, object] | None = None,
        where: object = "",
        cure: str = "",
    ) -> None:
        super().__init__(what, where=where, cure=cure)
        self.finding = finding
        self.values = values or {}


class DataError(KenpinError):
    """Pictures, folders or score lists that cannot be used."""

    exit_code = 2


class OutOfView(DataError):  # noqa: N818 - said as it is told
    """A frame that does not show the part where the view expects it.

    Args:
        what: What is wrong, one sentence without a full stop.
        finding: The same as one word: `wrong_size`, `absent` or `misplaced`.
        where: File or camera it concerns.
        cure: What to do about it.
    """

    def __init__(self, what: str, *, finding: str, where: object = "", cure: str = "") -> None:
        super().__init__(what, where=where, cure=cure)
        self.finding = finding


class BundleError(KenpinError):
    """A bundle that is damaged, unsigned, signed by an unknown key or made for a newer kenpin."""


class CalibrationError(KenpinError):
    """Thresholds that are missing, altered or do not belong to the bundle."""


class SourceError(KenpinError):
    """A camera, video or folder that does not deliver frames."""


class EngineError(KenpinError):
    """A model that does not run, or does not give the scores it gave when it was exported."""


class DeviceLost(EngineError):  # noqa: N818 - said as it is told
    """A GPU that answers no more: only a new process can use it again, so a supervisor restarts the station."""

    exit_code = 3


class StoreError(KenpinError):
    """The station's database cannot be opened or written."""


class StoreDamaged(StoreError):  # noqa: N818 - said as it is told
    """The file of the station's database is bad: no later try will work, only a new file."""


class BrokerError(KenpinError):
    """The MQTT broker cannot be started or reached."""


class TrainError(KenpinError):
    """Training that cannot start or go on."""


class ExportError(KenpinError):
    """A model that cannot be exported, quantised or packed."""
