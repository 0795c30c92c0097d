"""The station's configuration: every mistake is answered with the line and the cure."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives import serialization

from kenpin.config_file import load_config
from kenpin.edge_runtime.config_cli import config
from kenpin.edge_runtime.pki import Authority, Lifetime
from kenpin.errors import ConfigError
from kenpin.signing import SecretKey

WHOLE = """
# A station with everything set.
[station]
topic = "plant/site/area/line/cap-3"
state_dir = "/tmp/kenpin"
trusted_keys = ["/etc/kenpin/a.pub"]

[source]
url = "folder:/pictures?rate=5"

[mqtt]
url = "mqtts://broker.plant:8883"
username = "cap-3"
password_file = "/etc/kenpin/password"
ca_file = "/etc/kenpin/ca.pem"

[decide]
timeout_ms = 250

[engine]
workspace_mb = 256
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "station.toml"
    path.write_text(text)
    return path


def refusal(tmp_path: Path, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, text))
    assert caught.value.cure
    assert "station.toml" in caught.value.where
    return caught.value


def test_everything_set(tmp_path: Path) -> None:
    loaded = load_config(write(tmp_path, WHOLE))
    assert loaded.station.id == "cap-3"
    assert loaded.station.trusted_keys == (Path("/etc/kenpin/a.pub"),)
    assert loaded.source.url == "folder:/pictures?rate=5"
    assert loaded.decide.timeout_ms == 250
    assert loaded.engine.workspace_mb == 256


def test_only_a_source_is_needed(tmp_path: Path) -> None:
    loaded = load_config(write(tmp_path, '[source]\nurl = "usb:0"\n'))
    assert loaded.mqtt.url == ""
    assert loaded.station.state_dir == Path("/var/lib/kenpin")


@pytest.mark.parametrize(
    ("wrong", "line", "what", "cure"),
    [
        ("timeout_ms = 250 -> timeout_s = 250", 18, "unknown key decide.timeout_s", "did you mean timeout_ms?"),
        ("[source] -> [sorce]", 8, "unknown key sorce", "did you mean source?"),
        ("[source]\nurl -> [source]\nulr", 9, "unknown key source.ulr", "did you mean url?"),
        ("state_dir -> threshold", 5, "unknown key station.threshold", "known here: state_dir, topic"),
        ("line/cap-3 -> line/cap+3", 4, "station.topic: use one to eight levels", "correct"),
        ("plant/site -> /site", 4, "station.topic", "correct"),
        ("plant/site -> a/b/c/d/e/f", 4, "station.topic", "correct"),
        ("250 -> 0", 18, "decide.timeout_ms: Input should be greater than or equal to 1", "correct"),
        ('250 -> "fast"', 18, "decide.timeout_ms: Input should be a valid integer", "correct"),
        ('["/etc/kenpin/a.pub"] -> [7]', 6, "station.trusted_keys", "correct"),
        ('["/etc/kenpin/a.pub"] -> "/etc/kenpin/a.pub"', 6, "this is a list", 'trusted_keys = ["…"]'),
        ("/etc/kenpin/a.pub -> ~/a.pub", 6, "~/a.pub begins with ~", "correct"),
        ('"/tmp/kenpin" -> ""', 5, "it is empty; write the folder's whole path", "correct"),
        ('"/tmp/kenpin" -> "~/station"', 5, "~/station begins with ~", "correct"),
        (
            "url = \"folder -> views = ['usb:1', 'usb:1?fps=9']\nurl = \"folder",
            9,
            "usb:1 is there twice",
            "correct",
        ),
        ("[decide] -> [[decide]]", 17, "decide: this is a section", "[decide]"),
        ("mqtts:// -> mqtt://", 11, "plain mqtt:// to another machine", "correct"),
        ("mqtts://broker.plant:8883 -> broker.plant", 11, "mqtt: url must look like", "correct"),
        ("mqtts://broker.plant:8883 -> mqtts://broker.plant:port", 11, "mqtt: url must look like", "correct"),
        ("mqtts://broker.plant:8883 -> mqtts://broker.plant:99999", 11, "mqtt: url must look like", "correct"),
        ("mqtts:// -> mqtts://me:secret@", 11, "no password in the url", "correct"),
        ("username -> #", 11, "password_file says nothing without a username", "correct"),
        (
            'username = "cap-3"\npassword_file = "/etc/kenpin/password" -> #',
            11,
            "no login to another machine",
            "correct",
        ),
        ('password_file -> cert_file = "st1.pem"\n#', 11, "cert_file and key_file belong together", "correct"),
        ("[decide] -> [commands]\nthreshold_step = inf\n[decide]", 18, "should be a finite number", "correct"),
        ("line/cap-3 -> line/cap-3\\n", 4, "station.topic: use one to eight levels", "correct"),
    ],
)
def test_mistakes_are_answered_with_the_line(
    tmp_path: Path, *, wrong: str, line: int, what: str, cure: str
) -> None:
    before, after = wrong.split(" -> ")
    assert before in WHOLE
    error = refusal(tmp_path, WHOLE.replace(before, after, 1))
    assert error.where.endswith(f"station.toml, line {line}")
    assert what in error.what
    assert cure in error.cure


