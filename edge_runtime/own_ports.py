"""The ports of this machine that a station's processes and its page take: one each."""

from __future__ import annotations

from itertools import combinations

from kenpin.config import StationConfig, host_port
from kenpin.errors import ConfigError

_ANY = {"0.0.0.0", "::"}  # noqa: S104 compared, not listened on
_LOCALHOST = {"127.0.0.1", "::1"}


def check_ports(config: StationConfig) -> None:
    """Make sure that no two of them want the same port of the same address; nothing is opened.

    Args:
        config: The station's configuration, with addresses that are `HOST:PORT`.

    Raises:
        ConfigError: Two do; both keys are named.
    """
    wanted = {
        "[output] modbus": config.output.modbus,
        "[health] listen": config.health.listen,
        "[web] listen": config.web.listen,
    }
    for (one, first), (other, second) in combinations(wanted.items(), 2):
        if first and second and _clash(first, second):
            raise ConfigError(
                f"both want the port {_parts(first)[1]} of one address: {first} and {second}",
                where=f"{one} and {other}",
                cure="give one of them another port; [health] and [web] listen also where they are not written",
            )


def _clash(first: str, second: str) -> bool:
    (host, port), (other, other_port) = (_parts(listen) for listen in (first, second))
    return port == other_port and bool(host & _ANY or other & _ANY or host & other)


def _parts(listen: str) -> tuple[set[str], int]:
    """The addresses that are meant, and the port."""
    host, port = host_port(listen)
    return _LOCALHOST if host == "localhost" else {host}, port
