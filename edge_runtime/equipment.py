"""What a station is made of, as `meta` tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kenpin import __version__
from kenpin.config import Results
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.decide import Model
from kenpin.edge_runtime.room import Room
from kenpin.events import Meta, now_ms
from kenpin.record import CalibrationRecord


@dataclass(frozen=True, kw_only=True)
class Equipment:
    """Everything; empty = not there or not known.

    Attributes:
        git_version: Commit of the program.
        jetpack: Version of NVIDIA's system.
        tensorrt: Version of TensorRT.
        engine_sha256: Of the engine's plan.
        model: What scores the parts.
        signature_key_id: The key that signed the bundle.
        dataset_sha256: Of the list of pictures that the model was trained on.
        record: What judges the parts.
        cameras: Names of the cameras.
        alarms: Keys of the alarms.
        room: What events may take on the disk.
        results: Which parts are told one by one.
    """

    git_version: str = ""
    jetpack: str = ""
    tensorrt: str = ""
    engine_sha256: str = ""
    model: Model | None = None
    signature_key_id: str = ""
    dataset_sha256: str = ""
    record: CalibrationRecord | None = None
    cameras: Sequence[str] = ()
    alarms: Sequence[str] = ()
    room: Room = field(default_factory=Room)
    results: Results = "off"

    def meta(self, identity: Identity) -> Meta:
        """The retained payload; to be set at the start, and whenever a model or a threshold has changed.

        Args:
            identity: Who speaks.
        """
        return Meta(
            **identity.common(now_ms()),
            sw_version=__version__,
            git_version=self.git_version,
            jetpack=self.jetpack,
            tensorrt=self.tensorrt,
            engine_sha256=self.engine_sha256,
            engine_precision=self.model.precision if self.model else "",
            model_id=self.model.name if self.model else "",
            model_sha256=self.model.bundle_sha256 if self.model else "",
            signature_key_id=self.signature_key_id,
            threshold_rev=self.record.rev if self.record else 0,
            dataset_sha256=self.dataset_sha256,
            camera_ids=",".join(self.cameras),
            alarm_keys=",".join(self.alarms),
            outbox_max_bytes=self.room.max_bytes,
            outbox_min_free_bytes=self.room.min_free_bytes,
            results=self.results,
        )
