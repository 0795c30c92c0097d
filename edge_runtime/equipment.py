"""What a station is made of, as `meta` tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kenpin import __version__
from kenpin.commit import git_commit
from kenpin.config import Results
from kenpin.driver import l4t_release
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.decide import Model
from kenpin.edge_runtime.room import DEFAULT_MAX_BYTES, DEFAULT_MIN_FREE_BYTES
from kenpin.events import Meta, now_ms
from kenpin.record import CalibrationRecord


@dataclass(frozen=True, kw_only=True)
class Equipment:
    """Everything that is known here; empty = not there.

    Attributes:
        model: What scores the parts.
        record: What judges the parts.
        cameras: Names of the cameras.
        alarms: Keys of the alarms.
        results: Which parts are told one by one.
    """

    model: Model | None = None
    record: CalibrationRecord | None = None
    cameras: Sequence[str] = ()
    alarms: Sequence[str] = ()
    results: Results = "off"

    def meta(self, identity: Identity) -> Meta:
        """The retained payload; to be set at the start, and whenever a model or a threshold has changed.

        Args:
            identity: Who speaks.
        """
        return Meta(
            **identity.common(now_ms()),
            sw_version=__version__,
            git_version=git_commit(),
            jetpack=l4t_release(),
            **(_of_model(self.model) if self.model else {}),
            threshold_rev=self.record.rev if self.record else 0,
            camera_ids=",".join(self.cameras),
            alarm_keys=",".join(self.alarms),
            outbox_max_bytes=DEFAULT_MAX_BYTES,
            outbox_min_free_bytes=DEFAULT_MIN_FREE_BYTES,
            results=self.results,
        )


def _of_model(model: Model) -> dict[str, Any]:
    return {
        "tensorrt": model.tensorrt,
        "engine_sha256": model.engine_sha256,
        "engine_precision": model.precision,
        "model_id": model.name,
        "model_sha256": model.bundle_sha256,
        "signature_key_id": model.signed_by,
        "dataset_sha256": model.dataset_sha256,
    }
