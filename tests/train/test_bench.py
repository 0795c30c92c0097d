"""`kenpin bench train|ablation|few`: trials, what is concluded from them, and the commands."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pytest
import torch

from kenpin.cli import cli
from kenpin.commit import git_commit
from kenpin.errors import ConfigError, DataError, TrainError
from kenpin.synthetic import draw_part
from kenpin.train.arm import Arm, arms, difference, headline
from kenpin.train.bench import Bench, jobs_of
from kenpin.train.bench_set import BenchSet, read_set
from kenpin.train.bench_tables import ablation_table, as_markdown, few_table, headline_table, recipe_table
from kenpin.train.encoder import Encoder
from kenpin.train.fit import fit_head
from kenpin.train.head import LEVEL_NAMES, AnomalyHead
from kenpin.train.metrics import auroc
from kenpin.train.model import Pretrained
from kenpin.train.outcome import Job, Outcome
from kenpin.train.recipe import RECIPES
from kenpin.train.training import Schedule
from kenpin.train.transfer_cli import transfer_table
from kenpin.train.transfer_trial import BOTH, JOINT, NEW_MEMORY, Figures, Lines
from kenpin.train.transfer_trial import Outcome as TransferOutcome
from kenpin.train.trial import UNTRAINED, Setting, run_trial


@pytest.fixture(scope="module")
def cap() -> BenchSet:
    data = read_set("cap", side=64)
    chosen = torch.arange(0, 200, 5)
    return replace(
        data,
        fit=data.fit[:24],
        held_back=data.held_back[:8],
        test=data.test[chosen],
        bad=data.bad[chosen.numpy()],
        masks=None if data.masks is None else data.masks[chosen.numpy()],
        groups=tuple(data.groups[i] for i in chosen),
        good_groups=tuple(str(n) for n in range(32)),
    )


def test_a_drawn_set_has_parts_of_its_own_on_each_side(cap: BenchSet) -> None:
    assert cap.masks is not None
    assert (cap.masks.any((1, 2)) == cap.bad).all()
    parts = {p.numpy().tobytes() for p in torch.cat([cap.fit, cap.held_back, cap.test])}
    assert len(parts) == 24 + 8 + 40


def test_few_pictures_are_drawn_by_lot_and_a_fifth_is_held_back(cap: BenchSet) -> None:
    few, other = cap.with_few(10, draw=0), cap.with_few(10, draw=1)
    assert (len(few.fit), len(few.held_back)) == (8, 2)
    assert not torch.equal(few.fit, other.fit)
    assert torch.equal(few.fit, cap.with_few(10, draw=0).fit)
    assert few.test is cap.test


@pytest.mark.parametrize("draw", range(4))
def test_few_pictures_of_one_part_are_on_one_side(cap: BenchSet, draw: int) -> None:
    """Four pictures of each part, which differ by their place in the set."""
    several = replace(cap, good_groups=tuple(str(n // 4) for n in range(32)))
    few = several.with_few(16, draw=draw)
    part_of = {p.numpy().tobytes(): n // 4 for n, p in enumerate(torch.cat([cap.fit, cap.held_back]))}
    sides = [{part_of[p.numpy().tobytes()] for p in side} for side in (few.fit, few.held_back)]
    assert not sides[0] & sides[1]
    assert len(few.fit) + len(few.held_back) == len(few.good_groups) == 16
    assert {str(part) for part in sides[1]} == set(few.good_groups[len(few.fit) :])
    with pytest.raises(DataError, match="show one part"):
        replace(cap, good_groups=("1",) * 32).with_few(8, draw=draw)


def test_a_trial_measures_on_the_way_without_changing_what_is_learned(cap: BenchSet) -> None:
    schedule = Schedule(6, 8, 0)
    plain, watched = run_trial(cap, Setting(schedule)), run_trial(cap, Setting(schedule, curve=True))
    assert np.allclose(plain.learned, watched.learned, atol=1e-5)
    assert np.allclose(plain.complete, watched.complete, atol=1e-5)
    assert plain.curve == ()
    assert len(watched.curve) == 5
    seconds = [s for s, _ in watched.curve]
    assert seconds == sorted(seconds)
    assert watched.seconds < 2 * plain.seconds + 1
    assert seconds[-1] == watched.seconds
    assert all(0 <= value <= 1 for _, value in watched.curve)
    assert 0 < watched.aupro_05 <= watched.aupro_30 <= 1


@pytest.mark.parametrize("level", ["coarse", "mid", "fine"])
def test_a_level_that_is_left_out_has_no_say(
    cap: BenchSet, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    """Neither its training nor its maps: whatever these weigh, the scores stay."""
    setting = Setting(Schedule(3, 8, 0, RECIPES[f"without {level}"]))
    plain = run_trial(cap, setting)
    own = slice(2 * LEVEL_NAMES.index(level), 2 * LEVEL_NAMES.index(level) + 2)

    def fit_heavily(*given: Any, **named: Any) -> AnomalyHead:
        head = fit_head(*given, **named)
        head.weight[own] = 100.0
        return head

    monkeypatch.setattr("kenpin.train.trial.fit_head", fit_heavily)
    assert np.array_equal(run_trial(cap, setting).complete, plain.complete)


def test_the_head_of_a_trial_gets_the_pictures_of_a_part_side_by_side(
    cap: BenchSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[torch.Tensor] = []

    def note(trained: Pretrained, pictures: torch.Tensor, held_back: torch.Tensor, *, seed: int) -> AnomalyHead:
        given.append(pictures)
        return fit_head(trained, pictures, held_back, seed=seed)

    monkeypatch.setattr("kenpin.train.trial.fit_head", note)
    run_trial(replace(cap, good_groups=tuple(str(n % 2) for n in range(32))), Setting(Schedule(1, 8, 0)))
    assert torch.equal(given[0], torch.cat([cap.fit[::2], cap.fit[1::2]]))


def test_a_defect_without_a_mask_does_not_count_as_good_pixels(cap: BenchSet) -> None:
    assert cap.masks is not None
    maps = np.random.default_rng(0).normal(size=cap.masks.shape) + cap.masks
    blind, without = np.flatnonzero(cap.bad)[0], np.arange(len(cap.bad)) != np.flatnonzero(cap.bad)[0]
    masks = cap.masks.copy()
    masks[blind] = False
    kept = replace(cap, bad=cap.bad[without], masks=cap.masks[without])
    assert replace(cap, masks=masks).pixel_figures(maps) == kept.pixel_figures(maps[without])


def test_random_weights_take_no_training(cap: BenchSet) -> None:
    trial = run_trial(cap, Setting(Schedule(0, 8, 0)))
    assert trial.recipe == UNTRAINED
    assert trial.allotment is None
    assert np.isfinite(trial.complete).all()


def test_every_recipe_can_start_from_the_weights_of_a_file(cap: BenchSet, tmp_path: Path) -> None:
    torch.manual_seed(5)
    torch.save(Encoder(32).state_dict(), tmp_path / "w.pth")
    setting = Setting(Schedule(0, 8, 0), init=tmp_path / "w.pth")
    given, again = run_trial(cap, setting).learned, run_trial(cap, replace(setting, init=None)).learned
    assert np.array_equal(given, run_trial(cap, setting).learned)
    assert not np.allclose(given, again)


BAD = np.arange(60) >= 30


def outcome(recipe: str, seed: int, shift: float, *, seconds: float = 10.0, pictures: int = 0) -> Outcome:
    """Scores of 60 parts, the defective ones higher by `shift`; the curve is half way there at half time."""
    scores = np.random.default_rng(seed).normal(size=60) + shift * BAD
    value = auroc(scores, BAD)
    curve = [(seconds / 2, 0.5 + (value - 0.5) / 2), (seconds, value)]
    groups = [str(i // 2) for i in range(60)]
    job = Job("cap", recipe, seed, pictures=pictures)
    return Outcome(job, seconds, curve, scores, scores, BAD, groups, 0.9, 0.8, 0.7)


def arm(recipe: str, shift: float, *, seconds: float = 10.0) -> Arm:
    return Arm([outcome(recipe, seed, shift, seconds=seconds) for seed in range(3)])


def test_the_headline_says_when_the_reference_is_reached_and_how_far_ahead_it_ends() -> None:
    better, worse = arm("hierarchical", 3.0), arm("flat", 0.8, seconds=20.0)
    found = headline(better, worse)
    target = worse.curve()[-1][1]
    (t0, v0), (t1, v1) = better.curve()
    expected = t0 * 0.5 / 0.5 if v0 >= target else t0 + (target - v0) / (v1 - v0) * (t1 - t0)
    assert found.seconds_share == pytest.approx(expected / 20)
    gap = 100 * (better.auroc("learned").value - worse.auroc("learned").value)
    assert found.points.value == pytest.approx(gap)
    assert 0 < found.points.low < gap < found.points.high
    assert np.isnan(headline(worse, better).seconds_share)


def test_a_difference_is_paired_so_that_an_arm_against_itself_is_exactly_zero() -> None:
    same = arm("hierarchical", 1.0)
    found = difference(same, same)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_tables_hold_every_arm_and_read_as_markdown() -> None:
    every = [
        *arm("hierarchical", 2.0).outcomes,
        *arm("flat, full picture", 1.0).outcomes,
        *arm("without fine", 0.5).outcomes,
    ]
    assert len(arms(every)) == 3
    assert [row[1] for row in recipe_table(every).rows] == [
        "hierarchical",
        "flat, full picture",
        "without fine",
    ]
    heads = headline_table(every, ["flat, full picture"])
    assert [row[1] for row in heads.rows] == ["cap", "mean"]
    taken = ablation_table([*every[:3], *every[6:]], "learned")
    assert taken.rows[1][0] == "without fine"
    assert float(str(taken.rows[1][3])) < -5
    few = [outcome("hierarchical", s, 1.0, pictures=n) for s in range(2) for n in (8, 0)]
    assert [row[1] for row in few_table(few).rows] == ["8", "all"]
    text = as_markdown(heads)
    assert text.count("\n|") == 2 + len(heads.rows)
    assert all(line.count("|") == 5 for line in text.splitlines() if line.startswith("|"))


def test_a_recipe_that_is_never_reached_counts_as_all_of_its_seconds() -> None:
    every = [*arm("hierarchical", 0.3).outcomes, *arm("flat, full picture", 2.0).outcomes]
    rows = headline_table(every, ["flat, full picture"]).rows
    assert rows[0][2] == "not reached"
    assert rows[1][2] == "1.00"


def test_jobs_go_seed_by_seed() -> None:
    jobs = jobs_of(["a", "b"], ["x", "y"], seeds=2, curves=["x"])
    assert [(j.seed, j.set_name, j.recipe, j.curve) for j in jobs[:3]] == [
        (0, "a", "x", True),
        (0, "a", "y", False),
        (0, "b", "x", True),
    ]
    assert len({j.file_name for j in jobs}) == 8


def test_folders_of_one_name_have_results_and_rows_of_their_own(tmp_path: Path) -> None:
    jobs = [Job(str(tmp_path / where / "tiles"), "hierarchical", 0) for where in ("a", "b")]
    assert len({job.file_name for job in jobs}) == 2
    assert jobs[0].file_name == Job(str(tmp_path / "b/../a/tiles"), "hierarchical", 0).file_name
    assert Job("cap", "hierarchical", 0).file_name == "cap_hierarchical_all_0.json"
    same = outcome("hierarchical", 0, 1.0)
    every = [replace(same, job=job) for job in jobs]
    assert {name for name, _, _ in arms(every)} == {job.set_name for job in jobs}
    assert {name for name, _, _ in arms(every[:1])} == {"tiles"}


def test_a_table_says_the_commits_that_its_results_are_of() -> None:
    every = [
        replace(outcome("hierarchical", seed, 1.0), commit=commit, date=f"2026-01-0{seed + 1}")
        for seed, commit in enumerate(("abc", "def", "abc"))
    ]
    table = few_table(every)
    assert table.commit == "abc, def"
    assert table.date == "2026-01-01, 2026-01-02, 2026-01-03"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of seconds in this process."""

    class Inline:
        def __init__(self, *_: object, **__: object) -> None: ...
        def __enter__(self) -> Inline:
            return self

        def __exit__(self, *_: object) -> None: ...

        def submit(self, work: Callable[[Job], None], job: Job) -> object:
            future: Future[None] = Future()
            future.set_result(work(job))
            return future

    monkeypatch.setattr("kenpin.train.bench.ProcessPoolExecutor", Inline)
    monkeypatch.setattr("kenpin.train.bench_set.DRAWN_TRAIN", 24)
    monkeypatch.setattr("kenpin.train.bench_set.DRAWN_TEST", 16)


