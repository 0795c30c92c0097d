"""`kenpin bench train`, `ablation` and `few`: the method measured against what it claims to be better than."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kenpin import options
from kenpin.console import human_console
from kenpin.synthetic import PRODUCTS
from kenpin.train.bench import Bench, jobs_of
from kenpin.train.bench_set import good_pictures
from kenpin.train.bench_tables import (
    HIERARCHY,
    ablation_table,
    as_markdown,
    few_table,
    headline_table,
    recipe_table,
)
from kenpin.train.outcome import Job, Outcome
from kenpin.train.recipe import ABLATIONS, REFERENCES
from kenpin.train.study import Study
from kenpin.train.trial import UNTRAINED

FLAT, CROPS = "flat, full picture", "flat, crops of all sizes"
MAIN = (HIERARCHY, FLAT, CROPS, "fine only")
PICTURES = (8, 16, 32, 64, 0)
# Refused at once: a mistyped folder shall not be told after an hour of trials.
RUN = click.Path(exists=True, file_okay=False, path_type=Path)
# As a whole path: a folder of one's own may be called like a drawn product.
FOLDER = click.Path(exists=True, file_okay=False, resolve_path=True)
console = human_console()


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """What all three have in common."""
    for option in (
        options.as_json,
        click.option(
            "--results", type=click.Path(path_type=Path), default=Path("runs/bench"), show_default=True
        ),
        click.option("--workers", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True),
        click.option(
            "--device",
            type=click.Choice(("cpu", "cuda")),
            default="cpu",
            show_default=True,
            help="Only seconds of one worker compare on a GPU.",
        ),
        click.option(
            "--init",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Weights that every recipe starts from, of width 32; random ones without.",
        ),
        options.size(default=128, show_default=True, help="Side of the pictures."),
        click.option(
            "--steps", type=click.IntRange(1), default=60, show_default=True, help="Compute of a trial."
        ),
        click.option(
            "--product", "products", multiple=True, type=click.Choice(PRODUCTS), help="Drawn product."
        ),
        click.option("--data", "folders", multiple=True, type=FOLDER, help="MVTec folder."),
    ):
        command = option(command)
    return command


@click.command()
@_options
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
def train(*, seeds: int, **given: Any) -> None:
    """Compare the hierarchical training with flat and single-level ones at equal encoder, data and compute.

    Drawn products see the main recipes only, or an hour would not suffice.
    """
    others = [recipe.name for recipe in REFERENCES if recipe.name not in MAIN]
    jobs = jobs_of(_sets(given), MAIN, seeds=seeds, curves=(HIERARCHY, FLAT, CROPS))
    jobs += jobs_of(given["folders"], [*others, UNTRAINED], seeds=seeds)
    outcomes = _run(jobs, given)
    show([headline_table(outcomes, (FLAT, CROPS)), recipe_table(outcomes)], as_json=given["as_json"])


@click.command()
@_options
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--run", type=RUN, help="Run folder whose report shall show the table.")
def ablation(*, seeds: int, run: Path | None, **given: Any) -> None:
    """Take one thing away from the hierarchical training at a time."""
    recipes = [HIERARCHY, *(recipe.name for recipe in ABLATIONS)]
    outcomes = _run(jobs_of(_sets(given), recipes, seeds=seeds), given)
    tables = [ablation_table(outcomes, "learned"), ablation_table(outcomes, "complete")]
    _keep(tables[0], run, "ablation.json")
    show(tables, as_json=given["as_json"])


@click.command()
@_options
@click.option("--draws", type=click.IntRange(2), default=5, show_default=True)
@click.option("--run", type=RUN, help="Run folder whose report shall show the table.")
def few(*, draws: int, run: Path | None, **given: Any) -> None:
    """Train from 8, 16, 32, 64, as far as a set has more, and all pictures of good parts."""
    counts = {name: _counts(name) for name in _sets(given)}
    jobs = [
        Job(name, HIERARCHY, draw, pictures=count)
        for draw in range(draws)
        for name in counts
        for count in counts[name]
    ]
    table = few_table(_run(jobs, given))
    _keep(table, run, "few_pictures.json")
    show([table], as_json=given["as_json"])


def _counts(name: str) -> list[int]:
    """How many pictures to draw of a set: fewer than it has, or they would be all under another name."""
    there = good_pictures(name)
    return [count for count in PICTURES if count < there]


def _sets(given: dict[str, Any]) -> list[str]:
    """The sets that are named; without any, all drawn products."""
    return [*given["folders"], *(given["products"] or (() if given["folders"] else PRODUCTS))]


def _run(jobs: list[Job], given: dict[str, Any]) -> list[Outcome]:
    bench = Bench(given["steps"], given["size"], given["results"], device=given["device"], init=given["init"])
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("trials", total=len(jobs))
        progress.advance(bar, len(jobs) - len(bench.missing(jobs)))

        def done(job: Job) -> None:
            progress.update(bar, advance=1, description=f"{Path(job.set_name).name}, {job.recipe}")

        return bench.run(jobs, workers=given["workers"], done=done)


def _keep(table: Study, run: Path | None, name: str) -> None:
    if run is not None:
        (run / name).write_text(table.model_dump_json(indent=1) + "\n")


def show(tables: Sequence[Study], *, as_json: bool) -> None:
    """Tables as Markdown, for a person to read and keep, or as one JSON document."""
    if as_json:
        click.echo(json.dumps({"tables": [table.model_dump() for table in tables]}))
        return
    for table in tables:
        click.echo(as_markdown(table) + "\n", err=True)
