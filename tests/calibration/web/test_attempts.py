from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kenpin import audit
from kenpin.calibration.web.attempts import FORGET_S, LONGEST_S, Attempts
from kenpin.calibration.web.pin_check import PinCheck
from kenpin.calibration.web.pin_trail import PinTrail
from kenpin.calibration.web.refusal import Refused
from kenpin.calibration.web.users import User
from kenpin.signing import PublicKey
from kenpin.station_folder import StationFolder


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class CountingUsers:
    """Knows `sato`, whose PIN is `right`, and twenty others; counts how often a PIN is hashed."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.checked_s: list[float] = []
        self._sato = User(role="technician", pin="", since_ms=0)

    def read(self) -> dict[str, User]:
        return {"sato": self._sato, **{f"user{number}": self._sato for number in range(20)}}

    def verify(self, name: str, pin: str) -> User | None:
        self.checked_s.append(self.clock.now_s)
        return self._sato if (name, pin) == ("sato", "right") else None


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def users(clock: Clock) -> CountingUsers:
    return CountingUsers(clock)


@pytest.fixture
def folder(tmp_path: Path) -> StationFolder:
    return StationFolder(tmp_path)


@pytest.fixture
def pins(users: CountingUsers, clock: Clock, folder: StationFolder) -> PinCheck:
    return PinCheck(users, Attempts(clock), PinTrail(folder, clock))  # type: ignore[arg-type]


def refused(pins: PinCheck, pin: str = "wrong", *, name: str = "sato", address: str = "10.0.0.9") -> Refused:
    with pytest.raises(Refused) as error:
        pins.check(name, pin, address=address)
    return error.value


def busiest_minute(times_s: list[float]) -> int:
    return max(sum(1 for t in times_s if start <= t < start + 60) for start in times_s)


@pytest.mark.parametrize("address", ["10.0.0.9", "127.0.0.1"])
def test_ten_thousand_tries_are_five_checks_a_minute(
    pins: PinCheck, users: CountingUsers, clock: Clock, address: str
) -> None:
    for _ in range(10_000):
        refused(pins, address=address)
        clock.now_s += 0.1
    assert 5 <= len(users.checked_s) <= 1000 / LONGEST_S + 6
    assert busiest_minute(users.checked_s) <= 5


def test_many_names_from_one_address_are_no_faster(pins: PinCheck, users: CountingUsers, clock: Clock) -> None:
    for number in range(1000):
        refused(pins, name=f"user{number % 20}")
        clock.now_s += 0.1
    assert busiest_minute(users.checked_s) <= 5


def test_names_that_nobody_has_cost_no_more_than_one(
    pins: PinCheck, users: CountingUsers, clock: Clock
) -> None:
    for number in range(1000):
        refused(pins, name=f"nobody{number}", address=f"10.0.{number // 250}.{number % 250}")
        clock.now_s += 0.1
    assert busiest_minute(users.checked_s) <= 5


def test_many_addresses_are_no_faster_for_one_name(pins: PinCheck, users: CountingUsers, clock: Clock) -> None:
    for number in range(1000):
        refused(pins, address=f"10.0.{number // 250}.{number % 250}")
        clock.now_s += 0.1
    assert busiest_minute(users.checked_s) <= 5


def test_who_knows_one_pin_guesses_others_no_faster(pins: PinCheck, users: CountingUsers, clock: Clock) -> None:
    guesses = 0
    for number in range(1000):
        if number % 2:
            guesses += refused(pins, name=f"user{number % 20}").status_code == 401
        else:
            with suppress(Refused):
                pins.check("sato", "right", address="10.0.0.9")
        clock.now_s += 0.1
    assert guesses <= 10


def test_the_network_cannot_keep_the_operator_at_the_station_out(pins: PinCheck, clock: Clock) -> None:
    for _ in range(50):
        refused(pins)
        clock.now_s += LONGEST_S
    refused(pins)
    assert refused(pins, "right").status_code == 429
    assert pins.check("sato", "right", address="127.0.0.1").role == "technician"


def test_nobody_waits_longer_than_a_minute(pins: PinCheck, clock: Clock) -> None:
    for _ in range(20):
        assert refused(pins, address="::1").status_code == 401
        clock.now_s += LONGEST_S
    assert pins.check("sato", "right", address="::1").role == "technician"


def test_the_wait_is_told_and_a_try_during_it_does_not_prolong_it(pins: PinCheck, clock: Clock) -> None:
    assert refused(pins).key == "login_wrong"
    for _ in range(20):
        wait = refused(pins)
        assert (wait.status_code, wait.key) == (429, "login_wait")
        assert 1 <= wait.values["seconds"] <= 3  # type: ignore[operator]
        clock.now_s += 0.1
    assert pins.check("sato", "right", address="10.0.0.9")


def test_a_right_pin_starts_anew(pins: PinCheck, clock: Clock) -> None:
    for _ in range(4):
        refused(pins, address="127.0.0.1")
        clock.now_s += LONGEST_S
    pins.check("sato", "right", address="127.0.0.1")
    refused(pins, address="127.0.0.1")
    clock.now_s += 2.1
    assert pins.check("sato", "right", address="127.0.0.1")


def test_what_is_remembered_is_bounded(clock: Clock) -> None:
    attempts: Any = Attempts(clock)
    for number in range(4200):
        attempts.take([f"address {number}"])
    assert len(attempts._failures) <= 4097
    clock.now_s += 3600
    attempts.take(["address x"])
    assert len(attempts._failures) == 1


def audited(folder: StationFolder) -> list[tuple[str, str, str]]:
    rows = audit.read_audit(folder, PublicKey.load(folder.public_key))
    return [(row["by"], row["new"], row["why"]) for row in rows if row["what"] == "login"]


def test_the_first_wrong_pin_and_the_limit_stand_in_the_audit(
    pins: PinCheck, clock: Clock, folder: StationFolder
) -> None:
    refused(pins)
    clock.now_s += LONGEST_S
    refused(pins)
    refused(pins)  # too early
    clock.now_s += LONGEST_S
    refused(pins, name="274913")  # what somebody types as a name may be a PIN
    assert audited(folder) == [
        ("sato", "wrong PIN: 1", "from 10.0.0.9"),
        ("sato", "wrong PIN: 2", "from 10.0.0.9"),
        ("sato", "wrong PIN: 2; limit reached, refused as too early: 1", "from 10.0.0.9"),
        ("unknown name", "wrong PIN: 1", "from 10.0.0.9"),
    ]


def test_two_thousand_tries_are_a_few_rows_that_say_how_many(
    pins: PinCheck, clock: Clock, folder: StationFolder
) -> None:
    for _ in range(2_000):
        refused(pins)
        clock.now_s += 0.1
    clock.now_s += LONGEST_S
    pins.check("sato", "right", address="10.0.0.9")
    rows = audited(folder)
    assert len(rows) <= 14
    wrong, early = (int(part.rpartition(" ")[2]) for part in rows[-1][1].split(";"))
    assert wrong + early == 2_000


def test_tries_that_were_long_ago_are_told_before_new_ones(
    pins: PinCheck, clock: Clock, folder: StationFolder
) -> None:
    for _ in range(3):
        refused(pins)
        clock.now_s += LONGEST_S
    clock.now_s += FORGET_S
    refused(pins)
    assert [new for _, new, _ in audited(folder)] == [f"wrong PIN: {n}" for n in (1, 2, 3, 1)]


def test_a_right_pin_alone_is_no_row(pins: PinCheck, folder: StationFolder) -> None:
    pins.check("sato", "right", address="10.0.0.9")
    assert not audit.audit_file(folder).exists()
