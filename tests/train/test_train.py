"""`kenpin train` from a folder of drawn parts to a finished run, and what can go wrong on the way."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pytest
import torch

from kenpin.cli import cli
from kenpin.errors import ConfigError, DataError, KenpinError, TrainError
from kenpin.pictures import read_data
from kenpin.synthetic import draw_part
from kenpin.train.cli import _product
from kenpin.train.data import assign_roles, load_masks, load_pictures
from kenpin.train.encoder import Encoder
from kenpin.train.learn import learn
from kenpin.train.run import RunFolder, load_inspector


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn caps, MVTec style: 24 good for training, 8 good and 8 defective with masks for testing."""
    root = tmp_path_factory.mktemp("cap")
    for index in range(24):
        write(
            root / "train/good" / f"{index:03}.png", draw_part("cap", seed=1, index=index, defect_share=0).image
        )
    for index in range(8):
        write(
            root / "test/good" / f"{index:03}.png", draw_part("cap", seed=2, index=index, defect_share=0).image
        )
        broken = draw_part("cap", seed=3, index=index, defect_share=1)
        write(root / "test" / broken.label / f"{index:03}.png", broken.image)
        write(root / "ground_truth" / broken.label / f"{index:03}_mask.png", broken.mask)
    return root


def write(path: Path, image: np.ndarray) -> None:  # type: ignore[type-arg]
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def kenpin(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kenpin", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def run(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    folder = tmp_path_factory.mktemp("runs") / "cap"
    done = kenpin("train", "--data", parts, "--run", folder, "--size", 64, "--steps", 30, "--json")
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_a_run_leaves_everything_that_is_needed_later(run: tuple[Path, dict[str, object]], parts: Path) -> None:
    folder, figures = run
    assert {p.name for p in folder.iterdir()} == {
        "config.json",
        "data.json",
        "metrics.jsonl",
        "checkpoint.safetensors",
        "doubts.safetensors",
        "encoder.safetensors",
        "head.safetensors",
        "report.html",
        "train.lock",
    }
    rows = json.loads((folder / "data.json").read_text())["pictures"]
    assert {row["role"] for row in rows} == {"fit", "held_back", "test"}
    for row in rows:
        assert hashlib.sha256(Path(row["file"]).read_bytes()).hexdigest() == row["sha256"]
    assert all("/train/good/" in row["file"] for row in rows if row["role"] != "test")
    steps = [m for m in RunFolder(folder).metrics() if "loss" in m]
    assert [m["step"] for m in steps] == list(range(1, len(steps) + 1))
    assert len(steps) >= 30
    assert steps[-1]["progress"] >= 1
    assert steps[-1]["device_seconds"] == pytest.approx(sum(m["seconds"] for m in steps), abs=0.01)
    assert figures["good"] == 8
    assert {"image_auroc", "pixel_auroc", "aupro_30", "aupro_05"} <= set(figures)


def test_the_report_shows_histogram_roc_and_maps_and_asks_nothing_from_outside(
    run: tuple[Path, dict[str, object]],
) -> None:
    page = (run[0] / "report.html").read_text()
    assert page.count("<svg") == 3
    assert page.count("data:image/jpeg;base64,") >= 8
    assert 'src="http' not in page
    assert "image AUROC" in page


def test_parts_that_only_masks_tell_apart_are_learned_and_measured(parts: Path, tmp_path: Path) -> None:
    """The same caps as KSDD2 has its parts: a mask beside each, all black where it is good."""
    for number, path in enumerate(sorted(parts.glob("t*/*/*.png"))):
        image = cv2.imread(str(path))
        mask = parts / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
        side = tmp_path / "caps" / path.parts[-3]
        write(side / f"{number}.png", image)
        write(side / f"{number}_GT.png", cv2.imread(str(mask)) if mask.exists() else np.zeros_like(image))
    data, folder = tmp_path / "caps", tmp_path / "run"
    done = kenpin("train", "--data", data, "--run", folder, "--size", 64, "--steps", 5, "--json")
    assert done.returncode == 0, done.stderr
    assert "by their masks 32 pictures of good ones, 8 of bad ones" in done.stderr
    figures = json.loads(done.stdout)
    assert (figures["good"], figures["bad"]) == (8, 8)
    assert 0 <= figures["pixel_auroc"] <= 1
    measured = kenpin("evaluate", folder, "--data", data, "--json")
    assert measured.returncode == 0, measured.stderr
    assert json.loads(measured.stdout)["image_auroc"] == figures["image_auroc"]


def test_evaluate_gives_the_figures_of_the_training(run: tuple[Path, dict[str, object]], parts: Path) -> None:
    done = kenpin("evaluate", run[0], "--data", parts, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["image_auroc"] == run[1]["image_auroc"]
    # With units: that a rate counts of 1,000 parts stands in its row.
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in done.stderr.splitlines() if "│" in line
    ]
    found = {row[0]: row for row in rows}
    assert " to " in found["pixel AUROC"][2]
    assert found["false calls per 1,000 at 95 % caught"][1].isdigit()


@pytest.mark.parametrize("missing", ["good", "bad"])
def test_pictures_of_one_class_are_told_to_give_no_figures(
    run: tuple[Path, dict[str, object]], parts: Path, tmp_path: Path, missing: str
) -> None:
    data = Path(shutil.copytree(parts, tmp_path / "cap"))
    for kind in (data / "test").iterdir():
        if (kind.name == "good") == (missing == "good"):
            shutil.rmtree(kind)
    shutil.rmtree(data / "ground_truth")
    done = kenpin("evaluate", run[0], "--data", data, "--json")
    assert json.loads(done.stdout).keys() == {"model", "pictures", "good", "bad", "ms_per_image"}
    told = " ".join(done.stderr.split())
    # A folder of defects alone passes for good parts: nothing else would say so.
    assert (
        f"all 8 pictures count as {'bad' if missing == 'good' else 'good'} parts: the other figures need"
        in told
    )


def test_masks_are_known_to_the_run(run: tuple[Path, dict[str, object]]) -> None:
    rows = json.loads((run[0] / "data.json").read_text())["pictures"]
    masked = {Path(row["file"]).stem: Path(row["mask"]) for row in rows if "mask" in row}
    assert len(masked) == 8
    assert all(mask.is_file() and mask.stem == f"{stem}_mask" for stem, mask in masked.items())


def test_bad_pictures_without_a_mask_and_masks_of_most_of_a_picture_are_told(
    parts: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(parts, tmp_path / "cap")
    kind = sorted((data / "ground_truth").iterdir())[-1]
    count = len(list(kind.iterdir()))
    shutil.rmtree(kind)
    exchanged = next((data / "ground_truth").rglob("*.png"))
    write(exchanged, 255 - cv2.imread(str(exchanged)))
    done = kenpin("train", "--data", data, "--run", tmp_path / "run", "--size", 64, "--steps", 1, "--batch", 4)
    shutil.copytree(data / "test/good", data / "dent")
    measured = kenpin("evaluate", tmp_path / "run", "--data", data)
    assert "8 pictures left out by their place" in measured.stderr
    for told in (done, measured):
        assert told.returncode == 0, told.stderr
        assert f"1 mask marking most of what is looked at, like {exchanged}: is it bright" in told.stderr
        assert f"{count} of 8 bad pictures have no mask, like {data / 'test' / kind.name}" in told.stderr


def test_a_mask_that_does_not_fit_is_refused_before_anything_is_trained(parts: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(parts, tmp_path / "parts")
    mask = next((copy / "ground_truth").rglob("*.png"))
    write(mask, np.zeros((10, 10), np.uint8))
    with pytest.raises(DataError, match="the mask has 10 x 10 pixels"):
        cli.main(["train", "--data", str(copy), "--run", str(tmp_path / "run")], standalone_mode=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [("--data", ""), ("--good", "good"), ("--good", "good", "--bad", "bad")])
def test_a_run_among_the_pictures_is_refused_as_it_could_not_be_resumed(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Its folder would be a kind of defect, without any picture or with reference.png."""
    for folder in ("good", "bad"):
        (tmp_path / folder).mkdir()
    given = [o if o.startswith("--") else str(tmp_path / o) for o in options]
    with pytest.raises(ConfigError, match="the run folder lies among the pictures"):
        cli.main(["train", *given, "--run", f"{given[-1]}/run"], standalone_mode=False)


def test_a_run_beside_train_and_test_is_not_among_the_pictures(tmp_path: Path) -> None:
    (tmp_path / "train/good").mkdir(parents=True)
    with pytest.raises(DataError, match="the folder holds no picture"):
        cli.main(["train", "--data", str(tmp_path), "--run", str(tmp_path / "run")], standalone_mode=False)


def test_pictures_that_are_left_out_by_their_place_are_told(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(parts, tmp_path / "caps"))
    shutil.copytree(data / "test/good", data / "train/dent")
    (data / "train/good/000.png").write_bytes(b"no picture")  # so that nothing is trained here
    with pytest.raises(DataError):
        cli.main(["train", "--data", str(data), "--run", str(tmp_path / "r")], standalone_mode=False)
    told = capsys.readouterr().err
    assert "8 pictures left out by their place, like" in told
    assert "train/dent/000.png: defects lie in test/DEFECT" in told


def test_pictures_that_cannot_be_read_are_all_named_before_anything_is_trained(
    parts: Path, tmp_path: Path
) -> None:
    """They would be read after the training only, and the run knows their hashes by then."""
    copy = shutil.copytree(parts, tmp_path / "parts")
    broken = [copy / "test/good/003.png", next((copy / "test").glob("[!g]*")) / "005.png"]
    broken[0].write_bytes(b"no picture")
    broken[1].unlink()
    broken[1].symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match="2 cannot be used, the first because") as refused:
        cli.main(["train", "--data", str(copy), "--run", str(tmp_path / "run")], standalone_mode=False)
    assert all(str(path) in refused.value.where for path in broken)
    assert refused.value.cure
    assert not (tmp_path / "run").exists()


def test_pictures_of_several_sizes_are_told(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As one that a phone turned by EXIF alone, or another camera took: it is learned from stretched."""
    copy = shutil.copytree(parts, tmp_path / "parts")
    turned = copy / "train/good/003.png"
    image = cv2.imread(str(turned))
    assert image is not None
    write(turned, image[: image.shape[0] // 2])
    arguments = ["--data", str(copy), "--run", str(tmp_path / "run"), "--size", "64", "--steps", "1"]
    cli.main(["train", *arguments], standalone_mode=False)
    told = " ".join(capsys.readouterr().err.split())
    height, width = image.shape[:2]
    assert (
        f"the pictures have 2 sizes: 39 are {width} x {height}, 1 {width} x {height // 2}, like {turned}"
        in told
    )
    # Learned as good, it is still the one that is most unlike the others.
    assert f"the good parts most unlike the others, as the report shows them: {turned.resolve()}," in told
    assert "are they good?" in (tmp_path / "run/report.html").read_text()


@pytest.mark.parametrize(("roi", "is_small"), [(31, True), (32, False)])
def test_a_view_that_shows_far_fewer_pixels_than_the_model_is_told(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], roi: int, *, is_small: bool
) -> None:
    first = sorted(parts.glob("train/good/*"))[0]
    image = cv2.imread(str(first))
    assert image is not None
    height, width = image.shape[:2]
    (tmp_path / "view.toml").write_text(f"frame_size = [{width}, {height}]\nroi = [40, 40, {roi}, 32]\n")
    arguments = ["--data", parts, "--run", tmp_path / "run", "--size", 64, "--steps", 1, "--batch", 4]
    cli.main(["train", *map(str, arguments), "--view", str(tmp_path / "view.toml")], standalone_mode=False)
    told = " ".join(capsys.readouterr().err.split())
    says = f"40 pictures far smaller than the 64 x 64 pixels of --size, like {first}: blown up, they"
    assert (says in told) == is_small


def test_a_finished_run_is_not_overwritten(run: tuple[Path, dict[str, object]], parts: Path) -> None:
    done = kenpin("train", "--data", parts, "--run", run[0], "--size", 64, "--steps", 30)
    assert done.returncode == 2
    assert "holds a run already" in done.stderr
    assert "--resume" in done.stderr


@pytest.mark.parametrize(("taken", "says"), [("config.json", "holds a run already"), ("", "is a file")])
def test_a_run_that_cannot_be_begun_is_told_before_thousands_of_pictures_are_read(
    tmp_path: Path, taken: str, says: str
) -> None:
    place = tmp_path / "run" / taken
    place.parent.mkdir(exist_ok=True)
    place.touch()
    unread = tmp_path / "nowhere"
    with pytest.raises(ConfigError, match=says):
        cli.main(["train", "--data", str(unread), "--run", str(tmp_path / "run")], standalone_mode=False)


def test_resume_with_other_settings_is_refused(run: tuple[Path, dict[str, object]], parts: Path) -> None:
    arguments = ["train", "--data", parts, "--run", run[0], "--size", 64, "--steps", 31, "--resume"]
    with pytest.raises(ConfigError, match=r"config\.json differs"):
        cli.main([str(a) for a in arguments], standalone_mode=False)


def test_a_run_in_which_another_process_trains_is_refused(
    run: tuple[Path, dict[str, object]], parts: Path
) -> None:
    arguments = ["train", "--data", parts, "--run", run[0], "--size", 64, "--steps", 30, "--resume"]
    with RunFolder(run[0]).sole_use(), pytest.raises(ConfigError, match="another process trains"):
        cli.main([str(a) for a in arguments], standalone_mode=False)


@pytest.mark.parametrize(("kind", "what"), [("test/good", "picture"), ("ground_truth/*", "mask")])
def test_a_test_picture_that_changes_while_training_is_not_measured(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, what: str
) -> None:
    data, folder = Path(shutil.copytree(parts, tmp_path / "cap")), RunFolder(tmp_path / "run")
    changed, other = sorted(data.glob(f"{kind}/*"))[:2]

    def learn_and_change(*args: Any, **given: Any) -> None:
        learn(*args, **given)
        changed.write_bytes(other.read_bytes())

    monkeypatch.setattr("kenpin.train.cli.learn", learn_and_change)
    arguments = ["train", "--data", data, "--run", folder.root, "--size", 64, "--steps", 1]
    with pytest.raises(DataError, match=f"a {what} of this run was changed") as refused:
        cli.main([str(a) for a in arguments], standalone_mode=False)
    assert refused.value.where == str(changed)
    assert folder.finished
    assert not any("evaluation" in line for line in folder.metrics())


def test_a_damaged_model_file_is_named(run: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    for name in ("config.json", "encoder.safetensors"):
        (tmp_path / name).write_bytes((run[0] / name).read_bytes())
    (tmp_path / "head.safetensors").write_bytes((run[0] / "head.safetensors").read_bytes()[:1000])
    with pytest.raises(TrainError, match="cannot read"):
        load_inspector(tmp_path)


def test_an_unfinished_run_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a run"):
        load_inspector(tmp_path)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill -9"])
def test_a_stopped_training_goes_on_with_resume(parts: Path, tmp_path: Path, how: signal.Signals) -> None:
    folder = tmp_path / "run"
    arguments = [str(a) for a in ("train", "--data", parts, "--run", folder, "--size", 64, "--steps", 40)]
    command = [sys.executable, "-m", "kenpin", *arguments]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300  # on a busy machine
    while not (folder / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(how)
    message = child.communicate()[1]
    if how is signal.SIGINT:
        assert child.returncode == 130
        assert "--resume" in message
        assert "Traceback" not in message
    assert not RunFolder(folder).finished
    cli.main([*arguments, "--resume"], standalone_mode=False)
    steps = [m for m in RunFolder(folder).metrics() if "loss" in m]
    assert [m["step"] for m in steps] == list(range(1, len(steps) + 1))
    assert steps[-1]["device_seconds"] == pytest.approx(sum(m["seconds"] for m in steps), abs=0.01)


def test_epochs_are_passes_over_the_pictures(parts: Path, tmp_path: Path) -> None:
    arguments = ["train", "--good", parts / "train/good", "--run", tmp_path / "r", "--size", 64, "--epochs", 2]
    cli.main([str(a) for a in arguments], standalone_mode=False)
    assert RunFolder(tmp_path / "r").config.steps == 2
    assert RunFolder(tmp_path / "r").config.product == parts.name
    assert "No figure can be given" in (tmp_path / "r/report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "{none}"], "does not exist"),
        (["--data", "{empty}"], "holds no picture"),
        (["--data", "{one}"], "too few pictures of good parts to learn from: "),
        (["--good", "{one}"], "too few pictures of good parts to learn from: "),
        (["--data", "{parts}", "--size", "100"], "multiple of 16"),
        (["--data", "{parts}", "--good", "{parts}"], "one too many"),
        ([], "one too many"),
        (["--data", "{cut}"], "cut short"),
        (["--data", "{bad}"], "by their masks no part to learn from is good"),
        (["--data", "{parts}", "--device", "cuda"], "no CUDA device"),
        (["--data", "{parts}", "--epochs", "1", "--steps", "1"], "--epochs and --steps are given together"),
        (["--data", "{parts}", "--budget", "long", "--steps", "1"], "--budget and --steps are given together"),
    ],
)
def test_bad_input_is_answered_with_what_where_and_the_cure(
    parts: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    if "cuda" in arguments and torch.cuda.is_available():
        arguments, message = ["--data", "{empty}"], "holds no picture"
    folders = {name: tmp_path / name for name in ("none", "empty", "one", "cut", "bad")}
    folders["empty"].mkdir()
    picture = draw_part("cap", seed=1, index=0, defect_share=0).image
    write(folders["one"] / "a.png", picture)
    write(folders["bad"] / "a.png", picture)
    write(folders["bad"] / "a_GT.png", cv2.circle(np.zeros_like(picture), (30, 30), 9, (255, 255, 255), -1))
    for index in range(10):
        write(folders["cut"] / f"{index}.png", draw_part("cap", seed=1, index=index, defect_share=0).image)
    whole = (folders["cut"] / "3.png").read_bytes()
    (folders["cut"] / "3.png").write_bytes(whole[: len(whole) // 2])
    given = [a.format(parts=parts, **folders) for a in arguments]
    steps = [] if "--steps" in given else ["--steps", "1"]
    with pytest.raises(KenpinError, match=message) as refused:
        cli.main(["train", *given, "--run", str(tmp_path / "run"), *steps], standalone_mode=False)
    assert refused.value.exit_code == 2
    assert refused.value.cure
    assert not (tmp_path / "run").exists()


def test_weights_of_a_run_are_no_initial_ones(
    run: tuple[Path, dict[str, object]], parts: Path, tmp_path: Path
) -> None:
    """They would fit, with red and blue exchanged."""
    given = ["--data", parts, "--run", tmp_path / "run", "--init", run[0] / "encoder.safetensors", "--steps", 1]
    with pytest.raises(ConfigError, match="weights are those of a run") as refused:
        cli.main(["train", *map(str, given)], standalone_mode=False)
    assert f"--from {run[0]}" in refused.value.cure


def test_parts_with_foreign_names_are_different_products() -> None:
    names = ("ボルト", "ナット", "M6 ボルト", "M6 ナット", "ÄÖÜ" * 40, "bolt 7", "bolt", "x" * 80)
    products = [_product(Path("/parts") / name / "good") for name in names]
    assert len(set(products)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", product) for product in products)
    assert products[2].startswith("M6-")
    assert products[5:7] == ["bolt-7", "bolt"]
    assert _product(Path("/parts/bolt/train/OK")) == "bolt"
    assert _product(Path("/", unicodedata.normalize("NFD", "ボルト"))) == products[0]


@pytest.mark.parametrize("seed", [-1, 2**32, 20261128124500])
def test_a_seed_that_does_not_fit_is_refused_at_once(parts: Path, tmp_path: Path, seed: int) -> None:
    arguments = ["train", "--data", str(parts), "--run", str(tmp_path / "run"), "--seed", str(seed)]
    with pytest.raises(click.BadParameter, match="not in the range"):
        cli.main(arguments, standalone_mode=False)
    assert not (tmp_path / "run").exists()


def test_mixed_sizes_and_channels_train(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(10):
        grey = rng.integers(0, 255, (50 + index, 70 + 3 * index), np.uint8)
        kinds = [grey, np.dstack([grey] * 3), np.dstack([grey] * 4), grey.astype(np.uint16) * 257]
        write(tmp_path / f"{index}.png", kinds[index % 4])
    roles = assign_roles(read_data(tmp_path), where=tmp_path, seed=0)
    assert load_pictures(roles.fit, side=64).shape[1:] == (3, 64, 64)


def test_pictures_of_one_part_only_are_refused(tmp_path: Path) -> None:
    for index in range(10):
        write(tmp_path / f"{index}.png", np.full((32, 32, 3), index, np.uint8))
    rows = "".join(f"{index}.png,same\n" for index in range(10))
    (tmp_path / "manifest.csv").write_text("file,group\n" + rows)
    with pytest.raises(DataError, match="same part"):
        assign_roles(read_data(tmp_path), where=tmp_path, seed=0)


def test_a_mask_of_a_tiny_defect_does_not_vanish(tmp_path: Path) -> None:
    image, mask = np.zeros((256, 256, 3), np.uint8), np.zeros((256, 256), np.uint8)
    mask[100:102, 100:102] = 255
    for index in range(10):
        write(tmp_path / f"train/good/{index}.png", image)
    write(tmp_path / "test/pit/0.png", image + 1)
    write(tmp_path / "ground_truth/pit/0_mask.png", mask)
    masks = load_masks(read_data(tmp_path).test, shape=(16, 16))
    assert masks.sum() == 1


def test_weights_that_do_not_fit_leave_no_run_folder(parts: Path, tmp_path: Path) -> None:
    weights = {k: v for k, v in Encoder(8).state_dict().items() if not k.startswith("layer3")}
    torch.save(weights, tmp_path / "weights.pth")
    command = ["train", "--data", parts, "--run", tmp_path / "run", "--init", tmp_path / "weights.pth"]
    with pytest.raises(ConfigError, match="lack: layer3"):
        cli.main([str(c) for c in command], standalone_mode=False)
    assert not (tmp_path / "run").exists()


def test_a_device_without_memory_for_the_head_ends_in_words_and_the_run_goes_on_elsewhere(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object, **__: object) -> object:
        raise torch.OutOfMemoryError

    command = ["train", "--data", parts, "--run", tmp_path / "run", "--size", 64, "--steps", 2, "--resume"]
    with monkeypatch.context() as small:
        small.setattr("kenpin.train.learn.fit_head", no_memory)
        with pytest.raises(TrainError, match="the device is out of memory") as refused:
            cli.main([str(c) for c in command], standalone_mode=False)
    assert "--resume --device cpu" in refused.value.cure
    assert not RunFolder(tmp_path / "run").finished
    cli.main([str(c) for c in (*command, "--device", "cpu")], standalone_mode=False)
    assert RunFolder(tmp_path / "run").finished
