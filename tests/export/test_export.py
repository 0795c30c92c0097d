"""`kenpin export` on a run trained from drawn parts, to a bundle that a station accepts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pytest
from click.testing import CliRunner, Result
from onnx import ModelProto, TensorProto, numpy_helper

from kenpin import __version__
from kenpin.bundle import TRAINED, Bundle, open_bundle
from kenpin.edge_runtime.engine import Engine, Scored
from kenpin.edge_runtime.engine_ort import load_engine
from kenpin.edge_runtime.golden_check import check_golden
from kenpin.errors import ConfigError, DataError, EngineError, ExportError, TrainError
from kenpin.export.audit import audit
from kenpin.export.cli import export
from kenpin.export.golden import DEFECTS, SPREAD_SHARE
from kenpin.export.outputs import Fusion, run_onnx
from kenpin.export.pack import last_evaluation
from kenpin.export.samples import MOST_FIT, MOST_HELD_BACK, MOST_TEST_OF_EACH, choose_rows, read_samples
from kenpin.frame import Image, decode_picture
from kenpin.picture_files import sha256_of
from kenpin.signing import PublicKey, SecretKey
from kenpin.train.run import RunFolder
from kenpin.train.transfer import load_origin


@dataclass(frozen=True)
class Exported:
    """What the command wrote."""

    path: Path
    answer: dict[str, Any]
    text: str
    config: Path

    def open(self) -> Bundle:
        return open_bundle(self.path, [PublicKey.load(self.config / "kenpin/signing.pub")])

    def graph(self, name: str) -> ModelProto:
        return ModelProto.FromString(self.open().files[name])


@pytest.fixture(scope="session")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The command in a process of its own, by a user who has no key yet."""
    root = tmp_path_factory.mktemp("exported")
    path, config = root / "new folder" / "cap-1.kenpin", root / "config"
    done = subprocess.run(
        [sys.executable, "-m", "kenpin", "export", str(run), "--out", str(path), "--version", "1", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XDG_CONFIG_HOME": str(config)},
    )
    assert done.returncode == 0, done.stderr
    return Exported(path, json.loads(done.stdout), done.stderr, config)


def test_answer(exported: Exported) -> None:
    found = exported.open()
    answer = exported.answer
    assert answer["bundle"] == str(exported.path)
    assert answer["sha256"] == found.sha256
    assert answer["bytes"] == exported.path.stat().st_size
    layers = [layer["precision"] for layer in answer["layers"]]
    assert len(layers) == 15
    assert answer["quantized_convs"] == layers.count("int8") > 0
    assert set(layers) <= {"int8", "fp32"}
    assert (answer["precision"], answer["weights"]) == ("int8", "int8")
    assert answer["model_bytes"] < answer["float_model_bytes"]
    assert (answer["product"], answer["version"]) == ("caps", "1")
    parity = answer["parity"]
    assert (parity["pictures"], parity["test_good"], parity["test_bad"]) == (12 + 5, 6, 6)
    assert parity["onnx_relative"] < 1e-4
    assert set(parity["auroc"]) == {"torch", "onnx", "int8"}
    assert parity["int8_shift"]["max"] > 10 * parity["onnx_shift"]["max"]


def test_the_gate_held_and_says_what_that_proves(exported: Exported) -> None:
    gate = exported.answer["gate"]
    assert gate["pictures"] == 5 + 12 + 5 * 4
    assert gate["flips"] == 0
    # They chose the model, so they prove nothing. 2 held-back, 6 test pictures and 2 x 4 drawn defects did not.
    assert gate["flip_bound"] is None
    unseen = gate["unseen"]
    assert unseen["pictures"] == 2 + 6 + 2 * 4
    assert unseen["flip_bound"] >= 1 - 0.05 ** (1 / 16) - 1e-6
    assert 0 <= unseen["returned_to_float"] <= len(exported.open().manifest.quantization["floats"])
    assert gate["auroc_points"] <= max(gate["limits"]["auroc_points"], gate["auroc_step"])
    assert gate["limits"] == {"auroc_points": 0.2, "flip_share": 0.001}
    assert exported.answer["range_choice"]["method"] in exported.answer["range_choice"]["trials"]
    assert len(exported.answer["taps_sqnr_db"]) == 2
    for words in (
        "accuracy gate: 37 pictures",
        "of 16 that chose nothing",
        "too few pictures to prove 0.1 %",
        "returned to float",
        "is now",
    ):
        assert words in exported.text


def test_words(exported: Exported) -> None:
    assert "made your signing key" in exported.text
    assert "signing.pub" in exported.text
    assert "INT8 signal to noise" in exported.text
    for noise in ("Warning", "torchvision", "Traceback", "[torch.onnx]"):
        assert noise not in exported.text


def test_manifest(exported: Exported, run: Path) -> None:
    manifest = exported.open().manifest
    assert manifest.input_shape == (1, 64, 64, 3)
    assert manifest.lineage["data_sha256"] == sha256_of(run / "data.json")
    assert manifest.lineage["kenpin"] == __version__
    assert manifest.lineage["seed"] == 0
    rows = json.loads((run / "data.json").read_text())["pictures"]
    assert manifest.learned_from == tuple(sorted(r["sha256"] for r in rows if r["role"] != "test"))
    assert manifest.metrics["export"] == exported.answer["parity"]
    assert manifest.metrics["training"]["pictures"] == 12
    assert manifest.score_stats["count"] == 5
    good = read_samples(choose_rows(RunFolder(run).data), shape=(64, 64)).held_back
    scores = run_onnx(exported.graph("model.onnx"), good, fusion=Fusion.NONE).score
    assert manifest.score_stats["mean"] == pytest.approx(scores.mean(), rel=1e-5)
    assert manifest.score_stats["std"] == pytest.approx(scores.std(), rel=1e-4)
    how = manifest.quantization
    assert how["precision"] == "int8"
    assert len(how["convs"]) + len(how["floats"]) == 15
    assert how["gate"] == exported.answer["gate"]
    assert how["layers"] == exported.answer["layers"]
    assert how["equalised"]
    assert how["biases_corrected"]
    assert set(how["ranges"]) <= {n.output[0] for n in exported.graph("model.onnx").graph.node}
    card = exported.open().files["card.md"].decode()
    assert f"Of the {how['gate']['unseen']['pictures']} others {how['gate']['unseen']['flips']} changed" in card
    assert 5 < len(manifest.golden) <= 5 + DEFECTS


def test_the_trained_model_travels_along_to_go_on_learning_from(exported: Exported, run: Path) -> None:
    files = exported.open().files
    for name in TRAINED:
        assert files[name] == (run / Path(name).name).read_bytes()
    origin = load_origin(exported.path, same_parts=True, trust=(exported.config / "kenpin/signing.pub",))
    assert (origin.size, origin.learned_from) == (64, set(exported.open().manifest.learned_from))


def test_nothing_of_this_machine_is_inside(exported: Exported, run: Path) -> None:
    data = exported.path.read_bytes()
    for secret in (str(run.parent), str(Path.home()), str(Path.cwd())):
        assert secret.encode() not in data
    # Weights are as good as random: megabytes of them hold ".py" sooner or later, but no name before it.
    assert not re.search(rb"[A-Za-z0-9_/]{4}\.py", data)


def test_card(exported: Exported) -> None:
    card = exported.open().files["card.md"].decode()
    assert card.startswith("# caps 1\n")
    assert "Not to be used" in card
    assert "* origin: random weights\n" in card
    assert f"| int8 | {exported.answer['parity']['auroc']['int8']:.4f} |" in card


def test_a_station_runs_both_models(exported: Exported) -> None:
    found = exported.open()
    for precision in ("int8", "fp32"):
        engine = load_engine(found, precision)
        golden = found.manifest.golden[0]
        scored = engine.score(decode_picture(found.files[golden.file], where=golden.file))
        levels = golden.level_scores if precision == "int8" else golden.level_scores_fp
        np.testing.assert_allclose(scored.level_scores, levels, atol=10 * found.manifest.golden_tolerance)


def test_an_engine_that_saturates_on_defects_fails_the_golden_check(exported: Exported, run: Path) -> None:
    """Good parts alone would not show it, and the customer's bad ones stay at home."""
    found = exported.open()
    good, defects = found.manifest.golden[:5], found.manifest.golden[5:]
    own = [picture.tobytes() for picture in read_samples(choose_rows(RunFolder(run).data), shape=(64, 64)).all]
    assert not any(decode_picture(found.files[g.file], where=g.file).tobytes() in own for g in defects)
    highest = max(golden.score_fp for golden in good)
    assert min(golden.score_fp for golden in defects) > highest + found.manifest.score_stats["std"]

    class Saturated:
        runtime, precision = "onnxruntime", "fp32"

        def __init__(self) -> None:
            self.engine = load_engine(found, "fp32")

        def score(self, image: Image) -> Scored:
            scored = self.engine.score(image)
            return replace(scored, score=min(scored.score, highest))

    check = check_golden(cast("Engine", Saturated()), found)
    assert not check.passed
    assert {s.file for s in check.scores if s.difference > check.tolerance} == {g.file for g in defects}


def test_the_tolerances_are_those_of_each_model(exported: Exported) -> None:
    """INT8 repeats worse than float, which must not pass for it."""
    manifest = exported.open().manifest
    least = SPREAD_SHARE * manifest.score_stats["std"]
    assert manifest.golden_tolerance_fp == pytest.approx(least, rel=0.1)
    assert manifest.golden_tolerance >= manifest.golden_tolerance_fp
    # A model of six steps: chance decides how many of its INT8 sums fall to the other side with some threads.
    # That the tolerance hides nothing is tested below.
    assert manifest.golden_tolerance < manifest.score_stats["p99"]


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_golden_frames_expose_another_model(exported: Exported, precision: Literal["int8", "fp32"]) -> None:
    """The tolerance must not hide one scale or bias that went wrong."""
    found = exported.open()
    name, end = (
        ("model.onnx", "conv1.weight_scale") if precision == "int8" else ("model_fp.onnx", "weight_bias")
    )
    model = ModelProto.FromString(found.files[name])
    tensor = next(t for t in model.graph.initializer if t.name.endswith(end))
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(3), tensor.name))
    files = {**found.files, name: model.SerializeToString()}
    with pytest.raises(EngineError, match="scores a known frame"):
        load_engine(Bundle(found.path, found.sha256, found.manifest, files, found.seal, ""), precision)


