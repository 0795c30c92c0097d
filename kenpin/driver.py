"""The software below CUDA on this machine."""

from __future__ import annotations

import re
from pathlib import Path

DRIVER = Path("/proc/driver/nvidia/version")
RELEASE = Path("/etc/nv_tegra_release")


def driver_version(path: Path = DRIVER) -> str:
    """Version of NVIDIA's kernel driver, like 540.4.0; empty where it is not told."""
    found = re.search(r"Kernel Module(?: for \S+)?\s+([0-9]+(?:\.[0-9]+)+)", _text(path))
    return found[1] if found else ""


def is_jetson(path: Path = RELEASE) -> bool:
    """Whether this machine runs Jetson Linux."""
    return path.exists()


def l4t_release(path: Path = RELEASE) -> str:
    """Release of Jetson Linux, like 36.4.3; empty on other machines."""
    found = re.search(r"R([0-9]+) \(release\), REVISION: ([0-9.]+)", _text(path))
    return f"{found[1]}.{found[2]}" if found else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
