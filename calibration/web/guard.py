"""The guard in front of all pages: no large bodies, no crowd, no foreign names, what browsers must not do."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kenpin.config import is_loopback

MAX_BODY_BYTES = 64 * 1024
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With `no-referrer` browsers would not name the origin of our own forms either.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), usb=()",
}


class Guard:
    """Stands in front of the application.

    Args:
        app: The application.
        local_only: Whether the page is offered on loopback without TLS. Then a page of another name that was
            made to lead here (DNS rebinding) must not see anything.
    """

    def __init__(self, app: ASGIApp, *, local_only: bool) -> None:
        self._app = app
        self._local_only = local_only
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, as ASGI has it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        answer = _with_headers(send)
        if self._local_only and not is_loopback(_host(headers)):
            refusal = PlainTextResponse("This page is at http://127.0.0.1 only.\n", status_code=421)
            await refusal(scope, receive, answer)
        elif is_loopback((scope["client"] or ("",))[0]):
            await self._app(scope, await _whole(receive), answer)
        else:
            await self._in_turn(scope, receive, answer)

    async def _in_turn(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request from afar after the other.

        A picture or a long log takes many megabytes while it is read. A crowd that asks for some at once would
        end this process, and with it what it knows of wrong PINs, or keep the operator at the station waiting.
        """
        whole = await _whole(receive)
        async with AsyncExitStack() as turn:

            async def send_after_turn(message: Message) -> None:
                await turn.aclose()  # the work is done; how slowly the answer is read keeps nobody waiting
                await send(message)

            await turn.enter_async_context(self._turn)
            if not await Request(scope, receive).is_disconnected():
                await self._app(scope, whole, send_after_turn)


def _host(headers: Headers) -> str:
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


async def _whole(receive: Receive) -> Receive:
    """Wait for a request's whole body, as one that drips in must not take a turn; then give it once more.

    It is counted: the length that a header announces may be missing or wrong.
    """
    messages: list[Message] = []
    seen, is_more = 0, True
    while is_more and seen <= MAX_BODY_BYTES:
        message = await receive()
        messages.append(message)
        seen += len(message.get("body", b""))
        is_more = message.get("more_body", False)

    async def receive_again() -> Message:
        if seen > MAX_BODY_BYTES:
            raise HTTPException(413)
        return messages.pop(0) if messages else await receive()

    return receive_again


def _with_headers(send: Send) -> Send:
    async def send_with(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return send_with
