"""What a mosquitto broker (2.0 or newer) is told: who may connect, and who may publish and read what."""

from __future__ import annotations

import re
from pathlib import Path

from kenpin.edge_runtime.pki import AUTHORITY
from kenpin.errors import ConfigError

BROKER, ACL = "broker", "acl"
SCADA = "scada"
HOME_ASSISTANT = "homeassistant"  # a user, and the first level of its topics
PORT = 8883
ANY_LINE = "+/+/+/+"  # enterprise/site/area/line
_LEVEL = re.compile(r"\+|[A-Za-z0-9_.-]{1,64}")
# Below a station's own topic. Never cmd: who may write there commands the station.
_STATION_WRITES = (
    *("event/#", "alarm/#", "alarm_summary", "status", "meta", "camera/#", "kpi", "output", "reply/#"),
    "doctor/#",  # kenpin doctor: a message there and back
)
_STATION_READS = ("cmd/#", "doctor/#")
# Sparkplug B 3.0: the edge node is the station.
_NODE_WRITES = ("NBIRTH/%u", "NDATA/%u", "NDEATH/%u", "DBIRTH/%u/+", "DDATA/%u/+", "DDEATH/%u/+")
_NODE_READS = ("NCMD/%u", "DCMD/%u/+")
_HOST_WRITES = ("NCMD/+", "DCMD/+/+")
# Hosts say whether they are there; many still spell it as Sparkplug 2.2 did.
_HOST_STATES = ("spBv1.0/STATE/+", "STATE/+")
# Home Assistant: a station makes itself known; what it shows of one.
_DISCOVERY = f"{HOME_ASSISTANT}/device/%u/config"
_SHOWN = ("status", "alarm_summary", "alarm/#", "kpi")
# Largest packet in bytes: an event has 8 KiB at most, the birth of a Sparkplug node some more.
_MAX_PACKET = 65536
# For a reader that is away: an hour of a hundred stations with one event in four seconds.
_MAX_QUEUED = 100_000


def mosquitto_conf(folder: Path) -> str:
    """The listener: TLS 1.2 or newer, a certificate from everyone, its common name as the user name.

    Without persistence and log: those stand in the distribution's `mosquitto.conf`, which includes this file.

    Args:
        folder: Absolute path, on the broker's machine, of `ca.pem`, `broker.pem`, `broker.key` and `acl`.
    """
    return f"""# Written by kenpin mqtt init-pki. The only way in is a certificate of {folder}/ca.pem.
allow_anonymous false
acl_file {folder}/{ACL}
max_packet_size {_MAX_PACKET}
max_queued_messages {_MAX_QUEUED}

listener {PORT}
cafile {folder}/{AUTHORITY}.pem
certfile {folder}/{BROKER}.pem
keyfile {folder}/{BROKER}.key
tls_version tlsv1.2
require_certificate true
use_identity_as_username true
"""


def acl(prefix: str = ANY_LINE, *, home_assistant: bool = False) -> str:
    """Who may publish and read what: each station in its own branch; only SCADA commands, and reads all.

    Args:
        prefix: The levels of a topic above the station's, where `+` is any; the station's own level is the
            user name (%u). Empty = the station's level is the first.
        home_assistant: Whether stations may make themselves known to Home Assistant, which reads and
            commands nothing.

    Raises:
        ConfigError: The prefix has an empty level, a wrong character or more than seven levels.
    """
    levels = prefix.split("/") if prefix else []
    if len(levels) > 7 or not all(_LEVEL.fullmatch(level) for level in levels):
        raise ConfigError(
            f"{prefix!r} cannot stand above a station in a topic",
            cure="use up to seven levels of A-Z a-z 0-9 _ . - or + for any, such as acme/plant1/press/+",
        )
    own, any_station = "/".join([*levels, "%u"]), "/".join([*levels, "+"])
    lines = [
        "# Written by kenpin mqtt init-pki. %u is the common name of the client's certificate.",
        "",
        "# Each station: its own branch, and no command.",
        *_lines("pattern write", own, _STATION_WRITES),
        *_lines("pattern read", own, _STATION_READS),
        *_lines("pattern write", "spBv1.0/+", _NODE_WRITES),
        *_lines("pattern read", "spBv1.0/+", _NODE_READS),
        *(f"pattern read {topic}" for topic in _HOST_STATES),
        *([f"pattern write {_DISCOVERY}"] if home_assistant else []),
        "",
        "# Whoever holds this certificate reads everything and commands every station.",
        f"user {SCADA}",
        "topic read #",
        *_lines("topic write", any_station, ("cmd/#",)),
        *_lines("topic write", "spBv1.0/+", _HOST_WRITES),
        *(f"topic write {topic}" for topic in _HOST_STATES),
        *(_home_assistant(any_station) if home_assistant else []),
    ]
    return "\n".join(lines) + "\n"


def _home_assistant(any_station: str) -> list[str]:
    return [
        "",
        "# Home Assistant shows stations, says in its own topics that it is there, and forgets stations there.",
        f"user {HOME_ASSISTANT}",
        *_lines("topic read", any_station, _SHOWN),
        f"topic readwrite {HOME_ASSISTANT}/#",
    ]


def _lines(right: str, above: str, topics: tuple[str, ...]) -> list[str]:
    return [f"{right} {above}/{topic}" for topic in topics]
