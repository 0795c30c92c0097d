"""Show on a machine with an NVIDIA GPU what a CPU cannot show of a station's engine.

    python scripts/gpu_engine_checks.py

Prints a line of JSON for each check as soon as it is done, which scripts/gpu_checks.py takes into its table.
It trains a small model of drawn parts and goes the way of an installer with it, by kenpin's own commands:
export, install, build-engine, verify-engine, bench engine. Then, in this process, PyTorch's times for the same
model and TensorRT called bare.
Where there is TensorRT-RTX (the extra `rtx-check`) and no TensorRT, it takes TensorRT's place; where there is
neither, ONNX Runtime is what the station has. `--dry-run-on-cpu` walks the same ways in small without a GPU.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import click
import cv2
import numpy as np
import torch
from gpu_finding import Finding, attempt, tell
from torch import Tensor, nn

from kenpin.bundle import open_bundle
from kenpin.bundle_cli import trusted_keys
from kenpin.edge_runtime.engine_bench import random_frame
from kenpin.precision import Precision
from kenpin.station_folder import StationFolder
from kenpin.synthetic import draw_part
from kenpin.train.run import load_inspector

# What our way to the engine may cost: times what TensorRT takes when it is called bare.
OVERHEAD = 1.05
SEEDS = (0, 1, 2, 3)  # of the training, until the accuracy gate lets a model pass
# TensorRT-RTX counts its versions anew. A station asks for 10 or newer, and RTX has those interfaces.
RTX_AS_TENSORRT = """from tensorrt_rtx import *
import tensorrt_rtx
__version__ = "10.0.rtx." + tensorrt_rtx.__version__
"""


@dataclass(frozen=True)
class Plan:
    """How large everything is.

    Attributes:
        device: cuda or cpu.
        size: Side of the model's input, pixels.
        steps: Of the training.
        frames: Of what is timed.
        camera: Width x height of a frame.
        streams: Cameras at a time.
        limit_s: Of all of kenpin's commands together: a build may hang.
    """

    device: str = "cuda"
    size: int = 256
    steps: int = 40
    frames: int = 300
    camera: str = "1920x1080"
    streams: tuple[int, ...] = (2, 4)
    limit_s: float = 300.0


TINY = Plan("cpu", 64, 2, 10, "160x90", (2,))


class Workplace:
    """A run, a bundle and a station in one folder, made by kenpin's commands.

    Args:
        root: An empty folder.
        plan: How large everything is.
    """

    def __init__(self, root: Path, plan: Plan) -> None:
        self.root, self.plan = root, plan
        self.run, self.bundle, self.state = root / "run", root / "cap.kenpin", root / "station"
        self.trust = root / "key.pub"
        self.place = ("--state", self.state, "--trust", self.trust)
        self._environment = dict(os.environ)
        self._until_s = time.monotonic() + plan.limit_s

    def take_rtx(self) -> None:
        """Let TensorRT-RTX answer where a station looks for TensorRT."""
        stand_in = self.root / "rtx"
        stand_in.mkdir()
        (stand_in / "tensorrt.py").write_text(RTX_AS_TENSORRT)
        paths = (str(stand_in), os.environ.get("PYTHONPATH", ""))
        self._environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        sys.path.insert(0, str(stand_in))

    def kenpin(self, *words: object, may_fail: bool = False) -> tuple[str, float]:
        """Run a command.

        Args:
            words: The command.
            may_fail: Whether what it printed is of use also where it failed.

        Returns:
            What it printed, and how many seconds it took.

        Raises:
            RuntimeError: It failed, with what it said, or the time is over.
        """
        started = time.monotonic()
        command = [sys.executable, "-m", "kenpin", *map(str, words)]
        left_s = max(1.0, self._until_s - started)
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env=self._environment, timeout=left_s
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"kenpin {words[0]}: ended after {left_s:.0f} s, the time was over") from None
        if done.returncode and not (may_fail and done.stdout):
            raise RuntimeError(
                f"kenpin {words[0]}: {done.stderr.strip()[-400:] or f'exit code {done.returncode}'}"
            )
        return done.stdout, time.monotonic() - started

    def prepare(self) -> Finding:
        """Draw, train, export and install."""
        good = self.root / "good"
        good.mkdir()
        for number in range(40):
            part = draw_part("cap", seed=1, index=number, defect_share=0).image
            cv2.imwrite(str(good / f"{number:03}.png"), part)
        self.kenpin("bundle", "keygen", "--out", self.root / "key")
        finding = Finding("a model for the engine", self._model(good))
        self.kenpin("bundle", "install", self.bundle, *self.place)
        return finding

    def _model(self, good: Path) -> dict[str, float]:
        """Train and export; the accuracy gate refuses some that were trained so shortly."""
        effort = ("--size", self.plan.size, "--steps", self.plan.steps, "--device", self.plan.device)
        for seed in SEEDS:
            _, trained_s = self.kenpin("train", "--good", good, "--run", self.run, "--seed", seed, *effort)
            try:
                label = ("--key", self.root / "key", "--version", "1")
                _, exported_s = self.kenpin("export", self.run, "--out", self.bundle, *label)
                break
            except RuntimeError as error:
                if seed == SEEDS[-1] or "does not keep the verdicts" not in str(error):
                    raise
                shutil.rmtree(self.run)
        return {"train_s": trained_s, "export_s": exported_s, "seed": seed}


def run_checks(plan: Plan, root: Path) -> Iterator[Finding]:
    """Every check, one after the other; what may take this process along comes last."""
    work = Workplace(root, plan)
    yield attempt("a model for the engine", work.prepare)
    built: list[Precision] = []
    if plan.device == "cuda":
        yield from build_engines(work, built)
    yield attempt("golden frames", partial(golden_frames, work))
    yield attempt("speed of the engine", partial(speed, work))
    yield attempt("references in PyTorch", partial(references, work))
    for precision in built:
        name = f"beside the bare engine, {precision}"
        yield attempt(name, partial(beside_bare, work, precision, name))


def build_engines(work: Workplace, built: list[Precision]) -> Iterator[Finding]:
    """TensorRT builds both models; those that it built are added to `built`."""
    if find_spec("tensorrt") is None and find_spec("tensorrt_rtx") is None:
        yield Finding("TensorRT", {"told": "not tried: neither TensorRT nor TensorRT-RTX is installed"})
        return
    if find_spec("tensorrt") is None:
        work.take_rtx()
    precisions: tuple[Precision, ...] = ("fp32", "int8")
    for precision in precisions:
        name = f"TensorRT builds {precision}"
        finding = attempt(name, partial(build_engine, work, precision, name))
        if finding.holds:
            built.append(precision)
        yield finding


def build_engine(work: Workplace, precision: Precision, name: str) -> Finding:
    """`kenpin build-engine`, which also scores the golden frames."""
    said, seconds = work.kenpin("build-engine", *work.place, "--precision", precision, "--json")
    told = json.loads(said)
    passport, golden = told["passport"], told["golden"]
    found: dict[str, float | str | None] = {
        "tensorrt": passport["tensorrt"],
        "command_s": seconds,
        "build_s": passport["build_s"],
        "plan_mb": passport["plan_bytes"] / 1e6,
        "layers": passport["layers"]["total"],
        "int8_layers": len(passport["layers"]["int8"]),
        "float_convolutions": ", ".join(passport["layers"]["float_convolutions"]),
        "golden_worst": golden["worst"],
        "golden_allowed": golden["tolerance"],
    }
    return Finding(name, found, golden["worst"] <= golden["tolerance"])


def beside_bare(work: Workplace, precision: Precision, name: str) -> Finding:
    """A frame of the model's size: the whole of `score`, and TensorRT called alone, in turns."""
    # pycuda and TensorRT are on a machine with a GPU only.
    from kenpin.edge_runtime.device import Device  # noqa: PLC0415
    from kenpin.edge_runtime.engine_trt import TrtEngine, target_of  # noqa: PLC0415
    from kenpin.engine_store import unseal_engine  # noqa: PLC0415

    class Bare(TrtEngine):
        """The engine, which can also be called without all that is around it."""

        def run(self) -> None:
            with self.device.current():
                if not self._context.execute_async_v3(self._stream.handle):
                    raise RuntimeError("TensorRT does not run the engine")
                self._ended.record(self._stream)
                self._stream.synchronize()

    folder, trusted = StationFolder(work.state), trusted_keys((work.trust,))
    bundle, device = open_bundle(folder.installed(), trusted), Device()
    plan, _ = unseal_engine(folder, target_of(bundle, precision, device))
    with Bare(plan, precision, device) as engine:
        frame = random_frame(engine.input_size)
        ways: dict[str, Callable[[], object]] = {"ours": lambda: engine.score(frame), "bare": engine.run}
        taken: dict[str, list[float]] = {way: [] for way in ways}
        gpu_ms = []
        for _ in range(work.plan.frames):
            for way, run in ways.items():
                started = time.perf_counter()
                run()
                taken[way].append(1000 * (time.perf_counter() - started))
                if way == "ours":
                    gpu_ms.append(engine.gpu_ms)
        graph = engine.device.no_graph_because or "recorded"
    ours, bare = (statistics.median(taken[way][len(taken[way]) // 5 :]) for way in ways)
    found: dict[str, float | str | None] = {
        "ours_ms": ours,
        "bare_ms": bare,
        "gpu_ms": statistics.median(gpu_ms[len(gpu_ms) // 5 :]),
        "ratio": ours / bare,
        "graph": graph,
    }
    return Finding(name, found, ours <= OVERHEAD * bare)


def golden_frames(work: Workplace) -> Finding:
    """`kenpin verify-engine`; what it found is told also where it did not pass."""
    said, _ = work.kenpin("verify-engine", *work.place, "--json", may_fail=True)
    report = json.loads(said)["report"]
    worst = max((abs(frame["score"] - frame["expected"]) for frame in report["frames"]), default=None)
    names = ("runtime", "precision", "note", "fault")
    found = {**{name: report[name] for name in names}, "worst": worst, "allowed": report["tolerance"]}
    return Finding("golden frames", found, report["passed"])


def speed(work: Workplace) -> Finding:
    """`kenpin bench engine`."""
    streams = [word for count in work.plan.streams for word in ("--streams", count)]
    sizes = ("--camera", work.plan.camera, "--frames", work.plan.frames)
    said, _ = work.kenpin("bench", "engine", *work.place, *sizes, *streams, "--json")
    told = json.loads(said)
    found: dict[str, float | str | None] = {"runtime": told["runtime"], "precision": told["precision"]}
    for way, row in told["rows"].items():
        found |= {f"{way}, {name}": row[name] for name in ("p50_ms", "p99_ms", "per_s")}
    return Finding("speed of the engine", found)


def references(work: Workplace) -> Finding:
    """What PyTorch takes for one frame: the whole model, and the encoder in float, half and INT8."""
    device, size = torch.device(work.plan.device), work.plan.size
    inspector = load_inspector(work.run).to(device)
    frame = torch.from_numpy(random_frame((size, size)))[None].to(device)
    picture = torch.rand(1, 3, size, size, device=device)
    encoder = inspector.encoder
    products = int8_products(encoder, picture) if device.type == "cuda" else []
    ways: dict[str, Callable[[], object]] = {"model_fp32_ms": lambda: inspector(frame)}
    ways["encoder_fp32_ms"] = lambda: encoder(picture)
    if products:
        # The GPU's own: a CPU has no fast half.
        ways["int8_products_ms"] = lambda: [torch._int_mm(a, b) for a, b in products]
        ways["fp16_products_ms"] = fp16_products(products)
    found: dict[str, float | str | None] = {}
    with torch.inference_mode():
        found |= {name: time_ms(run, device, work.plan.frames) for name, run in ways.items()}
        if device.type == "cuda":
            half, nhwc = encoder.half(), picture.half().contiguous(memory_format=torch.channels_last)
            found["encoder_fp16_ms"] = time_ms(lambda: half(picture.half()), device, work.plan.frames)
            last = half.to(memory_format=torch.channels_last)
            found["encoder_fp16_nhwc_ms"] = time_ms(lambda: last(nhwc), device, work.plan.frames)
    return Finding("references in PyTorch", found)


def int8_products(encoder: nn.Module, picture: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The encoder's convolutions as INT8 matrix products of noise, (places, inputs) and (inputs, outputs).

    Without gathering the inputs and without scaling the results: a lower bound of what INT8 takes in PyTorch.
    """
    shapes: list[tuple[int, int, int]] = []

    def note(layer: nn.Module, _: object, made: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        inputs = layer.weight[0].numel()
        # The product takes multiples of eight only.
        shapes.append((made.shape[2] * made.shape[3], -(-inputs // 8) * 8, layer.out_channels))

    hooks = [m.register_forward_hook(note) for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    with torch.inference_mode():
        encoder(picture)
    for hook in hooks:
        hook.remove()

    def noise(rows: int, columns: int) -> Tensor:
        return torch.randint(-127, 128, (rows, columns), dtype=torch.int8, device=picture.device)

    return [(noise(places, inputs), noise(outputs, inputs).t()) for places, inputs, outputs in shapes]


def fp16_products(products: list[tuple[Tensor, Tensor]]) -> Callable[[], object]:
    """The same products in half precision."""
    half = [(a.half(), b.half()) for a, b in products]
    return lambda: [a @ b for a, b in half]


def time_ms(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median time; on a GPU that of a recorded graph, so that Python does not count."""
    if device.type == "cpu":
        taken = []
        for _ in range(repeats):
            started = time.perf_counter()
            run()
            taken.append(1000 * (time.perf_counter() - started))
        return statistics.median(taken)
    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        for _ in range(3):
            run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    pairs = [
        (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)
    ]
    for first, last in pairs:
        first.record()
        graph.replay()
        last.record()
    torch.cuda.synchronize()
    return float(np.median([first.elapsed_time(last) for first, last in pairs]))


@click.command()
@click.option("--dry-run-on-cpu", is_flag=True, help="Try the script itself, in small, without a GPU.")
def main(*, dry_run_on_cpu: bool) -> None:
    """Show on a machine with an NVIDIA GPU what a CPU cannot show of a station's engine."""
    holds = True
    with tempfile.TemporaryDirectory() as scratch:
        for finding in run_checks(TINY if dry_run_on_cpu else Plan(), Path(scratch)):
            tell(finding)
            holds &= finding.holds is not False
    sys.exit(not holds)


if __name__ == "__main__":
    main()
