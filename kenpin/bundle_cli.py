"""`kenpin bundle`: make signing keys; verify, show, install and activate bundles."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from shlex import quote
from typing import Any

import click
from rich.table import Table

from kenpin import options
from kenpin.activation import Activation, change_activation, read_activation, refuse_older
from kenpin.audit import Entry, append, audit_file
from kenpin.bundle import CARD, Bundle, install_bundle, open_bundle
from kenpin.calibrating import refuse_while_calibrating
from kenpin.console import human_console
from kenpin.counted import counted
from kenpin.errors import BundleError, CalibrationError, ConfigError, KenpinError
from kenpin.record import newest_for, station_records
from kenpin.signing import PublicKey, SecretKey, default_key
from kenpin.station_folder import StationFolder
from kenpin.view import looked_at

_file = click.argument("file", type=click.Path(path_type=Path))

_TAKEN = "  a running station takes it by itself; it releases parts once it is calibrated for this bundle"
_NEXT = """  the active bundle stays; next: kenpin calibrate fit --bundle FILE, kenpin bundle shadow to watch it
  beside the active one, kenpin bundle activate to change to it"""


@click.group()
def bundle() -> None:
    """Verify, show, install and activate bundles; make signing keys."""


@bundle.command()
@click.option(
    "--out", type=click.Path(path_type=Path), help="Secret key file to write.  [default: this user's own]"
)
def keygen(out: Path | None) -> None:
    """Make a signing key: a secret file, and a public one (.pub) for the stations."""
    path = out or default_key()
    key = SecretKey.generate()
    key.save(path)
    click.echo(
        f"key {key.public.name}\n"
        f"  secret: {path}   keep it on this workstation, with a copy in a safe place\n"
        f"  public: {path.with_suffix('.pub')}   give it to every station that shall trust it",
        err=True,
    )


@bundle.command()
@_file
@options.trust
@options.as_json
def verify(file: Path, trust: tuple[Path, ...], *, as_json: bool) -> None:
    """Check every byte of a bundle against a trusted key; says exactly what is wrong."""
    try:
        found = open_bundle(file, trusted_keys(trust))
    except BundleError as error:
        if as_json:
            click.echo(json.dumps({"bundle": str(file), "valid": False, "error": error.what}))
        raise
    click.echo(f"valid: {_name(found)}, signed by {found.signed_by}", err=True)
    if as_json:
        click.echo(json.dumps({"bundle": str(file), "valid": True, **_identity(found)}))


@bundle.command()
@_file
@options.trust
@options.as_json
def show(file: Path, trust: tuple[Path, ...], *, as_json: bool) -> None:
    """Show what a bundle holds, after verifying it."""
    found = open_bundle(file, trusted_keys(trust))
    if as_json:
        manifest = found.manifest.model_dump(mode="json", by_alias=True)
        click.echo(json.dumps({**_identity(found), "manifest": manifest}))
        return
    human_console().print(_table(found))
    click.echo(found.files[CARD].decode(errors="replace"), err=True)


@bundle.command()
@_file
@options.state
@options.trust
def install(file: Path, state: Path, trust: tuple[Path, ...]) -> None:
    """Verify a bundle and copy it to a station's folder.

    The first one is active at once, and so is one that replaces a bundle which is not calibrated. Otherwise it
    waits beside the active one: calibrate for it, watch it in shadow, then activate it.
    """
    folder = StationFolder(state)
    found = _verified(file, trust, folder)
    folder.create()
    now = read_activation(folder)
    is_kept = (folder.bundles / found.sha256).exists()
    refuse_older(now, found.manifest, is_kept=is_kept)
    is_active = found.sha256 == now.current
    waits = not is_active and _is_calibrated(folder, now.current)
    if not (is_active or waits):
        refuse_while_calibrating(folder)  # what is shown is scored by the one whose place it takes
    installed = install_bundle(found, folder.bundles)
    if is_active and found.manifest.product in now.newest:  # in its trial, perhaps
        click.echo(f"active already, and whole: {_name(found)}\n  in {installed}", err=True)
        return
    if not waits:
        _note(folder, "active", _name(found))
        _change(folder, lambda was: was.running(found.sha256, found.manifest, on_trial=False))
    click.echo(
        f"installed{'' if waits else ' and active'}: {_name(found)}, signed by {found.signed_by}\n"
        f"  in {installed}\n{_NEXT if waits else _TAKEN}",
        err=True,
    )


@bundle.command()
@click.argument("name")
@options.state
@options.trust
def activate(name: str, state: Path, trust: tuple[Path, ...]) -> None:
    """Let the station change to an installed bundle, given by the first characters of its SHA-256 in the list.

    A station that runs loads and proves it beside the old one and changes between two parts. The bundle is on
    trial for 200 parts or 15 minutes; if it fails, the station goes back by itself. The name of the active one
    keeps that, where another one was to follow.
    """
    folder = _station(state)
    found = _kept(folder, name, trust)
    now = read_activation(folder)
    if now.current == found.sha256:
        _keep(folder, found, now)
        return
    refuse_older(now, found.manifest, is_kept=True)
    _need_calibration(folder, found)
    refuse_while_calibrating(folder)
    _note(folder, "to be activated", _name(found))
    _change(folder, lambda was: was.wanting(found.sha256, "activate"))
    click.echo(
        f"to be activated: {_name(found)}\n"
        f"  a running station changes to it between two parts; "
        f"see: kenpin bundle list {folder.as_option}",
        err=True,
    )


def _keep(folder: StationFolder, found: Bundle, now: Activation) -> None:
    """The active bundle is to stay, whichever was to follow it; one that is only watched may be watched on."""
    if now.task != "activate":
        click.echo(f"it is the active one already: {_name(found)}", err=True)
        return
    _note(folder, "to stay", _name(found))
    _change(folder, lambda was: was.wanting("", "") if was.task == "activate" else was)
    click.echo(f"it stays the active one: {_name(found)}\n  {now.candidate[:16]} is not activated", err=True)


@bundle.command()
@click.argument("name", required=False)
@click.option("--off", is_flag=True, help="Watch none.")
@options.state
@options.trust
def shadow(name: str | None, state: Path, trust: tuple[Path, ...], *, off: bool) -> None:
    """Let the station score its parts with an installed bundle too, which decides nothing.

    Where the two disagree is listed in shadow.jsonl in the station's folder, and counted in its metrics.
    """
    folder = _station(state)
    if bool(name) == off:
        raise ConfigError(
            "give the bundle to watch, or --off", where="kenpin bundle shadow", cure="one of the two"
        )
    if name is None:
        _note(folder, "watched", "none")
        _change(folder, lambda was: was.wanting("", "") if was.task == "shadow" else was)
        click.echo("no bundle is watched", err=True)
        return
    found, now = _kept(folder, name, trust), read_activation(folder)
    if found.sha256 == now.current:
        raise BundleError(
            "the active bundle decides already; there is nothing to compare it with",
            where=found.sha256[:16],
            cure=f"give another one; kenpin bundle list {folder.as_option} shows them",
        )
    if now.task == "activate":
        raise BundleError(
            "another bundle is about to be activated, and watching this one would give that up",
            where=now.candidate[:16],
            cure=f"wait until it runs, or keep: kenpin bundle activate {now.current[:16]} {folder.as_option}",
        )
    _need_calibration(folder, found)
    _note(folder, "watched", _name(found))
    _change(folder, lambda was: was.wanting(found.sha256, "shadow"))
    click.echo(
        f"watched: {_name(found)}\n  disagreements: {folder.shadow}\n"
        f"  end it with: kenpin bundle shadow --off {folder.as_option}",
        err=True,
    )


@bundle.command(name="list")
@options.state
@options.trust
@options.as_json
def list_(state: Path, trust: tuple[Path, ...], *, as_json: bool) -> None:
    """List the bundles that are kept on a station, and which one runs."""
    folder = _station(state)
    now = read_activation(folder)
    kept = [_line(folder, path, now, trust) for path in sorted(folder.bundles.glob("[0-9a-f]*"))]
    table = Table("sha256", "product", "version", "", "calibrated")
    for line in kept:
        table.add_row(line["sha256"][:16], line["product"], line["version"], line["role"], line["calibrated"])
    human_console().print(table)
    if now.reason:
        click.echo(f"{now.left[:16]} was given up: {now.reason}" if now.left else now.reason, err=True)
    if as_json:
        click.echo(json.dumps({"bundles": kept, "state": now.state, "left": now.left, "reason": now.reason}))


def _line(folder: StationFolder, path: Path, now: Activation, trust: tuple[Path, ...]) -> dict[str, str]:
    line = {"sha256": path.name, "product": "", "version": "", "role": _role(path.name, now), "calibrated": ""}
    try:
        manifest = open_bundle(path, trusted_keys(trust)).manifest
    except BundleError as error:
        return {**line, "role": f"{line['role']} {error.what}".strip()}
    record = newest_for(station_records(folder), path.name)
    calibrated = f"record {record.rev}, {record.state}" if record is not None else "no"
    return {**line, "product": manifest.product, "version": manifest.version, "calibrated": calibrated}


def _role(sha256: str, now: Activation) -> str:
    wanted = "watched" if now.task == "shadow" else "to activate"
    roles = {now.previous: "before", now.left: "given up", now.candidate: wanted}
    roles[now.current] = "active, on trial" if now.state == "trial" else "active"
    return roles.get(sha256, "")


def _station(state: Path) -> StationFolder:
    folder = StationFolder(state)
    if not folder.bundles.is_dir():
        raise ConfigError("no bundle was ever installed there", where=state, cure="give the station's --state")
    return folder


def _kept(folder: StationFolder, name: str, trust: tuple[Path, ...]) -> Bundle:
    """The one installed bundle whose SHA-256 begins so, verified."""
    found = [p for p in folder.bundles.glob("[0-9a-f]*") if p.name.startswith(name)]
    if len(found) != 1 or len(name) < 4:
        raise BundleError(
            f"{counted(len(found), 'installed bundle')} with a SHA-256 that begins with {name!r}",
            where=folder.bundles,
            cure=f"give 4 or more of its characters; kenpin bundle list {folder.as_option} shows them",
        )
    return _verified(found[0], trust, folder)


def _verified(path: Path, trust: tuple[Path, ...], folder: StationFolder) -> Bundle:
    """A bundle for a station, whose audit says what was refused there."""
    keys = trusted_keys(trust)
    try:
        return open_bundle(path, keys)
    except BundleError as error:
        with contextlib.suppress(KenpinError, OSError):  # whatever becomes of this, the refusal must be said
            if path.exists() and audit_file(folder).exists():
                append(folder, Entry("bundle", options.signer(), new=f"refused: {path.name}: {error.what}"))
        raise


def _is_calibrated(folder: StationFolder, sha256: str) -> bool:
    return newest_for(station_records(folder), sha256) is not None


def _need_calibration(folder: StationFolder, found: Bundle) -> None:
    if not _is_calibrated(folder, found.sha256):
        raise CalibrationError(
            "this station is not calibrated for that bundle: it would release no part with it",
            where=folder.records,
            cure=f"kenpin calibrate fit --bundle {quote(str(folder.bundles / found.sha256))} "
            f"--good DIR --masters DIR {folder.as_option}",
        )


def _note(folder: StationFolder, what: str, new: str) -> None:
    """Write it to the audit, before it is done."""
    old = read_activation(folder).current
    append(folder, Entry("bundle", options.signer(), old=f"active: {old[:16] or 'none'}", new=f"{what}: {new}"))


def _change(folder: StationFolder, step: Callable[[Activation], Activation]) -> None:
    try:
        change_activation(folder, step)
    except OSError as error:
        raise BundleError(
            f"the bundle cannot be made active: {error.strerror}",
            where=folder.activation,
            cure="make room there, or let this user write; then try again",
        ) from None


def trusted_keys(paths: tuple[Path, ...]) -> list[PublicKey]:
    """The public keys in files; without any, the one that belongs to this user's signing key."""
    return [PublicKey.load(path) for path in paths or (default_key().with_suffix(".pub"),)]


def _name(found: Bundle) -> str:
    return f"{found.manifest.product} {found.manifest.version}, sha256 {found.sha256}"


def _identity(found: Bundle) -> dict[str, Any]:
    return {
        "product": found.manifest.product,
        "version": found.manifest.version,
        "sha256": found.sha256,
        "signed_by": found.signed_by,
    }


def _table(found: Bundle) -> Table:
    manifest = found.manifest
    created = datetime.fromtimestamp(manifest.created_ms / 1000, timezone.utc)
    table = Table(title=f"{manifest.product} {manifest.version}", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("sha256", found.sha256)
    table.add_row("signed by", found.signed_by)
    table.add_row("created", f"{created:%Y-%m-%d %H:%M} UTC")
    table.add_row("needs kenpin", f"{manifest.min_runtime} or newer")
    table.add_row("input", "frames uint8 " + " x ".join(map(str, manifest.input_shape)))
    table.add_row("looks at", looked_at(manifest.view))
    table.add_row("golden frames", f"{len(manifest.golden)}, tolerance {manifest.golden_tolerance:.2g}")
    for name, entry in sorted(manifest.files.items()):
        table.add_row(name, f"{entry.size / 1e6:.2f} MB")
    return table
