"""The model card: what a bundle is for, what it was measured to do, and what it must not be used for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kenpin.export.parity import Parity

_CARD = """\
# {product} {version}

An anomaly detector for one part: it was shown good parts of "{product}" and scores how unlike them a
picture is. Higher is stranger. It does not know what a defect is, and it decides nothing: the thresholds
that turn its score into OK, REVIEW or NG are set by calibration, on the station, with the station's pictures.

## Made from
{made_from}

## Measured
On {pictures} pictures that were not trained on, among them {good} test pictures of good and {bad} of bad parts.

| model | AUROC |
|---|---|
{auroc}

{int8}

## Limits
* It knows this part, this camera, this lens, this light and this exposure. Any change needs a new
  calibration, and mostly a new training.
* It is shown {shown}. What is not visible at that size, or
  lies elsewhere, it cannot find.
* The figures above hold for pictures like those that were given. The rate of escapes on the line follows
  from calibration with known bad parts (masters), not from this card.

## Not to be used
* without a calibration record for this bundle and this station;
* for another product, or as the only protection where a missed defect can hurt a person;
* to judge people, or for anything but the inspection of parts.
"""

_INT8 = """\
INT8 ({convs} of {all_convs} convolutions of the encoder, the others {real}) against float: largest difference
of a score {int8_max:.4g}, 99 % of them below {int8_p99:.4g}; signal to noise of the anomaly map {sqnr:.1f} dB.
At a threshold that {passing} stay below ({threshold:.4g}), {flips} of {judged} verdicts
change (bad parts that pass: {escapes} more; good parts stopped: {false_calls} more). Half of these pictures
chose which convolutions are INT8. Of the {unseen} others {unseen_flips} changed sides with that choice{then}.
Were they independent, that would prove that at most {bound:.2g} % of all verdicts change (95 % confidence).
All of this was computed on a processor, with INT8 simulated; no GPU took part."""


def write_card(
    *, names: tuple[str, str], shown: str, lineage: Mapping[str, Any], parity: Parity, how: Mapping[str, Any]
) -> str:
    """The text of `card.md`.

    Args:
        names: Product and version.
        shown: What of each picture the model is shown, at which size.
        lineage: Where the model comes from, one line each.
        parity: What export measured.
        how: How it was quantised, and what the accuracy gate found.
    """
    product, version = names
    has_int8 = how["precision"] != "fp32"
    return _CARD.format(
        product=product,
        version=version,
        made_from="\n".join(f"* {name.replace('_', ' ')}: {value}" for name, value in lineage.items()),
        pictures=parity.pictures,
        good=parity.test_good,
        bad=parity.test_bad,
        auroc="\n".join(f"| {n} | {v:.4f} |" for n, v in parity.auroc.items() if has_int8 or n != "int8")
        or "| not known: that needs good and bad test pictures | - |",
        int8=_of_int8(parity, how) if has_int8 else "There is no INT8 in this bundle.",
        shown=shown,
    )


def _of_int8(parity: Parity, how: Mapping[str, Any]) -> str:
    gate, unseen = how["gate"], how["gate"]["unseen"]
    more = len(how["floats"]) - unseen["returned_to_float"]
    return _INT8.format(
        convs=len(how["convs"]),
        all_convs=len(how["layers"]),
        real="fp16" if how["precision"] == "fp16" else "fp32",
        int8_max=parity.int8_shift.max,
        int8_p99=parity.int8_shift.p99,
        sqnr=parity.sqnr_db["anomaly_map"],
        passing=parity.passing,
        threshold=gate["threshold"],
        flips=gate["flips"],
        judged=gate["pictures"],
        escapes=gate["new_escapes"],
        false_calls=gate["new_false_calls"],
        unseen=unseen["pictures"],
        unseen_flips=unseen["flips"],
        then=f", so {more} more convolutions were returned to float" if more else "",
        bound=100 * unseen["flip_bound"],
    )
