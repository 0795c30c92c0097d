from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from kenpin.train.muon import MUON_RATE, Muon, orthogonal

RATE = 0.001


def net() -> nn.Sequential:
    """A convolution from pictures, one between features, a batch norm, one to a single map."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1)
    )


def learned(model: nn.Module, optimizer: torch.optim.Optimizer, *, steps: int = 1) -> nn.Module:
    for step in range(steps):
        optimizer.zero_grad()
        pictures = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(step))
        model(pictures).square().mean().backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("shape", [(8, 72), (64, 32), (16, 16)])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 1e-4
    made = orthogonal(matrix)
    left, before, right = torch.linalg.svd(matrix, full_matrices=False)
    after = torch.diagonal(left.T @ made @ right.T)
    assert before.max() / before.min() > 1.5
    assert 0.6 < after.min() <= after.max() < 1.3
    torch.testing.assert_close(left @ torch.diag(after) @ right, made, atol=1e-3, rtol=0)


def test_only_convolutions_between_features_take_orthogonal_steps() -> None:
    model = net()
    plain, before = copy.deepcopy(model), copy.deepcopy(model)
    learned(model, Muon(model.parameters(), lr=RATE, weight_decay=0))
    learned(plain, torch.optim.AdamW(plain.parameters(), lr=RATE, weight_decay=0))
    for name, ours in model.named_parameters():
        adam, was = plain.get_parameter(name), before.get_parameter(name)
        if name == "1.weight":
            values = torch.linalg.svdvals((was - ours).flatten(1)) / (MUON_RATE * RATE)
            assert 0.6 < values.min() <= values.max() < 1.3
        else:
            torch.testing.assert_close(ours, adam)


def test_a_convolution_decays_as_the_rest() -> None:
    model = nn.Conv2d(8, 4, 1, bias=False)
    was = model.weight.detach().clone()
    optimizer = Muon(model.parameters(), lr=RATE, weight_decay=0.5)
    model.weight.grad = torch.zeros_like(was)
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), was * (1 - RATE * 0.5))


def test_more_outputs_than_inputs_take_longer_steps() -> None:
    model = nn.Conv2d(4, 16, 1, bias=False)
    was = model.weight.detach().clone()
    model.weight.grad = torch.randn(was.shape, generator=torch.Generator().manual_seed(2))
    Muon(model.parameters(), lr=RATE, weight_decay=0).step()
    values = torch.linalg.svdvals((was - model.weight.detach()).flatten(1)) / (MUON_RATE * RATE)
    assert 0.6 * math.sqrt(4) < values.min() <= values.max() < 1.3 * math.sqrt(4)


def test_the_order_of_memory_does_not_matter() -> None:
    first, last = net(), net().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for model in (first, last):
        learned(model, Muon(model.parameters(), lr=RATE), steps=3)
    for name, weight in first.named_parameters():
        torch.testing.assert_close(weight, last.get_parameter(name), atol=1e-4, rtol=1e-3)


def test_momentum_outlives_a_step() -> None:
    model = nn.Conv2d(4, 4, 1, bias=False)
    optimizer = Muon(model.parameters(), lr=RATE, weight_decay=0)
    model.weight.grad = torch.eye(4)[:, :, None, None]
    optimizer.step()
    before = model.weight.detach().clone()
    model.weight.grad = torch.zeros_like(before)
    optimizer.step()
    assert (before - model.weight.detach()).abs().max() > 0.5 * MUON_RATE * RATE
