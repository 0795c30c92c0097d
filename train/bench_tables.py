"""Tables of a benchmark: what each recipe reaches, what the hierarchy gains, how few pictures are enough."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

import numpy as np

from kenpin.commit import git_commit
from kenpin.machine_state import processor
from kenpin.train.arm import Arm, arms, difference, headline
from kenpin.train.metrics import Interval
from kenpin.train.outcome import Outcome
from kenpin.train.study import Study

HIERARCHY = "hierarchical"
Arms = dict[tuple[str, str, int], Arm]


def recipe_table(outcomes: Sequence[Outcome]) -> Study:
    """One row for each set and recipe."""
    rows = []
    for (name, recipe, _), arm in arms(outcomes).items():
        masks = np.isfinite(arm.mean("aupro_30"))
        rows.append(
            [
                name,
                recipe,
                f"{arm.seconds:.0f}",
                told(arm.auroc("learned")),
                told(arm.auroc("complete")),
                f"{arm.mean('pixel_auroc'):.3f}" if masks else "no masks",
                f"{arm.mean('aupro_30'):.3f} / {arm.mean('aupro_05'):.3f}" if masks else "no masks",
                f"{arm.escapes():.0f}",
            ]
        )
    columns = [
        "set",
        "recipe",
        "CPU s",
        "image AUROC, learned maps alone",
        "image AUROC, complete",
        "pixel AUROC",
        "AUPRO 30 % / 5 %",
        "escapes per 1,000 at 10 false calls",
    ]
    return study(
        "Recipes at equal compute", columns, sorted(rows, key=lambda row: str(row[0])), measured=outcomes
    )


def headline_table(outcomes: Sequence[Outcome], references: Sequence[str]) -> Study:
    """The hierarchy against each reference: a row for each set, and their mean."""
    found, rows = arms(outcomes), []
    sets = list(dict.fromkeys(name for name, _, _ in found))
    for reference in references:
        pairs = [headline(found[name, HIERARCHY, 0], found[name, reference, 0]) for name in sets]
        for name, pair in zip(sets, pairs, strict=True):
            reached = f"{pair.seconds_share:.2f}" if np.isfinite(pair.seconds_share) else "not reached"
            rows.append([reference, name, reached, told(pair.points, digits=1)])
        # Not reached counts as all of the reference's seconds, which flatters nobody.
        shares = [min(1.0, p.seconds_share) if np.isfinite(p.seconds_share) else 1.0 for p in pairs]
        mean = np.mean([p.points.value for p in pairs])
        rows.append([reference, "mean", f"{np.mean(shares):.2f}", f"{mean:+.1f}"])
    columns = [
        "against",
        "set",
        "share of its seconds until its final AUROC",
        "points of AUROC ahead at equal compute",
    ]
    return study("Hierarchical against flat, learned maps alone", columns, rows, measured=outcomes)


def ablation_table(outcomes: Sequence[Outcome], which: str) -> Study:
    """Points of AUROC lost on each set by taking one thing away."""
    found = arms(outcomes)
    sets = list(dict.fromkeys(name for name, _, _ in found))
    recipes = [r for r in dict.fromkeys(recipe for _, recipe, _ in found) if r != HIERARCHY]
    full = [f"{found[name, HIERARCHY, 0].auroc(which).value:.3f}" for name in sets]
    rows = [[HIERARCHY, f"{_seconds(found, sets, HIERARCHY):.0f}", *full, ""]]
    for recipe in recipes:
        changes = [difference(found[n, recipe, 0], found[n, HIERARCHY, 0], which=which) for n in sets]
        mean = f"{np.mean([change.value for change in changes]):+.1f}"
        seconds = f"{_seconds(found, sets, recipe):.0f}"
        rows.append([recipe, seconds, *(told(change, digits=1) for change in changes), mean])
    title = f"Ablation, image AUROC of the {which} {'maps alone' if which == 'learned' else 'head'}"
    notes = ["First row: AUROC. Other rows: points that change, with the 95 % interval over parts and seeds."]
    columns = ["taken away", "CPU s", *sets, "mean"]
    return study(title, columns, rows, notes + _allotments(found), measured=outcomes)


def few_table(outcomes: Sequence[Outcome]) -> Study:
    """AUROC of the complete head by number of pictures: mean and spread over the draws."""
    rows = []
    for (name, _, pictures), arm in sorted(
        arms(outcomes).items(), key=lambda kv: (kv[0][0], kv[0][2] or 10**9)
    ):
        values = arm.aurocs("complete")
        spread = f"{values.std(ddof=1):.3f}" if len(values) > 1 else "-"
        rows.append([name, str(pictures or "all"), f"{values.mean():.3f}", spread, f"{values.min():.3f}"])
    columns = ["set", "good pictures", "image AUROC, mean over draws", "standard deviation", "lowest"]
    return study("Few pictures", columns, rows, measured=outcomes)


def study(
    title: str,
    columns: list[str],
    rows: Sequence[list[str]],
    notes: Sequence[str] = (),
    *,
    measured: Sequence[Outcome] = (),
) -> Study:
    """A table with where and when it was measured.

    Args:
        title: Headline.
        columns: Heads.
        rows: Cells.
        notes: Sentences below the table.
        measured: Results that were kept: their commits and days count, not those of now.
    """
    today = f"{datetime.now(tz=timezone.utc):%Y-%m-%d}"
    return Study(
        title=title,
        machine=processor(),
        commit=_each([o.commit for o in measured]) if measured else git_commit(),
        date=_each([o.date for o in measured]) if measured else today,
        columns=columns,
        rows=[list(row) for row in rows],
        notes=list(notes),
    )


def _each(values: Sequence[str]) -> str:
    """Every value that is there, once."""
    return ", ".join(sorted({value for value in values if value}))


def as_markdown(table: Study) -> str:
    """The table as it stands in a document."""
    lines = [f"{table.title}. {table.origin}.", "", f"| {' | '.join(table.columns)} |"]
    lines += ["|---" * len(table.columns) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in table.cells]
    return "\n".join([*lines, *(["", *table.notes] if table.notes else [])])


def told(figure: Interval, *, digits: int = 3) -> str:
    """Value and interval as text; differences carry their sign."""
    sign = "+" if digits == 1 else ""
    inner = f"{figure.low:{sign}.{digits}f} .. {figure.high:{sign}.{digits}f}"
    return f"{figure.value:{sign}.{digits}f} ({inner})"


def _seconds(found: Arms, sets: Sequence[str], recipe: str) -> float:
    return float(np.mean([found[name, recipe, 0].seconds for name in sets]))


def _allotments(found: Arms) -> list[str]:
    """What the probe found on each set, mean over the seeds."""
    told_ = []
    for (name, recipe, _), arm in found.items():
        probed = [o.allotment for o in arm.outcomes if o.allotment]
        if recipe != HIERARCHY or not probed:
            continue
        parts = [
            f"{level} {100 * np.mean([p.share[level] for p in probed]):.0f} % "
            f"({100 * np.mean([p.gain[level] for p in probed]):+.1f} points)"
            for level in probed[0].share
        ]
        told_.append(f"{name}: after the probe the rest went to {', '.join(parts)}.")
    return told_
