"""Parts that lie as they fell: when a view is drawn for them, what it shows, and when none is."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from kenpin.cutout import turned_about
from kenpin.errors import DataError
from kenpin.frame import Image, decode_picture, read_picture
from kenpin.train.cli import train
from kenpin.train.evaluate_cli import evaluate
from kenpin.train.loose import follow_loose
from kenpin.train.run import RunFolder, learned_from

SIZE = (200, 160)
PART = (230, 230, 225)


def bracket(turn_deg: float, right: float = 0, down: float = 0, *, seed: int = 0, scale: int = 1) -> Image:
    """A bright angle bracket on a dark belt, in light of its own."""
    width, height = SIZE[0] * scale, SIZE[1] * scale
    frame = np.full((height, width, 3), 60, np.uint8)
    middle = (width / 2 - 0.5, height / 2 - 0.5)
    for corner in ((70, 55, 60, 14), (70, 55, 14, 50)):
        x, y, wide, high = (scale * n for n in corner)
        cv2.rectangle(frame, (x, y), (x + wide, y + high), PART, -1)
    cv2.circle(frame, (118 * scale, 62 * scale), 4 * scale, (60, 60, 60), -1)
    turn = turned_about(middle, turn_deg)
    turn[:, 2] += (right * scale, down * scale)
    rng = np.random.default_rng(seed)
    lying = cv2.warpAffine(frame, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return np.clip(lying * rng.uniform(0.9, 1.1) + rng.normal(0, 2, frame.shape), 0, 255).astype(np.uint8)


def pictures(folder: Path, draw: Callable[[int], Image], count: int = 12) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:02}.png" for number in range(count)]
    for number, path in enumerate(paths):
        assert cv2.imwrite(str(path), draw(number))
    return paths


def any_turn(number: int, scale: int = 1) -> Image:
    return bracket(number * 67, number % 5 - 2, number % 3 - 1, seed=number, scale=scale)


@pytest.mark.parametrize("scale", [1, 4])
def test_loose_parts_are_shown_upright(tmp_path: Path, scale: int) -> None:
    paths = pictures(tmp_path, lambda number: any_turn(number, scale))
    loose = follow_loose(paths)
    assert loose is not None
    assert loose.sight is not None
    assert loose.turned > 0.8
    view = loose.sight.view
    assert view.frame_size == (SIZE[0] * scale, SIZE[1] * scale)
    assert view.align is not None
    assert view.align.max_turn_deg == 180
    assert 0.4 <= view.align.min_match < 0.5  # half of what they match
    taken = [loose.sight.take(read_picture(path)) for path in paths]
    places = np.array([one.cutout.box[:2] for one in taken])
    off = np.abs(places - np.median(places, 0)).max(1)
    assert loose.shift_px == pytest.approx(np.quantile(off, 0.9), abs=scale)
    shown = [one.image.astype(int) for one in taken]
    assert shown[0].shape[0] == shown[0].shape[1]  # it is hardly longer than wide
    assert 60 * scale < shown[0].shape[0] < 95 * scale  # as the reference part happens to lie
    usual = np.median(shown, 0)
    # All of the part is in view, and lies where the others lie.
    assert (usual > 150).sum() / 3 == pytest.approx((60 * 14 + 36 * 14 - 50) * scale**2, rel=0.1)
    for one in shown:
        assert np.abs(one - usual).mean() < 15  # of 170 grey levels
    assert np.abs(shown[0] - shown[0][::-1, ::-1]).mean() > 40


def test_the_reference_picture_is_one_that_the_others_are_like(tmp_path: Path) -> None:
    paths = pictures(tmp_path, any_turn)
    spoilt = any_turn(4)  # which lies nearest to the middle of its frame
    spoilt[::3] = spoilt[::3] // 2 + 30
    assert cv2.imwrite(str(paths[4]), spoilt)
    loose = follow_loose(paths)
    assert loose is not None
    assert loose.sight is not None
    reference = decode_picture(loose.sight.reference, where="")
    drawn_on = [number for number, path in enumerate(paths) if (read_picture(path) == reference).all()]
    assert len(drawn_on) == 1
    assert drawn_on != [4]


def lying(frame: Image, turn_deg: float, seed: int) -> Image:
    """A frame turned about its middle, with noise of its own."""
    turn = turned_about((99.5, 79.5), turn_deg)
    turned = cv2.warpAffine(frame, turn, SIZE, borderMode=cv2.BORDER_REPLICATE)
    noise = np.random.default_rng(seed).normal(0, 2, frame.shape)
    return np.clip(turned + noise, 0, 255).astype(np.uint8)


def bar(turn_deg: float, seed: int) -> Image:
    """Much longer than wide, with a hole near one end."""
    frame = np.full((SIZE[1], SIZE[0], 3), 60, np.uint8)
    cv2.rectangle(frame, (60, 75), (139, 85), PART, -1)
    cv2.circle(frame, (130, 80), 3, (60, 60, 60), -1)
    return lying(frame, turn_deg, seed)


def test_a_long_part_is_shown_along_its_length(tmp_path: Path) -> None:
    paths = pictures(tmp_path, lambda number: bar(17 + number * 67, number))
    loose = follow_loose(paths)
    assert loose is not None
    assert loose.sight is not None
    width, height = sorted(loose.sight.view.roi[2:], reverse=True)
    assert 84 <= width <= 92
    assert height == pytest.approx(width / 3, abs=1)  # no less, however narrow the part is
    for path in paths:
        shown = loose.sight.take(read_picture(path)).image[..., 0] > 150
        rows, columns = (np.ptp(found) + 1 for found in np.nonzero(shown))
        assert min(rows, columns) <= 14
        assert max(rows, columns) >= 78


def test_a_long_part_with_dirt_beside_it_is_shown_in_a_square(tmp_path: Path) -> None:
    def dirty(number: int) -> Image:
        frame, across = bar(17 + number * 67, number), np.radians(17 + number * 67 + 90)
        far = 14 if number % 2 else -14
        x, y = int(100 + far * np.cos(across)), int(80 + far * np.sin(across))
        cv2.rectangle(frame, (x - 3, y - 3), (x + 3, y + 3), PART, -1)
        return frame

    loose = follow_loose(pictures(tmp_path, dirty))
    assert loose is not None
    assert loose.sight is not None
    assert loose.sight.view.roi.width == loose.sight.view.roi.height


def nut(number: int) -> Image:
    """An oval with a bright end, of one length, and of three widths."""
    frame = np.full((SIZE[1], SIZE[0], 3), 60, np.uint8)
    cv2.ellipse(frame, (100, 80), (40, 20 + 4 * (number % 3)), 0, 0, 360, (160, 160, 155), -1)
    cv2.circle(frame, (126, 80), 9, PART, -1)
    return lying(frame, 11 + number * 67, number)


def test_a_wider_part_than_that_of_the_reference_picture_is_shown_whole(tmp_path: Path) -> None:
    paths = pictures(tmp_path, nut)
    loose = follow_loose(paths)
    assert loose is not None
    assert loose.sight is not None
    for number, path in enumerate(paths):
        shown = loose.sight.take(read_picture(path)).image[..., 0] > 110
        lying = sorted(np.ptp(found) + 1 for found in np.nonzero(shown))
        assert lying[0] == pytest.approx(41 + 8 * (number % 3), abs=3)
        assert lying[1] == pytest.approx(81, abs=3)
        assert not shown[[0, -1]].any()
        assert not shown[:, [0, -1]].any()


def uneven(frame: Image) -> Image:
    """In light from the right that falls off to the corners; it stays where it is."""
    y, x = np.mgrid[-1 : 1 : frame.shape[0] * 1j, -1 : 1 : frame.shape[1] * 1j]
    light = (1 + 0.25 * x) * (1 - 0.25 * (x**2 + y**2))
    return np.clip(frame * light[..., None], 0, 255).astype(np.uint8)


def dusty(frame: Image, number: int) -> Image:
    rng = np.random.default_rng(number)
    frame = frame.copy()
    for x, y in rng.integers((0, 0), SIZE, (4, 2)):
        cv2.rectangle(frame, (int(x), int(y)), (int(x) + 2, int(y) + 2), PART, -1)
    return frame


@pytest.mark.parametrize(
    "draw",
    [lambda n: uneven(200 - any_turn(n) // 3), lambda n: dusty(any_turn(n), n)],
    ids=["uneven light", "dust"],
)
def test_neither_uneven_light_nor_dust_hides_how_parts_lie(
    tmp_path: Path, draw: Callable[[int], Image]
) -> None:
    paths = pictures(tmp_path, draw)
    loose = follow_loose(paths)
    assert loose is not None
    assert loose.sight is not None
    turns = [loose.sight.take(read_picture(path)).cutout.turn_deg for path in paths]
    for number, turn_deg in enumerate(turns):
        assert abs(math.remainder(turn_deg - turns[0] - 67 * number, 360)) < 3


@pytest.mark.parametrize("empty", [1, 2])
def test_a_tenth_of_the_pictures_may_show_no_part(tmp_path: Path, empty: int) -> None:
    paths = pictures(tmp_path, any_turn)
    for path in paths[:empty]:
        blank(path)
    loose = follow_loose(paths)
    assert (loose is None) == (empty > 0.1 * len(paths))


def test_parts_that_lie_a_little_askew_may_be_turned_no_farther_than_twice_that(tmp_path: Path) -> None:
    loose = follow_loose(pictures(tmp_path, lambda number: bracket(3 * (number % 9) - 12, seed=number)))
    assert loose is not None
    assert loose.sight is not None
    assert loose.sight.view.align is not None
    assert 24 <= loose.sight.view.align.max_turn_deg <= 50
    assert loose.sight.view.roi.width > 1.05 * loose.sight.view.roi.height  # no square: it is longer than wide


@pytest.mark.parametrize(
    "draw", [lambda n: bracket(0, 3 * (n % 5), 2 * (n % 3), seed=n), lambda n: ring(3 * n)]
)
def test_parts_that_lie_shifted_are_followed_without_turning(
    tmp_path: Path, draw: Callable[[int], Image]
) -> None:
    paths = pictures(tmp_path, draw)
    loose = follow_loose(paths)
    assert loose is not None
    assert loose.sight is not None
    assert loose.turned == 0
    assert 3 <= loose.shift_px <= 8
    assert loose.sight.view.align is not None
    assert loose.sight.view.align.max_turn_deg == 0
    taken = [loose.sight.take(read_picture(path)) for path in paths]
    places = np.subtract([one.cutout.box[:2] for one in taken], loose.sight.view.roi[:2])
    assert 2 * np.abs(places).max() < loose.sight.view.align.max_shift_px <= 2 * np.abs(places).max() + 3
    shown = [one.image.astype(int) for one in taken]
    for one in shown:
        assert np.abs(one - np.median(shown, 0)).mean() < 12


@pytest.mark.parametrize("nearer", [0, 5])
def test_a_part_that_nearly_fills_its_frame_is_shown_whole(tmp_path: Path, nearer: int) -> None:
    """There is no room to look for all of it, so the template is smaller; what the model is shown is not."""
    paths = pictures(tmp_path, lambda n: any_turn(n)[32 + nearer : 128 - nearer, 47 + nearer : 153 - nearer])
    loose = follow_loose(paths)
    assert loose is not None
    assert loose.sight is not None
    view = loose.sight.view
    assert view.align is not None
    assert view.align.template.height < view.roi.height
    usual = np.median([loose.sight.take(read_picture(path)).image.astype(int) for path in paths], 0)
    assert (usual > 150).sum() / 3 == pytest.approx(60 * 14 + 36 * 14 - 50, rel=0.1)


def ring(number: int) -> Image:
    frame = np.full((SIZE[1], SIZE[0], 3), 60, np.uint8)
    cv2.circle(frame, (100 + number % 10, 80), 36, PART, 9)
    return frame


def texture(number: int) -> Image:
    noise = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
    return np.asarray(cv2.resize(noise, SIZE, interpolation=cv2.INTER_CUBIC), np.uint8)


def two(number: int) -> Image:
    """A part, and a smaller one at a place of its own: looking at one would let the other pass."""
    frame = cv2.copyMakeBorder(any_turn(number), 60, 60, 60, 60, cv2.BORDER_REPLICATE)
    cv2.circle(frame, (120, 100), 6, PART, -1)
    return np.asarray(frame, np.uint8)


def among_small_ones(number: int) -> Image:
    frame = any_turn(number)
    for x in range(20, 180, 12):
        for y in (8, 150):
            cv2.rectangle(frame, (x, y), (x + 2, y + 2), PART, -1)
    return frame


def plus(number: int, *, less: int = 0) -> Image:
    """Looks the same after each quarter of a turn, and lies still; 1 less puts it on its template's middle."""
    frame = np.full((SIZE[1], SIZE[0], 3), 60, np.uint8)
    cv2.rectangle(frame, (70, 74), (130 - less, 86 - less), PART, -1)
    cv2.rectangle(frame, (94, 50), (106 - less, 110 - less), PART, -1)
    noise = np.random.default_rng(number).normal(0, 3, frame.shape)
    return np.clip(frame + noise, 0, 255).astype(np.uint8)


