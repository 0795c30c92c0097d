"""What the pages tell can be followed: links, commands and settings are there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click
import pytest

from kenpin.cli import cli
from kenpin.config import StationConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of the headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for path, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)", prose):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


def commands(page: Path) -> list[list[str]]:
    """The words behind `kenpin` of each command line that is shown in a block of its own."""
    blocks = re.findall(r"```\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    shown = [
        re.match(r"(?:sudo (?:-u kenpin )?)?(?:\S*/)?kenpin ((?:(?!  | [#|;] ).)*)", line) for line in lines
    ]
    return [re.sub(r"[\[\]…]", "", found[1]).split() for found in shown if found]


@each_page
def test_commands_have_the_options_that_are_shown(page: Path) -> None:
    for words in commands(page):
        command: click.Command = cli
        for word in words:
            found = (
                command.get_command(click.Context(command), word) if isinstance(command, click.Group) else None
            )
            command = found or command
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert command is not cli or words == ["--version"], words
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known, words


@each_page
def test_settings_are_those_of_a_station(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL):
        if "frame_size" not in block:  # a view has settings of its own
            StationConfig.model_validate({"source": {"url": "usb:0"}, **tomllib.loads(block)})
    for section, key in re.findall(r"`\[(\w+)\] (\w+)", text):
        found = StationConfig.model_fields[section].annotation
        assert found is not None
        assert key in found.model_fields, f"[{section}] {key}"  # type: ignore[attr-defined]