COMMON = ["--product", "cap", "--size", "64", "--steps", "2", "--json"]


@pytest.mark.usefixtures("small")
def test_bench_few_prints_one_table_and_keeps_it_for_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    arguments = [
        "bench",
        "few",
        *COMMON,
        "--draws",
        "2",
        "--results",
        tmp_path / "r",
        "--run",
        tmp_path / "run",
    ]
    cli.main([str(a) for a in arguments], standalone_mode=False)
    (table,) = json.loads(capsys.readouterr().out)["tables"]
    assert [row[1] for row in table["rows"]] == ["8", "16", "all"]
    assert json.loads((tmp_path / "run/few_pictures.json").read_text())["rows"] == table["rows"]


@pytest.mark.parametrize("verb", ["ablation", "few"])
def test_a_run_folder_that_is_not_there_is_refused_before_the_trials(tmp_path: Path, verb: str) -> None:
    given = ["bench", verb, *COMMON, "--results", str(tmp_path / "r"), "--run", str(tmp_path / "mistyped")]
    with pytest.raises(click.BadParameter, match="does not exist"):
        cli.main(given, standalone_mode=False)
    assert not (tmp_path / "r").exists()


@pytest.mark.usefixtures("small")
def test_a_broken_off_benchmark_goes_on_and_other_settings_are_refused(tmp_path: Path) -> None:
    done: list[Job] = []
    jobs = jobs_of(["cap"], ["hierarchical", UNTRAINED], seeds=1)
    bench = Bench(2, 64, tmp_path)
    bench.run(jobs[:1], workers=1, done=done.append)
    assert len(bench.run(jobs, workers=1, done=done.append)) == 2
    assert done == jobs
    (found,) = bench.run(jobs[:1], workers=1, done=done.append)
    assert (found.commit, len(found.date)) == (git_commit(), 10)
    with pytest.raises(ConfigError, match="another setting"):
        Bench(3, 64, tmp_path).run(jobs, workers=1, done=done.append)
    (tmp_path / "w.pth").write_bytes(b"other weights")
    with pytest.raises(ConfigError, match="another setting"):
        Bench(2, 64, tmp_path, init=tmp_path / "w.pth").run(jobs, workers=1, done=done.append)


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """A folder of 20 good and six bad parts, called like a drawn product."""
    for number in range(26):
        label = "good" if number < 20 else "spot"
        (tmp_path / "cap" / label).mkdir(parents=True, exist_ok=True)
        draw(tmp_path / f"cap/{label}/{number}.png", number, bad=number >= 20)
    return tmp_path / "cap"


