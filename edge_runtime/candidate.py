"""A candidate: a bundle that is loaded and proven beside the one that runs, without disturbing it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kenpin.bundle import open_bundle
from kenpin.config import WORKSPACE_MB
from kenpin.edge_runtime.background_build import BackgroundBuild
from kenpin.edge_runtime.engine import Engine
from kenpin.edge_runtime.readiness import Readiness, check_readiness
from kenpin.edge_runtime.source import Settings
from kenpin.errors import KenpinError
from kenpin.frame import Image, decode_picture
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
        workspace_mb: Most memory for a layer's scratch while its engine is built.
    """

    folder: StationFolder
    trusted: Sequence[Path]
    limit_ms: float
    cameras: Callable[[], Mapping[str, Settings]] = dict
    workspace_mb: int = WORKSPACE_MB

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
        sizes: Height and width of the frames that the line has shown so far; it may grow meanwhile.

    Attributes:
        sha256: The same.
        ready: What was found; its `fault` says what a part could not be judged for. `None` until it is done.
        unfit: Why its engine may not run, in words; empty where it may, calibrated or not.
    """

    def __init__(self, sha256: str, proof: Proof, sizes: Collection[tuple[int, int]] = ()) -> None:
        self.sha256 = sha256
        self.ready: Readiness | None = None
        self.unfit = ""
        self._proof = proof
        self._sizes = sizes
        self._build: BackgroundBuild | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="candidate", daemon=True)
        self._thread.start()

    @property
    def told(self) -> str:
        """How the building of its engine goes, for a person; empty where none is built."""
        return self._build.told if self._build is not None else ""

    def close(self) -> None:
        """Give back what it holds. Not to be called once its engine is in use."""
        self._closed.set()
        if self._build is not None:
            self._build.close()
        self._thread.join()
        if self.ready is not None:
            self.ready.close()

    def _run(self) -> None:
        try:
            ready = self._load()
        except Exception as error:
            _log.exception("The bundle %s could not be loaded.", self.sha256[:16])
            self.unfit = f"internal error: {type(error).__name__}: {error}"
            ready = Readiness(fault=self.unfit)
        self.ready = ready

    def _load(self) -> Readiness:
        ready = self._check()
        if ready.build is not None and not self._closed.is_set():
            ready.close()
            self._build = BackgroundBuild(
                self._proof.folder,
                ready.build,
                self._proof.trusted,
                self._proof.folder.bundles / self.sha256,
                self._proof.workspace_mb,
            )
            if self._closed.is_set():  # meanwhile; nobody else would end it
                self._build.close()
            self._build.wait()
            ready = self._check()
        self.unfit = ready.fault if ready.engine is None else ready.note or self._test(ready.engine)
        return ready

    def _check(self) -> Readiness:
        return check_readiness(self._proof.folder, self._proof.keys(), self.sha256)

    def _test(self, engine: Engine) -> str:
        """Why the engine may not run, in words. That it is the exported model was proven when it was loaded."""
        frames = list(self._frames(engine))
        runs, times_ms = [], []
        for _ in range(_RUNS):
            scores = []
            for what, frame in frames:
                started_s = time.perf_counter()
                try:
                    scores.append(engine.score(frame).score)
                except KenpinError as error:
                    return f"the engine fails on {what}: {error.what}"
                times_ms.append((time.perf_counter() - started_s) * 1000)
            runs.append(scores)
        if any(run != runs[0] for run in runs):
            return "the engine gives other scores for the same frames each time"
        # The first run of an engine may take longer: it is no measure.
        slowest = max(times_ms[len(frames) :])
        if slowest > self._proof.limit_ms:
            allowed = f"a verdict may take {self._proof.limit_ms:g} ms"
            return f"the engine takes {slowest:.0f} ms for a frame, {allowed}"
        return ""

    def _frames(self, engine: Engine) -> Iterator[tuple[str, Image]]:
        """Golden frames, which have the model's size, and noise of the sizes that it will be shown."""
        bundle = open_bundle(self._proof.folder.bundles / self.sha256, self._proof.keys())
        for golden in bundle.manifest.golden:
            yield "a golden frame", decode_picture(bundle.files[golden.file], where=golden.file)
        roi = engine.sight.view.roi if engine.sight is not None else None
        for height, width in [(roi.height, roi.width)] if roi is not None else tuple(self._sizes):
            # Black would stay black however it is brought to the model's size.
            noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
            yield f"a frame of {width} x {height} pixels", noise
