from __future__ import annotations

import hashlib
import itertools
import math
import os
import shlex
import shutil
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kenpin.errors import DataError
from kenpin.picture_files import list_pictures, sha256_of
from kenpin.pictures import (
    Picture,
    PictureSet,
    join_copies,
    passed_over,
    read_data,
    read_folder,
    read_good_bad,
    read_measured,
    split_groups,
)


def _fill(root: Path, *names: str) -> None:
    """Make files; nothing here looks into a picture, so their content does not matter."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def _names(folder: str, count: int) -> list[str]:
    return [f"{folder}/{number:03}.png" for number in range(count)]


def _manifest(root: Path, groups: dict[str, str]) -> None:
    rows = [f"{file},{group}" for file, group in groups.items()]
    (root / "manifest.csv").write_text("\n".join(["file,group", *rows, ""]))


def _labels(pictures: tuple[Picture, ...]) -> list[str]:
    return [p.label for p in pictures]


def _is_whole(parts: PictureSet) -> bool:
    """No picture and no group on both sides."""
    sides = [{p.group for p in side} for side in (parts.train, parts.test)]
    paths = [p.path for p in (*parts.train, *parts.test)]
    return not sides[0] & sides[1] and len(set(paths)) == len(paths)


def _refused(folder: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        read_data(folder)
    error = caught.value
    assert error.what
    assert str(folder) in error.where
    assert error.cure
    return error


def test_pictures_are_found_below_the_folder_in_order(tmp_path: Path) -> None:
    _fill(tmp_path, "b.PNG", "a.jpg", "deep/er/c.tiff", "notes.txt", ".hidden.png", ".cache/d.png")
    (tmp_path / "folder.png").mkdir()
    found = [p.relative_to(tmp_path).as_posix() for p in list_pictures(tmp_path)]
    assert found == ["a.jpg", "b.PNG", "deep/er/c.tiff"]


def test_a_broken_link_is_listed_so_that_reading_it_names_it(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "moved away")
    assert [p.name for p in list_pictures(tmp_path)] == ["gone.png"]


def test_folders_that_are_linked_to_each_other_end(tmp_path: Path) -> None:
    _fill(tmp_path, "good/1.png", "lot1/2.png", "lot2/3.png")
    for folder, link in (("good", "lot1"), ("lot1", "lot2"), ("lot2", "good")):
        (tmp_path / folder / link).symlink_to(tmp_path / link)
    found = [p.relative_to(tmp_path).as_posix() for p in list_pictures(tmp_path / "good")]
    assert found == ["good/1.png", "good/lot1/2.png", "good/lot1/lot2/3.png"]


def test_linked_folders_are_read_and_a_link_back_ends(tmp_path: Path) -> None:
    _fill(tmp_path, "elsewhere/b.png", "good/a.png")
    (tmp_path / "good/lot1").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "good/again").symlink_to(tmp_path / "good")
    found = [p.relative_to(tmp_path / "good").as_posix() for p in list_pictures(tmp_path / "good")]
    assert found == ["a.png", "lot1/b.png"]


def test_a_folder_that_cannot_be_read_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by permissions: root reads all."""
    _fill(tmp_path, "a.png", "lot2/b.png")
    scan = os.scandir

    def scandir(path: str) -> object:
        if Path(path).name == "lot2":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match="cannot read the folder: Permission denied") as caught:
        list_pictures(tmp_path)
    assert caught.value.where == str(tmp_path / "lot2")


def test_missing_empty_and_file_are_three_messages(tmp_path: Path) -> None:
    _fill(tmp_path, "file", "empty/readme.txt")
    assert "does not exist" in _refused(tmp_path / "nowhere").what
    assert "is not a folder" in _refused(tmp_path / "file").what
    assert "holds no picture" in _refused(tmp_path / "empty").what


def test_one_picture_is_learned_from_and_nothing_is_left_to_test(tmp_path: Path) -> None:
    _fill(tmp_path, "only.png")
    parts = read_data(tmp_path)
    assert [p.path.name for p in parts.train] == ["only.png"]
    assert parts.test == ()


def test_plain_pictures_are_good_and_a_fifth_is_held_back(tmp_path: Path) -> None:
    _fill(tmp_path, *_names(".", 20))
    parts = read_data(tmp_path)
    assert (len(parts.train), len(parts.test)) == (16, 4)
    assert set(_labels(parts.train + parts.test)) == {"good"}
    assert _is_whole(parts)


@pytest.mark.parametrize("folder", [".", "good", "train/good"])
def test_the_seed_decides_what_is_held_back(tmp_path: Path, folder: str) -> None:
    _fill(tmp_path, *_names(folder, 20))
    assert read_data(tmp_path, seed=1) == read_data(tmp_path, seed=1)
    assert read_data(tmp_path, seed=1) != read_data(tmp_path, seed=2)
    plain = tmp_path / folder
    assert read_good_bad(plain, None, seed=1) != read_good_bad(plain, None, seed=2)


def test_subfolders_without_a_good_one_are_not_taken_for_good_parts(tmp_path: Path) -> None:
    _fill(tmp_path, *_names("Good parts", 5), *_names("scratch", 5), "loose.png")
    error = _refused(tmp_path)
    assert "Good parts, scratch" in error.what
    assert "train with --good" in error.cure


