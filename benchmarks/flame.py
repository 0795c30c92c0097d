"""A flame graph: where the processor time of a function goes, in one SVG. Waiting, as for a disk, is not in it.

A timer's signal looks at the stack. Python handles it after the call into C that it met, so what OpenCV, numpy
or SQLite take stands under the Python function that called them; and as one long call is met once only, each
look counts the time since the one before.
"""

from __future__ import annotations

import html
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FrameType

Stack = tuple[str, ...]

_EVERY_S = 0.0005
_WIDTH, _ROW = 1200, 20
_LEAST = 0.004  # share of all; narrower ones are left out
_CHARACTER = 6.6  # pixels
_COLOURS = ("#f4a582", "#fddbc7", "#f7c59f", "#efb08c")


@contextmanager
def sampled(root: Callable[..., object]) -> Iterator[Mapping[Stack, float]]:
    """Processor seconds of this thread by the stack below a function, outermost first; in the main thread."""
    found: dict[Stack, float] = defaultdict(float)
    last_s = time.thread_time()

    def look(_signal: int, frame: FrameType | None) -> None:
        nonlocal last_s
        now_s = time.thread_time()
        stack = _stack(frame, root.__code__)
        if len(stack) > 1:  # what is met on entering the root was spent before it
            found[stack] += now_s - last_s
        last_s = now_s

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, _EVERY_S, _EVERY_S)
    try:
        yield found
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _stack(frame: FrameType | None, root: CodeType) -> Stack:
    """Names from the root to the innermost function; empty outside of the root."""
    names: list[str] = []
    while frame is not None:
        names.append(f"{frame.f_globals.get('__name__', '').rpartition('.')[2]}.{frame.f_code.co_name}")
        if frame.f_code is root:
            return tuple(reversed(names))
        frame = frame.f_back
    return ()


@dataclass(frozen=True)
class _Bar:
    """One function under its callers; `left` and `share` of all."""

    name: str
    depth: int
    left: float
    share: float


def flame_svg(found: Mapping[Stack, float], title: str) -> str:
    """Draw the stacks: the outermost function at the top, each as wide as its share of the time."""
    bars = list(_bars(found, 0, 0.0, sum(found.values())))
    height = _ROW * (3 + max((bar.depth for bar in bars), default=0))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="monospace"'
        f' font-size="11">\n<rect width="100%" height="100%" fill="#ffffff"/>\n'
        f'<text x="4" y="14" font-size="13">{html.escape(title)}</text>\n'
    )
    return head + "".join(map(_drawn, bars)) + "</svg>\n"


def _bars(found: Mapping[Stack, float], depth: int, left: float, total: float) -> Iterator[_Bar]:
    for name in sorted({stack[depth] for stack in found if len(stack) > depth}):
        inside = {stack: n for stack, n in found.items() if len(stack) > depth and stack[depth] == name}
        share = sum(inside.values()) / total
        if share >= _LEAST:
            yield _Bar(name, depth, left, share)
            yield from _bars(inside, depth + 1, left, total)
        left += share


def _drawn(bar: _Bar) -> str:
    x, y, width = bar.left * _WIDTH, (bar.depth + 1) * _ROW, bar.share * _WIDTH
    label = f"{bar.name} {bar.share:.0%}"
    shown = label[: int((width - 6) / _CHARACTER)]
    colour = _COLOURS[sum(bar.name.partition(".")[0].encode()) % len(_COLOURS)]
    box = f'x="{x:.1f}" y="{y}" width="{max(width - 1, 1):.1f}" height="{_ROW - 1}" fill="{colour}"'
    text = f'<text x="{x + 3:.1f}" y="{y + 14}">{html.escape(shown)}</text>' if len(shown) > 2 else ""
    return f"<g><title>{html.escape(label)}</title><rect {box}/>{text}</g>\n"
