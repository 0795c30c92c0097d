"""The training loop: what it spends compute on, when, and that it can be interrupted anywhere."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision.amp import MixedPrecision
from torch.nn import functional

from kenpin.errors import TrainError
from kenpin.synthetic import draw_part
from kenpin.train.allot import FLOOR, Gauge, allot, because
from kenpin.train.encoder import Encoder
from kenpin.train.levels import COARSE, LEVELS, Level
from kenpin.train.model import Pretrained, settle_batch_norms
from kenpin.train.objective import Task
from kenpin.train.picture_cache import PictureCache
from kenpin.train.pretrain import SETTLE_PICTURES, Trainer
from kenpin.train.recipe import ABLATIONS, HIERARCHICAL, RECIPES, REFERENCES, Recipe
from kenpin.train.run import RunConfig, RunFolder
from kenpin.train.training import PEAK_LEARNING_RATE, Schedule, StepLog, Training, learning_rate
from kenpin.train.views import Photometry


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """Thirty good drawn caps, BGR uint8 (30, 3, 64, 64)."""
    parts = [draw_part("cap", seed=1, index=i, defect_share=0).image[::4, ::4] for i in range(30)]
    return torch.stack([torch.from_numpy(p.copy()) for p in parts]).permute(0, 3, 1, 2).contiguous()


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


class Constant:
    """A gauge that knows what each measurement shall say, and costs nothing."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = list(values)

    def multiply_adds(self, _model: Pretrained) -> float:
        return 0.0

    def __call__(self, _model: Pretrained) -> float:
        return self.values.pop(0)


def trainer(
    pictures: torch.Tensor,
    fabric: Fabric,
    schedule: Schedule,
    *,
    training: Training | None = None,
    on_step: Callable[[StepLog], None] = lambda _: None,
) -> Trainer:
    training = training or Training.start(width=8, seed=0, device=torch.device("cpu"))
    return Trainer(training, PictureCache.of(pictures), schedule, fabric, on_step)


def steps_of(pictures: torch.Tensor, fabric: Fabric, recipe: Recipe, gauge: object = None) -> list[StepLog]:
    logs: list[StepLog] = []
    work = trainer(pictures, fabric, Schedule(60, 6, 0, recipe), on_step=logs.append)
    work.gauge = gauge  # type: ignore[assignment]
    work.run()
    return logs


SMALL = replace(HIERARCHICAL, mix=(0.1, 0.2, 0.7), growth=1, freeze_from=1, importance=0)


def test_the_start_goes_from_coarse_to_fine_and_the_rest_follows_the_mix(
    pictures: torch.Tensor, fabric: Fabric
) -> None:
    names = [log.level for log in steps_of(pictures, fabric, SMALL)]
    assert len(names) == 60
    assert names[:15] == ["coarse"] * 5 + ["mid"] * 5 + ["fine"] * 5
    rest = Counter(names[15:])
    assert rest["fine"] > 2 * rest["mid"] > 0
    assert rest["coarse"] > 0


def test_the_level_that_gains_in_the_probe_gets_the_rest(pictures: torch.Tensor, fabric: Fabric) -> None:
    logs = steps_of(pictures, fabric, SMALL, Constant([0.5, 0.9, 0.5, 0.5]))
    names = [log.level for log in logs]
    assert names[15:24] == ["coarse"] * 3 + ["mid"] * 3 + ["fine"] * 3
    assert names[24:].count("coarse") > 0.75 * len(names[24:])


def test_the_probe_starts_every_level_from_the_same_weights_and_keeps_their_mean(
    pictures: torch.Tensor, fabric: Fabric
) -> None:
    work = trainer(pictures, fabric, Schedule(60, 6, 0, replace(SMALL, start=0)))
    ends: list[torch.Tensor] = []
    begins: dict[str, torch.Tensor] = {}
    step = work._step

    class Watching(Constant):
        def __call__(self, model: Pretrained) -> float:
            ends.append(model.encoder.conv1.weight.detach().clone())
            return super().__call__(model)

    def watched(level: Level) -> None:
        begins.setdefault(level.name, work.training.model.encoder.conv1.weight.detach().clone())
        step(level)

    work.gauge = Watching([0.5, 0.5, 0.5, 0.5])  # type: ignore[assignment]
    work._step = watched  # type: ignore[method-assign]
    work._probe()
    assert list(begins) == ["coarse", "mid", "fine"]
    assert all(torch.equal(begin, ends[0]) for begin in begins.values())
    assert not torch.allclose(ends[1], ends[2])
    mean = work.training.model.encoder.conv1.weight
    assert torch.allclose(mean, torch.stack(ends[1:]).mean(0), atol=1e-6)


