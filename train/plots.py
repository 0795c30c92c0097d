"""Plots of the report and of the comparison, each as the text of an `<svg>` element."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kenpin.train.evaluate import Scores
from kenpin.train.metrics import Floats

# Okabe and Ito: told apart by colour-blind eyes too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
Lines = Sequence[Mapping[str, Any]]


def loss_curves(metrics: Lines) -> str:
    """Loss of each level over the steps: light dots, and their running mean. Empty where no loss was logged."""
    by_level = _points(metrics, over="step")
    if not by_level:
        return ""
    figure, panels = _panels(len(by_level))
    for axes, colour, (level, points) in zip(panels, cycle(COLOURS), by_level.items(), strict=False):
        axes.plot(points[:, 0], points[:, 1], ".", ms=5, color=colour, alpha=0.35, mew=0)
        axes.plot(points[:, 0], smoothed(points[:, 1]), color=colour, lw=1.6)
        axes.set(title=f"{level} ({len(points)} steps)", xlabel="step")
    panels[0].set_ylabel("loss")
    return _svg(figure)


def loss_curves_of_runs(runs: Sequence[Lines]) -> str:
    """Smoothed loss of each level over the seconds on the device, all runs laid over each other.

    Which colour is which run the page says (`COLOURS`, in the order of the runs): a plot has neither every
    script nor every character that the name of a folder may have.
    """
    curves = [_points(metrics, over="device_seconds") for metrics in runs]
    levels = list(dict.fromkeys(level for by_level in curves for level in by_level))
    if not levels:
        return ""
    figure, panels = _panels(len(levels))
    for colour, by_level in zip(cycle(COLOURS), curves, strict=False):
        for level, points in by_level.items():
            axes = panels[levels.index(level)]
            axes.plot(points[:, 0], smoothed(points[:, 1]), color=colour, lw=1.4)
            axes.set(title=level, xlabel="seconds on the device")
    panels[0].set_ylabel("loss")
    return _svg(figure)


def histogram(held_back: Scores, test: Scores | None, limit: float) -> str:
    """Scores of good and defective parts, with the limit that the report speaks of."""
    shown: list[tuple[str, Floats, str]] = [("good, held back in training", held_back.score, "#999999")]
    if test is not None:
        shown += [
            ("good, test", test.score[~test.bad], "#1b7837"),
            ("defective, test", test.score[test.bad], "#c51b7d"),
        ]
    every = np.concatenate([s for _, s, _ in shown])
    # A few extreme defects must not squeeze everything else into one bar.
    top = max(float(np.percentile(every, 98)), limit * 1.05, float(every.min()) + 1e-3)
    bins = np.linspace(every.min(), top, 41)
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    for label, scores, colour in shown:
        if len(scores):
            clipped = np.clip(scores, bins[0], bins[-1])
            axes.hist(clipped, bins.tolist(), label=f"{label} ({len(scores)})", color=colour, alpha=0.6)
    axes.axvline(limit, color="#222222", lw=1, ls="--", label=f"borderline: {limit:.2f}")
    axes.set(xlabel="score (last bar: this and higher)", ylabel="pictures", title="Scores")
    axes.legend(fontsize=9)
    return _svg(figure)


def roc(test: Scores) -> str:
    """Defects caught over good parts stopped, for every limit."""
    figure = Figure(figsize=(3.4, 3.2), layout="constrained")
    axes = figure.subplots()
    limits = np.unique(test.score)[::-1, None]
    stopped = (test.score[~test.bad] >= limits).mean(1)
    caught = (test.score[test.bad] >= limits).mean(1)
    axes.plot([0, *stopped], [0, *caught], color="#1f77b4")
    axes.plot([0, 1], [0, 1], color="#bbbbbb", lw=0.8)
    axes.set(xlabel="share of good parts stopped", ylabel="share of defects caught", title="ROC")
    return _svg(figure)


def smoothed(values: Floats) -> Floats:
    """Running mean over about a tenth of the values (N,); shorter at both ends, so that none is invented."""
    half = max(2, len(values) // 20)
    at, sums = np.arange(len(values)), np.concatenate([[0.0], np.cumsum(values)])
    first, last = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    return np.asarray((sums[last] - sums[first]) / (last - first))


def _points(metrics: Lines, *, over: str) -> dict[str, Floats]:
    """What the steps of each level logged, (N, 2): `over` and loss."""
    found: dict[str, list[tuple[float, float]]] = {}
    for line in metrics:
        if {"level", "loss", over} <= line.keys():
            found.setdefault(line["level"], []).append((line[over], line["loss"]))
    return {level: np.array(points, np.float64) for level, points in found.items()}


def _panels(count: int) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(10, 2.9), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
