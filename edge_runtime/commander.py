"""The commander: what SCADA asks of the station over MQTT, checked, written down, done and answered."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kenpin.activation import change_activation
from kenpin.audit import Entry, append
from kenpin.edge_runtime.alarm import Action
from kenpin.edge_runtime.alarm_board import AlarmBoard
from kenpin.edge_runtime.allowance import Allowance
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.audit_mirror import AuditMirror
from kenpin.edge_runtime.clock import clock_is_synchronised
from kenpin.edge_runtime.command import PER_S, Accepted, Context, Refused, check
from kenpin.edge_runtime.command_action import (
    Ack,
    ActivateModel,
    Command,
    Pause,
    Replay,
    ResendState,
    Reset,
    SetThreshold,
    Shelve,
    Snapshot,
    Unshelve,
)
from kenpin.edge_runtime.command_key import CommandKey, load_keys
from kenpin.edge_runtime.command_seen import is_seen, note_seen
from kenpin.edge_runtime.database import connect, transaction
from kenpin.edge_runtime.once import Once
from kenpin.edge_runtime.outbox import Outbox
from kenpin.edge_runtime.remote_threshold import Reach, move_thresholds
from kenpin.errors import BundleError, CalibrationError, ConfigError, KenpinError, reason_and_file
from kenpin.events import Reply, now_ms
from kenpin.hold import hold, let_go
from kenpin.station_folder import StationFolder

_ANSWERS_PER_S = 5
_KEYS_S = 1.0  # between two looks at the keys

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """What a commander commands.

    Attributes:
        folder: The station's folder.
        identity: Who answers.
        keys: File or folder of the keys that may sign.
        reach: How far commands may move thresholds; `None` = no action that changes verdicts is allowed.
        look_back: Publishes stored events that wait once more.
        tell_again: Publishes once more what is retained and not in the database.
    """

    folder: StationFolder
    identity: Identity
    keys: Path
    reach: Reach | None
    look_back: Callable[[], None]
    tell_again: Callable[[], None]


class Commander:
    """Takes messages in one thread, the publisher's.

    Args:
        order: What it commands.

    Attributes:
        refusals: Messages that were refused, by reason.
        done: Commands that were carried out.

    Raises:
        ConfigError: A key cannot be used.
        StoreError: The database cannot be opened.
    """

    def __init__(self, order: Order) -> None:
        self.refusals: Counter[str] = Counter()
        self.done = 0
        self._order = order
        self._keys = load_keys(order.keys)
        self._keys_due_s = time.monotonic() + _KEYS_S
        self._once = Once()
        self._allowance, self._answers = Allowance(PER_S), Allowance(_ANSWERS_PER_S)
        self._connection: sqlite3.Connection | None = None

    def take(self, topic: str, body: bytes, *, retained: bool) -> None:
        """Handle one message.

        Args:
            topic: Below the station's prefix: `cmd/<action>`.
            body: The payload, whatever it is.
            retained: Whether the broker had kept it.
        """
        if self._connection is None:  # made here, as SQLite wants one thread
            self._connection = connect(self._order.folder.database)
            self._board = AlarmBoard(self._connection, self._order.identity)
            self._mirror = AuditMirror(self._order.folder, self._connection, self._order.identity)
            self._outbox = Outbox(self._connection)
        verdict = check(body, retained=retained, context=self._context(self._connection))
        if isinstance(verdict, Refused):
            self._refuse(verdict)
        elif verdict.command.action != topic.rpartition("/")[2]:
            self._refuse(_refused(verdict.command, "bad_arguments", "the topic names another action"))
        else:
            self._carry_out(verdict, self._connection)

    def _known_keys(self) -> Mapping[str, CommandKey]:
        """The keys as they lie there now: one that was taken away must not go on commanding until a restart."""
        if time.monotonic() >= self._keys_due_s:
            self._keys_due_s = time.monotonic() + _KEYS_S
            try:
                self._keys = load_keys(self._order.keys)
                self._once.forget("keys")
            except ConfigError as error:
                self._keys = {}
                self._once.say("keys", f"No command is accepted until its keys can be used: {error}")
        return self._keys

    def _context(self, connection: sqlite3.Connection) -> Context:
        return Context(
            self._known_keys(),
            self._order.identity.station,
            now_ms(),
            clock_is_synchronised(),
            lambda cmd_id: is_seen(connection, cmd_id),
            self._allowance,
            self._order.reach is not None,
        )

    def _carry_out(self, accepted: Accepted, connection: sqlite3.Connection) -> None:
        """Written down on disk before it is done; done, noted, told and answered in one transaction."""
        command = accepted.command
        try:
            append(self._order.folder, _entry(accepted))
            rejected = self._do_before(accepted)
            untold = self._mirror.untold()
            with transaction(connection):
                note_seen(connection, command, now_ms=now_ms())
                rejected = rejected or self._do(command, connection)
                self._mirror.tell(untold)
                reason = "rejected" if rejected else ""
                self._outbox.put(self._reply(command.action, command.cmd_id, reason, rejected))
        except (KenpinError, OSError) as error:
            why = reason_and_file(error)
            _log.warning("The command %s of %s was not carried out: %s", command.action, command.actor, why)
            self._refuse(_refused(command, "failed", why))
            return
        if rejected:
            self.refusals["rejected"] += 1
        else:
            self.done += 1
        if isinstance(command, Replay):
            self._order.look_back()
        elif isinstance(command, ResendState):
            self._order.tell_again()

    def _do_before(self, accepted: Accepted) -> str:
        """Do what takes its time, as parts wait for the database during a transaction; why not, in words.

        All calibration records are read and verified before thresholds move.
        """
        command = accepted.command
        return self._move_thresholds(command, _signer(accepted)) if isinstance(command, SetThreshold) else ""

    def _do(self, command: Command, connection: sqlite3.Connection) -> str:
        """Do the others; why not, in words."""
        if isinstance(command, Ack | Shelve | Unshelve | Reset):
            minutes = float(command.minutes) if isinstance(command, Shelve) else 0.0
            seen = command.occurrence if isinstance(command, Ack) else 0
            return self._board.act(command.alarm, Action(command.action, command.actor, minutes, seen))  # type: ignore[arg-type]
        if isinstance(command, Replay):
            # With the answer, or who got that would wait for events that nobody sends.
            self._outbox.send_again(since=command.since_seq, count=command.count)
        elif isinstance(command, ResendState):
            # All above the highest, in their order, and no further: what doubles soon outgrows an integer.
            connection.execute("UPDATE state SET ver = ver + (SELECT max(ver) - min(ver) + 1 FROM state)")
        elif isinstance(command, Snapshot):
            (self._order.folder.run / "snapshot").touch()
        elif isinstance(command, Pause):
            self._pause(command)
        elif isinstance(command, ActivateModel):
            return self._activate(command.bundle_sha256)
        return ""

    def _pause(self, command: Pause) -> None:
        if command.paused:
            hold(self._order.folder.paused, command.actor)
        else:
            let_go(self._order.folder.paused)

    def _activate(self, sha256: str) -> str:
        if not (self._order.folder.bundles / sha256).is_dir():
            return f"no bundle {sha256[:16]} is installed here"
        change_activation(self._order.folder, lambda was: was.wanting(sha256, "activate"))
        return ""

    def _move_thresholds(self, command: SetThreshold, by: str) -> str:
        assert self._order.reach is not None  # else it was refused
        try:
            move_thresholds(self._order.folder, command, by, self._order.reach)
        except (BundleError, CalibrationError, ConfigError) as error:
            return str(error)
        return ""

    def _refuse(self, refused: Refused) -> None:
        """Whoever holds a key gets an answer, but not without end."""
        self.refusals[refused.reason] += 1
        if self.refusals[refused.reason] == 1:
            _log.warning("A command was refused: %s", refused.sentence)
        if not refused.cmd_id or not self._answers.take():
            return
        assert self._connection is not None
        with transaction(self._connection):
            self._outbox.put(self._reply(refused.action, refused.cmd_id, refused.reason, refused.sentence))

    def _reply(self, action: str, cmd_id: str, reason: str, message: str) -> Reply:
        common = self._order.identity.common(now_ms())
        return Reply(**common, action=action, cmd_id=cmd_id, ok=not reason, reason=reason, message=message)


def _refused(command: Command, reason: str, sentence: str) -> Refused:
    return Refused(reason, sentence, command.cmd_id, command.action)  # type: ignore[arg-type]


def _entry(accepted: Accepted) -> Entry:
    command = accepted.command
    fields: Mapping[str, object] = command.model_dump(exclude=set(Command.model_fields), exclude_unset=True)
    arguments = " ".join(f"{name}={value}" for name, value in fields.items() if name != "why")
    why = str(fields.get("why", ""))
    return Entry("command", _signer(accepted), new=f"{command.action} {arguments}".strip(), why=why)


def _signer(accepted: Accepted) -> str:
    return f"{accepted.command.actor} (key {accepted.kid})"
