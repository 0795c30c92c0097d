"""MQTT over TLS with certificates on both sides, against a real broker."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kenpin.config import MqttSection
from kenpin.edge_runtime import doctor_broker
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.broker_address import BrokerAddress, cure_for
from kenpin.edge_runtime.camera_source import login
from kenpin.edge_runtime.counters import Counters
from kenpin.edge_runtime.decide import Decision, Verdict
from kenpin.edge_runtime.herald import Desk
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.publisher import Publisher, Timing
from kenpin.edge_runtime.simulate_cli import simulate
from kenpin.edge_runtime.source import SourceUrl
from kenpin.edge_runtime.store import Store
from kenpin.errors import BrokerError, ConfigError, SourceError

FAST = Timing(reconnect_s=(0.1, 0.4), watch_s=0.1)


class Authority:
    """A certificate authority that signs for 127.0.0.1 and for a station."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "plant")])
        self._write("ca", self.key, self._sign("plant", self.key, is_ca=True))

    def issue(self, name: str, *, first_day: int = -1) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        self._write(name, key, self._sign(name, key, is_ca=False, first_day=first_day))

    def _sign(
        self, name: str, key: ec.EllipticCurvePrivateKey, *, is_ca: bool, first_day: int = -1
    ) -> x509.Certificate:
        now = datetime.now(tz=timezone.utc)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        own, issuer = key.public_key(), self.key.public_key()
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
        ) | {"crl_sign": is_ca, "key_cert_sign": is_ca, "digital_signature": True}
        certificate = (
            x509.CertificateBuilder(self.name, subject, own, x509.random_serial_number())
            .not_valid_before(now + timedelta(days=first_day))
            .not_valid_after(now + timedelta(days=first_day + 2))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**usage, encipher_only=False, decipher_only=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(own), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
        )
        if not is_ca:
            certificate = certificate.add_extension(address, critical=False)
        return certificate.sign(self.key, hashes.SHA256())

    def _write(self, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self.folder / f"{name}.key").write_bytes(secret)
        (self.folder / f"{name}.key").chmod(0o600)
        (self.folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


@pytest.fixture
def plant(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path / "plant")
    for name in ("broker", "st1"):
        authority.issue(name)
    return authority


@pytest.fixture
def secure_port(plant: Authority, make_mosquitto: Callable[..., Any], free_port: int) -> int:
    start_secure(plant, make_mosquitto, free_port)
    return free_port


def start_secure(plant: Authority, make_mosquitto: Callable[..., Any], port: int) -> None:
    folder = plant.folder
    make_mosquitto(
        f"listener {port} 127.0.0.1\ncafile {folder}/ca.pem\ncertfile {folder}/broker.pem\n"
        f"keyfile {folder}/broker.key\nrequire_certificate true\n"
    ).start()


def arrives(address: BrokerAddress, path: Path, *, denied: bool = False) -> bool:
    """Whether an event is acknowledged before it is known that the broker is not to be had, for two seconds."""
    store = Store(path)
    publisher = Publisher(Desk(address, "plant/st1", Identity("st1"), path, Counters().snapshot), FAST)
    publisher.start()
    store.commit([(Part("p", "cam", "s", 0, 0, Decision(Verdict.NG)), Event())])  # type: ignore[list-item]
    publisher.wake()
    least_s, by_s = time.monotonic() + 2, time.monotonic() + 180
    while store.depth().waiting and time.monotonic() < by_s:
        is_away = publisher.is_denied if denied else publisher._connection.has_failed
        if is_away and time.monotonic() > least_s:
            break
        time.sleep(0.02)
    arrived = store.depth().waiting == 0
    publisher.stop(reason="shutdown", drain_s=0.1)
    publisher._thread.join()
    store.close()
    assert bool(publisher.is_denied) == denied
    return arrived


class Event:
    topic = "event/anomaly"

    def to_json(self) -> bytes:
        return b'{"ts_ms":0,"late":false}'


def section(port: int, ca: Path, station: Path | None) -> MqttSection:
    certificate = {} if station is None else {"cert_file": station, "key_file": station.with_suffix(".key")}
    return MqttSection(url=f"mqtts://127.0.0.1:{port}", ca_file=ca, **certificate)


def test_events_travel_over_tls_with_certificates_on_both_sides(
    plant: Authority, secure_port: int, tmp_path: Path
) -> None:
    mqtt = section(secure_port, plant.folder / "ca.pem", plant.folder / "st1.pem")
    assert arrives(BrokerAddress.from_config(mqtt, client_id="st1"), tmp_path / "a.db")


# paho leaves a socket whose handshake failed to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_broker_of_another_authority_gets_nothing(plant: Authority, secure_port: int, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "stranger")
    mqtt = section(secure_port, stranger.folder / "ca.pem", plant.folder / "st1.pem")
    assert not arrives(BrokerAddress.from_config(mqtt, client_id="st1"), tmp_path / "a.db", denied=True)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("first_day", "denied"), [(-3, True), (1, False)])  # has ended; the clock is behind
def test_of_a_broker_whose_certificate_does_not_hold_today_an_operator_hears(
    plant: Authority,
    make_mosquitto: Callable[..., Any],
    free_port: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    *,
    first_day: int,
    denied: bool,
) -> None:
    plant.issue("broker", first_day=first_day)
    start_secure(plant, make_mosquitto, free_port)
    mqtt = section(free_port, plant.folder / "ca.pem", plant.folder / "st1.pem")
    assert not arrives(BrokerAddress.from_config(mqtt, client_id="st1"), tmp_path / "a.db", denied=denied)
    assert (
        f"certificate {'has expired' if denied else 'is not yet valid'}, by this machine's clock; "
        in caplog.text
    )
    assert "timedatectl" in caplog.text
    assert "_ssl.c" not in caplog.text


