"""The primary host of Sparkplug: whether the one host that matters is online."""

from __future__ import annotations

import json


class PrimaryHost:
    """Follows the STATE messages of a host, in the spelling of Sparkplug 3.0 and in that of 2.2.

    3.0 says `{"online": true, "timestamp": 1700000000000}` on `spBv1.0/STATE/<host>`, 2.2 says `ONLINE` on
    `STATE/<host>`. Hosts of both kinds are in use, and some say both: what 3.0 says counts as soon as it was
    heard in a connection.

    Args:
        host_id: The host; empty = none is waited for, and it counts as online.

    Attributes:
        topics: What to subscribe to.
        is_online: Whether the host was last said to be online, in this connection.
    """

    def __init__(self, host_id: str = "") -> None:
        self._topic = f"spBv1.0/STATE/{host_id}"
        self._old_topic = f"STATE/{host_id}"
        self._is_awaited = bool(host_id)
        self._last_ms = 0
        self.topics = (self._topic, self._old_topic) if host_id else ()
        self.begin()

    def begin(self) -> None:
        """A new connection: what was heard on another one does not count, only its time does."""
        self._speaks_3 = False
        self.is_online = not self._is_awaited

    def take(self, topic: str, body: bytes) -> bool:
        """Take a message.

        Returns:
            Whether it was a STATE message of this host; one that is older than another one counts as nothing.
        """
        if topic == self._topic:
            return self._take_3(body)
        if topic != self._old_topic or body not in (b"ONLINE", b"OFFLINE"):
            return False
        if not self._speaks_3:
            self.is_online = body == b"ONLINE"
        return True

    def _take_3(self, body: bytes) -> bool:
        """`tck-id-message-flow-edge-node-birth-publish-phid-wait-timestamp`: the time must not go back."""
        state = _read(body)
        if state is None:
            return False
        is_online, time_ms = state
        self._speaks_3 = True
        if time_ms >= self._last_ms:
            self._last_ms = time_ms
            self.is_online = is_online
        return True


def _read(body: bytes) -> tuple[bool, int] | None:
    try:
        state = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(state, dict):
        return None
    is_online, time_ms = state.get("online"), state.get("timestamp")
    if not isinstance(is_online, bool) or not isinstance(time_ms, int) or isinstance(time_ms, bool):
        return None
    return is_online, time_ms
