"""UNIX sockets in the station's run folder, however long its path: their addresses have room for 107 bytes."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kenpin.errors import ConfigError


def bind_in(run: Path, name: str, kind: socket.SocketKind) -> socket.socket:
    """Make a socket for this user, in place of one that a killed process left.

    Args:
        run: The station's `StationFolder.run`; made where it is missing.
        name: Name of the socket in it.
        kind: `SOCK_DGRAM` or `SOCK_SEQPACKET`.

    Raises:
        OSError: It cannot be made, or another process has it.
    """
    run.mkdir(parents=True, exist_ok=True)
    if _is_taken(run, name):
        raise OSError(errno.EADDRINUSE, "another process has this socket", str(run / name))
    with suppress(FileNotFoundError):
        (run / name).unlink()
    made = socket.socket(socket.AF_UNIX, kind)
    try:
        with _short(run) as folder:
            made.bind(f"{folder}/{name}")
        (run / name).chmod(0o600)
    except OSError as error:
        made.close()
        error.filename = error.filename or str(run / name)  # bind tells no place
        raise
    return made


def listen_in(run: Path, name: str, *, what: str) -> socket.socket:
    """Make a datagram socket for what a station cannot run without.

    Args:
        run: As of `bind_in`.
        name: Name of the socket in it.
        what: Whose messages it takes.

    Raises:
        ConfigError: It cannot be made.
    """
    try:
        return bind_in(run, name, socket.SOCK_DGRAM)
    except OSError as error:
        raise ConfigError(
            f"the socket for {what} cannot be made: {error.strerror}",
            where=run / name,
            cure="let this user write there",
        ) from None


def connect_in(run: Path, name: str, kind: socket.SocketKind) -> socket.socket:
    """Connect to a socket.

    Raises:
        OSError: Nobody listens.
    """
    made = socket.socket(socket.AF_UNIX, kind)
    try:
        with _short(run) as folder:
            made.connect(f"{folder}/{name}")
    except OSError:
        made.close()
        raise
    return made


def send_in(run: Path, name: str, body: bytes) -> None:
    """Send one datagram, without waiting.

    Raises:
        OSError: Nobody listens, or too many wait there.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as out, _short(run) as folder:
        out.sendto(body, f"{folder}/{name}")


def _is_taken(run: Path, name: str) -> bool:
    """Whether a process has a socket of this name.

    Asked with a datagram socket: the kernel refuses it at a socket of another kind that somebody has, so that
    no connection is made there.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe, _short(run) as folder:
        return probe.connect_ex(f"{folder}/{name}") in (0, errno.EPROTOTYPE)


@contextmanager
def _short(run: Path) -> Iterator[str]:
    """A short path of a folder."""
    handle = os.open(run, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)
