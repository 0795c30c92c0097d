"""The fields of T1 and T2: few digits, never above the limit, and sent back unchanged the limit itself."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kenpin.calibration.web.limit_field import LimitField

LIMITS = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(LIMITS, LIMITS, st.floats(min_value=1e-12, max_value=1e12))
@example(-1.5, -1.125, 10.0)  # cut to whole numbers, T2 would be shown as -2
@example(132.5829, 132.58293151855469, 0.43)
def test_what_is_shown_is_in_order_never_above_and_means_the_limits(
    one: float, other: float, step: float
) -> None:
    field, limits = LimitField.beside(step), (min(one, other), max(one, other))
    shown = [float(text) for text in field.texts(limits)]
    assert shown[0] <= shown[1]
    for said, limit in zip(shown, limits, strict=True):
        assert said <= limit
        assert limit - said <= max(step / 10, 1e-15) * 1.0000001
    assert field.read_both((shown[0], shown[1]), limits) == limits


def test_a_limit_shown_finer_beside_a_moved_one_is_still_itself() -> None:
    field, t2 = LimitField.beside(0.43), 132.58293151855469
    assert field.texts((131.0, t2))[1] == "132.58"
    assert field.texts((132.5829, t2)) == ("132.5829", "132.5829")
    assert field.read_both((132.5829, 132.5829), (131.0, t2)) == (132.5829, t2)


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
    assert LimitField.beside(step).texts((limit, limit)) == (text, text)


def test_another_number_is_another_limit() -> None:
    field, limits = LimitField.beside(0.43), (132.58293151855469, 140.25810001)
    assert field.read_both((132.57, 140.25), limits) == (132.57, 140.25810001)
    assert field.read_both((132.58, 150.0), limits) == (132.58293151855469, 150.0)
    # T2 put on T1, as it is shown: they are one limit, not in the wrong order.
    assert field.read_both((132.58, 132.58), limits) == (132.58293151855469, 132.58293151855469)
    assert field.read_both((9.0, 8.0), limits) == (9.0, 8.0)  # which is refused
