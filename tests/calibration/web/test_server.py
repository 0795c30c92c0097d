"""The page as a process of its own: slow clients, many of them, TLS, memory."""

from __future__ import annotations

import asyncio
import http.client
import os
import re
import socket
import ssl
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from uvicorn.server import ServerState

from kenpin.broker import held_port
from kenpin.calibration.web import patience
from kenpin.calibration.web.server import serve
from kenpin.config import WebSection
from kenpin.errors import ConfigError
from kenpin.station_folder import StationFolder
from tests.calibration.web.page_station import PIN, WAIT_S, add_parts, show_live


async def _answer(scope: Any, receive: Any, send: Any) -> None:
    """A page that reads the whole body, however long that takes, and `/slow` half a second later."""
    while (await receive()).get("more_body"):
        pass
    await asyncio.sleep(0.5 if scope["path"] == "/slow" else 0)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def with_server(use: Callable[[int], Any], **tls: Any) -> Any:
    """In a thread of its own: the browser of other tests keeps a loop in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, _with_server(use, tls)).result()


async def _with_server(use: Callable[[int], Any], tls: dict[str, Any]) -> Any:
    config = uvicorn.Config(_answer, lifespan="off", ws="none", log_config=None, timeout_keep_alive=60)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    door = patience.Door(socket.create_server(("127.0.0.1", 0)))
    server = await loop.create_server(lambda: patience.Patience(config, state, {}), sock=door, **tls)
    try:
        return await asyncio.to_thread(use, server.sockets[0].getsockname()[1])
    finally:
        server.close()


def get(client: socket.socket) -> bytes:
    client.settimeout(WAIT_S)
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    return client.recv(100)


def is_dropped(client: socket.socket) -> bool:
    client.settimeout(WAIT_S)
    try:
        return client.recv(100) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab"]
)
def test_a_client_that_does_not_get_on_is_dropped(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 0.1)

    def use(port: int) -> bool:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(sent)
            return is_dropped(client)

    assert with_server(use)


def test_a_client_that_waits_for_a_long_answer_is_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 0.2)  # looked at twice before its answer

    def use(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            client.settimeout(WAIT_S)
            return client.recv(100)

    assert with_server(use).startswith(b"HTTP/1.1 200")


@contextmanager
def connected(port: int, number: int, addresses: int = 1) -> Iterator[list[socket.socket]]:
    with ExitStack() as clients:
        yield [
            clients.enter_context(
                socket.create_connection(
                    ("127.0.0.1", port), source_address=(f"127.0.0.{2 + k % addresses}", 0)
                )
            )
            for k in range(number)
        ]


def test_many_addresses_do_not_keep_the_operator_at_the_station_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "is_loopback", lambda host: host == "127.0.0.1")
    monkeypatch.setattr(patience, "PATIENCE_S", 10 * WAIT_S)

    def crowd(port: int) -> tuple[bool, bytes, bytes]:
        with (
            connected(port, patience.CONNECTIONS + 1, addresses=6) as taken,
            socket.create_connection(("127.0.0.1", port)) as here,
        ):
            return is_dropped(taken[-1]), get(taken[-2]), get(here)

    is_full, *answers = with_server(crowd)
    assert is_full
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)


def test_one_address_cannot_take_all_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 10 * WAIT_S)

    def use(port: int) -> tuple[int, bytes]:
        with connected(port, patience.PER_ADDRESS + 5) as clients:
            dropped = sum(is_dropped(client) for client in clients[patience.PER_ADDRESS :])
            return dropped, get(clients[patience.PER_ADDRESS - 1])

    dropped, answer = with_server(use)
    assert dropped == 5
    assert answer.startswith(b"HTTP/1.1 200")


def make_certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder / "cert.pem", folder / "key.pem"


def test_the_page_speaks_tls(people: StationFolder, serve_page: Callable[..., Any], tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    server = serve_page(people, tls_cert_file=cert, tls_key_file=key)
    context = ssl.create_default_context(cafile=str(cert))
    with urllib.request.urlopen(f"{server.url}/line", context=context, timeout=WAIT_S) as answer:
        assert answer.status == 200
        assert "Secure" in answer.headers["set-cookie"]


def test_who_never_begins_with_tls_takes_no_room_from_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 10 * WAIT_S)
    cert, key = make_certificate(tmp_path)
    here, there = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context(cafile=cert)
    here.load_cert_chain(cert, key)

    def use(port: int) -> tuple[int, bytes]:
        with connected(port, patience.PER_ADDRESS + 3) as clients:
            dropped = sum(is_dropped(client) for client in clients[patience.PER_ADDRESS :])
            with there.wrap_socket(clients[patience.PER_ADDRESS - 1], server_hostname="127.0.0.1") as late:
                return dropped, get(late)

    dropped, answer = with_server(use, ssl=here, ssl_handshake_timeout=10 * WAIT_S)
    assert dropped == 3
    assert answer.startswith(b"HTTP/1.1 200")


def test_the_page_listens_at_that_door(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[socket.socket] = []
    monkeypatch.setattr(os, "sched_setscheduler", lambda *_: None)  # the tests would give way to all else, too
    monkeypatch.setattr(uvicorn.Server, "run", lambda _, sockets: taken.extend(sockets))
    with held_port() as port:
        serve(_answer, WebSection(listen=f"127.0.0.1:{port}"))  # type: ignore[arg-type]
    assert [type(listener) for listener in taken] == [patience.Door]


def test_requests_that_are_none_do_not_fill_the_journal(
    people: StationFolder, serve_page: Callable[..., Any]
) -> None:
    server = serve_page(people)
    for sent in (b"\0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET /line HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(sent)
            client.settimeout(WAIT_S)
            assert client.recv(100).startswith(b"HTTP/1.1 400")
    assert server.stop() == ""


def test_an_address_in_use_and_a_bad_certificate_are_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        section = WebSection(listen=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(ConfigError, match="cannot be offered"):
            serve(_answer, section, lambda: pytest.fail("told as its own"))  # type: ignore[arg-type]
    (tmp_path / "bad.pem").write_text("no certificate")
    bad = WebSection(tls_cert_file=tmp_path / "bad.pem", tls_key_file=tmp_path / "bad.pem")
    with pytest.raises(ConfigError, match="certificate"):
        serve(_answer, bad)  # type: ignore[arg-type]


def resident_mb(process: subprocess.Popen[bytes]) -> float:
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", text)[0]) / 1024


def test_the_page_takes_at_most_120_mb(people: StationFolder, serve_page: Callable[..., Any]) -> None:
    add_parts(people, ["OK"] * 500)
    show_live(people)
    server = serve_page(people)

    def browse() -> None:
        for _ in range(10):
            for path in ("/line", "/line/panel", "/live.jpg", "/login", "/log"):
                urllib.request.urlopen(server.url + path, timeout=WAIT_S).read()

    browsers = [threading.Thread(target=browse) for _ in range(4)]
    for browser in browsers:
        browser.start()
    for browser in browsers:
        browser.join()
    before_mb = resident_mb(server.process)
    assert before_mb <= 120
    for name in ("sato", "abe", "vera"):
        assert log_in(server.port, name) == 303
    # Each check of a PIN takes 19 MiB, and gives them back.
    assert resident_mb(server.process) <= before_mb + 10


def log_in(port: int, name: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    connection.request("GET", "/login")
    asked = connection.getresponse()
    cookie = str(asked.getheader("set-cookie")).split(";")[0]
    token = asked.read().decode().split('name="token" value="', 1)[1].split('"', 1)[0]
    form = urllib.parse.urlencode({"token": token, "name": name, "pin": PIN})
    headers = {"Origin": f"http://127.0.0.1:{port}", "Cookie": cookie}
    connection.request("POST", "/login", form, {**headers, "Content-Type": "application/x-www-form-urlencoded"})
    status = connection.getresponse().status
    connection.close()
    return status
