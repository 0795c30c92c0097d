"""What a subscriber has heard, against a model of plain sets, with doubles, losses and disorder."""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kenpin.edge_runtime.catch_up import Ask, CatchUp
from kenpin.edge_runtime.heard import Heard, Hole, Numbers
from kenpin.edge_runtime.heard_file import load_heard, save_heard
from kenpin.errors import StoreError

SCHEDULES = int(os.environ.get("KENPIN_SCHEDULES", "10000"))
PATIENCE_S = 10.0


def holes(heard: Heard) -> list[int]:
    return [number for hole in heard.missing() for number in range(hole.first, hole.last + 1)]


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 5)), max_size=30))
def test_numbers_are_a_set_of_ranges(runs: list[tuple[int, int]]) -> None:
    numbers, model = Numbers(), set[int]()
    for first, more in runs:
        numbers.add(first, first + more)
        model.update(range(first, first + more + 1))
    assert [n for n in range(70) if n in numbers] == sorted(model)
    assert all(a[1] + 1 < b[0] for a, b in zip(numbers.ranges, numbers.ranges[1:], strict=False))


class Model:
    """The same as plain sets."""

    def __init__(self) -> None:
        self.had: set[tuple[str, int]] = set()
        self.start = 0

    def take(self, seq: int, session: str) -> bool:
        if (session, seq) in self.had:
            return False
        if any(number == seq for _, number in self.had):
            self.had = {(s, n) for s, n in self.had if s == session}
            self.start = min(n for _, n in (*self.had, (session, seq)))
        self.had.add((session, seq))
        self.start = self.start or seq
        return True

    def missing(self) -> list[int]:
        numbers = {n for _, n in self.had}
        return [n for n in range(self.start, max(numbers, default=0)) if n not in numbers]


def schedule(dice: random.Random) -> list[tuple[int, str]]:
    """What a network makes of the events of a station that starts some times, and is sometimes set up again."""
    sent: list[tuple[int, str]] = []
    seq = dice.randint(0, 50)
    for session in range(dice.randint(1, 4)):
        if dice.random() < 0.15:
            seq = 0
        for _ in range(dice.randint(1, 12)):
            seq += 1
            sent.append((seq, str(session)))
        if dice.random() < 0.1:
            seq += 1_000_000
    arrived = [event for event in sent if dice.random() > 0.1 for _ in range(dice.choice((1, 1, 1, 2)))]
    for _ in range(dice.randint(0, len(arrived))):  # late ones
        place = dice.randrange(len(arrived))
        arrived.insert(min(len(arrived), place + dice.randint(0, 9)), arrived.pop(place))
    return arrived


def test_every_schedule_gives_what_plain_sets_give() -> None:
    for seed in range(SCHEDULES):
        heard, model = Heard(), Model()
        for seq, session in schedule(random.Random(seed)):
            assert heard.take(seq, session) == model.take(seq, session), f"schedule {seed}"
        if max((n for _, n in model.had), default=0) < 1000:
            assert holes(heard) == model.missing(), f"schedule {seed}"


def test_what_is_older_than_the_first_event_is_taken_but_not_missed() -> None:
    heard = Heard()
    assert heard.take(500, "b")
    assert heard.take(300, "a")
    assert heard.take(303, "a")
    assert heard.missing() == ()
    assert not heard.take(300, "a")


def test_a_station_that_was_set_up_again_is_heard_although_its_numbers_are_known() -> None:
    heard = Heard()
    assert all(heard.take(seq, "old") for seq in range(1, 9))
    assert all(heard.take(seq, "new") for seq in range(1, 9))
    assert heard.missing() == ()
    assert heard.take(11, "new")
    assert heard.missing() == (Hole(9, 10),)


def test_given_up_numbers_are_not_missed_but_taken_when_they_come() -> None:
    heard = Heard()
    for seq in (1, 2, 9):
        heard.take(seq, "s")
    heard.give_up(Hole(3, 8))
    assert heard.missing() == ()
    assert heard.take(5, "s")
    assert not heard.take(5, "s")
    assert heard.take(12, "s")
    assert heard.missing() == (Hole(10, 11),)


def test_sessions_beyond_a_thousand_leave_no_hole() -> None:
    heard = Heard()
    for number in range(1, 1501):
        heard.take(number, f"s{number}")
    assert heard.missing() == ()
    assert len(heard.had) <= 1001
    assert not heard.take(1500, "s1500")


def test_a_restart_goes_on(tmp_path: Path) -> None:
    heard = Heard()
    for seq, session in ((7, "a"), (8, "a"), (10, "b")):
        heard.take(seq, session)
    heard.give_up(Hole(9, 9))
    path = tmp_path / "heard.json"
    assert load_heard(path) == {}
    save_heard(path, {"plant/st1": heard})
    again = load_heard(path)["plant/st1"]
    assert again.missing() == ()
    assert not again.take(8, "a")
    assert again.take(12, "b")
    assert again.missing() == (Hole(11, 11),)


