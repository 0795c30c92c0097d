"""The output to a PLC over four GPIO lines: READY, BUSY, RESULT_VALID, PASS."""

from __future__ import annotations

from typing import Any

from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.gpio_lines import OUTPUT_CURE, load_gpiod, parse_output_lines
from kenpin.edge_runtime.output import Result
from kenpin.errors import ConfigError


class GpioOutput:
    """READY toggles with every round of the decision loop: a level would stay when the station dies.

    VALID toggles with every result, after PASS was set: the edge says that PASS is for a new part.

    Args:
        lines: `CHIP/READY,BUSY,VALID,PASS`.

    Raises:
        ConfigError: gpiod is not installed, or a line cannot be used.
    """

    def __init__(self, lines: str) -> None:
        chip, numbers = parse_output_lines(lines)
        self._ready, self._busy, self._valid, self._pass = numbers
        gpiod = load_gpiod()
        self._value = gpiod.line.Value
        settings = gpiod.LineSettings(direction=gpiod.line.Direction.OUTPUT, output_value=self._value.INACTIVE)
        self._beat = False
        self._told = False
        try:
            self._request: Any = gpiod.request_lines(chip, consumer="kenpin", config={numbers: settings})
        except OSError as error:
            raise ConfigError(
                f"the GPIO lines cannot be used: {error.strerror}", where=lines, cure=OUTPUT_CURE
            ) from None

    def beat(self, *, ready: bool) -> None:
        """Toggle READY while ready."""
        self._beat = ready and not self._beat
        self._set(self._ready, active=self._beat)

    def busy(self, *, busy: bool) -> None:
        """Set BUSY."""
        self._set(self._busy, active=busy)

    def result(self, result: Result) -> None:
        """Set PASS, then toggle VALID.

        Raises:
            OSError: The lines cannot be set.
        """
        self._set(self._pass, active=result.verdict is Verdict.OK)
        self._told = not self._told
        self._set(self._valid, active=self._told)

    def close(self) -> None:
        """All low."""
        for line in (self._pass, self._ready, self._busy, self._valid):
            self._set(line, active=False)
        self._request.release()

    def _set(self, line: int, *, active: bool) -> None:
        self._request.set_value(line, self._value.ACTIVE if active else self._value.INACTIVE)
