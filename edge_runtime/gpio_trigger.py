"""Triggers from a GPIO line, through the kernel's character device (gpiod)."""

from __future__ import annotations

import time
from typing import Any

from kenpin.edge_runtime.gpio_lines import TRIGGER_CURE, load_gpiod, parse_trigger_line
from kenpin.edge_runtime.source import Trigger
from kenpin.errors import ConfigError
from kenpin.events import now_ms


class GpioTrigger:
    """Each rising edge is one trigger; its time is that of the interrupt, its number is counted here.

    Args:
        lines: `CHIP/LINE`, such as `/dev/gpiochip0/18`.

    Raises:
        ConfigError: gpiod is not installed, or the line cannot be used.
    """

    def __init__(self, lines: str) -> None:
        self.refused = 0
        self.trouble = ""
        chip, line = parse_trigger_line(lines)
        gpiod = load_gpiod()
        settings = gpiod.LineSettings(edge_detection=gpiod.line.Edge.RISING)
        try:
            self._request: Any = gpiod.request_lines(chip, consumer="kenpin", config={line: settings})
        except OSError as error:
            raise ConfigError(
                f"the GPIO line cannot be read: {error.strerror}", where=lines, cure=TRIGGER_CURE
            ) from None

    def wait(self, deadline_s: float) -> Trigger | None:
        """Wait for the next edge. The kernel numbers them: one that overran its buffer shows as a gap."""
        if not self._request.wait_edge_events(max(0.0, deadline_s - time.monotonic())):
            return None
        (event,) = self._request.read_edge_events(1)
        age_ms = (time.monotonic_ns() - event.timestamp_ns) // 1_000_000
        return Trigger(event.line_seqno, "", event.timestamp_ns, now_ms() - age_ms)

    def close(self) -> None:
        """Let the line go."""
        self._request.release()
