"""An event as one line for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kenpin.errors import printable
from kenpin.events import AlarmEvent, Anomaly, Audit, PartResult, Reply

_REPLY = Reply.topic.partition("{")[0]


def event_line(topic: str, event: Mapping[str, Any]) -> str:
    """Number, time, topic, and what a person wants to know of it.

    Args:
        topic: Below the station's prefix, `event/alarm` for example.
        event: Its payload.
    """
    name = topic.removeprefix("event/")
    say = _KINDS.get(topic, _say_reply if topic.startswith(_REPLY) else _say_nothing)
    test = "  (test)" if event.get("test") else ""
    said = printable(say(event)).replace("\n", " ")
    return f"{event['seq']:>8}  {event['ts']}  {name:<8} {said}{test}".rstrip()


def _say_part(event: Mapping[str, Any]) -> str:
    score = f"score {event['score']:.4g} (threshold {event['threshold']:.4g})"
    return f"{event['verdict']:<11} {event['part_id']}  {event.get('reason') or score}"


def _say_alarm(event: Mapping[str, Any]) -> str:
    who = f" by {event['acked_by']}" if event["transition"] == "ack" else ""
    return f"{event['transition']}{who}: {event['alarm']} is {event['state']}. {event['message']}"


def _say_audit(event: Mapping[str, Any]) -> str:
    if event["kind"] == "gap":
        numbers = f"{event['gap_first_seq']} to {event['gap_last_seq']}"
        return f"{event['gap_count']} of {event['subject']} thrown away, within {numbers}: {event['reason']}"
    change = f": {event['old'] or 'nothing'} -> {event['new']}" if event["old"] or event["new"] else ""
    reason = f" ({event['reason']})" if event["reason"] else ""
    return f"{event['kind']} {event['subject']} by {event['actor']}{change}{reason}"


def _say_reply(event: Mapping[str, Any]) -> str:
    return "done" if event["ok"] else f"refused: {event['reason']} {event['message']}".rstrip()


def _say_nothing(_event: Mapping[str, Any]) -> str:
    return ""


_KINDS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    Anomaly.topic: _say_part,
    PartResult.topic: _say_part,
    AlarmEvent.topic: _say_alarm,
    Audit.topic: _say_audit,
}
