"""What is trained: the encoder, and at each tap a projection for the contrast and a defect map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kenpin.train.encoder import Encoder, normalise

# Pictures at a time, at most, while batch norms settle.
BATCH = 20


class Pretrained(nn.Module):
    """Encoder with projections and discriminators at strides 8 and 16.

    Args:
        width: Width of the encoder.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.encoder = Encoder(width)
        taps = self.encoder.channels[1:]
        self.projections = nn.ModuleList(_projection(channels) for channels in taps)
        self.discriminators = nn.ModuleList(discriminator(channels) for channels in taps)

    @property
    def early(self) -> tuple[nn.Module, ...]:
        """Stem and first stage: edges and blobs, which are learned first."""
        return self.encoder.conv1, self.encoder.bn1, self.encoder.layer1


def discriminator(channels: int) -> nn.Sequential:
    """1x1 convolutions from features to the logit of "this place has a defect"."""
    return nn.Sequential(
        nn.Conv2d(channels, 64, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 1, 1)
    )


def _projection(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 64))


@torch.no_grad()
def settle_batch_norms(encoder: Encoder, pictures: Tensor) -> None:
    """Re-estimate batch norm statistics on clean, whole good pictures: that is what the station shows.

    Args:
        encoder: Changed in place; left in evaluation mode.
        pictures: BGR uint8 (N, 3, S, S).
    """
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    encoder.train()
    # The statistics are the mean over batches, so these are alike in size: of 21 pictures the last one would
    # otherwise count as much as the first twenty.
    for some in pictures.tensor_split(-(-len(pictures) // BATCH)):
        encoder(normalise(some.float() / 255))
    for norm in norms:
        norm.momentum = 0.1
    encoder.eval()
