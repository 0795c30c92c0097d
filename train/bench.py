"""Recipes compared on sets over seeds: the trials are run, and their results kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path

import torch

from kenpin.errors import ConfigError, TrainError
from kenpin.picture_files import sha256_of
from kenpin.synced_file import replace_synced
from kenpin.train.bench_set import BATCH, check_measurable, read_set
from kenpin.train.outcome import Job, Outcome, as_json
from kenpin.train.recipe import RECIPES
from kenpin.train.trial import UNTRAINED, Setting, run_trial

# Goes up when a result says or means something else than before.
FORM = 3


@dataclass(frozen=True)
class Bench:
    """What all trials of a benchmark have in common.

    Attributes:
        steps: Compute of each, in steps of the coarse level.
        side: Side of the pictures.
        results: Folder of results; a trial whose result is there is not run again.
        device: cpu or cuda.
        init: File of initial weights; random ones without.
    """

    steps: int
    side: int
    results: Path
    device: str = "cpu"
    init: Path | None = None

    def run(self, jobs: Sequence[Job], *, workers: int, done: Callable[[Job], None]) -> list[Outcome]:
        """Run jobs, in processes of one thread each.

        Args:
            jobs: What to run.
            workers: How many at a time.
            done: Called after each.

        Raises:
            ConfigError: The folder holds results of another setting, or of other pictures.
            DataError: A set cannot be measured on.
            TrainError: A trial was killed, or its result cannot be written.
        """
        missing = self.missing(jobs)
        self._check_pictures(jobs)
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
            try:
                running = {pool.submit(self._one, job): job for job in missing}
                for future in as_completed(running):
                    future.result()
                    done(running[future])
            except BrokenProcessPool:
                raise TrainError(
                    "a trial was killed, mostly for want of memory",
                    where=self.results,
                    cure="give the same command with fewer --workers: it goes on with what is missing",
                ) from None
            except BaseException:
                # Who stops, or has a trial that failed, shall not wait for all the others.
                pool.shutdown(wait=False, cancel_futures=True)
                for child in active_children():
                    child.terminate()
                    child.join()
                raise
        return [Outcome.read(self.results / job.file_name, job) for job in jobs]

    def missing(self, jobs: Sequence[Job]) -> list[Job]:
        """Those that have no result yet, or one without the curve that is wanted.

        Raises:
            ConfigError: The folder holds results of another setting.
        """
        self._claim()
        return [job for job in jobs if not (kept := self._kept(job)) or (job.curve and not kept.curve)]

    def _kept(self, job: Job) -> Outcome | None:
        path = self.results / job.file_name
        return Outcome.read(path, job) if path.exists() else None

    def _check_pictures(self, jobs: Sequence[Job]) -> None:
        """Refuse sets that tell nothing, and pictures other than those of the results that are kept."""
        for name in dict.fromkeys(job.set_name for job in jobs):
            data = read_set(name, side=self.side)
            check_measurable(data, where=name)
            kept = [self._kept(job) for job in jobs if job.set_name == name]
            if any(found and found.pictures != data.fingerprint for found in kept):
                raise ConfigError(
                    f"the folder holds results of other pictures of {name}, or of other labels or groups",
                    where=self.results,
                    cure="give another --results, or put the pictures back as they were",
                )

    def _claim(self) -> None:
        """Start the folder of results, or refuse one whose trials were run otherwise."""
        self.results.mkdir(parents=True, exist_ok=True)
        path = self.results / "setting.json"
        setting = {
            "form": FORM,
            "steps": self.steps,
            "side": self.side,
            "batch": BATCH,
            "device": self.device,
            "init": sha256_of(self.init) if self.init else "",
        }
        if not path.exists():
            self._write(path.name, setting)
        elif path.read_text() != json.dumps(setting):
            raise ConfigError(
                f"the folder holds results of another setting: {path.read_text()}",
                where=self.results,
                cure="give another --results, or the same --steps, --size, --device and --init; "
                f"results without form {FORM} are of another kenpin and cannot be read",
            )

    def _one(self, job: Job) -> None:
        whole = read_set(job.set_name, side=self.side)
        data = whole.with_few(job.pictures, draw=job.seed) if job.pictures else whole
        recipe = RECIPES.get(job.recipe, RECIPES["hierarchical"])
        steps = 0 if job.recipe == UNTRAINED else self.steps
        schedule = data.schedule(steps, seed=job.seed, recipe=recipe)
        trial = run_trial(data, Setting(schedule, curve=job.curve, device=self.device, init=self.init))
        self._write(job.file_name, as_json(trial, whole))

    def _write(self, name: str, content: object) -> None:
        path = self.results / name
        try:
            replace_synced(path, json.dumps(content).encode())
        except OSError as error:
            raise TrainError(
                f"cannot write: {error.strerror}",
                where=path,
                cure="make room, then give the same command again: it goes on with what is missing",
            ) from None


def _one_thread() -> None:
    torch.set_num_threads(1)


def jobs_of(
    sets: Sequence[str], recipes: Sequence[str], *, seeds: int, curves: Sequence[str] = ()
) -> list[Job]:
    """Every recipe on every set with every seed, seeds outermost so that a broken-off run is of use."""
    return [
        Job(name, recipe, seed, curve=recipe in curves)
        for seed in range(seeds)
        for name in sets
        for recipe in recipes
    ]
