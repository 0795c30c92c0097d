"""The engine's passport: what an engine was built from, with and for."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from kenpin.canonical_json import canonical_json
from kenpin.precision import Precision


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Target:
    """What an engine depends on: with any other value it is another engine.

    Attributes:
        bundle_sha256: Identity of the bundle.
        precision: Which of its models.
        tensorrt: Version of TensorRT.
        gpu: Name of the GPU.
        compute_capability: Of the GPU, like 8.7.
        multiprocessors: Of the GPU; modules of one family differ in it, and have one name on a Jetson.
    """

    bundle_sha256: str
    precision: Precision
    tensorrt: str
    gpu: str
    compute_capability: str
    multiprocessors: int

    @property
    def key(self) -> str:
        """Name of the engine's folder."""
        return hashlib.sha256(canonical_json(asdict(self))).hexdigest()[:32]


class Layers(_Strict):
    """Which layers really run in INT8, as TensorRT's inspector tells.

    Attributes:
        total: Number of layers; 0 where the inspector could not be read.
        int8: Names of the layers whose input is INT8, without those that only change a format.
        float_convolutions: Names of the convolutions that run in something else.
    """

    total: int = 0
    int8: tuple[str, ...] = ()
    float_convolutions: tuple[str, ...] = ()


class Passport(_Strict):
    """Content of `passport.json` below `passport`.

    Attributes:
        bundle_sha256: Identity of the bundle that the engine was built from.
        model: Product and version of that bundle.
        precision: Which of its models.
        tensorrt: Version of TensorRT.
        cuda: Newest CUDA version that the driver serves.
        driver: Version of the GPU's kernel driver; empty where it is not told.
        l4t: Release of Jetson Linux; empty elsewhere.
        gpu: Name of the GPU.
        compute_capability: Of the GPU, like 8.7.
        multiprocessors: Of the GPU.
        built_ms: UTC, milliseconds since 1970.
        build_s: How long the build took.
        layers: Which layers really run in INT8.
        software: Version of kenpin.
        plan_bytes: Size of the engine.
        plan_sha256: SHA-256 of the engine.
    """

    schema_: Literal["kenpin.engine.v1"] = Field(default="kenpin.engine.v1", alias="schema")
    bundle_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    model: str
    precision: Precision
    tensorrt: str
    cuda: str
    driver: str
    l4t: str
    gpu: str
    compute_capability: str
    multiprocessors: int
    built_ms: int
    build_s: float
    layers: Layers
    software: str
    plan_bytes: int = Field(gt=0)
    plan_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @property
    def target(self) -> Target:
        """What the engine was built for."""
        return Target(**{field.name: getattr(self, field.name) for field in fields(Target)})


def differences(built: Target, wanted: Target) -> str:
    """In words, what makes an engine another one than the one that is wanted."""
    words = {
        "bundle_sha256": "bundle",
        "precision": "precision",
        "tensorrt": "TensorRT",
        "gpu": "GPU",
        "compute_capability": "compute capability",
        "multiprocessors": "multiprocessors",
    }
    other = [
        f"{words[name]} {str(had)[:16]}, not {str(getattr(wanted, name))[:16]}"
        for name, had in asdict(built).items()
        if had != getattr(wanted, name)
    ]
    return "the engine was built for " + "; ".join(other)
