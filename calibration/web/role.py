"""The roles, from the least to the most that a person may do."""

from __future__ import annotations

from enum import IntEnum


class Role(IntEnum):
    """Each may do what those before it may.

    Attributes:
        ANYONE: Log in.
        VIEWER: Look.
        TECHNICIAN: Calibrate, check masters, judge parts.
        ENGINEER: Change the station itself.
    """

    ANYONE = 0
    VIEWER = 1
    TECHNICIAN = 2
    ENGINEER = 3

    @property
    def word(self) -> str:
        """As it stands in `users.json` and on the command line."""
        return self.name.lower()
