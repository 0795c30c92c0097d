"""`kenpin report compare`: runs side by side, and a plain word where they must not be compared."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kenpin.errors import ConfigError
from kenpin.train.compare import OTHER_PICTURES, as_document, read_entries, rows_of
from kenpin.train.plots import COLOURS
from kenpin.train.report_cli import report
from kenpin.train.run import RunConfig, RunFolder


def run_of(root: Path, *, test: tuple[str, ...] = ("a", "b"), **figures: Any) -> Path:
    """A run folder as far as a comparison reads it: no model, two evaluations."""
    folder = RunFolder(root)
    rows = [{"file": h, "sha256": h, "label": "good", "group": h, "role": "test"} for h in test]
    rows.append({"file": "c", "sha256": root.name, "label": "good", "group": "c", "role": "fit"})
    config = RunConfig(product="cap", data="d", size=64, width=8, steps=4, batch=4, seed=1, commit="abc123")
    folder.create(config, {"pictures": rows}, resume=False)
    for step in range(1, 5):
        folder.log(
            {"step": step, "level": "fine", "loss": 1 / step, "device": "cpu", "device_seconds": step / 2}
        )
    folder.log({"evaluation": {"pixel_auroc": 0.111}})
    if figures:
        folder.log({"evaluation": figures})
    return root


FIGURES = {
    "image_auroc": {"value": 0.9, "low": 0.8, "high": 0.95},
    "pixel_auroc": 0.7,
    "false_calls_at_99": {"value": 123.4, "low": 50.0, "high": 200.0},
    "ms_per_image": 4.5,
}


def call(*arguments: object) -> None:
    report.main(["compare", *map(str, arguments)], standalone_mode=False)


def test_the_last_evaluation_is_compared(tmp_path: Path) -> None:
    entries = read_entries([run_of(tmp_path / "one", **FIGURES), run_of(tmp_path / "two")])
    rows = dict(rows_of(entries))
    assert [e.name for e in entries] == ["one", "two"]
    assert rows["image AUROC"] == ["0.900 (0.800 to 0.950)", "-"]
    assert rows["pixel AUROC"] == ["0.700", "0.111"]
    assert rows["false calls per 1,000 at 99 % caught"] == ["123 (50 to 200)", "-"]
    assert rows["ms per image"] == ["4.50", "-"]
    assert rows["device seconds"] == ["2.0", "2.0"]
    assert rows["commit"] == ["abc123", "abc123"]
    assert rows["seed"] == ["1", "1"]


def test_the_same_test_pictures_in_another_order_may_be_compared(tmp_path: Path) -> None:
    entries = read_entries([run_of(tmp_path / "one"), run_of(tmp_path / "two", test=("b", "a"))])
    assert as_document(entries)["comparable"]
    assert dict(rows_of(entries))["test pictures"] == ["2", "2"]


@pytest.mark.parametrize(("key", "value"), [("label", "crack"), ("mask_sha256", "m")])
def test_the_same_test_pictures_with_another_truth_are_not_compared(
    tmp_path: Path, key: str, value: str
) -> None:
    runs = [run_of(tmp_path / "one"), run_of(tmp_path / "two"), run_of(tmp_path / "three")]
    for run, name in zip(runs[1:], ("group", key), strict=True):
        data = json.loads((run / "data.json").read_text())
        data["pictures"][0][name] = value
        (run / "data.json").write_text(json.dumps(data))
    assert [entry["comparable"] for entry in as_document(read_entries(runs))["runs"]] == [True, True, False]


def test_other_test_pictures_are_marked_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [run_of(tmp_path / "one"), run_of(tmp_path / "two"), run_of(tmp_path / "three", test=("a", "x"))]
    out = tmp_path / "page.html"
    call(*runs, "--json", "--out", out)
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert not document["comparable"]
    assert [r["comparable"] for r in document["runs"]] == [True, True, False]
    call(*runs, "--out", out)
    told = " ".join(re.sub(r"[│┃]", " ", printed.err).split())
    assert f"three: {OTHER_PICTURES} it with one" in told
    page = out.read_text()
    assert page.count(f"2, {OTHER_PICTURES}") == 1
    assert f"three: measured on {OTHER_PICTURES} the figures with those of one" in page


def test_the_page_shows_all_curves_and_asks_nothing_from_outside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    call(run_of(tmp_path / "<b>one", **FIGURES), run_of(tmp_path / "two"), "--out", out)
    page = out.read_text()
    assert page.count("<svg") == 1
    assert "0.900 (0.800 to 0.950)" in page
    assert "<b>one" not in page
    links = re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', page)
    assert all(link.startswith("#") for link in links)
    assert not re.search(r"<script|<link|@import", page)
    assert OTHER_PICTURES not in page
    assert capsys.readouterr().out == ""


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", [r"$\frac$", "_first", "部品", "\udcff"])
def test_curves_of_a_run_with_any_name_are_told_apart(tmp_path: Path, name: str) -> None:
    out = tmp_path / "page.html"
    call(run_of(tmp_path / name), run_of(tmp_path / "two"), "--out", out)
    shown = name.encode("utf-8", "backslashreplace").decode()
    assert re.findall(r'color: (#\w+)">&#9473;&#9473;</b> (.*?)</span>', out.read_text()) == [
        (COLOURS[0], shown),
        (COLOURS[1], "two"),
    ]
    assert all(f"stroke: {colour}" in out.read_text() for colour in COLOURS[:2])


def test_runs_that_are_called_alike_are_told_apart_by_their_path(tmp_path: Path) -> None:
    roots = [run_of(tmp_path / "a/cap"), run_of(tmp_path / "b/cap")]
    assert [e.name for e in read_entries(roots)] == [str(r) for r in roots]


def test_a_run_without_any_log_is_shown_without_figures(tmp_path: Path) -> None:
    roots = [run_of(tmp_path / "one"), run_of(tmp_path / "two")]
    for root in roots:
        (root / "metrics.jsonl").unlink()
        (root / "data.json").write_text("{}")
    out = tmp_path / "page.html"
    call(*roots, "--out", out)
    assert "No step was logged." in out.read_text()


def test_wrong_usage_is_answered_with_the_cure(tmp_path: Path) -> None:
    one, two = run_of(tmp_path / "one"), run_of(tmp_path / "two")
    for arguments, message in (
        ([one], "fewer than two"),
        ([one, tmp_path], "not a run"),
        ([one, two, "--out", tmp_path / "no/page.html"], "cannot write"),
    ):
        with pytest.raises(ConfigError, match=message) as refused:
            call(*arguments)
        assert refused.value.cure
