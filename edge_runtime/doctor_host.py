"""What the doctor looks at on any machine: the host and its Python."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

from kenpin import tensorrt_seam
from kenpin.counted import counted
from kenpin.driver import RELEASE, is_jetson
from kenpin.edge_runtime.clock import clock_is_synchronised
from kenpin.edge_runtime.doctor import Check, Diagnosis, failed, passed, warned
from kenpin.errors import EngineError
from kenpin.machine_state import read_state

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_HOT_C = 85.0
_LEAST_FREE = 2_000_000_000
_LEAST_FILES = 10_000
_LEAST_MEMORY = 500_000_000
FEWER_FILES = "remove files, however small they are: sudo du -x --inodes --max-depth=2 / | sort -n | tail"


def host_checks(folder: Path) -> list[Check]:
    """Checks of the host and of Python.

    Args:
        folder: Where the free space counts.
    """
    return [
        Check("machine", _machine),
        Check("disk", lambda: _disk(folder)),
        Check("memory", _memory),
        Check("temperature", _temperature),
        Check("power mode", lambda: power_mode(_GOVERNOR)),
        Check("clock", _clock),
        Check("OpenCV", _opencv),
        Check("OpenCV GStreamer", _gstreamer),
        Check("engine runtime", _runtime),
    ]


def _machine() -> Diagnosis:
    words = f"{platform.machine()}, Python {platform.python_version()}, {counted(os.cpu_count() or 1, 'core')}"
    if is_jetson():
        words += f", {RELEASE.read_text().splitlines()[0]}"
    if platform.python_version_tuple() < ("3", "11"):
        cure = "Python 3.10 gets no more security fixes; JetPack 7.2 brings 3.12"
        return warned(words, cure)
    return passed(words)


def _disk(folder: Path) -> Diagnosis:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    words = f"{free / 1e9:.1f} GB free at {folder}"
    if (files := files_left(folder)) < _LEAST_FILES:
        return warned(f"{words}, but room for {files:,} more files only (inodes)", FEWER_FILES)
    if free < _LEAST_FREE:
        return warned(words, "make room, or lower max_mb in [evidence]")
    return passed(words)


def files_left(folder: Path) -> int:
    """How many files can still be made on a folder's file system; many where it does not count them."""
    found = os.statvfs(folder)
    return found.f_favail if found.f_files else sys.maxsize


def _memory() -> Diagnosis:
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    words = f"{available / 1e9:.1f} GB available"
    if available < _LEAST_MEMORY:
        return warned(words, "stop other programs; a station needs about 0.5 GB")
    return passed(words)


def _temperature() -> Diagnosis:
    hottest = read_state().get("temperature_c")
    if hottest is None:
        return passed("this machine does not tell")
    words = f"{hottest:.0f} degrees at the hottest place"
    if float(hottest) >= _HOT_C:
        return warned(words, "clean the fan and heat sink; a hot machine slows down")
    return passed(words)


def power_mode(governor: Path) -> Diagnosis:
    """Whether the machine runs as fast as it can all the time; a Jetson's mode by its own tool.

    Args:
        governor: Where Linux tells who chooses the speed of the first core.
    """
    try:
        chosen_by = governor.read_text().strip()
    except OSError:
        chosen_by = ""
    words = f"cores by {chosen_by}" if chosen_by else "this machine does not tell"
    mode = str(read_state().get("power_mode", ""))
    if mode:
        words = f"{mode}, {words}"
    if chosen_by == "powersave":
        cure = "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        return warned(f"{words}: they are kept slow", cure)
    if mode and "MAXN" not in mode:
        # Its number differs: 0 on an AGX Orin, 2 on an Orin Nano.
        cure = (
            "find the number of MAXN with nvpmodel -p --verbose, then sudo nvpmodel -m NUMBER, if power supply "
            "and cooling allow it; then measure: kenpin bench engine"
        )
        return warned(words, cure)
    return passed(words)


def _clock() -> Diagnosis:
    now = datetime.now(timezone.utc)
    told = (
        f"{now:%Y-%m-%d %H:%M} UTC, {now.astimezone():%H:%M %Z} here"  # a wrong zone is seen by a person only
    )
    if clock_is_synchronised():
        return passed(f"synchronised, {told}")
    cure = "timedatectl set-ntp true, or ask for the plant's time server; events say clock_ok = false meanwhile"
    return warned(f"not synchronised, {told}", cure)


def owners_of_cv2(distributions: Iterable[importlib.metadata.Distribution]) -> list[str]:
    """Installed packages that bring a folder cv2; two of them overwrite each other."""
    found = set()
    for distribution in distributions:
        name = distribution.metadata["Name"] or ""
        if re.fullmatch(r"opencv[-_](contrib[-_])?python([-_]headless)?", name, re.IGNORECASE):
            found.add(name)
    return sorted(found)


def _opencv() -> Diagnosis:
    import cv2  # noqa: PLC0415 - a broken one is a finding

    if not hasattr(cv2, "imread"):
        cure = "pip uninstall every opencv package, then install one again"
        return failed("it is broken: a part of it was removed", cure)
    owners = owners_of_cv2(importlib.metadata.distributions())
    words = f"{cv2.__version__} of {', '.join(owners) or 'the system'}"
    if len(owners) > 1:
        cure = f"pip uninstall {' '.join(owners)}, then install one of them again"
        return failed(f"{words}: they overwrite each other", cure)
    return passed(words)


def _gstreamer() -> Diagnosis:
    import cv2  # noqa: PLC0415 - as above

    has = re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()) is not None
    if has:
        return passed("yes: CSI cameras work")
    if is_jetson():
        cure = "pip uninstall opencv-python-headless; apt install python3-opencv"
        return warned("no: CSI cameras do not work", cure)
    return passed("no; only CSI cameras need it")


def _runtime() -> Diagnosis:
    found = []
    if tensorrt_seam.is_installed():
        found.append("TensorRT")
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found.append(f"ONNX Runtime {importlib.metadata.version('onnxruntime')}")
    if not found:
        return failed("nothing here runs a model", "pip install 'kenpin[edge]'")
    if is_jetson() and "TensorRT" not in found:
        return warned(f"{', '.join(found)}, but no TensorRT", tensorrt_seam.INSTALL)
    fault = _fault_of_tensorrt() if "TensorRT" in found else None
    if fault is not None:
        return warned(f"{', '.join(found)}, but without TensorRT: {fault.what}", fault.cure)
    return passed(", ".join(found))


def _fault_of_tensorrt() -> EngineError | None:
    """Why what is installed cannot be used: a station that never had an engine only logs it."""
    from kenpin.edge_runtime.device import Device  # noqa: PLC0415 - only where there is TensorRT

    try:
        # The device first: without a driver TensorRT crashes.
        with Device():
            tensorrt_seam.load_tensorrt()
    except EngineError as error:
        return error
    return None
