"""What the doctor looks at in systemd: the units that `kenpin service install` made."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from kenpin.config import StationConfig
from kenpin.counted import counted
from kenpin.edge_runtime.doctor import Check, Diagnosis, failed, passed, warned
from kenpin.edge_runtime.systemd_units import unit_name

_SYSTEMD = Path("/run/systemd/system")


def service_check(config: StationConfig) -> Check:
    """The check whether the station starts at boot, and all of its units run.

    Args:
        config: Its configuration.
    """
    return Check("service", lambda: _service(config))


def _service(config: StationConfig) -> Diagnosis:
    if shutil.which("systemctl") is None or not _SYSTEMD.exists():
        return warned("this machine does not run systemd", "start kenpin run by other means at boot")
    # The target is what is enabled; the services are started for it, and are never enabled themselves.
    if [unit.get("UnitFileState") for unit in _shown("kenpin.target", "UnitFileState")] != ["enabled"]:
        cure = "kenpin service install --config FILE, then sudo systemctl enable --now kenpin.target"
        return warned("not installed, or not started at boot", cure)
    units = _shown("kenpin-*.service", "Id,ActiveState,NRestarts")
    away = [f"{unit['Id']} is {unit['ActiveState']}" for unit in units if unit["ActiveState"] != "active"]
    if away or not units:
        cure = (
            "journalctl -u 'kenpin-*' -n 50; what fails is tried again by itself once that is mended, "
            "what was stopped needs sudo systemctl start kenpin.target"
        )
        return failed(", ".join(away) or "no unit is started", cure)
    missing = {unit_name(role) for role in config.roles} - {unit["Id"] for unit in units}
    if missing:
        cure = (
            "sudo kenpin service install --config FILE --user USER, sudo systemctl daemon-reload, "
            "then stop and start kenpin.target"
        )
        words = f"the units are of another configuration: {', '.join(sorted(missing))} is missing"
        return failed(words, cure)
    restarts = sum(int(unit["NRestarts"]) for unit in units)
    return passed(f"{len(units)} units are active, {counted(restarts, 'restart')}")


def _shown(units: str, properties: str) -> list[dict[str, str]]:
    """What systemd says of units, one dictionary each."""
    command = ["systemctl", "show", units, "-p", properties]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    blocks = (block for block in done.stdout.split("\n\n") if block.strip())
    return [dict(line.partition("=")[::2] for line in block.splitlines()) for block in blocks]
