"""Recipes compared on sets over seeds: the trials, and what is concluded from them."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from kenpin.commit import git_commit
from kenpin.errors import ConfigError, TrainError
from kenpin.picture_files import sha256_of
from kenpin.synced_file import replace_synced
from kenpin.synthetic import PRODUCTS
from kenpin.train.bench_set import BenchSet, check_measurable, read_set
from kenpin.train.metrics import Floats, Interval, auroc, escapes_at, hierarchical_interval, seconds_to
from kenpin.train.recipe import RECIPES
from kenpin.train.training import Allotment, Schedule
from kenpin.train.trial import UNTRAINED, Setting, Trial, run_trial

# Goes up when a result says or means something else than before.
FORM = 3
_RESAMPLES = 300


@dataclass(frozen=True)
class Job:
    """One trial to be run.

    Attributes:
        set_name: Path of a folder of real parts, or a drawn product.
        recipe: Name of a recipe, or UNTRAINED.
        seed: Seed of the training; of the draw, too, where pictures are few.
        curve: Whether to measure on the way.
        pictures: Good pictures to learn from; 0 is all.
    """

    set_name: str
    recipe: str
    seed: int
    curve: bool = False
    pictures: int = 0

    @property
    def file_name(self) -> str:
        """Where its result is kept: a/tiles and b/tiles have results of their own."""
        recipe = "".join(c if c.isalnum() else "-" for c in self.recipe)
        return f"{self._set}_{recipe}_{self.pictures or 'all'}_{self.seed}.json"

    @property
    def _set(self) -> str:
        if self.set_name in PRODUCTS:
            return self.set_name
        path = Path(self.set_name).resolve()
        return f"{path.name}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"


@dataclass(frozen=True)
class Bench:
    """What all trials of a benchmark have in common.

    Attributes:
        steps: Compute of each, in steps of the coarse level.
        side: Side of the pictures.
        results: Folder of results; a trial whose result is there is not run again.
        batch: Pictures per step.
        device: cpu or cuda.
        init: File of initial weights; random ones without.
    """

    steps: int
    side: int
    results: Path
    batch: int = 24
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
            running = {pool.submit(self._one, job): job for job in missing}
            try:
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
                pool.shutdown(wait=False, cancel_futures=True)  # what failed is told now, not after all others
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
            "batch": self.batch,
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
        batch = min(self.batch, len(data.fit))
        # The same compute for few pictures as for many, so fewer a step are more steps.
        schedule = Schedule(steps * self.batch // batch, batch, job.seed, recipe)
        trial = run_trial(data, Setting(schedule, curve=job.curve, device=self.device, init=self.init))
        self._write(job.file_name, _as_json(trial, whole))

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


def _as_json(trial: Trial, data: BenchSet) -> dict[str, object]:
    found = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(trial).items()}
    origin = {"commit": git_commit(), "date": f"{datetime.now(tz=timezone.utc):%Y-%m-%d}"}
    test = {"bad": data.bad.tolist(), "groups": list(data.groups), "pictures": data.fingerprint}
    return {**found, **origin, **test}


@dataclass(frozen=True)
class Outcome:
    """Result of a job, as read back: the trial with labels and groups of its test pictures, and its origin.

    Attributes:
        pictures: Fingerprint of its set.
    """

    job: Job
    seconds: float
    curve: list[tuple[float, float]]
    learned: Floats
    complete: Floats
    bad: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    groups: list[str]
    pixel_auroc: float
    aupro_30: float
    aupro_05: float
    allotment: Allotment | None = None
    commit: str = ""
    date: str = ""
    pictures: str = ""

    @classmethod
    def read(cls, path: Path, job: Job) -> Outcome:
        """Read a result."""
        found = json.loads(path.read_text())
        return cls(
            job,
            found["seconds"],
            [(seconds, value) for seconds, value in found["curve"]],
            np.array(found["learned"]),
            np.array(found["complete"]),
            np.array(found["bad"]),
            found["groups"],
            found["pixel_auroc"],
            found["aupro_30"],
            found["aupro_05"],
            Allotment(**found["allotment"]) if found["allotment"] else None,
            found["commit"],
            found["date"],
            found["pictures"],
        )


@dataclass(frozen=True)
class Arm:
    """All seeds of one recipe on one set.

    Attributes:
        outcomes: One for each seed, at least one.
    """

    outcomes: list[Outcome]

    @property
    def seconds(self) -> float:
        """Median CPU seconds of training."""
        return float(np.median([o.seconds for o in self.outcomes]))

    def auroc(self, which: str) -> Interval:
        """Mean image AUROC over the seeds, `learned` or `complete`, with its interval over seeds and parts."""
        first = self.outcomes[0]
        scores = np.stack([getattr(o, which) for o in self.outcomes])
        return hierarchical_interval(scores, first.bad, groups=first.groups, rounds=_RESAMPLES)

    def aurocs(self, which: str) -> Floats:
        """Image AUROC of each seed."""
        return np.array([auroc(getattr(o, which), o.bad) for o in self.outcomes])

    def mean(self, name: str) -> float:
        """Mean of a figure over the seeds."""
        return float(np.mean([getattr(o, name) for o in self.outcomes]))

    def escapes(self) -> float:
        """Mean escapes per 1,000 where at most 10 of 1,000 good parts are stopped."""
        return float(np.mean([escapes_at(o.complete, o.bad) for o in self.outcomes]))

    def curve(self) -> list[tuple[float, float]]:
        """Mean over the seeds of seconds and AUROC at each point of measurement."""
        points = min(len(o.curve) for o in self.outcomes)
        stacked = np.array([o.curve[:points] for o in self.outcomes]).mean(0)
        return [(float(seconds), float(value)) for seconds, value in stacked]


@dataclass(frozen=True)
class Headline:
    """The hierarchy against one reference on one set.

    Attributes:
        seconds_share: Seconds to the reference's final AUROC, as a share of the reference's seconds; NaN
            where it is never reached.
        points: AUROC, in points, by which it is ahead at the end; both spend the same compute.
    """

    seconds_share: float
    points: Interval


def headline(arm: Arm, reference: Arm) -> Headline:
    """Compare by what is learned alone; the points' interval resamples parts and seeds, paired."""
    seconds, target = reference.curve()[-1]
    return Headline(seconds_to(arm.curve(), target) / seconds, difference(arm, reference))


