"""`kenpin calibrate msa`: the same parts three times, and how far the verdict can be relied on."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from kenpin import options
from kenpin.book import calibration_lock, open_book
from kenpin.bundle import open_bundle
from kenpin.bundle_cli import trusted_keys
from kenpin.calibration.msa import Judgement, Study, read_judgements, station_judgements, study
from kenpin.calibration.shown import Shown, score_shown
from kenpin.calibration.threshold import parts_needed
from kenpin.errors import ConfigError
from kenpin.record import Bound
from kenpin.station_folder import StationFolder

_WANTED_MISS = 0.02


@click.command()
@click.option("--good", type=click.Path(path_type=Path), help="Folder of good parts, three pictures of each.")
@options.masters
@click.option(
    "--decisions",
    type=click.Path(path_type=Path),
    help="Instead, of people: CSV part,reference(good|bad),decision(ok|stopped)[,appraiser].",
)
@options.state
@options.trust
@options.as_json
@click.pass_context
def msa(  # noqa: PLR0913 - one argument per option
    ctx: click.Context,
    *,
    good: Path | None,
    masters: Path | None,
    decisions: Path | None,
    state: Path,
    trust: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Judge the same parts several times and hold the result against the limits of AIAG.

    The column `group` of manifest.csv says which pictures are of one part. Ends with 1 when it is unacceptable,
    or when good or bad parts were not shown at all.
    """
    if (decisions is None) == (good is None):
        raise ConfigError("give either --good DIR and --masters DIR, or --decisions CSV")
    if good is not None:
        judged = _by_the_station(StationFolder(state), Shown(good, masters, None, None), trust)
    else:
        assert decisions is not None
        judged = read_judgements(decisions)
    studies = study(judged)
    for line in (line for found in studies for line in _in_words(found)):
        click.echo(line, err=True)
    if as_json:
        click.echo(json.dumps({"studies": [_document(found) for found in studies]}))
    ctx.exit(0 if all(found.grade in ("acceptable", "marginal") for found in studies) else 1)


def _by_the_station(folder: StationFolder, shown: Shown, trust: tuple[Path, ...]) -> list[Judgement]:
    bundle = open_bundle(folder.installed(), trusted_keys(trust))
    with calibration_lock(folder):
        record = open_book(folder).newest(bundle.sha256)
    scores, _ = score_shown(Shown(shown.good, shown.masters, None, record.precision), bundle, folder)
    return station_judgements(scores, record.t1)


def _in_words(found: Study) -> list[str]:
    lines = [
        f"{found.appraiser}: {found.parts} parts, each {found.repeats} times or more: {found.grade.upper()}",
        f"  right every time: {_at_least(found.effective)} (AIAG: 90 %, marginal 80 %)",
        f"  the same every time: {_at_least(found.same)}",
    ]
    if found.miss is not None and found.missed is not None:
        lines.append(
            f"  misses: {found.miss:.2%} of judgements (AIAG: 2 %, marginal 5 %); {_at_most(found.missed)}"
        )
        if found.missed.bound > _WANTED_MISS:
            needed = parts_needed(_WANTED_MISS, stopped=found.missed.seen)
            lines.append(f"    2 % would be proved by {needed} different bad parts with no further miss")
    if found.false_alarm is not None and found.alarmed is not None:
        alarms = f"  false alarms: {found.false_alarm:.2%} of judgements (AIAG: 5 %, marginal 10 %)"
        lines.append(f"{alarms}; {_at_most(found.alarmed)}")
    for kind, wrong, rate in (("bad", "misses", found.miss), ("good", "false alarms", found.false_alarm)):
        if rate is None:
            lines.append(f"  no {kind} part was shown: nothing is known of {wrong}")
    if found.kappa is not None and found.kappa_at_least is not None:
        kappa = f"{found.kappa:.2f}, 95 % certain at least {math.floor(found.kappa_at_least * 100) / 100:.2f}"
        lines.append(f"  kappa: {kappa} (over 0.75 good, below 0.40 poor)")
    return lines


def _at_least(bound: Bound) -> str:
    return f"{bound.seen} of {bound.of} parts, 95 % certain at least {bound.bound:.1%}"


def _at_most(bound: Bound) -> str:
    return f"{bound.seen} of {bound.of} parts once or more, 95 % certain not more than {bound.bound:.2%}"


def _document(found: Study) -> dict[str, Any]:
    return {
        name: value.model_dump() if isinstance(value, Bound) else value for name, value in asdict(found).items()
    }
