"""Trigger inputs: how the line says that a part is in front of the cameras."""

from __future__ import annotations

import contextlib
import json
import logging
import select
import time
from pathlib import Path
from typing import Protocol

from kenpin.config import StationConfig
from kenpin.edge_runtime.gpio_lines import parse_trigger_line
from kenpin.edge_runtime.run_socket import listen_in, send_in
from kenpin.edge_runtime.source import SourceUrl, Trigger
from kenpin.edge_runtime.trigger_message import MAX_BYTES, read_trigger
from kenpin.errors import ConfigError, SourceError

_SOCKET = "trigger.sock"

_log = logging.getLogger(__name__)


class TriggerInput(Protocol):
    """Delivers triggers, to one thread.

    Attributes:
        refused: What came and was no trigger, since the start.
        trouble: Why none can come now, in words; empty while they can, as far as is known.
    """

    refused: int
    trouble: str

    def wait(self, deadline_s: float) -> Trigger | None:
        """Wait for the next trigger.

        Args:
            deadline_s: Until when on `time.monotonic()`, seconds.
        """
        ...

    def close(self) -> None:
        """Let it go."""
        ...


class SoftwareTrigger:
    """Triggers from any program on this machine: datagrams of JSON, `{"trigger_id": 7, "part_id": "A-7"}`.

    Args:
        run: The station's `StationFolder.run`.

    Attributes:
        refused: Datagrams that were no triggers.

    Raises:
        ConfigError: The socket cannot be made.
    """

    def __init__(self, run: Path) -> None:
        self.refused = 0
        self.trouble = ""
        self._run = run
        self._socket = listen_in(run, _SOCKET, what="triggers")

    def wait(self, deadline_s: float) -> Trigger | None:
        """Wait for the next trigger; what is none is counted and ignored."""
        while select.select([self._socket], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
            data = self._socket.recv(MAX_BYTES + 1)
            trigger = read_trigger(data)
            if trigger is not None:
                return trigger
            self.refused += 1
            if self.refused == 1:
                _log.warning(
                    "A program sent what is no trigger: %r. It and others like it are ignored.", data[:80]
                )
        return None

    def close(self) -> None:
        """Remove the socket."""
        self._socket.close()
        with contextlib.suppress(OSError):
            (self._run / _SOCKET).unlink()


def send_trigger(run: Path, trigger_id: int, part_id: str = "") -> None:
    """Trigger a station on this machine that has `[source] trigger = "software"`.

    Args:
        run: The station's `StationFolder.run`.
        trigger_id: Number of the trigger; one higher than the last one.
        part_id: Identity of the part; empty = made from the number.

    Raises:
        SourceError: No station listens, or it has no room for another trigger now.
    """
    body = json.dumps({"trigger_id": trigger_id, "part_id": part_id}).encode()
    try:
        send_in(run, _SOCKET, body)
    except BlockingIOError:
        raise SourceError(
            f"trigger {trigger_id} was not taken: too many wait for the station to come round",
            where=run / _SOCKET,
            cure="send it again at once; left out, the part is counted as missed when the next trigger comes",
        ) from None
    except PermissionError:
        raise SourceError(
            "this user may not trigger the station",
            where=run / _SOCKET,
            cure="run this as the station's user, like sudo -u kenpin …",
        ) from None
    except OSError as error:
        raise SourceError(
            f"no station takes triggers here: {error.strerror}",
            where=run / _SOCKET,
            cure='start it with kenpin run, with trigger = "software" in [source]',
        ) from None


def _check_camera(url: SourceUrl, kind: str) -> None:
    """A camera that waits for other triggers than the station's would miss every part, or bring its own.

    Raises:
        ConfigError: Its address does not fit `[source] trigger`.
    """
    if url.scheme == "replay" and kind in ("", "camera-line"):
        return  # it has the numbers that it was recorded with
    waits_for = url.options.get("trigger", "off")
    fits, cure = _fit(url, kind, waits_for)
    if not fits:
        told = f'"{kind}"' if kind else "empty"
        raise ConfigError(
            f"[source] trigger is {told}, but this camera's is {waits_for}", where=url.url, cure=cure
        )


def _fit(url: SourceUrl, kind: str, waits_for: str) -> tuple[bool, str]:
    """Whether a camera waits for the station's triggers, and what to do where it does not."""
    is_drawn = url.scheme == "synthetic"
    if not kind:
        kinds = '"software" for example' if is_drawn else 'to "camera-line" for a cable'
        return waits_for in ("off", "0"), f"set [source] trigger, {kinds}, or leave out its option trigger"
    if not url.takes_triggers:
        return False, "it runs freely and cannot be triggered: leave out [source] trigger"
    if kind == "camera-line":
        if is_drawn:
            return False, "no cable leads to drawn parts: leave out [source] trigger"
        return waits_for.startswith("line"), "add trigger=line1, or the line that its cable is at"
    option = "trigger=1" if is_drawn else "trigger=software"
    return waits_for in ("software", "1"), f"add {option}, or leave out [source] trigger"


def check_trigger(config: StationConfig, *, has_modbus: bool) -> None:
    """Make sure that who triggers can be understood and fits the cameras; nothing is opened.

    Args:
        config: The station's configuration.
        has_modbus: Whether there is a Modbus output, which takes a PLC's triggers.

    Raises:
        ConfigError: It does not.
    """
    kind, _, rest = config.source.trigger.partition(":")
    for url in config.source.urls:
        _check_camera(SourceUrl.parse(url), kind)
    if kind == "modbus" and not has_modbus:
        raise ConfigError(
            "triggers by Modbus need a Modbus output",
            where="[source] trigger",
            cure='add modbus = "127.0.0.1:1502" to [output]',
        )
    if kind == "gpio":
        parse_trigger_line(rest)


def make_trigger_input(config: StationConfig, run: Path, modbus: TriggerInput | None) -> TriggerInput | None:
    """The trigger input that the configuration names; `None` where the camera leads.

    Args:
        config: The station's configuration.
        run: The station's `StationFolder.run`.
        modbus: The PLC's triggers, where there is a Modbus output.

    Raises:
        ConfigError: It cannot be made.
    """
    check_trigger(config, has_modbus=modbus is not None)
    kind, _, rest = config.source.trigger.partition(":")
    if kind == "software":
        return SoftwareTrigger(run)
    if kind == "modbus":
        return modbus
    if kind == "mqtt":
        from kenpin.edge_runtime.mqtt_trigger import MqttTrigger  # noqa: PLC0415 - only where it is used

        return MqttTrigger(config, rest)
    if kind == "gpio":
        from kenpin.edge_runtime.gpio_trigger import GpioTrigger  # noqa: PLC0415 - an extra

        return GpioTrigger(rest)
    return None
