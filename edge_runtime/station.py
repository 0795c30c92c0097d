"""The station: source -> decide -> commit -> release, one part after the other, while the publisher drains.

with Station(config) as station:
    report = station.run()
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from kenpin.config import StationConfig
from kenpin.edge_runtime.announce import Identity, State
from kenpin.edge_runtime.background_build import BackgroundBuild
from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.counters import Counters, Snapshot
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.herald import Desk
from kenpin.edge_runtime.inspection import Inspection, Judge
from kenpin.edge_runtime.outbox import Depth
from kenpin.edge_runtime.publisher import Publisher
from kenpin.edge_runtime.readiness import check_readiness
from kenpin.edge_runtime.source import Fault
from kenpin.edge_runtime.sources import open_source
from kenpin.edge_runtime.store import Part, Store
from kenpin.errors import ConfigError, KenpinError, StoreError
from kenpin.frame import Frame
from kenpin.signing import PublicKey
from kenpin.sole_use import sole_use
from kenpin.station_folder import StationFolder

DRAIN_S = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """What a run of the station did.

    Attributes:
        counters: Parts and times.
        events_acked: Events that the broker acknowledged in this run.
        depth: How full the outbox is left.
        precision: Which model ran; empty without an engine.
        session_id: The session in the store and in the events.
    """

    counters: Snapshot
    events_acked: int
    depth: Depth
    precision: str
    session_id: str


class Station:
    """One inspection station. A second one on the same folder is refused.

    Args:
        config: Its configuration.
        release: Called with the part's id to let a part pass: only for OK, and only after its record is on
            disk. Silence means not OK.
        on_part: Called with each part when all is done with it.

    Raises:
        ConfigError: The configuration, a key or the folder cannot be used, or another station has it.
        SourceError: The source does not open.
        StoreError: The database cannot be opened.
    """

    def __init__(
        self,
        config: StationConfig,
        *,
        release: Callable[[str], None] | None = None,
        on_part: Callable[[Part], None] | None = None,
    ) -> None:
        self._release = release
        self._on_part = on_part
        self._stopping = False
        self._trouble = ""
        self._counters = Counters()
        trusted = [PublicKey.load(path) for path in config.station.trusted_keys]
        folder = StationFolder(config.station.state_dir)
        folder.create()
        with contextlib.ExitStack() as opened:
            opened.enter_context(_sole_user(folder.root))
            self._source = opened.enter_context(contextlib.closing(open_source(config.source.url)))
            self._identity = Identity(config.station.id, test=self._source.drawn)
            self._store = opened.enter_context(contextlib.closing(Store(folder.database)))
            self._publisher = self._make_publisher(config)
            self._ready = check_readiness(folder, trusted)
            if self._ready.engine is not None:
                opened.callback(self._ready.engine.close)
            self._build: BackgroundBuild | None = None
            if self._ready.build is not None:
                self._build = BackgroundBuild(folder, self._ready.build, config.station.trusted_keys)
                opened.enter_context(contextlib.closing(self._build))
            self._judge = Judge(
                self._ready, self._identity, self._counters, timeout_ms=config.decide.timeout_ms
            )
            self._opened = opened.pop_all()

    def __enter__(self) -> Station:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    @property
    def fault(self) -> str:
        """Why no part can be judged; empty when the station is ready."""
        return self._ready.fault

    def stop(self) -> None:
        """Let the part in hand be the last one; may be called from a signal handler."""
        self._stopping = True

    def run(self, *, max_parts: int | None = None) -> Report:
        """Inspect parts until the source ends, `max_parts` are done or `stop` is called.

        With a broker it can be called once: the publisher ends with it.

        Raises:
            SourceError: The source failed for good.
            DeviceLost: The GPU is lost to this process; the part in hand got its verdict. Start a new one.
        """
        last_words = "shutdown"
        self._start()
        try:
            for item in self._items(max_parts):
                inspection = self._judge.inspect(item)
                inspection = self._commit_and_release(inspection)
                self._count(inspection)
                if self._judge.lost is not None:
                    raise self._judge.lost
        except BaseException as error:
            last_words = error.what if isinstance(error, KenpinError) else type(error).__name__
            raise
        finally:
            if self._publisher is not None:
                self._publisher.stop(reason=last_words, drain_s=DRAIN_S)
        return self._report()

    def _start(self) -> None:
        if self._ready.fault:
            _log.warning("No part can be judged: %s", self._ready.fault)
        if self._ready.note:
            _log.warning("ONNX Runtime runs instead of TensorRT: %s", self._ready.note)
        if self._publisher is not None:
            self._publisher.start()
        self._say_state()

    def _items(self, max_parts: int | None) -> Iterator[Frame | Fault]:
        done = 0
        while not self._stopping and (max_parts is None or done < max_parts):
            item = self._source.next()
            if item is None:
                return
            yield item
            done += 1

    def _commit_and_release(self, inspection: Inspection) -> Inspection:
        """Only here a part is released: it is OK, its record is on disk, and it is not too late.

        A late NG or REVIEW still stops the part, and its alert is not lost.
        """
        try:
            seq = self._store.commit(inspection.part, inspection.event)
        except StoreError as error:
            self._say_state(f"parts cannot be stored: {error.what}")
            return inspection.without_decision(error.what)
        self._say_state()
        if inspection.part.decision.verdict is not Verdict.OK:
            return inspection
        reason = self._judge.too_late(inspection.part) or self._let_pass(inspection.part)
        if reason:
            self._store.note_withheld(seq, reason)
            return inspection.without_decision(reason)
        self._store.note_released(seq)
        return inspection

    def _let_pass(self, part: Part) -> str:
        """Switch the output; why that failed, in words."""
        try:
            if self._release is not None:
                self._release(part.part_id)
        except Exception as error:
            _log.exception("Part %s could not be released.", part.part_id)
            return f"the output failed: {error}"
        return ""

    def _count(self, inspection: Inspection) -> None:
        part, decision = inspection.part, inspection.part.decision
        self._counters.add(decision.verdict, decision.reason, has_event=inspection.event is not None)
        if decision.scored is not None:
            self._counters.add_times(latency_ms=part.latency_ms, infer_ms=part.infer_ms)
        if inspection.event is not None and self._publisher is not None:
            self._publisher.wake()
        if self._on_part is not None:
            self._on_part(part)

    def _say_state(self, trouble: str = "") -> None:
        """Say how the station is, where that changed."""
        state: tuple[State, str] = ("RUNNING", "")
        if self._ready.fault:
            state = ("FAULT", self._with_build(self._ready.fault))
        elif trouble or self._ready.note:
            state = ("DEGRADED", trouble or self._with_build(self._ready.note))
        if trouble and trouble != self._trouble:
            _log.warning("%s", trouble)
        self._trouble = trouble
        if self._publisher is not None:
            self._publisher.set_state(*state)

    def _with_build(self, reason: str) -> str:
        return f"{reason}; {self._build.told}" if self._build is not None else reason

    def _report(self) -> Report:
        engine = self._ready.engine
        return Report(
            self._counters.snapshot(),
            self._publisher.traffic.acked if self._publisher is not None else 0,
            self._store.depth(),
            engine.precision if engine is not None else "",
            self._identity.session_id,
        )

    def _make_publisher(self, config: StationConfig) -> Publisher | None:
        if not config.mqtt.url:
            return None
        broker = BrokerAddress.from_config(config.mqtt, client_id=config.station.id)
        return Publisher(
            Desk(broker, config.station.topic, self._identity, self._store.path, self._counters.snapshot)
        )


@contextlib.contextmanager
def _sole_user(root: Path) -> Iterator[None]:
    """Hold the station's folder; the kernel lets go of it however the process ends."""
    path = root / "station.lock"
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(sole_use(path))
        except BlockingIOError:
            raise ConfigError(
                f"another station runs on this folder (process {path.read_text().strip() or 'unknown'})",
                where=root,
                cure="stop it first, or give each station its own state_dir",
            ) from None
        except OSError as error:
            raise ConfigError(
                f"the station folder cannot be written: {error.strerror}",
                where=root,
                cure="give another state folder, or make it writable for this user",
            ) from None
        yield
