"""The fields of T1 and T2: few digits, never above the limit, and sent back unchanged the limit itself."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kenpin.calibration.web.limit_field import LimitField

LIMITS = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(LIMITS, st.floats(min_value=1e-12, max_value=1e12))
def test_what_was_shown_is_the_limit_and_never_above_it(limit: float, step: float) -> None:
    field = LimitField.beside(step)
    shown = float(field.text(limit))
    assert shown <= limit
    assert limit - shown <= max(step / 10, 1e-15) * 1.0000001
    assert field.read(shown, limit) == limit


@given(LIMITS, LIMITS, st.floats(min_value=1e-9, max_value=1e9))
def test_both_stay_in_order_and_as_they_were(one: float, other: float, step: float) -> None:
    field, limits = LimitField.beside(step), (min(one, other), max(one, other))
    sent = (float(field.text(limits[0])), float(field.text(limits[1])))
    assert sent[0] <= sent[1]
    assert field.read_both(sent, limits) == limits


@pytest.mark.parametrize(
    ("step", "limit", "text"),
    [
        (0.43, math.nextafter(132.58293151855469, math.inf), "132.58"),
        (0.43, 132.5829, "132.5829"),  # as somebody has typed it
        (0.00043, 0.13258293, "0.13258"),
        (0.43, -0.001234567, "-0.01"),
        (4300.0, 1325829.318, "1325829"),
        (0.43, 5.0, "5.0"),
        (0.43, 1e22, "10000000000000000000000"),
    ],
)
def test_as_many_digits_are_shown_as_matter(step: float, limit: float, text: str) -> None:
    assert LimitField.beside(step).text(limit) == text


def test_another_number_is_another_limit() -> None:
    field, limits = LimitField.beside(0.43), (132.58293151855469, 140.25810001)
    assert field.read_both((132.57, 140.25), limits) == (132.57, 140.25810001)
    assert field.read_both((132.58, 150.0), limits) == (132.58293151855469, 150.0)
    # T2 put on T1, as it is shown: they are one limit, not in the wrong order.
    assert field.read_both((132.58, 132.58), limits) == (132.58293151855469, 132.58293151855469)
    assert field.read_both((9.0, 8.0), limits) == (9.0, 8.0)  # which is refused
