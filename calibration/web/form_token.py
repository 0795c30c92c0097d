"""Forms that are ours: sent by this page itself, and with a token that only this browser was given."""

from __future__ import annotations

import hashlib
import hmac

from fastapi import Request

from kenpin.calibration.web.refusal import Refused
from kenpin.calibration.web.visitor import site_of, visitor_of

FIELD = "token"


def form_token(request: Request) -> str:
    """What a form of this visitor has to bring along."""
    session_id = visitor_of(request).session_id
    return hmac.new(site_of(request).secret, session_id.encode(), hashlib.sha256).hexdigest()


async def check_form(request: Request) -> None:
    """Let through only what a form of ours has sent.

    Browsers name the page that a form came from as `Origin` (Fetch standard 3.2); the token is the second lock.

    Raises:
        Refused: 403 if another page sent it, or the form is from before a login or a restart.
    """
    ours = f"{request.url.scheme}://{request.headers.get('host', '')}"
    if request.headers.get("origin") != ours:
        raise Refused(403, "refused_origin")
    sent = (await request.form()).get(FIELD)
    if not isinstance(sent, str) or not hmac.compare_digest(sent.encode(), form_token(request).encode()):
        raise Refused(403, "refused_form")
