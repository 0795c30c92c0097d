"""The engine on TensorRT: one stream, all memory taken once, and nothing taken per frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from kenpin.bundle import Bundle
from kenpin.config import MOST_CAMERAS
from kenpin.edge_runtime.engine import Runtime, Scored
from kenpin.edge_runtime.lane import Intake, Lane
from kenpin.engine_passport import Target
from kenpin.errors import DeviceLost, EngineError
from kenpin.frame import Image
from kenpin.precision import INPUT, OUTPUTS, Precision
from kenpin.preprocess import check_frame
from kenpin.sight import Sight
from kenpin.tensorrt_seam import (
    Tensor,
    check_tensors,
    failure,
    load_tensorrt,
    plain_errors,
    shared_log,
)

if TYPE_CHECKING:
    # pycuda is on a Jetson only.
    from kenpin.edge_runtime.device import Device


def target_of(bundle: Bundle, precision: Precision, device: Device) -> Target:
    """What an engine for this bundle must have been built for, here and now.

    Raises:
        EngineError: TensorRT is missing or too old.
    """
    version = str(load_tensorrt().__version__)
    capability = "{}.{}".format(*device.compute_capability)
    return Target(bundle.sha256, precision, version, device.name, capability, device.multiprocessors)


class TrtEngine:
    """A TensorRT engine with a batch of one. One thread at a time may use it.

    Frames of the model's size go to the engine as they are; the GPU brings those of other sizes to it. Each
    size keeps its memory, so there may only be so many: a station's cameras.

    Args:
        plan: The engine. It is native code: only what `unseal_engine` returned, or what was built just now.
        precision: Which of the bundle's models it was built from.
        device: The GPU; the engine closes it.
        sight: What of a camera frame it is to be shown.

    Attributes:
        device: The GPU.

    Raises:
        EngineError: TensorRT does not load it, or it is not a kenpin model.
    """

    runtime: Runtime = "tensorrt"

    def __init__(self, plan: bytes, precision: Precision, device: Device, sight: Sight | None = None) -> None:
        self.precision: Precision = precision
        self.sight = sight
        self.device = device
        self._trt = load_tensorrt()
        self._log = shared_log(self._trt)
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        try:
            with device.current(), plain_errors(self._log, "load the engine"):
                self._load(plan)
        except BaseException:
            self._let_go()
            raise

    def __enter__(self) -> TrtEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def score(self, image: Image) -> Scored:
        """Score one camera frame.

        Args:
            image: BGR uint8, shape (H, W, 3), of the model's or a camera's size.

        Raises:
            DataError: The frame is not BGR uint8 (H, W, 3).
            EngineError: There are frames of too many sizes, the GPU brings one to the model's size otherwise
                than the processor, the engine does not run, or gives a number that is not finite.
            DeviceLost: The GPU cannot be used any more by this process.
        """
        check_frame(image)
        with self.device.current():
            lane = self._lane(image.shape[0], image.shape[1])
            np.copyto(lane.frame.array, image)
            self._started.record(self._stream)
            self._launch(lane)
            self._ended.record(self._stream)
            self._stream.synchronize()
            lane.prove(image)
        return self._read()

    @property
    def gpu_ms(self) -> float:
        """How long the GPU worked on the last frame: copies, preprocessing and the model."""
        with self.device.current():
            return self._ended.elapsed_ms(self._started)

    def close(self) -> None:
        """Give back all memory and the device."""
        # After the GPU was lost nothing can be given back: the process ends, and that does it.
        with suppress(DeviceLost):
            self._let_go()
            self.device.close()

    def _load(self, plan: bytes) -> None:
        self._runtime = self._trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise failure(self._log, "load the engine")
        self.input_size = check_tensors(self._tensors())
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise failure(self._log, "make room for the engine")
        self._allocate()

    def _let_go(self) -> None:
        """TensorRT must let go of its memory while the device still is there."""
        if self._runtime is not None:
            with self.device.current():
                self._context = self._engine = self._runtime = None

    def _tensors(self) -> Iterator[Tensor]:
        engine = self._engine
        for number in range(engine.num_io_tensors):
            name = engine.get_tensor_name(number)
            is_input = engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT
            dtype, shape = engine.get_tensor_dtype(name).name, tuple(engine.get_tensor_shape(name))
            yield Tensor(name, dtype, shape, is_input)

    def _allocate(self) -> None:
        device, (height, width) = self.device, self.input_size
        self._stream, self._started, self._ended = device.stream(), device.event(), device.event()
        self._input = device.buffer(height * width * 3)
        self._results = {
            name: device.pinned(tuple(self._engine.get_tensor_shape(name)), np.float32) for name in OUTPUTS
        }
        self._outputs = {name: device.buffer(pinned.array.nbytes) for name, pinned in self._results.items()}
        for name, buffer in {INPUT: self._input, **self._outputs}.items():
            if not self._context.set_tensor_address(name, buffer.pointer):
                raise failure(self._log, f"use the memory for {name}")
        self._intake = Intake(device, self._stream, self._input, self.input_size, self._enqueue)
        self._lanes = {self.input_size: Lane(self._intake, self.input_size)}

    def _lane(self, height: int, width: int) -> Lane:
        size = (height, width)
        if size not in self._lanes:
            if len(self._lanes) > MOST_CAMERAS:  # one is of the model's size
                raise EngineError(
                    f"the frame has {width} x {height} pixels, and {MOST_CAMERAS} other sizes came before",
                    cure="let each camera keep its size; after a change on purpose restart the station",
                )
            self._lanes[size] = Lane(self._intake, size)
        return self._lanes[size]

    def _launch(self, lane: Lane) -> None:
        try:
            lane.launch()
        except EngineError:
            # TensorRT only says that it failed; where the device is lost, the stream tells.
            self._stream.synchronize()
            raise

    def _enqueue(self) -> None:
        with plain_errors(self._log, "run the engine"):
            if not self._context.execute_async_v3(self._stream.handle):
                raise failure(self._log, "run the engine")
        for name, buffer in self._outputs.items():
            self.device.download(self._results[name], buffer, self._stream)

    def _read(self) -> Scored:
        """The results, copied out of the memory that the next frame overwrites."""
        score, levels, anomaly_map = (self._results[name].array[0] for name in OUTPUTS)
        coarse, mid, fine = (float(value) for value in levels)
        scored = Scored(float(score), (coarse, mid, fine), anomaly_map.copy())
        if not scored.is_finite:
            raise EngineError(
                "the engine gave a number that is not finite",
                where=self.precision,
                cure="build it again with kenpin build-engine; if it stays, use another precision",
            )
        return scored
