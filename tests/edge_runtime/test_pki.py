"""The generated certificates and rules, against a real mosquitto that has nothing but the generated files."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from click.testing import CliRunner
from paho.mqtt.enums import MQTTProtocolVersion

from kenpin import events
from kenpin.config import MqttSection, StationConfig
from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.broker_templates import acl
from kenpin.edge_runtime.doctor import examine
from kenpin.edge_runtime.doctor_broker import broker_checks
from kenpin.edge_runtime.home_assistant import discovery, discovery_topic
from kenpin.edge_runtime.link import Link, Will
from kenpin.edge_runtime.link_signal import Acked, Down, Signal, Up
from kenpin.edge_runtime.mqtt_cli import mqtt
from kenpin.edge_runtime.pki import Authority, Lifetime
from kenpin.errors import ConfigError
from tests.edge_runtime.conftest import publisher_command
from tests.edge_runtime.publishing_line import PublishingLine

LINE = "acme/plant1/press/line2"
NOT_AUTHORIZED = 0x87
LONG_AGO = Lifetime(*(datetime.now(timezone.utc) - timedelta(days=days) for days in (20, 10)))
# paho leaves a socket whose handshake failed to the garbage collector.
refused_by_tls = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def kenpin_mqtt(*arguments: object) -> str:
    """Run the command line; what it says."""
    return CliRunner().invoke(mqtt, [str(a) for a in arguments], catch_exceptions=False).stderr


def init_pki(out: Path, *more: object) -> str:
    hosts = ("--host", "localhost", "--host", "127.0.0.1")
    return kenpin_mqtt("init-pki", "--out", out, "--station", "st1", "--station", "st2", *hosts, *more)


@dataclass
class Plant:
    """The folder of init-pki, and the broker that runs with it."""

    folder: Path
    port: int
    wait_for: Any
    links: list[Link] = field(default_factory=list)

    @property
    def log(self) -> str:
        return (self.folder.parent / "mosquitto.log").read_text()

    def is_refused(self, certificate: Path | None, reason: str) -> bool:
        """Whether a client gets no connection, and the broker says why, which may be a moment later."""
        section = MqttSection(url=f"mqtts://localhost:{self.port}", ca_file=self.folder / "ca.pem")
        if certificate is not None:
            section = self.section("st1", certificate)
        connection = self.connect(section)
        self.wait_for(lambda: reason in self.log, f"{reason!r} in the log")
        return connection.is_denied()

    def section(self, name: str, certificate: Path | None = None) -> MqttSection:
        pem = certificate or self.folder / "clients" / name / f"{name}.pem"
        ca = self.folder / "clients/st1/ca.pem"
        url = f"mqtts://localhost:{self.port}"
        return MqttSection(url=url, ca_file=ca, cert_file=pem, key_file=pem.with_suffix(".key"))

    def connect(self, section: MqttSection, *, name: str = "st1", will: str = "") -> Connection:
        """Connect as a station does."""
        signals: SimpleQueue[Signal] = SimpleQueue()
        address = BrokerAddress.from_config(section, client_id=name)
        link = Link(address, Will(will or f"{LINE}/{name}/status", lambda: b"{}"), signals)
        link.open(MQTTProtocolVersion.MQTTv5)
        self.links.append(link)
        return Connection(link, signals, signals.get(timeout=180))

    def station(self, name: str = "st1") -> Connection:
        connection = self.connect(self.section(name), name=name)
        assert isinstance(connection.first, Up), connection.first
        return connection

    def tool(self, program: str, name: str, *arguments: str) -> str:
        """mosquitto_pub or mosquitto_sub: other programs, with a client's generated files."""
        folder = self.folder / "clients" / name
        tls = ("--cafile", folder / "ca.pem", "--cert", folder / f"{name}.pem", "--key", folder / f"{name}.key")
        to = ("-h", "localhost", "-p", str(self.port), "-V", "5", "-q", "1", *arguments)
        command = [program, *map(str, tls), *to]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout

    def begin_to_read(self, name: str) -> None:
        """From now on the broker keeps for a client all that it may read."""
        self.tool("mosquitto_sub", name, "-i", f"{name}-reader", "-c", "-x", "3600", "-t", "#", "-E")

    def read(self, name: str, count: int) -> list[str]:
        """The topics of the first messages that were kept."""
        kept = ("-i", f"{name}-reader", "-c", "-x", "3600", "-t", "#", "-C", str(count), "-W", "30", "-F", "%t")
        return self.tool("mosquitto_sub", name, *kept).splitlines()


