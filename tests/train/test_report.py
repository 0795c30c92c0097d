"""`kenpin report RUN`: a page that a technician can read and that asks nothing from outside."""

from __future__ import annotations

import base64
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from kenpin.errors import ConfigError, DataError, TrainError
from kenpin.frame import decode_picture
from kenpin.pictures import read_data, read_good_bad
from kenpin.synthetic import draw_part
from kenpin.train.card import figure_of, fingerprint, model_size
from kenpin.train.data import assign_roles
from kenpin.train.doubts import read_doubts, save_doubts
from kenpin.train.encoder import Encoder
from kenpin.train.evaluate import Scores
from kenpin.train.gallery import mean_maps, shelves, usual_areas
from kenpin.train.head import AnomalyHead, HeadShape
from kenpin.train.inspector import Inspector
from kenpin.train.model import discriminator
from kenpin.train.plots import smoothed
from kenpin.train.report import last_allotment, limit_of, write_report
from kenpin.train.report_cli import pictures_of, report
from kenpin.train.run import RunConfig, RunFolder
from kenpin.train.study import read_studies


def write(path: Path, image: np.ndarray) -> None:  # type: ignore[type-arg]
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn caps: 10 good for training, 6 good and 6 defective with masks for testing."""
    root = tmp_path_factory.mktemp("cap")
    for index in range(10):
        write(root / "train/good" / f"{index}.png", draw_part("cap", seed=1, index=index, defect_share=0).image)
    for index in range(6):
        write(root / "test/good" / f"{index}.png", draw_part("cap", seed=2, index=index, defect_share=0).image)
        broken = draw_part("cap", seed=3, index=index, defect_share=1)
        write(root / "test" / broken.label / f"{index}.png", broken.image)
        write(root / "ground_truth" / broken.label / f"{index}_mask.png", broken.mask)
    return root


def untrained_run(root: Path, data: Path, *, good_only: bool = False) -> RunFolder:
    """A run folder with random weights and a made-up log: the report asks for no more."""
    pictures = read_good_bad(data, None) if good_only else read_data(data)
    folder = RunFolder(root)
    config = RunConfig(
        product="cap", data=str(data), size=64, width=8, steps=9, batch=4, seed=0, commit="abc123"
    )
    folder.create(config, assign_roles(pictures, where=data, seed=0).manifest(), resume=False)
    torch.manual_seed(0)
    encoder = Encoder(8)
    taps = nn.ModuleList(discriminator(channels) for channels in encoder.channels[1:])
    folder.save_model(Inspector(encoder, AnomalyHead(HeadShape(64, encoder.channels), taps)))
    for step in range(1, 10):
        level = ("coarse", "mid", "fine")[step % 3]
        folder.log(
            {"step": step, "level": level, "loss": 5 / step, "device": "cpu", "device_seconds": 2.0 * step}
        )
    return folder


def call(*arguments: object) -> None:
    report.main([str(a) for a in arguments], standalone_mode=False)


@pytest.fixture(scope="module")
def page(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = untrained_run(tmp_path_factory.mktemp("runs") / "cap", parts)
    gain, share = {"coarse": 0.01, "mid": -0.02, "fine": 0.1}, {"coarse": 0.05, "mid": 0.05, "fine": 0.9}
    folder.log({"allotment": {"gain": gain, "share": share, "because": "fine gained most & got most."}})
    study = {
        "title": "How few pictures are enough",
        "machine": "one desk",
        "commit": "abc",
        "date": "2026-01-02",
        "columns": ["pictures", "image AUROC"],
        "rows": [[8, 0.51239], ["all", None]],
        "notes": ["Five draws each."],
    }
    (folder.root / "few_pictures.json").write_text(json.dumps(study))
    call(folder.root)
    return (folder.root / "report.html").read_text()


def text_of(page: str) -> str:
    """What a person reads, with single spaces."""
    words: list[str] = []
    reader = HTMLParser()
    reader.handle_data = words.append  # type: ignore[method-assign]
    reader.feed(re.sub(r"<(svg|style).*?</\1>", "", page, flags=re.DOTALL))
    return " ".join(" ".join(words).split())


def test_nothing_is_asked_from_outside(page: str) -> None:
    links = re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', page) + re.findall(r"url\(([^)]*)\)", page)
    assert links
    assert all(link.startswith(("data:image/", "#")) for link in links)
    assert not re.search(r"<script|<link|<iframe|@import", page)


def test_the_card_says_what_from_what_and_what_not(page: str, parts: Path) -> None:
    text = text_of(page)
    assert "8 of good parts to learn from" in text
    assert "2 of good parts held back" in text
    assert "12 only to measure" in text
    assert "commit abc123" in text
    assert "18 s on cpu" in text
    assert "random weights" in text
    assert re.search(r"\d\.\d MB: [\d,]+ numbers in the encoder", text)
    assert "for another product, another camera" in text
    assert "safety of persons" in text
    assert "calibration record" in text


def test_all_figures_have_values_and_intervals(page: str) -> None:
    text = text_of(page)
    for figure in ("image AUROC", "escapes", "95 % of the bad", "99 % of the bad", "pixel AUROC", "AUPRO 5 %"):
        assert re.search(rf"{figure}[^<]*? \d[\d.]* \d[\d.]* to \d", text), figure


def test_plots_maps_and_parts_are_shown(page: str) -> None:
    assert page.count("<svg") == 3
    for title in ("score lowest", "score highest", "Borderline defects", "Borderline good", "clearly found"):
        assert title in page
    assert "mean of 2 pictures of good parts" in page
    assert "map of 6 test pictures of bad parts" in page
    assert "may mask" in page
    assert "Each map has colours of its own" in text_of(page)
    assert page.count("data:image/jpeg;base64,") == 3 + 2 * 6 * 6


def test_the_allotment_and_the_study_are_tables(page: str) -> None:
    text = text_of(page)
    assert "coarse +0.010 5 % mid -0.020 5 % fine +0.100 90 %" in text
    assert "fine gained most & got most." in text
    assert "How few pictures are enough pictures image AUROC 8 0.512 all - Five draws each." in text
    assert "Measured on one desk, commit abc, 2026-01-02." in text


def test_names_from_outside_are_text_not_markup(parts: Path, tmp_path: Path) -> None:
    folder = untrained_run(tmp_path / "run", parts)
    (folder.root / "ablation.json").write_text(json.dumps({"title": "<script>alert(1)</script>"}))
    call(folder.root)
    assert "<script" not in (folder.root / "report.html").read_text()


def test_a_file_name_in_another_encoding_does_not_stop_the_report(tmp_path: Path) -> None:
    """Shift-JIS names, as a zip file from Windows leaves them."""
    for index in range(10):
        image = draw_part("cap", seed=1, index=index, defect_share=0).image
        name = os.fsdecode("良品".encode("shift_jis")) + f"{index}.png"
        write(tmp_path / f"{index}.png", image)
        (tmp_path / f"{index}.png").rename(tmp_path / name)
    folder = untrained_run(tmp_path / "run", tmp_path, good_only=True)
    call(folder.root)
    assert "\\udc97" in (folder.root / "report.html").read_text(encoding="utf-8")
    assert not list(folder.root.glob("*.part"))


def test_a_run_of_good_parts_only_gives_no_figure(parts: Path, tmp_path: Path) -> None:
    folder = untrained_run(tmp_path / "run", parts / "train/good", good_only=True)
    call(folder.root)
    page = (folder.root / "report.html").read_text()
    assert "No figure can be given" in page
    assert "Borderline good parts: nearest to a score of 1.00" in page
    assert "Borderline defects" not in page
    assert page.count("<svg") == 2


def test_an_old_run_that_logged_nothing_gets_a_report(parts: Path, tmp_path: Path) -> None:
    folder = untrained_run(tmp_path / "run", parts)
    (folder.root / "metrics.jsonl").unlink()
    scores = some_scores(folder)
    write_report(folder, scores, None, {"pictures": 0})
    assert "No step was logged." in (folder.root / "report.html").read_text()
    write_report(folder, scores, scores, {"image_auroc": {"value": 0.5}, "pixel_auroc": 0.25})
    text = text_of((folder.root / "report.html").read_text())
    assert "(1 = always) 0.500 pixel" in text
    assert "map 0.250 The test" in text


def some_scores(folder: RunFolder) -> Scores:
    """Scores of the run's test pictures: 0, 1, 2, ... in their order, maps bright in the lower left."""
    pictures = tuple(pictures_of(folder, "test"))
    maps = np.zeros((len(pictures), 16, 16), np.float32)
    maps[:, 14, 1] = 1
    score = np.arange(len(pictures), dtype=np.float32)
    return Scores(pictures, score, np.stack([score] * 3, 1), maps, 1.0)


