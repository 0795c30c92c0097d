"""The state of a training, how long it goes on, and what each step tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kenpin.train.init import load_initial_weights
from kenpin.train.model import Pretrained
from kenpin.train.recipe import HIERARCHICAL, Recipe

PEAK_LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-4


@dataclass(frozen=True)
class Schedule:
    """How long and how to train.

    Attributes:
        steps: Compute, in steps of the coarse level at full resolution. Dearer steps are fewer.
        batch: Pictures per step, over all processes.
        seed: Every draw of step k depends on the seed and k only, so a resumed run repeats nothing.
        recipe: The method.
    """

    steps: int
    batch: int
    seed: int
    recipe: Recipe = HIERARCHICAL


@dataclass(frozen=True)
class StepLog:
    """What one step tells."""

    step: int
    level: str
    loss: float
    learning_rate: float
    seconds: float
    progress: float


@dataclass(frozen=True)
class Allotment:
    """What the probe found: gain in AUROC and share of the rest, for each level."""

    gain: dict[str, float]
    share: dict[str, float]


@dataclass
class Training:
    """State of a training that can be saved and resumed.

    Attributes:
        model: What is trained.
        optimizer: Its state.
        step: Steps done.
        spent: Multiply-accumulates spent.
        hardness: Running loss of each picture (N,), NaN where not shown yet; None before the first step.
        allotment: What the probe found, once it has run.
        scaling: State of the gradient scaler of fp16; empty in other precisions and before the first step.
        probing: Whether the probe is under way; a checkpoint has to wait until it is done.
    """

    model: Pretrained
    optimizer: torch.optim.Optimizer
    step: int = 0
    spent: float = 0.0
    hardness: Tensor | None = None
    allotment: Allotment | None = None
    scaling: dict[str, Any] = field(default_factory=dict)
    probing: bool = False

    @classmethod
    def start(cls, *, width: int, seed: int, device: torch.device, init: Path | None = None) -> Training:
        """A new training.

        Args:
            width: Width of the encoder.
            seed: Decides what is random.
            device: Where it happens.
            init: File of the encoder's initial weights; random ones without.

        Raises:
            ConfigError: The file cannot be used.
        """
        torch.manual_seed(seed)
        model = Pretrained(width)
        if init:
            load_initial_weights(model.encoder, init)
        model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        rate = PEAK_LEARNING_RATE
        return cls(model, torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=WEIGHT_DECAY))

    def tensors(self) -> dict[str, Tensor]:
        """Weights and the optimiser's moments by name, as they are at work."""
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.model.named_parameters()}
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for parameter, state in self.optimizer.state.items():
            tensors |= {f"optimizer.{k}.{names[parameter]}": v for k, v in state.items()}
        return tensors

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` gave, of the same model on whatever device."""
        model = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        self.model.load_state_dict(model)
        for name, parameter in self.model.named_parameters():
            if f"optimizer.step.{name}" in tensors:
                self.optimizer.state[parameter] = {
                    k: tensors[f"optimizer.{k}.{name}"].to(parameter.device if k != "step" else "cpu")
                    for k in ("step", "exp_avg", "exp_avg_sq")
                }

    def snapshot(self) -> dict[str, Tensor]:
        """Copies of what `tensors` gives."""
        return {name: tensor.detach().clone() for name, tensor in self.tensors().items()}

    @torch.no_grad()
    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        """Set what `tensors` gives to a snapshot."""
        for name, tensor in self.tensors().items():
            # The optimiser has no moments before its first step.
            tensor.copy_(snapshot[name]) if name in snapshot else tensor.zero_()


def learning_rate(progress: float, step: int) -> float:
    """Warm up, hold, and decay over the last third (warm-up-stable-decay; Hu et al., MiniCPM, 2024).

    With a cosine the last stage, which is the longest, would hardly learn.

    Args:
        progress: Share of the compute that is spent.
        step: Steps done.
    """
    warm = min(1.0, (step + 1) / 20)
    return PEAK_LEARNING_RATE * warm * min(1.0, max(0.0, 1 - progress) / 0.35 + 0.02)
