"""What the Sparkplug edge node shows of a station: counters, state, and the last part of each camera."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from kenpin.audit import Entry
from kenpin.config import StationConfig
from kenpin.edge_runtime.announce import State
from kenpin.edge_runtime.audit_note import note
from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.database import reading
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.sparkplug import Sparkplug
from kenpin.edge_runtime.sparkplug_payload import DataType, Value
from kenpin.edge_runtime.sparkplug_refusal import Refusal
from kenpin.edge_runtime.sparkplug_session import EdgeNode, check_device
from kenpin.edge_runtime.vitals import Vitals, read_vitals
from kenpin.errors import BrokerError, StoreError
from kenpin.station_folder import StationFolder

_EVERY_S = 1.0
_TOPIC_CHARS = 200
_CAMERA = "camera/%/last"
_log = logging.getLogger(__name__)


class SparkplugFeed:
    """Feeds an edge node from what the station's processes tell.

    Args:
        node: The edge node, not started yet.
        folder: The station's folder.
    """

    def __init__(self, node: Sparkplug, folder: StationFolder) -> None:
        self._node = node
        self._folder = folder
        self._due_s = 0.0
        self._is_started = False
        self._known: dict[str, Mapping[str, Any]] = {}  # the last part of each camera

    @classmethod
    def from_config(cls, config: StationConfig, folder: StationFolder) -> SparkplugFeed:
        """Make it as the configuration says.

        Raises:
            ConfigError: An id or the broker's address cannot be used.
        """
        section = config.sparkplug
        # Two connections with one id would throw each other off.
        broker = BrokerAddress.from_config(config.mqtt, client_id=f"{config.station.id}-sparkplug")
        node = EdgeNode(
            section.group_id, section.node_id or config.station.id, primary_host=section.primary_host
        )
        return cls(Sparkplug(broker, node, partial(_report, folder)), folder)

    def come_round(self, state: tuple[State, str] | None) -> None:
        """Tell what has changed; once a second is often enough.

        Args:
            state: How the station is.
        """
        if time.monotonic() < self._due_s:
            return
        self._due_s = time.monotonic() + _EVERY_S
        found = read_vitals(self._folder.run)
        self._node.tell(node_values(found.get("station"), state or ("STOPPED", "")))
        down = cameras_down(found)
        before, self._known = self._known, self._cameras()
        for camera in before.keys() - self._known.keys():
            self._node.lose(camera)
        for camera, last in self._known.items():
            if camera in down:
                self._node.lose(camera)
            else:
                self._node.tell(camera_values(last), device=camera)
        if not self._is_started:  # now, so that the first birth has all of it
            self._is_started = True
            self._node.start()

    def stop(self) -> None:
        """Say goodbye."""
        if self._is_started:
            self._node.stop()

    def _cameras(self) -> dict[str, Mapping[str, Any]]:
        try:
            with reading(self._folder.database) as connection:
                sql = "SELECT body FROM state WHERE topic LIKE ? AND body <> ''"
                lasts = [json.loads(body) for (body,) in connection.execute(sql, (_CAMERA,))]
            for last in lasts:  # what was damaged on the disk must not end the publisher
                check_device(str(last["camera"]))
                camera_values(last)
        except (StoreError, BrokerError, ValueError, KeyError, TypeError):
            return self._known
        return {str(last["camera"]): last for last in lasts}


def cameras_down(found: Mapping[str, Vitals]) -> set[str]:
    """Cameras that do not answer, as their processes say, or because their process says nothing any more.

    Args:
        found: What each process told last, by its role.
    """
    told = [
        (camera, is_up and vitals.is_alive)
        for vitals in found.values()
        for camera, is_up in vitals.cameras_up.items()
    ]
    return {camera for camera, is_up in told if not is_up} - {camera for camera, is_up in told if is_up}


def node_values(station: Vitals | None, state: tuple[State, str]) -> dict[str, Value]:
    """Metrics of the node.

    Args:
        station: What the station told last; `None` = nothing.
        state: How it is, and why.
    """
    numbers = station.numbers if station is not None else {}
    is_ready = station is not None and station.is_alive and bool(numbers.get("ready", 0))
    parts = {
        f"Parts/{verdict.value}": (
            DataType.INT64,
            int(numbers.get(f'parts_total{{verdict="{verdict.value}"}}', 0)),
        )
        for verdict in Verdict
    }
    return {
        **parts,
        "State": (DataType.STRING, state[0]),
        "Reason": (DataType.STRING, state[1]),
        "Ready": (DataType.BOOLEAN, is_ready),
        "Model": (DataType.STRING, station.texts.get("model", "") if station is not None else ""),
        "Decision/p99_ms": (DataType.DOUBLE, 1000 * numbers.get('decision_seconds{quantile="0.99"}', 0.0)),
    }


def camera_values(last: Mapping[str, Any]) -> dict[str, Value]:
    """Metrics of a camera.

    Args:
        last: Payload of `camera/<camera>/last`.
    """
    return {
        "Part": (DataType.STRING, str(last["part_id"])),
        "Verdict": (DataType.STRING, str(last["verdict"])),
        "Score": (DataType.DOUBLE, float(last["score"])),
        "Threshold": (DataType.DOUBLE, float(last["threshold"])),
        "Time": (DataType.DATETIME, int(last["ts_ms"])),
    }


def _report(folder: StationFolder, refusal: Refusal) -> None:
    topic = refusal.topic[:_TOPIC_CHARS]  # the last level is whatever somebody has sent
    _log.warning("Sparkplug: %s at %s was refused (%d times).", refusal.why, topic, refusal.times)
    since = f"{refusal.times} since the last row, the last at {topic}; nobody signs what comes by Sparkplug"
    note(folder, Entry("sparkplug", "unknown", new=f"refused: {refusal.why}", why=since))
