"""The view: what is drawn, what of a frame it takes, and what it refuses."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from kenpin.bundle import CARD, MODEL, MODEL_FP, Bundle, open_bundle, write_bundle
from kenpin.edge_runtime.engine_ort import load_engine
from kenpin.errors import BundleError, ConfigError, DataError, KenpinError, OutOfView
from kenpin.export.cli import export
from kenpin.export.golden import DEFECTS
from kenpin.folder_names import GOOD
from kenpin.frame import Image, decode_picture
from kenpin.pictures import Picture, PictureSet
from kenpin.preprocess import to_input
from kenpin.sight import Sight, read_sight, sight_of, take
from kenpin.signing import SecretKey
from kenpin.train.cli import train
from kenpin.train.data import load_masks, read_image
from kenpin.train.evaluate_cli import evaluate
from kenpin.train.intake import check_masks, check_pictures, check_teachers, set_apart
from kenpin.train.report_cli import pictures_of
from kenpin.train.run import RunConfig, RunFolder
from kenpin.view import Align, Box, View, read_view
from tests import specimens

SIZE = (320, 240)
ROI = Box(60, 40, 200, 160)
TEMPLATE = Box(80, 60, 64, 48)
SHIFT = 24
LABEL = ((180, 150), (240, 150), (240, 180), (180, 180))  # a place where every part has another number
KEY = SecretKey.generate()


def scene(right: int = 0, down: int = 0, *, number: str = "17") -> Image:
    """A part on a conveyor: a plate with a hole, a mark and a number, so far from its place."""
    frame = np.full((SIZE[1], SIZE[0], 3), 70, np.uint8)
    frame[::8] = 60
    x, y = 70 + right, 50 + down
    cv2.rectangle(frame, (x, y), (x + 180, y + 140), (150, 160, 140), -1)
    cv2.circle(frame, (x + 40, y + 34), 16, (20, 30, 40), -1)
    cv2.rectangle(frame, (x + 120, y + 20), (x + 150, y + 30), (40, 40, 200), -1)
    cv2.putText(frame, number, (x + 114, y + 126), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 255), 2)
    return frame


def png(image: Image) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


REFERENCE = png(scene())


def view_of(**changes: Any) -> View:
    return View(**{"frame_size": SIZE, "roi": ROI, **changes})


def sight_with(reference: bytes = REFERENCE, **changes: Any) -> Sight:
    sha256 = hashlib.sha256(REFERENCE).hexdigest()
    return Sight(view_of(reference=sha256, **changes), reference, where="here")


def aligned(**changes: Any) -> Sight:
    return sight_with(align={"template": TEMPLATE, "max_shift_px": SHIFT, **changes})


TOML = f"""
frame_size = [320, 240]
roi = {list(ROI)}
ignore = [{[list(corner) for corner in LABEL]}]

