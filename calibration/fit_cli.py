"""`kenpin calibrate fit` and `confirm`: parts are shown, and what they prove is signed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from kenpin import options
from kenpin.book import calibration_lock, open_book
from kenpin.bundle import open_bundle
from kenpin.bundle_cli import trusted_keys
from kenpin.calibration.camera_settings import unknown_settings
from kenpin.calibration.confirm import WANTED_RATE, record_confirm
from kenpin.calibration.fit import Basis, record_fit
from kenpin.calibration.likeness import fence_above, unlike
from kenpin.calibration.scores import PictureScore
from kenpin.calibration.shown import Shown, score_shown
from kenpin.calibration.tell import tell
from kenpin.counted import counted
from kenpin.edge_runtime.light import light_against_sign_off
from kenpin.precision import Precision
from kenpin.record import newest_for
from kenpin.station_folder import StationFolder

_NAMED = 3


@click.command()
@options.bundle
@click.option("--good", type=click.Path(path_type=Path), help="Folder of good parts, fresh ones, 50 or more.")
@options.masters
@options.scores
@click.option(
    "--rank",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="T1 clears all good parts but the RANK - 1 highest; choose it before you see the scores.",
)
@options.precision
@options.state
@options.trust
@options.by
@options.why
@options.as_json
def fit(  # noqa: PLR0913, PLR0917 - one argument per option
    bundle_path: Path | None,
    good: Path | None,
    masters: Path | None,
    scores: Path | None,
    rank: int,
    precision: Precision | None,
    state: Path,
    trust: tuple[Path, ...],
    by: str,
    why: str,
    *,
    as_json: bool,
) -> None:
    """Choose T1 and T2 from good parts and masters, and sign what they prove.

    The parts must not be those the model was trained on.
    """
    shown = Shown(good, masters, scores, precision)
    shown.check()
    folder = StationFolder(state)
    with calibration_lock(folder):
        bundle = open_bundle(bundle_path or folder.installed(), trusted_keys(trust))
        # The station runs the model of the newest record; which one is faster is told otherwise each time.
        known = newest_for(open_book(folder).records, bundle.sha256)
        shown = replace(shown, precision=precision or (known.precision if known else None))
        scored, used = score_shown(shown, bundle, folder)
        record = record_fit(folder, scored, Basis(bundle.sha256, used, by, why), rank=rank)
    tell(record, folder, as_json=as_json)
    if other := unlike([s.score for s in scored.good], bundle.manifest.score_stats):
        click.echo(
            f"warning: half of these good parts score above {other.middle:.4g}, where 99 % of those that the "
            f"training held back are below {other.known:.4g}: they are not like what the model knows; see that "
            "bundle, folder, camera and light are those of this product, else bad parts pass too",
            err=True,
        )
    _tell_far(scored.good, record.t1)
    if unknown := unknown_settings(folder):
        click.echo(f"warning: {unknown}", err=True)
    light = light_against_sign_off(folder)
    if light is not None and light.is_other:
        now, low, high = light.rounded.values()
        click.echo(
            f"warning: the station's newest part has light {now}, these good parts had {low} to {high}: the "
            "station will judge no part until its light is theirs, or it is calibrated with parts of its own",
            err=True,
        )


def _tell_far(good: Sequence[PictureScore], t1: float) -> None:
    """Name good pictures far above the others: one bad part among them lets all that are less bad pass."""
    fence = fence_above([one.score for one in good])
    far = sorted((one for one in good if fence < one.score < t1), key=lambda one: -one.score)
    if not far:
        return
    named = ", ".join(f"{one.name} {one.score:.4g}" for one in far[:_NAMED])
    usual = max(one.score for one in good if one.score <= fence)
    click.echo(
        f"warning: {counted(len(far), 'good picture')} far above {usual:.4g}, which the others reach: {named}"
        f"{', …' if far[_NAMED:] else ''}; T1 stands above, so bad parts below it pass; look whether they are "
        "good, and show what is not as masters",
        err=True,
    )


@click.command()
@options.bundle
@click.option("--good", type=click.Path(path_type=Path), help="Folder of fresh good parts.")
@options.scores
@click.option(
    "--at-most",
    type=click.FloatRange(0, 1000, min_open=True, max_open=True),
    callback=options.finite,
    default=WANTED_RATE * 1000,
    show_default=True,
    help="False calls per 1,000 that are to be proved.",
)
@options.precision
@options.state
@options.trust
@options.by
@options.why
@options.as_json
def confirm(  # noqa: PLR0913, PLR0917 - one argument per option
    bundle_path: Path | None,
    good: Path | None,
    scores: Path | None,
    at_most: float,
    precision: Precision | None,
    state: Path,
    trust: tuple[Path, ...],
    by: str,
    why: str,
    *,
    as_json: bool,
) -> None:
    """Count fresh good parts; the thresholds become CONFIRMED when the count proves enough.

    They must be parts that nobody has trained or calibrated with. Those of earlier calls count with them.
    """
    shown = Shown(good, None, scores, precision)
    shown.check()
    folder = StationFolder(state)
    with calibration_lock(folder):
        bundle = open_bundle(bundle_path or folder.installed(), trusted_keys(trust))
        # The thresholds hold for the scores of one of the models only.
        known = open_book(folder).newest(bundle.sha256).precision
        scored, used = score_shown(replace(shown, precision=precision or known), bundle, folder)
        basis = Basis(bundle.sha256, used, by, why)
        record = record_confirm(folder, scored, basis, at_most=at_most / 1000)
    tell(record, folder, as_json=as_json)
