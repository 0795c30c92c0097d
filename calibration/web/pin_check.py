"""Checking a PIN: how often it may be tried, and whether it is right."""

from __future__ import annotations

import logging

from kenpin.calibration.web.attempts import Attempts
from kenpin.calibration.web.pin_trail import PinTrail
from kenpin.calibration.web.refusal import Refused
from kenpin.calibration.web.users import User, Users
from kenpin.config import is_loopback

_log = logging.getLogger(__name__)


class PinCheck:
    """Checks the PINs of one station.

    Args:
        users: Who there is.
        attempts: Wrong PINs of late.
        trail: Writes them down.
    """

    def __init__(self, users: Users, attempts: Attempts, trail: PinTrail) -> None:
        self._users = users
        self._attempts = attempts
        self._trail = trail

    def check(self, name: str, pin: str, *, address: str) -> User:
        """The user whose PIN this is.

        Args:
            name: Who somebody claims to be.
            pin: What was typed.
            address: Where the browser is.

        Raises:
            Refused: 401 if it is wrong, 429 if it is too early for another try.
            ConfigError: The list of users cannot be used.
            StoreError: The audit cannot be written.
        """
        local = is_loopback(address)
        known = name if name in self._users.read() else ""  # as many names as there are users, and one more
        account = f"{'here' if local else 'network'} {known}"
        others = [] if local else [f"address {address}"]
        wait_s = self._attempts.take([account, *others])
        if wait_s > 0:
            self._trail.refused(account, known, address, is_early=True)
            raise Refused(429, "login_wait", seconds=int(wait_s) + 1)
        user = self._users.verify(name, pin)
        if user is None:
            _log.warning("A wrong PIN for %r from %s", known or "an unknown name", address)
            self._trail.refused(account, known, address, is_early=False)
            raise Refused(401, "login_wrong")
        self._attempts.forgive(account, others)
        self._trail.right(account)
        return user
