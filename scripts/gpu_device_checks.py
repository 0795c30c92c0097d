"""Show on a machine with an NVIDIA GPU what a CPU cannot show of a station's device.

    python scripts/gpu_device_checks.py

Prints a line of JSON for each check as soon as it is done, which scripts/gpu_checks.py takes into its table:
copies, the kernel against kenpin.preprocess.to_input, what an upload costs from ordinary, page-locked and
mapped memory, CUDA graphs, and the time from a camera frame to the model's input. It needs pycuda.
`--dry-run-on-cpu` walks the same ways in small on a driver in host memory: it proves the script, not a GPU.
"""

from __future__ import annotations

import ctypes
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
from types import SimpleNamespace

import click
import numpy as np
from gpu_finding import Finding, attempt, tell

from kenpin.edge_runtime.cuda_stream import Stream
from kenpin.edge_runtime.device import Device
from kenpin.edge_runtime.frame_kernel import FrameKernel
from kenpin.errors import KenpinError
from kenpin.preprocess import to_input

BUILD_FAKE = Path(__file__).parents[1] / "tests/fake_cuda/build.sh"
# What a station may spend on a frame before the model has it.
PREPROCESS_MS = 0.3
# Pixels may differ by one level, this share of them.
SAME_SHARE = 0.999


@dataclass(frozen=True)
class Plan:
    """How large everything is.

    Attributes:
        camera: Height and width of a frame, pixels.
        side: Side of the model's input, pixels.
        repeats: Of what is timed.
        others: More sizes of frames that the kernel is tried with.
        fast: Whether times are those of a GPU, and so can be too long.
    """

    camera: tuple[int, int] = (1080, 1920)
    side: int = 256
    repeats: int = 200
    others: tuple[tuple[int, int], ...] = (
        (2048, 2448),
        (512, 768),
        (511, 257),
        (256, 256),
        (100, 900),
        (100, 100),
    )
    fast: bool = True


TINY = Plan((90, 160), 32, 3, ((64, 64), (20, 90), (20, 20)), fast=False)


class Bench:
    """A frame on its way: memory of all kinds, and the kernel.

    Args:
        device: The device, which is current.
        plan: How large everything is.
    """

    def __init__(self, device: Device, plan: Plan) -> None:
        frame, result = (*plan.camera, 3), (plan.side, plan.side, 3)
        self.device, self.plan, self.stream = device, plan, device.stream()
        self.pinned = device.pinned(frame, np.uint8, mapped=False)
        self.mapped = device.pinned(frame, np.uint8, mapped=True)
        self.back = device.pinned(result, np.uint8)
        self.source, self.target = (
            device.buffer(self.pinned.array.nbytes),
            device.buffer(self.back.array.nbytes),
        )
        self.kernel = FrameKernel(device, camera_size=plan.camera, input_size=(plan.side, plan.side))
        self.pinned.array[:] = self.mapped.array[:] = noise(plan.camera)

    def run(self) -> None:
        """Enqueue all of the work of one frame."""
        self.device.upload(self.source, self.pinned, self.stream)
        self.kernel.enqueue(self.source.pointer, self.target.pointer, self.stream)
        self.device.download(self.back, self.target, self.stream)

    def time_ms(self, work: Callable[[], object]) -> float:
        """Median time of the device for what is enqueued; the first run does not count."""
        first, last = self.device.event(), self.device.event()
        times = []
        for _ in range(self.plan.repeats + 1):
            first.record(self.stream)
            work()
            last.record(self.stream)
            times.append(last.elapsed_ms(first))
        return statistics.median(times[1:])


