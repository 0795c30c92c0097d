"""`kenpin export`."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kenpin import options
from kenpin.activation import version_order
from kenpin.bundle import MANIFEST
from kenpin.console import human_console
from kenpin.errors import ConfigError
from kenpin.export.pack import Label
from kenpin.export.pipeline import Exported, Order, export_run
from kenpin.export.scheme import Scheme
from kenpin.export.tables import document, gate_table, layer_table, parity_table
from kenpin.out_file import refuse_other
from kenpin.precision import Precision
from kenpin.signing import SecretKey, default_key
from kenpin.train.run import RunFolder, load_inspector

console = human_console()


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Bundle to write, NAME.kenpin.")
@click.option("--key", type=click.Path(path_type=Path), help="Signing key.  [default: this user's own]")
@click.option("--product", help="Name of the part.  [default: the run's]")
@click.option("--version", help="Version of the bundle.  [default: the time, UTC]")
@click.option("--floor", default="", help="Oldest version that may run on a station after this one.")
@click.option(
    "--precision",
    type=click.Choice(["int8", "fp16", "fp32"]),
    default="int8",
    show_default=True,
    help="Of model.onnx: INT8 with fp32; INT8 with fp16, for TensorRT only; or no INT8.",
)
@click.option(
    "--weights",
    type=click.Choice(["int8", "fp32qdq"]),
    default="int8",
    show_default=True,
    help="How INT8 weights are stored; fp32qdq is for parsers that refuse the first.",
)
@options.as_json
def export(*, run: Path, out: Path, key: Path | None, as_json: bool, **given: Any) -> None:
    """Turn a run into a signed bundle: ONNX in INT8 and float, golden frames, figures, lineage.

    INT8 passes an accuracy gate: no verdict on pictures that were not trained on may change. Convolutions that
    change verdicts are returned to float, the most sensitive first, until that holds.
    """
    started = time.monotonic()
    refuse_other(out, MANIFEST)
    folder = RunFolder(run)
    label = Label(
        product=_checked("--product", given["product"] or folder.config.product),
        version=_checked("--version", given["version"] or time.strftime("%Y%m%d.%H%M%S", time.gmtime())),
        floor=_checked("--floor", given["floor"]) if given["floor"] else "",
    )
    if version_order(label.floor) > version_order(label.version):
        raise ConfigError(
            f"--floor {label.floor} is newer than the bundle itself, {label.version}",
            cure="give a floor that is not above --version",
        )
    inspector = load_inspector(run)  # before a key is made: an unfinished or damaged run leaves nothing behind
    _check_out(out)
    secret = signing_key(key)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:

        def step(name: str, parts: int) -> Callable[[], object]:
            return partial(progress.advance, progress.add_task(name, total=parts))

        order = Order(label, secret, Scheme(given["precision"], given["weights"]))
        exported = export_run(folder, inspector, out, order, step=step)
    seconds = round(time.monotonic() - started, 1)
    _show(exported, order.scheme.precision)
    console.print(
        f"bundle: {out}  {out.stat().st_size / 1e6:.1f} MB, {seconds} s\n"
        f"sha256: {exported.sha256}\nsigned: {secret.public.name}",
        soft_wrap=True,
        highlight=False,
    )
    if as_json:
        click.echo(json.dumps(_document(exported, label, secret, seconds)))


def signing_key(path: Path | None) -> SecretKey:
    """The key in a file; without one this user's own, which is made on first use."""
    if path is None and not default_key().exists():
        key = SecretKey.generate()
        key.save(default_key())
        console.print(
            f"made your signing key: {default_key()}\n"
            f"stations need its public part: {default_key().with_suffix('.pub')}",
            soft_wrap=True,
            highlight=False,
        )
        return key
    return SecretKey.load(path or default_key())


def _checked(option: str, value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.+-]{1,64}", value) or (option == "--product" and "+" in value):
        raise ConfigError(
            f"{option} {value!r} cannot be used", cure="use 1 to 64 characters of A-Z a-z 0-9 _ . -"
        )
    return value


def _check_out(out: Path) -> None:
    if out.is_dir():
        raise ConfigError("--out is a folder", where=out, cure="give a file name, for example part-1.kenpin")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=out.parent).close()  # minutes later it would be too late to ask
    except OSError as error:
        raise ConfigError(
            f"cannot write in the folder of --out: {error.strerror}",
            where=out.parent,
            cure="give another --out",
        ) from None


def _show(exported: Exported, precision: Precision) -> None:
    console.print(parity_table(exported.parity, precision=precision))
    if exported.compressed:
        console.print(layer_table(exported.compressed))
        console.print(gate_table(exported.compressed, passing=exported.parity.passing))
    size, float_size = exported.model_bytes
    console.print(f"model.onnx: {precision}, {size / 1e6:.2f} MB of {float_size / 1e6:.2f} MB", highlight=False)


def _document(exported: Exported, label: Label, key: SecretKey, seconds: float) -> dict[str, object]:
    return {
        "bundle": str(exported.path),
        "sha256": exported.sha256,
        "product": label.product,
        "version": label.version,
        "signed_by": key.public.name,
        "seconds": seconds,
        "bytes": exported.path.stat().st_size,
        **document(exported),
    }
