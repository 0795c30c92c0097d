"""A group of commands whose modules are imported only when one of them is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import click


class LazyGroup(click.Group):
    """Commands by name.

    Args:
        commands_at: Name -> a tuple whose first part is where the command is (module:attribute) and whose
            last part is its help, which must not need an import.
        options: Of a click group.
    """

    def __init__(self, *, commands_at: Mapping[str, tuple[str, ...]], **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self._commands_at = commands_at

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order in which they were given."""
        return list(self._commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self._commands_at:
            return None
        ctx.invoked_subcommand = cmd_name
        module, attribute = self._commands_at[cmd_name][0].split(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show all of them without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, told[-1]) for name, told in self._commands_at.items()])
