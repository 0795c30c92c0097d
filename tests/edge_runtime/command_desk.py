"""A commander, and somebody who holds its key."""

from __future__ import annotations

import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

from kenpin.audit import read_audit
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.command_key import load_key
from kenpin.edge_runtime.commander import Commander, Order
from kenpin.edge_runtime.database import open_database
from kenpin.edge_runtime.remote_threshold import Reach
from kenpin.edge_runtime.sign_command import Sender, make_command, sign_command
from kenpin.edge_runtime.stored_body import fill_in
from kenpin.events import now_ms
from kenpin.signing import PublicKey


class Desk:
    """A commander, and somebody who holds its key."""

    def __init__(
        self, workshop: Any, key: Path, *, remote_write: bool = False, two_persons: bool = False
    ) -> None:
        self.folder = workshop.folder
        self.folder.create()
        self.folder.run.mkdir(exist_ok=True)
        if not self.folder.key.exists():
            workshop.station_key.save(self.folder.key)
        open_database(self.folder.database).close()
        self.looked_back = 0
        reach = Reach(1.0, two_persons=two_persons) if remote_write else None
        self.told_again = 0
        order = Order(self.folder, Identity("st1"), key, reach, self._look_back, self._tell_again)
        self.commander = Commander(order)
        self._key = load_key(key)

    def _look_back(self) -> None:
        self.looked_back += 1

    def _tell_again(self) -> None:
        self.told_again += 1

    def sign(self, action: str, **arguments: str) -> bytes:
        command = make_command(action, arguments, Sender("st1", "Sato", 30_000), now_ms=now_ms())
        return sign_command(command, self._key).encode()

    def send(self, action: str, **arguments: str) -> dict[str, Any]:
        """The answer to a command."""
        self.take(action, self.sign(action, **arguments))
        return self.replies()[-1]

    def take(self, action: str, body: bytes, *, retained: bool = False) -> None:
        self.commander.take(f"cmd/{action}", body, retained=retained)

    def publish(self, port: int, action: str, **arguments: str) -> None:
        """Send a command to the broker, for a station that runs."""
        to = ["-h", "127.0.0.1", "-p", str(port), "-q", "1", "-t", f"plant/line/st1/cmd/{action}"]
        subprocess.run(["mosquitto_pub", *to, "-s"], input=self.sign(action, **arguments), check=True)

    def replies(self) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self.folder.database)) as connection:
            sql = "SELECT body FROM outbox WHERE topic LIKE 'reply/%' ORDER BY seq"
            return [fill_in(body) for (body,) in connection.execute(sql)]

    def audit(self) -> list[tuple[str, str]]:
        rows = read_audit(self.folder, PublicKey.load(self.folder.public_key))
        return [(row["by"], row["new"]) for row in rows]
