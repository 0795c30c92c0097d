"""What the engine adds to ONNX Runtime: kenpin's engine beside a bare session, frame by frame in turns.

    python -m benchmarks.engine_overhead [--run RUN] [--frames 300]

Without --run a model with random weights is made (224 px): speed does not depend on weights.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.stamp import stamp
from kenpin.edge_runtime.engine_bench import WARM_UP, random_frame
from kenpin.edge_runtime.engine_ort import OrtEngine, session_options
from kenpin.export.onnx_model import to_onnx
from kenpin.frame import Image
from kenpin.precision import INPUT, OUTPUTS
from kenpin.train.encoder import Encoder
from kenpin.train.head import AnomalyHead, HeadShape
from kenpin.train.inspector import Inspector
from kenpin.train.model import Pretrained
from kenpin.train.run import RunFolder, load_inspector

SIZE = 224


def main() -> None:
    """Print milliseconds and the ratio, for the float model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--frames", type=int, default=300)
    options = parser.parse_args()
    side = RunFolder(options.run).config.size if options.run else SIZE
    model = to_onnx(
        load_inspector(options.run) if options.run else _random(side), shape=(side, side)
    ).SerializeToString()
    bare, engine = _times(model, random_frame((side, side)), options.frames)
    print(f"{stamp()}, float, {side} px\n")
    print("| | ms, median | ms, minimum |\n|---|---|---|")
    for name, seconds in (("bare onnxruntime", bare), ("kenpin's engine", engine)):
        print(f"| {name} | {1000 * np.median(seconds):.2f} | {1000 * min(seconds):.2f} |")
    print(
        f"\nimages/s of the engine relative to bare, by the median: {np.median(bare) / np.median(engine):.3f}"
    )


def _random(side: int) -> Inspector:
    model, encoder = Pretrained(32), Encoder(32)
    return Inspector(encoder, AnomalyHead(HeadShape(side, encoder.channels), model.discriminators)).eval()


def _times(model: bytes, frame: Image, frames: int) -> tuple[list[float], list[float]]:
    session = onnxruntime.InferenceSession(model, session_options("fp32"), providers=["CPUExecutionProvider"])
    engine = OrtEngine(model, "fp32")
    bare, ours = [], []
    for number in range(WARM_UP + frames):
        started = time.perf_counter()
        session.run(list(OUTPUTS), {INPUT: frame[None]})
        between = time.perf_counter()
        engine.score(frame)
        if number >= WARM_UP:
            bare.append(between - started)
            ours.append(time.perf_counter() - between)
    return bare, ours


if __name__ == "__main__":
    main()
