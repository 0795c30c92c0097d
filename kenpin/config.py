"""The station's configuration: one TOML file, checked strictly, errors with the line and "did you mean"."""

from __future__ import annotations

import difflib
import ipaddress
import re
import sys
from pathlib import Path
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from kenpin.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TOPIC_LEVEL = re.compile(r"^[A-Za-z0-9_.-]{1,64}$")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StationSection(_Section):
    """Who and where the station is.

    Attributes:
        topic: Prefix of every MQTT topic, `enterprise/site/area/line/station`, at most eight levels. The last
            level is the station's id and its MQTT client id.
        state_dir: The station's folder.
        trusted_keys: Public keys whose bundles may run.
    """

    topic: str = "plant/site/area/line/station"
    state_dir: Path = Path("/var/lib/kenpin")
    trusted_keys: tuple[Path, ...] = ()

    @field_validator("topic")
    @classmethod
    def _levels(cls, topic: str) -> str:
        levels = topic.split("/")
        if len(levels) > 8 or not all(_TOPIC_LEVEL.match(level) for level in levels):
            raise ValueError("use one to eight levels of A-Z a-z 0-9 _ . - separated by /")
        return topic

    @property
    def id(self) -> str:
        """The station's id: the last level of the topic."""
        return self.topic.rsplit("/", 1)[-1]


class SourceSection(_Section):
    """Where frames come from.

    Attributes:
        url: `folder:DIR`, `video:FILE`, `usb:INDEX`, `synthetic:PRODUCT` …, with options after `?`.
        views: Further cameras that look at the same part; the worst view decides.
        trigger: Who asks for a picture. Empty = the source itself: each file is a part, a camera runs freely.
            `camera-line` = a cable at the camera, which counts; `software` = `kenpin trigger` or any program
            on this machine; `mqtt:TOPIC`; `modbus` = the PLC, through `[output] modbus`; `gpio:CHIP/LINE`.
        wait_ms: Longest time from a trigger to its frame; later the part is MISSED.
        counter_max: Highest number that the trigger's counter reaches before it starts over; 0 = it does not.
        counter_first: The number after the highest one.
    """

    url: str
    views: tuple[str, ...] = Field(default=(), max_length=7)
    trigger: str = Field(default="", pattern=r"^(|camera-line|software|modbus|mqtt:.+|gpio:.+/.+)$")
    wait_ms: int = Field(default=500, ge=1, le=60_000)
    counter_max: int = Field(default=0, ge=0)
    counter_first: int = Field(default=0, ge=0, le=1)


class MqttSection(_Section):
    """The broker.

    Attributes:
        url: `mqtt://host[:1883]` or `mqtts://host[:8883]`; empty = keep events in the store only.
        username: Login name, where the broker wants one.
        password_file: File with the password, not readable by others.
        ca_file: Certificate authority of the broker, for `mqtts`.
        cert_file: Client certificate, for `mqtts`.
        key_file: Its private key.
        insecure: Allow plain TCP to another machine. Anyone on the network can then read and forge alerts.
    """

    url: str = ""
    username: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    insecure: bool = False

    @model_validator(mode="after")
    def _safe(self) -> MqttSection:
        if not self.url:
            return self
        parts = urlsplit(self.url)
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or not _has_valid_port(parts):
            raise ValueError("url must look like mqtt://host:1883 or mqtts://host:8883")
        if parts.password:
            raise ValueError("no password in the url; use username and password_file")
        if parts.scheme == "mqtt" and not self.insecure and not _is_loopback(parts.hostname):
            raise ValueError(
                "plain mqtt:// to another machine; use mqtts://, or insecure = true to accept the risk"
            )
        return self


class DecideSection(_Section):
    """How a verdict is reached.

    Attributes:
        timeout_ms: An OK later than this after the exposure becomes NO_DECISION; a late NG stays one.
    """

    timeout_ms: int = Field(default=1000, ge=1, le=600_000)


