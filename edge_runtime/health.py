"""Health: how the station is, over HTTP, to this machine only (docs/health.md)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, ThreadingWSGIServer

from kenpin.config import StationConfig, host_port
from kenpin.edge_runtime.clock import clock_is_synchronised
from kenpin.edge_runtime.database import reading
from kenpin.edge_runtime.outbox import Outbox
from kenpin.edge_runtime.pulse import Pulse
from kenpin.edge_runtime.series import SERIES, families
from kenpin.edge_runtime.series_name import series_name
from kenpin.edge_runtime.vitals import Vitals, read_vitals, why_untold
from kenpin.edge_runtime.watch import Watch
from kenpin.errors import ConfigError, StoreError
from kenpin.station_folder import StationFolder

STALE_S = 5.0
_CLIENT_S = 5.0  # a client that is slower is dropped
_CLIENTS = 16
_ROUND_S = 0.5
_SERVE_S = 10.0
_STATES = ("ready", "camera_up", "broker_connected")  # series that alerts watch for 0

Answer = tuple[str, str, bytes]


class _Handler(WSGIRequestHandler):
    """Does not log each request."""

    def log_message(self, *_: Any) -> None:
        pass


class _Server(ThreadingWSGIServer):
    """A thread per client, of which there can be only so many, each for a short while."""

    daemon_threads = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._taken_s: dict[socket.socket, float] = {}

    def process_request(self, request: Any, client_address: Any) -> None:
        self._taken_s[request] = time.monotonic()
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has left is no news; what fails on this side is told by `wsgiref`."""

    def drop_slow(self) -> None:
        """End the connections that have had their time: a client that drips never lets a read wait for long."""
        due_s = time.monotonic() - _CLIENT_S
        self._taken_s = {taken: s for taken, s in self._taken_s.items() if taken.fileno() >= 0}
        for taken in [taken for taken, s in self._taken_s.items() if s < due_s]:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                taken.shutdown(socket.SHUT_RDWR)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return threading.active_count() <= _CLIENTS


class _Server6(_Server):
    """The same at [::1]."""

    address_family = socket.AF_INET6


class Health:
    """Knows how a station is, from what its processes tell.

    Args:
        config: The station's configuration.
    """

    def __init__(self, config: StationConfig) -> None:
        self._folder = StationFolder(config.station.state_dir)
        self._roles = [role for role in config.roles if role != "health"]

    def dead(self) -> list[str]:
        """Processes without a sign of life, in words."""
        return self._silent()[0]

    def _silent(self) -> tuple[list[str], str]:
        """Processes without a sign of life, and why those that are there cannot give one; each in words."""
        found = read_vitals(self._folder.run)
        silent = {role: words for role in self._roles if (words := _silence(role, found.get(role)))}
        trouble = why_untold(self._folder.run) if silent else ""
        if trouble:  # whoever restarted them for this would stop a line that works
            silent = {role: words for role, words in silent.items() if not _is_there(found.get(role))}
        return list(silent.values()), trouble

    def not_ready(self) -> list[str]:
        """Why the station cannot release parts, in words; empty when it can."""
        found = read_vitals(self._folder.run)
        reasons, trouble = self._silent()
        reasons += [trouble] if trouble else []
        station, supervisor = found.get("station"), found.get("supervisor")
        if station is not None and not station.numbers.get("ready"):
            reasons.append(station.reason or f"the station is {station.state}")
        if supervisor is not None and supervisor.reason and supervisor.age_s < STALE_S:
            reasons.append(supervisor.reason)
        return reasons

    def collect(self) -> Iterator[Metric]:
        """All series; called by the Prometheus client."""
        numbers = [*self._told(), *self._store(), *self._machine()]
        found, unknown = families(numbers)
        yield from found
        yield GaugeMetricFamily("kenpin_unknown_series", "Numbers that no series stands for.", value=unknown)

    def _told(self) -> Iterator[tuple[str, float]]:
        found = read_vitals(self._folder.run)
        if "station" not in found:
            yield "ready", 0.0
        if "publisher" in self._roles and "publisher" not in found:
            yield "broker_connected", 0.0
        for role in (*self._roles, "supervisor", "health"):  # others are of an earlier configuration
            vitals = found.get(role)
            if vitals is None:
                continue
            yield f'process_age_seconds{{role="{role}"}}', vitals.age_s
            if _silence(role, vitals):
                yield from _left_of(vitals.numbers)
                continue
            yield from vitals.numbers.items()
            texts = vitals.texts
            if texts.get("model"):
                labels = {label: texts.get(label, "") for label in SERIES["bundle_info"].labels}
                yield series_name("bundle_info", **labels), 1

    def _store(self) -> Iterator[tuple[str, float]]:
        try:
            with reading(self._folder.database) as connection:
                depth = Outbox(connection).depth()
        except StoreError:
            return
        yield "outbox_depth", depth.waiting
        yield "outbox_oldest_seconds", depth.oldest_s
        yield "outbox_dropped", depth.dropped

    def _machine(self) -> Iterator[tuple[str, float]]:
        yield "disk_free_bytes", shutil.disk_usage(self._folder.root).free
        yield "clock_synced", clock_is_synchronised()

    def answer(self, path: str) -> Answer:
        """Status, type and body for a path."""
        if path == "/metrics":
            registry = CollectorRegistry()
            registry.register(self)
            return "200 OK", CONTENT_TYPE_LATEST, generate_latest(registry)
        checks = {"/livez": self.dead, "/readyz": self.not_ready}
        if path not in checks:
            return "404 Not Found", "text/plain", b"/livez /readyz /metrics\n"
        reasons = checks[path]()
        status = "503 Service Unavailable" if reasons else "200 OK"
        return status, "application/json", json.dumps({"ok": not reasons, "reasons": reasons}).encode()


