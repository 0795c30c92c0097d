"""`kenpin build-engine`: a TensorRT engine for this station, from the bundle that is installed on it."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click
from rich.progress import Progress

from kenpin import __version__, options
from kenpin.build_log import BuildLog
from kenpin.bundle import Bundle, open_bundle
from kenpin.bundle_cli import trusted_keys
from kenpin.config import WORKSPACE_MB
from kenpin.console import human_console
from kenpin.driver import driver_version, l4t_release
from kenpin.edge_runtime.device import Device
from kenpin.edge_runtime.engine_trt import TrtEngine, target_of
from kenpin.edge_runtime.golden_check import GoldenCheck, prove
from kenpin.engine_passport import Passport, Target
from kenpin.engine_store import load_engine_key, seal_engine
from kenpin.errors import EngineError, KenpinError
from kenpin.events import now_ms
from kenpin.export.build_engine import BuildOrder, Built, build_plan
from kenpin.export.build_progress import Bars
from kenpin.precision import Precision, model_of, small_precision
from kenpin.sole_use import sole_use
from kenpin.station_folder import StationFolder

_GOLDEN_CURE = "use another --precision, or export again; nothing was installed, an older engine is unchanged"


@dataclass(frozen=True)
class _Wish:
    """What was asked for."""

    folder: StationFolder
    bundle: Bundle
    precision: Precision
    workspace_mb: int


@click.command("build-engine")
@options.state
@options.bundle
@click.option(
    "--precision", type=click.Choice(["int8", "fp16", "fp32"]), help="Default: that of the bundle's model.onnx."
)
@click.option(
    "--workspace-mb",
    type=click.IntRange(min=16),
    default=WORKSPACE_MB,
    show_default=True,
    help="Most memory for a layer's scratch.",
)
@options.trust
@options.as_json
def build_engine(  # noqa: PLR0913 - one argument per option
    state: Path,
    bundle_path: Path | None,
    precision: Precision | None,
    workspace_mb: int,
    trust: tuple[Path, ...],
    *,
    as_json: bool,
) -> None:
    """Build the TensorRT engine of a bundle on this station, prove it on the golden frames, and keep it.

    It takes minutes the first time. The station may run meanwhile; restart it afterwards.
    """
    folder = StationFolder(state)
    folder.refuse_root()
    # The device first: without a driver TensorRT does not say so, it crashes.
    with Device() as device:
        bundle = open_bundle(bundle_path or folder.installed(), trusted_keys(trust))
        wish = _Wish(folder, bundle, precision or small_precision(bundle), workspace_mb)
        with _sole_builder(folder):
            passport, check = _build_and_seal(wish, device)
    place = folder.engines / passport.target.key
    _tell(passport, check, place, returned=len(bundle.manifest.quantization.get("floats", ())))
    if as_json:
        document = {
            "engine": str(place),
            "passport": passport.model_dump(mode="json", by_alias=True),
            "golden": {
                "frames": len(check.scores),
                "tolerance": check.tolerance,
                "worst": check.worst.difference,
            },
        }
        click.echo(json.dumps(document))


def _sole_builder(folder: StationFolder) -> ExitStack:
    """Let nobody else build here meanwhile."""
    try:
        folder.engines.mkdir(parents=True, exist_ok=True)
        return sole_use(folder.engines / "build.lock")
    except BlockingIOError:
        raise EngineError(
            "another engine is being built for this station",
            where=folder.engines,
            cure="wait until it has ended; engines/build.jsonl tells how far it is",
        ) from None
    except OSError as error:
        raise EngineError(
            f"the station folder cannot be written: {error.strerror}",
            where=folder.engines,
            cure="make room there, or build as the user that owns it",
        ) from None


def _build_and_seal(wish: _Wish, device: Device) -> tuple[Passport, GoldenCheck]:
    target = target_of(wish.bundle, wish.precision, device)
    log = BuildLog(wish.folder, target.key)
    try:
        built = _build(wish, device, target, log)
        log.step("golden frames", 0.0)
        passport = _passport(wish, device, target, built)
        # The engine closes its device; this one stays for the caller.
        with Device() as own, TrtEngine(built.plan, wish.precision, own) as engine:
            check = prove(engine, wish.bundle, cure=_GOLDEN_CURE)
        seal_engine(wish.folder, built.plan, passport)
    except BaseException as error:
        log.end(_reason(error), wanted=isinstance(error, KeyboardInterrupt))
        raise
    log.end()
    return passport, check


def _build(wish: _Wish, device: Device, target: Target, log: BuildLog) -> Built:
    model = model_of(wish.bundle, wish.precision)
    cache = wish.folder.engines / f"timings-{target.tensorrt}.cache"
    console = human_console()
    with device.current(), Progress(console=console, transient=True) as progress:
        bars = Bars(progress)

        def listen(phase: str, share: float) -> None:
            log.step(phase, share)
            bars.show(phase, share)

        return build_plan(BuildOrder(model, wish.workspace_mb, cache, load_engine_key(wish.folder), listen))


def _passport(wish: _Wish, device: Device, target: Target, built: Built) -> Passport:
    manifest = wish.bundle.manifest
    return Passport(
        bundle_sha256=target.bundle_sha256,
        model=f"{manifest.product}-{manifest.version}",
        precision=target.precision,
        tensorrt=target.tensorrt,
        cuda=f"{device.driver_version // 1000}.{device.driver_version % 1000 // 10}",
        driver=driver_version(),
        l4t=l4t_release(),
        gpu=target.gpu,
        compute_capability=target.compute_capability,
        multiprocessors=target.multiprocessors,
        built_ms=now_ms(),
        build_s=built.build_s,
        layers=built.layers,
        software=__version__,
        plan_bytes=len(built.plan),
        plan_sha256=hashlib.sha256(built.plan).hexdigest(),
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, KenpinError):
        return error.in_one_line
    return "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"


def _tell(passport: Passport, check: GoldenCheck, place: Path, *, returned: int) -> None:
    layers = passport.layers
    int8 = "TensorRT does not tell which layers run in INT8"
    if layers.total and passport.precision == "fp32":
        int8 = f"{layers.total} layers, all in float"
    elif layers.total:
        # Those of the head are float in every model.
        others = ", ".join(name for name in layers.float_convolutions if "head." not in name) or "none"
        int8 = (
            f"{len(layers.int8)} of {layers.total} layers run in INT8; convolutions before the head that do "
            f"not: {others} (export returned {returned} to float)"
        )
    click.echo(
        f"built in {passport.build_s:.0f} s: {passport.model}, {passport.precision}, "
        f"{passport.plan_bytes / 1e6:.1f} MB, TensorRT {passport.tensorrt} on {passport.gpu} "
        f"(compute capability {passport.compute_capability})\n"
        f"  {int8}\n"
        f"  golden frames: {len(check.scores)} of {len(check.scores)} within {check.tolerance:.3g}, "
        f"the worst by {check.worst.difference:.3g}\n"
        f"  in {place}\n"
        "  restart the station to use it",
        err=True,
    )
