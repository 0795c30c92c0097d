"""Pictures and masks that cannot be learned from or measured with."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from kenpin.errors import DataError
from kenpin.folder_names import GOOD
from kenpin.pictures import Picture, PictureSet
from kenpin.train.data import Roles, assign_roles, load_masks, shrink_mask
from kenpin.train.intake import check_masks, check_pictures
from kenpin.train.intake_cli import look_with_bar, tell_few, tell_folders


def write(path: Path, shape: tuple[int, ...], value: int, *, compression: int = 1) -> Path:
    image = np.full(shape, value, np.uint8)
    assert cv2.imwrite(str(path), image, [cv2.IMWRITE_PNG_COMPRESSION, compression])
    return path


def good_parts(folder: Path, values: list[int]) -> PictureSet:
    """Grey pictures of parts, each file with other bytes if only by its compression."""
    paths = [
        write(folder / f"{number}.png", (64, 64, 3), value, compression=number % 10)
        for number, value in enumerate(values)
    ]
    return PictureSet(tuple(Picture(p, GOOD, p.name) for p in paths), ())


def test_copies_of_one_picture_are_refused_even_as_other_files(tmp_path: Path) -> None:
    parts = good_parts(tmp_path, [7] * 10)
    assert len({p.path.read_bytes() for p in parts.train}) > 1
    with pytest.raises(DataError, match="all 10 pictures of good parts are identical") as caught:
        assign_roles(parts, where=tmp_path, seed=0)
    assert caught.value.where == str(tmp_path)
    assert "different parts" in caught.value.cure


def test_too_few_pictures_of_which_some_are_held_back_says_so(tmp_path: Path) -> None:
    """Eight were given, and eight is what it asks for."""
    paths = [tmp_path / f"{number}.png" for number in range(8)]
    pictures = [Picture(path, GOOD, path.name) for path in paths]
    with pytest.raises(DataError, match="too few pictures of good parts to learn from: 6") as caught:
        assign_roles(PictureSet(tuple(pictures[:6]), tuple(pictures[6:])), where=tmp_path, seed=0)
    assert "at least 8" in caught.value.cure
    assert "a fifth is held back to measure" in caught.value.cure


@pytest.mark.parametrize("odd", [0, 1, 7])
def test_one_picture_that_differs_is_enough(tmp_path: Path, odd: int) -> None:
    values = [7] * 8
    values[odd] = 8
    roles = assign_roles(good_parts(tmp_path, values), where=tmp_path, seed=0)
    assert len(roles.fit) + len(roles.held_back) == 8


def test_pictures_of_one_part_alone_are_refused(tmp_path: Path) -> None:
    """None of them could be held back without being learned from."""
    parts = good_parts(tmp_path, list(range(10)))
    same = tuple(Picture(p.path, GOOD, "one") for p in parts.train)
    with pytest.raises(DataError, match="the same part"):
        assign_roles(PictureSet(same, ()), where=tmp_path, seed=0)


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    image = write(tmp_path / "part.png", (60, 80, 3), 9)
    fitting, turned = tmp_path / "fitting.png", tmp_path / "turned.png"
    mask = np.zeros((60, 80), np.uint8)
    mask[:, :40] = 255
    assert cv2.imwrite(str(fitting), mask)
    assert cv2.imwrite(str(turned), mask.T)
    assert load_masks([Picture(image, "pit", "1", fitting)], shape=(16, 16))[..., :8].all()
    with pytest.raises(DataError, match="the mask has 60 x 80 pixels, its picture 80 x 60") as caught:
        load_masks([Picture(image, "pit", "1", turned)], shape=(16, 16))
    assert str(turned) in caught.value.where
    assert str(image) in caught.value.where
    assert "full size" in caught.value.cure


def test_of_a_folder_of_masks_all_that_any_marks_is_defect(tmp_path: Path) -> None:
    picture = Picture(write(tmp_path / "part.png", (64, 64, 3), 9), "pit", "1", tmp_path / "part")
    folder = tmp_path / "part"
    folder.mkdir()
    halves = np.zeros((2, 64, 64), np.uint8)
    halves[0, :, :16], halves[1, :, 48:] = 255, 255
    for number, half in enumerate(halves):
        assert cv2.imwrite(str(folder / f"{number}.png"), half)
    marked = load_masks([picture], shape=(16, 16))[0]
    assert marked[:, :4].all()
    assert marked[:, 12:].all()
    assert not marked[:, 4:12].any()
    before = Roles((), (), (picture,)).manifest()["pictures"][0]
    assert before["mask"] == str(folder)
    write(folder / "1.png", (64, 64), 0)
    assert Roles((), (), (picture,)).manifest()["pictures"][0]["mask_sha256"] != before["mask_sha256"]


def test_a_small_defect_beside_a_large_one_remains() -> None:
    mask = np.zeros((256, 256, 3), np.uint8)
    mask[0:64, 0:64] = 255
    mask[200:203, 100:103] = 1
    mask[135:137, 231:233] = 255
    small = shrink_mask(mask, height=16, width=16)
    assert small[:4, :4].all()
    assert np.argwhere(small[4:]).tolist() == [[4, 14], [8, 6]]


@pytest.mark.parametrize(("columns", "cells"), [(9, 1), (10, 2)])
def test_of_a_defect_the_cells_that_it_fills_by_a_quarter_are_kept(columns: int, cells: int) -> None:
    mask = np.zeros((64, 32, 3), np.uint8)
    mask[32:48, :columns, 2] = 1
    assert np.argwhere(shrink_mask(mask, height=4, width=4)).tolist() == [[2, n] for n in range(cells)]


def test_a_thin_scratch_askew_is_one_defect() -> None:
    mask = np.zeros((64, 64, 3), np.uint8)
    mask[range(10, 40), range(10, 40)] = 1
    assert np.argwhere(shrink_mask(mask, height=4, width=4)).tolist() == [[1, 1]]


def test_a_defect_where_cells_meet_keeps_all_that_have_as_much_of_it() -> None:
    mask = np.zeros((64, 64, 3), np.uint8)
    mask[15:17, 15:17] = 255
    assert np.argwhere(shrink_mask(mask, height=4, width=4)).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert not shrink_mask(np.zeros_like(mask), height=4, width=4).any()


def test_masks_that_number_the_defects_in_16_bit_are_read_and_empty_ones_are_told(tmp_path: Path) -> None:
    image = write(tmp_path / "part.png", (64, 64, 3), 9)
    labels = np.zeros((64, 64), np.uint16)
    empty, numbered, clear = (tmp_path / f"{name}.png" for name in ("empty", "numbered", "clear"))
    assert cv2.imwrite(str(empty), labels)
    labels[:32] = 1
    assert cv2.imwrite(str(numbered), labels)
    opaque = np.zeros((64, 64, 4), np.uint8)
    opaque[..., 3] = 255  # an alpha channel marks nothing
    assert cv2.imwrite(str(clear), opaque)
    pictures = [Picture(image, "pit", str(mask), mask) for mask in (numbered, empty, clear)]
    assert load_masks(pictures, shape=(16, 16))[0].sum() == 128
    assert [picture.mask for picture in check_masks(pictures).empty] == [empty, clear]


def test_masks_that_mark_most_of_their_picture_are_told(tmp_path: Path) -> None:
    """With dark and bright exchanged, all but the defect would count as defect."""
    image = write(tmp_path / "part.png", (64, 64, 3), 9)
    marks = np.zeros((64, 64), np.uint8)
    marks[10:20, 10:20] = 255
    right, exchanged = tmp_path / "right.png", tmp_path / "exchanged.png"
    assert cv2.imwrite(str(right), marks)
    assert cv2.imwrite(str(exchanged), 255 - marks)
    found = check_masks(Picture(image, "pit", str(mask), mask) for mask in (right, exchanged))
    assert [picture.mask for picture in found.most] == [exchanged]
    assert not found.empty


@pytest.mark.parametrize(("count", "more"), [(5, ""), (7, " and 2 more")])
def test_of_many_pictures_that_cannot_be_used_the_first_are_named(
    tmp_path: Path, count: int, more: str
) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(count)]
    for path in paths:
        path.write_bytes(b"")
    seen: list[int] = []
    with pytest.raises(DataError, match=f"of the pictures {count} cannot be used") as caught:
        check_pictures([Picture(p, GOOD, p.name) for p in paths], advance=lambda: seen.append(1))
    assert caught.value.where == ", ".join(map(str, paths[:5])) + more
    assert len(seen) == count


def test_transparency_and_missing_bits_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both are read without a word else: cut-out parts on black, a 14-bit camera in 64 levels of grey."""
    texture = np.random.default_rng(0).integers(0, 2**14, (64, 64, 3))
    pictures = {
        "clear.png": np.dstack([texture >> 6, np.full((64, 64), 254)]).astype(np.uint8),
        "opaque.png": np.dstack([texture >> 6, np.full((64, 64), 255)]).astype(np.uint8),
        "dim.tif": texture.astype(np.uint16),
        "dim_grey.png": texture[..., 0].astype(np.uint16),
        "full.tif": (texture << 2).astype(np.uint16),
    }
    told = {}
    for name, image in pictures.items():
        assert cv2.imwrite(str(tmp_path / name), image)
        look_with_bar([Picture(tmp_path / name, GOOD, name)])
        told[name] = " ".join(capsys.readouterr().err.split())
    assert [name for name in told if "transparency is left away" in told[name]] == ["clear.png"]
    assert [name for name in told if "as of a 14-bit camera" in told[name]] == ["dim.tif", "dim_grey.png"]
    assert f"at most {texture.max()} of 65535, as in {tmp_path / 'dim.tif'}, which leaves 64" in told["dim.tif"]