def test_borderline_parts_are_nearest_to_the_limit_of_good_test_parts(parts: Path, tmp_path: Path) -> None:
    scores = some_scores(untrained_run(tmp_path / "run", parts))
    highest_good = scores.score[~scores.bad].max()
    assert limit_of(scores) == pytest.approx(highest_good)
    shown = {shelf.title: [float(part.score) for part in shelf.parts] for shelf in shelves(scores, 4.2)}
    bad, good = scores.score[scores.bad], scores.score[~scores.bad]
    assert shown["Borderline defects: nearest to a score of 4.20"] == sorted(bad, key=lambda s: abs(s - 4.2))
    assert shown["Borderline good parts: nearest to a score of 4.20"] == sorted(
        good, key=lambda s: abs(s - 4.2)
    )
    assert shown["Defects that score lowest: would they escape?"] == sorted(bad)
    assert shown["Good parts that score highest: would they be stopped?"] == sorted(good, reverse=True)


def test_long_pictures_and_their_maps_are_shown_as_long(parts: Path, tmp_path: Path) -> None:
    scores = some_scores(untrained_run(tmp_path / "run", parts))
    long = replace(scores, maps=np.zeros((len(scores.pictures), 8, 32), np.float32))
    part = shelves(long, 4.2)[0].parts[0]
    for jpeg in (part.picture, part.overlay, *(shown.jpeg for shown in mean_maps(long, None))):
        height, width = decode_picture(base64.b64decode(jpeg), where="jpeg").shape[:2]
        assert width == 4 * height


