"""Who is at the command line."""

from __future__ import annotations

import getpass

from kenpin.errors import ConfigError


def login_name() -> str:
    """Login name of the user.

    Raises:
        ConfigError: This user has none.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        cure = "name who does it with --by, or run it as a user that has one"
        raise ConfigError("this user has no login name", cure=cure) from None