def speck(number: int) -> Image:
    """A part of 11 pixels."""
    frame = np.full((SIZE[1], SIZE[0], 3), 60, np.uint8)
    cv2.rectangle(frame, (95, 77), (105, 83), PART, -1)
    return lying(frame, 67 * number, number)


def beam(number: int) -> Image:
    """As long as the frame is high."""
    frame = np.full((SIZE[1], SIZE[0], 3), 60, np.uint8)
    cv2.rectangle(frame, (22 + number % 5, 75), (177 + number % 5, 85), PART, -1)
    return frame


def on_stripes(number: int) -> Image:
    frame = any_turn(number).astype(int)
    frame[::4] += 90
    return np.clip(frame, 0, 255).astype(np.uint8)


def small_disc(number: int) -> Image:
    """One that lies still; what is behind it decides to which whole pixel its place is rounded."""
    rng = np.random.default_rng(number)
    stripes = 90 + 30 * np.sin(np.arange(160) / 9 + rng.normal() / 10)
    frame = rng.normal(stripes[:, None], 3, (120, 160, 3))
    cv2.circle(frame, (80, 60), 30, (160, 150, 60), -1)
    return np.clip(frame, 0, 255).astype(np.uint8)


def other_parts(number: int) -> Image:
    """Each of a shape of its own, none of which lies far off."""
    frame = np.full((SIZE[1], SIZE[0], 3), 60, np.uint8)
    rng, angle = np.random.default_rng(number), np.arange(12) * np.pi / 6
    radius, (right, down) = rng.uniform(18, 42, 12), rng.integers(-3, 4, 2)
    corners = np.stack([100 + right + radius * np.cos(angle), 80 + down + radius * np.sin(angle)], 1)
    cv2.fillPoly(frame, [corners.astype(np.int32)], PART)
    return frame


