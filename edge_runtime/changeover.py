"""The changeover: from one bundle to the next while the line runs, and back by itself if the new one fails.

wanted -> loaded and proven beside the old one -> taken between two parts -> on trial -> good, or back
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from kenpin.activation import Activation, change_activation, read_activation
from kenpin.bundle import open_bundle
from kenpin.edge_runtime.candidate import Candidate, Proof
from kenpin.edge_runtime.inspection import Inspection, Judge
from kenpin.edge_runtime.line import Shot
from kenpin.edge_runtime.readiness import Readiness, check_readiness
from kenpin.edge_runtime.shadow import Shadow
from kenpin.errors import KenpinError
from kenpin.signing import PublicKey
from kenpin.station_folder import StationFolder

TRIAL_PARTS, TRIAL_S = 200, 900.0
STARTS = 3  # a bundle with which the station ends so often in its trial is given up
FAULTS = 3  # so is one with which so many parts got no decision
_BLAMED = ("engine", "score", "not_ready", "deadline")  # causes that the bundle answers for; a camera's are not

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
    trusted = [PublicKey.load(path) for path in proof.trusted]
    return check_readiness(proof.folder, trusted, activation.current or None)


def _change(folder: StationFolder, step: Callable[[Activation], Activation]) -> Activation:
    """Change what is in force; on a disk that takes nothing it is in force for this process only."""
    before = read_activation(folder)
    try:
        after = change_activation(folder, step)
    except OSError as error:
        _log.warning("The activation cannot be written: %s", error)
        after = step(before)
    if after.reason and after.reason != before.reason:
        _log.warning("The bundle %s was given up: %s", after.left[:16], after.reason)
    return after


class Changeover:
    """Keeps the judge that decides, and changes it between parts.

    Args:
        proof: What a bundle is held to.
        activation: What is in force, from `begin`.
        judge: The judge of the bundle in force.
        make_judge: Makes the judge of another one.

    Attributes:
        judge: Who decides on the next part.
        shadow: Who judges too, but decides nothing; `None` without.
    """

    def __init__(
        self, proof: Proof, activation: Activation, judge: Judge, make_judge: Callable[[Readiness], Judge]
    ) -> None:
        self.judge = judge
        self.shadow: Shadow | None = None
        self._proof = proof
        self._activation = activation
        self._make_judge = make_judge
        self._before: Judge | None = None  # stays loaded in the trial: going back takes no time
        self._candidate: Candidate | None = None
        self._seen_ns = 0
        self._begin_trial()

    def come_round(self) -> None:
        """Between two parts: do what is wanted and can be done at once."""
        self._follow()
        if self._candidate is not None and self._candidate.ready is not None:
            self._use(self._candidate, self._candidate.ready)
        if self._activation.state == "trial" and time.monotonic() > self._trial_by_s and self._parts:
            self._prove()

    def saw(self, shot: Shot, inspection: Inspection) -> None:
        """A part is settled."""
        if self.shadow is not None:
            self.shadow.offer(shot, inspection)
        if self._activation.state != "trial":
            return
        decision = inspection.part.decision
        if decision.cause in _BLAMED:
            self._faults.append(decision.reason)
            if len(self._faults) >= FAULTS:
                self._go_back(f"{FAULTS} parts got no decision, the last one because: {decision.reason}")
        elif decision.scored is not None:
            self._parts += 1
            if self._parts >= TRIAL_PARTS:
                self._prove()

    def end_cleanly(self) -> None:
        """The station ends on purpose: that says nothing about a bundle on trial."""
        if self._activation.state == "trial":
            _change(self._proof.folder, Activation.ended_cleanly)

    def close(self) -> None:
        """Give back the engines."""
        self._drop_candidate()
        for judge in (self._before, self.judge):
            _close(judge)

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

    def _follow(self) -> None:
        """See what the command line has written."""
        try:
            written_ns = self._proof.folder.activation.stat().st_mtime_ns
        except OSError:
            return
        if written_ns == self._seen_ns:
            return
        self._seen_ns = written_ns
        now = read_activation(self._proof.folder)
        # What runs is this process's matter; the file may be behind, after a disk that took nothing.
        self._activation = self._activation.wanting(now.candidate, now.task)
        if self._candidate is not None and self._candidate.sha256 != now.candidate:
            self._drop_candidate()
        if now.task != "shadow":
            self._end_shadow()
        if self._candidate is None and now.candidate not in ("", self._activation.current):
            self._candidate = Candidate(now.candidate, self._proof)

    def _use(self, candidate: Candidate, ready: Readiness) -> None:
        if ready.fault:
            self._drop_candidate()
            self._activation = _change(self._proof.folder, lambda was: was.refused(ready.fault))
        elif self._activation.task == "shadow" and self.shadow is None:
            self.shadow = Shadow(self._make_judge(ready), self._proof.folder.shadow)
        elif self._activation.task == "activate" and self._activation.state != "trial":
            self._take(candidate, ready)

    def _take(self, candidate: Candidate, ready: Readiness) -> None:
        """The candidate decides from the next part on."""
        trusted = [PublicKey.load(path) for path in self._proof.trusted]
        try:
            manifest = open_bundle(self._proof.folder.bundles / candidate.sha256, trusted).manifest
            self._activation = change_activation(
                self._proof.folder,
                lambda was: was.running(candidate.sha256, manifest, on_trial=bool(was.current)),
            )
        except (KenpinError, OSError) as error:
            self._drop_candidate()
            reason = f"it could not be activated: {error}"
            self._activation = _change(self._proof.folder, lambda was: was.refused(reason))
            return
        self._candidate = None
        self._before, self.judge = self.judge, self._make_judge(ready)
        _log.warning("The bundle %s decides from here on, on trial.", candidate.sha256[:16])
        self._begin_trial()

    def _begin_trial(self) -> None:
        self._parts = 0
        self._faults: list[str] = []
        self._trial_by_s = time.monotonic() + TRIAL_S

    def _prove(self) -> None:
        self._activation = _change(self._proof.folder, Activation.proven)
        _close(self._before)
        self._before = None
        _log.warning("The bundle %s has passed its trial.", self._activation.current[:16])

    def _go_back(self, reason: str) -> None:
        failed = self.judge
        self._activation = _change(self._proof.folder, lambda was: was.gone_back(reason))
        self.judge = self._before or self._make_judge(_ready(self._proof, self._activation))
        self._before = None
        _close(failed)

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


def _close(judge: Judge | None) -> None:
    if judge is not None and judge.ready.engine is not None:
        judge.ready.engine.close()