@pytest.mark.parametrize(
    ("good", "others"),
    [
        ("Data/Images/Normal", ["Data/Images/Anomaly/0.png", "Data/Masks/Anomaly/0.png"]),
        ("caps/train/ok", ["caps/test/ok/0.png", "caps/test/ko/0.png", "caps/ground_truth/ko/0.png"]),
        ("casting/train/ok_front", ["casting/train/def_front/0.png", "casting/test/ok_front/0.png"]),
        ("Good parts", ["scratch/0.png", "pit/0.png"]),
    ],
)
def test_what_to_give_is_told_where_good_parts_lie_deeper_or_by_another_name(
    tmp_path: Path, good: str, others: list[str]
) -> None:
    _fill(tmp_path, *_names(good, 3), *others)
    cure = _refused(tmp_path).cure
    assert cure.startswith(("give --data", "train with --good"))  # who evaluates has no --good
    given = shlex.split(cure.removeprefix("give ").removeprefix("train with ").split(";")[0].split(",")[0])
    if given[0] == "--data":
        found = read_data(Path(given[1]))
    else:
        found = read_good_bad(Path(given[1]), Path(given[3]) if len(given) > 2 else None)
    assert {p.path.parent for p in found.train} == {tmp_path / good}
    assert {tmp_path / name for name in others if "ground" not in name and "Masks" not in name} >= {
        p.path for p in found.test if p.label != "good"
    }


@pytest.mark.parametrize("good", ["ok", "OK", "Normal", "良品"])
def test_folders_of_good_parts_have_several_names(tmp_path: Path, good: str) -> None:
    _fill(tmp_path / "flat", *_names(good, 10), *_names("NG", 2))
    _fill(tmp_path / "sides", *_names(f"train/{good}", 6), *_names(f"test/{good}", 2), *_names("test/ko", 2))
    _fill(tmp_path / "sides", "ground_truth/ko/000.png", "train/ko/1.png")
    flat, sides = (read_data(tmp_path / name) for name in ("flat", "sides"))
    assert _labels(flat.train) == ["good"] * 8
    assert sorted(_labels(flat.test)) == ["NG", "NG", "good", "good"]
    assert _labels(sides.train) == ["good"] * 6
    assert sorted(_labels(sides.test)) == ["good", "good", "ko", "ko"]
    assert sum(p.mask is not None for p in sides.test) == 1
    assert passed_over(tmp_path / "sides") == [tmp_path / "sides/train/ko/1.png"]
    assert len(read_measured(tmp_path / "sides")) == 4


def test_of_two_folders_that_are_both_named_like_good_parts_none_is_taken(tmp_path: Path) -> None:
    _fill(tmp_path, *_names("OK", 9), *_names("normal", 9))
    assert "none is named good" in _refused(tmp_path).what


def test_good_beside_folders_of_defects_with_masks(tmp_path: Path) -> None:
    _fill(tmp_path, *_names("good", 10), *_names("hole", 2), *_names("stain", 1))
    _fill(tmp_path, "ground_truth/hole/001_mask.png", "ground_truth/hole/_mask.png")
    parts = read_data(tmp_path)
    assert _labels(parts.train) == ["good"] * 8
    assert _labels(parts.test) == ["good", "good", "hole", "hole", "stain"]
    assert [p.mask for p in parts.test[2:]] == [None, tmp_path / "ground_truth/hole/001_mask.png", None]


def test_mvtec_folders_keep_their_own_split(tmp_path: Path) -> None:
    _fill(tmp_path, *_names("train/good", 6), *_names("test/good", 2), *_names("test/hole", 2))
    _fill(tmp_path, *(f"ground_truth/{name}_mask.png" for name in ("hole/000", "hole/001", "good/000")))
    parts = read_data(tmp_path)
    assert _labels(parts.train) == ["good"] * 6
    assert _labels(parts.test) == ["good", "good", "hole", "hole"]
    masks = [p.mask.name if p.mask else None for p in parts.test]
    assert masks == [None, None, "000_mask.png", "001_mask.png"]
    assert _is_whole(parts)


def test_masks_of_lots_that_are_numbered_alike_are_told_apart(tmp_path: Path) -> None:
    _fill(tmp_path, *_names("train/good", 6), "test/pit/lot1/0.png", "test/pit/lot2/0.png", "test/pit/0.png")
    _fill(tmp_path, "ground_truth/pit/lot2/0_mask.png", "ground_truth/pit/0_mask.png")
    masks = {p.path.relative_to(tmp_path).as_posix(): p.mask for p in read_data(tmp_path).test}
    truth = tmp_path / "ground_truth/pit"
    assert masks == {
        "test/pit/0.png": truth / "0_mask.png",
        "test/pit/lot1/0.png": None,
        "test/pit/lot2/0.png": truth / "lot2/0_mask.png",
    }


@pytest.mark.parametrize(
    ("folder", "cure"),
    [
        ("masks", "move its masks to ground_truth/DEFECT"),
        ("Ground-Truth", "move its masks"),
        ("OK", "rename it to good"),
        ("Good", "rename it to good"),
        ("test", "take it out"),
    ],
)
@pytest.mark.parametrize("root", ["", "test/"])
def test_a_folder_that_is_no_kind_of_defect_does_not_count_as_bad_parts(
    tmp_path: Path, folder: str, cure: str, root: str
) -> None:
    _fill(tmp_path, *_names("train/good", 9 if root else 0), *_names(f"{root}good", 9))
    _fill(tmp_path, *_names(f"{root}{folder}", 2))
    _fill(tmp_path, *_names(f"{root}hole", 2))
    error = _refused(tmp_path)
    assert f"the folder {folder} would count as bad parts" in error.what
    assert cure in error.cure