@pytest.mark.parametrize(
    ("lines", "line", "name"),
    [
        ('[source]\nurl = "usb:0"\n[output]\nmqtt = true', 4, "output.mqtt"),
        ('[source]\nurl = "usb:0"\n[sparkplug]\nenabled = true', 4, "sparkplug.enabled"),
        ('[source]\nurl = "usb:0"\n[homeassistant]\nenabled = true', 4, "homeassistant.enabled"),
        ('[source]\nurl = "usb:0"\ntrigger = "mqtt:plant/trigger"', 3, "source.trigger"),
        ('[source]\nurl = "usb:0"\n[commands]\nkeys = "keys"', 4, "commands.keys"),
    ],
)
def test_what_goes_by_mqtt_alone_needs_a_broker(tmp_path: Path, lines: str, line: int, name: str) -> None:
    error = refusal(tmp_path, lines)
    assert error.what == f"{name}: this needs a broker"
    assert error.where.endswith(f"line {line}")
    assert error.cure == "add url to [mqtt]"
    load_config(write(tmp_path, f'{lines}\n[mqtt]\nurl = "mqtt://127.0.0.1"'))


def test_password_is_not_repeated_in_the_answer(tmp_path: Path) -> None:
    error = refusal(tmp_path, WHOLE.replace("mqtts://", "mqtts://me:secret@"))
    assert "secret" not in str(error)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_plain_mqtt_on_this_machine(tmp_path: Path, host: str) -> None:
    assert load_config(write(tmp_path, WHOLE.replace("mqtts://broker.plant", f"mqtt://{host}"))).mqtt.url


def test_plain_mqtt_elsewhere_when_the_risk_is_accepted(tmp_path: Path) -> None:
    text = WHOLE.replace("mqtts://", "mqtt://").replace("username", "insecure = true\nusername")
    assert load_config(write(tmp_path, text)).mqtt.insecure


def test_missing_section_and_key(tmp_path: Path) -> None:
    error = refusal(tmp_path, "")
    assert (error.what, error.cure) == ("source is missing", "add the section [source]")
    error = refusal(tmp_path, "[source]\n")
    assert (error.what, error.cure) == ("source.url is missing", "add url to [source]")


def test_a_file_as_windows_editors_save_it(tmp_path: Path) -> None:
    path = tmp_path / "station.toml"
    path.write_bytes(b"\xef\xbb\xbf" + WHOLE.replace("\n", "\r\n").encode())
    assert load_config(path).station.id == "cap-3"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "line 2" in refusal(tmp_path, '[source]\nurl = "usb:0\n').what
    (tmp_path / "station.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path / "station.toml")
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "none.toml")


def checked(tmp_path: Path, text: str) -> Result:
    return CliRunner().invoke(config, ["check", str(write(tmp_path, text))])


def issue(folder: Path, name: str, *, begin_days: float = -1, days: int = 800) -> None:
    """A certificate of a new authority, `ca.pem`, and its key."""
    now = datetime.now(timezone.utc)
    lifetime = Lifetime(now + timedelta(days=begin_days), now + timedelta(days=days))
    authority = Authority.create(lifetime)
    for path in (folder / "ca.key", folder / "ca.pem", folder / f"{name}.key", folder / f"{name}.pem"):
        path.unlink(missing_ok=True)
    authority.own.save(folder, "ca")
    authority.issue_client(name, lifetime).save(folder, name)


def secured(folder: Path, **days: float) -> str:
    """A configuration whose files are all there."""
    (folder / "a.pub").write_text(SecretKey.generate().public.dumps())
    issue(folder, "cap-3", **days)  # type: ignore[arg-type]
    login = f'cert_file = "{folder}/cap-3.pem"\nkey_file = "{folder}/cap-3.key"'
    text = WHOLE.replace("/etc/kenpin", str(folder))
    return text.replace(f'username = "cap-3"\npassword_file = "{folder}/password"', login)


