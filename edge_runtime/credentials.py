"""The files by which a broker lets the station in. They are replaced while it runs, as certificates end."""

from __future__ import annotations

import logging
import time

from kenpin.config import MqttSection
from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.file_stamp import file_stamp
from kenpin.edge_runtime.once import Once
from kenpin.errors import ConfigError

_EVERY_S = 1.0

_log = logging.getLogger(__name__)


class Credentials:
    """Notices that one was replaced.

    Args:
        mqtt: Names them.
        client_id: The station's id.
    """

    def __init__(self, mqtt: MqttSection, *, client_id: str) -> None:
        self._mqtt = mqtt
        self._client_id = client_id
        self._files = [f for f in (mqtt.ca_file, mqtt.cert_file, mqtt.key_file, mqtt.password_file) if f]
        self._known = self._stamps()
        self._due_s = 0.0
        self._once = Once()

    def renewed(self) -> BrokerAddress | None:
        """How to be let in from now on; `None` where nothing has changed, or not all of it is there yet."""
        if time.monotonic() < self._due_s:
            return None
        self._due_s = time.monotonic() + _EVERY_S
        now = self._stamps()
        if now == self._known:
            return None
        try:
            made = BrokerAddress.from_config(self._mqtt, client_id=self._client_id)
        except ConfigError as error:
            self._once.say("unusable", f"The files of [mqtt] were changed and cannot be used yet: {error}")
            return None
        self._known = now
        self._once.forget("unusable")
        _log.warning("The files of [mqtt] were changed; connecting to the broker again with them.")
        return made

    def _stamps(self) -> list[tuple[int, ...]]:
        return [file_stamp(path) for path in self._files]
