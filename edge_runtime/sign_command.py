"""The sender's side: make a command and sign it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from kenpin.edge_runtime.command import Envelope
from kenpin.edge_runtime.command_action import DEFAULT_ACTIONS, WRITE_ACTIONS, Command, why_invalid
from kenpin.edge_runtime.command_key import CommandKey
from kenpin.errors import ConfigError
from kenpin.events import uuid7


@dataclass(frozen=True)
class Sender:
    """Who tells which station.

    Attributes:
        station: The station's id, the last level of its topic.
        actor: Who gives the command, for the station's record.
        life_ms: How long after its time the command is good for.
    """

    station: str
    actor: str
    life_ms: int


def make_command(action: str, arguments: Mapping[str, str], sender: Sender, *, now_ms: int) -> Command:
    """Make a command of what a person has typed.

    Args:
        action: Its name.
        arguments: Name -> value as text; numbers and true or false are understood.
        sender: For whom and by whom.
        now_ms: UTC, milliseconds since 1970.

    Raises:
        ConfigError: There is no such action, or the arguments are not its own.
    """
    actions = {**DEFAULT_ACTIONS, **WRITE_ACTIONS}
    if action not in actions:
        raise ConfigError("there is no such action", where=action, cure=f"one of: {', '.join(actions)}")
    header = {
        "schema": "kenpin.command.v1",
        "cmd_id": uuid7(now_ms),
        "action": action,
        "station": sender.station,
        "actor": sender.actor,
        "issued_ms": str(now_ms),
        "expires_ms": str(now_ms + sender.life_ms),
    }
    try:
        return actions[action].model_validate_strings({**arguments, **header})
    except ValidationError as error:
        raise ConfigError(
            f"the command is wrong: {why_invalid(error)}",
            where=f"action {action}",
            cure="docs/commands.md lists the arguments of each action",
        ) from None


def sign_command(command: Command, key: CommandKey) -> str:
    """The envelope to publish, one line of JSON in ASCII."""
    body = json.dumps(command.model_dump(by_alias=True, exclude_unset=True))
    return json.dumps(Envelope(body=body, kid=key.kid, sig=key.sign(body)).model_dump())
