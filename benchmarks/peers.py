"""PaDiM and PatchCore from random weights, on the pictures of `kenpin bench train`.

    python -m benchmarks.peers SET [SET…] [--size 256] [--seeds 3]

A set is a folder of real parts, MVTec style, or a drawn product. Both are rebuilt here after their papers and
with the choices of anomalib 2.7 (ResNet18, 256 px), because anomalib itself needs packages that kenpin does
without. Neither is trained: what differs between seeds is the encoder and, for PaDiM, the channels.
They learn from all good pictures, those that kenpin holds back included.

Each with batch norms as they are in a new network, which is what anomalib runs without pretrained weights, and
with those of the good pictures.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.stamp import stamp
from kenpin.train.bank import k_centres
from kenpin.train.bench_set import BenchSet, read_set
from kenpin.train.encoder import Encoder
from kenpin.train.metrics import Floats, auroc

WIDTH = 64  # resnet18
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which both peers normalise by
BATCH = 16
CHANNELS = 100  # of PaDiM
REGULAR = 0.01
BLUR_PX = 4.0  # of the map, both
BANK = 2048  # of PatchCore
NEIGHBOURS = 9


@dataclass(frozen=True)
class Found:
    """What one peer finds in the test pictures.

    Attributes:
        scores: One per picture, (T,).
        maps: At a quarter of the side, (T, S/4, S/4).
    """

    scores: Floats
    maps: Floats


def padim(encoder: Encoder, data: BenchSet, *, seed: int) -> Found:
    """A Gaussian at each place of stride 4, Mahalanobis distance to it (Defard et al., ICPR 2021)."""
    total = sum(encoder.channels)
    some = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:CHANNELS]
    places = (data.test.shape[-1] // 4) ** 2
    count, mean, square = 0, torch.zeros(places, CHANNELS), torch.zeros(places, CHANNELS, CHANNELS)
    for features in _padim_features(encoder, _good(data), some):
        count += len(features)
        mean += features.sum(0)
        square += torch.einsum("npc,npd->pcd", features, features)
    mean /= count
    covariance = (square - count * torch.einsum("pc,pd->pcd", mean, mean)) / (count - 1)
    inverse = torch.linalg.inv(covariance + REGULAR * torch.eye(CHANNELS))
    distances = []
    for features in _padim_features(encoder, data.test, some):
        away = features - mean
        distances.append(torch.einsum("npc,pcd,npd->np", away, inverse, away).clamp(min=0).sqrt())
    maps = _smoothed(torch.cat(distances), side=data.test.shape[-1])
    return Found(maps.max((1, 2)), _quarter(maps))


def patchcore(encoder: Encoder, data: BenchSet, *, seed: int) -> Found:
    """Distance of each place of stride 8 to a memory bank (Roth et al., CVPR 2022, with equation 7)."""
    known = torch.cat(list(_patchcore_features(encoder, _good(data)))).flatten(0, 1)
    torch.manual_seed(seed)
    bank = known[k_centres(known, BANK)]
    distances, scores = [], []
    for features in _patchcore_features(encoder, data.test):
        away = torch.cdist(features, bank[None].expand(len(features), -1, -1))
        nearest, which = away.min(2)
        distances.append(nearest)
        worst = nearest.argmax(1)
        for row, place in enumerate(worst.tolist()):
            member = bank[which[row, place]]
            around = bank[torch.cdist(member[None], bank)[0].topk(NEIGHBOURS, largest=False).indices]
            to_them = torch.linalg.vector_norm(features[row, place] - around, dim=1)
            weight = 1 - torch.softmax(to_them, 0)[0]
            scores.append(float(weight * nearest[row, place]))
    maps = _smoothed(torch.cat(distances), side=data.test.shape[-1])
    return Found(np.array(scores), _quarter(maps))


PEERS = {"PaDiM": padim, "PatchCore": patchcore}


def _good(data: BenchSet) -> Tensor:
    return torch.cat([data.fit, data.held_back])


@torch.no_grad()
def _taps(encoder: Encoder, pictures: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    for some in pictures.split(BATCH):
        rgb = some.flip(1).float() / 255
        yield encoder((rgb - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(SPREAD).view(3, 1, 1))


def settle(encoder: Encoder, pictures: Tensor) -> None:
    """Give the batch norms the statistics of pictures."""
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean over all batches
    encoder.train()
    for _ in _taps(encoder, pictures):
        pass
    encoder.eval()


def _padim_features(encoder: Encoder, pictures: Tensor, channels: Tensor) -> Iterator[Tensor]:
    """(N, places, CHANNELS) at stride 4."""
    for first, *others in _taps(encoder, pictures):
        wide = [first, *(functional.interpolate(t, size=first.shape[2:]) for t in others)]
        yield torch.cat(wide, 1)[:, channels].flatten(2).transpose(1, 2)


def _patchcore_features(encoder: Encoder, pictures: Tensor) -> Iterator[Tensor]:
    """(N, places, channels) at stride 8, each the mean of 3 x 3 places."""
    for _, fine, coarse in _taps(encoder, pictures):
        pooled = [functional.avg_pool2d(t, 3, 1, 1) for t in (fine, coarse)]
        wide = functional.interpolate(pooled[1], size=fine.shape[2:], mode="bilinear", align_corners=False)
        yield torch.cat([pooled[0], wide], 1).flatten(2).transpose(1, 2)


def _smoothed(distances: Tensor, *, side: int) -> Floats:
    """Maps (T, side, side) of distances (T, places)."""
    edge = round(distances.shape[1] ** 0.5)
    large = functional.interpolate(
        distances.view(-1, 1, edge, edge), size=(side, side), mode="bilinear", align_corners=False
    )
    return np.stack([cv2.GaussianBlur(one, (0, 0), BLUR_PX) for one in large[:, 0].numpy()])


def _quarter(maps: Floats) -> Floats:
    edge = maps.shape[1] // 4
    return np.stack([cv2.resize(one, (edge, edge), interpolation=cv2.INTER_AREA) for one in maps])


def row(data: BenchSet, name: str, *, settled: bool, seeds: int) -> str:
    """One line of the table."""
    aurocs, pixels = [], []
    for seed in range(seeds):
        torch.manual_seed(seed)
        encoder = Encoder(WIDTH).eval()
        if settled:
            settle(encoder, _good(data))
        found = PEERS[name](encoder, data, seed=seed)
        aurocs.append(auroc(found.scores, data.bad))
        pixels.append(data.pixel_figures(found.maps)[1:])
    spread = f"{np.mean(aurocs):.3f} ({min(aurocs):.3f} .. {max(aurocs):.3f})"
    pro = "no masks" if data.masks is None else " / ".join(f"{v:.3f}" for v in np.mean(pixels, 0))
    return f"| {data.name} | {name} | {'of the good pictures' if settled else 'new'} | {spread} | {pro} |"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    setting = f"{options.size} px, {options.seeds} seeds"
    print(f"{stamp()}, {setting}\n")
    print(f"| set | peer | batch norms | image AUROC (lowest .. highest) | AUPRO 30 % / 5 % |\n{'|---' * 5}|")
    for name in options.sets:
        data = read_set(name, side=options.size)
        for peer in PEERS:
            for settled in (False, True):
                print(row(data, peer, settled=settled, seeds=options.seeds), flush=True)


if __name__ == "__main__":
    main()
