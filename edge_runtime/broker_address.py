"""The broker's address: where it is and how to be let in."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from kenpin.config import MqttSection
from kenpin.edge_runtime.certificate import load_pair, read_certificates
from kenpin.errors import ConfigError, private_again, reason_of
from kenpin.tls_refusal import tls_cure, tls_words


@dataclass(frozen=True)
class BrokerAddress:
    """Where and how to connect; secrets are read from their files once.

    Attributes:
        host: Name or address.
        port: TCP port.
        client_id: The station's id.
        tls: For `mqtts`.
        username: Login name, empty = none.
        password: Its password.
        insecure: Whether the configuration allows plain TCP or no login to another machine.
    """

    host: str
    port: int
    client_id: str
    tls: ssl.SSLContext | None = None
    username: str = ""
    password: str = field(default="", repr=False)
    insecure: bool = False

    @classmethod
    def from_config(cls, config: MqttSection, *, client_id: str) -> BrokerAddress:
        """Read the certificates and the password that the configuration names.

        Raises:
            ConfigError: One cannot be read, or the private key or the password can be read by others.
        """
        parts = urlsplit(config.url)
        is_tls = parts.scheme == "mqtts"
        assert parts.hostname is not None
        return cls(
            parts.hostname,
            parts.port or (8883 if is_tls else 1883),
            client_id,
            _tls(config) if is_tls else None,
            config.username,
            _password(config.password_file) if config.password_file else "",
            config.insecure,
        )

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def why(self, failure: BaseException | None) -> str:
        """Why a connection to it did not come up, in words."""
        if not isinstance(failure, Exception):
            return "no answer"
        # With TLS only the handshake can be reset: a port without a listener refuses.
        is_tls = self.tls is not None and isinstance(failure, ConnectionResetError)
        return tls_words(f"[SSL] {failure}") if is_tls else reason_of(failure)

    def client(self, **options: Any) -> Client:
        """A client with what the broker lets it in by.

        Args:
            options: Of paho's client; without a protocol it speaks MQTT 3.1.1, which every broker knows.
        """
        client = Client(CallbackAPIVersion.VERSION2, client_id=self.client_id, **options)
        client.suppress_exceptions = True  # otherwise an exception in a callback ends paho's thread silently
        if self.tls is not None:
            client.tls_set_context(self.tls)
        if self.username:
            client.username_pw_set(self.username, self.password)
        return client


def cure_for(trouble: str) -> str:
    """What to do where there is no connection.

    Args:
        trouble: Why, in words.
    """
    return (
        tls_cure(trouble)
        or "check that it runs, its address, TLS or not (mqtts://), the login or certificate, and the rights"
    )


def _tls(config: MqttSection) -> ssl.SSLContext:
    if config.ca_file is not None:
        read_certificates(config.ca_file)
    context = ssl.create_default_context(cafile=config.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if config.cert_file is not None and config.key_file is not None:
        _check_is_private(config.key_file, "the private key")
        load_pair(context, config.cert_file, config.key_file)
    return context


def _password(path: Path) -> str:
    _check_is_private(path, "the password file")
    try:
        return path.read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the password file cannot be read: {reason_of(error)}", where=path, cure="check mqtt.password_file"
        ) from None


def _check_is_private(path: Path, what: str) -> None:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        cure = "correct its path in [mqtt], or let this user read it"
        raise ConfigError(f"{what} cannot be read: {reason_of(error)}", where=path, cure=cure) from None
    if mode & 0o077:
        raise ConfigError(f"{what} can be read by others", where=path, cure=private_again(path))
