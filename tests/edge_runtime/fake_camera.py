"""Aravis' own GigE Vision camera on loopback, in a process of its own, so that it can be unplugged."""

from __future__ import annotations

import subprocess
import sys

# By its address: a camera on loopback is found through every network card of the machine.
ADDRESS = "127.0.0.1"
# Lives as long as its standard input; a number that is written there is the share of packets that are lost.
CAMERA = """
import sys, gi
gi.require_version("Aravis", "0.8")
from gi.repository import Aravis
camera = Aravis.GvFakeCamera.new("127.0.0.1", "FAKE1")
assert camera.is_running()
print("runs", flush=True)
for line in sys.stdin:
    camera.set_property("gvsp-lost-ratio", float(line))
    print("lost", flush=True)
"""


class FakeCamera:
    """A camera of its own process, that can be unplugged."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def plug_in(self) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([sys.executable, "-c", CAMERA], stdin=pipe, stdout=pipe, text=True)
        self._answer()

    def lose_packets(self, share: float) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{share}\n")
        self._process.stdin.flush()
        self._answer()

    def unplug(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _answer(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        assert self._process.stdout.readline()
