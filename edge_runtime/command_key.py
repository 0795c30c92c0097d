"""The secrets that commands are signed with: HMAC-SHA256 (RFC 2104), one file per key.

A key is text, so that a SCADA program can hold it: one line of printable ASCII, without its end of line. Its
name is the file's: `ops1.key` is the key `ops1`.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

from kenpin.errors import ConfigError, private_again

_SUFFIX = ".key"
_MAX_BYTES = 1024
_KID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SECRET = re.compile(rb"[!-~]{32,}")  # printable ASCII without spaces; 32 hexadecimal digits are 128 bits
_MAKE = "make one with: (umask 077; openssl rand -hex 32 > ops1.key)"


@dataclass(frozen=True)
class CommandKey:
    """One key.

    Attributes:
        kid: Its name, which is no secret.
        secret: Never shown, not even in a log of this object.
    """

    kid: str
    secret: bytes = field(repr=False)

    def sign(self, body: str) -> str:
        """The signature of a text: 64 lower-case hexadecimal digits over its UTF-8 bytes."""
        return hmac.new(self.secret, body.encode(), hashlib.sha256).hexdigest()

    def fits(self, body: str, signature: str) -> bool:
        """Whether a signature is the one of this text; how long it takes tells nothing."""
        return hmac.compare_digest(self.sign(body).encode(), signature.encode())


def load_keys(path: Path) -> dict[str, CommandKey]:
    """Read the keys that may sign.

    Args:
        path: A key file, or a folder of them.

    Returns:
        The keys by name.

    Raises:
        ConfigError: There is none, one cannot be used, or others can read one or add one.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _unreadable(path, error) from None
    if not stat.S_ISDIR(mode):
        key = load_key(path)
        return {key.kid: key}
    if mode & 0o022:
        raise ConfigError("others can add command keys", where=path, cure=f"chmod go-w {quote(str(path))}")
    keys = [load_key(file) for file in sorted(path.glob(f"*{_SUFFIX}"))]
    if not keys:
        raise ConfigError(f"there is no command key <name>{_SUFFIX} in the folder", where=path, cure=_MAKE)
    return {key.kid: key for key in keys}


def load_key(path: Path) -> CommandKey:
    """Read one key.

    Raises:
        ConfigError: It is missing, too short, not text, badly named, or can be read by others.
    """
    if path.suffix != _SUFFIX or not _KID.fullmatch(path.stem):
        raise ConfigError(
            "a command key has no proper name",
            where=path,
            cure=f"name it <name>{_SUFFIX}, with 1 to 64 of A-Z a-z 0-9 _ . - as the name",
        )
    secret = _read(path).rstrip(b"\r\n")
    if not _SECRET.fullmatch(secret):
        raise ConfigError(
            f"a command key is one line of 32 to {_MAX_BYTES} printable ASCII characters without spaces",
            where=path,
            cure=_MAKE,
        )
    return CommandKey(path.stem, secret)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise ConfigError(
                    "the command key can be read by others",
                    where=path,
                    cure=f"make a new one, as this one may be known, and {private_again(path)}",
                )
            data = file.read(_MAX_BYTES + 3)  # and its end of line
    except OSError as error:
        raise _unreadable(path, error) from None
    return data if len(data.rstrip(b"\r\n")) <= _MAX_BYTES else b""


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot read the command key: {error.strerror}", where=path, cure=_MAKE)
