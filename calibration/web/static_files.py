"""Style sheets, scripts and the icon: a few files, read once, kept by the browser until they change."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.resources import files
from pathlib import PurePath

from fastapi import APIRouter
from fastapi.responses import Response

from kenpin.calibration.web.access import needs
from kenpin.calibration.web.role import Role

_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
_KEPT = "public, max-age=31536000, immutable"  # the address changes with the content


def static_url(name: str) -> str:
    """The address of a file, with a mark of its content.

    Args:
        name: One of those in `static/`.
    """
    return f"/static/{name}?{hashlib.sha256(_content(name)).hexdigest()[:12]}"


def static_router() -> APIRouter:
    """One route per file: no path is ever made from what a browser sent."""
    router = APIRouter()
    folder = files("kenpin.calibration.web") / "static"
    for name in sorted(file.name for file in folder.iterdir()):
        kind = _TYPES[PurePath(name).suffix]
        answer = Response(_content(name), media_type=kind, headers={"Cache-Control": _KEPT})
        router.add_api_route(f"/static/{name}", _giving(answer), dependencies=needs(Role.ANYONE), name=name)
    return router


def _giving(answer: Response) -> Callable[[], Response]:
    def give() -> Response:
        return answer

    return give


def _content(name: str) -> bytes:
    return (files("kenpin.calibration.web") / "static" / name).read_bytes()
