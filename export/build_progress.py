"""How far a build is: TensorRT's own phases, told to whoever listens."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from rich.progress import Progress, TaskID

# Name of a phase and how far it is, 0 to 1; 1 = it has ended. Any thread may call it.
Listener = Callable[[str, float], None]

_log = logging.getLogger(__name__)


@contextmanager
def ctrl_c_waits() -> Iterator[threading.Event]:
    """Ctrl-C sets an event meanwhile, and is raised at the end; a second one ends the process at once.

    TensorRT's bindings print an exception that comes up in a call to Python and go on, and Ctrl-C comes up in
    the first line of such a call: the build would go on, or fail as if something were wrong.
    """
    pressed = threading.Event()
    # Another thread gets no signals; where somebody else handles or ignores Ctrl-C, that holds.
    ours = threading.current_thread() is threading.main_thread()
    if not (ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler):
        yield pressed
        return

    def press(number: int, _frame: FrameType | None) -> None:
        pressed.set()
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if pressed.is_set():
            raise KeyboardInterrupt


def make_monitor(trt: Any, listen: Listener, cancelled: threading.Event) -> Any:
    """A progress monitor for TensorRT, which ends the build at its next step once `cancelled` is set."""

    # TensorRT takes nothing but a subclass, may call from threads of its own, and swallows exceptions.
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            self._tell(phase_name, 0.0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tell(phase_name, min(1.0, (step + 1) / max(1, self._steps.get(phase_name, 1))))
            return not cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)
            self._tell(phase_name, 1.0)

        def _tell(self, phase_name: str, share: float) -> None:
            try:
                listen(phase_name, share)
            except Exception:
                _log.exception("The progress of the build could not be told.")

    return Monitor()


class Bars:
    """One bar per phase on a terminal; a phase that has ended disappears.

    Args:
        progress: Where the bars are drawn.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def show(self, phase: str, share: float) -> None:
        """A `Listener`."""
        if phase not in self._bars:
            self._bars[phase] = self._progress.add_task(phase, total=1.0)
        if share >= 1.0:
            self._progress.remove_task(self._bars.pop(phase))
        else:
            self._progress.update(self._bars[phase], completed=share)
