"""Show on a machine with an NVIDIA GPU what a CPU cannot show of the training and of a station's device.

    python scripts/gpu_checks.py [--json FILE]

Speed with and without half precision and torch.compile, how busy the GPU is, and whether these hold: a resumed
run has the same loss curve, CPU and GPU compute the same loss, half precision stays finite, a GPU with little
memory takes the batch in parts, several GPUs train one run. Where pycuda is installed, gpu_device_checks.py
adds copies, kernel, mapped memory and CUDA graphs, and gpu_engine_checks.py the engine. Pictures are drawn;
nothing is read or sent.
`--dry-run-on-cpu` walks the same ways in small on a machine without a GPU: it proves the script, not a GPU.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import click
import cv2
import numpy as np
import torch
from gpu_finding import Finding, attempt, broken, findings_in, in_words
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kenpin.commit import git_commit
from kenpin.errors import ConfigError, KenpinError
from kenpin.synced_file import replace_synced
from kenpin.synthetic import draw_part
from kenpin.train.device import open_fabric
from kenpin.train.levels import FINE
from kenpin.train.objective import Objective, Task
from kenpin.train.picture_cache import PictureCache
from kenpin.train.pretrain import VIEWS, Trainer
from kenpin.train.recipe import RECIPES
from kenpin.train.run import RunConfig, RunFolder
from kenpin.train.scene import Scene, cut_scene
from kenpin.train.training import Schedule, StepLog, Training
from kenpin.train.views import Photometry

# Every step alike: one level, full resolution, nothing frozen.
RECIPE = replace(RECIPES["fine only"], name="every step alike")
SAMPLE = ("nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "--id=0")
SAMPLE_EVERY_S = 0.2
# A GPU may hang, and that shall leave the other checks some of the time for which somebody has it. The limit of
# kenpin's commands in the engine's script is shorter than its own.
DEVICE_S, ENGINE_S = 180.0, 420.0
# Sums in another order.
SAME_LOSS = 1e-3
# Half precision and float train apart, but not far in so few steps.
NEAR_LOSS = 0.2


@dataclass(frozen=True)
class Plan:
    """How large everything is.

    Attributes:
        device: cuda or cpu.
        size: Side of the model's input, pixels.
        batches: Batches whose speed is measured.
        precisions: Precisions whose speed is measured.
        compiled: Whether the largest batch is measured with torch.compile, too, which takes a minute each.
        half: Precisions that are compared with fp32.
        steps: Steps of each check; the first third only warms up.
        width: Width of the encoder.
    """

    device: str = "cuda"
    size: int = 224
    batches: tuple[int, ...] = (24, 128, 512)
    precisions: tuple[str, ...] = ("fp32", "bf16")
    compiled: bool = True
    half: tuple[str, ...] = ("bf16", "fp16")
    steps: int = 30
    width: int = 32

    @property
    def batch(self) -> int:
        """The batch of all checks but speed."""
        return self.batches[0]


# A CPU has no fp16, and compiling for it takes longer than all else.
TINY = Plan("cpu", 64, (6,), ("fp32", "bf16"), False, ("bf16",), steps=4, width=8)


class Utilisation:
    """Samples how busy a GPU is while something runs.

    Args:
        command: Prints the utilisation in percent and the memory in MiB, with a comma between them.

    Attributes:
        samples: Percent and MiB.
    """

    def __init__(self, command: Sequence[str] = SAMPLE) -> None:
        self.samples: list[tuple[float, float]] = []
        self._command = command
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Utilisation:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.is_set():
            try:
                said = subprocess.run(self._command, capture_output=True, text=True, check=True, timeout=10)
                percent, mib = said.stdout.splitlines()[0].split(",")
                self.samples.append((float(percent), float(mib)))
            except (OSError, subprocess.SubprocessError, ValueError, IndexError):
                # No nvidia-smi, or "[N/A]" on a board: the figure is then missing, not wrong.
                return
            self._done.wait(SAMPLE_EVERY_S)

    @property
    def found(self) -> dict[str, float | str | None]:
        """Median utilisation and the most memory; None where nothing was sampled."""
        percent, mib = zip(*self.samples, strict=True) if self.samples else ((), ())
        return {
            "busy_percent": statistics.median(percent) if percent else None,
            "used_mib": max(mib, default=None),
        }


def run_checks(
    plan: Plan,
    tell: Callable[[str], object] = lambda _: None,
    keep: Callable[[list[Finding]], object] = lambda _: None,
) -> list[Finding]:
    """Every check, one after the other, and first those that have run the least.

    Args:
        plan: How large everything is.
        tell: Is told what comes.
        keep: Is given what was found so far, after each check: whoever lends a GPU may take it back.
    """
    if plan.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "no CUDA device is available",
            cure="run this on a machine with an NVIDIA GPU and its driver, or give --dry-run-on-cpu",
        )
    keep([])  # a place that cannot be written is told now, not after minutes
    pictures = drawn(max(plan.batches), plan.size)
    findings: list[Finding] = []
    training = (speeds, resumes, agrees_with_cpu, stays_finite, halves, trains_on_several)
    for check in (device_parts, engine_parts, *training):
        name = check.__name__.replace("_", " ")
        tell(f"checking: {name}")
        try:
            findings += check(plan, pictures)
        except Exception as error:
            # What the other checks found is of use all the same.
            findings.append(broken(name, in_words(error)[-300:]))
        keep(findings)
    return findings


def drawn(count: int, size: int, *, kinds: int = 48) -> Tensor:
    """Good drawn caps, BGR uint8 (count, 3, size, size): a few, and the same ones turned and dimmed."""
    parts = [draw_part("cap", seed=1, index=n, defect_share=0).image for n in range(min(count, kinds))]
    small = [cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA) for part in parts]
    every = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2)
    turns = [torch.rot90(every, n % 4, (2, 3)) // (1 + n // 4) for n in range(-(-count // len(small)))]
    return torch.cat(turns)[:count].contiguous()


@dataclass
class Tried:
    """What one training did."""

    logs: list[StepLog]
    told: list[str]
    parts: int = 1

    @property
    def losses(self) -> list[float]:
        """Of each step."""
        return [log.loss for log in self.logs]


@dataclass(frozen=True)
class Trial:
    """One short training: how, and what is done to it on the way.

    Attributes:
        batch: Pictures per step.
        precision: fp32, bf16 or fp16.
        compiled: Whether torch.compile is used.
        folder: Where it is saved after each step and gone on from, or None.
        stop_after: Step after which it is interrupted; 0 is never.
    """

    batch: int
    precision: str = "fp32"
    compiled: bool = False
    folder: RunFolder | None = None
    stop_after: int = 0

    @property
    def name(self) -> str:
        """What its speed is called."""
        return f"speed, batch {self.batch}, {self.precision}{', compiled' if self.compiled else ''}"


def train(
    plan: Plan, pictures: Tensor, trial: Trial, prepare: Callable[[Trainer], object] = lambda _: None
) -> Tried:
    """Train for the steps of the plan; `prepare` sees the trainer before the first one."""
    fabric = open_fabric(plan.device, precision=trial.precision)
    training = Training.start(width=plan.width, seed=0, device=fabric.device)
    if trial.folder is not None:
        trial.folder.load_training(training)
    if trial.compiled:
        torch.compiler.reset()
        training.model.encoder.compile()
    tried = Tried([], [])

    def on_step(log: StepLog) -> None:
        tried.logs.append(log)
        if trial.folder is not None:
            trial.folder.save_training(training)
        if log.step == trial.stop_after:
            raise KeyboardInterrupt

    cache, schedule = PictureCache.of(pictures.to(fabric.device)), Schedule(plan.steps, trial.batch, 0, RECIPE)
    work = Trainer(training, cache, schedule, fabric, on_step, tell=tried.told.append)
    prepare(work)
    with suppress_stop():
        work.run()
    tried.parts = work.parts
    return tried


@contextmanager
def suppress_stop() -> Iterator[None]:
    """An interruption that a check asked for ends the training, not the check."""
    try:
        yield
    except KeyboardInterrupt:
        return


def speeds(plan: Plan, pictures: Tensor) -> list[Finding]:
    """Pictures and views per second of whole training steps."""
    trials = [Trial(*setting) for setting in itertools.product(plan.batches, plan.precisions)]
    if plan.compiled:
        trials += [Trial(plan.batches[-1], precision, compiled=True) for precision in plan.precisions]
    return [attempt(trial.name, partial(speed, plan, pictures, trial)) for trial in trials]


def speed(plan: Plan, pictures: Tensor, trial: Trial) -> Finding:
    """One row: the median step after the first third, in which kernels are chosen and compiled."""
    if plan.device == "cuda":
        torch.cuda.empty_cache()
    with Utilisation() as utilisation:
        tried = train(plan, pictures, trial)
    seconds = statistics.median(log.seconds for log in tried.logs[len(tried.logs) // 3 :])
    found: dict[str, float | str | None] = {
        "pictures_per_s": trial.batch / seconds,
        "views_per_s": VIEWS * trial.batch / seconds,
        "parts": tried.parts,
        **utilisation.found,
    }
    return Finding(trial.name, found, all(map(math.isfinite, tried.losses)))


def resumes(plan: Plan, pictures: Tensor) -> list[Finding]:
    """A run that is interrupted half way and goes on has the loss curve of one that is not.

    Some kernels of a GPU add in any order. So it may differ as much as two runs that nobody interrupted.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(Path(scratch) / "run")
        config = RunConfig(
            product="cap", data="", size=plan.size, width=plan.width, steps=plan.steps, batch=plan.batch, seed=0
        )
        folder.create(config, {"pictures": []}, resume=False)
        whole, again = (train(plan, pictures, Trial(plan.batch)).losses for _ in range(2))
        first = train(plan, pictures, Trial(plan.batch, folder=folder, stop_after=plan.steps // 2)).losses
        rest = train(plan, pictures, Trial(plan.batch, folder=folder)).losses
    resumed, usual = most_apart(whole, first + rest), most_apart(whole, again)
    found: dict[str, float | str | None] = {"most_apart": resumed, "two_whole_runs_apart": usual}
    return [Finding("resume after an interruption", found, resumed <= max(SAME_LOSS, 3 * usual))]


def most_apart(losses: Sequence[float], others: Sequence[float]) -> float:
    """Largest relative difference of two loss curves of the same length."""
    return max(abs(a - b) / abs(a) for a, b in zip(losses, others, strict=True))


def agrees_with_cpu(plan: Plan, pictures: Tensor) -> list[Finding]:
    """The same scenes give the same losses on both, also after some steps."""
    # TF32 is another arithmetic; here the question is whether float32 agrees.
    tf32, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        cpu, gpu = (fixed_losses(device, plan, pictures) for device in ("cpu", plan.device))
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
    first, most = most_apart(cpu[:1], gpu[:1]), most_apart(cpu, gpu)
    found: dict[str, float | str | None] = {"first_step_apart": first, "most_apart": most}
    # A rounding error grows with each step; the first one shows whether the kernels agree.
    return [Finding("CPU and GPU, the same scenes", found, first < SAME_LOSS and most < NEAR_LOSS)]


def fixed_losses(device: str, plan: Plan, pictures: Tensor) -> list[float]:
    """Losses on scenes that are cut on the CPU, whose draws no GPU can repeat."""
    training = Training.start(width=plan.width, seed=0, device=torch.device(device))
    objective, losses = Objective(training.model).train(), []
    for step in range(min(8, plan.steps)):
        torch.manual_seed(step)
        scene = cut_scene(FINE, pictures[: plan.batch].float() / 255, Photometry(gain=0.05, contrast=0.05))
        tensors = (scene.views, scene.mask, scene.places, scene.places_second, scene.seen)
        there = Scene(*(tensor.to(device) for tensor in tensors))
        loss, _ = objective(Task(FINE, there, torch.ones(plan.batch, device=device)))
        training.optimizer.zero_grad()
        loss.backward()
        training.optimizer.step()
        losses.append(loss.item())
    return losses


def stays_finite(plan: Plan, pictures: Tensor) -> list[Finding]:
    """Half precision has finite losses, near those of float."""
    whole = train(plan, pictures, Trial(plan.batch)).losses
    last = slice(-(len(whole) // 3 or 1), None)

    def one(precision: str) -> Finding:
        losses = train(plan, pictures, Trial(plan.batch, precision)).losses
        ends = statistics.mean(losses[last]), statistics.mean(whole[last])
        apart = most_apart(ends[1:], ends[:1])
        found: dict[str, float | str | None] = {"last_losses": ends[0], "apart_from_fp32": apart}
        finite = all(map(math.isfinite, losses))
        return Finding(f"{precision} stays finite", found, finite and apart < NEAR_LOSS)

    return [attempt(f"{precision} stays finite", partial(one, precision)) for precision in plan.half]


def halves(plan: Plan, pictures: Tensor) -> list[Finding]:
    """Where a batch does not fit into the memory, it goes in parts, and a person is told.

    The largest batch, whose step takes far more memory than the pictures themselves.
    """
    with little_memory(plan, pictures) as prepare:
        tried = train(replace(plan, steps=2), pictures, Trial(plan.batches[-1]), prepare)
    found: dict[str, float | str | None] = {"parts": tried.parts, "told": "; ".join(tried.told)}
    holds = tried.parts > 1 and len(tried.told) > 0 and all(map(math.isfinite, tried.losses))
    return [Finding("out of memory: the batch goes in parts", found, holds)]


@contextmanager
def little_memory(plan: Plan, pictures: Tensor) -> Iterator[Callable[[Trainer], object]]:
    """A device that has half of what a batch takes. A CPU plays that."""
    if plan.device == "cpu":
        yield play_little_memory
        return
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    train(replace(plan, steps=2), pictures, Trial(plan.batches[-1]))
    needed = torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(0.5 * needed / total)
    try:
        yield lambda _: None
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def play_little_memory(work: Trainer) -> None:
    """Let a trainer's objective refuse more than half a batch, as a full GPU would."""
    objective = work.objective.module
    forward, most = objective.forward, work.schedule.batch // 2

    def refusing(task: Task) -> tuple[Tensor, Tensor]:
        if len(task.importance) > most:
            raise torch.OutOfMemoryError
        result: tuple[Tensor, Tensor] = forward(task)
        return result

    objective.forward = refusing


def trains_on_several(plan: Plan, pictures: Tensor) -> list[Finding]:
    """All GPUs train one run under torchrun."""
    count = torch.cuda.device_count() if plan.device == "cuda" else 0
    name = "several GPUs train one run"
    if count < 2:
        return [Finding(name, {"gpus": count, "told": "not tried: it takes two"})]
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "good").mkdir()
        for number, picture in enumerate(pictures):
            cv2.imwrite(f"{scratch}/good/{number:04}.png", picture.permute(1, 2, 0).numpy())
        started = time.monotonic()
        command = launch(plan, Path(scratch), processes=count)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found: dict[str, float | str | None] = {"gpus": count, "seconds": time.monotonic() - started}
        if done.returncode:
            found["told"] = done.stderr[-500:]
        return [Finding(name, found, done.returncode == 0 and RunFolder(Path(scratch) / "run").finished)]


def device_parts(plan: Plan, _: Tensor) -> list[Finding]:
    """What a station does on its device, with a driver of its own in a dry run."""
    if find_spec("pycuda") is None:
        told = "not tried: pycuda is not installed; scripts/install_pycuda.sh builds it"
        return [Finding("a station's device", {"told": told})]
    return ask(plan, "gpu_device_checks.py", DEVICE_S)


def engine_parts(plan: Plan, _: Tensor) -> list[Finding]:
    """A station's way from pictures to a running engine."""
    return ask(plan, "gpu_engine_checks.py", ENGINE_S)


def ask(plan: Plan, script: str, limit_s: float) -> list[Finding]:
    """What another script finds, in a process of its own: what breaks there breaks nothing here."""
    command = [sys.executable, str(Path(__file__).with_name(script))]
    dry = ["--dry-run-on-cpu"] if plan.device == "cpu" else []
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complained:
        try:
            done = subprocess.run(
                [*command, *dry], stdout=said, stderr=complained, check=False, timeout=limit_s
            )
            ended = f"ended with {done.returncode}" if done.returncode not in (0, 1) else ""
        except subprocess.TimeoutExpired:
            ended = f"did not end within {limit_s:.0f} s"
        said.seek(0)
        complained.seek(0)
        findings = findings_in(said.read())
        if ended or not findings:
            findings.append(broken(script, f"{complained.read().strip()} {ended}".strip()[-300:]))
    return findings


def launch(plan: Plan, folder: Path, *, processes: int) -> list[str]:
    """The command that trains `folder/run` from the pictures in `folder/good` in as many processes."""
    # After "--" nothing is an option of torchrun; it would take --run for one of its own.
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", "--"]
    what = ["kenpin", "train", "--good", folder / "good", "--run", folder / "run", "--device", plan.device]
    numbers = ["--size", plan.size, "--steps", plan.steps, "--batch", processes * plan.batch]
    return [str(part) for part in (sys.executable, *several, *what, *numbers)]


def document(plan: Plan, findings: Sequence[Finding]) -> dict[str, object]:
    """All that was found, and on what."""
    name = torch.cuda.get_device_name(0) if plan.device == "cuda" else "CPU, dry run"
    return {
        "device": name,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "commit": git_commit(),
        "date": f"{datetime.now(tz=timezone.utc):%Y-%m-%d}",
        "plan": asdict(plan),
        "findings": [asdict(finding) for finding in findings],
    }


def write(to: Path | None, plan: Plan, findings: Sequence[Finding]) -> None:
    """Keep what was found as JSON, whole or as it was before."""
    if to is None:
        return
    text = json.dumps(document(plan, findings), indent=1, default=str) + "\n"
    try:
        replace_synced(to, text.encode())
    except OSError as error:
        raise ConfigError(
            f"what is found cannot be kept: {error.strerror}", where=to, cure="give --json another place"
        ) from None


def as_table(findings: Sequence[Finding], title: str) -> Table:
    """The table that a person reads."""
    table = Table("check", "found", "holds", title=title)
    says = {True: "yes", False: "NO", None: "-"}
    for finding in findings:
        found = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in finding.found.items()]
        table.add_row(finding.check, "\n".join(found), says[finding.holds])
    return table


@click.command()
@click.option("--json", "to", type=click.Path(path_type=Path, dir_okay=False), help="File to write as JSON.")
@click.option("--dry-run-on-cpu", is_flag=True, help="Try the script itself, in small, without a GPU.")
def main(*, to: Path | None, dry_run_on_cpu: bool) -> None:
    """Show on a machine with an NVIDIA GPU what a CPU cannot show."""
    plan, console = TINY if dry_run_on_cpu else Plan(), Console(stderr=True)
    try:
        findings = run_checks(plan, console.print, lambda found: write(to, plan, found))
    except KenpinError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    told = document(plan, findings)
    console.print(as_table(findings, f"{told['device']}, torch {told['torch']}"))
    sys.exit(any(finding.holds is False for finding in findings))


if __name__ == "__main__":
    main()
