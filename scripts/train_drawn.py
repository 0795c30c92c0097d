"""Train weights on drawn pictures only, for a training to start from.

    python -m scripts.train_drawn drawn.safetensors
    kenpin train --good DIR --run RUN --init drawn.safetensors

The method is that of `kenpin train`. What it is worth: docs/training-tried.md.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np
import torch
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor

from kenpin.train.device import open_fabric
from kenpin.train.encoder import Encoder
from kenpin.train.init import FIRST
from kenpin.train.picture_cache import PictureCache
from kenpin.train.pretrain import Trainer
from kenpin.train.training import Schedule, StepLog, Training
from scripts.drawn_pictures import draw

SIDE = 128
BATCH = 24


def draw_pictures(count: int, *, seed: int) -> Tensor:
    """Drawn pictures, BGR uint8 (count, 3, SIDE, SIDE)."""
    r = np.random.default_rng(seed)
    pictures = np.empty((count, SIDE, SIDE, 3), np.uint8)
    for number in track(range(count), "draw pictures"):
        pictures[number] = draw(r, SIDE)
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


def train(pictures: Tensor, *, steps: int, seed: int, device: str, width: int = 32) -> Encoder:
    """An encoder trained on drawn pictures (N, 3, SIDE, SIDE)."""
    fabric = open_fabric(device, precision="fp32")
    training = Training.start(width=width, seed=seed, device=fabric.device)
    started = time.monotonic()

    def told(log: StepLog) -> None:
        if log.step % 100 == 0:
            passed = time.monotonic() - started
            click.echo(f"{log.progress:4.0%}  {passed:5.0f} s  loss {log.loss:.3f} ({log.level})")

    cache = PictureCache.of(pictures.to(fabric.device))
    Trainer(training, cache, Schedule(steps, BATCH, seed), fabric, told).run()
    return training.model.encoder.cpu()


def save(encoder: Encoder, path: Path) -> None:
    """Write the encoder's weights as `--init` reads them: of RGB pictures, and here in half precision."""
    weights = {k: v.half().contiguous() for k, v in encoder.state_dict().items() if v.is_floating_point()}
    weights[FIRST] = weights[FIRST].flip(1).contiguous()
    save_file(weights, path)


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--pictures", type=click.IntRange(1), default=8000, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=1500, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
def main(out: Path, *, pictures: int, steps: int, seed: int, device: str) -> None:
    """Train weights on drawn pictures only, for `kenpin train --init OUT`."""
    drawn = draw_pictures(pictures, seed=seed)
    save(train(drawn, steps=steps, seed=seed, device=device), out)


if __name__ == "__main__":
    main()
