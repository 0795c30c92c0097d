"""`kenpin command`: sign a command to a station."""

from __future__ import annotations

from pathlib import Path

import click

from kenpin.edge_runtime.command import MAX_LIFE_MS
from kenpin.edge_runtime.command_key import load_key
from kenpin.edge_runtime.sign_command import Sender, make_command, sign_command
from kenpin.errors import ConfigError
from kenpin.events import now_ms


@click.group()
def command() -> None:
    """Signed commands to a station over MQTT."""


@command.command()
@click.option("--key", type=click.Path(path_type=Path), required=True, help="Secret file <name>.key.")
@click.option("--action", required=True, help="What to do: ack, shelve, reset ...")
@click.option("--station", required=True, help="The station's id, the last level of its topic.")
@click.option("--actor", required=True, help="Who gives it, for the station's record.")
@click.option("--arg", "arguments", metavar="NAME=VALUE", multiple=True, help="May be given several times.")
@click.option(
    "--life-s",
    type=click.IntRange(1, MAX_LIFE_MS // 1000),
    default=30,
    show_default=True,
    help="Good for so long.",
)
def sign(  # noqa: PLR0913, PLR0917 - one argument per option
    key: Path, action: str, station: str, actor: str, arguments: tuple[str, ...], life_s: int
) -> None:
    """Print a signed command, to publish at <topic>/cmd/<action>.

    \b
    kenpin command sign --key ops1.key --action ack --station st1 --actor sato --arg alarm=ng_rate \\
        | mosquitto_pub -q 1 -t plant/line/st1/cmd/ack -s
    """  # noqa: D301 - \b keeps click from wrapping
    sender = Sender(station, actor, life_ms=1000 * life_s)
    made = make_command(action, _pairs(arguments), sender, now_ms=now_ms())
    click.echo(sign_command(made, load_key(key)))


def _pairs(arguments: tuple[str, ...]) -> dict[str, str]:
    pairs = [argument.partition("=") for argument in arguments]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise ConfigError("an argument has no value", where=f"--arg {name}", cure="write --arg NAME=VALUE")
    return {name: value for name, _, value in pairs}