@pytest.mark.parametrize(
    "draw",
    [
        lambda number: bracket(0.3 * (number % 4), seed=number),
        lambda number: ring(number % 2),
        texture,
        two,
        lambda number: bracket(number * 67, 62, seed=number),
        lambda number: bracket(number * 67, 0, 45, seed=number),
        speck,
        beam,
        lambda number: any_turn(number, 2 + 2 * (number % 2)),
        plus,
        lambda number: plus(number, less=1),
        on_stripes,
        among_small_ones,
        other_parts,
        small_disc,
        lambda _number: np.full((SIZE[1], SIZE[0], 3), 60, np.uint8),
        lambda _number: np.full((2, 2000, 3), 60, np.uint8),
    ],
    ids=[
        "fixture",
        "round",
        "texture",
        "two parts",
        "at the edge",
        "at the lower edge",
        "too small",
        "too long",
        "sizes",
        "plus",
        "even plus",
        "stripes",
        "among small ones",
        "others",
        "small",
        "empty",
        "a line",
    ],
)
def test_no_view_is_drawn_for_other_pictures(tmp_path: Path, draw: Callable[[int], Image]) -> None:
    loose = follow_loose(pictures(tmp_path, draw))
    assert loose is None or loose.sight is None


def trained(data: Path, run: Path, *more: str) -> Result:
    given = ["--data", str(data), "--run", str(run), "--size", "64", "--steps", "2", "--batch", "4", *more]
    return CliRunner().invoke(train, given)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    pictures(tmp_path / "data/train/good", any_turn, 16)
    pictures(tmp_path / "data/test/good", lambda number: any_turn(number + 20), 6)
    pictures(tmp_path / "data/test/dent", lambda number: any_turn(number + 40), 6)
    return tmp_path / "data"


