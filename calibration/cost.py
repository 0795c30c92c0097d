"""What a position of T1 would cost, as far as the parts that were shown can tell. It proves nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kenpin.record import CalibrationRecord


@dataclass(frozen=True)
class Costs:
    """What the plant loses, in any currency.

    Attributes:
        false_call: By a good part judged NG.
        escape: By a bad part judged OK.
        review: By a part that a person looks at.
        defect_rate: Share of bad parts, 0 to 1.
    """

    false_call: float
    escape: float
    review: float
    defect_rate: float


@dataclass(frozen=True)
class Point:
    """One position of T1.

    Attributes:
        t1: Where.
        cost: Of 1,000 parts.
    """

    t1: float
    cost: float


def cost_curve(record: CalibrationRecord, costs: Costs) -> list[Point]:
    """The cost at every position of T1 up to T2 at which it changes, lowest position first."""
    scores = {*record.good.values(), *record.masters.values()}
    positions = {record.t1, record.t2, *(math.nextafter(s, math.inf) for s in scores), *scores}
    return [Point(t1, _cost(t1, record, costs)) for t1 in sorted(positions) if t1 <= record.t2]


def cheapest(curve: Sequence[Point]) -> Point:
    """The lowest point of a curve; of several the strictest one."""
    return min(curve, key=lambda point: (point.cost, point.t1))


def cheapest_if_escapes_cost(record: CalibrationRecord, costs: Costs, factor: float) -> Point:
    """The lowest point if an escape cost `factor` times as much: nobody knows that figure well."""
    return cheapest(cost_curve(record, replace(costs, escape=costs.escape * factor)))


def _cost(t1: float, record: CalibrationRecord, costs: Costs) -> float:
    good, bad = record.good.values(), record.masters.values()
    false_calls = sum(s >= record.t2 for s in good) / len(good)
    escapes = sum(s < t1 for s in bad) / len(bad)
    # Bad parts on the review bench cost a look as well.
    good_reviews, bad_reviews = (sum(t1 <= s < record.t2 for s in kind) / len(kind) for kind in (good, bad))
    per_good = costs.false_call * false_calls + costs.review * good_reviews
    per_bad = costs.escape * escapes + costs.review * bad_reviews
    return 1000 * ((1 - costs.defect_rate) * per_good + costs.defect_rate * per_bad)
