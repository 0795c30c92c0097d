"""What an export found, as tables on the terminal and as one document."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from kenpin.export.compress import LIMITS, Compressed
from kenpin.export.gate import CONFIDENCE, Judgement
from kenpin.export.parity import WEAK_SQNR_DB, Parity
from kenpin.export.pipeline import Exported


def parity_table(parity: Parity, *, precision: str) -> Table:
    """Torch, ONNX in float and what becomes `model.onnx`, on the same pictures."""
    table = Table(title=f"{parity.pictures} pictures not trained on", show_header=False)
    for name, value in parity.auroc.items():
        table.add_row(f"AUROC {precision if name == 'int8' else name}", f"{value:.4f}")
    table.add_row("ONNX against torch, largest difference of an output", f"{parity.onnx_relative:.1e}")
    if precision == "fp32":
        return table
    shift = parity.int8_shift
    table.add_row("INT8 against float, score: largest / 99 % below", f"{shift.max:.4f} / {shift.p99:.4f}")
    decibels = " / ".join(f"{parity.sqnr_db[name]:.1f} dB" for name in ("score", "anomaly_map"))
    table.add_row("INT8 signal to noise, score / map", decibels)
    if parity.sqnr_db["anomaly_map"] < WEAK_SQNR_DB:
        table.add_row("", "weak: calibrate with the model that the station runs, as kenpin does")
    return table


def gate_table(compressed: Compressed, *, passing: str) -> Table:
    """What the gate found, at a threshold that so many good parts stay below."""
    found, first = compressed.settled.judgement, compressed.settled.at_first
    unseen, returned = compressed.settled.unseen.judgement, compressed.settled.unseen.returned
    convs, floats = compressed.settled.placement.convs, compressed.settled.placement.floats
    table = Table(title=f"accuracy gate: {found.pictures} pictures, INT8 against float", show_header=False)
    table.add_row("operating point", f"{found.threshold:.4f}, which {passing} stay below")
    table.add_row("verdicts that change", _flips(found))
    table.add_row(f"  of {unseen.pictures} that chose nothing", _flips(unseen))
    if len(floats) > returned:
        table.add_row("  because of them", f"{len(floats) - returned} more convolutions were returned to float")
    proof = (
        f"at most {100 * unseen.flip_bound:.2g} % of such pictures, with {100 * CONFIDENCE:.0f} % confidence"
    )
    table.add_row("  what that proves", proof)
    if unseen.flip_bound > LIMITS.flip_share:
        table.add_row("", f"too few pictures to prove {100 * LIMITS.flip_share:g} %")
    table.add_row("  nearly changed", f"{found.near}; the nearest score is {found.nearest:.4f} away")
    table.add_row(f"AUROC over {found.auroc_over}", f"changes by {found.auroc_points:.2f} points")
    if floats:
        before = f"{_flips(first)}; AUROC {first.auroc_points:.2f} points"
        table.add_row("with every convolution in INT8", before)
    table.add_row("convolutions", f"{len(convs)} in INT8, {len(floats)} returned to float")
    table.add_row("ranges", compressed.choice.method)
    return table


def layer_table(compressed: Compressed) -> Table:
    """Each convolution: what it costs alone in INT8, and what it became."""
    table = Table(title="each convolution alone in INT8, the most sensitive first")
    for column in ("convolution", "map", "largest shift of the score", "risk", "is now"):
        table.add_column(column, justify="left" if column in ("convolution", "is now") else "right")
    for layer in compressed.layers_json():
        cells = (f"{layer['map_sqnr_db']:.1f} dB", f"{layer['largest_shift']:.4f}", f"{layer['risk']:.1e}")
        table.add_row(layer["name"], *cells, layer["precision"])
    return table


def document(exported: Exported) -> dict[str, Any]:
    """The figures of an export, for `--json`."""
    compressed = exported.compressed
    size, float_size = exported.model_bytes
    figures = {
        "quantized_convs": len(compressed.settled.placement.convs) if compressed else 0,
        "golden_tolerance": exported.golden_tolerance,
        "model_bytes": size,
        "float_model_bytes": float_size,
        "parity": exported.parity.to_json(),
        "gate": None,
    }
    if compressed is None:
        return {"precision": "fp32", **figures}
    how = compressed.to_json()
    told = ("precision", "weights", "layers", "range_choice", "taps_sqnr_db", "gate")
    return {**figures, **{name: how[name] for name in told}}


def _flips(found: Judgement) -> str:
    return (
        f"{found.flips}: {found.new_escapes} new escapes, {found.new_false_calls} new false calls, "
        f"{found.other_flips} the other way"
    )
