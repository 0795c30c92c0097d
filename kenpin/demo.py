"""`kenpin demo`: the whole line on this machine, by the same commands that a user types."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from kenpin import options
from kenpin.broker import demo_broker
from kenpin.demo_data import Line, draw_pictures, split_pictures
from kenpin.demo_result import LineResult, compare, read_store, verdict_table
from kenpin.demo_steps import Journal, Plan, console
from kenpin.demo_subscriber import Subscriber
from kenpin.errors import ConfigError
from kenpin.synthetic import PRODUCTS

_MARK = ".kenpin-demo"
# Enough for drawn parts; real ones deserve --budget standard.
_STEPS = 250
_NEXT = """
Now with your own parts:
  kenpin demo --data DIR                                     the same on your pictures: DIR/good and DIR/DEFECT
or step by step:
  kenpin train --good DIR --run runs/part                    pictures of good parts
  kenpin export runs/part --out part.kenpin
  kenpin bundle install part.kenpin --state station
  kenpin calibrate fit --good DIR2 --masters DIR3 --state station      fresh good parts, known bad ones
  kenpin run --config station.toml                           start from demo/station.toml
"""


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Your pictures.  [default: drawn parts]")
@click.option("--parts", type=click.IntRange(1), default=300, show_default=True, help="Parts on the line.")
@click.option("--broker", help="A running broker, mqtt://HOST:PORT.  [default: one is started]")
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True)
@click.option("--product", type=click.Choice(PRODUCTS), default="cap", show_default=True, help="What to draw.")
@click.option("--budget", type=click.Choice(["quick", "standard", "long"]), help="As for kenpin train.")
@click.option("--steps", type=click.IntRange(1), help=f"Instead of --budget.  [default: {_STEPS}]")
@click.option("--size", type=int, default=128, show_default=True, help="Side of the model's input, pixels.")
@options.as_json
def demo(  # noqa: PLR0913, PLR0917 - one argument per option
    data: Path | None,
    parts: int,
    broker: str | None,
    out: Path,
    product: str,
    budget: str | None,
    steps: int | None,
    size: int,
    *,
    as_json: bool,
) -> None:
    """The whole line on this machine: no camera, GPU, broker or network.

    Draws parts, learns from good ones, exports, installs, calibrates, inspects a line of ten parts per second,
    publishes over MQTT and compares everything with the truth. Each command is shown as you would type it.
    """
    # Whoever ends the demo from outside ends its children and its broker too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    effort = ("--budget", budget) if budget and not steps else ("--steps", str(steps or _STEPS))
    plan, journal = Plan(out, data, product, parts, (*effort, "--size", str(size))), Journal()
    _prepare(out)
    with demo_broker(broker, out) as running:
        line = _make_line(plan, journal, running.url)
        _build(plan, journal)
        _set_up(plan, journal)
        result = _inspect(plan, journal, line, running.url)
    _show(plan, journal, result, broker=running.name)
    if as_json:
        click.echo(json.dumps(_document(plan, journal, result, broker=running.name)))
    _judge(result)


def _prepare(out: Path) -> None:
    """Make the folder, or empty that of an earlier demo."""
    mark = out / _MARK
    if out.exists() and not mark.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(
            "this is not the folder of an earlier demo, so it is left as it is",
            where=out,
            cure="give another one: --out DIR",
        )
    try:
        if mark.exists():
            shutil.rmtree(out)
        out.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError as error:
        raise ConfigError(
            f"cannot write the folder: {error.strerror}", where=out, cure="give another one: --out DIR"
        ) from None


def _make_line(plan: Plan, journal: Journal, broker_url: str) -> Line:
    """Make the pictures, the signing key and the station's configuration."""
    with journal.step("pictures"):
        if plan.data:
            line = split_pictures(plan.data, plan.folders, parts=plan.parts)
        else:
            line = draw_pictures(plan.product, plan.folders, parts=plan.parts)
        console.print(f"{plan.folders.root}: {line.summary}", soft_wrap=True, highlight=False)
    values = (plan.topic, str(plan.station.root.resolve()), str(plan.trust.resolve()))
    topic, state, trusted, source, broker = (
        json.dumps(value, ensure_ascii=False) for value in (*values, line.source, broker_url)
    )
    # Nobody asks the demo how it is, and a port that is taken would end it after the training.
    plan.config.write_text(
        f"# Written by kenpin demo.\n[station]\ntopic = {topic}\nstate_dir = {state}\n"
        f"trusted_keys = [{trusted}]\n\n[source]\nurl = {source}\n\n[mqtt]\nurl = {broker}\n\n"
        '[health]\nlisten = ""\n',
        encoding="utf-8",
    )
    # Before the check, as that reads it, and before the long training.
    journal.kenpin("make a signing key", "bundle", "keygen", "--out", plan.key)
    journal.kenpin("check the station's configuration", "config", "check", plan.config)
    return line


