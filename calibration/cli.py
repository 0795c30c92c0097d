"""`kenpin calibrate`: each verb is imported only when it is asked for."""

from __future__ import annotations

import click

from kenpin.lazy_group import LazyGroup

# name -> module:command, help
_VERBS = {
    "fit": ("kenpin.calibration.fit_cli:fit", "Choose T1 and T2 from good parts and masters, and sign them."),
    "confirm": (
        "kenpin.calibration.fit_cli:confirm",
        "Show fresh good parts, so that TRIAL becomes CONFIRMED.",
    ),
    "set": ("kenpin.calibration.place_cli:place", "Place T1 and T2 by hand; fresh parts must prove them."),
    "show": ("kenpin.calibration.place_cli:show", "Show the calibration in force and what it proves."),
    "cost": ("kenpin.calibration.place_cli:cost", "Show what a position of T1 would cost."),
    "msa": ("kenpin.calibration.msa_cli:msa", "Show the same parts three times: does the verdict hold?"),
}


@click.group(cls=LazyGroup, commands_at=_VERBS)
def calibrate() -> None:
    """Set the thresholds, with proof."""