def test_pictures_of_every_lot_are_looked_at(pictures: torch.Tensor, fabric: Fabric) -> None:
    # By name those of the last lot, blurred and half as bright, are behind as many as are looked at.
    last = functional.avg_pool2d(pictures.float() / 2, 9, 1, 4).to(torch.uint8)
    lots = torch.cat([pictures.repeat(7, 1, 1, 1), last])
    work = trainer(lots, fabric, Schedule(1, 6, 0, replace(SMALL, start=0)))
    assert work.photometry.gain > 2 * Photometry.measure(pictures).gain
    work.run()
    settled = work.training.model.encoder
    first, every = (copy.deepcopy(settled) for _ in range(2))
    settle_batch_norms(first, lots[:SETTLE_PICTURES])
    settle_batch_norms(every, lots)
    off_first, off_every = ((settled.bn1.running_mean - e.bn1.running_mean).abs().sum() for e in (first, every))
    assert off_every < off_first / 4
    darkest = pictures.float().mean((1, 2, 3)).min()
    gauge = Gauge(lots, lots, seed=0)
    assert all(seen.float().mean((1, 2, 3)).min() < 0.7 * darkest for seen in (gauge.known, gauge.good))


def test_without_a_gauge_or_with_too_small_a_budget_the_usual_mix_stays(
    pictures: torch.Tensor, fabric: Fabric
) -> None:
    gauge = Gauge(pictures[:20], pictures[20:], seed=0)
    work = trainer(pictures, fabric, Schedule(20, 6, 0))
    work.gauge = gauge
    work.run()
    assert work.training.allotment is None


def test_every_recipe_spends_the_same_compute(pictures: torch.Tensor, fabric: Fabric) -> None:
    spent = {}
    for name, recipe in RECIPES.items():
        work = trainer(pictures, fabric, Schedule(6, 6, 0, recipe))
        work.run()
        spent[name] = work.training.spent / work.compute
    # The last step may go over: the full picture costs four times as much as a view.
    assert all(1 <= share < 1.7 for share in spent.values()), spent
    assert len(RECIPES) == 1 + len(REFERENCES) + len(ABLATIONS)


def test_early_views_are_smaller_and_late_steps_leave_the_first_layers_alone(
    pictures: torch.Tensor, fabric: Fabric
) -> None:
    first: list[torch.Tensor] = []
    sides: list[int] = []
    work = trainer(
        torch.nn.functional.interpolate(pictures.float(), size=128).to(torch.uint8),
        fabric,
        Schedule(20, 6, 0, replace(HIERARCHICAL, growth=0.5, freeze_from=0.5)),
    )

    def note(log: StepLog) -> None:
        first.append(work.training.model.encoder.layer1[0].conv1.weight.detach().clone())
        cost = work.training.spent - sum(sides)
        sides.append(int(cost))

    work.on_step = note
    work.run()
    costs = torch.tensor(sides, dtype=torch.float64)
    assert float(costs[0] / costs.max()) == pytest.approx(0.25, abs=0.01)
    assert costs[-1] < 0.8 * costs.max()
    assert torch.equal(first[-1], first[-2])
    assert not torch.equal(first[0], first[1])


def interrupted(folder: RunFolder, pictures: torch.Tensor, fabric: Fabric, *, stop_after: int) -> list[float]:
    """Train with a probe, saving after each step that may be saved; be killed after one of them."""
    training = Training.start(width=8, seed=3, device=torch.device("cpu"))
    folder.load_training(training)

    def on_step(log: StepLog) -> None:
        folder.log(vars(log))
        if not training.probing:
            folder.save_training(training)
        if log.step == stop_after:
            raise KeyboardInterrupt

    work = trainer(pictures, fabric, Schedule(30, 6, 3), training=training, on_step=on_step)
    gauge = Gauge(pictures[:8], pictures[8:12], seed=0)
    gauge.multiply_adds = lambda _: 0.0  # type: ignore[method-assign]
    work.gauge = gauge
    work.run()
    return [m["loss"] for m in folder.metrics()]


@pytest.mark.parametrize("stop_after", [1, 9, 13, 17, 30], ids=lambda n: f"after step {n}")
def test_resume_after_any_step_gives_the_same_loss_curve(
    pictures: torch.Tensor, fabric: Fabric, tmp_path: Path, stop_after: int
) -> None:
    config = RunConfig(product="cap", data="", size=64, width=8, steps=30, batch=6, seed=3)
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    for folder in (whole, broken):
        folder.create(config, {"pictures": []}, resume=False)
    expected = interrupted(whole, pictures, fabric, stop_after=0)
    with pytest.raises(KeyboardInterrupt):
        interrupted(broken, pictures, fabric, stop_after=stop_after)
    assert interrupted(broken, pictures, fabric, stop_after=0) == expected