[align]
template = {list(TEMPLATE)}
max_shift_px = {SHIFT}
"""


def write_view(folder: Path, text: str = TOML, *, name: str = "view.toml", picture: bytes = REFERENCE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    (folder / "reference.png").write_bytes(picture)
    return folder / name


def test_toml_json_and_a_folder_give_the_same_view(tmp_path: Path) -> None:
    from_toml, picture = read_view(write_view(tmp_path / "a"))
    assert (picture, from_toml.reference) == (REFERENCE, hashlib.sha256(REFERENCE).hexdigest())
    assert (from_toml.roi, from_toml.ignore) == (ROI, (LABEL,))
    write_view(tmp_path / "b", from_toml.model_dump_json(), name="view.json")
    assert read_view(tmp_path / "b") == read_view(tmp_path / "b/view.json") == (from_toml, picture)


@pytest.mark.parametrize("name", ["view.toml", "view.json"])
def test_a_view_from_an_editor_of_windows_is_read(tmp_path: Path, name: str) -> None:
    view, _ = read_view(write_view(tmp_path / "drawn"))
    text = TOML if name == "view.toml" else view.model_dump_json(indent=1)
    assert read_view(write_view(tmp_path, "\ufeff" + text.replace("\n", "\r\n"), name=name))[0] == view


def test_a_view_that_only_crops_needs_no_picture(tmp_path: Path) -> None:
    (tmp_path / "view.json").write_text(json.dumps({"frame_size": SIZE, "roi": ROI}))
    assert read_view(tmp_path) == (view_of(), b"")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frame_size = [320", "not TOML"),
        ("roi = [0, 0, 9, 9]", "frame_size: Field required"),
        (TOML.replace("ignore", "ignroe"), "unknown key ignroe"),
        (TOML.replace(str(list(ROI)), "[200, 40, 200, 160]"), "does not lie in the frame of 320 x 240"),
        (TOML.replace(str(list(ROI)), "[60, 40, 0, 160]"), "does not lie in the frame"),
        (TOML.replace(str(list(ROI)), "[20, 40, 200, 160]"), "no room for a part that is off by 24"),
        (TOML.replace("[180, 150], [240, 150], ", ""), "fewer than three corners"),
        (TOML.replace("[240, 150]", "[320, 150]"), r"the corner \(320, 150\) does not lie"),
        (TOML.replace(str(list(TEMPLATE)), "[80, 60, 64, 15]"), "each side needs 16"),
        (TOML.replace(str(list(TEMPLATE)), "[24, 60, 64, 48]"), "needs 26 pixels of frame on every side"),
        (TOML.replace("max_shift_px = 24", "max_shift_px = 0"), "align.max_shift_px: Input should be greater"),
        (TOML.replace(str(list(TEMPLATE)), "[170, 140, 64, 48]"), "lies partly in what is ignored"),
        (TOML.replace(str(list(TEMPLATE)), "[150, 95, 32, 32]"), "a place without contrast"),
        (
            TOML.replace(str(list(TEMPLATE)), "[100, 174, 64, 32]"),
            "looks the same",
        ),  # an edge slides along itself
        (
            f"frame_size = [320, 240]\nroi = {list(ROI)}\nignore = [[[0, 0], [319, 0], [319, 239], [0, 239]]]",
            "ignores all",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        read_sight(write_view(tmp_path, text))
    assert "view.toml" in refused.value.where
    assert refused.value.cure


def test_the_reference_picture_belongs_to_its_view(tmp_path: Path) -> None:
    path = write_view(tmp_path)
    (tmp_path / "reference.png").unlink()
    with pytest.raises(ConfigError, match="cannot read the view") as missing:
        read_sight(path)
    assert missing.value.where.endswith("reference.png")
    with pytest.raises(ConfigError, match="not the picture that the view was drawn on"):
        sight_with(png(scene(number="18")), ignore=(LABEL,))
    with pytest.raises(ConfigError, match="100 x 80 pixels, but frame_size is 320 x 240"):
        read_sight(write_view(tmp_path, picture=png(np.zeros((80, 100, 3), np.uint8))))
    with pytest.raises(DataError, match="not a picture"):
        read_sight(write_view(tmp_path, picture=b"no picture"))


def test_the_roi_is_what_is_taken() -> None:
    frame = scene()
    taken = Sight(view_of(), b"", where="here").take(frame)
    assert taken.cutout.box == ROI
    np.testing.assert_array_equal(taken.image, frame[40:200, 60:260])
    whole = take(frame, None)
    assert (whole.image is frame, whole.cutout.box) == (True, Box(0, 0, *SIZE))


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.tuples(st.integers(0, 319), st.integers(0, 239)), min_size=3, max_size=7),
)
def test_nothing_below_a_polygon_reaches_the_model(seed: int, polygon: list[tuple[int, int]]) -> None:
    sight = sight_with(ignore=(tuple(polygon), LABEL))
    rng = np.random.default_rng(seed)
    frame = rng.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    inside = np.zeros(frame.shape[:2], np.uint8)
    cv2.fillPoly(inside, [np.array(polygon, np.int32)], 1)
    cv2.fillPoly(inside, [np.array(LABEL, np.int32)], 1)
    other = frame.copy()
    other[inside > 0] = rng.integers(0, 256, (int(inside.sum()), 3), np.uint8)
    before = other.copy()
    taken = sight.take(other).image
    np.testing.assert_array_equal(other, before)  # evidence shows the frame as it was
    np.testing.assert_array_equal(taken, sight.take(frame).image)
    expected = np.where(inside[..., None] > 0, scene(), frame)[ROI.slices]
    np.testing.assert_array_equal(taken, expected)


@given(st.integers(-SHIFT, SHIFT), st.integers(-SHIFT, SHIFT), st.floats(0.6, 1.5), st.integers(0, 99))
def test_the_view_follows_the_part(right: int, down: int, gain: float, seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 4, (SIZE[1], SIZE[0], 3))
    frame = np.clip(scene(right, down) * gain + noise, 0, 255).astype(np.uint8)
    x, y, width, height = aligned().take(frame).cutout.box
    # Half a pixel of doubt may end on either side.
    assert max(abs(x - ROI.x - right), abs(y - ROI.y - down)) <= (
        0 if max(abs(right), abs(down)) < SHIFT else 1
    )
    assert (width, height) == ROI[2:]


def test_the_view_follows_a_large_part_that_is_searched_for_in_a_shrunk_picture() -> None:
    large = np.asarray(cv2.resize(scene(), (1280, 960), interpolation=cv2.INTER_CUBIC), np.uint8)
    reference = png(large)
    view = View(
        frame_size=(1280, 960),
        roi=Box(240, 160, 800, 640),
        align=Align(template=Box(300, 220, 300, 240), max_shift_px=90),
        reference=hashlib.sha256(reference).hexdigest(),
    )
    sight = Sight(view, reference, where="here")
    assert view.align is not None
    assert view.align.reduction == 6
    for right, down in ((0, 0), (1, -2), (37, 51), (-90, 88), (89, -90)):
        moved = cv2.warpAffine(
            large, np.array([[1.0, 0, right], [0, 1.0, down]]), (1280, 960), borderValue=(70, 70, 70)
        )
        box = sight.take(np.asarray(moved, np.uint8)).cutout.box
        assert max(abs(box.x - 240 - right), abs(box.y - 160 - down)) <= 1


@pytest.mark.parametrize(("right", "down"), [(SHIFT + 4, 0), (0, -SHIFT - 4), (-SHIFT - 8, SHIFT)])
def test_a_part_that_lies_too_far_off_is_misplaced(right: int, down: int) -> None:
    with pytest.raises(OutOfView, match="allowed 24") as refused:
        aligned().take(scene(right, down), where="0001.png")
    assert (refused.value.finding, refused.value.where) == ("misplaced", "0001.png")


def empty_belt() -> Image:
    frame = np.full((SIZE[1], SIZE[0], 3), 70, np.uint8)
    frame[::8] = 60
    return frame


@pytest.mark.parametrize(
    "frame",
    [
        empty_belt(),
        np.zeros((SIZE[1], SIZE[0], 3), np.uint8),
        np.full((SIZE[1], SIZE[0], 3), 255, np.uint8),
        np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8),
        scene() // 20 + 60,  # far too little contrast to believe a correlation
        scene()[::-1, ::-1].copy(),
    ],
    ids=["empty", "black", "white", "noise", "faded", "turned"],
)
def test_where_no_part_is_it_is_absent(frame: Image) -> None:
    with pytest.raises(OutOfView, match=r"allowed from 0\.70") as refused:
        aligned().take(frame)
    assert refused.value.finding == "absent"


@given(st.integers(0, 2**32 - 1), st.integers(0, 255), st.integers(0, 3))
def test_a_flat_frame_never_shows_a_part(seed: int, level: int, noise: int) -> None:
    rough = np.random.default_rng(seed).integers(0, noise + 1, (SIZE[1], SIZE[0], 3))
    frame = np.clip(level + rough, 0, 255).astype(np.uint8)
    with pytest.raises(OutOfView):
        aligned(min_match=0.3).take(frame)


def test_a_frame_of_another_size_is_refused() -> None:
    with pytest.raises(OutOfView, match="240 x 320 pixels, not 320 x 240") as refused:
        aligned().take(np.zeros((320, 240, 3), np.uint8))
    assert refused.value.finding == "wrong_size"
    with pytest.raises(DataError, match="must be BGR"):
        aligned().take(np.zeros((240, 320), np.uint8))


def test_pictures_and_masks_are_read_through_the_view(tmp_path: Path) -> None:
    sight = sight_with(ignore=(LABEL,), align={"template": TEMPLATE, "max_shift_px": SHIFT})
    path, mask = tmp_path / "part.png", np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    path.write_bytes(png(scene(9, 5)))
    mask[110:126, 149:165] = 255  # in the view, which moves along
    mask[0:20, 0:20] = 255  # outside
    mask[165:175, 200:230] = 255  # below the label
    (tmp_path / "mask.png").write_bytes(png(mask))
    picture = Picture(path, "dent", "1", tmp_path / "mask.png", sight)
    taken = sight.take(scene(9, 5))
    assert taken.cutout.box == ROI.moved(9, 5)
    np.testing.assert_array_equal(
        read_image(picture, shape=(64, 64)), to_input(taken.image, height=64, width=64)
    )
    found = np.argwhere(load_masks([picture], shape=(64, 64))[0])
    rows, columns = (found * (ROI.height / 64, ROI.width / 64) + (45, 69)).T
    assert 105 <= rows.min() <= 112 < rows.mean() < 120 <= rows.max() <= 127
    assert 145 <= columns.min() <= 151 < columns.mean() < 158 <= columns.max() <= 166


def test_pictures_that_do_not_fit_are_refused_before_a_training(tmp_path: Path) -> None:
    sight = aligned()
    frames = {"a": scene(), "b": scene(SHIFT + 9, 0), "c": np.zeros((9, 9, 3), np.uint8)}
    for name, frame in frames.items():
        (tmp_path / f"{name}.png").write_bytes(png(frame))
    a, b, c = (Picture(tmp_path / f"{name}.png", GOOD, name, None, sight) for name in frames)
    looked = check_pictures([a, b])
    assert list(looked.misfits) == [b.path]
    assert looked.sizes == {(ROI.width, ROI.height): [a]}
    with pytest.raises(
        DataError, match="1 do not fit the view, the first because the frame is 9 x 9"
    ) as refused:
        check_pictures([a, b, c])
    assert refused.value.where == str(c.path)
    with pytest.raises(OutOfView) as refused:
        read_image(c, shape=(64, 64))  # as kenpin evaluate does without a look before
    assert refused.value.where == str(c.path)


def test_a_few_parts_that_the_view_does_not_find_are_set_apart_and_many_are_refused() -> None:
    good = [Picture(Path(f"{number}.png"), GOOD, str(number)) for number in range(100)]
    bad = [Picture(Path(f"bad{number}.png"), "dent", f"b{number}") for number in range(4)]
    found = PictureSet(tuple(good[:80]), (*good[80:], *bad), copies=1, left_out=2)

    def apart(*pictures: Picture) -> PictureSet:
        away = OutOfView("away", finding="absent", where="there", cure="put it back")
        return set_apart(found, {picture.path: away for picture in pictures})

    assert apart() == found
    kept = apart(good[3], good[99], *bad)
    assert (good[3] in kept.train, len(kept.train)) == (False, 79)
    assert kept.test == tuple(good[80:99])
    assert kept.misfits == (good[3], good[99], *bad)
    assert (kept.copies, kept.left_out) == (1, 2)
    with pytest.raises(DataError, match="of the pictures 3 do not fit the view, the first because away"):
        apart(good[3], good[98], good[99], bad[0])


def test_a_defect_that_the_view_hides_does_not_teach(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(scene()))
    mask = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    mask[:10, :10] = 255
    (tmp_path / "mask.png").write_bytes(png(mask))
    hidden = Picture(tmp_path / "a.png", "dent", "1", tmp_path / "mask.png", sight_with(ignore=(LABEL,)))
    check_pictures([hidden])
    assert check_masks([hidden]).empty == [hidden]
    with pytest.raises(DataError, match="outside of the view"):
        check_teachers([hidden])
    check_teachers([replace(hidden, sight=None)])  # without a view an empty mask is as good as none


def test_a_set_of_pictures_is_looked_at_through_a_view() -> None:
    sight, picture = aligned(), Picture(Path("a.png"), GOOD, "a")
    seen = PictureSet((picture,), (picture, picture)).through(sight)
    assert [p.sight for p in (*seen.train, *seen.test)] == [sight] * 3


def test_a_run_keeps_its_view_and_resumes_with_no_other(tmp_path: Path) -> None:
    config = RunConfig(product="cap", data="d", size=64, width=8, steps=4, batch=4, seed=1)
    plain = RunFolder(tmp_path / "plain")
    plain.create(config, {}, resume=False)
    assert "view" not in json.loads((plain.root / "config.json").read_text())  # as before there were views
    assert plain.sight is None
    sight = aligned()
    with_view, folder = config.model_copy(update={"view": sight.view}), RunFolder(tmp_path / "viewed")
    folder.create(with_view, {}, resume=False, reference=sight.reference)
    folder.create(with_view, {}, resume=True, reference=sight.reference)
    assert folder.sight is not None
    assert (folder.sight.view, folder.sight.reference) == (sight.view, REFERENCE)
    for other in (config, config.model_copy(update={"view": aligned(max_shift_px=20).view})):
        with pytest.raises(ConfigError, match=r"config\.json differs"):
            folder.create(other, {}, resume=True, reference=REFERENCE)
    (folder.root / "reference.png").write_bytes(png(scene(1)))
    with pytest.raises(ConfigError, match="not the picture"):
        _ = folder.sight


def bundle_with(path: Path, view: View | None, **files: bytes) -> Bundle:
    manifest = specimens.manifest(view=view.model_dump(mode="json") if view is not None else None)
    content = {MODEL: b"int8", MODEL_FP: b"float", CARD: b"# cap", **files}
    write_bundle(path, manifest=manifest, files=content, key=KEY)
    return open_bundle(path, [KEY.public])


def test_a_bundle_carries_the_view_in_its_signed_manifest(tmp_path: Path) -> None:
    view = aligned().view
    bundle = bundle_with(tmp_path / "a.kenpin", view, **{"reference.png": REFERENCE})
    sight = sight_of(bundle)
    assert sight is not None
    assert (sight.view, sight.reference) == (view, REFERENCE)
    with pytest.raises(BundleError, match=r"does not name reference\.png"):
        bundle_with(tmp_path / "b.kenpin", view)
    without = bundle_with(tmp_path / "c.kenpin", None)
    assert sight_of(without) is None
    # A kenpin that knows no views takes it, and refuses the other one.
    assert "view" not in json.loads(without.seal["manifest.json"])


@pytest.fixture(scope="module")
def viewed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained through a view: 30 good parts here and there, each with its number, and 3 dented ones."""
    root = tmp_path_factory.mktemp("plates")
    rng = np.random.default_rng(4)
    for index in range(33):
        right, down = (int(v) for v in rng.integers(-SHIFT, SHIFT + 1, 2))
        frame = scene(right, down, number=str(10 + index))
        noisy = np.clip(frame + rng.normal(0, 3, frame.shape), 0, 255).astype(np.uint8)
        if index >= 30:
            cv2.circle(noisy, (140 + right, 120 + down), 10, (0, 0, 0), -1)
        path = root / ("dent" if index >= 30 else GOOD) / f"{index:02}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(noisy))
    view = write_view(root / "drawn")
    options = [
        "--good",
        root / GOOD,
        "--bad",
        root / "dent",
        "--run",
        root / "run",
        "--view",
        view,
        "--size",
        64,
    ]
    done = CliRunner().invoke(
        train, [str(o) for o in (*options, "--steps", 4, "--batch", 8, "--device", "cpu")]
    )
    assert done.exit_code == 0, done.output + repr(done.exception)
    return root / "run"


