"""From a frame to the model's input on the device: the numbers of `kenpin.preprocess.to_input`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kenpin.edge_runtime.cuda_stream import Stream
from kenpin.edge_runtime.device import Device
from kenpin.errors import EngineError

_SOURCE = Path(__file__).with_name("to_input.cu")
_BLOCK = (32, 8, 1)
_CHANNELS = 3
# The kernel multiplies positions of both sizes in 32 bit.
_MOST_PIXELS = 16384


class FrameKernel:
    """Brings frames of one size to the model's input.

    Args:
        device: Where it runs.
        camera_size: Height and width of the frames in pixels.
        input_size: Height and width of the model's input in pixels.

    Raises:
        EngineError: A size that cannot be, or a kernel that does not load.
    """

    def __init__(self, device: Device, *, camera_size: tuple[int, int], input_size: tuple[int, int]) -> None:
        if not all(0 < side <= _MOST_PIXELS for side in (*camera_size, *input_size)):
            raise EngineError(
                f"cannot bring frames of {camera_size} to {input_size} pixels",
                where=f"height and width must be 1 to {_MOST_PIXELS}",
                cure="check the camera's size",
            )
        height, width = camera_size
        self._kernel = device.kernel(_SOURCE, "to_input")
        self._source = (np.int64(width * _CHANNELS), np.int32(width), np.int32(height))
        self._target = (np.int32(input_size[1]), np.int32(input_size[0]))
        self._grid = (-(-input_size[1] // _BLOCK[0]), -(-input_size[0] // _BLOCK[1]), 1)

    def enqueue(self, source_pointer: int, target_pointer: int, stream: Stream) -> None:
        """Enqueue the work of one frame.

        Args:
            source_pointer: Where the device finds the frame, BGR uint8 (H, W, 3): a buffer, or mapped memory.
            target_pointer: Where it puts the model's input, BGR uint8 (h, w, 3).
            stream: In which order.

        Raises:
            EngineError: A pointer is none, or the launch failed.
        """
        if not source_pointer or not target_pointer:
            raise EngineError(
                "the frame or its target is not on the device", cure="it was freed, or is not mapped"
            )
        source, target = np.uint64(source_pointer), np.uint64(target_pointer)
        self._kernel(stream, self._grid, _BLOCK, source, *self._source, target, *self._target)
