from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kenpin.edge_runtime.counter_gap import FARTHEST, CounterGap


def feed(gap: CounterGap, *numbers: int) -> list[list[int] | None]:
    return [gap.missed(number) for number in numbers]


def test_each_number_that_is_left_out_is_a_part() -> None:
    assert feed(CounterGap(), 5, 6, 9, 10) == [[], [], [7, 8], []]


def test_a_number_that_comes_again_is_ignored() -> None:
    gap = CounterGap()
    assert feed(gap, 5, 5, 6) == [[], None, []]
    assert gap.repeated == 1


def test_the_last_number_of_the_run_before_counts() -> None:
    assert feed(CounterGap(last=3), 6) == [[4, 5]]


def test_a_counter_that_starts_with_the_station_is_at_another_part_when_it_is_at_the_last_number() -> None:
    gap = CounterGap(last=1, is_ours=True)
    assert feed(gap, 1, 1, 2) == [[], None, []]
    assert (gap.restarts, gap.repeated) == (1, 1)
    assert feed(CounterGap(last=1), 1) == [None]  # a PLC still shows the number of the part before


def test_a_counter_that_starts_over_at_0_and_one_at_1() -> None:
    assert feed(CounterGap(65535, first=0), 65534, 65535, 0, 1) == [[], [], [], []]
    assert feed(CounterGap(65535, first=1), 65534, 65535, 1, 2) == [[], [], [], []]
    assert feed(CounterGap(65535, first=0), 65534, 2) == [[], [65535, 0, 1]]
    assert feed(CounterGap(65535, first=1), 65534, 2) == [[], [65535, 1]]


def test_a_counter_that_was_set_anew_claims_no_parts() -> None:
    gap = CounterGap()
    assert feed(gap, 500, 499, 1, 2, 2 + FARTHEST + 1) == [[], [], [], [], []]
    assert (gap.restarts, gap.repeated) == (3, 0)


def test_what_is_ahead_is_so_over_the_wrap_as_well() -> None:
    gap = CounterGap(65535)
    assert gap.is_ahead(0, of=65535)
    assert not gap.is_ahead(65535, of=0)
    assert not gap.is_ahead(7, of=7)


@given(
    st.integers(1, 200),
    st.lists(st.booleans(), min_size=1, max_size=300),
    st.sampled_from([(0, 0), (255, 0), (255, 1)]),
)
def test_what_came_and_what_was_missed_is_what_was_sent(
    start: int, arrives: list[bool], counter: tuple[int, int]
) -> None:
    counter_max, first = counter
    round_ = counter_max - first + 1
    sent = [
        start + k if not counter_max else first + (start - first + k) % round_ for k in range(len(arrives) + 1)
    ]
    gap = CounterGap(counter_max, first=first)
    accounted: list[int] = []
    longest = 0
    for number, came in zip(sent, [True, *arrives], strict=True):
        longest = 0 if came else longest + 1
        if longest >= 200:
            return  # nearly a whole round: nobody could tell
        if came:
            missed = gap.missed(number)
            assert missed is not None
            accounted += [*missed, number]
    assert accounted == sent[: len(accounted)]
    assert gap.restarts == 0
