"""What the heap keeps and gives back, counted as pages that the system has to bring."""

from __future__ import annotations

import subprocess
import sys

import pytest

# As in a station: what is needed for a picture is freed after it, and asked for again with the next one.
_PICTURES = """
import resource
import kenpin.heap as heap
heap.{choose}()
def look():
    held = [bytearray(size << 20) for size in {sizes}]
    for block in held:
        block[::4096] = bytes(len(block[::4096]))
for _ in range(3):
    look()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    look()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
_SIZES = (6, 1, 5, 40, 40)  # MiB: a picture of 2 million pixels and what is made of it, and one of 13 million
_PAGES = 10 * sum(_SIZES) * 256  # all that they touch


@pytest.mark.parametrize(
    ("choose", "least", "most"),
    [("keep_freed_memory", 0, _PAGES // 20), ("give_back_freed_memory", _PAGES * 0.9, _PAGES * 1.2)],
)
def test_pages_that_come_new_with_each_picture(choose: str, least: float, most: float) -> None:
    command = [sys.executable, "-c", _PICTURES.format(choose=choose, sizes=_SIZES)]
    pages = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert least <= pages <= most, pages
