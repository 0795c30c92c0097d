"""An MQTT broker for the demo: one that is given, else mosquitto, else amqtt inside this process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from kenpin.errors import BrokerError

_START_S = 60.0  # one that has died is noticed at once


@dataclass(frozen=True)
class DemoBroker:
    """A broker that accepts connections.

    Attributes:
        url: Where it is, as in the station's configuration.
        name: What it is, in words.
    """

    url: str
    name: str


@contextmanager
def demo_broker(url: str | None, folder: Path) -> Iterator[DemoBroker]:
    """Find or start a broker; one that was started here listens on loopback only and ends with the block.

    Args:
        url: `mqtt://` or `mqtts://` address of a running broker, or none.
        folder: Where a started broker may write its configuration and log.

    Raises:
        BrokerError: The given one cannot be reached, or none can be started.
    """
    if url is not None:
        parts = urlsplit(url)
        port = parts.port or (8883 if parts.scheme == "mqtts" else 1883)
        if not _accepts(parts.hostname or "", port):
            raise BrokerError(
                f"no broker answers at {url}", cure="start it, check the address, or leave --broker away"
            )
        yield DemoBroker(url, "given")
        return
    program = shutil.which("mosquitto", path=_search_path())
    with held_port() as port, _mosquitto(program, port, folder) if program else _amqtt(port) as name:
        yield DemoBroker(f"mqtt://127.0.0.1:{port}", name)


def _search_path() -> str:
    """PATH, and where Debian puts daemons: an ordinary user's PATH does not name it."""
    return os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))


@contextmanager
def _mosquitto(program: str, port: int, folder: Path) -> Iterator[str]:
    config, log = folder / "mosquitto.conf", folder / "mosquitto.log"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
    with log.open("wb") as out:
        # A session of its own: Ctrl-C must not end the broker before the station has said goodbye.
        process = subprocess.Popen(
            [program, "-c", str(config)], stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait_for(lambda: _accepts("127.0.0.1", port), alive=lambda: process.poll() is None, where=log)
        yield "mosquitto"
    finally:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _amqtt(port: int) -> Iterator[str]:
    try:
        from amqtt.broker import Broker  # noqa: PLC0415 - only where mosquitto is not installed
    except ImportError:
        raise BrokerError(
            "there is no MQTT broker on this machine",
            cure="apt install mosquitto, or pip install 'kenpin[demo]', or give --broker mqtt://HOST",
        ) from None
    logging.getLogger("amqtt").setLevel(logging.CRITICAL)
    logging.getLogger("transitions").setLevel(logging.CRITICAL)
    config = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
    started, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        broker = Broker(config)
        await broker.start()
        started.set()
        while not stop.is_set():
            await asyncio.sleep(0.1)
        await broker.shutdown()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="amqtt", daemon=True)
    thread.start()
    try:
        # Not by connecting: amqtt never closes a connection that ends before it has begun.
        _wait_for(started.is_set, alive=thread.is_alive, where=f"127.0.0.1:{port}")
        yield "amqtt"
    finally:
        stop.set()
        thread.join(timeout=10)


def _wait_for(up: Callable[[], bool], *, alive: Callable[[], bool], where: object) -> None:
    end = time.monotonic() + _START_S
    while not up():
        if not alive() or time.monotonic() > end:
            raise BrokerError(
                "the broker of the demo does not start",
                where=where,
                cure="read its log, or give --broker mqtt://HOST",
            )
        time.sleep(0.05)


def _accepts(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=5):
        return True
    return False


@contextmanager
def held_port() -> Iterator[int]:
    """A free port of loopback, which the system gives to nobody else until the block ends.

    A server that reuses addresses, as servers do, listens at it all the same; until one does, and whenever it
    is away, a connection is refused.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])