@pytest.mark.parametrize(
    "damage", ["", "{", '{"schema":"kenpin.heard.v1"}', '{"stations":{"x":{"start":-1,"had":{}}}}']
)
def test_a_damaged_file_is_said(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "heard.json"
    path.write_text(damage)
    with pytest.raises(StoreError, match="remove the file"):
        load_heard(path)


def test_a_file_that_cannot_be_read_or_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be read: "):
        load_heard(tmp_path)
    with pytest.raises(StoreError, match="cannot be written"):
        save_heard(tmp_path / "none" / "heard.json", {})


def test_holes_that_close_by_themselves_are_not_asked_for() -> None:
    heard = Heard()
    catch_up = CatchUp(heard, patience_s=PATIENCE_S)
    for seq in (1, 50, *range(2, 50)):
        heard.take(seq, "s")
        assert catch_up.look(float(seq) + 9 * seq) is None or seq == 1
    assert heard.missing() == ()


def test_what_is_missing_is_asked_for_and_given_up_once_the_station_agreed() -> None:
    heard = Heard()
    catch_up = CatchUp(heard, patience_s=PATIENCE_S)
    for seq in (1, 5, 7):
        heard.take(seq, "s")
    assert catch_up.look(0) is None
    assert catch_up.look(9.9) is None
    assert catch_up.look(10) == Ask(2, 5)
    assert catch_up.look(19) is None
    assert catch_up.look(20) == Ask(2, 5)  # nobody agreed
    assert catch_up.look(30) is None  # it waits longer each time
    catch_up.accept()
    assert catch_up.look(40) is None
    assert heard.missing() == ()
    assert catch_up.lost == 4
    heard.take(9, "s")
    assert catch_up.look(50) is None
    assert catch_up.look(60) == catch_up.look(70) == Ask(8, 1)  # it has agreed to the one before only


def test_a_station_that_does_not_agree_is_asked_ever_less_until_something_new_is_missing() -> None:
    heard = Heard()
    catch_up = CatchUp(heard, patience_s=PATIENCE_S)
    heard.take(1, "s")
    heard.take(3, "s")
    asked_s = [now_s for now_s in range(2000) if catch_up.look(now_s) is not None]
    assert [b - a for a, b in itertools.pairwise(asked_s)] == [10, 20, 40, 80, 160, 300, 300, 300, 300, 300]
    heard.take(5, "s")
    assert catch_up.look(2000) is None
    assert catch_up.look(2010) == Ask(2, 3)


def test_after_progress_only_what_the_answer_reached_is_given_up() -> None:
    heard = Heard()
    catch_up = CatchUp(heard, patience_s=PATIENCE_S)
    for seq in (1, 5, 2000, 3000):
        heard.take(seq, "s")
    catch_up.look(0)
    assert catch_up.look(10) == Ask(2, 1000)
    catch_up.accept()
    heard.take(2, "s")
    assert catch_up.look(11) is None
    assert catch_up.look(21) is None
    assert heard.missing() == (Hole(1002, 1999), Hole(2001, 2999))
    assert catch_up.lost == 2 + 996
    assert catch_up.look(31) is None
    assert catch_up.look(41) == Ask(1002, 1000)


class StationAndSubscriber(RuleBasedStateMachine):
    """A station, a network that loses, doubles and delays, and a subscriber that asks and is restarted."""

    def __init__(self) -> None:
        super().__init__()
        self.stored: dict[int, str] = {}  # number -> session, as the station keeps them
        self.on_way: list[tuple[int, str]] = []
        self.taken: list[tuple[int, str]] = []
        self.seq, self.session, self.now_s = 0, 0, 0.0
        self.heard = Heard()
        self.catch_up = CatchUp(self.heard, patience_s=PATIENCE_S)
        self.asked: Ask | None = None

    @rule(count=st.integers(1, 5))
    def happen(self, count: int) -> None:
        for _ in range(count):
            self.seq += 1
            self.stored[self.seq] = f"s{self.session}"
            self.on_way.append((self.seq, f"s{self.session}"))

    @rule()
    def start_anew(self) -> None:
        self.session += 1

    @precondition(lambda self: self.on_way)
    @rule(data=st.data(), fate=st.sampled_from(["arrive", "arrive", "arrive", "double", "lose"]))
    def network(self, data: Any, fate: str) -> None:
        place = data.draw(st.integers(0, len(self.on_way) - 1))
        event = self.on_way[place] if fate == "double" else self.on_way.pop(place)
        if fate != "lose":
            self._arrive(event)

    @precondition(lambda self: self.stored)
    @rule(data=st.data())
    def throw_away(self, data: Any) -> None:
        del self.stored[data.draw(st.sampled_from(sorted(self.stored)))]

    @rule()
    def restart_subscriber(self) -> None:
        self.heard = Heard(self.heard.start, {s: Numbers(list(n.ranges)) for s, n in self.heard.had.items()})
        self.catch_up = CatchUp(self.heard, patience_s=PATIENCE_S)
        self.asked = None

    @rule(passed_s=st.sampled_from([1.0, 6.0, 400.0]))
    def pass_time(self, passed_s: float) -> None:
        self.now_s += passed_s
        self.asked = self.catch_up.look(self.now_s) or self.asked

    @precondition(lambda self: self.asked)
    @rule(is_lost=st.booleans())
    def answer(self, is_lost: bool) -> None:
        asked, self.asked = self.asked, None
        assert asked is not None
        if not is_lost:
            found = sorted(seq for seq in self.stored if seq >= asked.since_seq)[: asked.count]
            self.catch_up.accept()
            for seq in found:
                self._arrive((seq, self.stored[seq]))

    @invariant()
    def each_event_is_taken_once(self) -> None:
        assert len(self.taken) == len(set(self.taken))

    @invariant()
    def what_is_missing_was_not_taken(self) -> None:
        assert not {seq for seq, _ in self.taken} & set(holes(self.heard))

    def teardown(self) -> None:
        """In the end all that the station still has is there, from the first that was heard."""
        while self.heard.missing():
            self.pass_time(400.0)
            if self.asked:
                self.answer(is_lost=False)
        newest = max((seq for seq, _ in self.taken), default=0)
        due = {(s, x) for s, x in self.stored.items() if self.heard.start <= s <= newest}
        assert due <= set(self.taken)

    def _arrive(self, event: tuple[int, str]) -> None:
        if self.heard.take(*event):
            self.taken.append(event)


TestStationAndSubscriber = StationAndSubscriber.TestCase
TestStationAndSubscriber.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