@dataclass
class Connection:
    """A station's own link, and the first thing that happened to it."""

    link: Link
    signals: SimpleQueue[Signal]
    first: Signal

    def is_denied(self) -> bool:
        """Whether the station learns that it is not let in; the broker may hang up before its word arrives."""
        by_s, signal = time.monotonic() + 180, self.first
        while isinstance(signal, Down) and not signal.denied and time.monotonic() < by_s:
            signal = self.signals.get(timeout=180)
        return isinstance(signal, Down) and signal.denied

    def publish(self, topic: str) -> int:
        """The broker's answer, as reason code of MQTT 5."""
        mid = self.link.publish(topic, b"{}", qos=1)
        answer = self.signals.get(timeout=180)
        assert isinstance(answer, Acked), answer
        assert answer.mid == mid
        return answer.code

    def is_taken(self, topic: str) -> bool:
        code = self.publish(topic)
        assert code < 0x80 or code == NOT_AUTHORIZED
        return code < 0x80


def run_broker(config: Path, log: Path, port: int) -> subprocess.Popen[bytes]:
    """mosquitto on a free port; as root it would become a user who cannot read a temporary folder."""
    text = config.read_text()
    assert "listener 8883\n" in text
    text = text.replace("listener 8883\n", f"listener {port} 127.0.0.1\n")
    config.write_text(text + ("user root\n" if os.geteuid() == 0 else ""))
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    with log.open("wb") as out:
        return subprocess.Popen([program, "-c", config], stdout=out, stderr=subprocess.STDOUT)


@pytest.fixture
def make_plant(tmp_path: Path, free_port: int, wait_for: Any) -> Iterator[Callable[..., Plant]]:
    started: list[tuple[Plant, subprocess.Popen[bytes]]] = []

    def make(change: Callable[[Path], None] = lambda _folder: None, options: tuple[str, ...] = ()) -> Plant:
        folder = tmp_path / "the plant" / "pki"  # a blank in the path must do no harm
        init_pki(folder, *options)
        change(folder)
        plant = Plant(folder, free_port, wait_for)
        process = run_broker(folder / "broker/mosquitto.conf", folder.parent / "mosquitto.log", free_port)
        started.append((plant, process))
        wait_for(lambda: answers(free_port) or process.poll() is not None, "mosquitto")
        assert process.poll() is None, plant.log
        return plant

    yield make
    for plant, process in started:
        for link in plant.links:
            link.close()
        process.kill()
        process.wait()


@pytest.fixture
def plant(make_plant: Callable[..., Plant]) -> Plant:
    return make_plant()


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


# What a station may do.


def test_a_station_publishes_all_that_the_contract_names_in_its_own_branch(plant: Plant) -> None:
    models = [model for model in vars(events).values() if hasattr(model, "topic")]
    topics = [re.sub(r"{\w+}", "any", model.topic) for model in models]
    assert {"status", "kpi", "event/anomaly"} <= set(topics)
    station = plant.station()
    for topic in (*topics, "output"):
        assert station.is_taken(f"{LINE}/st1/{topic}"), topic


def test_a_station_is_a_node_of_sparkplug_by_its_own_name(plant: Plant) -> None:
    station = plant.station()
    for kind in ("NBIRTH/{}", "NDATA/{}", "NDEATH/{}", "DBIRTH/{}/cam", "DDATA/{}/cam", "DDEATH/{}/cam"):
        assert station.is_taken(f"spBv1.0/acme/{kind.format('st1')}"), kind
        assert not station.is_taken(f"spBv1.0/acme/{kind.format('st2')}"), kind
    assert not station.is_taken("spBv1.0/acme/NCMD/st1")
    assert not station.is_taken("spBv1.0/acme/DCMD/st1/cam")
    assert not station.is_taken("spBv1.0/STATE/scada")