def test_a_certificate_that_ends_soon_is_told(tmp_path: Path) -> None:
    result = checked(tmp_path, secured(tmp_path, days=20))
    assert result.exit_code == 0, result.output
    assert "cap-3.pem ends in 19 days" in result.stderr
    assert "ca.pem ends in 19 days" in result.stderr


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "ca.pem").unlink(), "the certificate cannot be read: No such file"),
        (lambda folder: (folder / "cap-3.pem").write_text("x"), "holds no certificate"),
        (lambda folder: (folder / "cap-3.key").unlink(), "the private key cannot be read: No such file"),
        (lambda folder: (folder / "cap-3.key").chmod(0o644), "can be read by others"),
        (lambda folder: issue(folder, "cap-3", days=-1, begin_days=-9), "ended on"),
        (lambda folder: issue(folder, "cap-3", begin_days=9), "begins on"),
        (
            lambda folder: (issue(folder, "b"), (folder / "b.key").replace(folder / "cap-3.key")),
            "key values mismatch",
        ),
        (lambda folder: lock(folder / "cap-3.key"), "no private key in PEM format, or one with a pass phrase"),
    ],
)
def test_check_finds_files_with_which_nothing_would_connect(
    tmp_path: Path, spoil: Callable[[Path], object], words: str
) -> None:
    text = secured(tmp_path)
    spoil(tmp_path)
    error = checked(tmp_path, text).exception
    assert isinstance(error, ConfigError)
    assert words in error.what
    assert "cap-3" in error.where or "ca.pem" in error.where


def lock(path: Path) -> None:
    """Give a private key a pass phrase."""
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    phrase = serialization.BestAvailableEncryption(b"secret")
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, phrase))


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('[commands]\nkeys = "FOLDER/none"', "cannot read the command key"),
        ('[web]\ntls_cert_file = "FOLDER/cap-3.pem"\ntls_key_file = "FOLDER/none"', "the private key"),
    ],
)
def test_check_looks_at_the_keys_of_commands_and_page_too(tmp_path: Path, lines: str, words: str) -> None:
    error = checked(tmp_path, secured(tmp_path) + lines.replace("FOLDER", str(tmp_path))).exception
    assert isinstance(error, ConfigError)
    assert words in error.what


def test_check_opens_the_password_of_a_camera(tmp_path: Path) -> None:
    password = tmp_path / "camera"
    text = f'[source]\nurl = "usb:0"\nviews = ["rtsp://cam/1?user=bob&password_file={password}"]\n'
    error = checked(tmp_path, text).exception
    assert isinstance(error, ConfigError)
    assert "password cannot be read" in error.what
    assert (error.where, "readable for this user" in error.cure) == (str(password), True)
    password.write_text("word")
    password.chmod(0o644)
    assert "can be read by others" in str(checked(tmp_path, text).exception)
    password.chmod(0o600)
    assert checked(tmp_path, text).exit_code == 0


def test_check_says_what_it_found(tmp_path: Path) -> None:
    result = checked(tmp_path, secured(tmp_path))
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "station cap-3" in result.stderr
    wrong = checked(tmp_path, "[sorce]")
    assert isinstance(wrong.exception, ConfigError)
    assert wrong.exception.exit_code == 2


def test_check_warns_of_pictures_that_are_not_there(tmp_path: Path) -> None:
    """The station would not start; what is checked at a desk may be mounted at the line."""
    there = tmp_path / "parts"
    there.mkdir()
    text = f'[source]\nurl = "folder:{there}"\nviews = ["video:{tmp_path}/none.mp4"]\n'
    result = checked(tmp_path, text)
    assert result.exit_code == 0, result.output
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert warnings == [f"warning: the video does not exist: {tmp_path}/none.mp4"]


@pytest.mark.parametrize("key", ["url", "views"])
@pytest.mark.parametrize(
    ("address", "cure"),
    [
        ("ubs:0", "did you mean usb?"),
        ("usb:0?exposure=4000", "did you mean exposure_us?"),
        ("usb:0?exposure_us=bright", "give a number"),
        ("folder:x?rat=5", "did you mean rate?"),
        ("folder:x?rate=fast", "give a number"),
        ("synthetic:bord", ""),
        ("aravis:cam?trigger=on", "give off, software or line0 to line9"),
        ("pylon:0?exposure_us=0", "give a number"),
        ("rtsp:host", "write rtsp://"),
        ("rtsp://host/1?user=bob", "or neither of the two"),
        ("rtsp://host/1?password_file=/run/secret", "or neither of the two"),
    ],
)
def test_check_refuses_addresses_that_no_station_takes(
    tmp_path: Path, key: str, address: str, cure: str
) -> None:
    text = (
        f'[source]\nurl = "{address}"\n'
        if key == "url"
        else f'[source]\nurl = "usb:7"\nviews = ["{address}"]\n'
    )
    error = checked(tmp_path, text).exception
    assert isinstance(error, ConfigError), error
    assert cure in error.cure


