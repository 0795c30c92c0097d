"""Export models and show whether INT8 may take the place of float.

    python scripts/check_export.py [DIR…] [--size 128] [--steps 60] [--precision int8]

Each DIR is a folder of pictures, which a short training is done on, or a finished run. Without one a part is
drawn. It shows the audit, NVIDIA's builder, the fidelity, the accuracy gate and the time, and ends with 1
where an export, the audit or the builder fails.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import cv2
from onnx import ModelProto
from rtx_build import build_with_rtx, has_rtx

from kenpin.bundle import MODEL, open_bundle
from kenpin.commit import git_commit
from kenpin.errors import KenpinError
from kenpin.export.audit import find_faults
from kenpin.machine_state import processor
from kenpin.signing import PublicKey
from kenpin.synthetic import draw_part

# Of export, quantisation and gate of one model, on two cores.
MOST_SECONDS = 90.0
DRAWN = (("train/good", 120, 0.0), ("test/good", 40, 0.0), ("test/bad", 40, 1.0))


def main() -> None:
    """Check each folder; ends with 1 where one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--size", default="128")
    parser.add_argument("--steps", default="60")
    parser.add_argument("--precision", default="int8", choices=("int8", "fp16", "fp32"))
    options = parser.parse_args()
    click.echo(f"{processor()}, {datetime.now(tz=timezone.utc):%Y-%m-%d}, commit {git_commit()}")
    fine = True
    with tempfile.TemporaryDirectory() as scratch:
        for number, folder in enumerate(options.folders or [draw(Path(scratch) / "drawn cap")]):
            click.echo(f"\n== {folder.name}")
            home = Path(scratch) / str(number)
            home.mkdir()
            fine &= check(folder, home, options)
    sys.exit(0 if fine else 1)


def draw(folder: Path) -> Path:
    """A folder of drawn parts."""
    for seed, (part, count, share) in enumerate(DRAWN):
        (folder / part).mkdir(parents=True)
        for index in range(count):
            image = draw_part("cap", seed=seed, index=index, defect_share=share).image
            cv2.imwrite(str(folder / part / f"{index:03}.png"), image)
    return folder


def check(folder: Path, home: Path, options: argparse.Namespace) -> bool:
    """Train where needed, export, and show what came out."""
    run = folder if (folder / "config.json").exists() else home / "run"
    if run != folder:
        short = ["--size", options.size, "--steps", options.steps]
        trained = kenpin("train", "--data", str(folder), "--run", str(run), *short)
        if trained is None:
            return False
        click.echo(f"training        {trained['seconds']:.0f} s")
    key, bundle = home / "signing.key", home / "part.kenpin"
    kenpin("bundle", "keygen", "--out", str(key))
    made = ["--out", str(bundle), "--key", str(key), "--precision", options.precision]
    exported = kenpin("export", str(run), *made)
    if exported is None:
        return False
    found = open_bundle(bundle, [PublicKey.load(key.with_suffix(".pub"))])
    model, how = ModelProto.FromString(found.files[MODEL]), found.manifest.quantization
    sound = options.precision == "fp32" or audited(model, how)
    built = built_by_nvidia(model)
    show_fidelity(exported)
    slow = ": SLOW, or the machine is busy" if exported["seconds"] > MOST_SECONDS else ""
    click.echo(
        f"time            {exported['seconds']} s for export, INT8 and gate, {MOST_SECONDS:g} wanted{slow}"
    )
    return sound and built


def kenpin(*arguments: str) -> dict[str, Any] | None:
    """Run a kenpin command; its document, or none where it failed."""
    wanted = ["--json"] if arguments[0] != "bundle" else []
    command = [sys.executable, "-m", "kenpin", *arguments, *wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        click.echo(f"FAILED          kenpin {arguments[0]}\n{done.stderr.strip()[-2000:]}")
        return None
    document: dict[str, Any] = json.loads(done.stdout) if wanted else {}
    return document


def audited(model: ModelProto, how: dict[str, Any]) -> bool:
    """Show whether every rule of placement holds."""
    faults = list(find_faults(model, floats=how["floats"]))
    click.echo(f"audit           {len(how['convs'])} INT8 convolutions, {len(faults)} rules broken")
    for fault in faults:
        click.echo(f"                {fault}")
    return not faults


def built_by_nvidia(model: ModelProto) -> bool:
    """Show whether NVIDIA's own builder takes it."""
    if not has_rtx():
        click.echo("NVIDIA          TensorRT-RTX is not installed: pip install 'kenpin[rtx-check]'")
        return True
    built = build_with_rtx(model)
    size = f"an engine of {built.engine_bytes / 1e6:.1f} MB" if built.engine_bytes else "no engine"
    click.echo(f"NVIDIA          TensorRT-RTX {built.version}: {size} {' '.join(built.complaints)}")
    return built.engine_bytes > 0


def show_fidelity(exported: dict[str, Any]) -> None:
    """Show figures of INT8 against float."""
    parity, gate = exported["parity"], exported["gate"]
    share = exported["model_bytes"] / exported["float_model_bytes"]
    click.echo(f"size            {exported['model_bytes'] / 1e6:.2f} MB, {share:.2f} of float")
    if parity["auroc"]:
        auroc = parity["auroc"]
        click.echo(f"AUROC           float {auroc['onnx']:.4f}, {exported['precision']} {auroc['int8']:.4f}")
    if gate is None:
        return
    for stride, tap in zip((8, 16), exported["taps_sqnr_db"], strict=True):
        click.echo(f"stride {stride:<9}{tap['places']:.1f} dB at single places, {tap['pooled']:.1f} dB pooled")
    decibels, ranges = parity["sqnr_db"]["anomaly_map"], exported["range_choice"]["method"]
    click.echo(f"anomaly map     {decibels:.1f} dB, ranges by {ranges}")
    for title, found in (
        ("gate", gate),
        ("  did not choose", gate["unseen"]),
        ("  all in INT8", gate["with_every_convolution_in_int8"]),
    ):
        proof = f" (which proves at most {100 * found['flip_bound']:.2g} %)" if found["flip_bound"] else ""
        click.echo(
            f"{title:<16} {found['flips']} of {found['pictures']} verdicts change{proof}, "
            f"AUROC by {found['auroc_points']:.2f} points"
        )
    floats = [layer["name"] for layer in exported["layers"] if layer["precision"] != "int8"]
    returned = gate["unseen"]["returned_to_float"]
    click.echo(
        f"                 returned to float: {', '.join(floats) or 'none'}; by half of the pictures {returned}"
    )


if __name__ == "__main__":
    try:
        main()
    except KenpinError as error:
        sys.exit(str(error))