@pytest.mark.parametrize(("brightest", "is_told"), [(10, True), (31, True), (32, False), (255, False)])
def test_dark_pictures_of_8_bits_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], brightest: int, is_told: bool
) -> None:
    """They train as any other, and what is not in their few levels of grey no threshold finds."""
    for number in range(3):
        assert cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((16, 16), brightest - number, np.uint8))
    look_with_bar([Picture(tmp_path / f"{number}.png", GOOD, f"{number}") for number in range(3)])
    told = " ".join(capsys.readouterr().err.split())
    assert (f"pictures are dark: at most {brightest} of 255, as in {tmp_path / '0.png'}" in told) == is_told


def test_few_parts_held_back_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else it shows at the export, after the training."""
    pictures = [Picture(tmp_path / f"{n}.png", GOOD, f"part {n // 2}") for n in range(10)]
    tell_few(pictures)
    assert not capsys.readouterr().err
    tell_few(pictures[:8])
    told = " ".join(capsys.readouterr().err.split())
    assert (
        told
        == "only 8 pictures of 4 parts held back: the scale of the score rests on few; give more good parts"
    )
    tell_few(pictures[:4])
    told = " ".join(capsys.readouterr().err.split())
    assert "4 pictures of 2 parts held back" in told
    assert told.endswith("rests on few, and an export to INT8 needs 5; give more good parts")


def test_folders_that_may_be_a_part_each_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Five cameras and no manifest: four views of a part would be learned from, and the fifth measure."""

    def told(folders: int, views: int, *, grouped: bool = False) -> bool:
        places = [(part, tmp_path / f"S{part}/{view}.png") for part in range(folders) for view in range(views)]
        tell_folders([Picture(path, GOOD, f"S{part}" if grouped else str(path)) for part, path in places])
        words = " ".join(capsys.readouterr().err.split())
        return f"good pictures lie in {folders} folders, {views} in most, like {tmp_path / 'S0'}" in words

    assert told(12, 5)
    assert not told(12, 5, grouped=True)
    assert not told(12, 1)
    assert not told(12, 40)  # lots
    assert not told(2, 5)