class OutputSection(_Section):
    """How the line hears of a verdict.

    Attributes:
        log: File to append one line of JSON per result to.
        mqtt: Whether to publish each result below the station's topic.
        modbus: `HOST:PORT` to offer the coils of docs/plc.md at; empty = none.
        gpio: `CHIP/READY,BUSY,VALID,PASS`, the numbers of four output lines; empty = none.
    """

    log: Path | None = None
    mqtt: bool = False
    modbus: str = ""
    gpio: str = ""


class EvidenceSection(_Section):
    """Which pictures are kept.

    Attributes:
        keep: `none`, `stopped` (every part that was not released) or `all`.
        max_mb: Room for them; the oldest go first.
        min_free_mb: Free space on the disk that is left for records; below it no picture is kept.
    """

    keep: Literal["none", "stopped", "all"] = "stopped"
    max_mb: int = Field(default=2000, ge=1)
    min_free_mb: int = Field(default=512, ge=0)


class HealthSection(_Section):
    """Where the station answers how it is.

    Attributes:
        listen: `HOST:PORT` of `/livez`, `/readyz` and `/metrics`; loopback only; empty = nowhere.
    """

    listen: str = "127.0.0.1:9464"

    @field_validator("listen")
    @classmethod
    def _loopback(cls, listen: str) -> str:
        host, _, port = listen.rpartition(":")
        if listen and not (_is_loopback(host.strip("[]")) and port.isdecimal() and int(port) < 65536):
            raise ValueError("use a loopback address and a port, such as 127.0.0.1:9464")
        return listen


class StationConfig(_Section):
    """The whole file."""

    station: StationSection = StationSection()
    source: SourceSection
    mqtt: MqttSection = MqttSection()
    decide: DecideSection = DecideSection()
    output: OutputSection = OutputSection()
    evidence: EvidenceSection = EvidenceSection()
    health: HealthSection = HealthSection()


def load_config(path: Path) -> StationConfig:
    """Read a station's configuration.

    Raises:
        ConfigError: The file is missing, not TOML, or has a wrong key or value; the line is named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"cannot read the configuration: {error.strerror}", where=path, cure="give --config station.toml"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError("the configuration is not UTF-8 text", where=path, cure="save it as UTF-8") from None
    try:
        return StationConfig.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not valid TOML: {error}", where=path, cure="correct the line") from None
    except ValidationError as error:
        raise _explain(error, text, path) from None


def _explain(error: ValidationError, text: str, path: Path) -> ConfigError:
    """Turn a finding of pydantic into a sentence with a line."""
    # A misspelt key is often the reason why another one is missing, so it comes first.
    first = min(error.errors(), key=lambda finding: finding["type"] != "extra_forbidden")
    keys = [part for part in first["loc"] if isinstance(part, str)]
    name = ".".join(keys)
    where = f"{path}, line {_line_of(keys, text)}"
    if first["type"] == "extra_forbidden":
        known = _known_keys(keys[:-1])
        close = difflib.get_close_matches(keys[-1], known, n=1)
        cure = f"did you mean {close[0]}?" if close else f"known here: {', '.join(sorted(known))}"
        return ConfigError(f"unknown key {name}", where=where, cure=cure)
    if first["type"] == "missing":
        cure = f"add {keys[-1]} to [{keys[0]}]" if len(keys) > 1 else f"add the section [{name}]"
        return ConfigError(f"{name} is missing", where=path, cure=cure)
    message = first["msg"].removeprefix("Value error, ")
    return ConfigError(f"{name}: {message}", where=where, cure="correct the value")


def _known_keys(parents: list[str]) -> list[str]:
    model: Any = StationConfig
    for parent in parents:
        model = model.model_fields[parent].annotation
    return list(model.model_fields)


def _line_of(keys: list[str], text: str) -> int:
    """The line that sets a key, or opens its section; tomllib does not tell."""
    section = ""
    found = 1
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[([^\]]+)\]", line)
        if header:
            section = header.group(1).strip()
            if section == keys[0]:
                found = number
        key = re.match(r"\s*([\w-]+)\s*=", line)
        if key and [*section.split("."), key.group(1)][-len(keys) :] == keys:
            return number
    return found


def _has_valid_port(parts: SplitResult) -> bool:
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
