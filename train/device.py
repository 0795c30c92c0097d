"""Where training runs: one CPU or GPU, or one process per GPU under torchrun."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import torch

from kenpin.errors import ConfigError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PRECISIONS = ("fp32", "bf16", "fp16")
_FABRIC_NAMES: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def open_fabric(device: str, *, precision: str) -> Fabric:
    """Device, precision and processes.

    Under torchrun (`torchrun --nproc-per-node=4 -m -- kenpin train …`) every process takes one device, and all
    train as one. Without `--` torchrun would take --run for one of its own options.

    Args:
        device: auto, cpu or cuda.
        precision: Of the products. With the usual batch a large GPU waits for Python, and halves are slower
            there (docs/gpu-checks.md).

    Raises:
        ConfigError: cuda is asked for and not there.
    """
    # Importing it takes seconds, and `kenpin evaluate` does not need it.
    from lightning_fabric import Fabric  # noqa: PLC0415
    from lightning_fabric.strategies.ddp import DDPStrategy  # noqa: PLC0415

    # Its advice on tensor cores and precision would stand in the middle of our progress.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no CUDA device is available", cure="use --device cpu, or install the driver")
    accelerator = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    # Frozen layers and levels that use no discriminator leave parameters without a gradient.
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    strategy = DDPStrategy(find_unused_parameters=True) if several else "auto"
    fabric = Fabric(
        accelerator=accelerator,
        devices=processes,
        num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", "1")),
        strategy=strategy,
        precision=_FABRIC_NAMES[precision],
    )
    fabric.launch()
    return fabric