def test_maps_of_the_surface_are_neither_good_nor_bad_parts(tmp_path: Path) -> None:
    """As of photometric stereo, where `normal` is no name of good parts."""
    _fill(tmp_path, *_names("normal", 9), *_names("albedo", 9))
    assert "the folder albedo would count as bad parts" in _refused(tmp_path).what
    (tmp_path / "normal").rename(tmp_path / "good")
    assert _labels(read_data(tmp_path).test)[-1] == "albedo"


def test_masks_below_the_folder_of_bad_parts_do_not_count_as_bad_parts(tmp_path: Path) -> None:
    _fill(tmp_path, *_names("ok", 10), *_names("ng/hole", 2), *_names("ng/ground_truth/hole", 2))
    with pytest.raises(DataError, match="the folder ground_truth would count as bad parts"):
        read_good_bad(tmp_path / "ok", tmp_path / "ng")


def _read_masters(folder: Path) -> list[Picture]:
    return read_folder(folder / "masters", label="master")


def _read_good(folder: Path) -> PictureSet:
    return read_good_bad(folder / "good", None)


def _read_bad(folder: Path) -> PictureSet:
    return read_good_bad(folder / "good", folder / "bad")


@pytest.mark.parametrize("twin", ["1_mask.png", "1_GT.png", "1-label.bmp", "1.jpg", "lot2/1_label.PNG"])
@pytest.mark.parametrize(
    ("folder", "read"),
    [
        ("good", _read_good),
        ("bad/scratch", _read_bad),
        ("masters/lot1", _read_masters),
        ("train/good", read_data),
        ("test/scratch", read_data),
    ],
)
def test_a_mask_beside_its_picture_is_no_part(
    tmp_path: Path, folder: str, read: Callable[[Path], object], twin: str
) -> None:
    _fill(tmp_path, *_names("good", 9), *_names("train/good", 9), f"{folder}/1.png", f"{folder}/{twin}")
    with pytest.raises(DataError, match="beside its picture") as caught:
        read(tmp_path)
    assert tmp_path / folder in Path(caught.value.where).parents


def _draw_masks(root: Path, *bad: str, good: Sequence[str] = ()) -> None:
    for name in (*bad, *good):
        mask = np.zeros((8, 8), np.uint8)
        mask[2:4, 2:4] = 255 if name in bad else 0
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), mask)


def _masked(found: PictureSet) -> dict[str, str]:
    """Names of the bad parts with those of their masks; those of good ones have none."""
    assert all(p.mask is None for p in (*found.train, *found.test) if p.label == "good")
    return {p.path.name: p.mask.name for p in found.test if p.label == "bad" and p.mask}


def test_masks_beside_their_pictures_tell_good_from_bad(tmp_path: Path) -> None:
    """As in KSDD2: each has one, all black where the part is good."""
    _fill(tmp_path, *(f"{side}/{side}{n}.png" for side in ("train", "test") for n in range(10)))
    good = [f"{side}/{side}{n}_GT.png" for side in ("train", "test") for n in range(2, 10)]
    _draw_masks(
        tmp_path, *(f"{side}/{side}{n}_GT.png" for side in ("train", "test") for n in range(2)), good=good
    )
    found = read_data(tmp_path)
    assert [p.path.name for p in found.train] == [f"train{n}.png" for n in range(2, 10)]
    assert _labels(found.test) == ["good"] * 8 + ["bad"] * 4
    assert {p.path.parent.name for p in found.test if p.label == "good"} == {"test"}
    assert _masked(found) == {
        f"{side}{n}.png": f"{side}{n}_GT.png" for side in ("train", "test") for n in (0, 1)
    }
    assert (found.by_masks, read_measured(tmp_path)) == (True, [*found.test])
    one_side = read_data(tmp_path / "train")
    assert (len(one_side.train), len(one_side.test), len(_masked(one_side))) == (6, 4, 2)
    assert len(read_measured(tmp_path / "train")) == 10


def test_masks_of_bad_parts_alone_lie_in_a_folder_label(tmp_path: Path) -> None:
    """As in DAGM, whose sides are written large."""
    _fill(tmp_path, *(f"Class1/{side}/{n:04}.PNG" for side in ("Train", "Test") for n in range(9)))
    _fill(tmp_path, "Class1/Train/Label/Labels.txt")
    _draw_masks(tmp_path / "Class1", "Train/Label/0003_label.PNG", "Test/Label/0008_label.PNG")
    found = read_data(tmp_path / "Class1")
    assert (len(found.train), _labels(found.test)) == (8, ["good"] * 8 + ["bad"] * 2)
    assert _masked(found) == {"0003.PNG": "0003_label.PNG", "0008.PNG": "0008_label.PNG"}
    assert read_measured(tmp_path / "Class1") == [*found.test]
    with pytest.raises(DataError, match="a mask beside its picture"):
        read_data(tmp_path)  # several products


