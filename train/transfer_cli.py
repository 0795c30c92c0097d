"""`kenpin bench transfer` and `continual`: gains and losses when a trained model takes over new pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from kenpin import options
from kenpin.console import human_console
from kenpin.errors import ConfigError
from kenpin.train.bench_cli import show
from kenpin.train.bench_set import BenchSet, check_measurable, read_set
from kenpin.train.bench_tables import study, told
from kenpin.train.lines import read_lines, read_stream
from kenpin.train.metrics import hierarchical_interval
from kenpin.train.study import Study
from kenpin.train.transfer_trial import Figures, Lines, Outcome, false_calls

COUNTS = (20, 50)
_TOLD = "Means over the seeds; image AUROC with its 95 % interval over seeds and parts."
# Outcomes of all seeds, by arm and number of pictures.
Arms = dict[tuple[str, int], list[Outcome]]
console = human_console()


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """What both have in common."""
    for option in (
        options.as_json,
        click.option("--seeds", type=click.IntRange(1), default=3, show_default=True),
        options.size(default=128, show_default=True, help="Side of the pictures."),
        click.option(
            "--steps", type=click.IntRange(1), default=30, show_default=True, help="Compute of a training."
        ),
        click.option("--first", help="Names of the first line's pictures match this regular expression."),
        click.option("--data", required=True, help="Data folder, or drawn product."),
    ):
        command = option(command)
    return command


@click.command()
@_options
@click.option("--target", help="Instead of --first: data folder or drawn product of the other line.")
def transfer(*, target: str | None, **given: Any) -> None:
    """Start another line with 20 and 50 pictures: from scratch, or from the model of the first one."""
    if bool(given["first"]) == bool(target):
        raise ConfigError(
            "it is not known which pictures are of the first line", cure="give either --first or --target"
        )
    side = given["size"]
    if target:
        old, new = read_set(given["data"], side=side), read_set(target, side=side)
    else:
        old, new = read_lines(Path(given["data"]), given["first"], side=side)
    check_measurable(new, where=new.name)
    found = _run(old, new, given, lambda lines: lines.transfer(COUNTS))
    show([transfer_table(found, new)], as_json=given["as_json"])


@click.command()
@_options
@click.option("--until", help="Of a stream: time at which the old pictures end.")
@click.option("--since", help="Of a stream: time from which pictures only test.")
def continual(*, until: str | None, since: str | None, **given: Any) -> None:
    """Go on with new pictures of a line, and look what becomes of the old ones."""
    if [bool(option) for option in (given["first"], until, since)] not in (
        [True, False, False],
        [False, True, True],
    ):
        raise ConfigError(
            "it is not known which pictures are the old ones",
            cure="give --first REGEX, or for a stream --until TIME and --since TIME",
        )
    if given["first"]:
        old, new = read_lines(Path(given["data"]), given["first"], side=given["size"])
    else:
        old, new = read_stream(Path(given["data"]), str(until), str(since), side=given["size"])
    for line in (old, new):
        check_measurable(line, where=line.name)
    found = _run(old, new, given, Lines.continual)
    show([continual_table(found, old, new)], as_json=given["as_json"])


def transfer_table(found: Arms, new: BenchSet) -> Study:
    """Figures of the new line, a row for each arm and number of pictures."""
    rows = [
        [arm, str(n or "-"), *_row(several, new, "new"), _seconds(several)]
        for (arm, n), several in found.items()
    ]
    columns = ["model", "good pictures", "image AUROC", "pixel AUROC", "AUPRO 30 %", "CPU s"]
    return study(f"Transfer to {new.name}", columns, rows, [_TOLD])


def continual_table(found: Arms, old: BenchSet, new: BenchSet) -> Study:
    """Figures of old and new pictures, a row for each arm."""
    rows = []
    for (arm, _), several in found.items():
        drift = np.mean([false_calls(o, old, new) for o in several])
        rows.append([arm, *_row(several, old, "old"), *_row(several, new, "new"), f"{100 * drift:.1f} %"])
    kinds = ["image AUROC", "pixel AUROC", "AUPRO 30 %"]
    columns = ["model", *(f"old: {k}" for k in kinds), *(f"new: {k}" for k in kinds)]
    columns.append("new good above the limit of 5 % of old good")
    return study(f"Going on from {old.name} to {new.name}", columns, rows, [_TOLD])


def _run(
    old: BenchSet, new: BenchSet, given: dict[str, Any], arms: Callable[[Lines], Iterator[Outcome]]
) -> Arms:
    """Run all arms with each seed, on one core."""
    torch.set_num_threads(1)
    found: Arms = defaultdict(list)
    for seed in range(given["seeds"]):
        for outcome in arms(Lines(old, new, given["steps"], seed)):
            found[outcome.arm, outcome.pictures].append(outcome)
            console.print(
                f"seed {seed}, {outcome.pictures or 'no'} pictures, {outcome.arm}: image AUROC "
                f"old {outcome.old.auroc:.3f}, new {outcome.new.auroc:.3f}",
                soft_wrap=True,
                highlight=False,
            )
    return found


def _row(several: list[Outcome], data: BenchSet, which: str) -> list[str]:
    figures: list[Figures] = [getattr(outcome, which) for outcome in several]
    scores = np.stack([f.scores for f in figures])
    image = hierarchical_interval(scores, data.bad, groups=data.groups, rounds=300)
    if data.masks is None:
        return [told(image), "no masks", "no masks"]
    pixel, region = np.mean([f.pixel_auroc for f in figures]), np.mean([f.aupro_30 for f in figures])
    return [told(image), f"{pixel:.3f}", f"{region:.3f}"]


def _seconds(several: list[Outcome]) -> str:
    return f"{np.median([o.seconds for o in several]):.0f}"
