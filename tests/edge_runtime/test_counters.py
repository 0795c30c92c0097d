"""What the line counts."""

from __future__ import annotations

import pytest

from kenpin.edge_runtime.counters import Counters, Snapshot
from kenpin.edge_runtime.decide import WITHHELD, Decision, Verdict
from kenpin.edge_runtime.vitals import Vitals


@pytest.mark.parametrize("cause", sorted(WITHHELD))
def test_good_parts_that_are_not_released_do_not_make_the_share_of_bad_ones(cause: str) -> None:
    counters = Counters()
    for _ in range(3):
        counters.add(Decision(Verdict.NO_DECISION, "no PLC is connected", cause=cause), has_event=False)
    counters.add(Decision(Verdict.NO_DECISION, "black", cause="black"), has_event=False)
    counters.add(Decision(Verdict.NG), has_event=True)
    assert counters.ng_rate_with(Verdict.NG) == 2 / 5
    counted = counters.snapshot()
    assert (counted.ng_rate, counted.parts[Verdict.OK]) == (1 / 4, 0)
    vitals = Vitals(role="station", pid=1, numbers=counted.numbers())
    assert Snapshot.from_vitals(vitals).ng_rate == 1 / 4


def test_what_the_machine_takes_is_told_only_where_it_is_measured() -> None:
    counters = Counters()
    assert "power_watts" not in counters.snapshot().numbers()
    counters.note(score_psi=0.1, temperature_c=60.0, power_w=12.5)
    told = Snapshot.from_vitals(Vitals(role="station", pid=1, numbers=counters.snapshot().numbers()))
    assert (told.score_psi, told.temperature_c, told.power_w) == (0.1, 60.0, 12.5)
