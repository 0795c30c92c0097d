"""`kenpin train`."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import click
import torch
from click.core import ParameterSource

from kenpin import options
from kenpin.commit import git_commit
from kenpin.errors import ConfigError, DataError, TrainError
from kenpin.folder_names import GOOD, good_in, is_name_of_good
from kenpin.picture_files import one_spelling, sha256_of
from kenpin.pictures import PictureSet, read_data, read_good_bad
from kenpin.sight import Sight, read_sight
from kenpin.strips import NUMBERS
from kenpin.train.data import Roles, assign_roles
from kenpin.train.device import PRECISIONS, open_fabric
from kenpin.train.doubts import read_doubts
from kenpin.train.encoder import Encoder
from kenpin.train.init import load_initial_weights, width_of
from kenpin.train.intake import check_masks, check_teachers
from kenpin.train.intake_cli import (
    console,
    tell_by_masks,
    tell_copies,
    tell_doubts,
    tell_few,
    tell_folders,
    tell_known,
    tell_masked,
    tell_passed_over,
    tell_unfollowed,
    tell_unmasked,
    through,
    through_own_view,
)
from kenpin.train.learn import Means, learn, update
from kenpin.train.report_cli import measure_and_report, show_figures
from kenpin.train.run import RunConfig, RunFolder
from kenpin.train.tracking import KINDS, load_package, open_tracker
from kenpin.train.transfer import STAGE, Origin, load_origin

# Steps of pretraining. Quick is for a first look, long for a product that pays for a night.
BUDGETS = {"quick": 450, "standard": 1500, "long": 6000}
BUDGET = "quick"
BATCH = 24
WIDTH = 32
SIZE = 160
# Folders of a part's pictures, which do not have its name; nor has one of good parts.
_NO_PRODUCT = ("train", "test")
# Every draw depends on the seed times a large number, which has to fit into 64 bits.
MOST_SEED = 2**32 - 1
# What has no effect together with a model that is there.
_NOT_WITH_FROM = ("init", "uniform", "update")
_NOT_WITH_UPDATE = (
    *("init", "budget", "steps", "epochs", "batch", "uniform", "teach", "view", "whole", "strips"),
    *("precision", "cache_mb", "compiled", "log"),
)


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
        if self.data and (learned := good_in(self.data / "train")):
            folders = [learned, self.data / "test"]
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
        if self.data is None:
            return read_good_bad(root, self.bad, seed=seed)
        tell_passed_over(root)
        found = read_data(root, seed=seed)
        tell_by_masks(found)
        if not found.train:
            raise DataError(
                "by their masks no part to learn from is good",
                where=root,
                cure="add good parts: each with a mask that is all black, or without where masks lie in Label",
            )
        return found


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Folder: MVTec, good/ beside defects, or masks.")
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
@options.size(show_default="160, or the origin's", help="Side of the model's input, pixels.")
@click.option(
    "--strips",
    type=click.Choice([str(number) for number in NUMBERS]),
    show_default="by their proportions",
    help="Cut long pictures into so many strips.",
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
    folder = RunFolder(run)
    if not resume and not console.quiet:  # of several processes, another may have begun it
        folder.refuse_taken()
    origin = _origin(given)
    begun = folder if resume and folder.exists else None
    found = _look_through(source.read(seed=given["seed"]), given, origin, begun=begun)
    sight = found.train[0].sight
    roles = _assign(found, source.root, given, origin)
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
        _learn(folder, roles, means, origin, init=given["init"])
    if not fabric.is_global_zero:
        return
    figures = measure_and_report(folder)
    figures["seconds"] = round(time.monotonic() - started, 1)
    show_figures(figures, folder.config.product)
    if doubts := read_doubts(folder):
        tell_doubts(doubts.pictures)
    console.print(f"run folder: {folder.root}   report: {folder.root / 'report.html'}", soft_wrap=True)
    if as_json:
        click.echo(json.dumps({"run": str(run), **figures}))


def _origin(given: dict[str, Any]) -> Origin | None:
    """What --from or --update names."""
    path = given["similar"] or given["update"]
    if path is None:
        return None
    context = click.get_current_context()
    own = {p.name: p.opts[0] for p in context.command.params if _is_given(context, p.name)}
    given_as, against = ("--from", _NOT_WITH_FROM) if given["similar"] else ("--update", _NOT_WITH_UPDATE)
    if others := ", ".join(own[name] for name in against if name in own):
        raise ConfigError(
            f"{given_as} is given together with {others}",
            cure=f"leave out {others}, or do without the model that is there",
        )
    return load_origin(path, same_parts=given["update"] is not None, trust=given["trust"])


def _is_given(context: click.Context, name: str | None) -> bool:
    return name is not None and context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _look_through(
    found: PictureSet, given: dict[str, Any], origin: Origin | None, *, begun: RunFolder | None
) -> PictureSet:
    """All pictures through one view, each looked at; a run, or a model of the same parts, keeps its own."""
    if given["view"] and given["whole"]:
        raise ConfigError("--view and --whole are given both", cure="give one of them")
    side, strips = _size(given, origin), int(given["strips"]) if given["strips"] else None
    if origin and origin.same_parts:
        return through(found, origin.sight, side=side, strips=origin.strips)
    if given["view"]:
        sight = read_sight(given["view"])
        tell_unfollowed(found, sight)
        return through(found, sight, side=side, strips=strips)
    if given["whole"]:
        return through(found, None, side=side, strips=strips)
    if begun:
        return through(found, begun.sight, side=side, strips=strips)
    return through_own_view(found, side=side, strips=strips)


def _assign(found: PictureSet, where: Path, given: dict[str, Any], origin: Origin | None) -> Roles:
    """Who does what, of what the origin has not learned from; what is left out and what masks lack is told."""
    known = origin.known_parts((*found.train, *found.test)) if origin else frozenset()
    new = origin.unseen(found, known) if origin else found
    tell_copies(found, new)
    roles = assign_roles(new, where=where, seed=given["seed"], teach=given["teach"], known=known)
    tell_known(roles, known)
    tell_folders([picture for picture in (*found.train, *found.test) if picture.label == GOOD])
    tell_few(roles.held_back)
    masked = check_masks((*roles.test, *roles.teach))
    tell_masked(masked)
    tell_unmasked([picture for picture in roles.test if picture.label != GOOD])
    check_teachers(picture for picture in roles.teach if picture in masked.empty)
    return roles


def _learn(folder: RunFolder, roles: Roles, means: Means, origin: Origin | None, *, init: Path | None) -> None:
    """Train, or remember new pictures of what the origin knows; a stop and a full device are told."""
    try:
        if origin and origin.same_parts:
            update(folder, roles, means, origin)
        else:
            learn(folder, roles, means, init=init, origin=origin)
    except KeyboardInterrupt:
        console.print("stopped; the same command with --resume goes on from the last checkpoint")
        raise
    except torch.OutOfMemoryError:
        raise TrainError(
            "the device is out of memory",
            where=means.fabric.device,
            cure="go on with --resume --device cpu, or train with a smaller --size",
        ) from None
    finally:
        means.tracker.close()


def _size(given: dict[str, Any], origin: Origin | None) -> int:
    """Side of the model's input, pixels."""
    return int(given["size"] or (origin.size if origin else SIZE))


