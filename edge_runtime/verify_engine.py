"""`kenpin verify-engine`: score the golden frames with the station's engine, and sign the outcome."""

from __future__ import annotations

import json
import platform
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import click
from pydantic import BaseModel, ConfigDict, Field

from kenpin import __version__, options
from kenpin.bundle import Bundle, open_bundle
from kenpin.bundle_cli import trusted_keys
from kenpin.canonical_json import canonical_json
from kenpin.edge_runtime.engine import Runtime
from kenpin.edge_runtime.engine_choice import choose_engine
from kenpin.edge_runtime.golden_check import GoldenScore, check_golden
from kenpin.engine_passport import Passport
from kenpin.errors import ConfigError, EngineError, KenpinError
from kenpin.events import now_ms
from kenpin.out_file import refuse_other
from kenpin.precision import Precision
from kenpin.record import newest_for, station_records
from kenpin.signing import SecretKey
from kenpin.station_folder import StationFolder
from kenpin.station_key import station_key
from kenpin.synced_file import replace_synced

_COMMENT = "engine report"


class EngineReport(BaseModel):
    """What an engine scored the golden frames, as it is signed.

    Attributes:
        created_ms: UTC, milliseconds since 1970.
        bundle_sha256: Identity of the bundle.
        model: Its product and version.
        passed: Whether every frame is within the tolerance, by TensorRT where the station has it.
        fault: Why nothing was scored, with the cure; empty otherwise.
        note: Why the engine is not TensorRT although the station has it; empty otherwise.
        runtime: What ran the model; `None` where nothing did.
        precision: Which of the bundle's models.
        engine: Passport of the TensorRT engine: what it was built with and for; `None` where none ran.
        tolerance: Largest difference of a score that counts as the same model.
        frames: The golden frames.
        machine: Processor architecture and system.
        software: Version of kenpin.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_: Literal["kenpin.engine_report.v1"] = Field(default="kenpin.engine_report.v1", alias="schema")
    created_ms: int
    bundle_sha256: str
    model: str
    passed: bool
    fault: str = ""
    note: str = ""
    runtime: Runtime | None = None
    precision: Precision | None = None
    engine: Passport | None = None
    tolerance: float = 0.0
    frames: tuple[GoldenScore, ...] = ()
    machine: str
    software: str = __version__


@click.command("verify-engine")
@options.state
@options.trust
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write the report here, and its signature beside it."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: report and signature.")
def verify_engine(state: Path, trust: tuple[Path, ...], out: Path | None, *, as_json: bool) -> None:
    """Score the golden frames with the engine that the station would use, and sign the outcome.

    The signature is minisign's: minisign -Vm REPORT -p STATE/station.pub
    """
    if out is not None:
        refuse_other(out, EngineReport.model_fields["schema_"].default)
        refuse_other(_signature_of(out), _COMMENT)
    folder = StationFolder(state)
    bundle = open_bundle(folder.installed(), trusted_keys(trust))
    report = make_report(folder, bundle)
    body = report.model_dump(mode="json", by_alias=True)
    key = station_key(folder)
    signature = key.sign(canonical_json(body), comment=f"{_COMMENT} bundle={bundle.sha256[:16]}")
    if out is not None:
        _write(out, canonical_json(body), signature)
    _tell(report, key)
    if as_json:
        click.echo(json.dumps({"report": body, "signature": signature}))
    if not report.passed:
        raise EngineError(
            "the engine did not pass",
            where=bundle.path,
            cure="see above; docs/tensorrt.md lists what may be wrong",
        )


def make_report(folder: StationFolder, bundle: Bundle) -> EngineReport:
    """Choose the engine as the station does and score the golden frames; a fault becomes part of the report."""
    manifest = bundle.manifest
    facts: dict[str, Any] = {
        "created_ms": now_ms(),
        "bundle_sha256": bundle.sha256,
        "model": f"{manifest.product}-{manifest.version}",
        "machine": platform.platform(),
    }
    try:
        choice = choose_engine(folder, bundle, _calibrated_precision(folder, bundle))
        with closing(choice.loaded()) as engine:
            check = check_golden(engine, bundle)
    except KenpinError as error:
        return EngineReport(**facts, passed=False, fault=error.in_one_line)
    # Who runs this on a station with TensorRT wants to know of it, although the line starts without as usual.
    note = choice.note or choice.no_gpu
    return EngineReport(
        **facts,
        passed=check.passed and not note,
        note=note,
        runtime=engine.runtime,
        precision=engine.precision,
        engine=choice.passport,
        tolerance=check.tolerance,
        frames=check.scores,
    )


def _calibrated_precision(folder: StationFolder, bundle: Bundle) -> Precision | None:
    record = newest_for(station_records(folder), bundle.sha256)
    return record.precision if record is not None else None


def _signature_of(out: Path) -> Path:
    return out.with_name(out.name + ".minisig")


def _write(out: Path, body: bytes, signature: str) -> None:
    try:
        replace_synced(out, body)
        replace_synced(_signature_of(out), signature.encode())
    except OSError as error:
        raise ConfigError(
            f"cannot write the report: {error.strerror}", where=out, cure="choose another place, or make room"
        ) from None


def _tell(report: EngineReport, key: SecretKey) -> None:
    lines = []
    if report.runtime is not None:
        worst = max(frame.difference for frame in report.frames)
        lines.append(
            f"{'passed' if report.passed else 'FAILED'}: {report.model}, {report.precision} on "
            f"{report.runtime}, {len(report.frames)} golden frames, the worst off by {worst:.3g} "
            f"(tolerance {report.tolerance:.3g})"
        )
    lines += [f"FAILED: {report.fault}"] if report.fault else []
    lines += [f"FAILED: ONNX Runtime runs instead of TensorRT: {report.note}"] if report.note else []
    click.echo("\n".join([*lines, f"signed with the station's key {key.public.name}"]), err=True)