def draw(path: Path, number: int, *, bad: bool = False) -> None:
    cv2.imwrite(str(path), draw_part("metal", seed=3, index=number, defect_share=float(bad)).image)


def bench_on(folder: Path, *, verb: str = "few", given: Sequence[str] = ()) -> list[str]:
    return ["bench", verb, "--data", str(folder), "--size", "64", "--steps", "1", "--json", *given]


@pytest.mark.usefixtures("small")
def test_a_kept_result_without_a_curve_is_no_course_of_a_training(tiles: Path) -> None:
    """Of a study that needs none, in the same folder: nothing would ever be reached."""
    bench, results = Bench(1, 64, tiles.parent / "r"), []
    for curve in (False, True):
        jobs = [Job(str(tiles), "hierarchical", 0, curve=curve)]
        results += bench.run(jobs, workers=1, done=lambda _: None)
    assert [bool(found.curve) for found in results] == [False, True]
    assert bench.missing(jobs) == []


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("change", ["another picture", "another label", "another group"])
def test_results_of_other_pictures_are_refused(tiles: Path, change: str) -> None:
    jobs = [Job(str(tiles), UNTRAINED, seed) for seed in range(2)]
    bench = Bench(1, 64, tiles.parent / "r")
    bench.run(jobs[:1], workers=1, done=lambda _: None)
    if change == "another picture":
        draw(tiles / "spot/20.png", 99, bad=True)
    elif change == "another label":
        (tiles / "spot/20.png").rename(tiles / "good/20.png")
    else:
        rows = "".join(f"good/{number}.png,{number // 2}\n" for number in range(20))
        (tiles / "manifest.csv").write_text(f"file,group\n{rows}")
    with pytest.raises(ConfigError, match=r"of other pictures of .*cap"):
        bench.run(jobs, workers=1, done=lambda _: None)


