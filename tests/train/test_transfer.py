"""A run that begins with what another one learned: from its folder, or from a signed bundle."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path

import cv2
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

from kenpin.bundle import CARD, MODEL, MODEL_FP, TRAINED, write_bundle
from kenpin.errors import BundleError, ConfigError, DataError, TrainError
from kenpin.folder_names import GOOD
from kenpin.picture_files import sha256_of
from kenpin.pictures import Picture, PictureSet
from kenpin.signing import SecretKey
from kenpin.synthetic import draw_part
from kenpin.train.cli import train
from kenpin.train.data import assign_roles
from kenpin.train.evaluate_cli import evaluate
from kenpin.train.fit import fit_head
from kenpin.train.inspector import Inspector
from kenpin.train.lines import read_lines, read_stream
from kenpin.train.model import Pretrained
from kenpin.train.run import RunConfig, RunFolder, learned_from, load_inspector
from kenpin.train.transfer import TRANSFER, Origin, load_origin, start_from
from tests import specimens

KEY = SecretKey.generate()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a model that was hardly trained: width 8, 64 px."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "first")
    rows = [{"file": "a.png", "sha256": f"{role} hash", "role": role} for role in ("fit", "held_back", "test")]
    config = RunConfig(product="cap", data="/caps", size=64, width=8, steps=1, batch=4, seed=0)
    folder.create(config, {"pictures": rows}, resume=False)
    torch.manual_seed(7)
    trained = Pretrained(8)
    pictures = torch.randint(0, 255, (12, 3, 64, 64), dtype=torch.uint8)
    folder.save_model(Inspector(trained.encoder, fit_head(trained, pictures[:8], pictures[8:], seed=0)))
    return folder.root


def bundle_of(run: Path, path: Path, *, without: str = "", changed: Mapping[str, bytes] | None = None) -> Path:
    trained = {name: (run / Path(name).name).read_bytes() for name in TRAINED if name != without}
    files = {MODEL: b"int8", MODEL_FP: b"float", CARD: b"# cap", **trained, **(changed or {})}
    manifest = specimens.manifest(learned_from=("ab", "cd"))
    write_bundle(path, manifest=manifest, files=files, key=KEY)
    return path


@pytest.fixture
def trust(tmp_path: Path) -> tuple[Path, ...]:
    """The public key that bundles of this file are signed with."""
    path = tmp_path / "own.pub"
    path.write_text(KEY.public.dumps())
    return (path,)


def caps(folder: Path, count: int) -> Path:
    (folder / GOOD).mkdir(parents=True)
    for index in range(count):
        image = draw_part("cap", seed=5, index=index, defect_share=0).image
        assert cv2.imwrite(str(folder / GOOD / f"{index:02}.png"), image)
    return folder


def kenpin_train(*options: object) -> Result:
    return CliRunner().invoke(train, [str(o) for o in options], catch_exceptions=False)


def test_an_origin_from_a_run_is_its_model_and_all_it_learned_from(run: Path) -> None:
    origin = load_origin(run, same_parts=False)
    assert (origin.name, origin.width, origin.size) == ("run first", 8, 64)
    assert origin.learned_from == {"fit hash", "held_back hash"}
    frames = torch.randint(0, 255, (2, 64, 64, 3), dtype=torch.uint8)
    assert torch.equal(origin.inspector(frames)[0], load_inspector(run)(frames)[0])


def test_an_origin_from_a_bundle_is_the_same_model(run: Path, tmp_path: Path, trust: tuple[Path, ...]) -> None:
    bundle = bundle_of(run, tmp_path / "cap.kenpin")
    origin = load_origin(bundle, same_parts=True, trust=trust)
    assert origin.name.startswith("cap 7 ")
    assert origin.learned_from == {"ab", "cd"}
    frames = torch.randint(0, 255, (2, 64, 64, 3), dtype=torch.uint8)
    assert torch.equal(origin.inspector(frames)[2], load_inspector(run)(frames)[2])


def test_evaluate_takes_the_run_and_its_bundle_alike(
    run: Path, tmp_path: Path, trust: tuple[Path, ...]
) -> None:
    data = caps(tmp_path / "data", 10)
    first = draw_part("cap", seed=6, index=0, defect_share=1)
    (data / "scratch").mkdir()
    assert cv2.imwrite(str(data / "scratch/0.png"), first.image)
    bundle = bundle_of(run, tmp_path / "a.kenpin")
    documents = []
    for model in ([run], [bundle, "--trust", *trust]):
        arguments = [str(o) for o in (*model, "--data", data, "--json")]
        done = CliRunner().invoke(evaluate, arguments, catch_exceptions=False)
        documents.append(json.loads(done.stdout))
    of_run, of_bundle = documents
    assert of_bundle["image_auroc"] == of_run["image_auroc"]
    # All of them: the folder has no test part of its own, and nothing of it was learned from.
    assert (of_bundle["good"], of_bundle["bad"]) == (10, 1)
    assert of_bundle["model"] == str(bundle)


def test_a_bundle_signed_by_a_stranger_is_not_read(run: Path, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.pub"
    stranger.write_text(SecretKey.generate().public.dumps())
    bundle = bundle_of(run, tmp_path / "cap.kenpin", changed={TRAINED[0]: b"never parsed"})
    with pytest.raises(BundleError, match="key"):
        load_origin(bundle, same_parts=False, trust=(stranger,))


@pytest.mark.parametrize("there", [False, True])
def test_a_mistyped_run_is_no_question_of_keys(tmp_path: Path, there: bool) -> None:
    """Nobody who never exported has a key, and none is needed for a run."""
    if there:
        (tmp_path / "run").mkdir()
    with pytest.raises(ConfigError, match="neither a finished run nor a bundle") as refused:
        load_origin(tmp_path / "run", same_parts=True, trust=(tmp_path / "none.pub",))
    assert refused.value.where == str(tmp_path / "run")


@pytest.mark.parametrize("without", TRAINED)
def test_a_bundle_without_the_trained_model_says_how_to_get_one(
    run: Path, tmp_path: Path, trust: tuple[Path, ...], without: str
) -> None:
    bundle = bundle_of(run, tmp_path / "old.kenpin", without=without)
    with pytest.raises(ConfigError, match=f"lacks {without}") as refused:
        load_origin(bundle, same_parts=False, trust=trust)
    assert "export" in refused.value.cure


def test_weights_that_make_no_model_are_refused(run: Path, tmp_path: Path, trust: tuple[Path, ...]) -> None:
    head = (run / "head.safetensors").read_bytes()
    broken = {"encoder for head": {TRAINED[0]: head}, "cut short": {TRAINED[1]: head[:500]}}
    for number, changed in enumerate(broken.values()):
        bundle = bundle_of(run, tmp_path / f"{number}.kenpin", changed=changed)
        with pytest.raises(TrainError, match=r"do not make a model|cannot read"):
            load_origin(bundle, same_parts=False, trust=trust)


def test_a_run_of_another_version_says_which_of_its_weights_does_not_fit(run: Path, tmp_path: Path) -> None:
    for path in run.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    head = load_file(run / "head.safetensors")
    save_file({**head, "light.mean": head["light.mean"][:1].clone()}, tmp_path / "head.safetensors")
    with pytest.raises(TrainError, match=r"this version of kenpin: size mismatch for light\.mean"):
        load_inspector(tmp_path)


def test_a_run_whose_weights_are_of_another_size_is_refused(run: Path, tmp_path: Path) -> None:
    for path in run.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((run / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "size": 80}))
    with pytest.raises(TrainError, match="do not fit"):
        load_inspector(tmp_path)


def test_a_transfer_starts_with_the_weights_of_the_origin(run: Path) -> None:
    origin = load_origin(run, same_parts=False)
    model = Pretrained(8)
    start_from(origin, model)
    for name, value in load_inspector(run).encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], value)
    known = load_inspector(run).head.discriminators.state_dict()
    assert all(torch.equal(v, known[k]) for k, v in model.discriminators.state_dict().items())


def test_pictures_that_the_origin_learned_from_do_not_measure(run: Path, tmp_path: Path) -> None:
    paths = sorted((caps(tmp_path, 3) / GOOD).iterdir())
    pictures = tuple(Picture(path, GOOD, path.stem) for path in paths)
    origin = Origin("o", load_inspector(run), frozenset({sha256_of(paths[1])}), same_parts=False)
    kept = origin.unseen(PictureSet(pictures, pictures), origin.known_parts(pictures))
    assert [p.group for p in kept.test] == ["00", "02"]
    assert kept.train == pictures


def test_parts_that_the_origin_learned_from_do_not_measure_in_other_pictures_either(
    run: Path, tmp_path: Path
) -> None:
    paths = sorted((caps(tmp_path, 10) / GOOD).iterdir())
    pictures = tuple(Picture(path, GOOD, f"part {number // 2}") for number, path in enumerate(paths))
    for same_parts in (True, False):
        origin = Origin("o", load_inspector(run), frozenset({sha256_of(paths[2])}), same_parts)
        kept = origin.unseen(PictureSet((), pictures), origin.known_parts(pictures))
        assert kept.test == pictures[:2] + pictures[4:]
        assert origin.known_parts(pictures) == {"part 1"}


@pytest.mark.parametrize("seed", range(5))
def test_parts_that_the_origin_learned_from_are_held_back_last(tmp_path: Path, seed: int) -> None:
    paths = sorted((caps(tmp_path, 12) / GOOD).iterdir())
    pictures = PictureSet(tuple(Picture(path, GOOD, f"part {n // 2}") for n, path in enumerate(paths)), ())
    for new in ({"part 0", "part 5"}, {"part 3"}):
        known = {p.group for p in pictures.train} - new
        held = [p.group for p in assign_roles(pictures, where=tmp_path, seed=seed, known=known).held_back]
        assert (len(held), len(set(held) & new)) == (4, len(new))


def test_an_update_learns_only_what_it_does_not_know(run: Path, tmp_path: Path) -> None:
    """The folder of the first training, grown since: known pictures would count twice, and set the scale."""
    folder = caps(tmp_path / "caps", 14)
    assert kenpin_train("--data", folder, "--run", tmp_path / "a", "--size", 64, "--steps", 2).exit_code == 0
    known = learned_from(RunFolder(tmp_path / "a").data)
    with pytest.raises(DataError, match="too few pictures of good parts to learn from: "):
        kenpin_train("--data", folder, "--run", tmp_path / "b", "--update", tmp_path / "a")
    for index in range(20, 30):
        image = draw_part("cap", seed=1, index=index, defect_share=0).image
        assert cv2.imwrite(str(folder / GOOD / f"{index:02}.png"), image)
    done = kenpin_train("--data", folder, "--run", tmp_path / "b", "--update", tmp_path / "a")
    assert done.exit_code == 0
    assert "of good parts left out, as the model knows them already" in done.stderr
    assert "by the model as it was" not in done.stderr
    rows = RunFolder(tmp_path / "b").data["pictures"]
    assert {row["role"] for row in rows} >= {"fit", "held_back"}
    assert not known & {row["sha256"] for row in rows}


def test_an_update_with_other_parts_is_told(tmp_path: Path) -> None:
    """With them defects pass that were good at the first."""
    first, other = caps(tmp_path / "caps", 24), tmp_path / "boards"
    options = ("--data", first, "--size", 64, "--steps", 2, "--whole")
    assert kenpin_train(*options, "--run", tmp_path / "a").exit_code == 0
    other.mkdir()
    for index in range(10):
        image = draw_part("board", seed=1, index=index, defect_share=0).image
        assert cv2.imwrite(str(other / f"{index:02}.png"), image)
    done = kenpin_train("--good", other, "--run", tmp_path / "b", "--update", tmp_path / "a")
    told = " ".join(done.stderr.split())
    assert "half of the new good pictures score above" in told
    assert "and so do other parts, with which defects pass; for these give --from" in told


def test_a_run_from_a_bundle_trains_a_share_and_tells_where_it_comes_from(
    run: Path, tmp_path: Path, trust: tuple[Path, ...]
) -> None:
    bundle, data = bundle_of(run, tmp_path / "cap.kenpin"), caps(tmp_path / "caps", 14)
    options = ("--data", data, "--from", bundle, "--trust", trust[0], "--steps", 2)
    assert kenpin_train(*options, "--run", tmp_path / "second").exit_code == 0
    folder = RunFolder(tmp_path / "second")
    assert (folder.config.width, folder.config.size, folder.config.steps) == (8, 64, 2)
    assert folder.config.origin.startswith("cap 7 ")
    own = {row["sha256"] for row in folder.data["pictures"] if row["role"] != "test"}
    assert learned_from(folder.data) == own | {"ab", "cd"}
    levels = [line["level"] for line in folder.metrics() if "loss" in line]
    assert len(levels) >= 2
    # Nothing is staged: the first step is drawn by lot as all others are, and by chance it is not coarse.
    assert levels[0] == random.Random("0 0").choices(TRANSFER.levels, TRANSFER.mix)[0].name != "coarse"
    before, after = (load_inspector(r).encoder.conv1.weight.detach() for r in (run, folder.root))
    assert 0 < float((before - after).abs().mean() / before.abs().mean()) < 0.1


def test_the_same_parts_from_another_folder_keep_the_name_of_their_product(
    run: Path, tmp_path: Path, trust: tuple[Path, ...]
) -> None:
    """Versions and masters belong to it."""
    bundle, data = bundle_of(run, tmp_path / "a.kenpin"), caps(tmp_path / "november", 12)
    products = {}
    for number, (way, origin) in enumerate((("--update", run), ("--update", bundle), ("--from", run))):
        given = ("--data", data, "--run", tmp_path / str(number), way, origin, "--trust", trust[0])
        kenpin_train(*given, *(("--steps", 1) if way == "--from" else ()))
        products[number] = RunFolder(tmp_path / str(number)).config.product
    assert products == {0: "cap", 1: "cap", 2: "november"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--from", "{run}", "--update", "{run}"), "--update"),
        (("--update", "{run}", "--steps", "3"), "--steps"),
        (("--update", "{run}", "--budget", "quick", "--uniform"), "--budget, --uniform"),
        (("--update", "{run}", "--batch", "8", "--cache-mb", "100"), "--batch, --cache-mb"),
        (("--update", "{run}", "--precision", "bf16", "--compile"), "--precision, --compile"),
        (("--from", "{run}", "--uniform"), "--uniform"),
        (("--update", "{run}", "--size", "80"), "not the 64"),
        (("--from", "{none}"), "neither a finished run nor a bundle"),
    ],
)
def test_what_cannot_go_together_is_refused(
    run: Path, tmp_path: Path, trust: tuple[Path, ...], options: tuple[str, ...], message: str
) -> None:
    data = caps(tmp_path / "caps", 12)
    given = [o.format(run=run, none=tmp_path / "none") for o in options]
    with pytest.raises((ConfigError, BundleError), match=message):
        kenpin_train("--data", data, "--run", tmp_path / "r", "--trust", trust[0], *given)
    assert not (tmp_path / "r").exists()


def test_two_lines_are_told_apart_by_the_names_of_their_pictures(tmp_path: Path) -> None:
    for seed, folder in enumerate(("train/good", "test/good", "test/bad")):
        for index, name in enumerate(("a0", "a1", "b0", "b1", "b2")):
            path = tmp_path / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = draw_part("cap", seed=seed, index=index, defect_share=0).image[::8, ::8]
            assert cv2.imwrite(str(path), image)
    first, second = read_lines(tmp_path, "a", side=64)
    assert [len(s.fit) + len(s.held_back) for s in (first, second)] == [2, 3]
    assert [len(s.test) for s in (first, second)] == [4, 6]
    assert second.bad.sum() == 3
    with pytest.raises(DataError, match="line 1"):
        read_lines(tmp_path, "c", side=64)


def test_a_stream_is_cut_by_time(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    lines = ["time,file,pitting"]
    for day in range(1, 10):
        image = draw_part("cap", seed=1, index=day, defect_share=0).image[::8, ::8]
        assert cv2.imwrite(str(tmp_path / f"images/{day}.png"), image)
        lines.append(f"2020-01-0{day}T00:00:00,images/{day}.png,{int(day in (2, 8))}")
    (tmp_path / "stream.csv").write_text("\r\n".join(lines) + "\r\n", encoding="utf-8-sig", newline="")
    early, late = read_stream(tmp_path, "2020-01-05", "2020-01-08", side=64)
    assert [len(s.fit) + len(s.held_back) for s in (early, late)] == [2, 3]
    assert (len(early.test), early.bad.sum()) == (2, 1)
    assert (len(late.test), late.bad.sum()) == (2, 1)
    with pytest.raises(DataError, match="0 good pictures before"):
        read_stream(tmp_path, "2019", "2020-01-08", side=64)
