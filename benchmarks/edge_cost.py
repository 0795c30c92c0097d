"""What the model costs at the edge: operations, size, and images per second beside a PatchCore of usual shape.

    python -m benchmarks.edge_cost [--size 256] [--rounds 30] [--peer FILE.onnx]

Times do not depend on what the weights have learned, so the encoder is random and only the head is fitted, to
drawn parts. PatchCore is rebuilt here as anomalib exports it (ResNet18 layers 2 and 3, 384 channels at stride
8, bank of 2,048; Roth et al., CVPR 2022), because anomalib itself needs packages that kenpin does without.
Where it is installed, `--peer` takes what it exports:

    model = PatchcoreModel(["layer2", "layer3"], backbone="resnet18", pre_trained=False).eval()
    model.memory_bank = torch.randn(2048, 384)
    torch.onnx.export(model, (torch.rand(1, 3, 256, 256),), "FILE.onnx", dynamo=False)

All run in ONNX Runtime as a station opens a model, in turns, so that a busy machine hits them alike: one frame
at a time on both cores, as a station does, and two streams of frames with a core each, as two stations would.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import ModelProto, shape_inference
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.stamp import stamp
from kenpin.edge_runtime.engine_ort import session_options
from kenpin.export.onnx_model import to_onnx
from kenpin.export.placement import find_placement
from kenpin.export.quantize import quantize
from kenpin.export.range_methods import ranges_by
from kenpin.export.ranges import measure_reach
from kenpin.frame import Image
from kenpin.preprocess import to_input
from kenpin.synthetic import draw_part
from kenpin.train.encoder import Encoder, normalise
from kenpin.train.fit import fit_head
from kenpin.train.inspector import Inspector
from kenpin.train.model import Pretrained, settle_batch_norms

PATCHCORE_BANK = 2048
CORES = 2
# How long each model runs in a turn of the streams.
STREAM_SECONDS = 1.0


class PatchCore(nn.Module):
    """ResNet18 to layer 3, patches of both layers, distance to the nearest of a memory bank, blurred map."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.encoder = Encoder(64)
        self.side = side
        self.register_buffer("bank", torch.randn(384, PATCHCORE_BANK))
        self.register_buffer("blur", torch.ones(1, 1, 33, 1) / 33)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Frames uint8 (N, S, S, 3) -> score, the score thrice, map: the outputs of a kenpin model."""
        _, fine, coarse = self.encoder(normalise(frames.permute(0, 3, 1, 2).float() / 255))
        pooled = [functional.avg_pool2d(t, 3, 1, 1) for t in (fine, coarse)]
        size = pooled[0].shape[2:]
        wide = functional.interpolate(pooled[1], size=size, mode="bilinear", align_corners=False)
        patches = torch.cat([pooled[0], wide], 1).flatten(2).transpose(1, 2)
        squared = (patches**2).sum(2, keepdim=True) - 2 * patches @ self.bank + (self.bank**2).sum(0)
        near = squared.amin(2).clamp(min=0).sqrt().reshape(-1, 1, *size)
        large = functional.interpolate(near, size=(self.side, self.side), mode="bilinear", align_corners=False)
        blurred = functional.conv2d(large, self.blur, padding=(16, 0))
        blurred = functional.conv2d(blurred, self.blur.transpose(2, 3), padding=(0, 16))
        score = blurred.amax((1, 2, 3))
        return score, torch.stack([score] * 3, 1), blurred[:, 0]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--peer", type=Path, help="a model of one float picture (1, 3, S, S)")
    options = parser.parse_args()
    images = pictures(options.size)
    models = made(images, options.size)
    if options.peer:
        models[options.peer.stem] = onnx.load(options.peer)
    times = measure(models, images[:1], options.rounds)
    rates = measure_streams(models, images[:1], max(options.rounds // 10, 1))
    print(f"{stamp()}, {options.size} px\n")
    print("| model | GFLOP | MB | ms, minimum | ms, median | images/s, two streams |\n" + "|---" * 6 + "|")
    for name, model in models.items():
        ms = np.array(times[name]) * 1000
        cells = (2 * multiply_adds(model) / 1e9, model.ByteSize() / 1e6, ms.min(), np.median(ms))
        print(f"| {name} | {' | '.join(f'{c:.2f}' for c in cells)} | {np.median(rates[name]):.1f} |")


def pictures(side: int) -> Image:
    """Drawn good parts, BGR uint8 (48, side, side, 3)."""
    drawn = [draw_part("board", seed=1, index=i, defect_share=0).image for i in range(48)]
    return np.stack([to_input(image, height=side, width=side) for image in drawn])


def made(images: Image, side: int) -> dict[str, ModelProto]:
    """The models that are compared, by name."""
    fp = to_onnx(kenpin_model(images), shape=(side, side))
    placement = find_placement(fp)
    ranges = ranges_by("max_1.25", measure_reach(fp, placement.activations, images))
    return {
        "kenpin, float": fp,
        "kenpin, INT8": quantize(fp, placement, ranges),
        "PatchCore, float": to_onnx(PatchCore(side).eval(), shape=(side, side)),
    }


def kenpin_model(images: Image) -> Inspector:
    """The default model with random weights and a fitted head."""
    torch.manual_seed(0)
    pictures = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    trained = Pretrained()
    settle_batch_norms(trained.encoder, pictures[:32])
    head = fit_head(trained, pictures[:32], pictures[32:], seed=0)
    return Inspector(trained.encoder, head).eval()


def multiply_adds(model: ModelProto) -> float:
    """Multiply-accumulates of all convolutions and matrix products of a static graph."""
    graph = shape_inference.infer_shapes(model, strict_mode=True).graph
    shapes = {t.name: list(t.dims) for t in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        shapes[value.name] = [d.dim_value for d in value.type.tensor_type.shape.dim]
    total = 0.0
    for node in graph.node:
        if node.op_type == "Conv":
            total += np.prod(shapes[node.output[0]]) * np.prod(shapes[node.input[1]][1:])
        elif node.op_type in ("MatMul", "Gemm"):
            total += np.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    return float(total)


def measure(models: dict[str, ModelProto], frame: Image, rounds: int) -> dict[str, list[float]]:
    """Seconds of single frames, all models in turns."""
    runs = {name: _opened(name, model, frame, threads=CORES) for name, model in models.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for number in range(rounds + 3):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if number >= 3:
                times[name].append(time.perf_counter() - started)
    return times


def measure_streams(models: dict[str, ModelProto], frame: Image, rounds: int) -> dict[str, list[float]]:
    """Images per second of a stream on each core, all models in turns."""
    streams = {
        name: [_opened(name, model, frame, threads=1) for _ in range(CORES)] for name, model in models.items()
    }
    rates: dict[str, list[float]] = {name: [] for name in models}
    with ThreadPoolExecutor(CORES) as pool:
        for _ in range(rounds):
            for name, runs in streams.items():
                rates[name].append(sum(pool.map(_rate, runs)))
    return rates


def _rate(run: Callable[[], object]) -> float:
    """Runs per second."""
    run()
    started, count = time.perf_counter(), 0
    while time.perf_counter() < started + STREAM_SECONDS:
        run()
        count += 1
    return count / (time.perf_counter() - started)


def _opened(name: str, model: ModelProto, frame: Image, *, threads: int) -> Callable[[], object]:
    """The model as a station opens it, to be run on the frame."""
    options = session_options("int8" if "INT8" in name else "fp32")
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    wanted = session.get_inputs()[0]
    pixels = frame.transpose(0, 3, 1, 2).astype(np.float32) / 255
    seen = frame if wanted.type == "tensor(uint8)" else pixels
    return lambda: session.run(None, {wanted.name: seen})


if __name__ == "__main__":
    main()
