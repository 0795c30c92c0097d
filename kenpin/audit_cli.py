"""`kenpin audit`: what was changed on a station, and whether the account of it is whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from kenpin import options
from kenpin.audit import read_audit
from kenpin.audit import verify as verify_audit
from kenpin.cell import plain_table
from kenpin.counted import counted
from kenpin.errors import ConfigError
from kenpin.events import rfc3339
from kenpin.ledger import Head
from kenpin.signing import PublicKey
from kenpin.station_folder import StationFolder
from kenpin.station_key import station_public_key

_COLUMNS = ("seq", "ts", "by", "what", "old", "new", "why")

_key = click.option(
    "--key", type=click.Path(path_type=Path), help="Your copy of the station's public key; default: its own."
)


@click.group()
def audit() -> None:
    """Read and check the station's audit."""


@audit.command()
@options.state
@_key
@click.option("--witness", "witnesses", multiple=True, help="SEQ:SHA256 of a head that the station published.")
@options.as_json
@click.pass_context
def verify(
    ctx: click.Context, state: Path, key: Path | None, witnesses: tuple[str, ...], *, as_json: bool
) -> None:
    """Find rows that were altered, removed or cut off."""
    heads = [_head(text) for text in witnesses]
    report = verify_audit(StationFolder(state), _public(state, key), heads)
    last = f", the last of {rfc3339(report.head.ts_ms)}" if report.head.ts_ms else ""
    lines = [f"{counted(report.rows, 'row')}{last}", f"head {report.head.seq}:{report.head.sha256}"]
    lines += [f"note: {note}" for note in report.notes] + [f"WRONG: {found}" for found in report.findings]
    if not heads:
        lines.append("note: without --witness a cut end, and a file written anew with the key, cannot be found")
    for line in lines:
        click.echo(line, err=True)
    if as_json:
        document = {
            "rows": report.rows,
            "head": asdict(report.head),
            "witnessed": max((h.seq for h in heads), default=0),
            "findings": report.findings,
            "notes": report.notes,
        }
        click.echo(json.dumps(document))
    ctx.exit(1 if report.findings else 0)


@audit.command()
@options.state
@_key
@click.option("--json", "form", flag_value="json", help="Print one JSON document.")
@click.option("--csv", "form", flag_value="csv", help="Print a table for a spreadsheet.")
def export(state: Path, key: Path | None, form: str | None) -> None:
    """Print every row."""
    rows = [_shown(row) for row in read_audit(StationFolder(state), _public(state, key))]
    if form == "json":
        click.echo(json.dumps({"rows": rows}))
    elif form == "csv":
        # As bytes: a terminal of another encoding has no place for every name and reason.
        click.echo(
            plain_table([_COLUMNS, *([row[column] for column in _COLUMNS] for row in rows)]).encode(), nl=False
        )
    else:
        for row in rows:
            change = f"{row['old'] or '-'} -> {row['new'] or '-'}" if row["old"] or row["new"] else ""
            click.echo(
                f"{row['seq']:>6}  {row['ts']}  {row['by']}: {row['what']} {change} {row['why']}", err=True
            )


def _public(state: Path, key: Path | None) -> PublicKey:
    return PublicKey.load(key) if key else station_public_key(StationFolder(state))


def _head(text: str) -> Head:
    seq, _, sha256 = text.partition(":")
    if not seq.isdecimal() or len(sha256) != 64:
        raise ConfigError(
            f"{text!r} is no head", where="--witness", cure="write it as SEQ:SHA256, as published"
        )
    return Head(int(seq), sha256)


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "ts": rfc3339(row["ts_ms"])}
