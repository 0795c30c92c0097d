"""The inspector: the whole model as it is exported, from camera bytes to scores."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from kenpin.errors import TrainError
from kenpin.strips import OVERLAP, Strips
from kenpin.train.encoder import Encoder, normalise
from kenpin.train.fold import fold, unfold
from kenpin.train.head import AnomalyHead, HeadShape
from kenpin.train.model import discriminator


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
            frames: BGR uint8 (N, H, W, 3) at model resolution, whose strips fill the head's square (`Strips`).

        Returns:
            score (N,), level_scores (N, 3) in the order coarse, mid, fine, anomaly_map (N, H/4, W/4);
            raw and unclamped.
        """
        pictures = fold(frames.permute(0, 3, 1, 2)).float() / 255
        taps = self.encoder(normalise(pictures))
        strips = Strips.of_shape(*frames.shape[1:3])
        score, level_scores, anomaly_map = self.head(pictures, taps)
        return score, level_scores, unfold(anomaly_map, strips, overlap=OVERLAP // 4)


def inspector_of(encoder: bytes, head: bytes, *, where: Path) -> Inspector:
    """A finished model from the content of its two files, on the CPU, in evaluation mode.

    Args:
        encoder: Content of `encoder.safetensors`.
        head: Content of `head.safetensors`.
        where: Run or bundle, to name in an error.

    Raises:
        TrainError: One of them is damaged, or they do not fit each other.
    """
    of_encoder = _parse(encoder, where / "encoder.safetensors")
    of_head = _parse(head, where / "head.safetensors")
    try:
        built = Encoder(len(of_encoder["conv1.weight"]))
        taps = nn.ModuleList(discriminator(channels) for channels in built.channels[1:])
        shape = HeadShape(4 * of_head["offset"].shape[-1], built.channels, len(of_head["bank8.squares"]))
        inspector = Inspector(built, AnomalyHead(shape, taps))
        inspector.encoder.load_state_dict(of_encoder)
        inspector.head.load_state_dict(of_head)
    except (KeyError, RuntimeError) as error:
        # Of torch's lines the first one says that there are errors, the second one which.
        why = str(error).splitlines()[:2][-1].strip()
        raise TrainError(
            f"the weights do not make a model of this version of kenpin: {why}",
            where=where,
            cure="train again",
        ) from None
    return inspector.eval()


def _parse(content: bytes, where: Path) -> dict[str, Tensor]:
    try:
        return load(content)
    except SafetensorError as error:
        raise TrainError(f"cannot read: {error}", where=where, cure="train again") from None
