"""Health: how the station is, over HTTP on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable

from kenpin.config import StationConfig


def serve_health(config: StationConfig, stopping: Callable[[], bool]) -> None:
    """Answer until told to stop."""
    while not stopping():
        time.sleep(0.2)