def invoke(command: Any, *arguments: object) -> Any:
    return CliRunner().invoke(command, [str(a) for a in arguments])


def error_of(result: Any) -> KenpinError:
    assert isinstance(result.exception, KenpinError), result.output
    return result.exception


def test_from_a_training_with_a_view_to_an_engine_that_has_it(viewed_run: Path, tmp_path: Path) -> None:
    folder = RunFolder(viewed_run)
    assert folder.sight is not None
    KEY.save(tmp_path / "key")
    out = tmp_path / "plates.kenpin"
    done = invoke(export, viewed_run, "--out", out, "--key", tmp_path / "key", "--precision", "fp32")
    assert done.exit_code == 0, done.output + repr(done.exception)
    bundle = open_bundle(out, [KEY.public])
    looked_at = {read_image(p, shape=(64, 64)).tobytes() for p in pictures_of(folder, "held_back")}
    for golden in bundle.manifest.golden[:-DEFECTS]:
        assert decode_picture(bundle.files[golden.file], where=golden.file).tobytes() in looked_at
    told = "It is shown 200 x 160 px of 320 x 240, shifted with the part by up to 24 px, at 64 x 64 pixels."
    assert told in bundle.files[CARD].decode()
    engine = load_engine(bundle, "fp32")
    assert engine.sight is not None
    assert engine.sight.view == folder.config.view

    def score(frame: Image) -> float:
        return engine.score(take(frame, engine.sight).image).score

    # Neither the number nor what lies around the part is seen; a dent is.
    assert score(scene(number="99")) == score(scene(number="11"))
    littered = scene()
    littered[:30] = 255
    assert score(littered) == score(scene())
    dented = scene()
    cv2.circle(dented, (140, 120), 10, (0, 0, 0), -1)
    assert score(dented) > 1.2 * max(score(scene()), score(scene(-20, 14)))
    engine.close()


