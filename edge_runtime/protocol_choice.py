"""Which version of MQTT is spoken: 5 where the broker knows it, else 3.1.1. paho does not choose by itself."""

from __future__ import annotations

from paho.mqtt.enums import MQTTProtocolVersion

from kenpin.edge_runtime.link_signal import Down

DAY_S = 24 * 3600.0
_DOUBTS = 3
_SOON_S = 600.0


class ProtocolChoice:
    """Remembers what the broker takes, and asks for MQTT 5 again.

    Args:
        probe_s: How long 3.1.1 is spoken before 5 is tried again, in seconds. Where the broker did not say that
            it does not know 5 but only hung up, as a proxy does while the broker behind it starts, 5 is tried
            after ten minutes first, then after twice that, and so on: 3.1.1 tells of no refusal.

    Attributes:
        version: What to speak.
    """

    def __init__(self, *, probe_s: float = DAY_S) -> None:
        self.version = MQTTProtocolVersion.MQTTv5
        self._probe_s = probe_s
        self._pause_s = self._soon_s = min(_SOON_S, probe_s)
        self._changed_s = 0.0
        self._has_worked = False  # with this version
        self._doubts = 0

    def worked(self) -> None:
        """The broker accepted a connection."""
        self._has_worked = True
        self._doubts = 0
        if self.version == MQTTProtocolVersion.MQTTv5:
            self._soon_s = min(_SOON_S, self._probe_s)

    def failed(self, down: Down, now_s: float) -> bool:
        """Whether it is the version that the broker does not take, and another one is to be spoken.

        Some brokers say so; others just hang up, as one does that is being restarted.

        Args:
            down: What was heard.
            now_s: The monotonic clock.
        """
        self._doubts += down.version_doubtful
        if not down.version_refused and self._doubts < (_DOUBTS if self._has_worked else 1):
            return False
        is_5 = self.version == MQTTProtocolVersion.MQTTv5
        if is_5:
            self._pause_s = self._probe_s if down.version_refused else self._soon_s
        self._change(MQTTProtocolVersion.MQTTv311 if is_5 else MQTTProtocolVersion.MQTTv5, now_s)
        return True

    def is_probe_due(self, now_s: float) -> bool:
        """Whether MQTT 5 is to be tried again; it is the version from then on."""
        if self.version == MQTTProtocolVersion.MQTTv5 or now_s - self._changed_s < self._pause_s:
            return False
        self._soon_s = min(2 * self._soon_s, self._probe_s)
        self._change(MQTTProtocolVersion.MQTTv5, now_s)
        return True

    def _change(self, version: MQTTProtocolVersion, now_s: float) -> None:
        self.version = version
        self._changed_s = now_s
        self._has_worked = False  # with this version
        self._doubts = 0