def test_half_precision_goes_on_with_the_scale_of_its_gradients(pictures: torch.Tensor, tmp_path: Path) -> None:
    def half() -> Fabric:
        # So large a scale overflows at once, and later time and again; each time a step is left out.
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=3)
        return Fabric(accelerator="cpu", devices=1, plugins=MixedPrecision("16-mixed", "cpu", scaler))

    config = RunConfig(product="cap", data="", size=64, width=8, steps=30, batch=6, seed=3)
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    for folder in (whole, broken):
        folder.create(config, {"pictures": []}, resume=False)
    expected = interrupted(whole, pictures, half(), stop_after=0)
    with pytest.raises(KeyboardInterrupt):
        interrupted(broken, pictures, half(), stop_after=18)
    assert interrupted(broken, pictures, half(), stop_after=0) == expected


def test_a_device_without_memory_gets_the_batch_in_parts_and_says_so(
    pictures: torch.Tensor, fabric: Fabric
) -> None:
    work = trainer(pictures, fabric, Schedule(4, 24, 0))
    told: list[str] = []
    work.tell = told.append
    objective, sizes = work.objective.module, []
    forward = objective.forward

    def small_memory(task: Task) -> object:
        sizes.append(len(task.importance))
        if len(task.importance) > 6:
            raise torch.OutOfMemoryError
        return forward(task)

    objective.forward = small_memory  # type: ignore[method-assign]
    work.run()
    assert sizes[:6] == [24, 12, 6, 6, 6, 6]
    assert set(sizes[6:]) == {6}
    assert "in 2 parts" in told[0]
    assert "in 4 parts" in told[1]


def test_a_batch_in_parts_sees_the_same_however_often_it_was_tried(
    pictures: torch.Tensor, fabric: Fabric
) -> None:
    def losses(room: int, parts: int) -> list[float]:
        logs: list[StepLog] = []
        work = trainer(pictures, fabric, Schedule(2, 12, 0), on_step=logs.append)
        work.parts, forward = parts, work.objective.module.forward

        def small_memory(task: Task) -> object:
            found = forward(task)
            if len(task.importance) > room:
                raise torch.OutOfMemoryError
            return found

        work.objective.module.forward = small_memory  # type: ignore[method-assign]
        work.run()
        return [log.loss for log in logs]

    # As when a run goes on that had found out before that halves fit.
    assert losses(room=6, parts=1) == losses(room=12, parts=2)


def test_parts_of_a_batch_are_as_equal_as_can_be_and_count_by_their_pictures(
    pictures: torch.Tensor, fabric: Fabric
) -> None:
    work = trainer(pictures, fabric, Schedule(2, 10, 0, replace(SMALL, start=0)))
    work.parts, sizes = 4, []
    bias = work.training.model.encoder.bn1.bias

    def by_size(task: Task) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(len(task.importance))
        return sizes[-1] * bias.sum(), task.importance

    work.objective.module.forward = by_size  # type: ignore[method-assign]
    loss = work._backward(COARSE, torch.arange(10), torch.ones(10))
    # A picture alone has no others to be like.
    assert sizes == [3, 3, 2, 2]
    assert bias.grad is not None
    assert loss == 0
    assert bias.grad[0] == pytest.approx((3 * 3 + 3 * 3 + 2 * 2 + 2 * 2) / 10)


def test_half_precision_trains_too(pictures: torch.Tensor) -> None:
    losses: list[float] = []
    half = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    trainer(pictures, half, Schedule(3, 6, 0), on_step=lambda log: losses.append(log.loss)).run()
    whole = Fabric(accelerator="cpu", devices=1, precision="32-true")
    expected: list[float] = []
    trainer(pictures, whole, Schedule(3, 6, 0), on_step=lambda log: expected.append(log.loss)).run()
    assert losses == pytest.approx(expected, rel=0.05)
    assert losses != expected


def test_a_device_for_not_even_two_pictures_is_an_error(pictures: torch.Tensor, fabric: Fabric) -> None:
    work = trainer(pictures, fabric, Schedule(4, 6, 0))

    def no_memory(*_: object) -> object:
        raise torch.OutOfMemoryError

    work.objective.module.forward = no_memory  # type: ignore[method-assign]
    with pytest.raises(TrainError, match="do not fit into the device's memory") as refused:
        work.run()
    assert "--size" in refused.value.cure