@pytest.mark.parametrize(
    "topic",
    [
        f"{LINE}/st2/event/anomaly",
        f"{LINE}/st2/status",
        f"{LINE}/st1/cmd/ack",
        f"{LINE}/st2/cmd/ack",
        f"{LINE}/st1",
        f"{LINE}/st1/other",
        "acme/plant1/press/st1/event/anomaly",
        "st1/event/anomaly",
        "$SYS/broker/uptime",
    ],
)
def test_a_station_publishes_nowhere_else(plant: Plant, topic: str) -> None:
    station = plant.station()
    assert station.publish(topic) == NOT_AUTHORIZED
    assert station.is_taken(f"{LINE}/st1/event/anomaly")


def test_a_last_will_in_another_branch_is_not_published(plant: Plant) -> None:
    plant.begin_to_read("scada")
    for name, will in (("st1", f"{LINE}/st2/status"), ("st2", f"{LINE}/st2/alarm_summary")):
        station = plant.connect(plant.section(name), name=name, will=will)
        assert isinstance(station.first, Up)
        station.link.break_off()
        assert isinstance(station.signals.get(timeout=180), Down)
    assert plant.read("scada", 1) == [f"{LINE}/st2/alarm_summary"]


def test_a_station_reads_its_commands_and_nothing_of_the_others(plant: Plant) -> None:
    plant.begin_to_read("st2")
    assert plant.station().is_taken(f"{LINE}/st1/event/anomaly")
    for topic in (
        f"{LINE}/st1/cmd/ack",
        "spBv1.0/acme/NCMD/st1",
        f"{LINE}/st2/cmd/ack",
        "spBv1.0/acme/NCMD/st2",
    ):
        plant.tool("mosquitto_pub", "scada", "-t", topic, "-m", "{}")
    assert plant.read("st2", 2) == [f"{LINE}/st2/cmd/ack", "spBv1.0/acme/NCMD/st2"]


def test_scada_reads_everything_and_writes_only_commands(plant: Plant) -> None:
    plant.begin_to_read("scada")
    assert plant.station().is_taken(f"{LINE}/st1/event/anomaly")
    scada = plant.station("scada")
    commands = [
        f"{LINE}/st1/cmd/ack",
        "spBv1.0/acme/NCMD/st1",
        "spBv1.0/acme/DCMD/st1/cam",
        "spBv1.0/STATE/scada",
        "STATE/scada",
    ]
    assert all(scada.is_taken(topic) for topic in commands)
    for topic in (f"{LINE}/st1/event/anomaly", f"{LINE}/st1/status", "spBv1.0/acme/NDATA/st1"):
        assert not scada.is_taken(topic), topic
    assert plant.read("scada", 6) == [f"{LINE}/st1/event/anomaly", *commands]


def test_the_doctor_finds_nothing_wrong(plant: Plant) -> None:
    config = StationConfig.model_validate(
        {
            "station": {"topic": f"{LINE}/st1"},
            "source": {"url": "folder:none"},
            "mqtt": plant.section("st1").model_dump(),
        }
    )
    found = examine(broker_checks(config))
    assert {"broker", "last will"} <= {finding.name for finding in found}
    assert {finding.verdict for finding in found} == {"PASS"}, found


def test_a_lost_key_is_shut_out_by_two_lines(make_plant: Callable[..., Plant]) -> None:
    def shut_out(folder: Path) -> None:
        with (folder / "broker/acl").open("a") as rules:
            rules.write("user st1\ntopic deny #\n")

    plant = make_plant(shut_out)
    assert not plant.station("st1").is_taken(f"{LINE}/st1/event/anomaly")
    assert plant.station("st2").is_taken(f"{LINE}/st2/event/anomaly")


