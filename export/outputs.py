"""What a model says about pictures, by torch or by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto
from torch import nn

from kenpin.frame import Image
from kenpin.precision import INPUT, OUTPUTS

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Outputs:
    """Outputs for N pictures.

    Attributes:
        score: (N,)
        level_scores: (N, 3) in the order coarse, mid, fine.
        anomaly_map: (N, h, w)
    """

    score: Floats
    level_scores: Floats
    anomaly_map: Floats

    def __getitem__(self, which: slice | Sequence[int]) -> Outputs:
        """The outputs of some of the pictures."""
        return Outputs(self.score[which], self.level_scores[which], self.anomaly_map[which])


@dataclass(frozen=True)
class Models:
    """The two models of a bundle.

    Attributes:
        fp: Float: `model_fp.onnx`.
        int8: What becomes `model.onnx`: INT8, INT8 and fp16, or the float model again.
        half: Whether the latter has fp16 in it. ONNX Runtime garbles such a graph when it may optimise it.
    """

    fp: ModelProto
    int8: ModelProto
    half: bool = False


class Fusion(Enum):
    """How far ONNX Runtime may rewrite a graph.

    NONE runs every Q/DQ as written: the faithful simulation of INT8. BASIC folds constants and is what a
    station uses for INT8. FULL is for the float model only: on CPUs without VNNI it moves INT8 to kernels that
    saturate 16-bit sums, and the scores change far beyond rounding.
    """

    NONE = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    BASIC = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    FULL = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL


def open_session(model: ModelProto, fusion: Fusion, *, threads: int = 0) -> onnxruntime.InferenceSession:
    """A session on the CPU; `threads` 0 = one per core."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = fusion.value
    options.intra_op_num_threads = threads
    # Threads that spin between pictures take the time of whatever else this machine does.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_tensors(
    model: ModelProto, names: Sequence[str], images: Image, *, fusion: Fusion
) -> Iterator[list[Floats]]:
    """Any tensors of a graph, by name, one picture after the other.

    Args:
        model: The model.
        names: Tensors, outputs of the graph or not.
        images: BGR uint8 (N, H, W, 3) at model resolution.
        fusion: How far the graph may be rewritten.
    """
    probed = ModelProto()
    probed.CopyFrom(model)
    known = {output.name for output in model.graph.output}
    probed.graph.output.extend(ValueInfoProto(name=name) for name in names if name not in known)
    session = open_session(probed, fusion)
    for image in images:
        yield session.run(list(names), {INPUT: image[None]})


def run_onnx(
    model: ModelProto,
    images: Image,
    *,
    fusion: Fusion,
    threads: int = 0,
    advance: Callable[[], object] = lambda: None,
) -> Outputs:
    """Score pictures with ONNX Runtime, one at a time as a station does.

    Args:
        model: The model.
        images: BGR uint8 (N, H, W, 3) at model resolution.
        fusion: How far the graph may be rewritten.
        threads: 0 = one per core.
        advance: Called after each picture.
    """
    session = open_session(model, fusion, threads=threads)

    def each() -> Iterator[list[Floats]]:
        for image in images:
            yield session.run(list(OUTPUTS), {INPUT: image[None]})
            advance()

    return _gather(each())


@torch.no_grad()
def run_torch(inspector: nn.Module, images: Image, *, advance: Callable[[], object] = lambda: None) -> Outputs:
    """Score pictures with the torch model.

    Args:
        inspector: In evaluation mode, on the CPU.
        images: BGR uint8 (N, H, W, 3) at model resolution.
        advance: Called after each picture.
    """

    def each() -> Iterator[list[Floats]]:
        for image in images:
            yield [output.numpy() for output in inspector(torch.from_numpy(image[None]))]
            advance()

    return _gather(each())


def _gather(each: Iterator[list[Floats]]) -> Outputs:
    score, level_scores, anomaly_map = zip(*each, strict=True)
    return Outputs(np.concatenate(score), np.concatenate(level_scores), np.concatenate(anomaly_map))