@pytest.mark.parametrize(
    ("bad", "good", "unclear"),
    [
        (["1_GT.png"], [f"{n}_GT.png" for n in range(2, 9)], "0.png"),
        (["1_GT.png"], ["0_GT.png", *(f"{n}_GT.png" for n in range(2, 9)), "900_GT.png"], "900_GT.png"),
        (["Label/1_label.png", "Label/99_label.png"], [], "Label/99_label.png"),
    ],
)
def test_of_which_masks_do_not_tell_whether_it_is_good_is_refused(
    tmp_path: Path, bad: list[str], good: list[str], unclear: str
) -> None:
    _fill(tmp_path, *(f"{n}.png" for n in range(9)))
    _draw_masks(tmp_path, *bad, good=good)
    error = _refused(tmp_path)
    assert "a mask without its picture" in error.what
    assert Path(error.where) == tmp_path / unclear


def test_masks_that_lie_otherwise_tell_nothing(tmp_path: Path) -> None:
    """In a folder of any name, or here and there, they leave open whether the others are good."""
    for number, masks in enumerate(
        (["masks/1_mask.png"], ["1_GT.png", "Label/2_label.png"], ["1_GT.png", "1_mask.png"])
    ):
        folder = tmp_path / str(number)
        _fill(folder, *(f"{n}.png" for n in range(9)))
        _draw_masks(folder, *masks)
        assert "a mask beside its picture" in _refused(folder).what


def test_a_folder_in_which_masks_find_no_good_part_has_none_to_learn_from(tmp_path: Path) -> None:
    _fill(tmp_path, "1.png", "2.png")
    _draw_masks(tmp_path, "1_GT.png", "2_GT.png")
    found = read_data(tmp_path)
    assert (found.train, len(found.test)) == ((), 2)


def test_a_name_that_ends_like_a_mask_is_a_part_where_no_other_picture_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["1.png", "2_mask.png", "3_label.png", "_gt.png"]
    _fill(tmp_path / "good", *names, "lot4/1.png", "lot5/1.jpg")
    assert len(read_folder(tmp_path / "good", label="good")) == 6
    _fill(tmp_path / "here", *names)
    monkeypatch.chdir(tmp_path / "here")
    assert len(read_measured(Path())) == 4


def test_several_masks_of_a_picture_lie_in_a_folder_of_its_name(tmp_path: Path) -> None:
    """As in MVTec LOCO; a folder of a lot, which has pictures of its own, is not one."""
    _fill(tmp_path, *_names("train/good", 6), *_names("test/pit", 2), *_names("test/pit/lot1", 1))
    _fill(tmp_path, "test/pit/lot1.png")
    _fill(tmp_path, *_names("ground_truth/pit/000", 2), "ground_truth/pit/lot1/000_MASK.PNG")
    masks = {p.path.relative_to(tmp_path).as_posix(): p.mask for p in read_data(tmp_path).test}
    truth = tmp_path / "ground_truth/pit"
    assert masks == {
        "test/pit/000.png": truth / "000",
        "test/pit/001.png": None,
        "test/pit/lot1.png": None,
        "test/pit/lot1/000.png": truth / "lot1/000_MASK.PNG",
    }


@pytest.mark.parametrize("mask", ["hole/000_gt.png", "000_mask.png", "Hole/000_mask.png"])
def test_masks_that_belong_to_no_picture_are_told(tmp_path: Path, mask: str) -> None:
    _fill(tmp_path, *_names("train/good", 6), *_names("test/hole", 2), f"ground_truth/{mask}")
    error = _refused(tmp_path)
    assert error.what == "none of the masks belongs to a picture"
    assert "ground_truth/hole/000_mask.png or 000.png" in error.cure


def test_masks_of_one_kind_that_belong_to_no_picture_are_told(tmp_path: Path) -> None:
    _fill(tmp_path, *_names("train/good", 6), *_names("test/hole", 2), *_names("test/stain", 2))
    _fill(tmp_path, "ground_truth/hole/000_mask.png", "ground_truth/stain/000_gt.png")
    assert "ground_truth/stain/000_mask.png or 000.png" in _refused(tmp_path).cure


def test_masks_of_a_kind_that_was_taken_out_harm_nothing(tmp_path: Path) -> None:
    _fill(tmp_path, *_names("train/good", 6), *_names("test/hole", 2), *_names("test/stain", 2))
    _fill(tmp_path, "ground_truth/hole/000_mask.png", "ground_truth/pit/000_mask.png")
    assert len(read_data(tmp_path).test) == 4
    _fill(tmp_path / "all out", *_names("good", 10), "ground_truth/pit/000_mask.png")
    assert len(read_data(tmp_path / "all out").test) == 2
    _fill(tmp_path / "no masks", *_names("good", 10), "hole/000.png", "ground_truth/readme.txt")
    assert len(read_data(tmp_path / "no masks").test) == 3


def test_mvtec_folders_without_a_test_part_hold_some_back(tmp_path: Path) -> None:
    _fill(tmp_path, *_names("train/good", 10))
    parts = read_data(tmp_path)
    assert (len(parts.train), len(parts.test)) == (8, 2)


@pytest.mark.parametrize(
    ("folders", "measured"),
    [(("train/good", "test/good", "test/hole"), 10), (("train/good",), 5), (("good", "hole"), 10), ((".",), 5)],
)
def test_a_finished_model_is_measured_on_the_test_part_or_on_all(
    tmp_path: Path, folders: tuple[str, ...], measured: int
) -> None:
    _fill(tmp_path, *(name for folder in folders for name in _names(folder, 5)))
    found = read_measured(tmp_path)
    assert len({p.path for p in found}) == len(found) == measured
    assert not any("train" in p.path.parts for p in found if "test/good" in folders)


