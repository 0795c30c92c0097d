"""The way of frames of one size into the engine: page-locked memory -> device -> model's size -> engine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kenpin.errors import EngineError
from kenpin.frame import Image
from kenpin.preprocess import to_input

if TYPE_CHECKING:
    # These import pycuda, which is on a Jetson only.
    from kenpin.edge_runtime.cuda_graph import Graph
    from kenpin.edge_runtime.cuda_memory import Buffer
    from kenpin.edge_runtime.cuda_stream import Stream
    from kenpin.edge_runtime.device import Device
    from kenpin.edge_runtime.frame_kernel import FrameKernel

# On x86 the kernel is one grey level off at most; OpenCV has code of its own for ARM, which nobody compared.
_ALIKE, _ALIKE_SHARE = 2, 0.999
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Intake:
    """Where frames of all sizes go.

    Attributes:
        device: The GPU.
        stream: Where everything is enqueued.
        target: The engine's input.
        input_size: Height and width of the model's input.
        run_engine: Enqueues the engine and what follows.
    """

    device: Device
    stream: Stream
    target: Buffer
    input_size: tuple[int, int]
    run_engine: Callable[[], None]


class Lane:
    """Takes its memory once. The first frame is enqueued step by step, the later ones as one CUDA graph.

    Args:
        intake: Where its frames go; the device is current.
        size: Height and width of its frames.

    Attributes:
        frame: Where a frame is put before `launch`.
    """

    def __init__(self, intake: Intake, size: tuple[int, int]) -> None:
        self._intake = intake
        self._graph: Graph | None = None
        self._launches = 0
        self._kernel: FrameKernel | None = None
        self._source: Buffer | None = None
        self._proven = size == intake.input_size
        self.frame = intake.device.pinned((*size, 3), np.uint8)
        if size == intake.input_size:
            return
        try:
            # An integrated GPU reads the frame where it is.
            self._source = None if self.frame.pointer else intake.device.buffer(self.frame.array.nbytes)
            self._kernel = _kernel(intake, size)
        except EngineError:
            # The next frame tries again: what is kept here each time would use up the memory.
            self.frame.free()
            if self._source is not None:
                self._source.free()
            raise

    def launch(self) -> None:
        """Enqueue the frame that is in `frame`.

        TensorRT and the kernel set themselves up in their first run, so that one cannot be recorded.
        """
        device, stream = self._intake.device, self._intake.stream
        if self._launches == 1:
            self._graph = device.record_graph(stream, self._enqueue)
            if self._graph is None:
                _log.warning("No CUDA graph, so a frame takes longer: %s", device.no_graph_because)
        if self._graph is None:
            self._enqueue()
        else:
            self._graph.launch(stream)
        # One that failed has set up nothing.
        self._launches += 1

    def prove(self, image: Image) -> None:
        """Once, after the stream has done its work: see that the GPU brought a frame to the model's size.

        Golden frames have that size. Nothing else proves the kernel as this driver compiled it, and that the
        GPU sees what the processor wrote.

        Args:
            image: What was in `frame`.

        Raises:
            EngineError: It is not what the processor makes of it.
        """
        if self._proven:
            return
        intake, (height, width) = self._intake, self._intake.input_size
        made = intake.device.pinned((height, width, 3), np.uint8)
        try:
            intake.device.download(made, intake.target, intake.stream)
            intake.stream.synchronize()
            apart = np.abs(made.array.astype(np.int16) - to_input(image, height=height, width=width))
        finally:
            made.free()
        same = float((apart <= _ALIKE).mean())
        if same < _ALIKE_SHARE:
            raise EngineError(
                f"the GPU brings a frame of {image.shape[1]} x {image.shape[0]} pixels to the model's size "
                f"otherwise than the processor: {100 * (1 - same):.3g} % of the values differ",
                cure="report it with the versions of JetPack and driver; without pycuda (pip uninstall pycuda) "
                "the station runs on ONNX Runtime",
            )
        self._proven = True

    def _enqueue(self) -> None:
        intake = self._intake
        if self._kernel is None:
            intake.device.upload(intake.target, self.frame, intake.stream)
        else:
            pointer = self.frame.pointer
            if self._source is not None:
                intake.device.upload(self._source, self.frame, intake.stream)
                pointer = self._source.pointer
            self._kernel.enqueue(pointer, intake.target.pointer, intake.stream)
        intake.run_engine()


def _kernel(intake: Intake, size: tuple[int, int]) -> FrameKernel:
    from kenpin.edge_runtime.frame_kernel import FrameKernel  # noqa: PLC0415 - only where there is a GPU

    return FrameKernel(intake.device, camera_size=size, input_size=intake.input_size)
