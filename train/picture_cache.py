"""Pictures at model resolution in memory, as many as a limit allows; the others are read when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from kenpin.pictures import Picture
from kenpin.train.data import load_pictures

# OpenCV decodes outside Python's lock. Few, because each thread holds one picture at camera resolution.
THREADS = 4


class PictureCache:
    """Pictures by number, held in memory as far as they fit.

    If all fit they are held on the device; otherwise the first ones are held in the computer's memory and the
    others are read from disk each time.

    Args:
        pictures: The picture files.
        side: Side of the model's input, pixels.
        limit_bytes: Most memory for what is held. A batch, and pictures being decoded, come on top.
        device: Where batches are wanted.

    Raises:
        DataError: A picture cannot be read; it is named.
    """

    def __init__(
        self, *, pictures: Sequence[Picture], side: int, limit_bytes: int, device: torch.device
    ) -> None:
        room = limit_bytes // (3 * side * side)
        self._device = device
        self._not_held = tuple(pictures[room:])
        self._held = _read(pictures[:room], _empty(len(pictures[:room]), side))
        if not self._not_held:
            self._held = self._held.to(device)

    @classmethod
    def of(cls, images: Tensor) -> PictureCache:
        """A cache that holds images loaded already, BGR uint8 (N, 3, S, S), where they are."""
        cache = cls(pictures=(), side=images.shape[-1], limit_bytes=0, device=images.device)
        cache._held = images
        return cache

    def __len__(self) -> int:
        return len(self._held) + len(self._not_held)

    @property
    def side(self) -> int:
        """Side of the pictures, pixels."""
        return int(self._held.shape[-1])

    def batch(self, indices: Tensor) -> Tensor:
        """Pictures by number.

        Args:
            indices: (N,) integers from 0 to the number of pictures less one, on any device.

        Returns:
            BGR uint8 (N, 3, side, side) on the device.

        Raises:
            DataError: A picture cannot be read; it is named.
        """
        if not self._not_held:
            return self._held[indices.to(self._device)]
        numbers = indices.cpu()
        is_held = numbers < len(self._held)
        missing = [self._not_held[number - len(self._held)] for number in numbers[~is_held].tolist()]
        # Pinned memory is copied to a GPU while the computer goes on.
        images = _empty(len(numbers), self._held.shape[-1], pinned=self._device.type == "cuda")
        images[is_held] = self._held[numbers[is_held]]
        images[~is_held] = _read(missing, _empty(len(missing), self._held.shape[-1]))
        return images.to(self._device, non_blocking=True)


def _empty(count: int, side: int, *, pinned: bool = False) -> Tensor:
    return torch.empty((count, 3, side, side), dtype=torch.uint8, pin_memory=pinned)


def _read(pictures: Sequence[Picture], images: Tensor) -> Tensor:
    """Read pictures into `images` (N, 3, side, side), without a second copy of them all."""

    def read(row: int) -> None:
        images[row] = load_pictures([pictures[row]], side=images.shape[-1])[0]

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(read, range(len(pictures))))
    return images
