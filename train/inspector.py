"""The inspector: the whole model as it is exported, from camera bytes to scores."""

from __future__ import annotations

from torch import Tensor, nn

from kenpin.train.encoder import Encoder, normalise
from kenpin.train.head import AnomalyHead


class Inspector(nn.Module):
    """Encoder and anomaly head behind the input of the model graph.

    Args:
        encoder: The trained encoder.
        head: The fitted head.
    """

    def __init__(self, encoder: Encoder, head: AnomalyHead) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score frames.

        Args:
            frames: BGR uint8 (N, S, S, 3) at model resolution.

        Returns:
            score (N,), level_scores (N, 3) in the order coarse, mid, fine, anomaly_map (N, S/4, S/4);
            raw and unclamped.
        """
        pictures = frames.permute(0, 3, 1, 2).float() / 255
        taps = self.encoder(normalise(pictures))
        scores: tuple[Tensor, Tensor, Tensor] = self.head(pictures, taps)
        return scores