@pytest.fixture(scope="session")
def half(rounding: None, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_as(run, tmp_path_factory.mktemp("half"), "--precision", "fp16", "--weights", "fp32qdq")


@pytest.fixture(scope="session")
def floating(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    last = ("--version", "3", "--floor", "3")
    return export_as(run, tmp_path_factory.mktemp("float"), "--precision", "fp32", *last)


def export_as(run: Path, root: Path, *options: str) -> Exported:
    key = SecretKey.generate()
    (root / "kenpin").mkdir()
    key.save(root / "kenpin/signing.key")
    done = invoke(run, root / "a.kenpin", "--key", str(root / "kenpin/signing.key"), "--json", *options)
    assert done.exit_code == 0, done.exception
    return Exported(root / "a.kenpin", json.loads(done.stdout), done.stderr, root)


def test_fp16(half: Exported) -> None:
    answer, manifest = half.answer, half.open().manifest
    assert answer["precision"] == manifest.quantization["precision"] == "fp16"
    assert manifest.quantization["weights"] == "fp32qdq"
    assert {layer["precision"] for layer in answer["layers"]} <= {"int8", "fp16"}
    assert answer["gate"]["flips"] == 0
    model = half.graph("model.onnx")
    assert model.opset_import[0].version == 19
    assert half.graph("model_fp.onnx").opset_import[0].version == 18
    assert any(t.data_type == TensorProto.FLOAT16 for t in model.graph.initializer)
    audit(model, floats=manifest.quantization["floats"])


def test_the_golden_scores_of_fp16_are_those_of_the_graph_as_written(half: Exported) -> None:
    found = half.open()
    frames = np.stack([decode_picture(found.files[g.file], where=g.file) for g in found.manifest.golden])
    scores = run_onnx(half.graph("model.onnx"), frames, fusion=Fusion.NONE).score
    np.testing.assert_allclose(scores, [g.score for g in found.manifest.golden], atol=1e-4)


def test_the_head_is_stored_small_where_parsers_take_weights_in_int8(
    exported: Exported, half: Exported
) -> None:
    for bundle, small in ((exported, True), (half, False)):
        names = {tensor.name for tensor in bundle.graph("model.onnx").graph.initializer}
        assert any(name.endswith(".bank_int8") for name in names) == small
        assert any(name.endswith(".bank") for name in names) != small


def test_fp32_is_the_float_model(floating: Exported) -> None:
    found = floating.open()
    assert found.files["model.onnx"] == found.files["model_fp.onnx"]
    assert found.manifest.quantization["precision"] == floating.answer["precision"] == "fp32"
    assert found.manifest.floor == found.manifest.version == "3"
    assert floating.answer["gate"] is None
    assert floating.answer["quantized_convs"] == 0
    assert "accuracy gate" not in floating.text
    assert "no INT8 in this bundle" in found.files["card.md"].decode()
    golden = found.manifest.golden[0]
    assert golden.score == pytest.approx(golden.score_fp, abs=found.manifest.golden_tolerance)


def test_too_few_good_parts_to_know(run: Path, tmp_path: Path) -> None:
    key = tmp_path / "line.key"
    SecretKey.generate().save(key)
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    data = json.loads((copy / "data.json").read_text())
    held_back = [row for row in data["pictures"] if row["role"] == "held_back"]
    data["pictures"] = [row for row in data["pictures"] if row not in held_back[:1]]
    (copy / "data.json").write_text(json.dumps(data))
    refused = invoke(copy, tmp_path / "a.kenpin", "--key", str(key))
    assert isinstance(refused.exception, ExportError)
    assert "too few to know" in refused.exception.what
    assert not (tmp_path / "a.kenpin").exists()
    assert invoke(copy, tmp_path / "a.kenpin", "--key", str(key), "--precision", "fp32").exit_code == 0


def test_names_of_folders_that_are_no_text_end_no_export(run: Path, tmp_path: Path) -> None:
    """As of a run, or of the run that it went on from, that was unpacked from a foreign archive."""
    SecretKey.generate().save(tmp_path / "line.key")
    copy = Path(shutil.copytree(run, tmp_path / "run \udce4"))
    config = json.loads((copy / "config.json").read_text()) | {"origin": "run \udcfc"}
    (copy / "config.json").write_text(json.dumps(config))
    out = tmp_path / "a.kenpin"
    done = invoke(copy, out, "--key", str(tmp_path / "line.key"), "--precision", "fp32")
    assert done.exit_code == 0, done.exception
    lineage = open_bundle(out, [PublicKey.load(tmp_path / "line.pub")]).manifest.lineage
    assert (lineage["run"], lineage["origin"]) == (r"run \udce4", r"run \udcfc")


def test_ranges_are_never_invented(run: Path, tmp_path: Path) -> None:
    """A run without pictures to measure on is refused; random ones would clip what matters."""
    key = tmp_path / "line.key"
    SecretKey.generate().save(key)
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    data = json.loads((copy / "data.json").read_text())
    data["pictures"] = [row for row in data["pictures"] if row["role"] != "fit"]
    (copy / "data.json").write_text(json.dumps(data))
    refused = invoke(copy, tmp_path / "a.kenpin", "--key", str(key))
    assert isinstance(refused.exception, ExportError)
    assert "no picture to measure ranges on" in refused.exception.what
    assert not (tmp_path / "a.kenpin").exists()


def invoke(run: Path, out: Path, *more: str) -> Result:
    return CliRunner().invoke(export, [str(run), "--out", str(out), *more])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--product", "my part"), "--product 'my part' cannot be used"),
        (("--product", "cap+"), "--product 'cap\\+' cannot be used"),
        (("--version", "1/2"), "--version '1/2' cannot be used"),
        (("--version", "2", "--floor", "10"), "--floor 10 is newer than the bundle itself, 2"),
        (("--key", "none.key"), "cannot read the key"),
    ],
)
def test_options_that_cannot_be_used(run: Path, tmp_path: Path, options: tuple[str, str], message: str) -> None:
    done = invoke(run, tmp_path / "a.kenpin", *options)
    assert isinstance(done.exception, ConfigError)
    assert done.exception.where or done.exception.cure
    with pytest.raises(ConfigError, match=message):
        raise done.exception
    assert not list(tmp_path.iterdir())


