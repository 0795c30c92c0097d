"""Certificates in files: whose they are and until when, and whether that is over."""

from __future__ import annotations

import ssl
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from kenpin.errors import ConfigError, reason_of

RENEW_DAYS = 60
_NO_KEY = "no private key in PEM format, or one with a pass phrase"


def read_certificates(path: Path) -> list[x509.Certificate]:
    """The certificates of a PEM file, at least one.

    Raises:
        ConfigError: It cannot be read, or there is none in it.
    """
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        why = reason_of(error) if isinstance(error, OSError) else "it holds no certificate in PEM format"
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


def load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Let a side of TLS use a certificate, whose private key must be there and need no pass phrase.

    Raises:
        ConfigError: One of them cannot be read, or they do not belong together.
    """
    read_certificates(certificate)
    try:
        key.read_bytes()  # OpenSSL does not say which file it cannot read
        context.load_cert_chain(certificate, key, password="")  # nobody is there to be asked for a pass phrase
        return
    except ssl.SSLError as error:
        why = error.reason.replace("_", " ").lower() if error.reason else _NO_KEY
        what, where = f"the private key does not go with the certificate: {why}", f"{certificate}, {key}"
    except OSError as error:
        what, where = f"the private key cannot be read: {reason_of(error)}", str(key)
    cure = "give a PEM certificate and its own key, which this user can read, without a pass phrase"
    raise ConfigError(what, where=where, cure=cure)
