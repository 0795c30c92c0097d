"""`report.html` of a run: one file, no outside request, looked at by a person before export."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from matplotlib.figure import Figure

from kenpin.frame import Image, read_picture
from kenpin.pictures import GOOD
from kenpin.preprocess import to_input
from kenpin.train.evaluate import Scores
from kenpin.train.metrics import Floats
from kenpin.train.run import RunFolder

TEMPLATE = Path(__file__).with_name("report.html.jinja")
LEVEL_COLOURS = {"coarse": "#7f7f7f", "mid": "#1f77b4", "fine": "#d95f02"}
GALLERY = 6


def write_report(folder: RunFolder, held_back: Scores, test: Scores | None, figures: dict[str, Any]) -> None:
    """Write the report.

    Args:
        folder: The run.
        held_back: Scores of held-back good pictures.
        test: Scores of test pictures, where there are some.
        figures: What `measure` said of them.
    """
    page = jinja2.Template(TEMPLATE.read_text(), autoescape=True, undefined=jinja2.StrictUndefined)
    shown = test or held_back
    html = page.render(
        config=folder.config,
        roles={role: _count(folder, role) for role in ("fit", "held_back", "test")},
        figures=figures,
        loss=_svg(_loss_curve(folder.metrics())),
        histogram=_svg(_histogram(held_back, test)),
        roc=_svg(_roc(test)) if test is not None and "image_auroc" in figures else "",
        gallery=_gallery(shown),
    )
    (folder.root / "report.html").write_text(html)


def _count(folder: RunFolder, role: str) -> int:
    return sum(row["role"] == role for row in folder.data["pictures"])


def _loss_curve(metrics: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    for level, colour in LEVEL_COLOURS.items():
        steps = [m for m in metrics if m.get("level") == level]
        if steps:
            axes.plot([m["step"] for m in steps], [m["loss"] for m in steps], ".", ms=3, c=colour, label=level)
    axes.set(xlabel="step", ylabel="loss", title="Pretraining, coarse -> mid -> fine")
    axes.legend()
    return figure


def _histogram(held_back: Scores, test: Scores | None) -> Figure:
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    shown: list[tuple[str, Floats, str]] = [("good, held back in training", held_back.score, "#999999")]
    if test is not None:
        shown += [
            ("good, test", test.score[~test.bad], "#1b7837"),
            ("defective, test", test.score[test.bad], "#c51b7d"),
        ]
    every = np.concatenate([s for _, s, _ in shown])
    # A few extreme defects must not squeeze everything else into one bar.
    bins = np.linspace(every.min(), max(np.percentile(every, 98), every.min() + 1e-3), 41)
    for label, scores, colour in shown:
        if len(scores):
            clipped = np.clip(scores, bins[0], bins[-1])
            axes.hist(clipped, bins.tolist(), label=f"{label} ({len(scores)})", color=colour, alpha=0.6)
    axes.set(xlabel="score (last bar: this and higher)", ylabel="pictures", title="Scores")
    axes.legend()
    return figure


def _roc(test: Scores) -> Figure:
    figure = Figure(figsize=(3.4, 3), layout="constrained")
    axes = figure.subplots()
    order = np.argsort(-test.score)
    bad = test.bad[order]
    axes.plot(np.cumsum(~bad) / (~bad).sum(), np.cumsum(bad) / bad.sum(), color="#1f77b4")
    axes.plot([0, 1], [0, 1], color="#bbbbbb", lw=0.8)
    axes.set(xlabel="good parts stopped", ylabel="defects caught", title="ROC")
    return figure


def _gallery(scores: Scores) -> list[dict[str, str]]:
    """The highest and the lowest of each class, as picture and picture with the anomaly map on it."""
    rows = []
    limit = float(np.percentile(scores.maps.max((1, 2)), 90))
    for title, members in (
        ("defects that score highest", _ranked(scores, bad=True, highest=True)),
        ("defects that score lowest: would they escape?", _ranked(scores, bad=True, highest=False)),
        ("good parts that score highest: would they be stopped?", _ranked(scores, bad=False, highest=True)),
    ):
        for number in members:
            picture = scores.pictures[number]
            side = scores.maps.shape[-1] * 4
            image = to_input(read_picture(picture.path), height=side, width=side)
            label = "good" if picture.label == GOOD else picture.label
            rows.append(
                {
                    "title": title,
                    "name": f"{label}/{picture.path.name}",
                    "score": f"{scores.score[number]:.2f}",
                    "picture": _jpeg(image),
                    "map": _jpeg(_overlay(image, scores.maps[number], limit)),
                }
            )
    return rows


def _ranked(scores: Scores, *, bad: bool, highest: bool) -> list[int]:
    members = np.flatnonzero(scores.bad == bad)
    ranked = members[np.argsort(scores.score[members])]
    return [int(n) for n in (ranked[::-1] if highest else ranked)[:GALLERY]]


def _overlay(image: Image, anomaly: Floats, limit: float) -> Image:
    share = np.clip(anomaly / max(limit, 1e-6), 0, 1)
    heat = cv2.applyColorMap((share * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    large = cv2.resize(heat, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.addWeighted(image, 0.45, large, 0.55, 0), np.uint8)


def _jpeg(image: Image) -> str:
    shrunk = cv2.resize(image, (160, 160), interpolation=cv2.INTER_AREA)
    return base64.b64encode(cv2.imencode(".jpg", shrunk)[1].tobytes()).decode("ascii")


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg")
    text = out.getvalue()
    return text[text.index("<svg") :]
