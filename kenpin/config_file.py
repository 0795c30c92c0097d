"""The file of a station's configuration: TOML, read strictly; mistakes with the line and "did you mean"."""

from __future__ import annotations

import difflib
import re
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kenpin.config import StationConfig
from kenpin.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def load_config(path: Path) -> StationConfig:
    """Read a station's configuration.

    Raises:
        ConfigError: The file is missing, not TOML, or has a wrong key or value; the line is named.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors of Windows begin a file with a mark
    except OSError as error:
        raise ConfigError(
            f"cannot read the configuration: {error.strerror}", where=path, cure="check the path"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError("the configuration is not UTF-8 text", where=path, cure="save it as UTF-8") from None
    try:
        config = StationConfig.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not valid TOML: {error}", where=path, cure="correct the line") from None
    except ValidationError as error:
        raise _explain(error, text, path) from None
    _check_broker(config, text, path)
    return config


def _check_broker(config: StationConfig, text: str, path: Path) -> None:
    """What is told or heard by MQTT alone has nobody without a broker, and nothing else says so."""
    by_mqtt = {
        "output.mqtt": config.output.mqtt,
        "sparkplug.enabled": config.sparkplug.enabled,
        "homeassistant.enabled": config.homeassistant.enabled,
        "source.trigger": config.source.trigger.startswith("mqtt:"),
        "commands.keys": config.commands.keys is not None,
    }
    for name, is_wanted in by_mqtt.items():
        if is_wanted and not config.mqtt.url:
            where = f"{path}, line {_line_of(name.split('.'), text)}"
            raise ConfigError(f"{name}: this needs a broker", where=where, cure="add url to [mqtt]")


def _explain(error: ValidationError, text: str, path: Path) -> ConfigError:
    """Turn a finding of pydantic into a sentence with a line."""
    # A misspelt key is often the reason why another one is missing, so it comes first.
    first = min(error.errors(), key=lambda finding: finding["type"] != "extra_forbidden")
    keys = [part for part in first["loc"] if isinstance(part, str)]
    name = ".".join(keys)
    where = f"{path}, line {_line_of(keys, text)}"
    if first["type"] == "extra_forbidden":
        known = _known_keys(keys[:-1])
        close = difflib.get_close_matches(keys[-1], known, n=1)
        cure = f"did you mean {close[0]}?" if close else f"known here: {', '.join(sorted(known))}"
        return ConfigError(f"unknown key {name}", where=where, cure=cure)
    if first["type"] == "missing":
        cure = f"add {keys[-1]} to [{keys[0]}]" if len(keys) > 1 else f"add the section [{name}]"
        return ConfigError(f"{name} is missing", where=path, cure=cure)
    message, cure = first["msg"].removeprefix("Value error, "), "correct the value"
    if first["type"] == "tuple_type":
        message, cure = "this is a list", f'write it in brackets: {keys[-1]} = ["…"]'
    elif first["type"] == "model_type":
        message, cure = "this is a section", f"write a line [{name}], and its keys below it"
    return ConfigError(f"{name}: {message}", where=where, cure=cure)


def _known_keys(parents: list[str]) -> list[str]:
    model: Any = StationConfig
    for parent in parents:
        model = model.model_fields[parent].annotation
    return list(model.model_fields)


def _line_of(keys: list[str], text: str) -> int:
    """The line that sets a key, or opens its section; tomllib does not tell."""
    section = ""
    found = 1
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[+([^\]]+)\]", line)
        if header:
            section = header.group(1).strip()
            if section == keys[0]:
                found = number
        key = re.match(r"\s*([\w-]+)\s*=", line)
        if key and [*section.split("."), key.group(1)][-len(keys) :] == keys:
            return number
    return found