def _build(plan: Plan, journal: Journal) -> None:
    """What a workstation does: from pictures to a signed bundle."""
    pictures = ["--good", plan.folders.training, *_if_there("--bad", plan.folders.masters)]
    journal.kenpin("train", "train", *pictures, "--run", plan.run, *plan.training, "--json")
    label = ["--key", plan.key, "--product", plan.name, "--version", "1"]
    journal.kenpin("export", "export", plan.run, "--out", plan.bundle, *label, "--json")


def _set_up(plan: Plan, journal: Journal) -> None:
    """What a technician does: install the bundle and set the thresholds."""
    place = ["--state", plan.station.root, "--trust", plan.trust]
    journal.kenpin("install", "bundle", "install", plan.bundle, *place)
    pictures = ["--good", plan.folders.calibration, *_if_there("--masters", plan.folders.masters)]
    journal.kenpin("calibrate", "calibrate", "fit", *pictures, *place, "--why", "demo", "--json")


def _inspect(plan: Plan, journal: Journal, line: Line, broker_url: str) -> LineResult:
    """Run the line, with an independent reader at the broker."""
    with Subscriber(broker_url, plan.topic) as reader:
        journal.kenpin("run", "run", "--config", plan.config, "--max-parts", len(line.truth), "--json")
        stored = read_store(plan.station.database)
        reader.wait_for([part.event_id for part in stored if part.event_id])
        return compare(stored, line.truth, reader.received_ns)


def _if_there(option: str, folder: Path) -> list[object]:
    return [option, folder] if folder.is_dir() else []


def _document(plan: Plan, journal: Journal, result: LineResult, *, broker: str) -> dict[str, Any]:
    return {
        "line": result.to_json(),
        "broker": broker,
        "seconds": journal.seconds,
        "report": str(plan.run / "report.html"),
        **journal.documents,
    }


def _show(plan: Plan, journal: Journal, result: LineResult, *, broker: str) -> None:
    console.rule("result", align="left")
    console.print(verdict_table(result))
    console.print(_figures(plan, journal, result, broker=broker))
    times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in journal.seconds.items())
    console.print(f"{times}; together {sum(journal.seconds.values()):.0f} s", highlight=False)
    console.print(_NEXT, soft_wrap=True, highlight=False)


def _figures(plan: Plan, journal: Journal, result: LineResult, *, broker: str) -> Table:
    parity, ran = journal.documents["export"]["parity"], journal.documents["run"]
    shift, auroc = parity["int8_shift"], parity["auroc"]
    table = Table(title="The line", show_header=False)
    for sentence in journal.documents["calibrate"]["sentences"]:
        if " stopped: " in sentence:
            table.add_row("calibration", sentence)
    table.add_row("escapes", f"{result.escapes} of {result.count(good=False)} bad parts")
    table.add_row("false calls", f"{result.false_calls} of {result.count(good=True)} good parts")
    table.add_row(
        "events", f"{result.written} written, {result.sent} sent, {result.received} received ({broker})"
    )
    table.add_row("capture to verdict", str(result.to_verdict))
    table.add_row("verdict to subscriber", str(result.to_subscriber))
    table.add_row("model on the station", f"{ran['engine_precision']}, the faster one on this machine")
    table.add_row(
        "INT8 against float", f"score differs by at most {shift['max']:.4f}, 99 % below {shift['p99']:.4f}"
    )
    if auroc:
        table.add_row("AUROC", f"float {auroc['onnx']:.4f}, INT8 {auroc['int8']:.4f}")
    table.add_row("memory of the station", f"{ran['rss_mb']:.0f} MB")
    table.add_row("report of the training", str(plan.run / "report.html"))
    return table


def _judge(result: LineResult) -> None:
    """End with 1 when an event was lost or no part was judged."""
    judged = sum(result.count("OK", "REVIEW", "NG", good=good) for good in (True, False))
    if not result.events_agree:
        console.print("FAILED: the events written, sent and received do not agree", style="bold red")
    elif not judged:
        console.print("FAILED: not one part was judged", style="bold red")
    else:
        return
    raise click.exceptions.Exit(1)
