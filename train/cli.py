"""`kenpin train` and `kenpin evaluate`."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch
from rich.table import Table

from kenpin import options
from kenpin.commit import git_commit
from kenpin.console import human_console
from kenpin.counted import counted
from kenpin.errors import ConfigError, DataError, OutOfView, TrainError
from kenpin.folder_names import GOOD
from kenpin.picture_files import one_spelling, sha256_of
from kenpin.pictures import Picture, PictureSet, read_data, read_good_bad, read_measured
from kenpin.sight import Sight, read_sight
from kenpin.train.card import figure_of
from kenpin.train.compare import FIGURES
from kenpin.train.data import MEASURE, Roles, assign_roles
from kenpin.train.device import PRECISIONS, open_fabric
from kenpin.train.encoder import Encoder
from kenpin.train.evaluate import measure
from kenpin.train.init import load_initial_weights, width_of
from kenpin.train.intake import Looked, Masked, check_masks, check_pictures, check_teachers, set_apart
from kenpin.train.learn import Means, learn, progress_bar, update
from kenpin.train.loose import Loose, follow_loose
from kenpin.train.report_cli import measure_and_report, score_with_bar
from kenpin.train.run import RunConfig, RunFolder
from kenpin.train.tracking import KINDS, load_package, open_tracker
from kenpin.train.transfer import STAGE, Origin, load_origin
from kenpin.view import REFERENCE

# Steps of pretraining. Quick is for a first look, long for a product that pays for a night.
BUDGETS = {"quick": 450, "standard": 1500, "long": 6000}
BUDGET = "quick"
BATCH = 24
WIDTH = 32
SIZE = 160
# Folders of a part's pictures, which do not have its name.
_NO_PRODUCT = (GOOD, "train", "test")
# Every draw depends on the seed times a large number, which has to fit into 64 bits.
MOST_SEED = 2**32 - 1
# Of several processes that train together, as torchrun starts them, one speaks.
console = human_console(quiet=os.environ.get("RANK", "0") != "0")


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

    def check_apart(self, run: Path) -> None:
        """Refuse a run folder among the pictures: they could not be read again, to resume or to measure."""
        if self.data and (self.data / "train" / GOOD).is_dir():
            folders = [self.data / "train" / GOOD, self.data / "test"]
        else:
            folders = [folder for folder in (self.data, self.good, self.bad) if folder]
        for folder in folders:
            if folder.resolve() in (run.resolve(), *run.resolve().parents):
                raise ConfigError(
                    "the run folder lies among the pictures",
                    where=run,
                    cure=f"give a --run outside of {folder}: what lies in there is taken for pictures of parts",
                )

    def read(self, *, seed: int) -> PictureSet:
        root = self.root
        return read_data(root, seed=seed) if self.data else read_good_bad(root, self.bad, seed=seed)


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Folder, MVTec style or good/ beside defects.")
@click.option("--good", type=click.Path(path_type=Path), help="Folder of good parts.")
@click.option("--bad", type=click.Path(path_type=Path), help="Folder of bad parts; they measure.")
@click.option(
    "--teach",
    type=click.FloatRange(0, 0.5),
    default=0.0,
    show_default=True,
    help="Share of the bad parts to learn from; the others only measure.",
)
@click.option("--run", "run", type=click.Path(path_type=Path), required=True, help="Run folder to write.")
@click.option("--budget", type=click.Choice(list(BUDGETS)), show_default=BUDGET)
@click.option("--epochs", type=click.IntRange(1), help="Instead of --budget: passes over the pictures.")
@click.option("--steps", type=click.IntRange(1), help="Instead of --budget: steps of one batch.")
@click.option(
    "--size", type=int, show_default="160, or the origin's", help="Side of the model's input, pixels."
)
@click.option("--batch", type=click.IntRange(4), default=BATCH, show_default=True, help="Pictures per step.")
@click.option("--seed", type=click.IntRange(0, MOST_SEED), default=0, show_default=True)
@click.option("--init", type=click.Path(path_type=Path), help="Your own ImageNet resnet18 to start from.")
@click.option("--from", "similar", type=click.Path(path_type=Path), help="Run or bundle of similar parts.")
@click.option("--update", type=click.Path(path_type=Path), help="Run or bundle of the same parts.")
@options.trust
@click.option("--view", type=click.Path(path_type=Path), help="What of each picture to look at: docs/view.md.")
@click.option("--whole", is_flag=True, help="Look at whole pictures, even where parts do not lie still.")
@click.option("--uniform", is_flag=True, help="Show all pictures equally often, not hard ones more early.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True)
@click.option("--cache-mb", type=click.IntRange(1), default=4096, show_default=True, help="Decoded pictures.")
@click.option("--compile", "compiled", is_flag=True, help="Use torch.compile.")
@click.option("--log", type=click.Choice(KINDS), default="none", show_default=True, help="Log there, too.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@options.as_json
def train(*, run: Path, resume: bool, as_json: bool, **given: Any) -> None:
    """Learn what good parts look like.

    Pictures of good parts are enough. Bad ones, where there are some, measure the result; with --teach some of
    them are learned from, too, and no longer measure.

    With --update the model of another run or bundle remembers these pictures, too: the same parts later or on
    another line. With --from it starts on similar parts, with a share of the training and a memory of its own.
    """
    started = time.monotonic()
    load_package(given["log"])  # missing, it shall be told before there is a run
    source = _Source(given["data"], given["good"], given["bad"])
    source.check_apart(run)
    origin, seed = _origin(given), given["seed"]
    folder = RunFolder(run)
    begun = folder if resume and folder.exists else None
    found = _look_through(source.read(seed=seed), given, origin, begun=begun)
    sight = found.train[0].sight
    known = origin.known_parts((*found.train, *found.test)) if origin else frozenset()
    new = origin.unseen(found, known) if origin else found
    _tell_copies(found, new)
    roles = assign_roles(new, where=source.root, seed=seed, teach=given["teach"], known=known)
    _tell_known(roles, known)
    masked = check_masks((*roles.test, *roles.teach))
    _tell_masked(masked)
    _tell_unmasked([picture for picture in roles.test if picture.label != GOOD])
    check_teachers(picture for picture in roles.teach if picture in masked.empty)
    config = _config(source.root, roles, given, origin, sight)
    fabric = open_fabric(given["device"], precision=given["precision"])
    if fabric.is_global_zero:
        click.get_current_context().with_resource(folder.sole_use())
        data = {**roles.manifest(), **(origin.manifest() if origin else {})}
        folder.create(config, data, resume=resume, reference=sight.reference if sight else b"")
    fabric.barrier()
    if not (resume and folder.finished):
        tracker = open_tracker(given["log"] if fabric.is_global_zero else "none", run)
        means = Means(fabric, given["cache_mb"] * 2**20, given["compiled"], tracker, console)
        try:
            if origin and origin.same_parts:
                update(folder, roles, means, origin)
            else:
                learn(folder, roles, means, init=given["init"], origin=origin)
        except KeyboardInterrupt:
            console.print("stopped; the same command with --resume goes on from the last checkpoint")
            raise
        except torch.OutOfMemoryError:
            raise TrainError(
                "the device is out of memory",
                where=fabric.device,
                cure="go on with --resume --device cpu, or train with a smaller --size",
            ) from None
        finally:
            tracker.close()
    if not fabric.is_global_zero:
        return
    figures = measure_and_report(folder)
    figures["seconds"] = round(time.monotonic() - started, 1)
    _show(figures, folder.config.product)
    console.print(f"run folder: {folder.root}   report: {folder.root / 'report.html'}", soft_wrap=True)
    if as_json:
        click.echo(json.dumps({"run": str(run), **figures}))


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
    tested = _not_learned_from(model, known, data)
    pictures = [replace(picture, sight=known.sight) for picture in tested]
    misfits = _look_with_bar(pictures).misfits
    decided = [picture for picture in pictures if picture.path not in misfits]
    _tell_misfits(misfits)
    if not decided:
        raise DataError(
            "the view of the model finds its part in none of the pictures",
            where=data,
            cure="measure on pictures of the station's camera, of the part that the model was trained on",
        )
    undecided = [picture.label for picture in pictures if picture.path in misfits]
    figures = measure(score_with_bar(known.inspector, decided, side=known.size), no_decision=undecided)
    _show(figures, known.name)
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


def _origin(given: dict[str, Any]) -> Origin | None:
    """What --from or --update names."""
    path = given["similar"] or given["update"]
    if path is None:
        return None
    untrained = ["budget", "steps", "epochs", "uniform", "teach", "view", "whole"]
    against = ["init"] if given["similar"] else ["init", *untrained]
    others = [f"--{name}" for name in (*against, "update" if given["similar"] else "similar") if given[name]]
    if others:
        raise ConfigError(
            f"--{'from' if given['similar'] else 'update'} is given together with {', '.join(others)}",
            cure=f"leave out {', '.join(others)}, or do without the model that is there",
        )
    return load_origin(path, same_parts=given["update"] is not None, trust=given["trust"])


def _look_through(
    found: PictureSet, given: dict[str, Any], origin: Origin | None, *, begun: RunFolder | None
) -> PictureSet:
    """All pictures through one view, each looked at; a run, or a model of the same parts, keeps its own."""
    if given["view"] and given["whole"]:
        raise ConfigError("--view and --whole are given both", cure="give one of them")
    side = _size(given, origin)
    if origin and origin.same_parts:
        return _checked(found, origin.sight, side=side)
    if given["view"]:
        sight = read_sight(given["view"])
        if sight.view.align is None and (loose := follow_loose([picture.path for picture in found.train])):
            told = f"{_how_they_lie(loose)}, and the view that is given does not follow them: "
            told += "leave --view out, or " if loose.sight else ""
            console.print(told + "let it follow a part with [align]: docs/view.md", soft_wrap=True)
        return _checked(found, sight, side=side)
    if given["whole"]:
        return _checked(found, None, side=side)
    if begun:
        return _checked(found, begun.sight, side=side)
    return _follow_loose(found, side=side) or _checked(found, None, side=side)


def _follow_loose(found: PictureSet, *, side: int) -> PictureSet | None:
    """Pictures of parts that do not lie still through a view that follows them all; `None` for others."""
    loose = follow_loose([picture.path for picture in found.train])
    if loose is None:
        return None
    console.print(_how_they_lie(loose), soft_wrap=True)
    worse = "whole pictures are looked at, which is worse for such parts: docs/view.md"
    if loose.sight is None:
        told = "but no view shows all of them: a part lacks room in its picture, or something lies beside it; "
        console.print(told + worse, soft_wrap=True)
        return None
    try:
        seen = _checked(found, loose.sight, side=side)
    except DataError as error:
        told = f"but no view follows all of them: {error.what} ({error.where}); "
        console.print(told + worse, soft_wrap=True)
        return None
    width, height = loose.sight.view.roi[2:]
    told = f"a view was drawn ({REFERENCE} in the run folder) that shows each as the others lie, and"
    told += f" {width} x {height} pixels around it, nothing else; --whole looks at all"
    console.print(told, soft_wrap=True)
    return seen


def _how_they_lie(loose: Loose) -> str:
    off = f"a tenth of them {counted(round(loose.shift_px), 'pixel')} or more off"
    return f"parts do not lie still, {off}, {loose.turned:.0%} turned"


def _checked(found: PictureSet, sight: Sight | None, *, side: int) -> PictureSet:
    """Pictures through a view; those in which it finds no part are set apart, those far too small are told."""
    seen = found.through(sight)
    looked = _look_with_bar((*seen.train, *seen.test))
    kept = set_apart(seen, looked.misfits)
    _tell_misfits(looked.misfits)
    _tell_enlarged(looked, side)
    return kept


def _size(given: dict[str, Any], origin: Origin | None) -> int:
    """Side of the model's input, pixels."""
    return int(given["size"] or (origin.size if origin else SIZE))


