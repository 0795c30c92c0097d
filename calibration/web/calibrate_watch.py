"""The page's one thread of its own: it confirms a calibration by itself when fresh parts have proved it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from kenpin.calibration.web.calibrate_fresh import watch_fresh


@asynccontextmanager
async def watching(app: FastAPI) -> AsyncIterator[None]:
    """Watch as long as the page is served.

    Args:
        app: The page; `app.state.site` says which station it is.
    """
    folder = app.state.site.folder
    stopping = threading.Event()
    thread = threading.Thread(target=watch_fresh, args=(folder, stopping), name="fresh parts", daemon=True)
    thread.start()
    yield
    stopping.set()
    await asyncio.to_thread(thread.join)