def test_a_station_without_certificate_is_not_let_in(
    plant: Authority, secure_port: int, tmp_path: Path
) -> None:
    mqtt = section(secure_port, plant.folder / "ca.pem", None)
    assert not arrives(BrokerAddress.from_config(mqtt, client_id="st1"), tmp_path / "a.db", denied=True)


def heard_of(asked: MqttSection) -> str:
    """What the doctor hears of a broker: why there is no connection, in words."""
    broker = BrokerAddress.from_config(asked, client_id="st1-doctor")
    client = broker.client()
    _, trouble = doctor_broker._listen(client, broker, "plant/st1/doctor")
    client.disconnect()
    client.loop_stop()
    return trouble


def test_the_doctor_hears_of_a_port_that_wants_tls(secure_port: int) -> None:
    assert "hangs up" in heard_of(MqttSection(url=f"mqtt://127.0.0.1:{secure_port}"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("case", "words", "cure"),
    [
        ("sound", "", ""),
        ("another authority", "of an authority that is not known here", "ca_file"),
        ("broker ended", "its certificate has expired, by this machine's clock", "timedatectl"),
        ("broker of tomorrow", "its certificate is not yet valid, by this machine's clock", "timedatectl"),
        ("another name", "for another name or address than localhost", "as url"),
        ("no certificate", "it wants a certificate of this station", "cert_file"),
        ("certificate of a stranger", "the authority of this station's certificate", "mqtt issue --client"),
        ("station ended", "this station's certificate has expired", "mqtt issue --client"),
        ("station of tomorrow", "it refuses this station's certificate", "compare the clocks"),
        ("no TLS", "perhaps this port speaks none", "8883"),
    ],
)
def test_why_tls_fails_is_told_in_words_with_its_cure(
    plant: Authority,
    make_mosquitto: Callable[..., Any],
    free_port: int,
    tmp_path: Path,
    *,
    case: str,
    words: str,
    cure: str,
) -> None:
    stranger = Authority(tmp_path / "stranger")
    stranger.issue("st1")
    for who, name in (("broker", "broker"), ("station", "st1")):
        if case.startswith(who):
            plant.issue(name, first_day=-3 if "ended" in case else 1)
    if case == "no TLS":
        make_mosquitto(f"listener {free_port} 127.0.0.1\n").start()
    else:
        start_secure(plant, make_mosquitto, free_port)
    ca = (stranger if case == "another authority" else plant).folder / "ca.pem"
    own = (stranger if "stranger" in case else plant).folder / "st1.pem"
    asked = section(free_port, ca, own if case != "no certificate" else None)
    if case == "another name":
        asked = asked.model_copy(update={"url": f"mqtts://localhost:{free_port}"})
    trouble = heard_of(asked)
    assert words in trouble if words else not trouble
    assert "SSL" not in trouble
    assert cure in cure_for(trouble)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("authority", "said"),
    [
        ("", ("of an authority that is not known here", "as ca_file")),
        ("ca.pem", ("it wants a certificate of this station", "cert_file")),
    ],
)
def test_a_simulated_station_that_is_not_let_in_is_told_why_at_once(
    plant: Authority, secure_port: int, tmp_path: Path, authority: str, said: tuple[str, str]
) -> None:
    url = f'url = "mqtts://127.0.0.1:{secure_port}"'
    files = f'ca_file = "{plant.folder / authority}"' if authority else ""
    (tmp_path / "station.toml").write_text(
        f'[station]\ntopic = "plant/st1"\n[source]\nurl = "synthetic:cap"\n[mqtt]\n{url}\n{files}\n'
    )
    given = ["--config", str(tmp_path / "station.toml"), "--state", str(tmp_path / "simulated")]
    error = CliRunner().invoke(simulate, given).exception
    assert isinstance(error, BrokerError)
    assert said[0] in error.what
    assert said[1] in error.cure


def test_files_that_are_no_certificates_are_named(tmp_path: Path) -> None:
    wrong = tmp_path / "ca.pem"
    wrong.write_text("no certificate")
    with pytest.raises(ConfigError, match="it holds no certificate in PEM format") as refused:
        BrokerAddress.from_config(section(8883, wrong, None), client_id="st1")
    assert "ca.pem" in refused.value.where


def test_a_private_key_that_others_can_read_is_refused(plant: Authority) -> None:
    (plant.folder / "st1.key").chmod(0o640)
    with pytest.raises(ConfigError, match="the private key can be read by others"):
        BrokerAddress.from_config(
            section(8883, plant.folder / "ca.pem", plant.folder / "st1.pem"), client_id="st1"
        )


def test_a_folder_in_place_of_a_secret_is_not_to_be_made_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    mqtt = MqttSection(url="mqtt://127.0.0.1", username="st1", password_file=tmp_path)
    with pytest.raises(ConfigError, match="the password file cannot be read: Is a directory"):
        BrokerAddress.from_config(mqtt, client_id="st1")
    with pytest.raises(SourceError, match="the camera's password cannot be read: Is a directory"):
        login(SourceUrl.parse(f"rtsp://127.0.0.1:9/x?user=boss&password_file={tmp_path}"))


def test_a_password_that_others_can_read_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    mqtt = MqttSection(url="mqtt://127.0.0.1", username="st1", password_file=secret)
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match="read by others"):
        BrokerAddress.from_config(mqtt, client_id="st1")
    secret.chmod(0o600)
    address = BrokerAddress.from_config(mqtt, client_id="st1")
    assert (address.password, address.port) == ("s3cret", 1883)
    assert "s3cret" not in repr(address)