def _config(
    root: Path, roles: Roles, given: dict[str, Any], origin: Origin | None, sight: Sight | None
) -> RunConfig:
    size = _size(given, origin)
    steps, epochs, init = (given[name] for name in ("steps", "epochs", "init"))
    if size % 16 or not 64 <= size <= 1024:
        raise ConfigError(f"--size {size} cannot be used", cure="give a multiple of 16 from 64 to 1024")
    if origin and origin.same_parts and size != origin.size:
        raise ConfigError(
            f"--size {size} is not the {origin.size} of what --update goes on from",
            cure="leave --size out; another size needs a new training",
        )
    if epochs and steps:
        raise ConfigError("--epochs and --steps are given both", cure="give one of them")
    batch = min(given["batch"], len(roles.fit))
    share = STAGE if origin else 1
    budget = round(share * BUDGETS[given["budget"] or BUDGET])
    count = steps or (epochs * -(-len(roles.fit) // batch) if epochs else budget)
    return RunConfig(
        product=_product(root.resolve()),
        data=str(root.resolve()),
        size=size,
        width=origin.width if origin else _width(init) if init else WIDTH,
        steps=0 if origin and origin.same_parts else count,
        batch=batch,
        seed=given["seed"],
        importance=not given["uniform"],
        init=sha256_of(init) if init else "",
        origin=origin.name if origin else "",
        commit=git_commit(),
        view=sight.view if sight else None,
    )


def _width(init: Path) -> int:
    """Width of the encoder that a file of weights fits, all of it: the run folder will name it for good."""
    width = width_of(init)
    load_initial_weights(Encoder(width), init)
    return width


def _look_with_bar(pictures: Sequence[Picture]) -> Looked:
    with progress_bar(console) as progress:
        bar = progress.add_task("read the pictures", total=len(pictures))
        looked = check_pictures(pictures, advance=lambda: progress.advance(bar))
    if len(looked.sizes) > 1:
        ((wide, high), usual), ((width, height), others) = list(looked.sizes.items())[:2]
        told = f"the pictures have {len(looked.sizes)} sizes: {len(usual)} are {wide} x {high}, {len(others)} "
        told += f"{width} x {height}, like {others[0].path}; all are stretched to the same square, "
        told += "and a camera has one size"
        console.print(told, soft_wrap=True)
    return looked


def _tell_misfits(misfits: Mapping[Path, OutOfView]) -> None:
    if misfits:
        path, why = next(iter(misfits.items()))
        told = (
            f"{counted(len(misfits), 'picture')} only counted, as a station would make no decision there, like "
        )
        console.print(f"{told}{path}: {why.what}", soft_wrap=True)


def _tell_enlarged(looked: Looked, side: int) -> None:
    """Say which pictures have fewer than a quarter of the pixels that the model is shown."""
    small = [p for (width, height), few in looked.sizes.items() if 4 * width * height < side**2 for p in few]
    if small:
        told = f"{counted(len(small), 'picture')} far smaller than the {side} x {side} pixels of --size, like "
        told += f"{small[0].path}: blown up, they show no more; train with a smaller --size, or on pictures, "
        console.print(f"{told}or a roi, with more pixels of the part", soft_wrap=True)


def _tell_copies(found: PictureSet, new: PictureSet) -> None:
    """Say what was left out or kept together because it is there twice."""
    known, tested = len(found.train) - len(new.train), len(found.test) - len(new.test)
    for count, what in (
        (found.copies, "with the content of another one: kept together with it, as one part"),
        (found.left_out, "of the test left out: the same pictures or parts are learned from"),
        (known, "of good parts left out, as the model knows them already"),
        (tested, "of the test left out, as the model learned from them before"),
    ):
        if count:
            console.print(f"{counted(count, 'picture')} {what}", soft_wrap=True)


def _tell_known(roles: Roles, known: Collection[str]) -> None:
    if count := sum(picture.group in known for picture in roles.held_back):
        told = f"{counted(count, 'picture')} of parts that the model knows held back, for want of others: "
        console.print(told + "new good parts will score higher than they", soft_wrap=True)


def _tell_masked(masked: Masked) -> None:
    for pictures, what in (
        (masked.empty, "without a mark in what is looked at, like {}: as if there were none"),
        (masked.most, "marking most of what is looked at, like {}: is it bright where the defect is?"),
    ):
        if pictures:
            told = f"{counted(len(pictures), 'mask')} {what.format(pictures[0].mask)}"
            console.print(told, soft_wrap=True)


def _tell_unmasked(bad: Sequence[Picture]) -> None:
    """Say which defects the figures of pixels leave out, where others have masks."""
    without = [picture for picture in bad if picture.mask is None]
    if without and len(without) < len(bad):
        told = f"{len(without)} of {len(bad)} bad pictures have no mask, like {without[0].path}: the figures "
        console.print(told + "of pixels leave them out", soft_wrap=True)


def _product(root: Path) -> str:
    """Name of the part: that of its folder, with the characters a bundle's name may have.

    Masters and versions belong to a name, so two parts must not share one: ボルト and ナット would both be ---.
    """
    name = next((folder.name for folder in (root, *root.parents) if folder.name not in _NO_PRODUCT), "")
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "-" for c in name)
    if name.isascii():
        return safe[:64] or "part"
    own = hashlib.sha256(one_spelling(name).encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{safe.strip('-')[:55] or 'part'}-{own}"


def _show(figures: dict[str, Any], model: str) -> None:
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
    console.print(table)
    if "image_auroc" not in figures:
        told = "nothing tells good from bad parts here: the other figures need test pictures of both"
        console.print(told, soft_wrap=True)
