"""Serving the page until the process is told to stop."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from kenpin.calibration.web.patience import Door, Patience
from kenpin.config import WebSection
from kenpin.edge_runtime.certificate import load_pair
from kenpin.errors import ConfigError
from kenpin.heap import give_back_freed_memory


def serve(app: FastAPI, section: WebSection, listens: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        app: The page.
        section: How it is configured.
        listens: Called when the address is its own.

    Raises:
        ConfigError: The address is in use, or the certificate cannot be used.
    """
    config = uvicorn.Config(
        app,
        host=section.host,
        port=section.port,
        ssl_certfile=section.tls_cert_file,
        ssl_keyfile=section.tls_key_file,
        http=Patience,
        ws="none",
        loop="asyncio",
        lifespan="on",
        proxy_headers=False,  # anybody can send them, and would be taken for the operator at the station
        server_header=False,
        access_log=False,
        log_config=None,
        log_level="error",  # a warning for every request that is none would push all else out of the journal
        timeout_keep_alive=5,
        timeout_graceful_shutdown=3,
    )
    if section.tls_cert_file is not None and section.tls_key_file is not None:
        load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), section.tls_cert_file, section.tls_key_file)
    config.load()
    give_back_freed_memory()  # each PIN check takes 19 MiB, in any thread: 20 to 60 MB less, measured
    with _listening(section) as listener:
        listens()
        _step_back()
        uvicorn.Server(config).run(sockets=[listener])


def _step_back() -> None:
    """Give way to the station at once whenever it wakes, as niceness alone does not (sched(7), SCHED_IDLE).

    Also where no systemd weighs the two against each other. A sandbox that forbids it costs no page.
    """
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _listening(section: WebSection) -> Door:
    family = socket.AF_INET6 if ":" in section.host else socket.AF_INET
    try:
        return Door(socket.create_server((section.host, section.port), family=family))
    except OSError as error:
        raise ConfigError(
            f"the page cannot be offered: {error.strerror}",
            where=section.listen,
            cure="give each station of a machine its own address as listen in [web]",
        ) from None
