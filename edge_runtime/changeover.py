"""The changeover: from one bundle to the next while the line runs, and back by itself if the new one fails.

wanted -> loaded and proven beside the old one -> taken between two parts -> on trial -> good, or back
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from kenpin.activation import Activation, Task, change_activation, read_activation, refuse_older
from kenpin.audit import Entry
from kenpin.bundle import open_bundle
from kenpin.calibrating import read_calibrating
from kenpin.config import MOST_CAMERAS
from kenpin.edge_runtime.audit_note import note
from kenpin.edge_runtime.candidate import Candidate, Proof
from kenpin.edge_runtime.file_stamp import file_stamp
from kenpin.edge_runtime.inspection import Inspection, Judge
from kenpin.edge_runtime.line import Shot
from kenpin.edge_runtime.masters_clock import MastersClock
from kenpin.edge_runtime.readiness import Readiness, check_readiness, with_holds, with_record
from kenpin.edge_runtime.shadow import Shadow
from kenpin.edge_runtime.trial import Trial
from kenpin.errors import KenpinError, reason_and_file
from kenpin.frame import Frame
from kenpin.masters import masters_file
from kenpin.station_folder import StationFolder

STARTS = 3  # a bundle with which the station ends so often in its trial is given up
_DUE_EVERY_S = 10.0

_log = logging.getLogger(__name__)


def begin(proof: Proof) -> tuple[Activation, Readiness]:
    """Load what a station is to run at its start; a bundle on trial that cannot run is given up.

    Args:
        proof: The station's folder and the keys it trusts.
    """
    activation = _change(proof.folder, _counted)
    ready = _ready(proof, activation)
    if ready.fault and activation.state == "trial":
        activation = _change(proof.folder, lambda was: was.gone_back(ready.fault))
        ready = _ready(proof, activation)
    return activation, ready


def _counted(was: Activation) -> Activation:
    if was.state != "trial":
        return was
    if was.starts >= STARTS:
        return was.gone_back(f"the station ended {was.starts} times in its trial")
    return was.started()


def _ready(proof: Proof, activation: Activation) -> Readiness:
    return check_readiness(proof.folder, proof.keys(), activation.current or None)


def _change(folder: StationFolder, step: Callable[[Activation], Activation]) -> Activation:
    """Change what is in force; on a disk that takes nothing it is in force for this process only."""
    before = read_activation(folder)
    try:
        after = change_activation(folder, step)
    except OSError as error:
        _log.warning("The activation cannot be written: %s", reason_and_file(error))
        after = step(before)
    if after.reason and after.reason != before.reason:
        _log.warning("The bundle %s was given up: %s", after.left[:16], after.reason)
    if (after.current, after.state, after.left) != (before.current, before.state, before.left):
        _note(folder, before, after)
    return after


def _note(folder: StationFolder, before: Activation, after: Activation) -> None:
    """Write it to the audit."""
    old, new = (f"{a.current[:16]} {a.state}" for a in (before, after))
    why = f"{after.left[:16]} was given up: {after.reason}" if after.left != before.left else ""
    note(folder, Entry("bundle", "station", old=old, new=new, why=why))


class Changeover:
    """Keeps the judge that decides, and changes it between parts.

    Args:
        proof: What a bundle is held to.
        activation: What is in force, from `begin`.
        ready: What was found of it.
        make_judge: Makes the judge that works with what was found.

    Attributes:
        judge: Who decides on the next part.
        shadow: Who judges too, but decides nothing; `None` without.
        trouble: Why it is not known what is wanted, with the cure; empty where it is.
    """

    def __init__(
        self, proof: Proof, activation: Activation, ready: Readiness, make_judge: Callable[[Readiness], Judge]
    ) -> None:
        self.shadow: Shadow | None = None
        self.trouble = ""
        self._proof = proof
        self._activation = activation
        self._make_judge = make_judge
        self._ready = ready  # apart from the note that somebody calibrates
        self._before: Readiness | None = None  # stays loaded in the trial: going back takes no time
        self._candidate: Candidate | None = None
        self._sizes: set[tuple[int, int]] = set()  # of the frames so far
        self._seen: tuple[tuple[int, ...], ...] = ()
        self._due_s = 0.0
        self._cameras = proof.cameras()
        self._masters = MastersClock(proof.folder)
        self._trial = Trial()
        self.judge = self._judge()
        if ready.build is not None:
            self._candidate = Candidate(activation.current, proof, self._sizes)

    def come_round(self) -> None:
        """Between two parts: do what is wanted and can be done at once."""
        self._follow()
        self._look_at_cameras()
        candidate = self._candidate
        if candidate is not None and candidate.ready is not None and not self._is_awaited(candidate):
            self._use(candidate, candidate.ready)
        self._look_at_trial()

    def saw(self, shot: Shot, inspection: Inspection) -> None:
        """A part is settled."""
        for view in shot.views:
            # Cameras have one each; a folder of pictures may have any number.
            if isinstance(view, Frame) and len(self._sizes) < MOST_CAMERAS:
                self._sizes.add((view.image.shape[0], view.image.shape[1]))
        if self.shadow is not None:
            self.shadow.offer(shot, inspection)
        if self._activation.state == "trial":
            self._trial.saw(inspection.part.decision)
            self._look_at_trial()

    def _look_at_trial(self) -> None:
        if self._activation.state != "trial":
            return
        if failure := self._trial.failure:
            self._go_back(failure)
        elif self._trial.is_passed:
            self._prove()

    def end_cleanly(self) -> None:
        """The station ends on purpose: that says nothing about a bundle on trial."""
        if self._activation.state == "trial":
            _change(self._proof.folder, Activation.ended_cleanly)

    def close(self) -> None:
        """Give back the engines."""
        self._drop_candidate()
        if self._before is not None:
            self._before.close()
        self._ready.close()

    def numbers(self) -> dict[str, float]:
        """What it tells others."""
        told: dict[str, float] = {"bundle_on_trial": self._activation.state == "trial"}
        if self.shadow is not None:
            told |= {
                "shadow_parts_total": self.shadow.parts,
                "shadow_disagreements_total": self.shadow.disagreements,
                'dropped_total{stage="shadow",reason="busy"}': self.shadow.dropped,
            }
        return told

    @property
    def told(self) -> str:
        """How the building of an engine goes, for a person; empty where none is built."""
        return self._candidate.told if self._candidate is not None else ""

    def _judge(self) -> Judge:
        return self._make_judge(self._held())

    def _held(self) -> Readiness:
        return with_holds(self._ready, self._proof.folder, self._cameras, self._masters)

    def _is_awaited(self, candidate: Candidate) -> bool:
        """Whether another bundle waits: what is shown to calibrate or to check is scored by one to the end."""
        is_other = candidate.sha256 != self._activation.current and self._ready.engine is not None
        return is_other and read_calibrating(self._proof.folder) is not None

    def _follow(self) -> None:
        """See what the command line and the page have written."""
        folder = self._proof.folder
        paths = (folder.activation, folder.records, folder.calibrating, folder.paused, masters_file(folder))
        seen = tuple(file_stamp(path) for path in paths)
        if seen == self._seen:
            self._look_at_the_clock()
            return
        if self._seen[1:] != seen[1:]:
            self._ready = self._by_newest_record(self._ready)
            self.judge = self._judge()
            if self.shadow is not None:
                self.shadow.judge = self._make_judge(self._by_newest_record(self.shadow.judge.ready))
        self._seen = seen
        now = read_activation(folder)
        if now.trouble not in ("", self.trouble):
            _log.warning("It is not known which bundle is to follow: %s", now.trouble)
        self.trouble = now.trouble
        # What runs is this process's matter; the file may be behind, after a disk that took nothing.
        self._activation = self._activation.wanting(now.candidate, now.task)
        if self._ready.calibrated is None:
            self._activation = now  # there may be a first bundle now, or another one in its place
        if self._is_wanted_back(now) and read_calibrating(folder) is None:
            self._go_back("the one before was wanted again")
        self._get(now.candidate, now.task)

    def _is_wanted_back(self, now: Activation) -> bool:
        """Whether a person who saw the trial wants the one before: that must not wait for the trial's end."""
        is_asked = now.task == "activate" and now.candidate != ""
        return is_asked and self._activation.state == "trial" and now.candidate == self._activation.previous

    def _look_at_the_clock(self) -> None:
        """Masters come due by themselves."""
        if time.monotonic() < self._due_s:
            return
        self._due_s = time.monotonic() + _DUE_EVERY_S
        held = self._held()
        if held.fault != self.judge.ready.fault:
            self.judge = self._make_judge(held)

    def _look_at_cameras(self) -> None:
        """The thresholds hold for the pictures of cameras that are set as at the sign-off."""
        cameras = self._proof.cameras()
        if cameras != self._cameras:
            self._cameras = cameras
            self.judge = self._judge()

    def _get(self, wanted: str, task: Task) -> None:
        """Load what is wanted, where it is not what is loaded already."""
        if task != "shadow":
            self._end_shadow()
        current = self._activation.current
        if wanted in ("", current) and self._needs_other_engine():
            wanted = current
        elif wanted == current:
            wanted = ""
        if self._candidate is not None and self._candidate.sha256 != (wanted or current):
            self._drop_candidate()
        if self._candidate is None and wanted:
            self._candidate = Candidate(wanted, self._proof, self._sizes)

    def _needs_other_engine(self) -> bool:
        """Whether that of the active bundle is not loaded, or another model of it is calibrated."""
        model, record = self._ready.model, self._ready.calibrated
        if model is None or model.bundle_sha256 != self._activation.current:
            return True
        return record is not None and record.precision != model.precision

    def _use(self, candidate: Candidate, ready: Readiness) -> None:
        refusal = candidate.unfit or ready.fault
        if candidate.sha256 == self._activation.current:
            self._renew(candidate.unfit, ready)
        elif refusal:
            self._drop_candidate()
            self._activation = _change(self._proof.folder, lambda was: was.refused(refusal))
        elif self._activation.task == "shadow" and self.shadow is None:
            judge = self._make_judge(self._by_newest_record(ready))
            self.shadow = Shadow(judge, self._proof.folder.shadow)
        elif self._activation.task == "activate" and self._activation.state != "trial":
            self._take(candidate, self._by_newest_record(ready))

    def _by_newest_record(self, ready: Readiness) -> Readiness:
        """Thresholds may have been signed since it was loaded, or while another one decided."""
        return with_record(ready, self._proof.folder)

    def _renew(self, unfit: str, ready: Readiness) -> None:
        """The same bundle, by another engine: one that was built meanwhile, or of another precision."""
        if unfit or ready.engine is None:
            _log.warning("The engine stays as it is: %s", unfit)
            self._drop_candidate()
            if self._ready.engine is None:
                self._ready = replace(self._ready, fault=unfit)
            else:
                self._ready = replace(self._ready, note=unfit)
            self.judge = self._judge()
            return
        self._candidate = None
        old, self._ready = self._ready, self._by_newest_record(ready)
        self.judge = self._judge()
        old.close()
        _log.warning("The %s engine on %s decides from here on.", ready.engine.precision, ready.engine.runtime)

    def _take(self, candidate: Candidate, ready: Readiness) -> None:
        """The candidate decides from the next part on."""
        keys = self._proof.keys()
        try:
            manifest = open_bundle(self._proof.folder.bundles / candidate.sha256, keys).manifest
            before = self._activation
            # Once more, as whoever wants it by a signed command has not asked.
            refuse_older(read_activation(self._proof.folder), manifest, is_kept=True)
            self._activation = change_activation(
                self._proof.folder,
                lambda was: was.running(candidate.sha256, manifest, on_trial=bool(was.current)),
            )
            _note(self._proof.folder, before, self._activation)
        except (KenpinError, OSError) as error:
            self._drop_candidate()
            reason = f"it could not be activated: {reason_and_file(error)}"
            self._activation = _change(self._proof.folder, lambda was: was.refused(reason))
            return
        self._candidate = None
        self._before, self._ready = self._ready, ready
        self.judge = self._judge()
        _log.warning("The bundle %s decides from here on, on trial.", candidate.sha256[:16])
        self._trial = Trial()

    def _prove(self) -> None:
        self._activation = _change(self._proof.folder, Activation.proven)
        if self._before is not None:
            self._before.close()
        self._before = None
        _log.warning("The bundle %s has passed its trial.", self._activation.current[:16])

    def _go_back(self, reason: str) -> None:
        failed = self._ready
        self._activation = _change(self._proof.folder, lambda was: was.gone_back(reason))
        before = self._before
        self._ready = self._by_newest_record(before) if before else _ready(self._proof, self._activation)
        self._before = None
        self.judge = self._judge()
        failed.close()

    def _drop_candidate(self) -> None:
        self._end_shadow()
        if self._candidate is not None:
            # Ending a build takes seconds, which the line does not have.
            threading.Thread(target=self._candidate.close, name="candidate's end").start()
            self._candidate = None

    def _end_shadow(self) -> None:
        if self.shadow is not None:
            self.shadow.close()
            self.shadow = None
