"""The watchman: looks once a second at what needs an operator, and keeps the alarms and the audit's mirror."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kenpin.edge_runtime.alarm_board import AlarmBoard
from kenpin.edge_runtime.announce import Identity, camera_level
from kenpin.edge_runtime.audit_mirror import AuditMirror
from kenpin.edge_runtime.clock import clock_is_synchronised
from kenpin.edge_runtime.counters import Counters
from kenpin.edge_runtime.database import connect, transaction
from kenpin.edge_runtime.equipment import Equipment
from kenpin.edge_runtime.outbox import Outbox
from kenpin.edge_runtime.part_watch import PartWatch
from kenpin.edge_runtime.retention import Retention
from kenpin.edge_runtime.room import Room
from kenpin.errors import KenpinError, StoreDamaged, reason_and_file
from kenpin.machine_state import read_power_w, read_state
from kenpin.station_folder import StationFolder

_EVERY_S = 1.0
_HOST_EVERY_S = 10.0
_UNTOLD = 1000  # values of one alarm

_log = logging.getLogger(__name__)

Conditions = Callable[[], Mapping[str, float | None]]


@dataclass(frozen=True)
class Post:
    """What a watchman watches.

    Attributes:
        folder: The station's folder.
        identity: Who speaks in its events.
        parts: What the parts say.
        conditions: What the station itself says, by key of the alarm; `None` = it cannot be told now.
        counters: Take what is measured here.
        equipment: What the station is made of now.
        keep_days: Age of the oldest record of a part that is kept.
        wake: Says that an event waits in the outbox.
        beat: Says that a round is done.
        damaged: Takes what is wrong with the database, where its file is bad.
        damaged_elsewhere: Whether another process has found it bad.
    """

    folder: StationFolder
    identity: Identity
    parts: PartWatch
    conditions: Conditions
    counters: Counters
    equipment: Callable[[], Equipment]
    keep_days: int
    wake: Callable[[], None]
    beat: Callable[[], None]
    damaged: Callable[[str], None]
    damaged_elsewhere: Callable[[], bool]


class Watchman:
    """One thread. A duty that cannot be done is said once and tried again; the others and the line go on.

    Args:
        post: What it watches.

    Raises:
        StoreError: The database cannot be opened.
    """

    def __init__(self, post: Post) -> None:
        self._post = post
        self._connection = connect(post.folder.database)
        self._board = AlarmBoard(self._connection, post.identity)
        self._mirror = AuditMirror(post.folder, self._connection, post.identity)
        self._retention = Retention(self._connection, keep_days=post.keep_days)
        self._outbox = Outbox(self._connection)
        self._room = Room.on_disk_of(post.folder.database)
        self._untold: dict[str, list[float | None]] = {}  # what parts said, until the alarms are kept
        self._host: Mapping[str, float] = {}
        self._power_w = 0.0
        self._host_due_s = 0.0
        self._seq = 0
        self._equipment: Equipment | None = None
        self._trouble: dict[str, str] = {}
        self._duties: Mapping[str, Callable[[], None]] = {
            "The alarms cannot be kept": self._watch_alarms,
            "The audit cannot be told": self._mirror.come_round,
            "Old records cannot be removed": self._retention.come_round,
            "What the station is made of cannot be told": self._tell_equipment,
            "The publisher cannot be woken": self._wake_publisher,
            "Damage cannot be looked for": self._look_for_damage,
        }
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, or begin again."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="watchman", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look once more, as the last parts may have raised something, and end."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def close(self) -> None:
        """End, and give back the database."""
        self.stop()
        self._connection.close()

    def _run(self) -> None:
        while True:
            is_last = self._stop.wait(_EVERY_S)
            for failure, duty in self._duties.items():
                self._guarded(failure, duty)
            self._post.beat()
            if is_last:
                return

    def _guarded(self, failure: str, duty: Callable[[], None]) -> None:
        """Do one thing of a round; where it fails, the next ones are done all the same."""
        try:
            duty()
            self._trouble.pop(failure, None)
        except Exception as error:
            if isinstance(error, StoreDamaged):
                self._post.damaged(error.what)
            if self._trouble.get(failure) != repr(error):
                self._trouble[failure] = repr(error)
                is_known = isinstance(error, (KenpinError, OSError))
                _log.warning("%s: %s", failure, reason_and_file(error), exc_info=None if is_known else error)

    def _watch_alarms(self) -> None:
        for key, seen in self._post.parts.values().items():
            self._untold[key] = [*self._untold.get(key, ()), *seen][-_UNTOLD:]
        told, psi = dict(self._untold), self._untold["score_drift"][-1]
        told |= {key: [value] for key, value in self._post.conditions().items()}
        told |= {key: [value] for key, value in self._host_values().items()}
        told["outbox_pressure"] = [self._room.pressure(self._outbox.depth().waiting_bytes)]
        self._board.come_round(told)
        self._untold.clear()
        hottest_c = self._host.get("gpu_thermal", 0.0)
        self._post.counters.note(score_psi=psi or 0.0, temperature_c=hottest_c, power_w=self._power_w)

    def _wake_publisher(self) -> None:
        newest = self._outbox.newest()
        if newest != self._seq:
            self._seq = newest
            self._post.wake()

    def _look_for_damage(self) -> None:
        """Alerts that the publisher cannot read reach nobody, though the line runs on."""
        if self._post.damaged_elsewhere():
            self._post.damaged("the publisher cannot read the events that wait")

    def _tell_equipment(self) -> None:
        """`meta`, where the model or its thresholds changed."""
        equipment = self._post.equipment()
        if equipment != self._equipment:
            with transaction(self._connection):
                self._outbox.set_state(equipment.meta(self._post.identity))
                self._outbox.keep_cameras([camera_level(name) for name in equipment.cameras])
            self._equipment = equipment
            self._post.wake()

    def _host_values(self) -> Mapping[str, float]:
        if time.monotonic() >= self._host_due_s:
            self._host_due_s = time.monotonic() + _HOST_EVERY_S
            self._host, self._power_w = host_values(self._post.folder.root), read_power_w()
        return self._host


def host_values(root: Path) -> dict[str, float]:
    """What the machine says: clock, disk, temperature; what it does not have is left out.

    Args:
        root: Folder on the disk in question.
    """
    disk = shutil.disk_usage(root)
    found = {
        "clock_unsynced": float(not clock_is_synchronised()),
        "disk_low": disk.used / max(1, disk.used + disk.free),
    }
    temperature = read_state().get("temperature_c")
    return {**found, "gpu_thermal": float(temperature)} if temperature is not None else found
