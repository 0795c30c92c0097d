"""`kenpin calibrate`: set the thresholds, with proof."""

from __future__ import annotations

import getpass
import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from kenpin.bundle import Bundle, open_bundle
from kenpin.bundle_cli import trusted_keys
from kenpin.calibration.fit import Basis, calibration_lock, record_fit
from kenpin.calibration.scores import MASTER, ScoreSet, check_fresh, read_scores, score_pictures
from kenpin.calibration.words import describe, more_parts_needed, warnings_about
from kenpin.edge_runtime.engine_choice import choose_engine
from kenpin.errors import CalibrationError, ConfigError, DataError
from kenpin.frame import Image
from kenpin.pictures import GOOD, Picture, read_folder
from kenpin.precision import Precision
from kenpin.quality import Quality, measure
from kenpin.quality_limits import learn_limits
from kenpin.record import CalibrationRecord, load_records
from kenpin.signing import PublicKey
from kenpin.station_folder import StationFolder

_STATE = Path("/var/lib/kenpin")


@dataclass(frozen=True)
class _Shown:
    """What was given to calibrate on: pictures, or scores that were stored."""

    good: Path | None
    masters: Path | None
    scores: Path | None
    precision: Precision | None

    def check(self) -> None:
        """Refuse options that contradict each other."""
        if (self.good is None) == (self.scores is None) or (self.masters and not self.good):
            raise ConfigError("give either --good DIR, with or without --masters DIR, or --scores CSV")
        if self.scores and not self.precision:
            raise ConfigError(
                "it is not clear which of the bundle's models gave the scores",
                cure="add --precision int8, fp16 or fp32",
            )


@click.group()
def calibrate() -> None:
    """Set the thresholds, with proof."""


@calibrate.command()
@click.option("--bundle", "bundle_path", type=click.Path(path_type=Path), help="Default: the active one.")
@click.option("--good", type=click.Path(path_type=Path), help="Folder of good parts, fresh ones, 50 or more.")
@click.option("--masters", type=click.Path(path_type=Path), help="Folder of known bad parts.")
@click.option("--scores", type=click.Path(path_type=Path), help="CSV: name,score,label(good|master)[,group].")
@click.option(
    "--precision", type=click.Choice(["int8", "fp16", "fp32"]), help="Default: what this station would run."
)
@click.option("--state", type=click.Path(path_type=Path), default=_STATE, show_default=True)
@click.option("--trust", type=click.Path(path_type=Path), multiple=True, help="Public key that may sign.")
@click.option("--by", default="", help="Who signs; default: the login name.")
@click.option("--why", default="", help="Reason, kept in the record.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def fit(  # noqa: PLR0913, PLR0917 - one argument per option
    bundle_path: Path | None,
    good: Path | None,
    masters: Path | None,
    scores: Path | None,
    precision: Precision | None,
    state: Path,
    trust: tuple[Path, ...],
    by: str,
    why: str,
    *,
    as_json: bool,
) -> None:
    """Choose T1 and T2 from good parts and masters, and sign what they prove.

    The good parts must not be those the model was trained on.
    """
    shown = _Shown(good, masters, scores, precision)
    shown.check()
    folder = StationFolder(state)
    with calibration_lock(folder):
        bundle = open_bundle(bundle_path or _active(folder), trusted_keys(trust))
        scored, used = _score(shown, bundle, folder)
        basis = Basis(bundle.sha256, used, by or _login_name(), why)
        record = record_fit(folder, scored, basis)
    _tell(record, folder, as_json=as_json)


@calibrate.command()
@click.option("--state", type=click.Path(path_type=Path), default=_STATE, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def show(state: Path, *, as_json: bool) -> None:
    """Show the calibration in force and what it proves."""
    folder = StationFolder(state)
    known = folder.records.exists()
    records = load_records(folder.records, PublicKey.load(folder.key.with_suffix(".pub"))) if known else []
    if not records:
        raise CalibrationError(
            "this station has never been calibrated",
            where=folder.records,
            cure="kenpin calibrate fit --good DIR --masters DIR --state DIR",
        )
    _tell(records[-1], folder, as_json=as_json)


def _active(folder: StationFolder) -> Path:
    if not folder.active.exists():
        raise CalibrationError(
            "no bundle is installed here",
            where=folder.active,
            cure=f"kenpin bundle install FILE --state {folder.root}, or give --bundle FILE",
        )
    return folder.active.resolve()


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise ConfigError("this user has no login name", cure="say who signs: --by NAME") from None


def _score(shown: _Shown, bundle: Bundle, folder: StationFolder) -> tuple[ScoreSet, Precision]:
    if shown.scores is not None:
        assert shown.precision is not None
        return read_scores(shown.scores), shown.precision
    assert shown.good is not None
    good = read_folder(shown.good, label=GOOD)
    masters = read_folder(shown.masters, label=MASTER) if shown.masters else []
    _check_apart(good, masters)
    check_fresh(good, bundle.manifest)
    choice = choose_engine(folder, bundle, shown.precision)
    engine = choice.loaded()
    if choice.note:
        click.echo(f"note: ONNX Runtime scores instead of TensorRT: {choice.note}", err=True)
    with closing(engine), Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("score", total=len(good) + len(masters))
        seen: list[Quality] = []

        def look(image: Image) -> None:
            seen.append(measure(image))
            progress.advance(bar)

        scored_good = score_pictures(engine, good, shown.good, scored=look)
        limits = learn_limits(seen)
        scored_masters = score_pictures(engine, masters, shown.masters or shown.good, scored=look)
    return ScoreSet(scored_good, scored_masters, limits), engine.precision


def _check_apart(good: list[Picture], masters: list[Picture]) -> None:
    both = {p.path.resolve() for p in good} & {p.path.resolve() for p in masters}
    if both:
        raise DataError(
            "a picture is given as good and as a master",
            where=min(both),
            cure="keep good parts and masters in separate folders",
        )


def _tell(record: CalibrationRecord, folder: StationFolder, *, as_json: bool) -> None:
    sentences, weak = describe(record), warnings_about(record)
    active = folder.active.resolve().name if folder.active.exists() else ""
    if record.bundle_sha256 != active:
        weak.append(
            f"this calibration is for bundle {record.bundle_sha256[:16]}, but "
            + (f"{active[:16]} is active" if active else "none is active")
            + ": the station is NOT CALIBRATED and releases no part"
        )
    for line in sentences + [f"warning: {w}" for w in weak]:
        click.echo(line, err=True)
    if as_json:
        document = {
            "record": record.model_dump(mode="json", by_alias=True),
            "in_force": record.bundle_sha256 == active,
            "more_good_parts_for_10_per_1000": more_parts_needed(record),
            "sentences": sentences,
            "warnings": weak,
        }
        click.echo(json.dumps(document))
