"""`kenpin export`."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from kenpin.errors import ConfigError
from kenpin.export.pack import Label
from kenpin.export.parity import WEAK_SQNR_DB, Parity
from kenpin.export.pipeline import Exported, export_run
from kenpin.signing import SecretKey, default_key
from kenpin.train.run import RunFolder

console = Console(stderr=True)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Bundle to write, NAME.kenpin.")
@click.option("--key", type=click.Path(path_type=Path), help="Signing key.  [default: this user's own]")
@click.option("--product", help="Name of the part.  [default: the run's]")
@click.option("--version", help="Version of the bundle.  [default: the time, UTC]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def export(  # noqa: PLR0913 - one argument per option
    run: Path, out: Path, key: Path | None, product: str | None, version: str | None, *, as_json: bool
) -> None:
    """Turn a run into a signed bundle: ONNX in INT8 and float, golden frames, figures, lineage."""
    started = time.monotonic()
    folder = RunFolder(run)
    label = Label(
        product=_checked("--product", product or folder.config.product),
        version=_checked("--version", version or time.strftime("%Y%m%d.%H%M%S", time.gmtime())),
    )
    _check_out(out)
    secret = signing_key(key)
    with _Steps() as steps:
        exported = export_run(folder, out, label=label, key=secret, step=steps.start)
    seconds = round(time.monotonic() - started, 1)
    console.print(_table(exported.parity))
    console.print(
        f"bundle: {out}  {out.stat().st_size / 1e6:.1f} MB, {exported.quantized_convs} INT8 convolutions, "
        f"{seconds} s\nsha256: {exported.sha256}\nsigned: {secret.public.name}",
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


class _Steps:
    """Progress bars, one per step."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console)

    def __enter__(self) -> _Steps:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def start(self, name: str, parts: int) -> Callable[[], object]:
        bar = self._progress.add_task(name, total=parts)
        return lambda: self._progress.advance(bar)


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
    except OSError as error:
        raise ConfigError(
            f"cannot make the folder of --out: {error.strerror}", where=out.parent, cure="give another --out"
        ) from None


def _table(parity: Parity) -> Table:
    table = Table(title=f"{parity.pictures} pictures not trained on", show_header=False)
    for name, value in parity.auroc.items():
        table.add_row(f"AUROC {name}", f"{value:.4f}")
    table.add_row("ONNX against torch, largest difference of an output", f"{parity.onnx_relative:.1e}")
    shift = parity.int8_shift
    table.add_row("INT8 against float, score: largest / 99 % below", f"{shift.max:.4f} / {shift.p99:.4f}")
    table.add_row("INT8 signal to noise, score / map", " / ".join(_db(parity, ("score", "anomaly_map"))))
    if parity.sqnr_db["anomaly_map"] < WEAK_SQNR_DB:
        table.add_row("", "weak: calibrate with the model that the station runs, as kenpin does")
    table.add_row("at the threshold that 95 % of held-back good parts pass", f"{parity.threshold:.4f}")
    table.add_row(f"  new escapes of {parity.test_bad} bad parts", str(parity.new_escapes))
    table.add_row(f"  new false calls of {parity.test_good} good parts", str(parity.new_false_calls))
    return table


def _db(parity: Parity, names: tuple[str, ...]) -> list[str]:
    return [f"{parity.sqnr_db[name]:.1f} dB" for name in names]


def _document(exported: Exported, label: Label, key: SecretKey, seconds: float) -> dict[str, object]:
    return {
        "bundle": str(exported.path),
        "sha256": exported.sha256,
        "product": label.product,
        "version": label.version,
        "signed_by": key.public.name,
        "seconds": seconds,
        "bytes": exported.path.stat().st_size,
        "quantized_convs": exported.quantized_convs,
        "golden_tolerance": exported.golden_tolerance,
        "parity": exported.parity.to_json(),
    }
