"""The signature under a change: the PIN once more, the reason, and a second person where one is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Form, Request

from kenpin.calibration.web.refusal import Refused
from kenpin.calibration.web.role import Role
from kenpin.calibration.web.visitor import address_of, site_of, visitor_of

_PIN = Annotated[str, Form(max_length=256)]


@dataclass(frozen=True)
class Signature:
    """Who stands for a change.

    Attributes:
        by: Who signed; with a second person `first + second`.
        why: The reason.
    """

    by: str
    why: str


def signature(
    request: Request,
    pin: _PIN = "",
    why: Annotated[str, Form(max_length=300)] = "",
    second_name: _PIN = "",
    second_pin: _PIN = "",
) -> Signature:
    """What the fields of `signature.html` say; a route takes it as `Annotated[Signature, Depends(signature)]`.

    Raises:
        Refused: Nobody is logged in, a PIN is wrong or comes too early, the reason is missing, or the second
            person is missing, the same, or may not sign.
    """
    site, visitor = site_of(request), visitor_of(request)
    if not visitor.name:
        raise Refused(401, "refused_login")
    if not why.strip():
        raise Refused(422, "sign_no_reason")
    address = address_of(request)
    second = site.section.second_person
    if second and second_name in ("", visitor.name):
        raise Refused(422, "sign_no_second")
    site.pins.check(visitor.name, pin, address=address)
    if not second:
        return Signature(visitor.name, why.strip())
    if site.pins.check(second_name, second_pin, address=address).may < Role.TECHNICIAN:
        raise Refused(403, "sign_second_role")
    return Signature(f"{visitor.name} + {second_name}", why.strip())