def test_evaluate_and_update_look_through_the_view_of_the_model(viewed_run: Path, tmp_path: Path) -> None:
    for index in range(12):
        (tmp_path / "data" / GOOD).mkdir(parents=True, exist_ok=True)
        frame = np.clip(scene(index, 0).astype(int) + index, 0, 255).astype(np.uint8)
        (tmp_path / "data" / GOOD / f"{index}.png").write_bytes(png(frame))
    done = invoke(evaluate, viewed_run, "--data", tmp_path / "data", "--json")
    assert done.exit_code == 0, done.output + repr(done.exception)
    options = ["--good", tmp_path / "data" / GOOD, "--update", viewed_run, "--run", tmp_path / "next"]
    assert "--view" in error_of(invoke(train, *options, "--view", viewed_run.parent / "drawn/view.toml")).what
    done = invoke(train, *options, "--device", "cpu")
    assert done.exit_code == 0, done.output + repr(done.exception)
    assert RunFolder(tmp_path / "next").config.view == RunFolder(viewed_run).config.view
    far = tmp_path / "data" / GOOD / "0.png"
    far.write_bytes(png(scene(SHIFT + 10)))
    assert str(far) in error_of(invoke(train, *options[:-1], tmp_path / "third", "--device", "cpu")).where


def test_a_training_refuses_pictures_that_do_not_fit_before_it_starts(viewed_run: Path, tmp_path: Path) -> None:
    small = write_view(tmp_path, "frame_size = [100, 80]\nroi = [0, 0, 100, 80]\n", name="small.toml")
    options = ["--good", viewed_run.parent / GOOD, "--run", tmp_path / "run", "--view", small, "--steps", 1]
    refused = error_of(invoke(train, *options))
    assert "do not fit the view, the first because the frame is 320 x 240 pixels, not 100 x 80" in refused.what
    assert not (tmp_path / "run").exists()
