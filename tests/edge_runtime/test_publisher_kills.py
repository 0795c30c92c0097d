"""The station and the broker killed by chance; a long form is `make bench-mqtt`."""

from __future__ import annotations

import pytest

from benchmarks.mqtt_faults import kills
from benchmarks.mqtt_ordeal import sendings


@pytest.mark.slow
def test_whoever_is_killed_all_arrives_and_only_what_was_not_acknowledged_is_sent_again() -> None:
    found = kills(3, longest_s=1.0)
    assert found.committed > 10
    assert (found.lost, found.wrongly) == (0, 0)


def test_what_the_station_sends_again_is_told_from_what_the_broker_brings_twice() -> None:
    once, again = {"seq": 1, "ts_ms": 1000, "capture_to_publish_ms": 5.5}, {"seq": 1, "ts_ms": 1000}
    events = [once, once, {**again, "capture_to_publish_ms": 900.0}, {**once, "seq": 2}]
    assert sendings(events, {1: None, 2: 2000}) == (1, 0)
    assert sendings(events, {1: 1900, 2: 2000}) == (1, 0)
    assert sendings(events, {1: 1899, 2: 2000}) == (1, 1)
    assert sendings([once], {1: 1005}) == (0, 0), "acknowledged within the millisecond"
