"""A candidate: a bundle that is loaded and proven beside the one that runs, without disturbing it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kenpin.bundle import open_bundle
from kenpin.edge_runtime.background_build import BackgroundBuild
from kenpin.edge_runtime.engine import Engine
from kenpin.edge_runtime.readiness import Readiness, check_readiness
from kenpin.edge_runtime.source import Settings
from kenpin.errors import KenpinError
from kenpin.frame import decode_picture
from kenpin.signing import PublicKey
from kenpin.station_folder import StationFolder

_RUNS = 3
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Proof:
    """What a candidate is held to.

    Attributes:
        folder: The station's folder.
        trusted: Files of the keys whose bundles may run.
        limit_ms: The engine may not take longer for a frame, as its verdicts would come too late.
        cameras: Tells how each camera is set now, by its name.
    """

    folder: StationFolder
    trusted: Sequence[Path]
    limit_ms: float
    cameras: Callable[[], Mapping[str, Settings]] = dict

    def keys(self) -> list[PublicKey]:
        """The keys themselves.

        Raises:
            ConfigError: One cannot be read.
        """
        return [PublicKey.load(path) for path in self.trusted]


class Candidate:
    """Loads a bundle in a thread, and builds its TensorRT engine where it lacks one.

    Args:
        sha256: The installed bundle.
        proof: What it is held to.

    Attributes:
        sha256: The same.
        ready: What was found; its `fault` says why the bundle cannot follow. `None` until it is done.
    """

    def __init__(self, sha256: str, proof: Proof) -> None:
        self.sha256 = sha256
        self.ready: Readiness | None = None
        self._proof = proof
        self._build: BackgroundBuild | None = None
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="candidate", daemon=True)
        self._thread.start()

    @property
    def told(self) -> str:
        """How the building of its engine goes, for a person; empty where none is built."""
        return self._build.told if self._build is not None else ""

    def close(self) -> None:
        """Give back what it holds. Not to be called once its engine is in use."""
        self._is_closed = True
        if self._build is not None:
            self._build.close()
        self._thread.join()
        if self.ready is not None and self.ready.engine is not None:
            self.ready.engine.close()

    def _run(self) -> None:
        try:
            ready = self._load()
        except Exception as error:
            _log.exception("The bundle %s could not be loaded.", self.sha256[:16])
            ready = Readiness(fault=f"internal error: {type(error).__name__}: {error}")
        self.ready = ready

    def _load(self) -> Readiness:
        ready = self._check()
        if ready.build is not None and not self._is_closed:
            if ready.engine is not None:
                ready.engine.close()
            self._build = BackgroundBuild(
                self._proof.folder, ready.build, self._proof.trusted, self._proof.folder.bundles / self.sha256
            )
            self._build.wait()
            ready = self._check()
        if ready.engine is None or ready.fault:
            return ready
        fault = ready.note or self._test(ready.engine)
        return replace(ready, fault=fault) if fault else ready

    def _check(self) -> Readiness:
        return check_readiness(self._proof.folder, self._proof.keys(), self.sha256)

    def _test(self, engine: Engine) -> str:
        """Why the engine may not run, in words. That it is the exported model was proven when it was loaded."""
        bundle = open_bundle(self._proof.folder.bundles / self.sha256, self._proof.keys())
        files = [golden.file for golden in bundle.manifest.golden]
        frames = [decode_picture(bundle.files[name], where=name) for name in files]
        runs, times_ms = [], []
        for _ in range(_RUNS):
            scores = []
            for frame in frames:
                started_s = time.perf_counter()
                try:
                    scores.append(engine.score(frame).score)
                except KenpinError as error:
                    return f"the engine fails on a golden frame: {error.what}"
                times_ms.append((time.perf_counter() - started_s) * 1000)
            runs.append(scores)
        if any(run != runs[0] for run in runs):
            return "the engine gives other scores for the same frames each time"
        # The first run of an engine may take longer: it is no measure.
        slowest = sorted(times_ms[len(frames) :])[-1]
        if slowest > self._proof.limit_ms:
            allowed = f"a verdict may take {self._proof.limit_ms:g} ms"
            return f"the engine takes {slowest:.0f} ms for a frame, {allowed}"
        return ""
