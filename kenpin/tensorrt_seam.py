"""The one place that touches the module `tensorrt`: finding it, its log, and the tensors of a kenpin model.

The same code runs on TensorRT 10.3 to 11.4, so only names that all of them have may be used. TensorRT is never
a dependency: it comes with JetPack.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from kenpin.errors import EngineError, KenpinError
from kenpin.precision import INPUT, OUTPUTS

OLDEST_MAJOR = 10
_KEPT_ERRORS = 8
# TensorRT names a shortage of memory in a warning or an early error; its last one then speaks of a layer only.
_SHORTAGE = (
    "out of memory",
    "outofmemory",
    "insufficient memory",
    "memory is insufficient",
    "not be allocated",
)
INSTALL = (
    "apt install python3-libnvinfer (JetPack 6.1 or newer), in an environment made with --system-site-packages"
)
_EXPORT_AGAIN = "export the bundle again with this version of kenpin"
_CURE = "if it speaks of memory, stop other programs and try again; else report it with the versions"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tensor:
    """One input or output of a network or engine.

    Attributes:
        name: Its name.
        dtype: TensorRT's name of the type: FLOAT, UINT8 and so on.
        shape: Its shape; -1 where it is not fixed.
        is_input: Whether it goes in.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    is_input: bool

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {self.shape}"


def is_installed() -> bool:
    """Whether there is a module `tensorrt`; it is not imported."""
    return importlib.util.find_spec("tensorrt") is not None


def load_tensorrt() -> Any:
    """The module `tensorrt`.

    Ask for a CUDA device first: without a driver TensorRT loads, hands out a runtime, and then crashes.

    Raises:
        EngineError: It is missing, lacks a library, or is too old.
    """
    try:
        trt = importlib.import_module("tensorrt")
    except ImportError as error:
        raise EngineError(
            f"TensorRT does not load: {error}",
            where="Python module tensorrt",
            cure=f"{INSTALL}; in a container, mount the library that is named",
        ) from None
    version = str(trt.__version__)
    if int(version.split(".", maxsplit=1)[0]) < OLDEST_MAJOR:
        raise EngineError(
            f"TensorRT {version} is too old: {OLDEST_MAJOR} or newer is needed",
            where="Python module tensorrt",
            cure="install JetPack 6.1 or newer on this station",
        )
    return trt


@cache
def shared_log(trt: Any) -> Any:
    """The logger of this process: it keeps errors and a shortage of memory, and hands all to `logging`.

    TensorRT keeps the first logger that it is given and ignores every other one: with a logger for each engine
    an error would be told to one that nobody reads, or that is gone.
    """

    # TensorRT takes nothing but a subclass.
    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors = deque[str](maxlen=_KEPT_ERRORS)
            self.shortage = ""

        def forget(self) -> None:
            self.errors.clear()
            self.shortage = ""

        def log(self, severity: Any, msg: str) -> None:
            is_error = severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR)
            if is_error:
                self.errors.append(msg)
            if (is_error or severity == trt.ILogger.WARNING) and any(w in msg.lower() for w in _SHORTAGE):
                self.shortage = msg
            _log.debug("TensorRT: %s", msg)

    return Log()


@contextmanager
def plain_errors(log: Any, doing: str) -> Iterator[None]:
    """Turn whatever TensorRT raises into an `EngineError`.

    Args:
        log: What `shared_log` returned. It forgets what was said before.
        doing: What TensorRT is asked for, to follow "TensorRT cannot".
    """
    log.forget()
    try:
        yield
    except KenpinError:
        raise
    except Exception as error:
        raise failure(log, doing, error=str(error)) from None


def failure(log: Any, doing: str, *, error: str = "", cure: str = _CURE) -> EngineError:
    """The error for something that TensorRT did not do, with what it said itself.

    The last error may only say that it failed; what it said before, of memory above all, is then the reason.
    """
    last = _shortened(log.errors[-1] if log.errors else error)
    before = _shortened(log.shortage or (log.errors[0] if log.errors else ""))
    said = f"{last}; before that: {before}" if before not in ("", last) else last
    return EngineError(f"TensorRT cannot {doing}" + (f": {said}" if said else ""), cure=cure)


def _shortened(text: str) -> str:
    return " ".join(text.split())[:400]


def check_tensors(tensors: Iterable[Tensor]) -> tuple[int, int]:
    """Check that these are the inputs and outputs of a kenpin model with a batch of one.

    Returns:
        Height and width of the model's input.

    Raises:
        EngineError: A tensor is missing, has another type, or no fixed shape.
    """
    found = {tensor.name: tensor for tensor in tensors}
    for tensor in found.values():
        if any(side < 0 for side in tensor.shape):
            raise EngineError(
                f"the model has no fixed shape: {tensor}",
                cure="export again; kenpin export fixes every shape, which TensorRT and CUDA graphs need",
            )
    frames = found.get(INPUT)
    if (
        found.keys() != {INPUT, *OUTPUTS}
        or frames is None
        or not (frames.is_input and frames.dtype == "UINT8" and len(frames.shape) == 4)
        or (frames.shape[0], frames.shape[3]) != (1, 3)
        or any(found[name].dtype != "FLOAT" or found[name].shape[:1] != (1,) for name in OUTPUTS)
    ):
        raise EngineError(
            f"not a kenpin model: {', '.join(map(str, found.values()))}",
            where="frames UINT8 (1, H, W, 3) is needed, and the FLOAT outputs " + ", ".join(OUTPUTS),
            cure=_EXPORT_AGAIN,
        )
    return frames.shape[1], frames.shape[2]
