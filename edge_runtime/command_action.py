"""What a station can be told over the network: the actions and their arguments, one flat object each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

# Milliseconds since 1970 that every JSON reader keeps exactly (I-JSON, RFC 7493).
_Time = Annotated[int, Field(ge=0, lt=2**53)]
# One line that a person can read: no control, format or unassigned characters.
_Text = Annotated[str, Field(pattern=r"^[^\p{C}\p{Zl}\p{Zp}]{1,64}$")]
_AlarmKey = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
_SHOWN_CHARS = 64


class Header(BaseModel):
    """What every command says; the arguments stand beside it.

    Attributes:
        cmd_id: Unique; a command is carried out once.
        action: Its name, as in `DEFAULT_ACTIONS`; fit to be a level of a topic, known or not.
        station: Id of the station it is for.
        actor: Who gave it, for the record.
        issued_ms: UTC, milliseconds since 1970.
        expires_ms: The station refuses it from then on.
    """

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)

    schema_: Literal["kenpin.command.v1"] = Field(alias="schema")
    cmd_id: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    action: str = Field(pattern=r"^[a-z][a-z_]{0,31}$")
    station: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    actor: _Text
    issued_ms: _Time
    expires_ms: _Time


class Command(Header):
    """A whole command: a header, the arguments of its action, and nothing else."""

    model_config = ConfigDict(extra="forbid")


class Ack(Command):
    """An operator has seen an alarm.

    Attributes:
        alarm: Its key.
        occurrence: The raise that was seen, as its event says: a late command does not acknowledge a newer one.
            0 = whichever stands when it comes.
    """

    alarm: _AlarmKey
    occurrence: int = Field(0, ge=0, lt=2**53)


class Shelve(Command):
    """Silence an alarm for a while; it always comes back."""

    alarm: _AlarmKey
    minutes: int = Field(ge=1, le=480)


class Unshelve(Command):
    """End that before its time."""

    alarm: _AlarmKey


class Reset(Command):
    """Let a latched alarm go whose condition is over."""

    alarm: _AlarmKey


class Snapshot(Command):
    """Keep the next picture."""


class ResendState(Command):
    """Publish every retained topic anew."""


class Replay(Command):
    """Publish stored events once more, marked as late.

    Attributes:
        since_seq: Number of the first one.
        count: How many at most.
    """

    since_seq: int = Field(ge=0, lt=2**53)
    count: int = Field(ge=1, le=10_000)


class SetThreshold(Command):
    """Change the thresholds, within the step that the station allows.

    Attributes:
        t1: OK below it.
        t2: NG from it on; not below `t1`.
        why: For the record.
    """

    t1: float
    t2: float
    why: _Text

    @model_validator(mode="after")
    def _ordered(self) -> SetThreshold:
        if self.t1 > self.t2:
            raise ValueError("t1 must not be above t2")
        return self


class Pause(Command):
    """Stop every part, whatever it scores, or go on.

    Attributes:
        paused: False to go on.
    """

    paused: bool


class ActivateModel(Command):
    """Make a bundle the active one that the station has installed and verified.

    Attributes:
        bundle_sha256: Which.
    """

    bundle_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


DEFAULT_ACTIONS: Mapping[str, type[Command]] = {
    "ack": Ack,
    "shelve": Shelve,
    "unshelve": Unshelve,
    "reset": Reset,
    "snapshot": Snapshot,
    "resend_state": ResendState,
    "replay": Replay,
}
# What changes verdicts. Off until the configuration says remote_write = true.
WRITE_ACTIONS: Mapping[str, type[Command]] = {
    "set_threshold": SetThreshold,
    "pause": Pause,
    "activate_model": ActivateModel,
}


def why_invalid(error: ValidationError) -> str:
    """The first finding, as a sentence: which argument, and what it should be."""
    # A misspelt argument is often the reason why another one is missing, so it comes first.
    first = min(error.errors(), key=lambda finding: finding["type"] != "extra_forbidden")
    name = ".".join(str(part) for part in first["loc"])[:_SHOWN_CHARS]
    message = first["msg"].removeprefix("Value error, ")
    return f"{name!a}: {message}" if name else message
