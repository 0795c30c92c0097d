"""Signatures: what is refused, and that the standard tool agrees."""

from __future__ import annotations

import base64
import resource
import stat
import subprocess
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from kenpin import signing
from kenpin.errors import BundleError, ConfigError
from kenpin.signing import PublicKey, SecretKey, default_key, verify
from kenpin.station_folder import StationFolder
from kenpin.station_key import station_key

DATA = b"what is signed"
KEY = SecretKey(b"12345678", bytes(range(32)))


def signature() -> str:
    return KEY.sign(DATA, comment="product=cap version=1")


def test_sign_and_verify() -> None:
    stranger = SecretKey.generate().public
    assert verify(DATA, signature(), [stranger, KEY.public], where="here") == KEY.public


def test_trusted_comment_may_be_any_unicode() -> None:
    verify(DATA, KEY.sign(DATA, comment="検品"), [KEY.public], where="here")


def test_changed_data_is_refused() -> None:
    with pytest.raises(BundleError, match="changed after signing") as caught:
        verify(DATA + b".", signature(), [KEY.public], where="a.kenpin")
    assert caught.value.where == "a.kenpin"
    assert caught.value.cure


def test_unknown_key_is_named() -> None:
    other = SecretKey.generate().public
    with pytest.raises(BundleError, match=f"signed by key {KEY.public.name}.*trusted: {other.name}"):
        verify(DATA, signature(), [other], where="here")
    with pytest.raises(BundleError, match="trusted: none"):
        verify(DATA, signature(), [], where="here")


def test_other_key_with_the_same_id_is_refused() -> None:
    impostor = SecretKey(KEY.key_id, bytes(32))
    with pytest.raises(BundleError, match="changed after signing"):
        verify(DATA, impostor.sign(DATA, comment="x"), [KEY.public], where="here")


def test_every_changed_byte_is_refused() -> None:
    """But for the first line, which minisign itself calls untrusted."""
    text = signature().encode()
    for position in range(text.index(b"\n"), len(text)):
        changed = bytearray(text)
        changed[position] ^= 1 << position % 7
        with pytest.raises(BundleError):
            verify(DATA, changed.decode(), [KEY.public], where="here")


@pytest.mark.parametrize("line", [1, 3])
def test_spare_bits_of_base64_are_refused(line: int) -> None:
    """74 and 64 bytes leave spare bits in the last character, which lenient decoders ignore."""
    lines = signature().split("\n")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    body = lines[line].rstrip("=")
    padding = lines[line][len(body) :]
    lines[line] = body[:-1] + alphabet[alphabet.index(body[-1]) + 1] + padding
    assert base64.b64decode(lines[line]) == base64.b64decode(signature().split("\n")[line])
    with pytest.raises(BundleError, match="malformed"):
        verify(DATA, "\n".join(lines), [KEY.public], where="here")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n\n\n",
        "untrusted comment: x\nAAAA\ntrusted comment: y\nAAAA\n",
        "\0" * 300,
        signature() + "more",  # no signature covers what is not read
        signature().replace("trusted comment: product", "product"),
        signature().replace(signature().split("\n")[1], "RUQxMjM0NTY3OA=="),
    ],
)
def test_malformed_signature(text: str) -> None:
    with pytest.raises(BundleError, match="malformed"):
        verify(DATA, text, [KEY.public], where="here")


