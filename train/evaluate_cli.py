"""`kenpin evaluate`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click

from kenpin import options
from kenpin.errors import DataError
from kenpin.folder_names import GOOD
from kenpin.pictures import Picture, read_measured
from kenpin.train.data import MEASURE
from kenpin.train.evaluate import measure
from kenpin.train.intake import check_masks
from kenpin.train.intake_cli import (
    console,
    look_with_bar,
    tell_masked,
    tell_misfits,
    tell_passed_over,
    tell_unmasked,
)
from kenpin.train.report_cli import score_with_bar, show_figures
from kenpin.train.run import RunFolder
from kenpin.train.transfer import Origin, load_origin


@click.command()
@click.argument("model", type=click.Path(path_type=Path), metavar="RUN_OR_BUNDLE")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder with good and bad parts.")
@options.trust
@options.as_json
def evaluate(model: Path, data: Path, *, trust: tuple[Path, ...], as_json: bool) -> None:
    """Measure a run, or the model of a bundle before its export, on the test pictures of a folder.

    Where a folder has no test part of its own, all of its pictures measure that the model did not learn from.
    """
    known = load_origin(model, same_parts=True, trust=trust)
    tell_passed_over(data)
    tested = _not_learned_from(model, known, data)
    pictures = [replace(picture, sight=known.sight, strips=known.strips) for picture in tested]
    misfits = look_with_bar(pictures).misfits
    decided = [picture for picture in pictures if picture.path not in misfits]
    tell_misfits(misfits)
    if not decided:
        raise DataError(
            "the view of the model finds its part in none of the pictures",
            where=data,
            cure="measure on pictures of the station's camera, of the part that the model was trained on",
        )
    tell_masked(check_masks(decided))
    tell_unmasked([picture for picture in decided if picture.label != GOOD])
    undecided = [picture.label for picture in pictures if picture.path in misfits]
    figures = measure(score_with_bar(known.inspector, decided, side=known.size), no_decision=undecided)
    show_figures(figures, known.name)
    if as_json:
        click.echo(json.dumps({"model": str(model), **figures}))


def _not_learned_from(model: Path, origin: Origin, data: Path) -> list[Picture]:
    """Pictures of a folder to measure on, without those that a model learned from or that show the same parts.

    Raises:
        DataError: None is left.
    """
    folder, found = RunFolder(model), read_measured(data)
    groups = origin.known_parts(found)
    # In another folder the same name is another part.
    if folder.exists and data.resolve() == Path(folder.config.data):
        groups |= {row["group"] for row in folder.data["pictures"] if row["role"] not in MEASURE}
    kept = [p for p in found if p.group not in groups]
    if len(kept) < len(found):
        console.print(
            f"{len(found) - len(kept)} of {len(found)} pictures left out: the model learned from these parts"
        )
    if not kept:
        raise DataError(
            "the model learned from every part of this folder",
            where=data,
            cure="measure on other parts; a model knows those it learned from",
        )
    return kept