@pytest.mark.parametrize(
    ("more", "cure"),
    [
        ('trigger = "modbus"', "add modbus"),
        ('trigger = "software"', "leave out [source] trigger"),
        ('trigger = "gpio:gpiochip0/x"', "gpioinfo"),
        ('trigger = "mqtt:a/#/b"\n[mqtt]\nurl = "mqtt://127.0.0.1"', "correct the value"),
        ('[output]\nmodbus = "1502"', "HOST:PORT"),
        ('[output]\ngpio = "gpiochip0/1,1,1,1"', "the numbers of READY"),
        ('[mqtt]\nurl = "mqtt://127.0.0.1"\n[sparkplug]\nenabled = true\ngroup_id = "a/b"', "without + / #"),
    ],
)
def test_check_refuses_triggers_and_outputs_that_end_the_station(tmp_path: Path, more: str, cure: str) -> None:
    url = "synthetic:cap?trigger=1" if more.startswith("trigger") and "software" not in more else "usb:0"
    error = checked(tmp_path, f'[source]\nurl = "{url}"\n{more}\n').exception
    assert isinstance(error, ConfigError), error
    assert cure in error.cure


@pytest.mark.parametrize("trigger", ["modb", "mqtt:a/#/b", "gpio:18"])
def test_who_may_trigger_is_told_in_words(tmp_path: Path, trigger: str) -> None:
    error = checked(tmp_path, f'[source]\nurl = "usb:0"\ntrigger = "{trigger}"\n').exception
    assert isinstance(error, ConfigError), error
    assert 'use "camera-line", "software", "modbus"' in error.what
    assert "pattern" not in error.what


@pytest.mark.parametrize(
    ("more", "keys"),
    [
        ('[output]\nmodbus = "127.0.0.1:9464"', "[output] modbus and [health] listen"),
        ('[output]\nmodbus = "0.0.0.0:8080"', "[output] modbus and [web] listen"),
        ('[output]\nmodbus = "[::]:8080"', "[output] modbus and [web] listen"),
        ('[health]\nlisten = "localhost:8080"', "[health] listen and [web] listen"),
        ('[health]\nlisten = "[::1]:1"\n[web]\nlisten = "localhost:1"', "[health] listen and [web] listen"),
    ],
)
def test_check_refuses_two_that_want_one_port(tmp_path: Path, more: str, keys: str) -> None:
    error = checked(tmp_path, f'[source]\nurl = "usb:0"\n{more}\n').exception
    assert isinstance(error, ConfigError), error
    assert error.where == keys
    assert "give one of them another port" in error.cure


@pytest.mark.parametrize(
    "more",
    [
        '[output]\nmodbus = "192.0.2.1:9464"',
        '[output]\nmodbus = "127.0.0.1:9465"',
        '[output]\nmodbus = "127.0.0.1:9464"\n[health]\nlisten = ""',
        '[health]\nlisten = "[::1]:8080"',
    ],
)
def test_check_lets_each_have_its_own_port(tmp_path: Path, more: str) -> None:
    result = checked(tmp_path, f'[source]\nurl = "usb:0"\n{more}\n')
    assert result.exit_code == 0, result.output


def test_check_opens_no_camera_and_needs_no_makers_package(tmp_path: Path) -> None:
    result = checked(tmp_path, '[source]\nurl = "aravis:cam?trigger=off"\nviews = ["usb:93", "pylon:0"]\n')
    assert result.exit_code == 0, result.output
    assert "frames from aravis:cam?trigger=off, usb:93, pylon:0" in result.stderr


def test_check_reads_the_keys_that_are_trusted(tmp_path: Path) -> None:
    missing = checked(tmp_path, WHOLE.replace("/etc/kenpin/a.pub", str(tmp_path / "typo.pub"))).exception
    assert isinstance(missing, ConfigError)
    assert missing.where == str(tmp_path / "typo.pub")
    assert "correct trusted_keys" in missing.cure


def test_schema_is_json_with_every_section() -> None:
    result = CliRunner().invoke(config, ["schema"])
    schema = json.loads(result.stdout)
    sections = {"station", "source", "mqtt", "decide", "output", "evidence", "health"}
    sections |= {"engine", "store", "commands", "sparkplug", "web", "homeassistant"}
    assert set(schema["properties"]) == sections
    assert schema["additionalProperties"] is False


def test_the_example_is_valid() -> None:
    config = load_config(Path(__file__).parent.parent / "examples" / "station.toml")
    assert config.station.id == "st-01"


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:0", "127.0.0.1:65536", ":9464", "9464", "192.0.2.1:9464", "localhost:"]
)
def test_an_address_of_health_is_on_this_machine_and_has_a_port(tmp_path: Path, listen: str) -> None:
    error = refusal(tmp_path, WHOLE + f'[health]\nlisten = "{listen}"\n')
    assert "a loopback address and a port" in error.what


@pytest.mark.parametrize("listen", ["", "[::1]:9464", "localhost:1"])
def test_health_may_be_nowhere_or_on_the_other_loopback(tmp_path: Path, listen: str) -> None:
    text = WHOLE + f'[health]\nlisten = "{listen}"\n'
    assert load_config(write(tmp_path, text)).health.listen == listen
