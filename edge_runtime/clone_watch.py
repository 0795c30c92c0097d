"""Whether another client uses the station's id, as one does that was set up from a copy of this disk."""

from __future__ import annotations

SHORT_LIFE_S = 10.0
_SHORT_LIVES = 3


class CloneWatch:
    """Tells from connections that end soon after they began. Brokers of MQTT 3.1.1 give no reason at all.

    Two clients with one id throw each other out for ever, as each comes back at once.
    """

    def __init__(self) -> None:
        self._up_s: float | None = None
        self._short_lives = 0

    def up(self, now_s: float) -> None:
        """The broker accepted a connection, at this reading of the monotonic clock."""
        self._up_s = now_s

    def down(self, now_s: float) -> None:
        """There is no connection; may be told several times of one loss."""
        if self._up_s is None:
            return
        self._short_lives = 0 if self._has_lived(now_s) else self._short_lives + 1
        self._up_s = None

    def suspects(self, now_s: float) -> bool:
        """Whether three connections in a row ended within ten seconds, and none has held since."""
        return self._short_lives >= _SHORT_LIVES and not self._has_lived(now_s)

    def _has_lived(self, now_s: float) -> bool:
        return self._up_s is not None and now_s - self._up_s >= SHORT_LIFE_S