def test_files_round_trip_and_only_the_owner_reads_the_secret(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "line.key"
    KEY.save(path)
    assert SecretKey.load(path) == KEY
    assert PublicKey.load(tmp_path / "deep" / "line.pub") == KEY.public
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("existing", ["line.key", "line.pub"])
def test_no_key_is_overwritten(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("precious")
    with pytest.raises(ConfigError, match="exists"):
        KEY.save(tmp_path / "line.key")
    assert [p.name for p in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_text() == "precious"


def test_the_secret_is_not_written_where_the_public_key_goes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must not end in \.pub"):
        KEY.save(tmp_path / "line.pub")
    assert not list(tmp_path.iterdir())


def test_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write the key"):
        KEY.save(tmp_path / "file" / "line.key")


def test_a_full_disk_leaves_no_half_of_a_key(tmp_path: Path) -> None:
    """It would be taken for a key that is there: none could be made, and none read."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, usual[1]))
    try:
        with pytest.raises(ConfigError, match="cannot write the key"):
            KEY.save(tmp_path / "signing.key")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert list(tmp_path.iterdir()) == []
    KEY.save(tmp_path / "signing.key")


def test_secret_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    KEY.save(tmp_path / "line.key")
    (tmp_path / "line.key").chmod(0o640)
    with pytest.raises(ConfigError, match="can be read by others") as caught:
        SecretKey.load(tmp_path / "line.key")
    assert "chmod 600" in caught.value.cure


def rewrite(path: Path, position: int, value: bytes) -> None:
    first, blob = path.read_text().splitlines()
    raw = bytearray(base64.b64decode(blob))
    raw[position : position + len(value)] = value
    path.write_text(f"{first}\n{base64.b64encode(raw).decode()}\n")


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, b"XX", "not a minisign secret key"),
        (4, b"XX", "not a minisign secret key"),
        (2, b"Sc", "has a password"),
        (60, b"\0", "damaged"),
        (70, b"\xff", "damaged"),
        (157, b"\xff", "damaged"),
    ],
)
def test_damaged_secret_key(tmp_path: Path, position: int, value: bytes, message: str) -> None:
    KEY.save(tmp_path / "line.key")
    rewrite(tmp_path / "line.key", position, value)
    with pytest.raises(ConfigError, match=message):
        SecretKey.load(tmp_path / "line.key")


def test_damaged_secret_key_without_checksum(tmp_path: Path) -> None:
    """The tool writes none for a key without password."""
    KEY.save(tmp_path / "line.key")
    rewrite(tmp_path / "line.key", 126, bytes(32))
    assert SecretKey.load(tmp_path / "line.key") == KEY
    rewrite(tmp_path / "line.key", 62, b"\xff")
    with pytest.raises(ConfigError, match="damaged"):
        SecretKey.load(tmp_path / "line.key")


@pytest.mark.parametrize("dies_at", [1, 2])
def test_a_station_whose_power_fails_while_its_key_is_made_has_one_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    folder = StationFolder(tmp_path)
    write, calls = signing._write_new, []

    def dies(*arguments: Any, **options: Any) -> None:
        calls.append(1)
        if len(calls) == dies_at:
            raise SystemExit
        write(*arguments, **options)

    with monkeypatch.context() as failing:
        failing.setattr(signing, "_write_new", dies)
        with pytest.raises(SystemExit):
            station_key(folder)
    key = station_key(folder)
    assert PublicKey.load(folder.public_key) == key.public
    assert station_key(folder) == key


def test_keys_of_the_wrong_kind(tmp_path: Path) -> None:
    KEY.save(tmp_path / "line.key")
    (tmp_path / "line.pub").chmod(0o600)
    with pytest.raises(ConfigError, match="not a minisign key"):
        SecretKey.load(tmp_path / "line.pub")
    with pytest.raises(ConfigError, match="not a minisign key"):
        PublicKey.load(tmp_path / "line.key")
    with pytest.raises(ConfigError, match="cannot read the key: No such file"):
        PublicKey.load(tmp_path / "none.pub")
    with pytest.MonkeyPatch.context() as other_user:
        refused = PermissionError(13, "Permission denied")
        other_user.setattr(Path, "read_text", Mock(side_effect=refused))
        with pytest.raises(ConfigError, match="cannot read the key: Permission") as caught:
            SecretKey.load(tmp_path / "station.key")
    assert "user" in caught.value.cure  # a new key would be another one
    with pytest.raises(ConfigError, match="cannot read the key: Is a directory"):
        PublicKey.load(tmp_path)
    (tmp_path / "picture.pub").write_bytes(bytes(range(256)))
    with pytest.raises(ConfigError, match="not a minisign key"):
        PublicKey.load(tmp_path / "picture.pub")
    rewrite(tmp_path / "line.pub", 0, b"XX")
    with pytest.raises(ConfigError, match="not a minisign public key"):
        PublicKey.load(tmp_path / "line.pub")


def test_default_key_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_key() == tmp_path / "kenpin" / "signing.key"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_key() == Path("/home/someone/.config/kenpin/signing.key")


def minisign(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["minisign", *map(str, arguments)], capture_output=True, text=True, check=False)


def test_minisign_accepts_our_keys_and_signatures(tmp_path: Path) -> None:
    data = tmp_path / "manifest.json"
    data.write_bytes(DATA)
    data.with_name("manifest.json.minisig").write_text(signature())
    KEY.save(tmp_path / "line.key")
    done = minisign("-V", "-m", data, "-p", tmp_path / "line.pub")
    assert done.returncode == 0, done.stderr
    assert "product=cap version=1" in done.stdout

    signed = minisign("-S", "-m", data, "-s", tmp_path / "line.key", "-t", "by the tool")
    assert signed.returncode == 0, signed.stderr
    assert (
        verify(DATA, (tmp_path / "manifest.json.minisig").read_text(), [KEY.public], where=data) == KEY.public
    )

    data.write_bytes(DATA + b".")
    assert minisign("-V", "-m", data, "-p", tmp_path / "line.pub").returncode != 0


def test_we_accept_keys_and_signatures_of_minisign(tmp_path: Path) -> None:
    data, secret, public = tmp_path / "data", tmp_path / "tool.key", tmp_path / "tool.pub"
    data.write_bytes(DATA)
    assert minisign("-G", "-W", "-s", secret, "-p", public).returncode == 0
    assert minisign("-S", "-m", data, "-s", secret).returncode == 0
    trusted = PublicKey.load(public)
    assert verify(DATA, (tmp_path / "data.minisig").read_text(), [trusted], where=data) == trusted

    secret.chmod(0o600)
    ours = SecretKey.load(secret).sign(DATA, comment="by us")
    (tmp_path / "data.minisig").write_text(ours)
    assert minisign("-V", "-m", data, "-p", public).returncode == 0
