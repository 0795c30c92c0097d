"""`kenpin train` and `kenpin evaluate`."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from kenpin.errors import ConfigError
from kenpin.pictures import GOOD, PictureSet, read_data, read_good_bad
from kenpin.train.data import Roles, assign_roles, load_pictures
from kenpin.train.evaluate import Scores, measure, score_pictures
from kenpin.train.fit import fit_head
from kenpin.train.inspector import Inspector
from kenpin.train.pretrain import Schedule, StepLog, Training, pretrain
from kenpin.train.report import write_report
from kenpin.train.run import RunConfig, RunFolder, device_of, git_commit, load_inspector

# Steps of pretraining. Quick is for a first look, long for a product that pays for a night.
BUDGETS = {"quick": 450, "standard": 1500, "long": 6000}
BATCH = 24
WIDTH = 32
CHECKPOINT_EVERY_S = 20.0
console = Console(stderr=True)


@dataclass(frozen=True)
class _Source:
    """Where the pictures come from, as given on the command line."""

    data: Path | None
    good: Path | None
    bad: Path | None

    @property
    def root(self) -> Path:
        root = self.data or self.good
        if root is None or (self.data and self.good) or (self.bad and not self.good):
            raise ConfigError(
                "no folder of pictures is given, or one too many",
                cure="give either --data DIR, or --good DIR with or without --bad DIR",
            )
        return root

    def read(self, *, seed: int) -> PictureSet:
        root = self.root
        return read_data(root, seed=seed) if self.data else read_good_bad(root, self.bad, seed=seed)


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Folder, MVTec style or good/ beside defects.")
@click.option("--good", type=click.Path(path_type=Path), help="Folder of good parts.")
@click.option("--bad", type=click.Path(path_type=Path), help="Folder of bad parts; they only measure.")
@click.option("--run", "run", type=click.Path(path_type=Path), required=True, help="Run folder to write.")
@click.option("--budget", type=click.Choice(list(BUDGETS)), default="quick", show_default=True)
@click.option("--epochs", type=click.IntRange(1), help="Instead of --budget: passes over the pictures.")
@click.option("--steps", type=click.IntRange(1), help="Instead of --budget: steps of 24 pictures.")
@click.option("--size", type=int, default=224, show_default=True, help="Side of the model's input, pixels.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def train(  # noqa: PLR0913, PLR0917 - one argument per option
    data: Path | None,
    good: Path | None,
    bad: Path | None,
    run: Path,
    budget: str,
    epochs: int | None,
    steps: int | None,
    size: int,
    seed: int,
    device: str,
    *,
    resume: bool,
    as_json: bool,
) -> None:
    """Learn what good parts look like.

    Only pictures of good parts are learned from. Bad ones, where there are some, measure the result.
    """
    started = time.monotonic()
    source = _Source(data, good, bad)
    roles = assign_roles(source.read(seed=seed), where=source.root, seed=seed)
    if epochs and steps:
        raise ConfigError("--epochs and --steps are given both", cure="give one of them")
    batch = min(BATCH, len(roles.fit))
    count = steps or (epochs * -(-len(roles.fit) // batch) if epochs else BUDGETS[budget])
    config = _config(source.root, size=size, steps=count, batch=batch, seed=seed)
    folder = RunFolder(run)
    folder.create(config, roles.manifest(), resume=resume)
    if not (resume and folder.finished):
        try:
            _train(folder, roles, device_of(device))
        except KeyboardInterrupt:
            console.print("stopped; the same command with --resume goes on from the last checkpoint")
            raise
    figures = _measure_and_report(folder, roles)
    figures["seconds"] = round(time.monotonic() - started, 1)
    _show(figures, folder)
    if as_json:
        click.echo(json.dumps({"run": str(run), **figures}))


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder with good and bad parts.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def evaluate(run: Path, data: Path, *, as_json: bool) -> None:
    """Measure a run on the test pictures of a folder."""
    folder = RunFolder(run)
    pictures = read_data(data, seed=folder.config.seed).test
    scores = _score(load_inspector(run), pictures, side=folder.config.size)
    figures = measure(scores)
    _show(figures, folder)
    if as_json:
        click.echo(json.dumps({"run": str(run), **figures}))


def _config(root: Path, *, size: int, steps: int, batch: int, seed: int) -> RunConfig:
    if size % 16 or not 64 <= size <= 1024:
        raise ConfigError(f"--size {size} cannot be used", cure="give a multiple of 16 from 64 to 1024")
    return RunConfig(
        product=_product(root.resolve()),
        data=str(root.resolve()),
        size=size,
        width=WIDTH,
        steps=steps,
        batch=batch,
        seed=seed,
        commit=git_commit(),
    )


def _product(root: Path) -> str:
    """Name of the part: that of its folder, with the characters a bundle's name may have."""
    name = root.parent.name if root.name == GOOD else root.name
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "-" for c in name)
    return safe[:64] or "part"


def _train(folder: RunFolder, roles: Roles, device: torch.device) -> None:
    config = folder.config
    training = Training.start(width=config.width, seed=config.seed, device=device)
    folder.load_training(training)
    pictures = load_pictures(roles.fit, side=config.size).to(device)
    held_back = load_pictures(roles.held_back, side=config.size).to(device)
    spent = sum(m["seconds"] for m in folder.metrics())
    saved = time.monotonic()
    with _progress() as progress:
        bar = progress.add_task("pretrain", total=config.steps, completed=training.step)

        def on_step(log: StepLog) -> None:
            nonlocal saved, spent
            spent += log.seconds
            folder.log({**vars(log), "device": device.type, "device_seconds": round(spent, 3)})
            progress.update(bar, completed=log.step, description=f"pretrain {log.level:6} loss {log.loss:6.3f}")
            if time.monotonic() - saved > CHECKPOINT_EVERY_S or log.step == config.steps:
                folder.save_training(training)
                saved = time.monotonic()

        schedule = Schedule(config.steps, config.batch, config.seed)
        pretrain(training, pictures, schedule, on_step=on_step)
        progress.update(progress.add_task("fit the anomaly head", total=None))
        head = fit_head(training.model, pictures, held_back, seed=config.seed)
    folder.save_model(Inspector(training.model.encoder, head).cpu())


def _measure_and_report(folder: RunFolder, roles: Roles) -> dict[str, Any]:
    inspector, side = load_inspector(folder.root), folder.config.size
    held_back = _score(inspector, roles.held_back, side=side)
    test = _score(inspector, roles.test, side=side) if roles.test else None
    figures = measure(test) if test else {"pictures": 0}
    folder.log({"evaluation": figures})
    write_report(folder, held_back, test, figures)
    return figures


def _score(inspector: Inspector, pictures: Any, *, side: int) -> Scores:
    with _progress() as progress:
        bar = progress.add_task("score", total=len(pictures))
        return score_pictures(inspector, pictures, side=side, advance=lambda n: progress.advance(bar, n))


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)


def _show(figures: dict[str, Any], folder: RunFolder) -> None:
    table = Table(title=f"{folder.config.product}: {figures['pictures']} test pictures")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for name, value in figures.items():
        if isinstance(value, dict) and "low" in value:
            table.add_row(name, f"{value['value']:.3f}", f"{value['low']:.3f} .. {value['high']:.3f}")
        elif not isinstance(value, dict):
            table.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
    console.print(table)
    console.print(f"run folder: {folder.root}   report: {folder.root / 'report.html'}", soft_wrap=True)
