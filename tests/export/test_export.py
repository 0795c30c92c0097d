"""`kenpin export` on a run trained from drawn parts, to a bundle that a station accepts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from onnx import ModelProto, numpy_helper

from kenpin import __version__
from kenpin.bundle import TRAINED, Bundle, open_bundle
from kenpin.edge_runtime.engine_ort import load_engine
from kenpin.errors import ConfigError, DataError, EngineError, TrainError
from kenpin.export.cli import export
from kenpin.export.samples import MOST_FIT, MOST_HELD_BACK, MOST_TEST_OF_EACH, choose_rows, read_samples
from kenpin.frame import decode_picture
from kenpin.pictures import sha256_of
from kenpin.signing import PublicKey, SecretKey
from kenpin.synthetic import draw_part
from kenpin.train.cli import train
from kenpin.train.run import RunFolder
from kenpin.train.transfer import load_origin


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training on drawn caps."""
    root = tmp_path_factory.mktemp("trained")
    for part, count, seed, share in (("train/good", 24, 1, 0), ("test/good", 6, 2, 0), ("test/bad", 6, 3, 1)):
        folder = root / "caps" / part
        folder.mkdir(parents=True)
        for index in range(count):
            image = draw_part("cap", seed=seed, index=index, defect_share=share).image
            assert cv2.imwrite(str(folder / f"{index:02}.png"), image)
    options = ["--data", str(root / "caps"), "--run", str(root / "run"), "--steps", "6", "--size", "64"]
    done = CliRunner().invoke(train, options, catch_exceptions=False)
    assert done.exit_code == 0
    return root / "run"


@dataclass(frozen=True)
class Exported:
    """What the command wrote."""

    path: Path
    answer: dict[str, Any]
    text: str
    config: Path

    def open(self) -> Bundle:
        return open_bundle(self.path, [PublicKey.load(self.config / "kenpin/signing.pub")])


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
    assert answer["quantized_convs"] == 15
    assert (answer["product"], answer["version"]) == ("caps", "1")
    parity = answer["parity"]
    assert (parity["pictures"], parity["test_good"], parity["test_bad"]) == (12 + 5, 6, 6)
    assert parity["onnx_relative"] < 1e-4
    assert set(parity["auroc"]) == {"torch", "onnx", "int8"}


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
    assert manifest.score_stats["std"] > 0
    assert len(manifest.quantization["convs"]) == 15
    assert len(manifest.golden) == 5


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
    assert f"| int8 | {exported.answer['parity']['auroc']['int8']:.4f} |" in card


def test_a_station_runs_both_models(exported: Exported) -> None:
    found = exported.open()
    for precision in ("int8", "fp32"):
        engine = load_engine(found, precision)
        golden = found.manifest.golden[0]
        scored = engine.score(decode_picture(found.files[golden.file], where=golden.file))
        levels = golden.level_scores if precision == "int8" else golden.level_scores_fp
        np.testing.assert_allclose(scored.level_scores, levels, atol=10 * found.manifest.golden_tolerance)


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


def invoke(run: Path, out: Path, *more: str) -> Result:
    return CliRunner().invoke(export, [str(run), "--out", str(out), *more])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--product", "my part"), "--product 'my part' cannot be used"),
        (("--product", "cap+"), "--product 'cap\\+' cannot be used"),
        (("--version", "1/2"), "--version '1/2' cannot be used"),
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
    (tmp_path / "file").write_text("")
    for out in (tmp_path, tmp_path / "file" / "a.kenpin"):
        assert isinstance(invoke(run, out).exception, ConfigError)


def test_what_is_no_finished_run(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert isinstance(invoke(tmp_path / "none", tmp_path / "a.kenpin").exception, ConfigError)
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / "encoder.safetensors").write_bytes(b"damaged")
    assert isinstance(invoke(copy, tmp_path / "a.kenpin").exception, TrainError)
    (copy / "head.safetensors").unlink()
    assert isinstance(invoke(copy, tmp_path / "a.kenpin").exception, ConfigError)


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


def test_samples(run: Path) -> None:
    chosen = choose_rows(RunFolder(run).data)
    samples = read_samples(chosen, side=64)
    assert samples.fit.shape == (19, 64, 64, 3)
    assert samples.test_bad.tolist() == [False] * 6 + [True] * 6
    assert len(samples.all) == 5 + 12
    none = read_samples({**chosen, "test_good": [], "test_bad": []}, side=64)
    assert none.test.shape == (0, 64, 64, 3)
    assert len(none.all) == 5