def _config(
    root: Path, roles: Roles, given: dict[str, Any], origin: Origin | None, sight: Sight | None
) -> RunConfig:
    size = _size(given, origin)
    steps, epochs, init = (given[name] for name in ("steps", "epochs", "init"))
    if origin and origin.same_parts and size != origin.size:
        raise ConfigError(
            f"--size {size} is not the {origin.size} of what --update goes on from",
            cure="leave --size out; another size needs a new training",
        )
    if len(lengths := [f"--{name}" for name in ("budget", "epochs", "steps") if given[name]]) > 1:
        raise ConfigError(f"{' and '.join(lengths)} are given together", cure="give one of them")
    batch = min(given["batch"], len(roles.fit))
    share = STAGE if origin else 1
    budget = round(share * BUDGETS[given["budget"] or BUDGET])
    count = steps or (epochs * -(-len(roles.fit) // batch) if epochs else budget)
    return RunConfig(
        # Masters and versions belong to a name: the same parts from a folder of another day keep theirs.
        product=origin.product if origin and origin.same_parts else _product(root.resolve()),
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
        strips=roles.fit[0].strips,
    )


def _width(init: Path) -> int:
    """Width of the encoder that a file of weights fits, all of it: the run folder will name it for good."""
    if RunFolder(init.parent).exists:  # of BGR pictures: they would fit, with red and blue exchanged
        raise ConfigError(
            "the weights are those of a run",
            where=init,
            cure=f"start on its model with --from {quote(str(init.parent))}",
        )
    width = width_of(init)
    load_initial_weights(Encoder(width), init)
    return width


def _product(root: Path) -> str:
    """Name of the part: that of its folder, with the characters a bundle's name may have.

    Masters and versions belong to a name, so two parts must not share one: ボルト and ナット would both be ---.
    """
    names = (folder.name for folder in (root, *root.parents))
    name = next((n for n in names if n not in _NO_PRODUCT and not is_name_of_good(n)), "")
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "-" for c in name)
    if name.isascii():
        return safe[:64] or "part"
    own = hashlib.sha256(one_spelling(name).encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{safe.strip('-')[:55] or 'part'}-{own}"
