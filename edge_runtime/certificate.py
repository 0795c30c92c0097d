"""Certificates in files: whose they are and until when, and whether that is over."""

from __future__ import annotations

import ssl
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from kenpin.errors import ConfigError

RENEW_DAYS = 60


def read_certificates(path: Path) -> list[x509.Certificate]:
    """The certificates of a PEM file, at least one.

    Raises:
        ConfigError: It cannot be read, or there is none in it.
    """
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it holds no certificate in PEM format"
        raise ConfigError(
            f"the certificate cannot be read: {why}", where=path, cure="give a PEM file that this user can read"
        ) from None


def days_left(path: Path, cure: str) -> int:
    """For how many days the first certificate of a file is valid.

    Args:
        path: A PEM file.
        cure: What to do where it is over.

    Raises:
        ConfigError: It cannot be read, or is not valid now, by the clock of this machine.
    """
    certificate = read_certificates(path)[0]
    now, begin, end = (
        datetime.now(timezone.utc),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )
    if not begin <= now < end:
        word, date = ("ended", end) if now >= end else ("begins", begin)
        raise ConfigError(
            f"the certificate {word} on {date:%Y-%m-%d}, and the clock here says {now:%Y-%m-%d}",
            where=path,
            cure=f"{cure}; or set the clock",
        )
    return (end - now).days


def common_names(path: Path) -> list[str]:
    """Whom the first certificate of a file is for.

    Raises:
        ConfigError: It cannot be read.
    """
    subject = read_certificates(path)[0].subject
    return [str(name.value) for name in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]


def load_pair(certificate: Path, key: Path) -> None:
    """Make sure that a private key is there, needs no pass phrase, and is the one of a certificate.

    Raises:
        ConfigError: It cannot be read, or is another one's.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"the private key does not fit the certificate, or cannot be read: {error}",
            where=f"{certificate}, {key}",
            cure="give a PEM certificate and its own key, which this user can read, without a pass phrase",
        ) from None
