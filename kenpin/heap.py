"""The heap of the C library: how much of what was freed a process keeps, and how much it gives back.

Memory that was given back and is asked for again comes as new pages, which the system has to find, clear and
map: up to 3,500 for each 1080p picture, and that costs more than decoding it.
"""

from __future__ import annotations

import ctypes

# mallopt(3); malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8
_MB = 1 << 20


def keep_freed_memory() -> None:
    """For a process that handles one picture after the other: up to 256 MiB stay for the next one.

    That is a picture of 20 million pixels four times. No array is mapped for itself, as those from 32 MiB on
    would be whatever the threshold.
    """
    _set({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 256 * _MB})


def give_back_freed_memory() -> None:
    """For a process that rarely needs much: from 1 MiB at once, and no heap for each thread.

    By itself glibc raises that size with what is freed, and each thread's heap only grows: 6 to 8 MB.
    """
    _set({_M_MMAP_THRESHOLD: _MB, _M_ARENA_MAX: 2})


def trim() -> None:
    """Give back now what is free, once: `malloc_trim(3)`."""
    _call("malloc_trim", 0)


def _set(options: dict[int, int]) -> None:
    for option, value in options.items():
        _call("mallopt", option, value)


def _call(name: str, *arguments: int) -> None:
    function = getattr(ctypes.CDLL(None), name, None)  # glibc's alone
    if function is not None:
        function(*arguments)
