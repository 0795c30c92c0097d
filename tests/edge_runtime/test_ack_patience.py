from __future__ import annotations

from kenpin.edge_runtime.ack_patience import AckPatience


def test_a_slow_broker_has_more_time_and_no_more_when_it_is_quick_again() -> None:
    patience, limits = AckPatience(10.0), []

    def gives_up_after(age_s: float, now_s: float) -> bool:
        return patience.is_over(lambda limit_s: age_s > limit_s, now_s)

    for age_s in (10.1, 20.1, 40.1, 80.1, 80.1):
        assert not gives_up_after(age_s - 0.2, 1000.0)
        limits.append(gives_up_after(age_s, 1000.0))
    assert all(limits)
    assert not gives_up_after(15.0, 1500.0)  # it needs more than usual
    assert not gives_up_after(0.0, 2050.0)
    assert not gives_up_after(79.0, 2060.0)
    assert not gives_up_after(0.0, 2661.0)  # ten minutes in which it did not
    assert gives_up_after(11.0, 2662.0)