def test_a_loss_that_is_not_finite_stops_and_names_the_level(pictures: torch.Tensor, fabric: Fabric) -> None:
    work = trainer(pictures, fabric, Schedule(4, 6, 0))
    with torch.no_grad():
        work.training.model.encoder.conv1.weight.fill_(float("nan"))
    with pytest.raises(TrainError, match="loss of level coarse is nan at step 0"):
        work.run()


def test_the_batch_norms_end_with_clean_whole_pictures(pictures: torch.Tensor, fabric: Fabric) -> None:
    work = trainer(pictures, fabric, Schedule(3, 6, 0))
    work.run()
    settled = copy.deepcopy(work.training.model.encoder)
    settle_batch_norms(settled, pictures)
    assert not work.training.model.encoder.training
    found, wanted = work.training.model.encoder.state_dict(), settled.state_dict()
    assert all(torch.allclose(found[name], wanted[name]) for name in wanted)


def test_no_picture_counts_more_than_others_for_the_batch_norms() -> None:
    torch.manual_seed(0)
    encoder, pictures = Encoder(8), torch.randint(60, 100, (21, 3, 64, 64), dtype=torch.uint8)
    pictures[0] = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    pictures[0, :, :32] = 0
    seen = []
    for shift in (0, -1):
        settle_batch_norms(encoder, pictures.roll(shift, 0))
        variances = [m.running_var for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        seen.append(torch.cat([v for v in variances if v is not None]))
    # The odd one among ten or eleven, first or last; alone in a batch it would count as half of all.
    assert torch.allclose(seen[0], seen[1], rtol=0.15)


def test_gradients_are_clipped(pictures: torch.Tensor, fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []

    def note(_log: StepLog) -> None:
        each = [p.grad.norm() for p in work.training.model.parameters() if p.grad is not None]
        norms.append(float(torch.stack(each).norm()))

    work, backward = trainer(pictures, fabric, Schedule(2, 6, 0), on_step=note), fabric.backward
    monkeypatch.setattr(fabric, "backward", lambda loss: backward(1e4 * loss))
    work.run()
    assert norms
    assert max(norms) == pytest.approx(5, rel=1e-3)


def test_learning_rate_warms_up_holds_and_decays() -> None:
    rates = [learning_rate(step / 300, step) / PEAK_LEARNING_RATE for step in range(300)]
    assert rates[0] < 0.1
    assert rates[20:190] == [1.0] * 170
    assert rates[-1] < 0.05


def test_shares_follow_the_gains_and_never_fall_below_the_floor() -> None:
    usual = HIERARCHICAL.mix
    assert allot([0.1, 0.1, 0.1], usual) == pytest.approx(usual)
    for gains in ([0.3, 0, 0], [0, 0, 0.3], [-0.5, 0.5, 0]):
        shares = allot(gains, usual)
        assert sum(shares) == pytest.approx(1)
        assert min(shares) >= FLOOR - 1e-9
        assert shares[gains.index(max(gains))] == max(shares)
    told = because({"coarse": 0.1, "mid": -0.02}, {"coarse": 0.8, "mid": 0.2})
    assert "coarse +10.0" in told
    assert "mid -2.0" in told
    assert "coarse gets most" in told


def test_the_gauge_leaves_the_model_as_it_is_and_sees_what_it_learned(
    pictures: torch.Tensor, fabric: Fabric
) -> None:
    gauge = Gauge(pictures[:20], pictures[20:], seed=0)
    work = trainer(pictures[:20], fabric, Schedule(80, 8, 0))
    model = work.training.model
    before = {k: v.clone() for k, v in model.state_dict().items()}
    untrained = gauge(model)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert gauge(model) == untrained
    work.run()  # after half as many steps it would hang on the processor whether anything was gained
    assert gauge(model) > untrained


def test_the_gauge_costs_what_passes_through_the_encoder(
    pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    gauge, model, passed = Gauge(pictures[:20], pictures[20:], seed=0), Pretrained(8), []
    forward = Encoder.forward

    def counted(encoder: Encoder, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        passed.append(len(x))
        return forward(encoder, x)

    monkeypatch.setattr(Encoder, "forward", counted)
    gauge(model)
    # Of a training pass a third goes forward.
    assert gauge.multiply_adds(model) == pytest.approx(sum(passed) * model.encoder.multiply_adds(64) / 3)


def test_views_of_each_level_are_what_the_level_says() -> None:
    assert [level.name for level in LEVELS] == ["coarse", "mid", "fine"]
    assert COARSE.view_side(224) == 112
    assert COARSE.view_side(224, growth=0.75) == 80
    assert COARSE.view_side(64, growth=0.5) == 32
