from __future__ import annotations

import pytest

from kenpin.counted import counted


@pytest.mark.parametrize(
    ("count", "told"),
    [(0, "0 good parts"), (1, "1 good part"), (2, "2 good parts"), (1000, "1,000 good parts")],
)
def test_one_thing_has_no_plural(count: int, told: str) -> None:
    assert counted(count, "good part") == told
