from __future__ import annotations

import getpass

import pytest

from kenpin.errors import ConfigError
from kenpin.options import signer


def test_who_signs_is_who_is_named_or_called_sudo_or_is_logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "sato")
    monkeypatch.setattr(getpass, "getuser", lambda: "kenpin")
    assert (signer("abe"), signer()) == ("abe", "sato")
    monkeypatch.delenv("SUDO_USER")
    assert signer() == "kenpin"


def test_nobody_signs_for_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("uid not found: 4711")

    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr(getpass, "getuser", nameless)
    with pytest.raises(ConfigError, match="no login name") as error:
        signer()
    assert "--by" in error.value.cure
