"""Put models, golden frames, figures and lineage into a signed bundle."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from kenpin import __version__
from kenpin.bundle import CARD, MODEL, MODEL_FP, TRAINED, write_bundle
from kenpin.commit import git_commit
from kenpin.errors import printable
from kenpin.events import now_ms
from kenpin.export.card import write_card
from kenpin.export.golden import GoldenFrames
from kenpin.export.outputs import Models
from kenpin.export.parity import Parity
from kenpin.picture_files import sha256_of
from kenpin.signing import SecretKey
from kenpin.train.card import started_from
from kenpin.train.run import RunFolder, learned_from
from kenpin.view import REFERENCE, looked_at

# The oldest station that understands what is written here.
MIN_RUNTIME = "0.1.0"


@dataclass(frozen=True)
class Label:
    """What a bundle is called.

    Attributes:
        product: Name of the part.
        version: Version of the bundle.
        floor: Oldest version that may run on a station after it; empty = any.
    """

    product: str
    version: str
    floor: str = ""


@dataclass(frozen=True)
class Content:
    """What goes into a bundle.

    Attributes:
        models: Float and INT8.
        golden: Golden frames.
        parity: Comparison of the forms of the model.
        score_stats: `mean`, `std`, `p99` and `count` of the INT8 score over held-back good pictures.
        quantization: How INT8 was made, and what the gate found.
    """

    models: Models
    golden: GoldenFrames
    parity: Parity
    score_stats: dict[str, float]
    quantization: dict[str, Any]


def pack(path: Path, *, run: RunFolder, content: Content, label: Label, key: SecretKey) -> str:
    """Write the bundle; returns its identity."""
    lineage = lineage_of(run)
    files = _files(run, content, label, lineage)
    return write_bundle(path, manifest=_manifest(run, content, label, lineage), files=files, key=key)


def _files(run: RunFolder, content: Content, label: Label, lineage: dict[str, Any]) -> dict[str, bytes]:
    config, sight = run.config, run.sight
    card = write_card(
        names=(label.product, label.version),
        shown=f"{looked_at(config.view)}, at {config.input_px} pixels",
        lineage=lineage,
        parity=content.parity,
        how=content.quantization,
    )
    files = {
        MODEL: content.models.int8.SerializeToString(deterministic=True),
        MODEL_FP: content.models.fp.SerializeToString(deterministic=True),
        CARD: card.encode(),
        **content.golden.files,
        **{name: (run.root / Path(name).name).read_bytes() for name in TRAINED},
    }
    return files | ({REFERENCE: sight.reference} if sight is not None and sight.reference else {})


def _manifest(run: RunFolder, content: Content, label: Label, lineage: dict[str, Any]) -> dict[str, Any]:
    config, sight = run.config, run.sight
    return {
        "product": label.product,
        "version": label.version,
        "created_ms": now_ms(),
        "min_runtime": MIN_RUNTIME,
        "floor": label.floor,
        "input_shape": (1, *config.input_shape, 3),
        "golden": content.golden.scores,
        "golden_tolerance": content.golden.tolerance,
        "golden_tolerance_fp": content.golden.tolerance_fp,
        "score_stats": content.score_stats,
        "lineage": lineage,
        "learned_from": sorted(learned_from(run.data)),
        "metrics": {"training": last_evaluation(run), "export": content.parity.to_json()},
        "quantization": content.quantization,
        "view": sight.view.model_dump(mode="json") if sight is not None else None,
    }


def lineage_of(run: RunFolder) -> dict[str, Any]:
    """Where a model comes from; no path of this machine."""
    config = run.config
    roles = Counter(row["role"] for row in run.data["pictures"])
    return {
        "run": printable(run.root.resolve().name),
        "seed": config.seed,
        "steps": config.steps,
        "width": config.width,
        "origin": printable(started_from(config)),
        "trained_at_commit": config.commit,
        "exported_at_commit": git_commit(),
        "kenpin": __version__,
        "torch": version_of("torch"),
        "onnxruntime": version_of("onnxruntime"),
        **{f"{role}_pictures": count for role, count in sorted(roles.items())},
        "data_sha256": sha256_of(run.root / "data.json"),
        "weights_sha256": _sha256_of_weights(run.root),
    }


def last_evaluation(run: RunFolder) -> dict[str, Any]:
    """The figures measured at the end of training; empty where there are none."""
    found: list[dict[str, Any]] = [line["evaluation"] for line in run.metrics() if "evaluation" in line]
    return found[-1] if found else {}


def _sha256_of_weights(root: Path) -> str:
    digest = hashlib.sha256()
    for name in ("encoder", "head"):
        digest.update((root / f"{name}.safetensors").read_bytes())
    return digest.hexdigest()