@pytest.mark.usefixtures("small")
def test_a_folder_called_like_a_drawn_product_is_the_folder(
    tiles: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiles.parent)
    cli.main(bench_on(Path("cap"), given=["--draws", "2"]), standalone_mode=False)
    (table,) = json.loads(capsys.readouterr().out)["tables"]
    # Of 20 good parts 16 are learned from: 32 and 64 would be the same pictures as all.
    assert [row[:2] for row in table["rows"]] == [["cap", "8"], ["cap", "all"]]
    kept = json.loads(next((tiles.parent / "runs/bench").glob("cap-*_8_0.json")).read_text())
    assert len(kept["bad"]) == 10


@pytest.mark.parametrize("verb", ["train", "ablation", "few"])
@pytest.mark.parametrize("label", ["good", "spot"])
def test_a_set_of_one_class_is_refused_before_the_trials(tiles: Path, verb: str, label: str) -> None:
    test = tiles / "test" / label
    test.mkdir(parents=True)
    (tiles / "train").mkdir()
    (tiles / "good").rename(tiles / "train/good")
    for number in range(4):
        draw(test / f"{number}.png", 30 + number)
    told = "4 good and 0 bad" if label == "good" else "0 good and 4 bad"
    with pytest.raises(DataError, match=f"{told} pictures to test"):
        cli.main(bench_on(tiles, verb=verb, given=["--results", str(tiles / "r")]), standalone_mode=False)