def noise(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A frame, BGR uint8 (H, W, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def run_checks(plan: Plan) -> Iterator[Finding]:
    """Every check, one after the other, each with memory of its own."""
    with Device() as device:
        yield describe(device)
        for check in (copies, agrees_with_the_cpu, uploads, preprocesses, records):
            yield attempt(check.__name__.replace("_", " "), partial(_on, device, plan, check))


def _on(device: Device, plan: Plan, check: Callable[[Bench], Finding]) -> Finding:
    with device.current():
        return check(Bench(device, plan))


def describe(device: Device) -> Finding:
    """Which device it is."""
    found: dict[str, float | str | None] = {
        "name": device.name,
        "compute_capability": "{}.{}".format(*device.compute_capability),
        "driver": str(device.driver_version),
        "integrated": str(device.integrated),
    }
    return Finding("device", found)


def copies(bench: Bench) -> Finding:
    """Bytes come back as they went, and nothing is taken while they do."""
    device, stream, live = bench.device, bench.stream, bench.device.live
    back = device.pinned(bench.pinned.array.shape, np.uint8)
    for _ in range(bench.plan.repeats):
        device.upload(bench.source, bench.pinned, stream)
        device.download(back, bench.source, stream)
    stream.synchronize()
    same = np.array_equal(back.array, bench.pinned.array)
    back.free()
    return Finding(
        "copies to the device and back", {"live_more": device.live - live}, same and device.live == live
    )


def agrees_with_the_cpu(bench: Bench) -> Finding:
    """The kernel's numbers are those of kenpin.preprocess.to_input."""
    device, stream, side = bench.device, bench.stream, bench.plan.side
    worst, most = 1.0, 0
    for size in (bench.plan.camera, *bench.plan.others):
        kernel = FrameKernel(device, camera_size=size, input_size=(side, side))
        frame = device.pinned((*size, 3), np.uint8, mapped=True)
        frame.array[:] = noise(size, seed=1)
        kernel.enqueue(frame.pointer, bench.target.pointer, stream)
        device.download(bench.back, bench.target, stream)
        stream.synchronize()
        apart = np.abs(bench.back.array.astype(int) - to_input(frame.array, height=side, width=side))
        worst, most = min(worst, float((apart <= 1).mean())), max(most, int(apart.max()))
        frame.free()
    found: dict[str, float | str | None] = {"within_one_level_share": worst, "most_levels_apart": most}
    return Finding("kernel against to_input", found, worst >= SAME_SHARE)


def uploads(bench: Bench) -> Finding:
    """What it costs to have a frame where the kernel reads it."""
    device, stream = bench.device, bench.stream
    ordinary = SimpleNamespace(array=noise(bench.plan.camera))
    found: dict[str, float | str | None] = {
        "ordinary_ms": bench.time_ms(lambda: device.upload(bench.source, ordinary, stream)),
        "pinned_ms": bench.time_ms(lambda: device.upload(bench.source, bench.pinned, stream)),
        "pinned_and_kernel_ms": bench.time_ms(bench.run),
        "mapped_and_kernel_ms": bench.time_ms(
            lambda: bench.kernel.enqueue(bench.mapped.pointer, bench.target.pointer, stream)
        ),
    }
    return Finding("upload of a frame", found)


def preprocesses(bench: Bench) -> Finding:
    """From a frame in the device's memory to the model's input."""
    height, width = bench.plan.camera
    source, target = bench.source.pointer, bench.target.pointer
    bench.device.upload(bench.source, bench.pinned, bench.stream)
    taken = bench.time_ms(lambda: bench.kernel.enqueue(source, target, bench.stream))
    name = f"preprocess {width} x {height} to {bench.plan.side}"
    holds = taken <= PREPROCESS_MS if bench.plan.fast else None
    return Finding(name, {"ms": taken, "allowed_ms": PREPROCESS_MS}, holds)


def records(bench: Bench) -> Finding:
    """A recorded frame gives the same result, and costs the processor less than enqueueing it."""
    bench.run()
    bench.stream.synchronize()
    expected = bench.back.array.copy()
    bench.back.array[:] = 0
    graph = bench.device.record_graph(bench.stream, bench.run)
    if graph is None:
        return Finding("CUDA graph", {"told": bench.device.no_graph_because}, holds=False)
    graph.launch(bench.stream)
    bench.stream.synchronize()
    found: dict[str, float | str | None] = {
        "launch_us": host_us(lambda: graph.launch(bench.stream), bench.stream, bench.plan.repeats),
        "enqueue_us": host_us(bench.run, bench.stream, bench.plan.repeats),
        "frame_ms": bench.time_ms(lambda: graph.launch(bench.stream)),
    }
    return Finding("CUDA graph", found, np.array_equal(bench.back.array, expected))


def host_us(work: Callable[[], object], stream: Stream, repeats: int) -> float:
    """Median time of the processor to hand work over."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
        stream.synchronize()
    return 1e6 * statistics.median(times)


def load_fake(folder: Path) -> None:
    """Put a driver in host memory where pycuda looks for the real one."""
    pycuda, library = find_spec("pycuda._driver"), folder / "libcuda.so.1"
    assert pycuda is not None
    subprocess.run([BUILD_FAKE, library, str(pycuda.origin)], check=True)
    ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)


@click.command()
@click.option("--dry-run-on-cpu", is_flag=True, help="Try the script itself, in small, without a GPU.")
def main(*, dry_run_on_cpu: bool) -> None:
    """Show on a machine with an NVIDIA GPU what a CPU cannot show of a station's device."""
    holds = True
    with tempfile.TemporaryDirectory() as scratch:
        if dry_run_on_cpu:
            load_fake(Path(scratch))
        try:
            for finding in run_checks(TINY if dry_run_on_cpu else Plan()):
                tell(finding)
                holds &= finding.holds is not False
        except KenpinError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(error.exit_code)
    sys.exit(not holds)


if __name__ == "__main__":
    main()
