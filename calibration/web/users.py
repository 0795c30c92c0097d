"""Users: who may log in, `users.json` in the station's folder, readable by its owner only."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Literal

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kenpin import audit
from kenpin.calibration.web.role import Role
from kenpin.errors import ConfigError, private_again
from kenpin.events import now_ms
from kenpin.station_folder import StationFolder
from kenpin.synced_file import replace_synced

RoleWord = Literal["viewer", "technician", "engineer"]
NAME = r"^[\w.-]{1,32}$"
SHORTEST_PIN = 6
LONGEST_PIN = 64

# OWASP's least: 19 MiB, two passes, one lane.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
# Of no PIN: an unknown name takes as long as a known one.
_NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$Gtn4ekLTd+cCOPd7LmAb7A$8R5wTMio3BBw0hRiJi1W0+GNzBkDZaVoomhagAJa3pM"


class User(BaseModel):
    """One person.

    Attributes:
        role: What the person may do.
        pin: The PIN's argon2id hash.
        since_ms: UTC when this was set, milliseconds since 1970; a login by another setting does not count.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: RoleWord
    pin: str
    since_ms: int

    @property
    def may(self) -> Role:
        """The role."""
        return Role[self.role.upper()]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    users: dict[str, User] = Field(default_factory=dict)


class Users:
    """The users of one station.

    Args:
        folder: The station's folder.
    """

    def __init__(self, folder: StationFolder) -> None:
        self._folder = folder
        # One hash at a time: each takes 19 MiB, and the line needs the processor.
        self._hashing = threading.Lock()

    @property
    def path(self) -> Path:
        """Where they are kept."""
        return self._folder.root / "users.json"

    def read(self) -> Mapping[str, User]:
        """All users by name, as they are now.

        Raises:
            ConfigError: The file is damaged, cannot be read, or can be read by others.
        """
        try:
            with self.path.open("rb") as file:
                readable_by_others = os.fstat(file.fileno()).st_mode & 0o077
                text = file.read()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._unusable(
                f"cannot be read: {error.strerror}", "let it belong to the page's user"
            ) from None
        if readable_by_others:
            raise self._unusable("can be read by others", private_again(self.path))
        try:
            return _File.model_validate_json(text).users
        except ValidationError:
            raise self._unusable(
                "is damaged, or of a newer kenpin",
                "update kenpin here, or remove it and add the users again: kenpin web user add",
            ) from None

    def add(self, name: str, role: RoleWord, pin: str, *, by: str) -> None:
        """Add a user, or give a known one another role and PIN; who is logged in by that name is logged out.

        Args:
            name: The name to log in and sign with.
            role: What the user may do.
            pin: At least 6 characters.
            by: Who adds.

        Raises:
            ConfigError: The PIN is too weak, or the file cannot be written.
            StoreError: The change cannot be written to the audit; it was not made.
        """
        _check_strength(pin, self.path)
        self._folder.create()
        with self._changed() as users:
            old = f"{name}: {users[name].role}" if name in users else ""
            audit.append(self._folder, audit.Entry("users", by, old, f"{name}: {role}"))
            users[name] = User(role=role, pin=_HASHER.hash(pin), since_ms=now_ms())

    def remove(self, name: str, *, by: str) -> None:
        """Take a user off the list; who is logged in by that name is logged out.

        Raises:
            ConfigError: There is none of that name, or the file cannot be written.
            StoreError: The change cannot be written to the audit; it was not made.
        """
        self._folder.require()
        with self._changed() as users:
            if name not in users:
                raise self._unusable(f"has no user {name}", "see who there is: kenpin web user list")
            audit.append(self._folder, audit.Entry("users", by, f"{name}: {users[name].role}"))
            del users[name]

    def verify(self, name: str, pin: str) -> User | None:
        """The user, if the PIN is right; takes as long if it is not, or if there is no such user.

        Raises:
            ConfigError: The file cannot be used.
        """
        user = self.read().get(name)
        with self._hashing:
            try:
                _HASHER.verify(user.pin if user else _NOBODY, pin)
            except (VerificationError, InvalidHashError):
                return None
        return user

    @contextmanager
    def _changed(self) -> Iterator[dict[str, User]]:
        """All users, to be changed; written at the end. Whoever changes them meanwhile waits for that."""
        self._folder.refuse_root()
        try:
            with self.path.with_suffix(".lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                users = dict(self.read())
                yield users
                content = _File(users=users).model_dump_json(indent=1)
                replace_synced(self.path, content.encode(), mode=0o600)
        except OSError as error:
            raise self._unusable(
                f"cannot be written: {error.strerror}",
                "make room, or work as the user that owns the station's folder",
            ) from None

    def _unusable(self, why: str, cure: str) -> ConfigError:
        return ConfigError(f"the list of users {why}", where=self.path, cure=cure)


def _check_strength(pin: str, path: Path) -> None:
    """Refuse what is tried first: too short, one digit again and again, or 123456."""
    steps = {ord(b) - ord(a) for a, b in pairwise(pin)}
    if SHORTEST_PIN <= len(pin) <= LONGEST_PIN and steps not in ({0}, {1}, {-1}):
        return
    raise ConfigError(
        "the PIN is too easy to guess",
        where=path,
        cure=f"take {SHORTEST_PIN} to {LONGEST_PIN} digits or letters, not in order and not all the same",
    )
