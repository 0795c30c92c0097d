"""One trial of a benchmark: what was asked for, and its result as it is kept."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from kenpin.commit import git_commit
from kenpin.synthetic import PRODUCTS
from kenpin.train.bench_set import BenchSet
from kenpin.train.metrics import Floats
from kenpin.train.training import Allotment
from kenpin.train.trial import Trial


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


def as_json(trial: Trial, data: BenchSet) -> dict[str, object]:
    """A trial on a set as `Outcome.read` reads it."""
    found = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(trial).items()}
    origin = {"commit": git_commit(), "date": f"{datetime.now(tz=timezone.utc):%Y-%m-%d}"}
    test = {"bad": data.bad.tolist(), "groups": list(data.groups), "pictures": data.fingerprint}
    return {**found, **origin, **test}