def test_loose_pictures_in_test_are_not_silently_left_out(tmp_path: Path) -> None:
    _fill(tmp_path, *_names("train/good", 10), *_names("test", 4))
    with pytest.raises(DataError, match="no subfolders"):
        read_data(tmp_path)


def test_good_and_bad_folders(tmp_path: Path) -> None:
    _fill(tmp_path, *_names("ok", 10), *_names("ng", 2), *_names("ng/dent", 3))
    parts = read_good_bad(tmp_path / "ok", tmp_path / "ng")
    assert _labels(parts.train) == ["good"] * 8
    assert _labels(parts.test) == ["good"] * 2 + ["bad"] * 2 + ["dent"] * 3
    assert read_good_bad(tmp_path / "ok", None).test == parts.test[:2]


def test_the_same_file_name_does_not_make_the_same_part(tmp_path: Path) -> None:
    _fill(tmp_path, *_names("ok", 10), *_names("ng", 10))
    assert len(read_good_bad(tmp_path / "ok", tmp_path / "ng").train) == 8


def test_bad_parts_inside_the_good_folder_are_refused(tmp_path: Path) -> None:
    _fill(tmp_path, *_names("parts", 10), *_names("parts/bad", 2))
    for bad, says in (
        ("parts", "one folder is given for good and for bad parts"),
        ("parts/bad", "lies in the folder of good ones"),
        ("parts/../parts/bad", "lies in the folder of good ones"),
    ):
        with pytest.raises(DataError, match=says):
            read_good_bad(tmp_path / "parts", tmp_path / bad)


def test_good_parts_inside_the_bad_folder_are_refused(tmp_path: Path) -> None:
    _fill(tmp_path, *_names("good", 10), *_names("dent", 2))
    with pytest.raises(DataError, match="good parts lies in the folder of bad ones") as caught:
        read_good_bad(tmp_path / "good", tmp_path)
    assert "--data" in caught.value.cure


def test_a_folder_gives_the_same_parts_from_wherever_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(tmp_path / "caps", *_names("good", 10), *_names("dent", 2))
    (tmp_path / "link").symlink_to("caps")
    monkeypatch.chdir(tmp_path / "caps")
    groups = [[p.group for p in read_data(folder).train] for folder in map(Path, (".", "../caps", "../link"))]
    assert groups[0] == groups[1] == groups[2]
    assert groups[0][0].startswith("caps/good/")


def test_a_good_picture_of_a_part_that_is_also_bad_is_not_learned_from(tmp_path: Path) -> None:
    names = _names("good", 10)
    _fill(tmp_path, *names, "hole/front.png")
    _manifest(tmp_path, {names[3]: "tile 7", names[4]: "tile 7", "hole/front.png": "tile 7"})
    parts = read_data(tmp_path)
    assert _is_whole(parts)
    assert {tmp_path / names[3], tmp_path / names[4]} <= {p.path for p in parts.test}


def test_good_and_bad_folders_that_are_called_alike_hold_different_parts(tmp_path: Path) -> None:
    _fill(tmp_path, *(f"{side}/top/{n}.png" for side in ("good", "bad") for n in range(10)))
    parts = read_good_bad(tmp_path / "good/top", tmp_path / "bad/top")
    assert len({p.group for p in (*parts.train, *parts.test)}) == 20
    assert len(parts.train) == 8
    _manifest(tmp_path / "bad/top", dict.fromkeys(("0.png", "1.png", "2.png"), "A"))
    parts = read_good_bad(tmp_path / "good/top", tmp_path / "bad/top")
    assert len({p.group for p in (*parts.train, *parts.test)}) == 18


@pytest.mark.parametrize("good", ["good", "train/good"])
def test_a_manifest_above_a_data_folder_is_honoured(tmp_path: Path, good: str) -> None:
    folder = tmp_path / "Geh\u00e4use" / "A"
    _fill(folder, *_names(good, 12), "../B/good/000.png")
    above = unicodedata.normalize("NFD", "Geh\u00e4use/A")
    named = {f"{above}/{name}": f"part {n // 4}" for n, name in enumerate(_names(good, 12))}
    _manifest(tmp_path, {**named, "Geh\u00e4use/B/good/000.png": "part 0"})
    parts = read_data(folder)
    assert _is_whole(parts)
    assert {p.group for p in (*parts.train, *parts.test)} == {"part 0", "part 1", "part 2"}


def test_a_manifest_above_the_folders_of_good_and_bad_parts_is_honoured(tmp_path: Path) -> None:
    names = _names("train/good", 12)
    _fill(tmp_path, *names, "test/dent/1.png")
    _manifest(tmp_path, {name: f"part {n % 3}" for n, name in enumerate(names)} | {"test/dent/1.png": "part 0"})
    parts = read_good_bad(tmp_path / "train/good", tmp_path / "test")
    assert {p.group for p in parts.train} in ({"part 1"}, {"part 2"})
    assert {p.group for p in parts.test} > {"part 0"}
    assert [p.label for p in parts.test if p.label != "good"] == ["dent"]


def test_nothing_left_to_learn_from_is_said(tmp_path: Path) -> None:
    _fill(tmp_path, "good/1.png", "hole/1.png")
    _manifest(tmp_path, {"good/1.png": "lot", "hole/1.png": "lot"})
    assert "none is left to learn from" in _refused(tmp_path).what


