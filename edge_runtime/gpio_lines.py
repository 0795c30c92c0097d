"""GPIO lines: their addresses, and the package that drives them."""

from __future__ import annotations

import importlib
from typing import Any

from kenpin.errors import ConfigError

OUTPUT_CURE = 'write gpio = "gpiochip0/4,17,27,22": the numbers of READY, BUSY, VALID and PASS'
TRIGGER_CURE = (
    'write trigger = "gpio:/dev/gpiochip0/18", let this user read it, and see gpioinfo for its number'
)


def load_gpiod() -> Any:
    """The module gpiod.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return importlib.import_module("gpiod")
    except ImportError:
        raise ConfigError(
            "GPIO needs the Python package gpiod, which is not installed",
            where="gpio",
            cure="pip install 'kenpin[gpio]'",
        ) from None


def parse_output_lines(text: str) -> tuple[str, tuple[int, ...]]:
    """Chip and lines of `[output] gpio`: READY, BUSY, VALID and PASS.

    Raises:
        ConfigError: They are none.
    """
    return parse_lines(text, 4, where="[output] gpio", cure=OUTPUT_CURE)


def parse_trigger_line(text: str) -> tuple[str, int]:
    """Chip and line of `[source] trigger`.

    Raises:
        ConfigError: It is none.
    """
    chip, (line,) = parse_lines(text, 1, where="[source] trigger", cure=TRIGGER_CURE)
    return chip, line


def parse_lines(text: str, count: int, *, where: str, cure: str) -> tuple[str, tuple[int, ...]]:
    """Take `CHIP/LINE,LINE…` apart.

    Args:
        text: The address.
        count: How many lines it must name, all different.
        where: Where it stands, for messages.
        cure: What to write instead.

    Raises:
        ConfigError: It is none.
    """
    chip, _, numbers = text.rpartition("/")
    lines = tuple(int(n) for n in numbers.split(",") if n.isdecimal())
    if not chip or len(set(lines)) != count or len(numbers.split(",")) != count:
        raise ConfigError(f"{text!r} does not name {count} GPIO lines of a chip", where=where, cure=cure)
    return (chip if chip.startswith("/") else f"/dev/{chip}"), lines
