"""`kenpin bundle`: make signing keys; verify, show and install bundles."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from kenpin.bundle import CARD, Bundle, install_bundle, open_bundle
from kenpin.errors import BundleError
from kenpin.signing import PublicKey, SecretKey, default_key
from kenpin.station_folder import StationFolder

_file = click.argument("file", type=click.Path(path_type=Path))
_trust = click.option(
    "--trust",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Public key that may have signed it; may be given several times.  [default: this user's own]",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.group()
def bundle() -> None:
    """Verify, show and install bundles; make signing keys."""


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
@_trust
@_json
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
@_trust
@_json
def show(file: Path, trust: tuple[Path, ...], *, as_json: bool) -> None:
    """Show what a bundle holds, after verifying it."""
    found = open_bundle(file, trusted_keys(trust))
    if as_json:
        manifest = found.manifest.model_dump(mode="json", by_alias=True)
        click.echo(json.dumps({**_identity(found), "manifest": manifest}))
        return
    Console(stderr=True).print(_table(found))
    click.echo(found.files[CARD].decode(errors="replace"), err=True)


@bundle.command()
@_file
@click.option("--state", type=click.Path(path_type=Path), required=True, help="The station's folder.")
@_trust
def install(file: Path, state: Path, trust: tuple[Path, ...]) -> None:
    """Verify a bundle, copy it to a station's folder and make it the active one.

    The bundle that was active before stays until the new one is complete.
    """
    found = open_bundle(file, trusted_keys(trust))
    folder = StationFolder(state)
    folder.create()
    installed = install_bundle(found, folder.bundles)
    try:
        folder.activate(installed)
    except OSError as error:
        raise BundleError(
            f"the bundle is installed but cannot be made active: {error.strerror}",
            where=folder.active,
            cure="let this user write there, then install again",
        ) from None
    click.echo(
        f"installed and active: {_name(found)}, signed by {found.signed_by}\n"
        f"  in {installed}\n"
        "  restart the station; it must be calibrated for this bundle before it releases parts",
        err=True,
    )


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
    table.add_row("golden frames", f"{len(manifest.golden)}, tolerance {manifest.golden_tolerance:.2g}")
    for name, entry in sorted(manifest.files.items()):
        table.add_row(name, f"{entry.size / 1e6:.2f} MB")
    return table
