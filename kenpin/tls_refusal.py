"""Why a connection by TLS did not come up: OpenSSL's words as ours, and what to do about each."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NEW = "make a new certificate for this station: kenpin mqtt issue --client ID"


@dataclass(frozen=True)
class TlsRefusal:
    """One way in which it fails.

    Attributes:
        marks: Either of them stands in OpenSSL's text.
        words: What is wrong; `it` is the other side.
        cure: What to do about it.
    """

    marks: tuple[str, ...]
    words: str
    cure: str


# The first that fits counts. What OpenSSL names ALERT is the other side's word on this one.
_REFUSALS = (
    TlsRefusal(
        ("certificate has expired",),
        "its certificate has expired, by this machine's clock",
        "let the broker have a new certificate; where the clock is ahead, set it: timedatectl",
    ),
    TlsRefusal(
        ("not yet valid",),
        "its certificate is not yet valid, by this machine's clock",
        "set the clock of this machine: timedatectl; else that of the one which made the certificate was ahead",
    ),
    TlsRefusal(
        ("mismatch, certificate is not valid for",),
        "its certificate is for another name or address than {name}",
        "give a name that is in it as url, or let the broker have one for this name: kenpin mqtt issue --host",
    ),
    TlsRefusal(
        ("certificate purpose",),
        "its certificate was made for another purpose than a broker's",
        "let the broker have one of its own: kenpin mqtt issue --host",
    ),
    TlsRefusal(
        ("issuer certificate", "self-signed", "self signed"),
        "its certificate is of an authority that is not known here",
        "give the authority that signed it as ca_file in [mqtt]",
    ),
    TlsRefusal(
        ("CERTIFICATE_REQUIRED",),
        "it wants a certificate of this station",
        "give cert_file and key_file in [mqtt]; kenpin mqtt issue --client ID makes a certificate",
    ),
    TlsRefusal(
        ("ALERT_UNKNOWN_CA",),
        "it does not know the authority of this station's certificate",
        "have the certificate made by the authority that the broker trusts: kenpin mqtt issue --client ID",
    ),
    TlsRefusal(
        ("ALERT_CERTIFICATE_EXPIRED",),
        "this station's certificate has expired, by its clock",
        f"{_NEW}; or set the broker's clock",
    ),
    TlsRefusal(
        ("ALERT_CERTIFICATE_REVOKED",),
        "this station's certificate was revoked",
        _NEW,
    ),
    TlsRefusal(
        ("ALERT_BAD_CERTIFICATE", "ALERT_CERTIFICATE_UNKNOWN", "ALERT_UNSUPPORTED_CERTIFICATE"),
        "it refuses this station's certificate, as one that is not yet valid by its clock",
        f"compare the clocks of both; {_NEW}",
    ),
    TlsRefusal(
        ("ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "ALERT_HANDSHAKE_FAILURE", "NO_SHARED_CIPHER"),
        "both sides have no version or cipher of TLS in common, or it wants a certificate",
        "let it speak TLS 1.2 or newer; give cert_file and key_file in [mqtt]",
    ),
    TlsRefusal(
        ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "EOF", "reset by peer"),
        "it ends the handshake of TLS; perhaps this port speaks none",
        "give the broker's port for TLS (8883 by default), or let it have one",
    ),
)
_BESIDE = re.compile(r"^failed to \w+ on socket: |\[SSL(: \w+)?\] ?| ?\(_ssl\.c:\d+\)")


def tls_words(text: str) -> str:
    """What OpenSSL or paho says of a handshake that failed, in our words; any other text as it is."""
    if "SSL" not in text and "_ssl.c" not in text:
        return text
    found = next((r for r in _REFUSALS if any(mark in text for mark in r.marks)), None)
    name = re.search(r"not valid for '([^']*)'", text)
    return found.words.format(name=name[1] if name else "") if found else _BESIDE.sub("", text)


def tls_cure(words: str) -> str:
    """What to do about a failure that `tls_words` has put in words; empty for any other text."""
    return next((r.cure for r in _REFUSALS if r.words.partition("{")[0] in words), "")