def difference(arm: Arm, reference: Arm, *, which: str = "learned") -> Interval:
    """Mean difference of AUROC in points, the interval by resampling parts and seeds of both together."""
    first = arm.outcomes[0]
    names, number = np.unique(np.array(first.groups), return_inverse=True)
    members = [np.flatnonzero(number == i) for i in range(len(names))]
    pairs = list(zip(arm.outcomes, reference.outcomes, strict=True))
    rng = np.random.default_rng(0)

    def mean(
        chosen: list[tuple[Outcome, Outcome]], rows: np.ndarray[tuple[int, ...], np.dtype[np.intp]]
    ) -> float:
        bad = first.bad[rows]
        return 100 * float(
            np.mean(
                [auroc(getattr(a, which)[rows], bad) - auroc(getattr(b, which)[rows], bad) for a, b in chosen]
            )
        )

    values = []
    for _ in range(_RESAMPLES):
        rows = np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        if first.bad[rows].any() and not first.bad[rows].all():
            values.append(mean([pairs[i] for i in rng.integers(0, len(pairs), len(pairs))], rows))
    low, high = np.percentile(values, (2.5, 97.5)) if values else (np.nan, np.nan)
    return Interval(mean(pairs, np.arange(len(first.bad))), float(low), float(high))


def arms(outcomes: Sequence[Outcome]) -> dict[tuple[str, str, int], Arm]:
    """Outcomes sorted by set, recipe and number of pictures."""
    names = _short_names({outcome.job.set_name for outcome in outcomes})
    found: dict[tuple[str, str, int], list[Outcome]] = {}
    for outcome in outcomes:
        key = (names[outcome.job.set_name], outcome.job.recipe, outcome.job.pictures)
        found.setdefault(key, []).append(outcome)
    return {key: Arm(several) for key, several in found.items()}


def _short_names(sets: Iterable[str]) -> dict[str, str]:
    """The last part of each path; the whole path where several end alike."""
    found = {name: Path(name).name for name in sets}
    several = Counter(found.values())
    return {name: short if several[short] == 1 else name for name, short in found.items()}


def jobs_of(
    sets: Sequence[str], recipes: Sequence[str], *, seeds: int, curves: Sequence[str] = ()
) -> list[Job]:
    """Every recipe on every set with every seed, seeds outermost so that a broken-off run is of use."""
    return list(_jobs(sets, recipes, seeds, curves))


def _jobs(sets: Sequence[str], recipes: Sequence[str], seeds: int, curves: Sequence[str]) -> Iterator[Job]:
    for seed in range(seeds):
        for name in sets:
            for recipe in recipes:
                yield Job(name, recipe, seed, curve=recipe in curves)