def test_home_assistant_finds_a_station_and_reads_what_it_shows_and_no_more(
    make_plant: Callable[..., Plant], tmp_path: Path
) -> None:
    plant = make_plant(options=("--home-assistant",))
    message, topic = discovery(f"{LINE}/st1", sw_version="1"), discovery_topic("st1")
    plant.begin_to_read("homeassistant")
    shown = {part["state_topic"] for part in json.loads(message)["components"].values()}
    station = plant.station()
    assert station.is_taken(f"{LINE}/st1/event/anomaly")
    assert all(station.is_taken(shown_topic) for shown_topic in sorted(shown))
    assert set(plant.read("homeassistant", len(shown))) == shown
    for other in (discovery_topic("st2"), "homeassistant/status", "homeassistant/sensor/st1/config"):
        assert not station.is_taken(other), other
    reader = plant.station("homeassistant")
    assert reader.is_taken("homeassistant/status")
    assert reader.is_taken(topic)  # it may forget a station
    assert not any(reader.is_taken(f"{LINE}/st1/{below}") for below in ("cmd/ack", "status", "event/anomaly"))

    line = PublishingLine(tmp_path / "station.db")
    broker = BrokerAddress.from_config(plant.section("st1"), client_id="st1-again")
    line.publish(0, broker=broker, topic=f"{LINE}/st1", discovery=(topic, message))
    found = plant.tool("mosquitto_sub", "homeassistant", "-t", "homeassistant/#", "-C", "1", "-W", "30")
    assert found == message.decode() + "\n"
    line.stop()
    line.store.close()


def test_without_being_asked_for_nothing_is_said_to_home_assistant(plant: Plant) -> None:
    assert not plant.station().is_taken(discovery_topic("st1"))
    assert not (plant.folder / "clients/homeassistant").exists()


# Who is not let in.


@refused_by_tls
def test_nobody_without_certificate(plant: Plant) -> None:
    assert plant.is_refused(None, "peer did not return a certificate")


@refused_by_tls
def test_no_certificate_of_another_authority_with_the_same_name(plant: Plant, tmp_path: Path) -> None:
    Authority.create(Lifetime.of_days(1)).issue_client("st1", Lifetime.of_days(1)).save(tmp_path, "st1")
    assert plant.is_refused(tmp_path / "st1.pem", "certificate verify failed")


@refused_by_tls
def test_no_certificate_that_has_expired(plant: Plant, tmp_path: Path) -> None:
    Authority.load(plant.folder).issue_client("st1", LONG_AGO).save(tmp_path, "st1")
    assert plant.is_refused(tmp_path / "st1.pem", "certificate verify failed")


@refused_by_tls
def test_not_the_broker_as_a_client(plant: Plant) -> None:
    assert plant.is_refused(plant.folder / "broker/broker.pem", "certificate verify failed")


@refused_by_tls
def test_a_station_cannot_play_the_broker(make_plant: Callable[..., Plant]) -> None:
    def exchange(folder: Path) -> None:
        for end in ("pem", "key"):
            shutil.copy(folder / f"clients/st2/st2.{end}", folder / f"broker/broker.{end}")

    plant = make_plant(exchange)
    connection = plant.connect(plant.section("st1"))
    assert isinstance(connection.first, Down)
    assert "purpose" in connection.first.reason


@refused_by_tls
def test_a_broker_by_another_name_is_none(make_plant: Callable[..., Plant]) -> None:
    def rename(folder: Path) -> None:
        for end in ("pem", "key"):
            (folder / f"broker/broker.{end}").unlink()
        kenpin_mqtt("issue", "--pki", folder, "--host", "broker.example")

    plant = make_plant(rename)
    connection = plant.connect(plant.section("st1"))
    assert isinstance(connection.first, Down)
    assert "localhost" in connection.first.reason


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
def test_tls_1_1_is_refused_and_1_2_is_not(plant: Plant) -> None:
    assert speaks(plant, ssl.TLSVersion.TLSv1_2) == ""
    assert speaks(plant, ssl.TLSVersion.TLSv1_1) == "TLSV1_ALERT_PROTOCOL_VERSION"


