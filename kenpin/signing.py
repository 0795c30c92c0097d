"""Ed25519 signatures in the format of minisign, so that any operator can check them with a standard tool.

The format is described at https://jedisct1.github.io/minisign/ (algorithm `ED`: the signature covers the
BLAKE2b-512 hash of the file). Secret keys are written without a password, as `minisign -G -W` does.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kenpin.errors import BundleError, ConfigError, private_again
from kenpin.synced_file import create_synced

_MAKE = "make one with: kenpin bundle keygen"
# A new key would not have signed the bundles that are there.
_TRUST = "correct trusted_keys or --trust, or copy the .pub file that lies beside the signing key"


@dataclass(frozen=True)
class PublicKey:
    """A key that signatures are checked with.

    Attributes:
        key_id: The eight bytes that minisign names a key by.
        raw: The Ed25519 public key, 32 bytes.
    """

    key_id: bytes
    raw: bytes

    @property
    def name(self) -> str:
        """The key id as minisign prints it."""
        return self.key_id[::-1].hex().upper()

    def dumps(self) -> str:
        """The text of a minisign public key file."""
        return f"untrusted comment: minisign public key {self.name}\n{_b64(b'Ed' + self.key_id + self.raw)}\n"

    @classmethod
    def load(cls, path: Path) -> PublicKey:
        """Read a minisign public key file.

        Raises:
            ConfigError: The file is missing or not a public key.
        """
        raw = _read_key_line(path, size=42, cure=_TRUST)
        if raw[:2] != b"Ed":
            raise ConfigError("the file is not a minisign public key", where=path, cure=_TRUST)
        return cls(raw[2:10], raw[10:])


@dataclass(frozen=True)
class SecretKey:
    """A key that signs. Keep it away from stations."""

    key_id: bytes
    seed: bytes

    @classmethod
    def generate(cls) -> SecretKey:
        """A new random key."""
        return cls(os.urandom(8), os.urandom(32))

    @property
    def public(self) -> PublicKey:
        """The key to give to those who check."""
        raw = Ed25519PrivateKey.from_private_bytes(self.seed).public_key()
        return PublicKey(self.key_id, raw.public_bytes(Encoding.Raw, PublicFormat.Raw))

    def save(self, path: Path) -> None:
        """Write the secret key (mode 0600) and, beside it, the public key as `<stem>.pub`.

        Raises:
            ConfigError: One of the files exists already, as a key is never overwritten; or it cannot be
                written.
        """
        secret = self.seed + self.public.raw
        check = hashlib.blake2b(b"Ed" + self.key_id + secret, digest_size=32).digest()
        # Algorithm, no key derivation, BLAKE2b; salt and limits are unused without a password.
        blob = b"Ed" + b"\0\0" + b"B2" + bytes(48) + self.key_id + secret + check
        text = f"untrusted comment: minisign encrypted secret key\n{_b64(blob)}\n"
        public = path.with_suffix(".pub")
        if public == path:
            raise ConfigError(
                "the secret key must not end in .pub", where=path, cure="name it, for example, signing.key"
            )
        # The secret first: after a power cut between the two, the public one can be made of it.
        _refuse_taken(public)
        _write_new(path, text, mode=0o600)
        try:
            _write_new(public, self.public.dumps(), mode=0o644)
        except ConfigError:
            path.unlink()
            raise

    @classmethod
    def load(cls, path: Path) -> SecretKey:
        """Read a secret key without password.

        Raises:
            ConfigError: The file is missing, damaged, has a password or can be read by others.
        """
        raw = _read_key_line(path, size=158, cure=_MAKE)
        if path.stat().st_mode & 0o077:
            raise ConfigError("the secret key can be read by others", where=path, cure=private_again(path))
        if raw[:2] != b"Ed" or raw[4:6] != b"B2":
            raise ConfigError("the file is not a minisign secret key", where=path, cure=_MAKE)
        if raw[2:4] != b"\0\0":
            raise ConfigError("the secret key has a password", where=path, cure=_MAKE)
        key = cls(raw[54:62], raw[62:94])
        # The tool leaves the checksum of a key without password empty.
        expected = hashlib.blake2b(b"Ed" + raw[54:126], digest_size=32).digest()
        if raw[126:] not in (expected, bytes(32)) or raw[94:126] != key.public.raw:
            raise ConfigError("the secret key is damaged", where=path, cure="restore it from your copy")
        return key

    def sign(self, data: bytes, *, comment: str) -> str:
        """Sign data.

        Args:
            data: What to sign.
            comment: Trusted comment, covered by the signature; one line.

        Returns:
            The text of a `.minisig` file.
        """
        key = Ed25519PrivateKey.from_private_bytes(self.seed)
        signature = key.sign(hashlib.blake2b(data).digest())
        global_signature = key.sign(signature + comment.encode())
        return (
            f"untrusted comment: signature by kenpin\n{_b64(b'ED' + self.key_id + signature)}\n"
            f"trusted comment: {comment}\n{_b64(global_signature)}\n"
        )


def verify(data: bytes, signature: str, trusted: Sequence[PublicKey], *, where: object) -> PublicKey:
    """Check a minisign signature.

    Args:
        data: What was signed.
        signature: Text of the `.minisig` file.
        trusted: Keys that may have signed.
        where: What to name in an error.

    Returns:
        The key that signed.

    Raises:
        BundleError: The signature is malformed, by an unknown key, or does not fit the data.
    """
    malformed = BundleError(
        "the signature file is malformed", where=where, cure="copy the file again from the workstation"
    )
    lines = signature.split("\n")
    if len(lines) != 5 or lines[4] or not lines[2].startswith("trusted comment: "):
        raise malformed
    signed, global_signature = _unb64(lines[1]), _unb64(lines[3])
    if len(signed) != 74 or signed[:2] != b"ED" or len(global_signature) != 64:
        raise malformed
    key = next((k for k in trusted if k.key_id == signed[2:10]), None)
    if key is None:
        known = ", ".join(k.name for k in trusted) or "none"
        raise BundleError(
            f"signed by key {signed[2:10][::-1].hex().upper()}, which is not trusted here (trusted: {known})",
            where=where,
            cure="if the signer is yours, add its .pub file to the trusted keys",
        )
    public = Ed25519PublicKey.from_public_bytes(key.raw)
    try:
        public.verify(signed[10:], hashlib.blake2b(data).digest())
        public.verify(global_signature, signed[10:] + lines[2].removeprefix("trusted comment: ").encode())
    except InvalidSignature:
        raise BundleError(
            "the signature does not fit: the signed content was changed after signing",
            where=where,
            cure="do not use it; copy it again from the workstation or export again",
        ) from None
    return key


def _write_new(path: Path, text: str, *, mode: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        create_synced(path, text.encode(), mode=mode)
    except OSError as error:
        if isinstance(error, FileExistsError):
            _refuse_taken(path)
        what = f"cannot write the key: {error.strerror}"
        raise ConfigError(what, where=path, cure="choose another name; no key is ever overwritten") from None


def _refuse_taken(path: Path) -> None:
    if os.path.lexists(path):
        cure = "choose another name; no key is ever overwritten"
        raise ConfigError("a key with this name exists", where=path, cure=cure)


def _read_key_line(path: Path, *, size: int, cure: str) -> bytes:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except PermissionError as error:  # a new key would not have signed what is there
        cure = "run this as the user that owns the key, or let this user read it"
        raise ConfigError(f"cannot read the key: {error.strerror}", where=path, cure=cure) from None
    except OSError as error:
        raise ConfigError(f"cannot read the key: {error.strerror}", where=path, cure=cure) from None
    except UnicodeDecodeError:
        lines = []
    raw = _unb64(lines[1]) if len(lines) >= 2 else b""
    if len(raw) != size:
        raise ConfigError("the file is not a minisign key", where=path, cure=cure)
    return raw


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _unb64(text: str) -> bytes:
    """Decode canonical base64 only: spare bits in the padding would leave bytes that nobody checks."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return data if _b64(data) == text else b""


def default_key() -> Path:
    """The signing key of this user, where no other is named: `~/.config/kenpin/signing.key`."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "kenpin" / "signing.key"
