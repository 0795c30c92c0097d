"""What a station's configuration may say, section by section."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from kenpin.station_folder import DEFAULT_STATE

Results: TypeAlias = Literal["off", "ng_and_sample", "all"]
MOST_CAMERAS = 8  # of a station
REVIEW_MB = 2000  # for the pictures that people have labelled
WORKSPACE_MB = 1024  # for a layer's scratch while an engine is built
_TRIGGER = r"^(|camera-line|software|modbus|mqtt:[^+#]+|gpio:.+/.+)$"
_TOPIC_LEVEL = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def is_loopback(host: str) -> bool:
    """Whether an address is of this machine only.

    Args:
        host: A name or an address, without a port and brackets.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_port(listen: str) -> tuple[str, int]:
    """Take `HOST:PORT` apart, the host without brackets; nothing and 0 where no such port can be asked for."""
    host, _, port = listen.rpartition(":")
    is_one = host != "" and port.isdecimal() and 0 < int(port) < 65536
    return (host.strip("[]"), int(port)) if is_one else ("", 0)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*")
    @classmethod
    def _no_tilde(cls, value: object) -> object:
        """Only a shell knows what ~ is: here it would be a folder of that name."""
        for path in value if isinstance(value, tuple) else (value,):
            if isinstance(path, Path) and path.parts[:1] and path.parts[0].startswith("~"):
                raise ValueError(f"{path} begins with ~, which only a shell understands; write the whole path")
        return value


