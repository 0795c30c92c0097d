"""The station: line -> judge -> settlement, one part after the other, while the publisher drains.

with Station(config) as station:
    report = station.run()
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from kenpin.audit import Entry
from kenpin.config import StationConfig
from kenpin.edge_runtime.alarm_catalogue import CATALOGUE
from kenpin.edge_runtime.announce import Identity, State
from kenpin.edge_runtime.audit_note import note
from kenpin.edge_runtime.cable import Cable
from kenpin.edge_runtime.candidate import Proof
from kenpin.edge_runtime.changeover import Changeover, begin
from kenpin.edge_runtime.config_trail import note_config
from kenpin.edge_runtime.counter_gap import CounterGap
from kenpin.edge_runtime.counters import Counters
from kenpin.edge_runtime.equipment import Equipment
from kenpin.edge_runtime.evidence import Evidence
from kenpin.edge_runtime.folder_lock import sole_user
from kenpin.edge_runtime.inspection import Desk, Inspection, Judge
from kenpin.edge_runtime.line import Line, Shot
from kenpin.edge_runtime.look import Look
from kenpin.edge_runtime.output import Output
from kenpin.edge_runtime.outputs import make_outputs
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.part_news import PartNews
from kenpin.edge_runtime.part_watch import PartWatch
from kenpin.edge_runtime.pulse import Pulse
from kenpin.edge_runtime.readiness import CALIBRATING, CAMERA_SET, MASTERS_DUE, NOT_INSTALLED, PAUSED, Readiness
from kenpin.edge_runtime.report import Report, rss_mb
from kenpin.edge_runtime.settlement import Settlement
from kenpin.edge_runtime.site import Site, in_this_process
from kenpin.edge_runtime.source import FrameSource, Lull, Settings
from kenpin.edge_runtime.store import Store
from kenpin.edge_runtime.trigger_input import make_trigger_input
from kenpin.edge_runtime.viewfinder import Viewfinder
from kenpin.edge_runtime.vitals import Vitals
from kenpin.edge_runtime.watch import DECIDE_S, Watch
from kenpin.edge_runtime.watchman import Post, Watchman
from kenpin.errors import KenpinError
from kenpin.events import Anomaly, now_ms
from kenpin.signing import PublicKey
from kenpin.station_folder import StationFolder

DRAIN_S = 5.0
ALARMS_S = 120.0  # a longer round of the watchman hangs; each of its duties may wait for the database
BEAT_S = 0.2  # the line hears four times a second that the decision loop lives
UNSTABLE_DROPS = 3.0  # connections in a row that did not live

_HELD: Mapping[str, State] = {CALIBRATING: "CALIBRATING", PAUSED: "PAUSED"}

_log = logging.getLogger(__name__)


class Station:
    """One inspection station. A second one on the same folder is refused.

    Args:
        config: Its configuration.
        site: Where cameras and publisher run; default: in this process.
        output: Tells the line, beside what the configuration names.
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
        site: Site | None = None,
        output: Output | None = None,
        on_part: Callable[[Part], None] | None = None,
    ) -> None:
        site = site or in_this_process()
        self._on_part = on_part
        self._stopping = False
        self._is_over = False
        self._part_ns = time.monotonic_ns()
        self._told_trouble = ""
        self._told_state: tuple[State, str] = ("STARTING", "")
        self._counters = Counters()
        for path in config.station.trusted_keys:
            PublicKey.load(path)  # a key that cannot be read is found now, not at the first change of bundles
        self._folder = folder = StationFolder(config.station.state_dir)
        folder.create()
        folder.run.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as opened:
            opened.enter_context(sole_user(folder.root))
            with contextlib.suppress(OSError):  # a disk that is full; commands then do not see this station run
                folder.show_run()
            cameras = site.cameras(config, folder)
            self._identity = Identity(config.station.id, test=cameras[0].drawn)
            news = PartNews(self._identity, config.mqtt.results)
            self._store = opened.enter_context(contextlib.closing(Store(folder.database, news=news)))
            self._note_damage()
            note_config(config, folder)
            self._outputs = opened.enter_context(contextlib.closing(make_outputs(config, folder.run, output)))
            self._line = opened.enter_context(contextlib.closing(self._make_line(config, cameras)))
            self._line.open()
            self._news = site.news(config, self._identity, self._counters.snapshot)
            self._cameras = cameras
            proof = Proof(
                folder,
                config.station.trusted_keys,
                config.decide.timeout_ms,
                self._settings,
                config.engine.workspace_mb,
            )
            activation, ready = begin(proof)
            self._evidence = opened.enter_context(
                contextlib.closing(Evidence(folder.images, config.evidence, asked=folder.run / "snapshot"))
            )
            self._timeout_ms = config.decide.timeout_ms
            self._changeover = Changeover(proof, activation, ready, self._judge_with)
            opened.enter_context(contextlib.closing(self._changeover))
            self._settlement = Settlement(self._store, self._outputs, self._evidence, too_late=self._too_late)
            self._parts = PartWatch(config.decide.timeout_ms)
            self._results = config.mqtt.results
            self._watch = Watch({"decide": DECIDE_S, "alarms": ALARMS_S})
            self._watchman = opened.enter_context(contextlib.closing(Watchman(self._post(config))))
            self._viewfinder = opened.enter_context(contextlib.closing(Viewfinder(folder.run)))
            self._pulse = Pulse(folder.run, self._watch, self._vitals)
            self._opened = opened.pop_all()

    def __enter__(self) -> Station:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def _make_line(self, config: StationConfig, cameras: list[FrameSource]) -> Line:
        source = config.source
        triggers = make_trigger_input(config, self._folder.run, self._outputs.modbus)
        gap = CounterGap(
            source.counter_max,
            first=source.counter_first,
            last=self._store.last_trigger(),
            is_ours=source.trigger.startswith(("camera-line", "gpio:")),
        )
        wait_s = source.wait_ms / 1000
        cable = Cable(cameras[1:], wait_s=wait_s) if Cable.leads(config) else None
        return Line(cameras, triggers, gap, wait_s=wait_s, cable=cable)

    def _post(self, config: StationConfig) -> Post:
        return Post(
            self._folder,
            self._identity,
            self._parts,
            self._conditions,
            self._counters,
            self._equipment,
            config.store.keep_days,
            self._news.wake,
            lambda: self._watch.beat("alarms"),
            self._store.found_damaged,
            lambda: self._store.file is not None and self._news.damaged_file == self._store.file,
        )

    def _judge_with(self, ready: Readiness) -> Judge:
        """A judge of this station that works with what was found."""
        is_calibrating = ready.cause == CALIBRATING
        look = Look(
            # After a wanted change of light the old limits would keep every part from being scored.
            replace(ready, record=None) if is_calibrating else ready,
            cameras=[camera.camera for camera in self._cameras],
            live=[camera.camera for camera in self._cameras if camera.live],
        )
        image_ref = self._evidence.name_any if is_calibrating else self._evidence.name_for
        return Judge(Desk(ready, look, self._identity, self._counters, self._timeout_ms, image_ref))

    def _settings(self) -> dict[str, Settings]:
        """How each camera is set, where it says anything."""
        return {camera.camera: camera.settings for camera in self._cameras if camera.settings}

    def _too_late(self, part: Part) -> str:
        """Asked of whoever judges now: the first judge and its engine must not be kept for this."""
        return self._changeover.judge.too_late(part)

    @property
    def _ready(self) -> Readiness:
        return self._changeover.judge.ready

    @property
    def fault(self) -> str:
        """Why no part can be judged; empty when the station is ready."""
        return self._ready.fault

    def stop(self) -> None:
        """Let the part in hand be the last one; may be called from a signal handler."""
        self._stopping = True

    def run(self, *, max_parts: int | None = None, stopping: Callable[[], bool] = lambda: False) -> Report:
        """Inspect parts until the source ends, `max_parts` are done, `stop` is called or `stopping` says so.

        With a broker it can be called once: the publisher ends with it.

        Raises:
            SourceError: The source failed for good.
            StoreError: The database was removed, replaced or damaged. Start a new station.
            DeviceLost: The GPU is lost to this process; the part in hand got its verdict. Start a new one.
        """
        last_words = "shutdown"
        self._start()
        try:
            for shot in self._shots(max_parts, stopping):
                self._outputs.busy(busy=True)
                judge = self._changeover.judge
                settled = self._settlement.settle(judge.inspect(shot))
                self._outputs.busy(busy=False)
                self._count(settled)
                if judge.lost is not None:
                    raise judge.lost
                self._changeover.saw(shot, settled)
            self._changeover.end_cleanly()
        except BaseException as error:
            last_words = error.what if isinstance(error, KenpinError) else type(error).__name__
            raise
        finally:
            self._is_over = True
            self._settlement.catch_up()
            self._watchman.stop()
            self._news.stop(reason=last_words, drain_s=DRAIN_S)
            self._pulse.stop()
        return self._report()

    def _start(self) -> None:
        self._is_over = False
        self._start_ms = now_ms()
        if self._ready.fault:
            _log.warning("No part can be judged: %s", self._ready.fault)
        if self._ready.note:
            _log.warning("ONNX Runtime runs instead of TensorRT: %s", self._ready.note)
        self._news.start()
        self._come_round()
        self._watchman.start()

    def _note_damage(self) -> None:
        """Tell SCADA, by the audit, that a database was lost, and with it perhaps events that waited in it."""
        if not self._store.damage:
            return
        _log.warning("The database: %s.", self._store.damage)
        note(self._folder, Entry("database", "station", new="a fresh one", why=self._store.damage))
        self._store.damage = ""

    def _shots(self, max_parts: int | None, stopping: Callable[[], bool]) -> Iterator[Shot]:
        done = 0
        while not (self._stopping or stopping()) and (max_parts is None or done < max_parts):
            shot = self._line.next(time.monotonic() + BEAT_S)
            self._come_round()
            if shot is Lull.END:
                return
            if isinstance(shot, Lull):
                self._settlement.catch_up()
                continue
            yield shot
            done += 1

    def _come_round(self) -> None:
        """Between two parts: the decision loop lives; tell the line, the watchdog and whoever wants to know.

        Raises:
            StoreError: The database lost its name, and what was written is put back when the station closes; or
                it was damaged, and what waits goes into a fresh one.
        """
        try:
            self._store.require_file()
        finally:
            self._note_damage()
        self._changeover.come_round()
        self._watch.beat("decide")
        state, reason = self._state()
        self._outputs.beat(ready=self._can_release())
        self._news.set_state(state, reason)
        self._pulse.tick(at_once=(state, reason) != self._told_state)
        self._told_state = (state, reason)

    def _state(self) -> tuple[State, str]:
        if self._ready.fault:
            return _HELD.get(self._ready.cause, "FAULT"), self._with_build(self._ready.fault)
        trouble = self._trouble()
        if trouble != self._told_trouble:
            self._told_trouble = trouble
            if trouble:
                _log.warning("%s", trouble)
        why = self._parts.unjudged[1]
        reason = trouble or (f"no part is judged: {why}" if why else self._changeover.trouble)
        if not reason and self._ready.note:
            reason = self._with_build(self._ready.note)
        return ("DEGRADED", reason) if reason else ("RUNNING", "")

    def _trouble(self) -> str:
        """What keeps good parts from being released now, though the station could judge them."""
        if self._settlement.trouble:
            return f"parts cannot be stored: {self._settlement.trouble}"
        return self._line.down or self._line.deaf or self._outputs.trouble

    def _equipment(self) -> Equipment:
        """What the station is made of now; asked by the watchman's thread."""
        ready = self._ready
        return Equipment(
            model=ready.model,
            record=ready.record,
            cameras=[camera.camera for camera in self._cameras],
            alarms=[alarm.key for alarm in CATALOGUE],
            results=self._results,
        )

    def _conditions(self) -> dict[str, float | None]:
        """What needs an operator, by key of the alarm; asked by the watchman's thread."""
        ready = self._ready
        unjudged = self._parts.unjudged[0]
        has_no_engine = ready.engine is None and ready.cause != NOT_INSTALLED
        has_no_thresholds = bool(ready.engine and ready.fault and ready.cause == "not_ready")
        return {
            "camera_lost": float(bool(self._line.down) or unjudged == "source"),
            "line_lost": float(bool(self._line.deaf or self._outputs.trouble)),
            "engine_integrity": float(has_no_engine or unjudged in ("engine", "score")),
            "model_unapproved": float(has_no_thresholds or ready.cause == NOT_INSTALLED),
            "calibration_expired": float(ready.cause == CAMERA_SET),
            "masters_due": float(ready.cause == MASTERS_DUE),
            "comms_unstable": UNSTABLE_DROPS if self._news.is_unstable else 0.0,
            "comms_denied": self._news.is_denied,
        }

    def _can_release(self) -> bool:
        return not self._ready.fault and not self._trouble()

    def _count(self, inspection: Inspection) -> None:
        part, decision = inspection.part, inspection.part.decision
        self._part_ns = time.monotonic_ns()
        self._counters.add(decision, has_event=inspection.event is not None)
        if decision.scored is not None:
            self._counters.add_times(latency_ms=part.latency_ms, infer_ms=part.infer_ms)
        if inspection.event is not None:
            self._news.wake()
        self._viewfinder.offer(inspection)
        self._parts.saw(part)
        if self._on_part is not None:
            self._on_part(part)

    def _with_build(self, reason: str) -> str:
        told = self._changeover.told
        return f"{reason}; {told}" if told else reason

    def _vitals(self) -> Vitals:
        now = self._counters.snapshot()
        state, reason = self._state()
        model = self._ready.model
        return Vitals(
            role="station",
            pid=os.getpid(),
            session_id=self._identity.session_id,
            state="STOPPED" if self._is_over else state,
            reason=reason,
            beats=self._watch.beats(),
            numbers={
                **now.numbers(),
                **self._settlement.numbers(),
                **self._changeover.numbers(),
                "resident_bytes": rss_mb() * 1e6,
                "ready": self._can_release(),
                "frame_age_seconds": (time.monotonic_ns() - self._part_ns) / 1e9,
                "evidence_bytes": self._evidence.bytes,
                'dropped_total{stage="evidence",reason="full"}': self._evidence.dropped,
                **self._changeover.judge.look.findings(),
                "queue_depth": self._line.waiting,
                **self._line.numbers(),
            },
            texts={
                "reasons": json.dumps(now.reasons),
                "cameras": json.dumps({name: dict(settings) for name, settings in self._settings().items()}),
                "test": str(int(self._identity.test)),
                "precision": model.precision if model else "",
                "model": model.name if model else "",
                "bundle_sha256": model.bundle_sha256 if model else "",
            },
        )

    def _report(self) -> Report:
        engine = self._ready.engine
        return Report(
            self._counters.snapshot(),
            self._store.acked_since(self._start_ms, Anomaly.topic),
            self._store.depth(),
            engine.precision if engine is not None else "",
            self._identity.session_id,
            rss_mb(),
        )
