"""`kenpin bench`: each benchmark is imported only when it is asked for."""

from __future__ import annotations

import click

from kenpin.lazy_group import LazyGroup

# name -> module:command, help
_BENCHES = {
    "engine": ("kenpin.edge_runtime.engine_bench_cli:engine", "This station's engine on this machine."),
    "train": ("kenpin.train.bench_cli:train", "The hierarchical training against flat and single-level ones."),
    "ablation": ("kenpin.train.bench_cli:ablation", "The hierarchy with one thing taken away at a time."),
    "few": ("kenpin.train.bench_cli:few", "How many pictures of good parts are enough."),
    "transfer": ("kenpin.train.transfer_cli:transfer", "What a sister line gains from a trained model."),
    "continual": ("kenpin.train.transfer_cli:continual", "What new pictures of a line do to what is known."),
}


@click.group(cls=LazyGroup, commands_at=_BENCHES)
def bench() -> None:
    """Measure; nothing here changes a model or a station."""
