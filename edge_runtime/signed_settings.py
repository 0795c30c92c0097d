"""The settings of the cameras that a calibration was signed for: limits hold for pictures like those alone."""

from __future__ import annotations

from collections.abc import Mapping

from kenpin.edge_runtime.source import Settings
from kenpin.record import CalibrationRecord


def set_otherwise(record: CalibrationRecord, cameras: Mapping[str, Settings]) -> str:
    """Which setting of a camera is not as at the sign-off, in words; empty where all are.

    Args:
        record: The calibration record in force.
        cameras: How each camera is set, by its name.
    """
    for camera, signed in record.cameras.items():
        now = cameras.get(camera, {})
        for name in sorted(signed.keys() | now.keys()):
            if signed.get(name) != now.get(name):
                changed = f"{name} {signed.get(name, 'unknown')} -> {now.get(name, 'unknown')}"
                return (
                    f"{camera} is set otherwise than at the sign-off: {changed}; set it back, or calibrate "
                    "again with: kenpin calibrate fit"
                )
    return ""
