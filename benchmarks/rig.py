"""A rig around one station: a line that triggers, a broker, a subscriber, and hands that break things."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.history import History
from kenpin.broker import held_port
from kenpin.edge_runtime.database import reading
from kenpin.edge_runtime.trigger_input import send_trigger
from kenpin.edge_runtime.vitals import Vitals, read_vitals
from kenpin.errors import SourceError
from kenpin.station_folder import StationFolder
from tests import specimens

# In a test a process fails more often in a minute than in a year at a line: the restart budget would end it.
PATIENT = """
import sys
import kenpin.edge_runtime.child as child
child.WINDOW_S = 0.5
child._BACK_OFF_S = (0.05, 0.5)
from kenpin.cli import main
main()
"""
# What a station may release parts by.
RECORD = specimens.record(t1=2.0, t2=2.5)
TRIGGERED = 'url = "synthetic:fabric?trigger=1"\ntrigger = "software"\nwait_ms = 1000'


def port_for(owner: object) -> int:
    """A free port of loopback, which nobody else is given as long as its owner lives."""
    held = contextlib.ExitStack()
    weakref.finalize(owner, held.close)
    return held.enter_context(held_port())


class Broker:
    """mosquitto.

    Args:
        root: Its folder.
        keeps: Whether it keeps messages over its own death.
        extra: Further lines of its configuration; by default, it queues without end.
    """

    def __init__(self, root: Path, *, keeps: bool = True, extra: str = "max_queued_messages 0") -> None:
        root.mkdir()
        self.port = port_for(self)
        self._config = root / "mosquitto.conf"
        # As root it would become another user, who cannot read a temporary folder.
        user = "user root\n" if os.geteuid() == 0 else ""
        self._config.write_text(
            f"{user}listener {self.port} 127.0.0.1\nallow_anonymous true\nlog_dest none\n"
            f"persistence {'true' if keeps else 'false'}\npersistence_location {root}/\n"
            f"autosave_on_changes true\nautosave_interval 1\n{extra}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        self._process = subprocess.Popen([program, "-c", str(self._config)])
        for _ in range(3600):  # 180 seconds: a machine that is busy starts it slowly
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError("mosquitto does not answer")

    def send(self, number: signal.Signals) -> None:
        """Signal it, for example to stand still."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Listener:
    """mosquitto_sub: another program, which shares no code with the station.

    Args:
        port: Of the broker.
        heard: Is called with each line that it prints, in a thread of the listener.
        options: Of mosquitto_sub.
    """

    def __init__(self, port: int, heard: Callable[[str], object], *options: str) -> None:
        command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(port), *options]
        self._heard = heard
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Kill it."""
        self._process.kill()
        self._thread.join()

    def _read(self) -> None:
        with self._process as process:
            for line in whole_lines(process):
                self._heard(line)


def whole_lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """What a program prints, without what a kill cut short."""
    assert process.stdout is not None
    return (line for line in process.stdout if line.endswith("\n"))


class Subscriber:
    """mosquitto_sub with a session that the broker keeps.

    Args:
        port: Of the broker.
        topic: What to listen to.
    """

    def __init__(self, port: int, topic: str) -> None:
        self.events: list[dict[str, Any]] = []
        self._command = ["mosquitto_sub", "-V", "5", "-h", "127.0.0.1", "-p", str(port), "-i", "scada"]
        self._command += ["-c", "-x", "3600", "-q", "1", "-t", topic, "-F", "%j"]
        self._closing = False
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._closing = True
        if self._process is not None:
            self._process.kill()
        self._thread.join()

    def _read(self) -> None:
        while not self._closing:
            with subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            ) as process:
                self._process = process
                for line in whole_lines(process):
                    self.events.append(json.loads(json.loads(line)["payload"]))
            time.sleep(0.1)


class Line:
    """A PLC: counts parts, and asks the station for each one whether it hears or not.

    Args:
        folder: The station's folder.
        rate: Parts per second.

    Attributes:
        triggers: Numbers that were sent, in order.
        rate: Parts per second; may be changed while they come.
    """

    def __init__(self, folder: StationFolder, *, rate: float) -> None:
        self.triggers: list[int] = []
        self.rate = rate
        self._folder = folder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Let parts come."""
        self._thread.start()

    def stop(self) -> None:
        """No more parts."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def part(self) -> bool:
        """One part; whether the station was there to hear of it."""
        self.triggers.append(len(self.triggers) + 1)
        try:
            send_trigger(self._folder.run, self.triggers[-1])
        except SourceError:
            return False
        return True

    def _run(self) -> None:
        while not self._stop.wait(1 / self.rate):
            self.part()


class Rig:
    """A station with a line, a broker and a subscriber.

    Args:
        root: A new folder for broker and logs.
        folder: The station's folder, with a bundle and a calibration.
        trusted: Public key of the bundle.
        rate: Parts per second.
        source: The section of the configuration.

    Attributes:
        environment: Of the station's processes.
    """

    def __init__(
        self, root: Path, folder: StationFolder, trusted: Path, *, rate: float, source: str = TRIGGERED
    ) -> None:
        root.mkdir()
        self.environment = dict(os.environ)
        self.folder = folder
        self.broker = Broker(root / "broker")
        self.broker.start()
        self.subscriber = Subscriber(self.broker.port, "plant/line/st1/event/#")
        self.line = Line(folder, rate=rate)
        self.output_log = root / "outputs.jsonl"
        self.config = root / "station.toml"
        self.config.write_text(
            f'[station]\ntopic = "plant/line/st1"\nstate_dir = "{folder.root}"\ntrusted_keys = ["{trusted}"]\n'
            f"[source]\n{source}\n"
            f'[mqtt]\nurl = "mqtt://127.0.0.1:{self.broker.port}"\n'
            f'[output]\nlog = "{self.output_log}"\n[health]\nlisten = "127.0.0.1:{port_for(self)}"\n'
            '[decide]\ntimeout_ms = 2000\n[evidence]\nkeep = "none"\n'
        )
        self._log = (root / "station.log").open("w")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the station and wait until it is ready."""
        command = [sys.executable, "-c", PATIENT, "run", "--config", str(self.config)]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log, env=self.environment)
        self.wait(self.is_ready, "ready")

    def stop(self) -> None:
        """Stop the line, let the station settle what is owed, and stop it."""
        self.settle()
        self.end()

    def settle(self) -> None:
        """Stop the line and let the station settle what is owed."""
        self.line.stop()
        self.wait(self.is_ready, "ready")
        self.wait(self.line.part, "room for another part")  # shows the gap, where the last ones were missed
        self.wait(self._is_settled, "the last part and the last acknowledgement")

    def end(self) -> None:
        """Stop the station as an operator does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(180)

    def close(self) -> None:
        """End all of it, however it is."""
        self.line.stop()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.subscriber.close()
        self.broker.kill()
        self._log.close()

    def station(self) -> Vitals | None:
        """What the station told last."""
        return read_vitals(self.folder.run).get("station")

    def reason(self) -> str:
        """Why the station is not as it should be, as it says itself; empty when it is."""
        station = self.station()
        return station.reason if station is not None else ""

    def restarts(self) -> int:
        """Times that one of its processes was started again."""
        told = read_vitals(self.folder.run)["supervisor"].numbers
        return int(sum(number for name, number in told.items() if name.startswith("restarts_total")))

    def is_ready(self) -> bool:
        """Whether the station that runs now can release parts, as it says itself."""
        return self._says("station", "ready")

    def is_connected(self) -> bool:
        """Whether the publisher that runs now is heard by the broker, as it says itself."""
        return self._says("publisher", "broker_connected")

    def pid(self, role: str) -> int:
        """Number of a process of the station; 0 where there is none now."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for child in children:
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                if role.encode() in words:
                    return int(child)
        return 0

    def kill(self, role: str, number: signal.Signals = signal.SIGKILL) -> bool:
        """Send a signal to a process; whether there was one."""
        pid = self.pid(role)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return bool(pid)

    def wait(self, condition: Callable[[], object], what: str, limit_s: float = 180.0) -> float:
        """Wait for something; how long it took, in seconds."""
        started_s = time.monotonic()
        while not condition():
            if time.monotonic() - started_s > limit_s:
                raise AssertionError(f"{what} did not come in {limit_s:g} s\n{self.log()[-3000:]}")
            time.sleep(0.02)
        return time.monotonic() - started_s

    def log(self) -> str:
        """What the station said so far."""
        return Path(self._log.name).read_text()

    def history(self, *, triggers: Sequence[int] = (), number: str = "trigger_id") -> History:
        """All that happened, once the last event has arrived.

        Args:
            triggers: Of whom; default: of the line.
            number: Which column counts the parts; `frame_id` where nobody triggers.
        """
        triggers = triggers or self.line.triggers
        history = self._read(triggers, number)
        by_s = time.monotonic() + 180
        while time.monotonic() < by_s and any("never arrived" in v for v in history.violations()):
            time.sleep(0.2)
            history = self._read(triggers, number)
        return history

    def _read(self, triggers: Sequence[int], number: str) -> History:
        return History.read(
            self.folder.database,
            self.output_log if number == "trigger_id" else Path(os.devnull),
            triggers=triggers,
            received=list(self.subscriber.events),
            number=number,
        )

    def _says(self, role: str, number: str) -> bool:
        told = read_vitals(self.folder.run).get(role)
        if told is None or told.age_s > 2.5 or not told.numbers.get(number):
            return False
        return told.pid == self.pid(role)  # not the last words of one that was killed

    def _is_settled(self) -> bool:
        with reading(self.folder.database) as store:
            newest = "SELECT trigger_id FROM part ORDER BY seq DESC LIMIT 1"
            waiting = "SELECT count(*) FROM outbox WHERE acked_ms IS NULL"
            is_last = store.execute(newest).fetchone() == (self.line.triggers[-1],)
            return is_last and store.execute(waiting).fetchone() == (0,)
