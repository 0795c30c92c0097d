"""Who loads the page: browsers that ask steadily, and a slow-loris that drips. Run by benchmarks.page_load."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from dataclasses import asdict, dataclass

PATHS = ("/line/panel", "/live.jpg", "/line/panel", "/live.jpg", "/line", "/static/page.js")
_REQUEST = "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
_DRIP_S = 1.0
_TIMEOUT_S = 10.0
_LORIS = "127.0.0.2"  # another machine than that of the browsers


@dataclass
class Crowd:
    """What became of the requests.

    Attributes:
        asked: Number of requests.
        answered: Number of them that were answered with 200, or 404 where there is no picture.
        slowest_ms: The longest time that an answer took.
        dripped: Connections that dripped.
        dropped: How often the page dropped one of them.
    """

    asked: int = 0
    answered: int = 0
    slowest_ms: float = 0.0
    dripped: int = 0
    dropped: int = 0


async def browse(port: int, path: str, found: Crowd) -> None:
    """One request, on a connection of its own."""
    begun_s = time.perf_counter()
    found.asked += 1
    with contextlib.suppress(OSError, asyncio.TimeoutError):
        answer = await asyncio.wait_for(_answer(port, path), _TIMEOUT_S)
        found.answered += answer.split(b" ", 2)[1:2] in ([b"200"], [b"404"])
        found.slowest_ms = max(found.slowest_ms, (time.perf_counter() - begun_s) * 1000)


async def _answer(port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(_REQUEST.format(path=path).encode())
        return await reader.read(-1)
    finally:
        writer.close()


async def drip(port: int, found: Crowd) -> None:
    """A request that never ends, a byte at a time; anew whenever it is dropped."""
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(_LORIS, 0))
            found.dripped += 1
            try:
                writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
                while not writer.transport.is_closing():
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(_DRIP_S)
            finally:
                writer.close()
        found.dropped += 1
        await asyncio.sleep(_DRIP_S)


async def crowd(port: int, *, seconds: float, rate: float, drips: int) -> Crowd:
    """Ask at an even rate, while others drip.

    Args:
        port: Of the page, on loopback.
        seconds: For how long.
        rate: Requests per second.
        drips: Connections that drip.
    """
    found = Crowd()
    dripping = [asyncio.create_task(drip(port, found)) for _ in range(drips)]
    asking, begun_s = [], time.monotonic()
    for number in range(int(seconds * rate)):
        await asyncio.sleep(begun_s + number / rate - time.monotonic())
        asking.append(asyncio.create_task(browse(port, PATHS[number % len(PATHS)], found)))
    await asyncio.gather(*asking)
    for task in dripping:
        task.cancel()
    await asyncio.gather(*dripping, return_exceptions=True)
    return found


def main() -> None:
    """PORT SECONDS RATE DRIPS; print what became of it as JSON."""
    # These would be other machines: they take only what nobody else wants here.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    port, seconds, rate, drips = (float(word) for word in sys.argv[1:])
    print(json.dumps(asdict(asyncio.run(crowd(int(port), seconds=seconds, rate=rate, drips=int(drips))))))


if __name__ == "__main__":
    main()
