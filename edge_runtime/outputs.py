"""All outputs of a station as one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from kenpin.config import OutputSection, StationConfig, host_port
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.gpio_lines import parse_output_lines
from kenpin.edge_runtime.log_output import LogOutput
from kenpin.edge_runtime.mqtt_output import MqttOutput
from kenpin.edge_runtime.output import Output, Result
from kenpin.edge_runtime.trigger_input import TriggerInput
from kenpin.errors import ConfigError, reason_and_file, reason_of

_log = logging.getLogger(__name__)


class Outputs:
    """Tells all of them. A part is released only where every one of them could be told.

    An OK that was told cannot be taken back, so what moves the line hears it last. Where two outputs move it,
    the first of them may have heard an OK that the second one could not be told: connect a line to one.

    Args:
        outputs: Those; what moves the line stands last.
        modbus: The PLC's triggers, where one of them is Modbus.

    Attributes:
        trouble: Why the line could not be told last time, in words; empty when it could.
        modbus: The PLC's triggers.
    """

    def __init__(self, outputs: Sequence[Output], modbus: TriggerInput | None = None) -> None:
        self.trouble = ""
        self.modbus = modbus
        self._outputs = outputs

    def beat(self, *, ready: bool) -> None:
        """The decision loop is alive."""
        trouble, self.trouble = self.trouble, ""
        for output in self._outputs:
            try:
                output.beat(ready=ready)
            except Exception as error:
                self.trouble = trouble
                self._fail(output, error)

    def busy(self, *, busy: bool) -> None:
        """A part is in hand, or not any more."""
        for output in self._outputs:
            try:
                output.busy(busy=busy)
            except Exception as error:
                self._fail(output, error)

    def result(self, result: Result) -> None:
        """Tell all of them. What holds a part back is told to each one that can be told.

        Raises:
            Exception: The first one that failed; no output that comes after it has heard of an OK.
        """
        for output in self._outputs:
            try:
                output.result(result)
            except Exception as error:
                self._fail(output, error)
                if result.verdict is Verdict.OK:
                    raise

    def close(self) -> None:
        """Close all of them."""
        for output in self._outputs:
            output.close()

    def _fail(self, output: Output, error: Exception) -> None:
        if not self.trouble:
            _log.warning("%s failed: %s", type(output).__name__, reason_and_file(error))
        self.trouble = f"the output failed: {reason_of(error)}"


def check_outputs(section: OutputSection) -> None:
    """Make sure that the addresses of the outputs can be understood; nothing is opened.

    Args:
        section: The configuration's.

    Raises:
        ConfigError: One cannot.
    """
    if section.modbus and not host_port(section.modbus)[1]:
        raise ConfigError(
            f"{section.modbus!r} is not HOST:PORT",
            where="[output] modbus",
            cure="give a free HOST:PORT of this machine, such as 0.0.0.0:1502",
        )
    if section.gpio:
        parse_output_lines(section.gpio)


def make_outputs(config: StationConfig, run: Path, more: Output | None) -> Outputs:
    """The outputs that the configuration names.

    Args:
        config: The station's configuration.
        run: The station's `StationFolder.run`.
        more: One more.

    Raises:
        ConfigError: One cannot be opened.
    """
    outputs: list[Output] = []
    triggers: TriggerInput | None = None
    section = config.output
    check_outputs(section)
    if section.log is not None:
        outputs.append(LogOutput(section.log))
    if section.mqtt:
        outputs.append(MqttOutput(run))
    if section.modbus:
        from kenpin.edge_runtime.modbus_output import ModbusOutput  # noqa: PLC0415 - an extra

        modbus = ModbusOutput(section.modbus, part_s=config.decide.timeout_ms / 1000)
        outputs.append(modbus)
        triggers = modbus.triggers
    if section.gpio:
        from kenpin.edge_runtime.gpio_output import GpioOutput  # noqa: PLC0415 - an extra

        outputs.append(GpioOutput(section.gpio))
    if more is not None:
        outputs.append(more)
    return Outputs(outputs, triggers)
