"""`kenpin bench`: each benchmark is imported only when it is asked for."""

from __future__ import annotations

import importlib

import click

# name -> module:command, help
_BENCHES = {
    "engine": ("kenpin.edge_runtime.engine_bench_cli:engine", "This station's engine on this machine."),
    "train": ("kenpin.train.bench_cli:train", "The hierarchical training against flat and single-level ones."),
    "ablation": ("kenpin.train.bench_cli:ablation", "The hierarchy with one thing taken away at a time."),
    "few": ("kenpin.train.bench_cli:few", "How many pictures of good parts are enough."),
    "transfer": ("kenpin.train.transfer_cli:transfer", "What a sister line gains from a trained model."),
    "continual": ("kenpin.train.transfer_cli:continual", "What new pictures of a line do to what is known."),
}


class _LazyBenches(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_BENCHES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _BENCHES:
            return None
        module, attribute = _BENCHES[cmd_name][0].split(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _BENCHES.items()])


@click.group(cls=_LazyBenches)
def bench() -> None:
    """Measure; nothing here changes a model or a station."""