def test_training_turns_loose_parts_upright_and_says_so(data: Path, tmp_path: Path) -> None:
    done = trained(data, tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "parts do not lie still, a tenth of them " in done.output
    assert "a view was drawn (reference.png in the run folder)" in done.output
    assert "--whole looks at all" in done.output
    folder = RunFolder(tmp_path / "run")
    assert folder.sight is not None
    assert folder.sight.view.align is not None
    assert folder.sight.view.align.max_turn_deg == 180
    assert "turned with it by up to 180 degrees" in (folder.root / "report.html").read_text()
    again = trained(data, tmp_path / "run", "--resume")
    assert again.exit_code == 0, again.output
    assert "lie still" not in again.output  # a run keeps its view
    measured = CliRunner().invoke(evaluate, [str(folder.root), "--data", str(data)])
    assert measured.exit_code == 0, measured.output


def test_loose_parts_that_no_view_shows_whole_are_told(tmp_path: Path) -> None:
    """As each has another one beside it."""
    pictures(tmp_path / "data", two)
    done = trained(tmp_path / "data", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "parts do not lie still, a tenth of them " in done.output
    assert "but no view shows all of them" in done.output
    assert RunFolder(tmp_path / "run").sight is None
    height, width = two(0).shape[:2]
    (tmp_path / "view.toml").write_text(f"frame_size = [{width}, {height}]\nroi = [50, 30, 100, 100]\n")
    given = trained(tmp_path / "data", tmp_path / "other", "--view", str(tmp_path / "view.toml"))
    assert "does not follow them: let it follow a part with [align]" in given.output


def test_whole_pictures_are_looked_at_where_that_is_asked(data: Path, tmp_path: Path) -> None:
    done = trained(data, tmp_path / "run", "--whole")
    assert done.exit_code == 0, done.output
    assert "lie still" not in done.output
    assert RunFolder(tmp_path / "run").sight is None
    assert "whole pictures" in (tmp_path / "run/report.html").read_text()
    both = trained(data, tmp_path / "other", "--whole", "--view", "view.toml")
    assert "--view and --whole are given both" in str(both.exception)


@pytest.mark.parametrize("follows", [False, True])
def test_a_view_that_does_not_follow_loose_parts_is_told(data: Path, tmp_path: Path, *, follows: bool) -> None:
    (tmp_path / "reference.png").write_bytes((data / "train/good/00.png").read_bytes())
    align = "[align]\ntemplate = [50, 30, 100, 100]\nmax_shift_px = 15\nmax_turn_deg = 180\nmin_match = 0.3\n"
    text = "frame_size = [200, 160]\nroi = [50, 30, 100, 100]\n"
    (tmp_path / "view.toml").write_text(text + (align if follows else ""))
    done = trained(data, tmp_path / "run", "--view", str(tmp_path / "view.toml"))
    assert done.exit_code == 0, done.output
    assert ("the view that is given does not follow them" in done.output) != follows
    sight = RunFolder(tmp_path / "run").sight
    assert sight is not None
    assert (sight.view.align is not None) == follows


def blank(path: Path, light: int = 60) -> None:
    assert cv2.imwrite(str(path), np.full((SIZE[1], SIZE[0], 3), light, np.uint8))


def test_a_bad_part_that_the_view_does_not_find_is_only_counted(data: Path, tmp_path: Path) -> None:
    away = data / "test/dent/away.png"
    blank(away)
    done = trained(data, tmp_path / "run", "--json")
    assert done.exit_code == 0, done.output
    told = f"1 picture only counted, as a station would make no decision there, like {away}: no part, or"
    assert told in done.stderr
    assert "a view was drawn" in done.stderr
    folder = RunFolder(tmp_path / "run")
    figures = json.loads(done.stdout)
    assert (figures["good"], figures["bad"]) == (6, 6)
    assert (figures["no_decision_good"], figures["no_decision_bad"]) == (0, 1)
    assert "1 that the view does not find, only counted" in (folder.root / "report.html").read_text()
    (row,) = [row for row in folder.data["pictures"] if row["role"] == "no_decision"]
    assert row["file"] == str(away)
    assert row["sha256"] not in learned_from(folder.data)
    assert trained(data, tmp_path / "run", "--resume").exit_code == 0
    measured = CliRunner().invoke(evaluate, [str(folder.root), "--data", str(data), "--json"])
    assert measured.exit_code == 0, measured.output
    again = json.loads(measured.stdout)
    assert (again["bad"], again["no_decision_good"], again["no_decision_bad"]) == (6, 0, 1)
    assert again["image_auroc"] == figures["image_auroc"]


def test_nothing_can_be_measured_where_no_part_is_found(data: Path, tmp_path: Path) -> None:
    assert trained(data, tmp_path / "run").exit_code == 0
    for path in data.glob("test/*/*.png"):
        blank(path, 60 if path.parent.name == "good" else 70)
    measured = CliRunner().invoke(evaluate, [str(tmp_path / "run"), "--data", str(data)])
    assert isinstance(measured.exception, DataError)
    assert "finds its part in none of the pictures" in measured.exception.what


def test_a_good_part_that_is_not_found_leaves_all_whole_and_is_told(data: Path, tmp_path: Path) -> None:
    blank(data / "test/good/away.png")
    done = trained(data, tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "but no view follows all of them: of the pictures 1 do not fit the view" in done.output
    assert "away.png" in done.output
    assert RunFolder(tmp_path / "run").sight is None
