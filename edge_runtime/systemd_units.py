"""The systemd units of a station, with as few rights as each process can do with.

Only directives that systemd 249 (Ubuntu 22.04) knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MARK = "# Written by kenpin service install; changes are lost with the next one.\n"
TARGET = "kenpin.target"

# For every process.
_HARDENED = """NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectProc=invisible
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
UMask=0077
LimitCORE=0
KeyringMode=private
"""
# For what touches no device: no device nodes, no writable code, users of its own.
_NO_DEVICES = """PrivateDevices=yes
PrivateUsers=yes
MemoryDenyWriteExecute=yes
ProcSubset=pid
SystemCallFilter=~@privileged @resources
"""
# Every event says whether the clock can be believed. ProtectClock and @system-service forbid asking, too;
# setting it is out of reach without a capability. Comes last: ~@privileged would take it away again.
_ASKS_CLOCK = "SystemCallFilter=adjtimex clock_adjtime\n"
# The page gives way to the station by SCHED_IDLE, which RestrictRealtime lets through.
_STEPS_BACK = "SystemCallFilter=sched_setscheduler\n"
_CAMERA_AND_GPU = """DevicePolicy=closed
SupplementaryGroups=video render
"""
# NVIDIA's camera daemon listens at /tmp/argus_socket; a bind mount of that would not outlive the daemon.
_CSI = "PrivateTmp=no\n"
# A disk that is full at the boot, a network that is slower than the station after a power cut: a line must come
# back by itself when that is over, and alerts must go out again; nothing is released meanwhile.
_NEVER_GIVEN_UP = "StartLimitIntervalSec=0\n"
_LOCAL_ONLY = "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\nIPAddressDeny=any\nIPAddressAllow=localhost\n"
_NETWORK = "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\n"
_NO_NETWORK = "RestrictAddressFamilies=AF_UNIX\nIPAddressDeny=any\n"


@dataclass(frozen=True)
class Installation:
    """What the units run.

    Attributes:
        kenpin: The program.
        config: The station's file.
        state: The station's folder.
        log: File of `[output] log`; `None` = none.
        user: Who runs it.
        roles: The station's processes, as `StationConfig.roles`.
        devices: Device nodes of cameras and GPU.
        network_cameras: Whether a camera is reached over the network.
        csi_cameras: Whether a camera is one of a Jetson's own sensors.
        lan_output: Whether the station listens for a PLC on the network.
        page: Whether to serve the technician's page, and if so whether to other machines; empty = no page.
    """

    kenpin: Path
    config: Path
    state: Path
    log: Path | None
    user: str
    roles: Sequence[str]
    devices: Sequence[str]
    network_cameras: bool
    csi_cameras: bool
    lan_output: bool
    page: Literal["", "local", "network"] = ""


def unit_name(role: str) -> str:
    """The unit of a process; cameras share one, `kenpin-capture@.service`."""
    return f"kenpin-{role.replace('capture-', 'capture@')}.service"


def make_units(installation: Installation) -> Mapping[str, str]:
    """File names and contents."""
    rights = _CAMERA_AND_GPU + "".join(f"DeviceAllow={node} rw\n" for node in installation.devices)
    more = "TasksMax=128\n" + (f"ReadWritePaths={installation.log.parent}\n" if installation.log else "")
    services = [unit_name(role) for role in installation.roles]
    units = {
        "kenpin-station.service": _service(
            installation,
            "station",
            rights + (_NETWORK if installation.lan_output else _LOCAL_ONLY),
            more,
        ),
        "kenpin-capture@.service": _service(
            installation,
            "capture-%i",
            rights
            + (_CSI if installation.csi_cameras else "")
            + (_NETWORK if installation.network_cameras else _NO_NETWORK),
            "WatchdogSec=5\nTasksMax=64\n",
        ),
    }
    if "health" in installation.roles:
        units["kenpin-health.service"] = _service(
            installation, "health", _NO_DEVICES + _LOCAL_ONLY, "CPUWeight=20\nMemoryMax=256M\nTasksMax=64\n"
        )
    if "publisher" in installation.roles:
        units["kenpin-publisher.service"] = _service(
            installation,
            "publisher",
            _NO_DEVICES + _NETWORK,
            "MemoryMax=256M\nTasksMax=32\nTimeoutStopSec=20\n",
        )
    if installation.page:
        services.append("kenpin-web.service")
        units["kenpin-web.service"] = _service(
            installation,
            "web",
            _NO_DEVICES + _STEPS_BACK + (_NETWORK if installation.page == "network" else _LOCAL_ONLY),
            "CPUWeight=20\nMemoryMax=512M\nTasksMax=64\n",
        )
    wants = " ".join(services)
    units[TARGET] = (
        f"{MARK}[Unit]\nDescription=kenpin inspection station\nWants={wants}\n\n"
        "[Install]\nWantedBy=multi-user.target\n"
    )
    return units


def _service(installation: Installation, role: str, rights: str, more: str) -> str:
    # Who listens at an address of the network can do so only when the machine has it.
    listens = (role == "station" and installation.lan_output) or (role, installation.page) == ("web", "network")
    network = "network-online.target\nWants=network-online.target" if listens else "network.target"
    kind, verb = "Type=notify\nNotifyAccess=main\nWatchdogSec=10", f"run --role {role}"
    if role == "web":
        kind, verb = "Type=exec", "web"
    return f"""{MARK}[Unit]
Description=kenpin {role}
PartOf={TARGET}
After={network}
{_NEVER_GIVEN_UP}
[Service]
{kind}
ExecStart={installation.kenpin} {verb} --config {installation.config}
User={installation.user}
Restart=always
RestartSec=2
TimeoutStartSec=180
ReadWritePaths={installation.state}
RuntimeDirectory=kenpin
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes
{_HARDENED}{rights}{_ASKS_CLOCK}{more}
[Install]
WantedBy={TARGET}
"""
