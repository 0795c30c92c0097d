"""Runs side by side: what each was given, what it cost, what it reached, and whether that may be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from kenpin.folder_names import GOOD
from kenpin.train.card import device_seconds, figure_of, fingerprint
from kenpin.train.plots import COLOURS, loss_curves_of_runs
from kenpin.train.report import render
from kenpin.train.run import RunFolder

TEMPLATE = Path(__file__).with_name("compare.html.jinja")
# key, head of the row, format
FIGURES = (
    ("image_auroc", "image AUROC", ".3f"),
    ("pixel_auroc", "pixel AUROC", ".3f"),
    ("aupro_30", "AUPRO 30 %", ".3f"),
    ("aupro_05", "AUPRO 5 %", ".3f"),
    ("escapes_at_10_per_1000", "escapes per 1,000 at 10 false calls per 1,000", ".0f"),
    ("false_calls_at_95", "false calls per 1,000 at 95 % caught", ".0f"),
    ("false_calls_at_99", "false calls per 1,000 at 99 % caught", ".0f"),
    ("ms_per_image", "ms per image", ".2f"),
)
OTHER_PICTURES = "other test pictures, labels or masks: do not compare"


@dataclass(frozen=True)
class Entry:
    """One run in a comparison.

    Attributes:
        name: Name of its folder, or the path where two are called alike.
        settings: Product, size, steps, seed, commit and so on.
        test_pictures: How many took part in the measurement.
        test_sha256: Fingerprint of these, of which ones are bad, and of masks; runs with the same one may be
            compared.
        figures: Of the last evaluation; empty where there was none.
        metrics: All lines of metrics.jsonl.
    """

    name: str
    settings: dict[str, Any]
    test_pictures: int
    test_sha256: str
    figures: dict[str, Any]
    metrics: list[dict[str, Any]]

    def comparable(self, first: Entry) -> bool:
        """Whether it was measured on the pictures of the first run, with the same truth about them."""
        return self.test_sha256 == first.test_sha256


def read_entries(roots: Sequence[Path]) -> list[Entry]:
    """Read runs.

    Raises:
        ConfigError: A folder is not a run.
    """
    names = [root.resolve().name for root in roots]
    unique = len(set(names)) == len(names)
    return [_read(root, name if unique else str(root)) for root, name in zip(roots, names, strict=True)]


def rows_of(entries: Sequence[Entry]) -> list[tuple[str, list[str]]]:
    """Head and cells of each row of the table, one cell per run."""
    rows = [(key.replace("_", " "), [_text(e.settings[key]) for e in entries]) for key in entries[0].settings]
    rows.append(("test pictures", [_pictures(e, entries[0]) for e in entries]))
    rows += [(head, [_figure(e, key, form) for e in entries]) for key, head, form in FIGURES]
    return rows


def as_table(entries: Sequence[Entry]) -> Table:
    """The comparison for a terminal, one column per run."""
    table = Table(title="runs")
    table.add_column("")
    for entry in entries:
        table.add_column(Text(entry.name), justify="right", overflow="fold")
    for head, cells in rows_of(entries):
        style = "bold red" if any(OTHER_PICTURES in cell for cell in cells) else ""
        table.add_row(Text(head), *map(Text, cells), style=style)
    return table


def as_document(entries: Sequence[Entry]) -> dict[str, Any]:
    """The comparison as JSON."""
    first = entries[0]
    runs = [
        {
            "run": e.name,
            **e.settings,
            "test_pictures": e.test_pictures,
            "test_sha256": e.test_sha256,
            "comparable": e.comparable(first),
            "figures": e.figures,
        }
        for e in entries
    ]
    return {"comparable": all(e.comparable(first) for e in entries), "runs": runs}


def as_page(entries: Sequence[Entry]) -> str:
    """The comparison as one page without outside request, with the loss curves laid over each other."""
    return render(
        TEMPLATE,
        names=[e.name for e in entries],
        colours=list(islice(cycle(COLOURS), len(entries))),
        rows=rows_of(entries),
        strangers=[e.name for e in entries if not e.comparable(entries[0])],
        marked=OTHER_PICTURES,
        loss=loss_curves_of_runs([e.metrics for e in entries]),
    )


def _read(root: Path, name: str) -> Entry:
    folder = RunFolder(root)
    config, metrics = folder.config, folder.metrics()
    seconds, device = device_seconds(metrics)
    settings = {
        "product": config.product,
        "size_px": config.size,
        "steps": config.steps,
        "seed": config.seed,
        "commit": config.commit,
        "software": config.software,
        "device": device,
        "device_seconds": seconds,
    }
    tested = [_truth(row) for row in folder.data.get("pictures", []) if row["role"] == "test"]
    evaluations = [m["evaluation"] for m in metrics if "evaluation" in m]
    figures = evaluations[-1] if evaluations else {}
    return Entry(name, settings, len(tested), fingerprint(tested), figures, metrics)


def _truth(row: Mapping[str, str]) -> str:
    """A test picture with what its figures rest on."""
    return f"{row['sha256']} {row['label'] == GOOD} {row.get('mask_sha256', '')}"


def _text(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value) or "-"


def _pictures(entry: Entry, first: Entry) -> str:
    return f"{entry.test_pictures}" if entry.comparable(first) else f"{entry.test_pictures}, {OTHER_PICTURES}"


def _figure(entry: Entry, key: str, form: str) -> str:
    value, interval = figure_of(entry.figures, key, form)
    return f"{value} ({interval})" if interval else value or "-"