class StationSection(_Section):
    """Who and where the station is.

    Attributes:
        topic: Prefix of every MQTT topic, `enterprise/site/area/line/station`, at most eight levels. The last
            level is the station's id and its MQTT client id.
        state_dir: The station's folder.
        trusted_keys: Public keys whose bundles may run.
    """

    topic: str = "plant/site/area/line/station"
    state_dir: Path = DEFAULT_STATE
    trusted_keys: tuple[Path, ...] = ()

    @field_validator("state_dir", mode="before")
    @classmethod
    def _named(cls, state_dir: object) -> object:
        """An empty path is the folder that kenpin is started from, which nobody means by it."""
        if state_dir == "":
            raise ValueError(f"it is empty; write the folder's whole path, or leave it out for {DEFAULT_STATE}")
        return state_dir

    @field_validator("topic")
    @classmethod
    def _levels(cls, topic: str) -> str:
        levels = topic.split("/")
        if len(levels) > 8 or not all(_TOPIC_LEVEL.fullmatch(level) for level in levels):
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
    views: tuple[str, ...] = Field(default=(), max_length=MOST_CAMERAS - 1)
    trigger: str = Field(default="", pattern=_TRIGGER)
    wait_ms: int = Field(default=500, ge=1, le=60_000)
    counter_max: int = Field(default=0, ge=0)
    counter_first: int = Field(default=0, ge=0, le=1)

    @field_validator("trigger", mode="before")
    @classmethod
    def _known(cls, trigger: object) -> object:
        """The pattern is for the schema; a person gets words."""
        if isinstance(trigger, str) and not re.fullmatch(_TRIGGER, trigger):
            raise ValueError(
                'use "camera-line", "software", "modbus", "mqtt:TOPIC" without + and #, or "gpio:CHIP/LINE"; '
                "leave it out where the source itself leads"
            )
        return trigger

    @field_validator("views")
    @classmethod
    def _once(cls, views: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        """A camera opens once."""
        devices = [address.partition("?")[0] for address in (str(info.data.get("url", "")), *views)]
        for device in devices:
            if device.startswith(("usb:", "csi:", "aravis:", "pylon:")) and devices.count(device) > 1:
                raise ValueError(f"{device} is there twice; each camera once, the leading one as url")
        return views

    @property
    def urls(self) -> tuple[str, ...]:
        """Addresses of all cameras, the leading one first."""
        return (self.url, *self.views)


class MqttSection(_Section):
    """The broker.

    Attributes:
        url: `mqtt://host[:1883]` or `mqtts://host[:8883]`; empty = keep events in the store only.
        username: Login name, where the broker wants one.
        password_file: File with the password, not readable by others.
        ca_file: Certificate authority of the broker, for `mqtts`.
        cert_file: Client certificate, for `mqtts`.
        key_file: Its private key.
        insecure: Allow plain TCP to another machine, or no login there. Anyone on the network can then read and
            forge alerts.
        results: Which parts are told one by one as `event/result`: `off`, `all`, or `ng_and_sample`: all that
            were not OK, and every hundredth OK.
        backlog_per_s: Events per second of those that waited while the broker was away; live ones come first.
    """

    url: str = ""
    username: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    insecure: bool = False
    results: Results = "off"
    backlog_per_s: int = Field(default=200, ge=1, le=10_000)

    @model_validator(mode="after")
    def _safe(self) -> MqttSection:
        if not self.url:
            return self
        parts = urlsplit(self.url)
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or not _has_valid_port(parts):
            raise ValueError("url must look like mqtt://host:1883 or mqtts://host:8883")
        if parts.password:
            raise ValueError("no password in the url; use username and password_file")
        if parts.scheme == "mqtt" and not self.insecure and not is_loopback(parts.hostname):
            raise ValueError(
                "plain mqtt:// to another machine; use mqtts://, or insecure = true to accept the risk"
            )
        if self.password_file is not None and not self.username:
            raise ValueError("password_file says nothing without a username; give both or none")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together; give both or none")
        has_login = self.username or self.cert_file is not None
        if not has_login and not self.insecure and not is_loopback(parts.hostname):
            raise ValueError(
                "no login to another machine; give cert_file and key_file, or username and password_file, "
                "or insecure = true to accept the risk"
            )
        return self


class DecideSection(_Section):
    """How a verdict is reached.

    Attributes:
        timeout_ms: An OK later than this after the exposure becomes NO_DECISION; a late NG stays one.
    """

    timeout_ms: int = Field(default=1000, ge=1, le=600_000)


class EngineSection(_Section):
    """How an engine is built that the station lacks.

    Attributes:
        workspace_mb: Most memory for a layer's scratch, as `kenpin build-engine --workspace-mb`; a Jetson with
            4 GB needs less.
    """

    workspace_mb: int = Field(default=WORKSPACE_MB, ge=16)


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
        review_mb: Room beside for those that people have labelled on the review bench; the oldest that nobody
            has to judge any more go first.
    """

    keep: Literal["none", "stopped", "all"] = "stopped"
    max_mb: int = Field(default=2000, ge=1)
    min_free_mb: int = Field(default=512, ge=0)
    review_mb: int = Field(default=REVIEW_MB, ge=1)


class StoreSection(_Section):
    """How long records stay.

    Attributes:
        keep_days: Records of parts older than this are removed, once their events are gone too.
    """

    keep_days: int = Field(default=365, ge=8)


class CommandsSection(_Section):
    """What SCADA may ask of the station over MQTT.

    Attributes:
        keys: A `<name>.key` file, or a folder of them, whose holders may sign commands. Without it the station
            listens to nothing.
        remote_write: Allow commands that change what is released: set_threshold, pause and activate_model.
        threshold_step: How far set_threshold may move T1 and T2 from where a person has set them, in standard
            deviations of the good parts' scores.
    """

    keys: Path | None = None
    remote_write: bool = False
    threshold_step: float = Field(default=1.0, ge=0, allow_inf_nan=False)


class SparkplugSection(_Section):
    """Showing the station's values by Sparkplug B too, at the broker of [mqtt], on a connection of its own.

    Attributes:
        enabled: Whether to.
        group_id: Group of the edge node.
        node_id: Its name; default: the station's id.
        primary_host: Host that must be online before the station says anything; empty = none.
    """

    enabled: bool = False
    group_id: str = "kenpin"
    node_id: str = ""
    primary_host: str = ""


class HomeAssistantSection(_Section):
    """Letting Home Assistant find the station by itself.

    Attributes:
        enabled: Whether to publish the discovery message at the broker of [mqtt].
    """

    enabled: bool = False


class HealthSection(_Section):
    """Where the station answers how it is.

    Attributes:
        listen: `HOST:PORT` of `/livez`, `/readyz` and `/metrics`; loopback only; empty = nowhere.
    """

    listen: str = "127.0.0.1:9464"

    @field_validator("listen")
    @classmethod
    def _loopback(cls, listen: str) -> str:
        if listen and not is_loopback(host_port(listen)[0]):
            raise ValueError("use a loopback address and a port, such as 127.0.0.1:9464")
        return listen


class WebSection(_Section):
    """Where the technician's page is offered, and to whom.

    Attributes:
        listen: `HOST:PORT`. Beyond loopback it needs a certificate.
        tls_cert_file: Certificate chain of the page, PEM.
        tls_key_file: Its private key.
        language: Of a browser that has not chosen one.
        open_view: Whether looking needs no login; every change needs one.
        second_person: Whether a second person must sign every change on the page too; a command then moves no
            threshold.
    """

    listen: str = "127.0.0.1:8080"
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    language: Literal["en", "ja", "de"] = "en"
    open_view: bool = True
    second_person: bool = False

    @field_validator("listen")
    @classmethod
    def _address(cls, listen: str) -> str:
        if not host_port(listen)[1]:
            raise ValueError("use an address and a port, such as 127.0.0.1:8080")
        return listen

    @model_validator(mode="after")
    def _safe(self) -> WebSection:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file belong together; set both or none")
        if not self.has_tls and not is_loopback(self.host):
            raise ValueError(
                f"{self.listen} can be reached from other machines, where a PIN must not travel readable; "
                "set tls_cert_file and tls_key_file, or listen on 127.0.0.1"
            )
        return self

    @property
    def has_tls(self) -> bool:
        """Whether the page is offered encrypted."""
        return self.tls_cert_file is not None

    @property
    def host(self) -> str:
        """The address without the port."""
        return host_port(self.listen)[0]

    @property
    def port(self) -> int:
        """The port."""
        return host_port(self.listen)[1]


class StationConfig(_Section):
    """The whole file."""

    station: StationSection = StationSection()
    source: SourceSection
    mqtt: MqttSection = MqttSection()
    decide: DecideSection = DecideSection()
    output: OutputSection = OutputSection()
    evidence: EvidenceSection = EvidenceSection()
    health: HealthSection = HealthSection()
    engine: EngineSection = EngineSection()
    store: StoreSection = StoreSection()
    commands: CommandsSection = CommandsSection()
    sparkplug: SparkplugSection = SparkplugSection()
    web: WebSection = WebSection()
    homeassistant: HomeAssistantSection = HomeAssistantSection()

    @property
    def roles(self) -> tuple[str, ...]:
        """The station's processes without the page: `station`, `capture-0` …, `publisher`, `health`."""
        wanted = {"publisher": self.mqtt.url, "health": self.health.listen}
        captures = (f"capture-{k}" for k in range(len(self.source.urls)))
        return ("station", *captures, *(role for role, address in wanted.items() if address))


def _has_valid_port(parts: SplitResult) -> bool:
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False