def speaks(plant: Plant, version: ssl.TLSVersion) -> str:
    """Why the broker does not speak this version of TLS; empty = it does."""
    context = ssl.create_default_context(cafile=plant.folder / "ca.pem")
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # or the old version would fail here already
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(plant.folder / "clients/st1/st1.pem", plant.folder / "clients/st1/st1.key")
    with socket.create_connection(("localhost", plant.port), 10) as plain:
        try:
            context.wrap_socket(plain, server_hostname="localhost").close()
        except ssl.SSLError as error:
            return error.reason
    return ""


# The files.


def test_every_file_is_for_its_owner_only(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        init_pki(tmp_path / "a/pki")
    finally:
        os.umask(old)
    paths = list((tmp_path / "a").rglob("*"))
    assert {path.stat().st_mode & 0o777 for path in paths if path.is_file()} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in paths if path.is_dir()} == {0o700}
    with_authority = [path for path in paths if path.name == "ca.key"]
    assert with_authority == [tmp_path / "a/pki/ca.key"]


def test_openssl_finds_each_certificate_good_for_one_thing(tmp_path: Path) -> None:
    init_pki(tmp_path / "pki")

    def is_good(purpose: str, pem: str) -> bool:
        files = ("-CAfile", tmp_path / "pki/ca.pem", tmp_path / "pki" / pem)
        command = ("openssl", "verify", "-x509_strict", "-purpose", purpose, *files)
        done = subprocess.run(command, check=False, capture_output=True)
        return done.returncode == 0

    broker, station = "broker/broker.pem", "clients/st1/st1.pem"
    assert (is_good("sslserver", broker), is_good("sslclient", broker)) == (True, False)
    assert (is_good("sslserver", station), is_good("sslclient", station)) == (False, True)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    init_pki(tmp_path / "pki")
    before = {path: path.read_bytes() for path in (tmp_path / "pki").rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="nothing is overwritten"):
        init_pki(tmp_path / "pki")
    with pytest.raises(ConfigError, match="nothing is overwritten"):
        kenpin_mqtt("issue", "--pki", tmp_path / "pki", "--client", "st1")
    with pytest.raises(ConfigError, match="not overwritten"):
        kenpin_mqtt("issue", "--pki", tmp_path / "pki", "--host", "localhost")
    assert {path: path.read_bytes() for path in (tmp_path / "pki").rglob("*") if path.is_file()} == before


def test_a_wrong_argument_leaves_nothing_behind(tmp_path: Path) -> None:
    for arguments, what in (
        (("--station", "scada"), "no station can be called scada"),
        (("--station", "homeassistant", "--home-assistant"), "no station can be called homeassistant"),
        (("--station", "st.3", "--home-assistant"), "takes no dot"),
        (("--station", "line/st3"), "cannot be the name of a client"),
        (("--station", "st3\n"), "cannot be the name of a client"),
        (("--station", ".."), "cannot be the name of a client"),
        (("--station", "+"), "cannot be the name of a client"),
        (("--station", "x" * 65), "cannot be the name of a client"),
        (("--host", "mqtts://broker.lan"), "neither a name nor an address"),
        (("--host", "broker.lan:8883"), "neither a name nor an address"),
        (("--prefix", "acme/#"), "cannot stand above a station"),
        (("--prefix", "acme//line"), "cannot stand above a station"),
        (("--prefix", "a/b/c/d/e/f/g/h"), "cannot stand above a station"),
        (("--prefix", "acme\npattern write #"), "cannot stand above a station"),
    ):
        with pytest.raises(ConfigError, match=what):
            init_pki(tmp_path / "pki", *arguments)
        assert not (tmp_path / "pki").exists(), arguments


def test_a_new_station_needs_only_a_certificate(plant: Plant) -> None:
    kenpin_mqtt("issue", "--pki", plant.folder, "--client", "st3")
    assert plant.station("st3").is_taken(f"{LINE}/st3/event/anomaly")
    with pytest.raises(ConfigError, match="nothing to make"):
        kenpin_mqtt("issue", "--pki", plant.folder)


