"""`report.html` of a run: one file, no outside request, looked at by a person before export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from kenpin.errors import TrainError
from kenpin.synced_file import replace_synced
from kenpin.train.card import facts, figure_rows
from kenpin.train.doubts import read_doubts
from kenpin.train.evaluate import Scores
from kenpin.train.gallery import doubt_shelf, mean_maps, shelves
from kenpin.train.metrics import STOPPED_PER_1000, limit_at
from kenpin.train.plots import histogram, loss_curves, roc
from kenpin.train.run import RunFolder
from kenpin.train.study import read_studies

TEMPLATE = Path(__file__).with_name("report.html.jinja")
# Without labels: a score of 1 is what the worst place of one good part in ten reaches.
USUAL_LIMIT = 1.0


@dataclass(frozen=True)
class Allotment:
    """How the training was given to the levels.

    Attributes:
        rows: Level, gain in AUROC and share of the rest of the training, as text.
        because: Why, one sentence.
    """

    rows: list[tuple[str, str, str]]
    because: str


def write_report(folder: RunFolder, held_back: Scores, test: Scores | None, figures: dict[str, Any]) -> None:
    """Write the report.

    Args:
        folder: The run.
        held_back: Scores of held-back good pictures.
        test: Scores of test pictures, where there are some.
        figures: What `measure` said of them.

    Raises:
        TrainError: The disk is full.
    """
    labelled = test is not None and bool(test.bad.any()) and not bool(test.bad.all())
    limit = limit_of(test) if test is not None and labelled else USUAL_LIMIT
    doubts = read_doubts(folder)
    html = render(
        TEMPLATE,
        config=folder.config,
        facts=facts(folder),
        figures=figure_rows(figures),
        parts_of={name: f"{value:.3f}" for name, value in figures.get("auroc_of", {}).items()},
        histogram=histogram(held_back, test, limit),
        roc=roc(test) if test is not None and labelled else "",
        limit=limit,
        labelled=labelled,
        mean_maps=mean_maps(held_back, test),
        shelves=[*map(doubt_shelf, [doubts] if doubts else []), *shelves(test or held_back, limit)],
        loss=loss_curves(folder.metrics()),
        allotment=last_allotment(folder.metrics()),
        studies=read_studies(folder.root),
    )
    path = folder.root / "report.html"
    try:
        write_page(path, html)
    except OSError as error:
        raise TrainError(
            f"cannot write: {error.strerror}", where=path, cure="free disk space, then: kenpin report RUN"
        ) from None


def write_page(path: Path, html: str) -> None:
    """Write a page; the old one stays until the new one is complete.

    File names that are not UTF-8, as from a foreign archive, are shown with their odd bytes as numbers.
    """
    replace_synced(path, html.encode("utf-8", "backslashreplace"), mode=0o666)


def limit_of(test: Scores) -> float:
    """The score where 1 % of the good test parts are stopped."""
    return limit_at(test.score[~test.bad], false_calls_per_1000=STOPPED_PER_1000)


def last_allotment(metrics: Sequence[Mapping[str, Any]]) -> Allotment | None:
    """The last allotment that training logged; None where it logged none."""
    found = [m["allotment"] for m in metrics if "allotment" in m]
    if not found:
        return None
    gain, share = found[-1].get("gain", {}), found[-1].get("share", {})
    rows = [
        (level, f"{gain.get(level, 0):+.3f}", f"{100 * share.get(level, 0):.0f} %")
        for level in {**gain, **share}
    ]
    return Allotment(rows, str(found[-1].get("because", "")))


def render(template: Path, **content: Any) -> str:
    """A page from a template. A name that the template needs and is not given is an error."""
    jinja = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return str(jinja.from_string(template.read_text(encoding="utf-8")).render(**content))
