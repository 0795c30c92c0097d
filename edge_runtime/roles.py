"""The roles: what each process of a station does. `kenpin run` supervises all; under systemd each is a unit."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from kenpin.config import StationConfig
from kenpin.edge_runtime.announce import Identity, State
from kenpin.edge_runtime.camera_source import CameraSource
from kenpin.edge_runtime.capture import Capture
from kenpin.edge_runtime.commander import Commander
from kenpin.edge_runtime.counters import Snapshot
from kenpin.edge_runtime.credentials import Credentials
from kenpin.edge_runtime.database import file_id, require_current
from kenpin.edge_runtime.genicam_source import GenicamSource
from kenpin.edge_runtime.health import serve_health
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.publisher import Publisher
from kenpin.edge_runtime.pulse import Pulse
from kenpin.edge_runtime.result_inbox import ResultInbox
from kenpin.edge_runtime.site import in_own_processes, make_publisher
from kenpin.edge_runtime.sources import make_sources
from kenpin.edge_runtime.sparkplug_feed import SparkplugFeed
from kenpin.edge_runtime.station import DRAIN_S, Station
from kenpin.edge_runtime.vitals import Vitals, read_vitals, why_untold
from kenpin.edge_runtime.watch import Watch
from kenpin.errors import ConfigError, StoreError
from kenpin.heap import keep_freed_memory
from kenpin.station_folder import StationFolder

# Vitals come every second; a process that has told nothing for so long is not there.
STALE_S = 3.0
_FIRST_S = 10.0
_ROUND_S = 0.2
_STORE_S = 1.0
_PUBLISH_S = 10.0
CAPTURE_S = 5.0  # silence of a capture process after which it is killed

_File = tuple[int, int] | None

_log = logging.getLogger(__name__)


def run_role(
    role: str, config: StationConfig, *, max_parts: int | None, on_part: Callable[[Part], None] | None
) -> None:
    """Run one process of a station until it ends.

    Args:
        role: `station`, `publisher`, `health`, or `capture-0`, `capture-1` … for the cameras.
        config: The station's configuration.
        max_parts: Only for the station: stop after this many parts.
        on_part: Only for the station: called with each part.

    Raises:
        ConfigError: There is no such role, or the configuration cannot be used.
        SourceError: The source cannot be read.
        DeviceLost: The GPU is lost to this process.
    """
    if role == "station":
        inspect(config, max_parts=max_parts, on_part=on_part)
    elif role == "publisher":
        publish(config)
    elif role == "health":
        with stop_signals() as stopping:
            serve_health(config, stopping)
    elif role.startswith("capture-") and role[8:] in map(str, range(len(config.source.urls))):
        capture(config, int(role[8:]))
    else:
        raise ConfigError(
            f"this station has no role {role!r}",
            where="--role",
            cure=f"use station, publisher, health or capture-0 to capture-{len(config.source.urls) - 1}",
        )


def inspect(config: StationConfig, *, max_parts: int | None, on_part: Callable[[Part], None] | None) -> None:
    """Decide on parts until the source ends or SIGTERM."""
    keep_freed_memory()
    with stop_signals() as stopping, Station(config, site=in_own_processes(), on_part=on_part) as station:
        station.run(max_parts=max_parts, stopping=stopping)


def capture(config: StationConfig, index: int) -> None:
    """Read one camera until SIGTERM."""
    keep_freed_memory()
    folder = StationFolder(config.station.state_dir)
    made = make_sources(config.source.urls)  # all of them, for their names
    source = made.pop(index)
    for other in made:
        other.close()
    # Of a camera that runs freely only the newest picture counts; behind every other one is a part.
    latest = not config.source.trigger and isinstance(source, CameraSource | GenicamSource)
    with stop_signals() as stopping:
        wait_s = config.source.wait_ms / 1000
        Capture(source, folder.run, index, latest=latest, wait_s=wait_s).run(stopping)


def publish(config: StationConfig) -> None:
    """Bring the station's events and its state to the broker until SIGTERM, or until there is a new database.

    Raises:
        ConfigError: The broker's address or a file of it cannot be used.
        StoreError: The database could not be opened until SIGTERM.
    """
    folder = StationFolder(config.station.state_dir)
    folder.create()
    with stop_signals() as stopping, closing(ResultInbox(folder.run)) as inbox:
        identity = _identity(config, folder, stopping)
        publisher, opened = _when_disk_works(
            lambda: make_publisher(config, identity, lambda: _snapshot(folder)), folder, stopping
        )
        sparkplug = SparkplugFeed.from_config(config, folder) if config.sparkplug.enabled else None
        credentials = Credentials(config.mqtt, client_id=config.station.id)
        watch = Watch({"publish": _PUBLISH_S})
        pulse = Pulse(folder.run, watch, lambda: publisher_vitals(publisher, identity, watch, inbox))
        if (state := station_state(folder)) is not None:
            publisher.set_state(*state)  # or a station that runs would be told as STARTING
        publisher.start()
        while not stopping() and not _has_moved(folder, opened):
            for result in inbox.receive(_ROUND_S):
                publisher.tell_result(result)
            publisher.wake()
            if (broker := credentials.renewed()) is not None:
                publisher.renew(broker)
                if sparkplug is not None:
                    sparkplug.stop()
                    sparkplug = SparkplugFeed.from_config(config, folder)
            if _follow(identity, folder):
                publisher.tell_again()
            state = station_state(folder)
            if state is not None:
                publisher.set_state(*state)
            if sparkplug is not None:
                sparkplug.come_round(station_state(folder))
            if publisher.is_alive:
                watch.beat("publish")
            pulse.tick()
        publisher.stop(reason="shutdown", drain_s=DRAIN_S)
        if sparkplug is not None:
            sparkplug.stop()
        pulse.stop()


def station_state(folder: StationFolder) -> tuple[State, str] | None:
    """How the station is, as far as its processes tell; `None` while it is just ending on purpose."""
    found = read_vitals(folder.run)
    station = found.get("station")
    if station is not None and station.state == "STOPPED" and (station.age_s < STALE_S or station.has_process):
        return None  # giving back engines takes its time; a process that hangs in it is killed
    if station is not None and station.age_s < STALE_S:
        return station.state, station.reason
    supervisor = found.get("supervisor")
    if supervisor is not None and supervisor.state == "STOPPED" and supervisor.pid == os.getppid():
        return None  # however long it takes: this process is the next one to end
    if station is not None and station.has_process and (untold := why_untold(folder.run)):
        return "FAULT", untold  # whoever went to start it again would leave the disk as it is
    why = supervisor.reason if supervisor is not None and supervisor.age_s < STALE_S else ""
    return "FAULT", why or "the station's process is not running"


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM or SIGINT has come; the second one ends the process at once, unless a manager does that.

    A shutdown signals all that runs, and the supervisor then each of its children once more.
    """
    came: list[int] = []
    is_managed = bool(os.environ.get("NOTIFY_SOCKET"))

    def take(number: int, _frame: object) -> None:
        came.append(number)
        if not is_managed:
            signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, take) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _when_disk_works(
    make: Callable[[], Publisher], folder: StationFolder, stopping: Callable[[], bool]
) -> tuple[Publisher, _File]:
    """The publisher, and the file that it opened.

    A full disk is waited for, and the station where it has not prepared its database, as whoever fails again
    and again is left alone for minutes.
    """
    told = ""
    while True:
        try:
            # Not opened as the station does: only who holds its lock may move a damaged file aside.
            require_current(folder.database)
            opened = file_id(folder.database)
            return make(), opened
        except StoreError as error:
            if stopping():
                raise
            if error.what != told:
                _log.warning("The publisher waits for the database: %s", error)
            told = error.what
            time.sleep(_STORE_S)


