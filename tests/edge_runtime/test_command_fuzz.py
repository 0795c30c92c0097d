"""Whatever comes from the network: nothing breaks the check, nothing unsigned passes, each refusal is counted.

KENPIN_FUZZ=1000000 runs so many examples instead of 10^4, drawn anew each time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kenpin.edge_runtime.allowance import Allowance
from kenpin.edge_runtime.command import PER_S, Accepted, Context, Reason, Refused, check
from kenpin.edge_runtime.command_action import DEFAULT_ACTIONS, WRITE_ACTIONS
from kenpin.edge_runtime.command_key import CommandKey

pytestmark = pytest.mark.slow

NOW = 1_800_000_000_000
KEY = CommandKey("ops1", b"0123456789abcdef" * 4)
WRONG = CommandKey("ops1", b"fedcba9876543210" * 4)
VALID: dict[str, Any] = {
    "schema": "kenpin.command.v1",
    "cmd_id": "c-1",
    "action": "shelve",
    "station": "st1",
    "actor": "sato",
    "issued_ms": NOW - 1000,
    "expires_ms": NOW + 30_000,
    "alarm": "ng_rate",
    "minutes": 30,
}
REASONS = set(get_args(Reason))


def examples(share: float) -> Callable[[Any], Any]:
    """A share of all examples."""
    asked = os.environ.get("KENPIN_FUZZ")
    return settings(
        max_examples=int(int(asked or 10_000) * share),
        derandomize=not asked,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def envelope(body: str, key: CommandKey = KEY, **changes: object) -> dict[str, object]:
    return {"body": body, "kid": key.kid, "sig": key.sign(body), **changes}


MESSAGE = json.dumps(envelope(json.dumps(VALID))).encode()


def verdict_of(message: bytes, *, retained: bool = False) -> Accepted | Refused:
    """The verdict of a station that would take any command."""
    context = Context(
        keys={"ops1": KEY},
        station="st1",
        now_ms=NOW,
        clock_ok=True,
        seen=lambda _cmd_id: False,
        allowance=Allowance(PER_S),
        remote_write=True,
    )
    verdict = check(message, retained=retained, context=context)
    if isinstance(verdict, Accepted):
        return verdict
    assert verdict.reason in REASONS
    assert "\n" not in verdict.sentence
    assert KEY.secret.decode() not in repr(verdict)
    json.dumps(vars(verdict), ensure_ascii=False).encode()  # it can be answered
    return verdict


def test_the_command_that_is_damaged_below_is_valid() -> None:
    assert isinstance(verdict_of(MESSAGE), Accepted)


def flip(message: bytes, places: list[int]) -> bytes:
    flipped = bytearray(message)
    for place in places:
        flipped[place // 8 % len(message)] ^= 1 << place % 8
    return bytes(flipped)


def splice(start: int, length: int, filling: bytes) -> bytes:
    return MESSAGE[:start] + filling + MESSAGE[start + length :]


def twice(name: str, value: object, first: bool) -> bytes:
    """The envelope with one of its keys once more, of which a careless reader sees only one."""
    more = f"{json.dumps(name)}: {json.dumps(value)}".encode()
    return b"{" + more + b", " + MESSAGE[1:] if first else MESSAGE[:-1] + b", " + more + b"}"


def edited(fields: dict[str, object]) -> bytes:
    """Another command under the signature of the valid one."""
    return json.dumps({**json.loads(MESSAGE), "body": json.dumps({**VALID, **fields})}).encode()


def reordered(order: list[str]) -> bytes:
    body = json.dumps({name: VALID[name] for name in order})
    return json.dumps({**json.loads(MESSAGE), "body": body}).encode()


places = st.integers(0, 8 * len(MESSAGE) - 1)
offsets = st.integers(0, len(MESSAGE))
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
values = plain | st.lists(plain, max_size=2) | st.dictionaries(st.text(max_size=3), plain, max_size=2)
texts = st.one_of(st.text(max_size=40), values.map(json.dumps))
# Every key but the one that signs, and text that fits no signature.
forged = st.one_of(
    st.builds(lambda body: envelope(body, WRONG), texts),
    st.builds(
        lambda body, sig: envelope(body, sig=sig), texts | st.just(json.dumps(VALID)), st.text(max_size=64)
    ),
    st.builds(lambda kid: envelope(json.dumps(VALID), kid=kid), st.text(max_size=20)).filter(
        lambda made: made["kid"] != "ops1"
    ),
    st.dictionaries(st.sampled_from(["body", "kid", "sig", "x"]), values, max_size=4),
)


@examples(0.4)
@given(
    st.one_of(
        st.binary(max_size=100),
        st.integers(4000, 5000).map(lambda size: MESSAGE[:-1] + bytes(size - len(MESSAGE))),
        values.map(lambda value: json.dumps(value).encode()),
        forged.map(lambda made: json.dumps(made).encode()),
        st.text(alphabet='{}[]":,\\ue0123456789.-+NaInfity truls', max_size=60).map(str.encode),
        st.integers(1, 4000).map(lambda depth: b'{"body":' * (depth // 8) + b"[" * depth),
    ),
    st.booleans(),
)
def test_no_message_without_a_key_passes(message: bytes, retained: bool) -> None:
    assert isinstance(verdict_of(message, retained=retained), Refused)


@examples(0.4)
@given(
    st.one_of(
        st.lists(places, min_size=1, max_size=6, unique=True).map(lambda found: flip(MESSAGE, found)),
        offsets.map(lambda end: MESSAGE[:end]),
        st.builds(splice, offsets, st.integers(0, 40), st.binary(max_size=40)),
        st.builds(
            lambda at, part: MESSAGE[:at] + part + MESSAGE[at:], offsets, st.sampled_from([MESSAGE, b"{", b'"'])
        ),
        st.builds(twice, st.sampled_from(["body", "kid", "sig"]), values, st.booleans()),
        st.builds(edited, st.dictionaries(st.sampled_from(list(VALID)), plain, min_size=1)),
        st.permutations(list(VALID)).map(reordered),
        st.just(json.dumps(envelope(json.dumps(VALID), WRONG)).encode()),
    ).filter(lambda message: message.strip(b" \t\r\n") != MESSAGE and as_sent(message) != as_sent(MESSAGE))
)
def test_no_change_to_a_signed_message_passes(message: bytes) -> None:
    assert isinstance(verdict_of(message), Refused)


def as_sent(message: bytes) -> object:
    """What a plain reader makes of a message: neither space between its parts nor their order is a change."""
    try:
        pairs = json.loads(message, object_pairs_hook=sorted)
    except (ValueError, RecursionError, TypeError):
        return message
    return pairs


@examples(0.2)
@given(
    st.one_of(
        texts,
        values.map(json.dumps),
        st.builds(
            lambda changes: json.dumps({**VALID, **changes}),
            st.dictionaries(st.sampled_from(["minutes", "issued_ms"]), st.integers(-10, 1000) | st.just(NOW))
            | st.dictionaries(st.sampled_from([*VALID, "more"]), values, max_size=2),
        ),
        st.builds(
            lambda action, more: json.dumps({**VALID, "action": action, **more}),
            st.sampled_from([*DEFAULT_ACTIONS, *WRITE_ACTIONS]),
            st.dictionaries(st.sampled_from(["t1", "t2", "why", "paused", "count", "since_seq"]), plain),
        ),
    )
)
def test_a_mistaken_holder_of_a_key_breaks_nothing(body: str) -> None:
    verdict = verdict_of(json.dumps(envelope(body)).encode())
    if isinstance(verdict, Accepted):
        told = verdict.command.model_dump(by_alias=True)
        assert told == json.loads(body)
        assert (told["station"], told["schema"]) == ("st1", "kenpin.command.v1")