def test_one_good_part_is_no_set(tiles: Path) -> None:
    rows = "".join(f"good/{number}.png,one\n" for number in range(20))
    (tiles / "manifest.csv").write_text(f"file,group\n{rows}")
    with pytest.raises(DataError, match="20 pictures of good parts to learn from, all of one part"):
        read_set(str(tiles), side=64)


@pytest.mark.parametrize("verb", ["train", "ablation", "few", "transfer", "continual"])
@pytest.mark.parametrize("size", ["0", "100"])
def test_a_size_that_no_model_can_have_is_refused(tiles: Path, verb: str, size: str) -> None:
    with pytest.raises(ConfigError, match=f"--size {size} cannot be used"):
        cli.main(["bench", verb, "--data", str(tiles), "--size", size], standalone_mode=False)


def test_a_line_is_named_by_a_regular_expression(tiles: Path) -> None:
    with pytest.raises(ConfigError, match=r"--first '\[' is no regular expression: unterminated"):
        cli.main(["bench", "transfer", "--data", str(tiles), "--first", "["], standalone_mode=False)


def test_a_transfer_is_measured_on_both_classes_and_says_how_many_pictures_it_had(
    cap: BenchSet, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tiles / "good").rename(tiles.parent / "good")
    given = ["bench", "transfer", "--data", "cap", "--target", str(tiles.parent / "good"), "--size", "64"]
    monkeypatch.setattr("kenpin.train.bench_set.DRAWN_TRAIN", 24)
    with pytest.raises(DataError, match="4 good and 0 bad pictures to test"):
        cli.main(given, standalone_mode=False)
    shown = [found.pictures for found in Lines(cap, cap, 1, 0).transfer((20, 50))]
    assert sorted(set(shown)) == [0, 20, 32]


def test_a_memory_of_new_pictures_does_not_hang_on_how_they_lie(cap: BenchSet) -> None:
    """By name the pictures of a part lie apart, and the head judges some by what the others teach."""
    order = np.random.default_rng(0).permutation(24)
    groups = cap.good_groups
    mixed = replace(cap, fit=cap.fit[order], good_groups=(*(groups[n] for n in order), *groups[24:]))
    found, other = (
        {outcome.arm: outcome.new.scores for outcome in Lines(cap, new, 1, 0).continual()}
        for new in (cap, mixed)
    )
    for arm in (NEW_MEMORY, BOTH, JOINT):
        assert np.allclose(found[arm], other[arm], atol=1e-5), arm


