"""What the speed of a machine hangs on: processor, power mode, clocks, temperature. Nothing is changed."""

from __future__ import annotations

import contextlib
import platform
import subprocess
from pathlib import Path

_SYS = Path("/sys")
_CPU = Path("/proc/cpuinfo")


def read_state(sys: Path = _SYS, cpuinfo: Path = _CPU) -> dict[str, str | float]:
    """Processor, clocks in MHz and the highest temperature in degrees Celsius; of a Jetson its mode and watts.

    What a machine does not have is left out.

    Args:
        sys: The kernel's `/sys`.
        cpuinfo: The kernel's `/proc/cpuinfo`.
    """
    found: dict[str, str | float] = {"cpu": processor(cpuinfo)}
    temperatures = [n / 1000 for n in _numbers(sys, "class/thermal/thermal_zone*/temp")]
    cpu = [n / 1000 for n in _numbers(sys, "devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")]
    # A Jetson's GPU is a devfreq device named after its address: 17000000.gpu.
    gpu = [n / 1e6 for n in _numbers(sys, "class/devfreq/*gpu*/cur_freq")]
    for name, values in (("temperature_c", temperatures), ("cpu_mhz", cpu), ("gpu_mhz", gpu)):
        if values:
            found[name] = max(values)
    if power_w := read_power_w(sys):
        found["power_w"] = power_w
    mode = _power_mode()
    return {**found, "power_mode": mode} if mode else found


def read_power_w(sys: Path = _SYS) -> float:
    """What a Jetson's module takes, watts: of its INA3221 the channel VDD_IN; 0 where there is none.

    Volts and amperes in thousandths: https://docs.kernel.org/hwmon/ina3221.html

    Args:
        sys: The kernel's `/sys`.
    """
    for label in sys.glob("class/hwmon/hwmon*/in[123]_label"):
        with contextlib.suppress(OSError):
            if label.read_text().strip() == "VDD_IN":
                channel = label.name.removeprefix("in").removesuffix("_label")
                millivolts = _numbers(label.parent, f"in{channel}_input")
                milliamperes = _numbers(label.parent, f"curr{channel}_input")
                return sum(millivolts) * sum(milliamperes) / 1e6
    return 0.0


def processor(cpuinfo: Path = _CPU) -> str:
    """Number and name of the processors."""
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} cores {names[0]}" if names else platform.machine()


def _numbers(root: Path, pattern: str) -> list[float]:
    numbers = []
    for path in root.glob(pattern):
        try:
            numbers.append(float(path.read_text()))
        except (OSError, ValueError):
            # Some sensors of a Jetson cannot be read while their part sleeps.
            continue
    return numbers


def _power_mode() -> str:
    """First line of `nvpmodel -q`, which only a Jetson has."""
    try:
        said = subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.stdout.strip().split("\n")[0]