def test_where_maps_light_up_is_said_in_words(parts: Path, tmp_path: Path) -> None:
    scores = some_scores(untrained_run(tmp_path / "run", parts))
    assert [m.where for m in mean_maps(scores, None)] == ["", "highest place most often: lower left (100 %)"]
    maps = np.zeros((4, 9, 12), np.float32)
    for number, place in enumerate([(0, 0), (4, 6), (4, 5), (3, 11)]):
        maps[number][place] = 1
    assert usual_areas(maps)[:3] == [("the middle", 0.5), ("upper left", 0.25), ("right", 0.25)]


def test_good_parts_unlike_the_others_are_shown_but_not_those_that_were_taken_out(
    parts: Path, tmp_path: Path
) -> None:
    folder = untrained_run(tmp_path / "r\udcfcn", parts)  # a name that is not UTF-8
    learned = [*pictures_of(folder, "fit"), *pictures_of(folder, "held_back")]
    scores, maps = torch.arange(10.0), torch.rand(10, 16, 16)
    save_doubts(folder, learned, scores, maps)
    rows = folder.data
    next(row for row in rows["pictures"] if row["file"] == str(learned[9].path))["sha256"] = "0" * 64
    (folder.root / "data.json").write_text(json.dumps(rows))
    doubts = read_doubts(folder)
    assert doubts is not None
    assert list(doubts.pictures) == learned[8::-1]
    assert doubts.score.tolist() == list(range(8, -1, -1))
    assert np.array_equal(doubts.maps[0], maps[8].numpy())
    held_back = Scores(tuple(learned[8:]), np.ones(2), np.ones((2, 3)), maps[8:].numpy(), 1.0)
    write_report(folder, held_back, None, {})
    page = (folder.root / "report.html").read_text()
    shown = page.split("most unlike the others")[1].split("<h3>")[0]
    # A good part glows here and is dark further down, with a higher score.
    assert "neither compares with those of other groups" in shown
    assert re.findall(r"score (\d)\.00", shown) == [str(n) for n in range(8, -1, -1)]
    (folder.root / "doubts.safetensors").write_bytes(b"x")
    with pytest.raises(TrainError, match="cannot read"):
        read_doubts(folder)


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_pictures_that_are_not_those_of_the_training_are_named(
    parts: Path, tmp_path: Path, damage: str
) -> None:
    folder = untrained_run(tmp_path / "run", parts)
    rows = folder.data
    row = next(r for r in rows["pictures"] if r["role"] == "test")
    if damage == "gone":
        row["file"] = str(tmp_path / "nowhere.png")
    else:
        row["sha256"] = "0" * 64
    (folder.root / "data.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match=damage) as refused:
        call(folder.root)
    assert refused.value.where == row["file"]
    assert not (folder.root / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}"], "not a run"),
        (["{tmp}", "{tmp}"], "one is needed"),
        (["{tmp}", "--out", "x.html"], "goes with compare only"),
    ],
)
def test_wrong_usage_is_answered_with_the_cure(tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        call(*[a.format(tmp=tmp_path) for a in arguments])
    assert refused.value.cure


def test_json_is_the_only_thing_on_standard_output(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = untrained_run(tmp_path / "run", parts)
    call(folder.root, "--json")
    printed = capsys.readouterr()
    figures = json.loads(printed.out)
    assert figures["pixel_auroc"] == folder.metrics()[-1]["evaluation"]["pixel_auroc"]
    assert "report.html" in printed.err


@pytest.mark.parametrize("content", ["[]", "{", '{"rows": [[{}]]}'])
def test_a_damaged_study_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "ablation.json").write_text(content)
    with pytest.raises(ConfigError, match="not a table") as refused:
        read_studies(tmp_path)
    assert "ablation.json" in refused.value.where
    assert refused.value.cure


def test_a_damaged_model_file_is_named(tmp_path: Path) -> None:
    assert model_size(tmp_path) == ""
    for name in ("encoder", "head"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(TrainError, match="cannot read"):
        model_size(tmp_path)


def test_the_last_allotment_counts() -> None:
    lines: list[dict[str, Any]] = [{"allotment": {}}, {"allotment": {"share": {"fine": 0.7}}}, {"step": 3}]
    found = last_allotment(lines)
    assert found is not None
    assert found.rows == [("fine", "+0.000", "70 %")]
    assert last_allotment([{"step": 3}]) is None


def test_smoothing_is_a_running_mean_that_is_shorter_at_the_ends() -> None:
    values = np.random.default_rng(0).random(60)
    slow = [values[max(0, n - 3) : n + 4].mean() for n in range(60)]
    assert smoothed(values) == pytest.approx(slow)
    assert smoothed(values[:3]) == pytest.approx([values[:3].mean()] * 3)


def test_a_figure_is_text_or_nothing() -> None:
    figures = {"a": {"value": 0.5, "low": float("nan"), "high": float("nan")}, "b": 0.25}
    assert figure_of(figures, "a", ".3f") == ("0.500", "too few parts to tell")
    unknown = {"a": {"value": 0.5, "low": None, "high": None}}
    assert figure_of(unknown, "a", ".3f") == ("0.500", "too few parts to tell")
    assert figure_of(figures, "b", ".3f") == ("0.250", "")
    assert figure_of(figures | {"b_interval": {"low": 0.2, "high": 0.3}}, "b", ".3f") == (
        "0.250",
        "0.200 to 0.300",
    )
    assert figure_of(figures, "c", ".3f") == ("", "")


def test_a_fingerprint_depends_on_the_pictures_alone() -> None:
    assert fingerprint(["b", "a"]) == fingerprint(["a", "b"]) != fingerprint(["a"])