@pytest.mark.parametrize(
    "given",
    [
        [],
        ["--until", "2020"],
        ["--first", "a", "--until", "2020"],
        ["--first", "a", "--until", "1", "--since", "2"],
    ],
)
def test_the_old_pictures_are_named_in_one_way(tiles: Path, given: list[str]) -> None:
    with pytest.raises(ConfigError, match="which pictures are the old ones"):
        cli.main(["bench", "continual", "--data", str(tiles), *given], standalone_mode=False)


def test_a_line_without_masks_has_no_figures_of_pixels(cap: BenchSet) -> None:
    rng = np.random.default_rng(0)
    found = Figures(rng.normal(size=len(cap.bad)), 0.5, float("nan"), float("nan"))
    several = {("model", 20): [TransferOutcome("model", 20, 1.0, found, found)]}
    ((_, _, _, *pixels, _),) = transfer_table(several, replace(cap, masks=None)).rows
    assert pixels == ["no masks", "no masks"]


def test_a_result_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, usual[1]))  # the kernel refuses to let files grow
    try:
        with pytest.raises(TrainError, match="cannot write: File too large") as refused:
            Bench(1, 64, tmp_path).run([], workers=1, done=lambda _: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert "it goes on" in refused.value.cure
    assert Bench(1, 64, tmp_path).missing([]) == []


class Failing:
    """A pool of two trials, the first of which fails at once; the second would take long."""

    def __init__(self, error: BaseException) -> None:
        self.cancelled, self._error = False, error

    def __call__(self, *_: object, **__: object) -> Failing:
        return self

    def __enter__(self) -> Failing:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.cancelled

    def submit(self, *_: object) -> Future[None]:
        future: Future[None] = Future()
        future.set_exception(self._error)
        return future

    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:
        self.cancelled = cancel_futures and not wait


def test_a_trial_that_fails_is_told_before_the_others_are_run(
    tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [Job(str(tiles), UNTRAINED, seed) for seed in range(2)]
    monkeypatch.setattr("kenpin.train.bench.ProcessPoolExecutor", Failing(DataError("gone")))
    with pytest.raises(DataError, match="gone"):
        Bench(1, 64, tiles.parent / "r").run(jobs, workers=1, done=lambda _: None)


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["trial", "bench"])
def test_a_benchmark_ends_with_a_trial_that_is_killed_and_by_ctrl_c(tiles: Path, whom: str) -> None:
    jobs = [Job(str(tiles), UNTRAINED, 0), *(Job(str(tiles), "hierarchical", seed) for seed in range(3))]

    def end(_: Job) -> None:
        if whom == "bench":
            raise KeyboardInterrupt  # where tests run side by side, their processes ignore the signal
        active_children()[0].kill()

    with pytest.raises((TrainError, KeyboardInterrupt)) as ended:
        Bench(10**6, 64, tiles.parent / "r").run(jobs, workers=1, done=end)
    by_s = time.monotonic() + 60  # the pool's own thread may be the one that hears of the end
    while active_children() and time.monotonic() < by_s:
        time.sleep(0.05)
    assert not active_children()
    assert ended.type is (KeyboardInterrupt if whom == "bench" else TrainError)
    assert whom == "bench" or "--workers" in ended.value.cure


def test_results_of_an_older_form_are_refused(tmp_path: Path) -> None:
    (tmp_path / "setting.json").write_text('{"steps": 2, "side": 64, "batch": 24, "device": "cpu"}')
    with pytest.raises(ConfigError, match="another setting") as refused:
        Bench(2, 64, tmp_path).run([], workers=1, done=lambda _: None)
    assert "another kenpin" in refused.value.cure


@pytest.mark.slow
def test_a_trial_in_a_process_of_its_own_gives_its_result(tmp_path: Path) -> None:
    (found,) = Bench(1, 64, tmp_path).run([Job("metal", UNTRAINED, 0)], workers=1, done=lambda _: None)
    assert found.complete.shape == (200,)
    assert found.seconds > 0