@pytest.mark.parametrize("above", ["", "caps/"])
def test_a_group_in_train_and_test_is_refused(tmp_path: Path, above: str) -> None:
    folder = tmp_path / above
    _fill(folder, *_names("train/good", 3), *_names("test/good", 3))
    _manifest(tmp_path, {f"{above}train/good/000.png": "tile 1", f"{above}test/good/002.png": "tile 1"})
    with pytest.raises(DataError, match="group tile 1") as caught:
        read_data(folder)
    assert caught.value.where == str(tmp_path / "manifest.csv")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "names no file"),
        (b"path,part\ngood/000.png,1\n", "needs a file and a group"),
        (b"file,group\ngood/000.png,\n", "needs a file and a group"),
        (b"file,group\ngood/000.png\n", "needs a file and a group"),
        (b"file,group\n/elsewhere/000.png,1\n", "names no file"),
        (b"file,group\ngood/000.png,1\ngood/001.PNG,1\n", "names good/001.PNG, which is not there"),
        (b"file,group\ngood/000.png,1\ngood/001.png,2\ngood/000.png,2\n", "into two groups, 1 and 2"),
        ("file,group\ngood/000.png,検品\n".encode("shift_jis"), "cannot be read"),
    ],
    ids=[
        *("empty", "other columns", "empty group", "no group", "other paths"),
        *("mistyped", "twice", "not UTF-8"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_never_ignored(tmp_path: Path, content: bytes, says: str) -> None:
    _fill(tmp_path, *_names("good", 4))
    (tmp_path / "manifest.csv").write_bytes(content)
    error = _refused(tmp_path)
    assert says in error.what
    assert "manifest.csv" in error.where


@pytest.mark.parametrize("way", ["{}", "../{0.name}", "good/../../{0.name}"])
def test_a_manifest_names_pictures_by_no_whole_paths(tmp_path: Path, way: str) -> None:
    """They lead to the pictures, but no group of theirs would count."""
    _fill(tmp_path, *_names("good", 4))
    _manifest(tmp_path, {f"{way.format(tmp_path)}/{name}": "one" for name in _names("good", 4)})
    assert "names no file" in _refused(tmp_path).what


@pytest.mark.parametrize("given", ["", "good", "good/day1"])
def test_a_manifest_beside_the_pictures_counts_whichever_folder_above_is_given(
    tmp_path: Path, given: str
) -> None:
    _fill(tmp_path, *_names("good/day1", 10), *_names("hole", 4))
    _manifest(tmp_path / "good/day1", {f"{number:03}.png": f"part {number // 5}" for number in range(10)})
    _manifest(tmp_path / "hole", {f"{number:03}.png": "part 0" for number in range(3)})
    parts = read_good_bad(tmp_path / given, tmp_path / "hole") if given else read_data(tmp_path)
    assert {p.group for p in parts.train} == {"part 1"}
    assert sum(p.group == "part 0" for p in parts.test) == 8
    assert len({p.group for p in parts.test}) == 2
    found = read_folder(tmp_path / (given or "good"), label="good")
    assert {p.group for p in found} == {"part 0", "part 1"}


def test_of_two_manifests_that_name_a_picture_the_upper_one_counts(tmp_path: Path) -> None:
    _fill(tmp_path, *_names("good", 10), *_names("hole", 2))
    _manifest(tmp_path / "hole", {"000.png": "lower", "001.png": "lower"})
    _manifest(tmp_path, {"hole/000.png": "upper"})
    assert {p.group for p in read_data(tmp_path).test if p.label == "hole"} == {"upper", "lower"}


@pytest.mark.parametrize(
    ("read", "left", "other"),
    [
        (
            ("train/good/1.png", "test/hole/1.png", "test/good/2.png"),
            ("train/hole/3.png", "hole/4.png", "test/5.png"),
            ("ground_truth/hole/1_mask.png", "runs/1/reference.png", "train/.cache/1.png"),
        ),
        (
            ("good/lot1/1.png", "good/2.png", "hole/3.png"),
            ("4.png",),
            ("ground_truth/hole/3.png", "readme.txt"),
        ),
        (("1.png", "2.png", "lot3.png"), (), ()),
    ],
)
def test_pictures_that_are_left_out_by_their_place_are_known(
    tmp_path: Path, read: tuple[str, ...], left: tuple[str, ...], other: tuple[str, ...]
) -> None:
    _fill(tmp_path, *read, *left, *other)
    assert set(passed_over(tmp_path)) == {tmp_path / name for name in left}
    found = read_data(tmp_path)
    assert {p.path for p in (*found.train, *found.test)} == {tmp_path / name for name in read}


@pytest.mark.parametrize("separator", [",", ";"])
def test_a_manifest_from_a_spreadsheet_is_understood(tmp_path: Path, separator: str) -> None:
    """Where a number has a comma, as in German, a spreadsheet parts its columns by semicolons."""
    _fill(tmp_path, *_names("good", 4))
    rows = "\ufefffile,group,note\r\ngood\\000.png,A,\r\ngood\\001.png,A,second shot\r\n"
    rows = rows.replace(",", separator)
    (tmp_path / "manifest.csv").write_text(rows, encoding="utf-8", newline="")
    parts = read_data(tmp_path)
    assert sorted(p.group for p in parts.train + parts.test).count("A") == 2


def test_spaces_in_a_manifest_part_no_part(tmp_path: Path) -> None:
    _fill(tmp_path, *_names("good", 4))
    rows = "file, group\ngood/000.png,A\ngood/001.png, A\n./good/002.png,A \ngood/003.png,B\n"
    (tmp_path / "manifest.csv").write_text(rows)
    parts = read_data(tmp_path)
    assert {p.group for p in (*parts.train, *parts.test)} == {"A", "B"}


@pytest.mark.parametrize("forms", [("NFD", "NFC"), ("NFC", "NFD")])
def test_names_in_another_form_of_unicode_are_the_same_names(tmp_path: Path, forms: tuple[str, str]) -> None:
    names = [f"{folder}/Prüfteil が {n}.png" for folder in ("good", "Kratzer") for n in range(4)]
    masks = [f"ground_truth/Kratzer/Prüfteil が {n}_mask.png" for n in range(4)]
    on_disk, written = ([unicodedata.normalize(form, name) for name in names] for form in forms)
    assert on_disk != written
    _fill(tmp_path, *on_disk, *(unicodedata.normalize(forms[1], mask) for mask in masks))
    _manifest(tmp_path, {name: f"part {n // 2}" for n, name in enumerate(written)})
    parts = read_data(tmp_path)
    pictures = (*parts.train, *parts.test)
    assert {p.group for p in pictures} == {"part 0", "part 1", "part 2", "part 3"}
    assert [p.mask is not None for p in pictures] == [p.label == "Kratzer" for p in pictures]
    parts = read_good_bad(tmp_path / "good", tmp_path / "Kratzer")
    assert {p.group for p in (*parts.train, *parts.test)} == {"part 0", "part 1", "part 2", "part 3"}


def test_a_manifest_may_name_pictures_that_were_taken_out(tmp_path: Path) -> None:
    _fill(tmp_path, *_names("good", 4), "hole/000.png", "ground_truth/hole/000.png")
    _manifest(tmp_path, {**dict.fromkeys(_names("good", 6), "A"), "hole/000.png": "B"})
    parts = read_data(tmp_path)
    assert {p.group for p in (*parts.train, *parts.test)} == {"A", "B"}


@given(st.lists(st.integers(0, 12), max_size=40), st.floats(0.01, 0.99), st.integers(0, 5))
def test_no_group_is_ever_split(numbers: list[int], share: float, seed: int) -> None:
    pictures = [Picture(Path(f"{i}.png"), "good", f"part {n}") for i, n in enumerate(numbers)]
    rest, part = split_groups(pictures, share, seed=seed)
    assert not {p.group for p in rest} & {p.group for p in part}
    assert sorted(rest + part, key=pictures.index) == pictures
    assert rest == [p for p in pictures if p in rest], "order is kept"
    if len(set(numbers)) >= 2:
        assert rest
        assert part
        largest = max(numbers.count(n) for n in numbers)
        assert len(part) <= share * len(pictures) + largest
        assert len(part) <= (1 + share) / 2 * len(pictures)


@given(st.integers(2, 60), st.floats(0.01, 0.99), st.integers(0, 5))
def test_of_single_parts_the_share_is_rounded_up(count: int, share: float, seed: int) -> None:
    pictures = [Picture(Path(f"{i}.png"), "good", f"part {i}") for i in range(count)]
    _, part = split_groups(pictures, share, seed=seed)
    assert len(part) == min(math.ceil(share * count), count - 1)


@pytest.mark.parametrize("seed", range(6))
def test_a_part_with_most_of_the_pictures_is_learned_from(tmp_path: Path, seed: int) -> None:
    _fill(tmp_path, *_names("good", 40))
    _manifest(tmp_path, dict.fromkeys(_names("good", 36), "A"))
    parts = read_data(tmp_path, seed=seed)
    assert _is_whole(parts)
    assert len(parts.train) >= 36
    assert parts.test
    # Of them alone nothing could be held back, and the training would refuse them.
    assert len({p.group for p in parts.train}) >= 2


@pytest.mark.parametrize("seed", range(6))
def test_copies_under_other_names_are_on_one_side(tmp_path: Path, seed: int) -> None:
    _fill(tmp_path, *_names("good", 12))
    for number in range(6):
        (tmp_path / f"good/copy{number}.png").write_text(f"good/{number:03}.png")
    parts = read_data(tmp_path, seed=seed)
    sides = [{p.path.read_text() for p in side} for side in (parts.train, parts.test)]
    assert not sides[0] & sides[1]
    assert parts.test
    assert parts.copies == parts.through(None).copies == 6
    assert _is_whole(parts)


@pytest.mark.parametrize("good", ["good", "train/good"])
def test_a_picture_that_is_there_as_good_and_as_bad_is_refused(tmp_path: Path, good: str) -> None:
    """Learned from it would teach a defect; and where the good one is right the figures are wrong."""
    _fill(tmp_path, *_names(good, 10), *_names("test/hole", 2))
    bad = tmp_path / ("hole/x.png" if good == "good" else "test/hole/x.png")
    bad.parent.mkdir(exist_ok=True)
    bad.write_text(f"{good}/004.png")
    if good == "good":
        shutil.rmtree(tmp_path / "test")
    error = _refused(tmp_path)
    assert error.what == "the same picture is there as good and as hole"
    assert all(str(path) in error.where for path in (tmp_path / good / "004.png", bad))
    # A folder in the wrong place is not mended picture by picture.
    bad.with_name("y.png").write_text(f"{good}/007.png")
    assert _refused(tmp_path).what == "the same picture is there as good and as hole, and so are 1 more"


def test_copies_join_the_groups_of_a_manifest_over_any_number_of_steps(tmp_path: Path) -> None:
    names = [f"{number:03}.png" for number in range(10)]
    _fill(tmp_path, *names)
    _manifest(tmp_path, dict(zip(names[:6], "ABCABC", strict=True)))
    for number, content in ((0, "x"), (1, "x"), (4, "y"), (5, "y")):  # A like B, B like C
        (tmp_path / names[number]).write_text(content)
    joined, copies = join_copies(read_folder(tmp_path, label="good"))
    assert [p.group for p in joined[:6]] == ["A"] * 6
    assert len({p.group for p in joined[6:]}) == 4
    assert copies == 2


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=10))
def test_what_copies_and_groups_link_is_one_part_and_nothing_else(rows: list[tuple[int, int]]) -> None:
    pictures = [Picture(Path(f"{n}.png"), "good", f"part {group}") for n, (group, _) in enumerate(rows)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kenpin.pictures.contents_of", lambda _: [str(content) for _, content in rows])
        parts = [p.group for p in join_copies(pictures)[0]]
    linked = list(range(len(rows)))
    for _ in rows:
        for a, b in itertools.product(range(len(rows)), repeat=2):
            if rows[a][0] == rows[b][0] or rows[a][1] == rows[b][1]:
                linked[a] = linked[b] = min(linked[a], linked[b])
    for a, b in itertools.combinations(range(len(rows)), 2):
        assert (parts[a] == parts[b]) == (linked[a] == linked[b])


def test_a_test_picture_that_is_also_learned_from_is_left_out(tmp_path: Path) -> None:
    _fill(tmp_path, *_names("train/good", 6), *_names("test/good", 3), *_names("test/hole", 2))
    (tmp_path / "test/good/001.png").write_text("train/good/003.png")
    parts = read_data(tmp_path)
    assert [p.path.name for p in parts.test] == ["000.png", "002.png", "000.png", "001.png"]
    assert (parts.copies, parts.left_out) == (1, 1)
    assert len(parts.train) == 6


def test_a_broken_link_or_a_device_is_no_copy(tmp_path: Path) -> None:
    _fill(tmp_path, *_names("good", 10))
    for name in ("a", "b"):
        (tmp_path / f"good/{name}.png").symlink_to(tmp_path / "gone")
        (tmp_path / f"good/{name}-device.png").symlink_to("/dev/null")  # as /dev/zero, of which no end is read
    assert read_data(tmp_path).copies == 0


def test_sha256_is_of_the_bytes(tmp_path: Path) -> None:
    _fill(tmp_path, "a.png")
    assert sha256_of(tmp_path / "a.png") == hashlib.sha256(b"a.png").hexdigest()


def _good_only(folder: Path) -> list[Picture]:
    """What both readers of --good take; they are to agree."""
    learned = read_good_bad(folder, None)
    shown = read_folder(folder, label="good")
    assert sorted(p.path for p in learned.train + learned.test) == sorted(p.path for p in shown)
    return shown


@pytest.mark.parametrize(
    "subfolders",
    [
        ("good", "MT_Blowhole", "MT_Crack"),
        ("Good",),
        ("train/good", "test/good", "test/hole"),
        ("test",),
        ("left", "right"),
        (".", "scratch"),
        ("lot-1", "lot-2/scratch"),
        ("defect1", "defect2"),
        ("ng1", "ng2"),
        ("傷1", "傷2"),
    ],
)
def test_a_folder_of_good_parts_with_subfolders_of_other_things_is_refused(
    tmp_path: Path, subfolders: tuple[str, ...]
) -> None:
    folder = tmp_path / "our parts"
    for subfolder in subfolders:
        _fill(folder, *_names(subfolder, 3))
    readers: list[Callable[[], object]] = [
        lambda: read_good_bad(folder, None),
        lambda: read_folder(folder, label="good"),
    ]
    for reader in readers:
        with pytest.raises(DataError) as caught:
            reader()
        assert all(part in caught.value.what for name in subfolders for part in name.split("/") if part != ".")
        assert caught.value.where == str(folder)
        inner = {"good": "/good", "Good": "/Good", "train/good": "/train/good"}.get(subfolders[0])
        assert (f"--good '{folder}{inner}';" if inner else "the one folder of good parts") in caught.value.cure
    assert read_folder(folder, label="master")


@pytest.mark.parametrize(
    "subfolders",
    [
        ("2026-11-03", "2026-11-04", "20261105T0600"),
        ("lot-12", "lot-13/cam0", "Lot 14"),
        ("ロット12", "2026年11月3日", "Charge 7", "Teil_8"),
        ("part7", "part_8", "A-9", "SN0012"),
        (".", "2"),
        ("fresh",),
        ("fresh/lot1",),
    ],
)
def test_a_folder_of_good_parts_may_have_a_folder_for_each_lot_or_part(
    tmp_path: Path, subfolders: tuple[str, ...]
) -> None:
    for subfolder in subfolders:
        _fill(tmp_path, *_names(subfolder, 3))
    assert len(_good_only(tmp_path)) == 3 * len(subfolders)
