"""The site: what every page of one station needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from secrets import token_bytes

from jinja2 import Environment

from kenpin.calibration.web.pin_check import PinCheck
from kenpin.calibration.web.session import Sessions
from kenpin.calibration.web.users import Users
from kenpin.calibration.web.words import Words
from kenpin.config import WebSection
from kenpin.station_folder import StationFolder


@dataclass(frozen=True)
class Page:
    """An entry of the menu.

    Attributes:
        name: Of its words: `nav_<name>`.
        path: Where it is.
    """

    name: str
    path: str


@dataclass(frozen=True, kw_only=True)
class Site:
    """What every page of one station needs.

    Attributes:
        station: The station's id.
        folder: The station's folder.
        section: How the page is configured.
        review_mb: Room for the pictures that people have labelled.
        users: Who there is.
        sessions: Who is logged in.
        pins: Checks PINs.
        languages: The words of each language.
        templates: What pages are made from.
        menu: The pages, in order.
        secret: Of this process: what the tokens of forms are made with.
    """

    station: str
    folder: StationFolder
    section: WebSection
    review_mb: int
    users: Users
    sessions: Sessions
    pins: PinCheck
    languages: Mapping[str, Words]
    templates: Environment
    menu: Sequence[Page]
    secret: bytes = field(default_factory=lambda: token_bytes(32))
