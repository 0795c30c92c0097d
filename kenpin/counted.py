"""A number of things in words."""

from __future__ import annotations


def counted(count: int, thing: str) -> str:
    """`1 picture`, `2 pictures`, `1,000 pictures`.

    Args:
        count: How many there are.
        thing: What one of them is called; its plural takes an s.
    """
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"