def serve_health(config: StationConfig, stopping: Callable[[], bool]) -> None:
    """Answer until told to stop.

    Args:
        config: The station's configuration.
        stopping: Says when.

    Raises:
        ConfigError: The address is in use, or there is none.
    """
    if not config.health.listen:
        raise ConfigError(
            "health is offered nowhere",
            where="listen in [health]",
            cure="give an address, or install the service again",
        )
    health = Health(config)
    host, port = host_port(config.health.listen)
    folder = StationFolder(config.station.state_dir)
    folder.run.mkdir(parents=True, exist_ok=True)
    watch = Watch({"serve": _SERVE_S})
    pulse = Pulse(folder.run, watch, lambda: _vitals(watch))
    try:
        server = make_server(
            host,
            port,
            _application(health),
            server_class=_Server6 if ":" in host else _Server,
            handler_class=_Handler,
        )
    except OSError as error:
        raise ConfigError(
            f"health cannot be offered: {error.strerror}",
            where=config.health.listen,
            cure='give each station of a machine its own port as listen in [health], or "" for none',
        ) from None
    with server:
        server.timeout = _ROUND_S
        while not stopping():
            server.handle_request()
            server.drop_slow()
            watch.beat("serve")
            pulse.tick()
    pulse.stop()


def _application(health: Health) -> Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]:
    def application(request: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if request["REQUEST_METHOD"] not in ("GET", "HEAD"):
            start("405 Method Not Allowed", [("Allow", "GET, HEAD")])
            return [b""]
        status, kind, body = health.answer(request["PATH_INFO"])
        start(
            status, [("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
        )
        return [body if request["REQUEST_METHOD"] == "GET" else b""]

    return application


def _silence(role: str, vitals: Vitals | None) -> str:
    if vitals is None:
        return f"{role}: it has not said how it is"
    if vitals.age_s >= STALE_S:
        return f"{role}: no sign of life for {vitals.age_s:.0f} s"
    return f"{role}: it has stopped" if vitals.state == "STOPPED" else ""


def _left_of(numbers: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """What still counts of a process that is silent: what it had counted, and that nothing comes from it."""
    for text, value in numbers.items():
        name = text.partition("{")[0]
        if name in _STATES:
            yield text, 0.0
        elif name in SERIES and SERIES[name].kind == "counter":
            yield text, value


def _is_there(vitals: Vitals | None) -> bool:
    """Whether the process that told last exists and has not said that it stops."""
    return vitals is not None and vitals.state != "STOPPED" and vitals.has_process


def _vitals(watch: Watch) -> Vitals:
    return Vitals(role="health", pid=os.getpid(), beats=watch.beats())
