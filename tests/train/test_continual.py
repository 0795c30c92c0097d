"""What is known of good parts and what is new are joined as if all had been there from the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from kenpin.synthetic import draw_part
from kenpin.train import fit
from kenpin.train.bank import MemoryBank
from kenpin.train.cli import train
from kenpin.train.coarse import LightStatistics, Pattern
from kenpin.train.fit import fit_head, update_head
from kenpin.train.head import MAPS, AnomalyHead, HeadShape
from kenpin.train.inspector import Inspector
from kenpin.train.model import Pretrained
from kenpin.train.moments import Moments
from kenpin.train.run import RunFolder, load_inspector


def test_joined_moments_are_those_of_all_pictures() -> None:
    torch.manual_seed(0)
    old, new = torch.randn(30, 2, 4, 4), 3 * torch.randn(12, 2, 4, 4) + 5
    joined, every = Moments.of(old).joined(Moments.of(new)), Moments.of(torch.cat([old, new]))
    assert joined.count == 42
    assert torch.allclose(joined.mean, every.mean, atol=1e-5)
    assert torch.allclose(joined.variance, every.variance, atol=1e-4)


def test_merged_light_is_that_of_all_pictures_however_often_it_is_merged() -> None:
    torch.manual_seed(0)
    parts = [torch.randn(n, 2, 4, 4) + n for n in (20, 7, 11)]
    merged, every = LightStatistics(4), LightStatistics(4)
    merged.fit(parts[0])
    merged.merge(parts[1])
    merged.merge(parts[2])
    every.fit(torch.cat(parts))
    asked = torch.randn(3, 2, 4, 4)
    assert torch.allclose(merged(asked), every(asked), atol=1e-4)


def test_a_merged_pattern_explains_what_either_explained() -> None:
    torch.manual_seed(0)
    slope = torch.linspace(-1, 1, 8).expand(2, 8, 8)
    old = slope * torch.randn(40, 1, 1, 1) + 0.01 * torch.randn(40, 2, 8, 8)
    new = slope.mT * torch.randn(40, 1, 1, 1) + 0.5 + 0.01 * torch.randn(40, 2, 8, 8)
    merged, every, new_only = Pattern(8), Pattern(8), Pattern(8)
    merged.fit(old)
    merged.merge(new)
    every.fit(torch.cat([old, new]))
    new_only.fit(new)
    for usual in (slope[None] * 1.5, slope.mT[None] * 1.5 + 0.5):
        assert merged(usual).max() < 0.3
        assert merged(usual).max() == pytest.approx(float(every(usual).max()), abs=0.1)
    assert new_only(slope[None] * 1.5).max() > 1
    faulty = slope[None] * 1.5
    faulty[0, 0, 2, 3] += 0.5
    assert merged(faulty)[0].argmax() == 2 * 8 + 3


def test_a_merged_bank_knows_old_and_new_places_by_the_old_measure() -> None:
    torch.manual_seed(0)
    old, new = torch.randn(6, 4, 5, 5) * 2, torch.randn(6, 4, 5, 5) + 20
    bank, size = MemoryBank(4, 320), 320
    bank.fit(old)
    mean, inverse_std = bank.mean.clone(), bank.inverse_std.clone()
    assert bank(new).min() > 2
    bank.merge(new)
    assert bank.bank.shape == (4, size)
    assert torch.equal(bank.mean, mean)
    assert torch.equal(bank.inverse_std, inverse_std)
    assert bank(old).max() < 0.05
    assert bank(new).max() < 0.05


def test_a_bank_is_merged_from_no_more_places_than_a_coreset_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """More would be thinned out at random, and the old places with them."""
    bank, offered = MemoryBank(4, 10), list[int]()
    bank.fit(torch.randn(2, 4, 5, 5))
    monkeypatch.setattr("kenpin.train.bank.CANDIDATES", 30)
    monkeypatch.setattr(bank, "_remember", lambda places: offered.append(len(places)))
    bank.merge(torch.randn(4, 4, 5, 5))
    assert offered == [30]


def test_standardising_again_counts_old_and_new_pictures_alike() -> None:
    torch.manual_seed(0)
    old, new = torch.randn(60, len(MAPS), 16, 16), 2 * torch.randn(20, len(MAPS), 16, 16) + 1
    merged, every = (AnomalyHead(HeadShape(64, (8, 16, 32)), torch.nn.ModuleList()) for _ in range(2))
    merged.standardise(old.unbind(1))
    before = merged.unit.clone()
    merged.restandardise(new.unbind(1))
    every.standardise(torch.cat([old, new]).unbind(1))
    assert (merged.count == 80).all()
    assert torch.allclose(merged.offset, every.offset, atol=1e-5)
    spread, expected = (h.scale * h.unit.view(-1, 1, 1) for h in (merged, every))
    assert torch.allclose(spread, expected, rtol=1e-3)
    own = merged._unit_of(new.unbind(1)) * merged.unit
    assert torch.allclose(merged.unit, 0.75 * before + 0.25 * own, rtol=1e-3)


def caps(count: int, *, seed: int, gain: float) -> torch.Tensor:
    """Good drawn caps under another lamp, BGR uint8 (count, 3, 64, 64)."""
    parts = [draw_part("cap", seed=seed, index=i, defect_share=0).image[::4, ::4] for i in range(count)]
    lit = [np.clip(part * gain, 0, 255).astype(np.uint8) for part in parts]
    return torch.from_numpy(np.stack(lit)).permute(0, 3, 1, 2).contiguous()


@torch.no_grad()
def test_an_update_learns_the_new_and_does_not_forget_the_old() -> None:
    torch.manual_seed(0)
    trained = Pretrained(8)
    old, new = caps(24, seed=1, gain=0.5), caps(24, seed=2, gain=1.1)
    of_old = fit_head(trained, old[:16], old[16:], seed=0)
    of_new = fit_head(trained, new[:16], new[16:], seed=0)
    of_both = update_head(of_old, trained, new[:16], new[16:], seed=0)

    def usual(head: AnomalyHead, pictures: torch.Tensor) -> float:
        scores = Inspector(trained.encoder, head).eval()(pictures.permute(0, 2, 3, 1))[0]
        return float(scores.median())

    fresh_old, fresh_new = caps(10, seed=3, gain=0.5), caps(10, seed=4, gain=1.1)
    assert usual(of_old, fresh_new) > 2.5
    assert usual(of_new, fresh_old) > 2.5
    assert usual(of_both, fresh_new) < 2
    assert usual(of_both, fresh_old) < 2
    assert of_old.light.count == 24
    assert of_both.light.count == 48


@torch.no_grad()
def test_an_update_asks_parts_held_back_only_and_counts_old_and_new_ones_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    trained, pictures = Pretrained(8), torch.randint(0, 255, (28, 3, 64, 64), dtype=torch.uint8)
    old = fit_head(trained, pictures[:12], pictures[12:18], seed=0)
    held_back = pictures[26:]  # two beside six
    asked = []

    def watch(name: str, place: int) -> None:
        step = getattr(fit, name)

        def watched(*given: Any) -> Any:
            asked.append(given[place])
            return step(*given)

        monkeypatch.setattr(fit, name, watched)

    for name in ("raw_maps_of", "maps_of", "_validation_maps"):
        watch(name, 2)
    watch("_cross_fitted", 3)
    monkeypatch.setattr(fit, "choose_weights", lambda *_: torch.zeros(len(MAPS)))
    monkeypatch.setattr(fit, "_units", lambda *_: (torch.full((3,), 4.0), torch.tensor(4.0)))
    head = update_head(old, trained, pictures[18:26], held_back, seed=0)
    learn, *shown, _drawn = asked
    assert learn is AnomalyHead.merge_untrained
    assert len(shown) == 3
    assert all(pictures is held_back for pictures in shown)
    assert torch.allclose(head.weight, 0.75 * old.weight)
    assert torch.allclose(1 / head.level_scale, 0.75 / old.level_scale + 1)
    assert torch.allclose(1 / head.fused_scale, 0.75 / old.fused_scale + 1)


def write_caps(folder: Path, count: int, seed: int) -> Path:
    (folder / "good").mkdir(parents=True)
    for index in range(count):
        image = draw_part("cap", seed=seed, index=index, defect_share=0).image
        assert cv2.imwrite(str(folder / "good" / f"{seed}-{index:02}.png"), image)
    return folder


def test_an_updated_run_keeps_the_encoder_and_remembers_both(tmp_path: Path) -> None:
    first, second = write_caps(tmp_path / "caps", 20, 1), write_caps(tmp_path / "more", 15, 2)
    bad = second / "good" / "2-07.png"  # taken for good
    image = cv2.imread(str(bad))
    height, width = image.shape[:2]
    cv2.circle(image, (width // 2, height // 2), width // 8, (0, 0, 0), -1)
    assert cv2.imwrite(str(bad), image)

    def kenpin_train(*options: object) -> None:
        done = CliRunner().invoke(train, [str(o) for o in options], catch_exceptions=False)
        assert done.exit_code == 0
        told.append("".join(done.stderr.split("\n")))

    told: list[str] = []
    kenpin_train("--data", first, "--run", tmp_path / "a", "--size", 64, "--steps", 4)
    kenpin_train("--data", second, "--run", tmp_path / "b", "--update", tmp_path / "a")
    a, b = tmp_path / "a", tmp_path / "b"
    assert (a / "encoder.safetensors").read_bytes() == (b / "encoder.safetensors").read_bytes()
    config = RunFolder(b).config
    assert (config.origin, config.steps, config.size) == ("run a", 0, 64)
    own, both = (load_inspector(run).head for run in (a, b))
    fits, held = (
        [sum(r["role"] == role for r in RunFolder(run).data["pictures"]) for run in (a, b)]
        for role in ("fit", "held_back")
    )
    assert own.light.count == fits[0] + held[0]
    assert both.light.count == sum(fits) + sum(held)
    assert own.count.flatten().tolist() == [fits[0] + held[0]] * 2 + [held[0]] * 4 + [fits[0] + held[0]]
    assert both.count.flatten().tolist() == [sum(fits) + sum(held)] * 2 + [sum(held)] * 4 + [
        sum(fits) + sum(held)
    ]
    assert "report.html" in {p.name for p in b.iterdir()}
    assert f"most unlike the others, as the report shows them: {bad}" in told[1]