def test_an_authority_that_cannot_sign_is_refused(tmp_path: Path) -> None:
    init_pki(tmp_path / "pki")
    key = tmp_path / "pki/ca.key"
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="read by others"):
        Authority.load(tmp_path / "pki")
    key.chmod(0o600)
    good = key.read_bytes()
    for wrong, what in (
        ((tmp_path / "pki/broker/broker.key").read_bytes(), "not the key"),
        (b"nothing", "cannot be read"),
    ):
        key.write_bytes(wrong)
        with pytest.raises(ConfigError, match=what):
            Authority.load(tmp_path / "pki")
    key.write_bytes(good)
    Authority.load(tmp_path / "pki")
    (tmp_path / "old").mkdir()
    Authority.create(LONG_AGO).own.save(tmp_path / "old", "ca")
    with pytest.raises(ConfigError, match="expired"):
        Authority.load(tmp_path / "old")


def test_no_certificate_outlives_its_authority() -> None:
    authority = Authority.create(Lifetime.of_days(10))
    issued = authority.issue_client("st1", Lifetime.of_days(20)).certificate
    assert issued.not_valid_after_utc == authority.own.certificate.not_valid_after_utc


def test_rules_for_one_line_name_it() -> None:
    rules = acl("acme/plant1").splitlines()
    assert "pattern write acme/plant1/%u/event/#" in rules
    assert "topic write acme/plant1/+/cmd/#" in rules
    assert "pattern write %u/event/#" in acl("").splitlines()
    stations = [rule for rule in rules if rule.startswith("pattern write")]
    assert stations
    assert not any("cmd" in rule.lower() for rule in stations)


def test_the_next_steps_say_what_to_write_into_the_files(tmp_path: Path) -> None:
    said = init_pki(tmp_path / "pki")
    assert f"mosquitto -c {tmp_path}/pki/broker/mosquitto.conf" in said
    assert 'url = "mqtts://localhost:8883"' in said
    assert 'cert_file = "/etc/kenpin/mqtt/st1.pem"' in said
    said = init_pki(tmp_path / "other", "--broker-dir", "/etc/mosquitto/kenpin")
    assert f"install -o mosquitto -m 600 {tmp_path}/other/broker/* /etc/mosquitto/kenpin" in said
    assert "keyfile /etc/mosquitto/kenpin/broker.key" in (tmp_path / "other/broker/mosquitto.conf").read_text()


@refused_by_tls
def test_a_station_whose_certificate_is_replaced_while_it_runs_is_let_in(
    plant: Plant, tmp_path: Path, wait_for: Any
) -> None:
    mine, state, file, log = (tmp_path / name for name in ("etc", "state", "station.toml", "log"))
    mine.mkdir()
    state.mkdir()
    Authority.load(plant.folder).issue_client("st1", LONG_AGO).save(mine, "st1")
    file.write_text(
        f'[station]\ntopic = "{LINE}/st1"\nstate_dir = "{state}"\n[source]\nurl = "usb:0"\n'
        f'[mqtt]\nurl = "mqtts://localhost:{plant.port}"\nca_file = "{plant.folder}/ca.pem"\n'
        f'cert_file = "{mine}/st1.pem"\nkey_file = "{mine}/st1.key"\n'
    )
    line = PublishingLine(state / "station.db")
    line.commit(1)
    command = publisher_command(file)
    with log.open("wb") as out, subprocess.Popen(command, stderr=out) as process:
        try:
            wait_for(lambda: "No connection" in log.read_text(), "the refusal")
            fresh = Authority.load(plant.folder).issue_client("st1", Lifetime.of_days(30))
            (mine / "st1.pem").write_bytes(fresh.certificate_pem)
            wait_for(lambda: "cannot be used yet" in log.read_text(), "that half of it is there")
            for name in ("st1.pem", "st1.key"):
                (mine / name).unlink()
            fresh.save(mine, "st1")
            wait_for(lambda: line.waiting() == 0, "the event")
        finally:
            process.terminate()
    line.store.close()