def _has_moved(folder: StationFolder, opened: _File) -> bool:
    """Whether the station has begun a new database: the next start of this process finds what it writes."""
    now = file_id(folder.database)
    if now is None or now == opened:
        return False
    _log.warning("The station has begun a new database; the publisher starts again with that one.")
    return True


def _identity(config: StationConfig, folder: StationFolder, stopping: Callable[[], bool]) -> Identity:
    """The station's identity, as its messages shall carry the same session."""
    identity = Identity(config.station.id)
    by_s = time.monotonic() + _FIRST_S
    while time.monotonic() < by_s and not (stopping() or _follow(identity, folder)):
        time.sleep(_ROUND_S)
    return identity


def _follow(identity: Identity, folder: StationFolder) -> bool:
    """Speak of the station that runs now, which starts again without its publisher; whether that is news."""
    station = read_vitals(folder.run).get("station")
    if station is None or station.age_s >= STALE_S:
        return False
    return identity.follow(station.session_id, test=station.texts.get("test") == "1")


def _snapshot(folder: StationFolder) -> Snapshot:
    station = read_vitals(folder.run).get("station")
    return Snapshot.from_vitals(station or Vitals(role="station", pid=0))


def publisher_vitals(publisher: Publisher, identity: Identity, watch: Watch, inbox: ResultInbox) -> Vitals:
    """What the publisher's process tells the others."""
    traffic, denied = publisher.traffic, publisher.is_denied
    return Vitals(
        role="publisher",
        pid=os.getpid(),
        session_id=identity.session_id,
        beats=watch.beats(),
        numbers={
            "events_acked_total": traffic.acked,
            "broker_rejected_total": traffic.rejected,
            "no_subscriber_total": traffic.no_subscriber,
            "broker_connections_total": traffic.connections,
            "broker_connected": publisher.is_connected,
            "broker_unstable": publisher.is_unstable,
            'dropped_total{stage="command",reason="flood"}': publisher.dropped,
            'dropped_total{stage="result",reason="malformed"}': inbox.malformed,
            'dropped_total{stage="result",reason="late"}': inbox.late,
            **({} if denied is None else {"broker_denied": denied}),
            **_command_numbers(publisher),
        },
        texts={
            "unread": ",".join(sorted(traffic.unread)),
            "damaged_file": ":".join(map(str, publisher.damaged_file or ())),
        },
    )


def _command_numbers(publisher: Publisher) -> dict[str, float]:
    commander = publisher.listener
    if not isinstance(commander, Commander):
        return {}
    refused = {f'commands_refused_total{{reason="{why}"}}': n for why, n in commander.refusals.items()}
    return {"commands_total": commander.done, **refused}
