"""What another page, a stranger on the network or a broken client may try."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute

from kenpin.calibration.web.guard import MAX_BODY_BYTES, Guard
from kenpin.calibration.web.login import _own_path
from kenpin.calibration.web.session import IDLE_MS, LONGEST_MS
from kenpin.calibration.web.users import Users
from kenpin.config import WebSection
from kenpin.station_folder import StationFolder
from tests.calibration.web.page_station import PIN, MakeVisit, Visit

OURS = {"Origin": "https://127.0.0.1"}


@pytest.fixture
def browser(visit: MakeVisit) -> Visit:
    return visit(open_view=False)


@pytest.mark.parametrize(
    "origin", ["", "https://evil.example", "http://127.0.0.1", "https://127.0.0.1:81", "null"]
)
def test_a_form_of_another_page_changes_nothing(browser: Visit, origin: str) -> None:
    browser.log_in("abe")
    app = browser.app
    paths = [r.path for r in app.routes if isinstance(r, APIRoute) and "POST" in r.methods]  # type: ignore[attr-defined]
    assert len(paths) >= 3
    for path in paths:
        headers = {"Origin": origin} if origin else {}
        data = {"token": browser.token(), "name": "vera", "pin": PIN}
        answer = browser.post(path, data=data, headers=headers)
        assert answer.status_code == 403, path
        assert "nothing was changed" in answer.text
    assert "abe: log out" in browser.get("/line").text


@pytest.mark.parametrize("token", ["", "0" * 64, "ä"])
def test_a_form_without_our_token_changes_nothing(browser: Visit, token: str) -> None:
    browser.get("/login")
    answer = browser.post("/login", data={"token": token, "name": "sato", "pin": PIN}, headers=OURS)
    assert answer.status_code == 403


def test_the_token_of_another_browser_is_of_no_use(visit: MakeVisit) -> None:
    mine = visit()
    theirs = Visit(mine.app, base_url="https://127.0.0.1", follow_redirects=False)
    mine.get("/login")
    answer = mine.post("/login", data={"token": theirs.token(), "name": "sato", "pin": PIN}, headers=OURS)
    assert answer.status_code == 403


def test_a_login_gets_a_new_session_and_cookies_are_locked_up(browser: Visit) -> None:
    before = browser.get("/login").headers["set-cookie"]
    after = browser.log_in("sato").headers["set-cookie"]
    assert before.split(";")[0] != after.split(";")[0]
    for cookie in (before, after, browser.submit("/language", language="ja").headers["set-cookie"]):
        assert cookie.startswith("__Host-")
        assert {"Secure", "HttpOnly", "SameSite=strict", "Path=/"} <= {c.strip() for c in cookie.split(";")}
        assert "Domain" not in cookie


def test_the_cookie_of_a_session_is_not_in_the_database(browser: Visit, people: StationFolder) -> None:
    value = browser.log_in("sato").headers["set-cookie"].split("=", 1)[1].split(";")[0]
    files = list(people.root.glob("page.db*"))
    assert files
    assert not any(value.encode() in path.read_bytes() for path in files)


@pytest.mark.parametrize(
    ("name", "passed_ms", "status"),
    [
        ("sato", IDLE_MS - 60_000, 200),
        ("sato", IDLE_MS + 60_000, 401),
        ("vera", IDLE_MS + 60_000, 200),
        ("vera", LONGEST_MS + 60_000, 401),
        ("sato", -IDLE_MS - 60_000, 401),
    ],
)
def test_a_session_ends_by_itself(
    browser: Visit, monkeypatch: pytest.MonkeyPatch, name: str, passed_ms: int, status: int
) -> None:
    from kenpin.calibration.web import session  # noqa: PLC0415

    browser.log_in(name)
    later = session.now_ms() + passed_ms
    monkeypatch.setattr(session, "now_ms", lambda: later)
    assert browser.get("/line").status_code == status


def test_a_picture_that_renews_itself_keeps_nobody_logged_in(
    browser: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kenpin.calibration.web import session  # noqa: PLC0415

    browser.log_in("sato")
    start = session.now_ms()
    for minute in range(0, 40, 5):
        now = start + minute * 60_000
        monkeypatch.setattr(session, "now_ms", lambda now=now: now)
        status = browser.get("/line/panel").status_code
        assert status == (200 if minute < 30 else 401)


def test_a_session_outlives_the_process(visit: MakeVisit) -> None:
    before, after = visit(open_view=False), visit(open_view=False)
    before.log_in("sato")
    after.cookies.update(before.cookies)
    assert after.get("/line").status_code == 200


def test_headers_forbid_scripts_from_elsewhere_and_frames(browser: Visit) -> None:
    for path in ("/login", "/nowhere", "/static/page.js", "/line"):
        headers = browser.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert "unsafe" not in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] in ("no-store", "public, max-age=31536000, immutable")


def test_pages_have_no_script_or_style_inside(visit: MakeVisit) -> None:
    browser = visit()
    for path in ("/line", "/login", "/log"):
        text = browser.get(path).text
        assert "style=" not in text
        assert "<style" not in text
        assert text.count("<script") == text.count("<script src=")
        assert " on" + "click" not in text


def test_what_somebody_types_is_no_markup(visit: MakeVisit) -> None:
    browser = visit(address="10.0.0.9")
    answer = browser.log_in('"><script>alert(1)</script>', "x")
    assert answer.status_code == 401
    assert "<script>alert" not in answer.text


def test_a_page_that_no_browser_comes_from_is_none(browser: Visit) -> None:
    assert browser.get("/login", headers={"Referer": "http://[::1"}).status_code == 200


def test_a_large_body_is_refused(browser: Visit) -> None:
    token = browser.token()
    answer = browser.post("/login", data={"token": token, "name": "x" * MAX_BODY_BYTES}, headers=OURS)
    assert answer.status_code == 413

    def pieces() -> Iterator[bytes]:
        yield f"token={token}&name=".encode()
        for _ in range(70):
            yield b"x" * 1024

    kind = {"Content-Type": "application/x-www-form-urlencoded", **OURS}
    assert browser.post("/login", content=pieces(), headers=kind).status_code == 413


WHOLE = {"type": "http.request", "body": b"", "more_body": False}
BEGINS = {"type": "http.request", "body": b"a", "more_body": True}
LEFT = {"type": "http.disconnect"}


class Crowd:
    """A page that takes its time, and how many are served by it at once."""

    def __init__(self) -> None:
        self.guard = Guard(self, local_only=False)
        self.inside = self.most = self.served = 0

    async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        await asyncio.sleep(0.01)
        self.inside -= 1
        self.served += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def visit(self, address: str, *comes: Any, is_read: bool = True) -> None:
        messages = list(comes)

        async def receive() -> Any:
            return messages.pop(0) if messages else await asyncio.Event().wait()

        async def send(_message: Any) -> None:
            if not is_read:
                await asyncio.Event().wait()

        await self.guard({"type": "http", "headers": [], "client": (address, 1)}, receive, send)


def test_other_machines_are_served_one_after_the_other() -> None:
    async def visit(addresses: list[str]) -> Crowd:
        crowd = Crowd()
        await asyncio.gather(*(crowd.visit(address, WHOLE) for address in addresses))
        return crowd

    afar = asyncio.run(visit([f"10.0.0.{k}" for k in range(8)]))
    assert (afar.served, afar.most) == (8, 1)
    here = asyncio.run(visit(["127.0.0.1"] * 8))
    assert (here.served, here.most) == (8, 8)


def test_who_is_slow_or_has_left_keeps_no_turn() -> None:
    async def visit() -> int:
        crowd = Crowd()
        slow = [crowd.visit("10.0.0.1", BEGINS), crowd.visit("10.0.0.2", WHOLE, is_read=False)]
        waiting = [asyncio.ensure_future(one) for one in slow]
        while not crowd.served:
            await asyncio.sleep(0.001)
        await crowd.visit("10.0.0.3", WHOLE, LEFT)
        await asyncio.wait_for(crowd.visit("10.0.0.4", WHOLE), 180)
        for one in waiting:
            one.cancel()
        return crowd.served

    assert asyncio.run(visit()) == 2  # one who does not read the answer, and the last


def test_without_tls_only_names_of_this_machine_lead_here(visit: MakeVisit) -> None:
    browser = visit()
    assert browser.get("/line", headers={"Host": "evil.example:8080"}).status_code == 421
    for host in ("127.0.0.1:8080", "localhost", "[::1]:8080"):
        assert browser.get("/line", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "back", ["//evil.example", "https://evil.example", "/\\evil.example", "x", "/\nx", "/ä"]
)
def test_a_login_leads_to_no_other_site(back: str) -> None:
    assert _own_path(back) == "/"
    assert _own_path("/log?sheet=2") == "/log?sheet=2"


def test_names_are_offered_at_the_station_only(visit: MakeVisit) -> None:
    assert "<option>sato</option>" in visit().get("/login").text
    assert "sato" not in visit(address="10.0.0.9").get("/login").text


def test_a_forwarded_address_is_not_believed(visit: MakeVisit) -> None:
    browser = visit(address="10.0.0.9")
    assert "sato" not in browser.get("/login", headers={"X-Forwarded-For": "127.0.0.1"}).text


def test_a_list_of_users_that_cannot_be_used_is_told_with_its_cure(
    browser: Visit, people: StationFolder
) -> None:
    browser.log_in("sato")
    Users(people).path.chmod(0o644)
    answer = browser.get("/line")
    assert answer.status_code == 503
    assert "chmod 600" in answer.text


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"listen": "0.0.0.0:8080"}, "must not travel readable"),
        ({"listen": "192.168.1.5:8080"}, "tls_cert_file"),
        ({"tls_cert_file": "cert.pem"}, "belong together"),
        ({"listen": "8080"}, "an address and a port"),
        ({"language": "fr"}, "'en', 'ja' or 'de'"),
    ],
)
def test_a_section_that_is_not_safe_is_refused(section: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        WebSection.model_validate(section)


def test_with_tls_other_machines_may_look() -> None:
    both = {"tls_cert_file": "cert.pem", "tls_key_file": "key.pem"}
    assert WebSection.model_validate({"listen": "0.0.0.0:8443", **both}).has_tls
