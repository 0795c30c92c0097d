"""Signed commands from the network: what is carried out, what is refused, and why (docs/commands.md).

A broker does not tell who published a message, so its access rules alone prove nothing. Each command carries
an HMAC-SHA256 over its text, says for which station and how long it is meant, and counts once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from kenpin.edge_runtime.allowance import Allowance
from kenpin.edge_runtime.command_action import DEFAULT_ACTIONS, WRITE_ACTIONS, Command, Header, why_invalid
from kenpin.edge_runtime.command_key import CommandKey
from kenpin.edge_runtime.strict_json import read_object

MAX_BYTES = 4096
MAX_LIFE_MS = 60_000
PER_S = 5
# The sender's clock may be ahead of the station's by so much.
SKEW_MS = 5_000
_MAX_DEPTH = 3

Reason = Literal[
    "too_large",
    "retained",
    "not_json",
    "unknown_key",
    "bad_signature",
    "wrong_station",
    "clock_not_set",
    "not_yet_valid",
    "expired",
    "replayed",
    "not_allowed",
    "bad_arguments",
    "too_fast",
]


@dataclass(frozen=True)
class Accepted:
    """A command to carry out.

    Attributes:
        command: An instance of its action's model.
        kid: Name of the key that signed it.
    """

    command: Command
    kid: str


@dataclass(frozen=True)
class Refused:
    """A message that changes nothing.

    Attributes:
        reason: One fixed word.
        sentence: What is wrong, for a person. Never holds a secret, nor text of an unknown sender.
        cmd_id: Whom to answer; empty while the sender is not known to hold a key, who gets no answer.
        action: The same for the reply's topic.
    """

    reason: Reason
    sentence: str
    cmd_id: str = ""
    action: str = ""


@dataclass(frozen=True)
class Context:
    """What a message is checked against.

    Attributes:
        keys: Who may sign, by name.
        station: This station's id.
        now_ms: UTC, milliseconds since 1970.
        clock_ok: Whether that can be believed.
        seen: Whether a command of this id was carried out.
        allowance: How many are carried out in a second; one object for all messages.
        remote_write: Whether actions that change verdicts are allowed.
    """

    keys: Mapping[str, CommandKey]
    station: str
    now_ms: int
    clock_ok: bool
    seen: Callable[[str], bool]
    allowance: Allowance
    remote_write: bool = False


class Envelope(BaseModel):
    """What travels: the command's text, and a signature over exactly this text, so that no form is canonical.

    Attributes:
        body: JSON text of the command.
        kid: Name of the key.
        sig: HMAC-SHA256 over the UTF-8 bytes of `body`, lower-case hexadecimal.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    body: str
    kid: str
    sig: str


def check(message: bytes, *, retained: bool, context: Context) -> Accepted | Refused:
    """Decide about a message.

    The cheap checks come first, and nothing of the command is read before its signature fits.

    Args:
        message: What came, whatever it is.
        retained: Whether the broker had kept it: it is of another time then.
        context: What it is checked against.

    Raises:
        StoreError: `context.seen` cannot tell. No message raises anything.
    """
    envelope = _opened(message, retained=retained, keys=context.keys)
    return envelope if isinstance(envelope, Refused) else _judged(envelope, context)


def _opened(message: bytes, *, retained: bool, keys: Mapping[str, CommandKey]) -> Envelope | Refused:
    """An envelope that a holder of a key has signed."""
    if len(message) > MAX_BYTES:
        return Refused("too_large", f"the message is larger than {MAX_BYTES} bytes")
    if retained:
        return Refused("retained", "the message was kept by the broker; publish commands without retain")
    try:
        envelope = Envelope.model_validate(read_object(message, max_depth=_MAX_DEPTH))
    except ValueError:  # of pydantic as well
        return Refused("not_json", "the message is not one JSON object of the texts body, kid and sig")
    key = keys.get(envelope.kid)
    if key is None:
        return Refused("unknown_key", "the station knows no key of this name")
    if not key.fits(envelope.body, envelope.sig):
        return Refused("bad_signature", "sig is not the HMAC-SHA256 of body with this key")
    return envelope


def _judged(envelope: Envelope, context: Context) -> Accepted | Refused:
    try:
        fields = read_object(envelope.body.encode(), max_depth=_MAX_DEPTH)
    except ValueError:
        return Refused("not_json", "body is signed, but is not the text of one JSON object")
    try:
        header = Header.model_validate(fields)
    except ValidationError as error:
        return Refused("bad_arguments", why_invalid(error))
    verdict = _not_due(header, context) or _action(fields, header.action, context)
    if isinstance(verdict, Refused):
        return replace(verdict, cmd_id=header.cmd_id, action=header.action)
    return Accepted(verdict, envelope.kid)


def _not_due(header: Header, context: Context) -> Refused | None:
    """Why it is not for this station or not for now."""
    if header.station != context.station:
        return Refused("wrong_station", f"the command is for station {header.station}")
    if untimely := _untimely(header, context):
        return untimely
    if context.seen(header.cmd_id):
        return Refused("replayed", "a command with this cmd_id was carried out already")
    return None


def _untimely(header: Header, context: Context) -> Refused | None:
    if not context.clock_ok:
        return Refused("clock_not_set", "the station's clock is not synchronised, so no expiry can be checked")
    if not 0 < header.expires_ms - header.issued_ms <= MAX_LIFE_MS:
        return Refused("bad_arguments", f"expires_ms must be 1 to {MAX_LIFE_MS} ms after issued_ms")
    if header.issued_ms > context.now_ms + SKEW_MS:
        return Refused("not_yet_valid", "issued_ms is in the future; compare both clocks")
    if header.expires_ms <= context.now_ms:
        return Refused("expired", f"expired {context.now_ms - header.expires_ms} ms ago; compare both clocks")
    return None


def _action(fields: Mapping[str, Any], name: str, context: Context) -> Command | Refused:
    model = DEFAULT_ACTIONS.get(name) or WRITE_ACTIONS.get(name)
    if model is None:
        return Refused("not_allowed", "there is no such action")
    if name in WRITE_ACTIONS and not context.remote_write:
        return Refused("not_allowed", "the action changes verdicts, and this station has remote_write = false")
    try:
        command = model.model_validate(fields)
    except ValidationError as error:
        return Refused("bad_arguments", why_invalid(error))
    if not context.allowance.take():
        return Refused("too_fast", f"more than {PER_S} commands in a second; send it again")
    return command
