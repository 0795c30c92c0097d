"""`kenpin report`: write the report of a run again, or lay runs side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from kenpin import options
from kenpin.console import human_console
from kenpin.errors import ConfigError, DataError
from kenpin.folder_names import GOOD
from kenpin.out_file import refuse_other
from kenpin.picture_files import sha256_of
from kenpin.pictures import Picture
from kenpin.train.card import figure_of
from kenpin.train.compare import FIGURES, OTHER_PICTURES, as_document, as_page, as_table, read_entries
from kenpin.train.evaluate import Scores, measure, score_pictures
from kenpin.train.inspector import Inspector
from kenpin.train.learn import progress_bar
from kenpin.train.report import write_page, write_report
from kenpin.train.run import RunFolder, load_inspector

COMPARE = "compare"


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN | compare RUN RUN...")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="With compare: page to write.")
@options.as_json
def report(runs: tuple[str, ...], out: Path | None, *, as_json: bool) -> None:
    """Write the report of a run again, or compare runs.

    RUN scores its pictures again and writes RUN/report.html. "compare RUN RUN..." shows the settings and the
    last measured figures of runs side by side. A run folder named compare is given as ./compare.
    """
    if runs[0] == COMPARE:
        _compare([Path(run) for run in runs[1:]], out, as_json=as_json)
        return
    if len(runs) > 1:
        raise ConfigError(
            f"{len(runs)} runs are given, one is needed",
            cure="give one, or lay them side by side with: kenpin report compare RUN RUN",
        )
    if out is not None:
        raise ConfigError("--out goes with compare only", cure="leave it out: the report is written in the run")
    figures = rewrite(RunFolder(Path(runs[0])))
    if as_json:
        click.echo(json.dumps({"run": runs[0], **figures}))


def rewrite(folder: RunFolder) -> dict[str, Any]:
    """Score the pictures of a run again, log the figures and write its report; returns the figures.

    Raises:
        ConfigError: The folder is not a finished run.
        DataError: A picture is gone or is no longer the one of the training.
    """
    figures = measure_and_report(folder)
    human_console().print(f"report: {folder.root / 'report.html'}", soft_wrap=True)
    return figures


def measure_and_report(folder: RunFolder) -> dict[str, Any]:
    """Score the pictures of a finished run with its model, log the figures and write the report.

    By data.json and its hashes, right after a training, too: that is long, and what was exchanged meanwhile
    must not measure it.

    Returns:
        The figures.

    Raises:
        ConfigError: The folder is not a finished run.
        DataError: A picture is gone or is no longer the one of the training.
    """
    held_back, tested = (pictures_of(folder, role) for role in ("held_back", "test"))
    inspector, side = load_inspector(folder.root), folder.config.size
    good = score_with_bar(inspector, held_back, side=side)
    test = score_with_bar(inspector, tested, side=side) if tested else None
    undecided = [row["label"] for row in folder.data.get("pictures", []) if row["role"] == "no_decision"]
    figures = measure(test, no_decision=undecided) if test else {"pictures": 0}
    folder.log({"evaluation": figures})
    write_report(folder, good, test, figures)
    return figures


def pictures_of(folder: RunFolder, role: str) -> list[Picture]:
    """The pictures that had a role in a run, as data.json lists them.

    Raises:
        DataError: A picture or a mask is gone or was changed since.
    """
    pictures, sight, strips = [], folder.sight, folder.config.strips
    for row in folder.data.get("pictures", []):
        if row["role"] == role:
            path = _same(row["file"], row["sha256"], "a picture")
            mask = _same(row["mask"], row["mask_sha256"], "a mask") if "mask" in row else None
            pictures.append(Picture(path, row["label"], row["group"], mask, sight, strips))
    return pictures


def _same(file: str, sha256: str, what: str) -> Path:
    path = Path(file)
    if not path.exists() or sha256_of(path) != sha256:
        raise DataError(
            f"{what} of this run {'was changed' if path.exists() else 'is gone'}",
            where=path,
            cure="put it back, or measure on other pictures with: kenpin evaluate RUN --data DIR",
        )
    return path


def _compare(roots: Sequence[Path], out: Path | None, *, as_json: bool) -> None:
    if len(roots) < 2:
        raise ConfigError("fewer than two runs to compare", cure="give: kenpin report compare RUN RUN")
    if out is not None:
        refuse_other(out, "<title>kenpin: ")
    entries = read_entries(roots)
    console = human_console()
    console.print(as_table(entries))
    for entry in entries:
        if not entry.comparable(entries[0]):
            console.print(f"{entry.name}: {OTHER_PICTURES} it with {entries[0].name}", style="bold red")
    if out is not None:
        _write(out, as_page(entries))
        console.print(f"page: {out}", soft_wrap=True)
    if as_json:
        click.echo(json.dumps(as_document(entries)))


def _write(path: Path, text: str) -> None:
    try:
        write_page(path, text)
    except OSError as error:
        raise ConfigError(
            f"cannot write: {error.strerror}", where=path, cure="give --out a file in a folder that exists"
        ) from None


def score_with_bar(inspector: Inspector, pictures: Sequence[Picture], *, side: int) -> Scores:
    """Score pictures and show how far it is."""
    with progress_bar(human_console()) as progress:
        bar = progress.add_task("score", total=len(pictures))
        return score_pictures(inspector, pictures, side=side, advance=lambda n: progress.advance(bar, n))


def show_figures(figures: dict[str, Any], model: str) -> None:
    """Show what was measured of a model as a table, and what could not be."""
    table = Table(title=f"{model}: {figures['pictures']} test pictures")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    heads = {key: (head, form) for key, head, form in FIGURES}
    for name, value in figures.items():
        if name == "auroc_of" or name.endswith("_interval"):
            continue
        head, form = heads.get(name, (name.replace("_", " "), ".1f"))
        if isinstance(value, dict | float):
            table.add_row(head, *figure_of(figures, name, form))
        else:
            table.add_row(head, str(value))
    human_console().print(table)
    if "image_auroc" not in figures:
        told, kind = "no picture measures", "bad" if figures.get("bad") else GOOD
        if count := figures["pictures"]:
            told = f"all {count:,} pictures count as {kind} parts"
        human_console().print(f"{told}: the other figures need test pictures of both", soft_wrap=True)
