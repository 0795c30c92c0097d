"""`kenpin bench engine`: how fast this station's engine is on this machine."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack, closing
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from kenpin import __version__, options
from kenpin.bundle import open_bundle
from kenpin.bundle_cli import trusted_keys
from kenpin.console import human_console
from kenpin.edge_runtime.engine import Engine
from kenpin.edge_runtime.engine_bench import time_engine, time_streams
from kenpin.edge_runtime.engine_choice import choose_engine
from kenpin.edge_runtime.readiness import Readiness, check_readiness
from kenpin.errors import ConfigError, EngineError, reason_of
from kenpin.machine_state import read_state
from kenpin.out_file import refuse_other
from kenpin.station_folder import StationFolder

# Figures of other engines or cameras do not compare.
_SAME = ("runtime", "precision", "input_size", "camera")


@click.command()
@options.state
@options.trust
@click.option(
    "--camera", help="Width x height of the camera's frames. Default: those of the view, or 1920x1080."
)
@click.option("--frames", type=click.IntRange(10), default=200, show_default=True, help="Frames of each way.")
@click.option("--streams", type=click.IntRange(1, 16), multiple=True, default=(2,), help="Cameras at a time.")
@click.option("--save", type=click.Path(path_type=Path, dir_okay=False), help="Keep the figures as JSON.")
@click.option("--against", type=click.Path(path_type=Path), help="Figures kept before, to compare with.")
@options.as_json
def engine(*, state: Path, trust: tuple[Path, ...], as_json: bool, **given: Any) -> None:
    """Measure this station's engine: alone, with camera frames, up to the verdict, for several cameras.

    Nothing of the station is changed. Stop the station first, or each makes the other slower.
    """
    if given["save"]:
        refuse_other(given["save"], '"kenpin": "', option="--save")
    folder = StationFolder(state)
    before = _read(given["against"]) if given["against"] else None
    machine = {"before": read_state()}
    ready = check_readiness(folder, trusted_keys(trust))
    if ready.engine is None:
        raise EngineError(
            f"there is no engine to measure: {ready.fault}",
            where=state,
            cure="bring the station to run first; kenpin verify-engine says what its engine is",
        )
    with closing(ready.engine):
        camera = _camera(given["camera"], ready.engine)
        document = _described(ready, ready.engine, camera)
        if before is not None:
            _check_same(before, document, where=given["against"])
        rows = time_engine(ready, camera=camera, frames=given["frames"])
    bundle = open_bundle(folder.installed(), trusted_keys(trust))
    for count in given["streams"]:
        with ExitStack() as opened:
            choices = [choose_engine(folder, bundle, ready.engine.precision) for _ in range(count)]
            engines = [opened.enter_context(closing(choice.loaded())) for choice in choices]
            rows.append(time_streams(engines, camera=camera, frames=given["frames"]))
    machine["after"] = read_state()
    document |= {"machine": machine, "rows": {row.way: asdict(row) for row in rows}}
    _show(document, before)
    if given["save"]:
        _write(given["save"], document)
    if as_json:
        click.echo(json.dumps(document))


def _described(ready: Readiness, engine: Engine, camera: tuple[int, int]) -> dict[str, Any]:
    return {
        "kenpin": __version__,
        "date": f"{datetime.now(tz=timezone.utc):%Y-%m-%d}",
        "model": ready.model.name if ready.model is not None else "",
        "runtime": engine.runtime,
        "precision": engine.precision,
        "input_size": list(engine.input_size),
        "camera": list(camera),
    }


def _camera(text: str | None, engine: Engine) -> tuple[int, int]:
    """Height and width of the camera's frames."""
    view = engine.sight.view if engine.sight is not None else None
    if view is None:
        return _size(text or "1920x1080")
    width, height = view.frame_size
    if text is not None and _size(text) != (height, width):
        raise ConfigError(
            f"--camera {text} is not what the bundle's view was drawn for",
            where=f"{width}x{height}",
            cure="leave --camera out",
        )
    return height, width


def _size(text: str) -> tuple[int, int]:
    """Height and width."""
    parts = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if parts is None or "0" in parts.groups():
        raise ConfigError(f"--camera {text} is not a size", cure="give width x height, like 1920x1080")
    return int(parts[2]), int(parts[1])


def _read(path: Path) -> dict[str, Any]:
    try:
        kept: dict[str, Any] = json.loads(path.read_text())
        _ = [kept[name] for name in (*_SAME, "rows")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"no figures can be read: {reason_of(error)}", where=path, cure="give a file that --save wrote"
        ) from None
    return kept


def _write(path: Path, document: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(document, indent=1) + "\n")
    except OSError as error:
        raise ConfigError(
            f"the figures cannot be kept: {error.strerror}", where=path, cure="give --save another place"
        ) from None


def _check_same(before: dict[str, Any], now: dict[str, Any], *, where: object) -> None:
    for name in _SAME:
        if before[name] != now[name]:
            raise ConfigError(
                f"the figures to compare with are for {name} {before[name]}, these for {now[name]}",
                where=where,
                cure="compare with figures of the same engine and camera",
            )


def _show(document: dict[str, Any], before: dict[str, Any] | None) -> None:
    height, width = document["input_size"]
    title = f"{document['model']}: {document['runtime']}, {document['precision']}, {width} x {height}"
    table = Table("way", "p50 ms", "p99 ms", "frames/s", "p50, times before", title=title)
    for way, row in document["rows"].items():
        old = before["rows"].get(way) if before is not None else None
        ratio = f"{row['p50_ms'] / old['p50_ms']:.2f}" if old else "-"
        table.add_row(way, f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}", f"{row['per_s']:.1f}", ratio)
    console = human_console()
    console.print(table)
    for when, state in document["machine"].items():
        console.print(f"{when}: " + ", ".join(f"{k} {v}" for k, v in state.items()), soft_wrap=True)