def test_out_that_cannot_be_written(run: Path, tmp_path: Path) -> None:
    """Told at once, and not after all work."""
    (tmp_path / "file").write_text("")
    for out in (tmp_path, tmp_path / "file" / "a.kenpin", Path("/proc/a.kenpin")):
        assert isinstance(invoke(run, out).exception, ConfigError)


def test_what_is_no_finished_run(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the folder of the bundle nor a signing key is made for it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    out = tmp_path / "new" / "a.kenpin"
    assert isinstance(invoke(tmp_path / "none", out).exception, ConfigError)
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / "encoder.safetensors").write_bytes(b"damaged")
    assert isinstance(invoke(copy, out).exception, TrainError)
    (copy / "head.safetensors").unlink()
    assert isinstance(invoke(copy, out).exception, ConfigError)
    assert list(tmp_path.iterdir()) == [copy]


def test_pictures_that_changed_or_are_gone(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "line.key"
    SecretKey.generate().save(key)
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    data = json.loads((copy / "data.json").read_text())
    picture = tmp_path / "other.png"
    shutil.copy(data["pictures"][0]["file"], picture)
    data["pictures"][1]["file"] = str(picture)
    (copy / "data.json").write_text(json.dumps(data))
    changed = invoke(copy, tmp_path / "a.kenpin", "--key", str(key))
    assert isinstance(changed.exception, DataError)
    assert changed.exception.what == "the picture has changed since training"
    assert changed.exception.where == str(picture)
    picture.unlink()
    assert isinstance(invoke(copy, tmp_path / "a.kenpin", "--key", str(key)).exception, DataError)
    assert not (tmp_path / "a.kenpin").exists()


def test_pictures_are_chosen_evenly_and_by_role() -> None:
    def rows(role: str, label: str, count: int) -> list[dict[str, str]]:
        return [
            {"file": f"{role}/{label}/{n}", "role": role, "label": label, "sha256": ""} for n in range(count)
        ]

    data = {
        "pictures": rows("fit", "good", 500)
        + rows("held_back", "good", 20)
        + rows("test", "good", 200)
        + rows("test", "hole", 100)
        + rows("test", "crack", 100)
    }
    chosen = choose_rows(data)
    assert [len(chosen[p]) for p in ("fit", "held_back", "test_good", "test_bad")] == [
        MOST_FIT,
        20,
        MOST_TEST_OF_EACH,
        MOST_TEST_OF_EACH,
    ]
    assert MOST_HELD_BACK >= 20
    assert len({row["file"] for row in chosen["fit"]}) == MOST_FIT
    assert [chosen["fit"][n]["file"] for n in (0, -1)] == ["fit/good/0", "fit/good/499"]
    assert {row["label"] for row in chosen["test_bad"]} == {"hole", "crack"}


def test_of_several_evaluations_the_newest_travels(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert last_evaluation(folder) == {}
    for pictures in (1, 2):
        folder.log({"evaluation": {"pictures": pictures}})
    assert last_evaluation(folder) == {"pictures": 2}


def test_samples(run: Path) -> None:
    chosen = choose_rows(RunFolder(run).data)
    samples = read_samples(chosen, shape=(64, 64))
    assert samples.fit.shape == (19, 64, 64, 3)
    assert samples.test_bad.tolist() == [False] * 6 + [True] * 6
    assert len(samples.all) == 5 + 12
    none = read_samples({**chosen, "test_good": [], "test_bad": []}, shape=(64, 64))
    assert none.test.shape == (0, 64, 64, 3)
    assert len(none.all) == 5
