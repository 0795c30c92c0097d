"""What is known about a run, in words: where it comes from, what it costs, what was measured."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kenpin.errors import TrainError, reason_of
from kenpin.train.run import RunConfig, RunFolder
from kenpin.view import looked_at

# key, what a technician reads, format
FIGURES = (
    ("image_auroc", "image AUROC: how often a bad part scores above a good one (1 = always)", ".3f"),
    ("escapes_at_10_per_1000", "escapes of 1,000 bad parts, where 10 of 1,000 good ones are stopped", ".0f"),
    ("false_calls_at_95", "good parts stopped of 1,000, where 95 % of the bad ones are caught", ".0f"),
    ("false_calls_at_99", "good parts stopped of 1,000, where 99 % of the bad ones are caught", ".0f"),
    ("no_decision_good", "good parts that the view does not find: they are in no other figure", ".0f"),
    ("no_decision_bad", "bad parts that the view does not find, likewise", ".0f"),
    ("pixel_auroc", "pixel AUROC: the same as image AUROC for the pixels of the map", ".3f"),
    ("aupro_30", "AUPRO 30 %: how much of each defect the map covers, at up to 30 % false pixels", ".3f"),
    ("aupro_05", "AUPRO 5 %: the same at up to 5 % false pixels", ".3f"),
)
TOO_FEW = "too few parts to tell"
ROLES = {
    "fit": "of good parts to learn from",
    "held_back": "of good parts held back to set the scale of the score",
    "test": "only to measure",
    "no_decision": "that the view does not find, only counted",
    "teach": "of bad parts to learn from, too",
}


def facts(folder: RunFolder) -> list[tuple[str, str]]:
    """Name and text of what is known about a run; what an old run did not write is left out."""
    config, rows = folder.config, folder.data.get("pictures", [])
    found_roles = Counter(row["role"] for row in rows)
    # Most runs have none of some roles, and a zero would only raise questions.
    counts = [
        f"{found_roles[role]} {text}"
        for role, text in ROLES.items()
        if found_roles[role] or role in ("fit", "held_back", "test")
    ]
    found = [
        ("product", config.product),
        ("pictures", "; ".join(counts)),
        ("looked at", looked_at(config.view)),
        ("fingerprint of the pictures", fingerprint(r["sha256"] for r in rows)),
        ("software", f"kenpin {config.software}"),
        ("commit", config.commit),
        ("started from", started_from(config)),
        ("settings", f"{config.input_px} px, {config.steps} steps, seed {config.seed}"),
        ("training", training_time(folder.metrics())),
        ("model", model_size(folder.root)),
    ]
    return [(name, text) for name, text in found if text]


def started_from(config: RunConfig) -> str:
    """Which weights the training began with."""
    if config.init:
        return f"{config.origin or 'weights'}, SHA-256 {config.init}"
    return config.origin or "random weights"


def figure_rows(figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Text, value and interval of each figure that was measured."""
    rows = []
    for key, text, form in FIGURES:
        value, interval = figure_of(figures, key, form)
        if value:
            rows.append((text, value, interval))
    return rows


def figure_of(figures: Mapping[str, Any], key: str, form: str) -> tuple[str, str]:
    """A figure and its interval as text, both empty where it was not measured."""
    found = figures.get(key)
    if found is None:
        return "", ""
    ends = found if isinstance(found, dict) else figures.get(f"{key}_interval", {})
    value = found["value"] if isinstance(found, dict) else found
    return f"{value:{form}}", interval_of(ends, form)


def interval_of(ends: Mapping[str, Any], form: str) -> str:
    """An interval as text, with words where there are too few parts to tell; empty where there is none."""
    if "low" not in ends:
        return ""
    low, high = ends["low"], ends["high"]
    # Logs of before have NaN where others have null.
    known = low is not None and high is not None and math.isfinite(low) and math.isfinite(high)
    return f"{low:{form}} to {high:{form}}" if known else TOO_FEW


def fingerprint(hashes: Iterable[str]) -> str:
    """SHA-256 of a list of SHA-256, sorted, so that neither names nor order matter."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


def training_time(metrics: Iterable[Mapping[str, Any]]) -> str:
    """Seconds of pretraining and on what; empty where none were logged."""
    seconds, device = device_seconds(metrics)
    return f"{seconds:.0f} s on {device}" if seconds else ""


def device_seconds(metrics: Iterable[Mapping[str, Any]]) -> tuple[float, str]:
    """Seconds on the device at the last step that logged them, and the device; 0 where none did."""
    steps = [m for m in metrics if "device_seconds" in m]
    return (float(steps[-1]["device_seconds"]), str(steps[-1].get("device", ""))) if steps else (0.0, "")


def model_size(root: Path) -> str:
    """Megabytes on disk and numbers in the model; empty where it is not finished."""
    files = [root / f"{name}.safetensors" for name in ("encoder", "head")]
    if not all(f.exists() for f in files):
        return ""
    size_mb = sum(f.stat().st_size for f in files) / 1e6
    encoder, head = map(_count_numbers, files)
    return f"{size_mb:.1f} MB: {encoder:,} numbers in the encoder, {head:,} in the anomaly head and its memory"


def _count_numbers(path: Path) -> int:
    """How many numbers a safetensors file holds, from its header alone."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, MemoryError, OverflowError) as error:
        raise TrainError(f"cannot read: {reason_of(error)}", where=path, cure="train again") from None
