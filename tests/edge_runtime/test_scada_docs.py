"""What docs/scada/ promises is what a station publishes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeAlias

from kenpin.edge_runtime.alarm_catalogue import CATALOGUE
from kenpin.edge_runtime.command_action import DEFAULT_ACTIONS, WRITE_ACTIONS
from kenpin.events import PAYLOADS, AlarmEvent, AlarmFields, Anomaly, Kpi, PartResult, Payload, Status

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCS = Path(__file__).parents[2] / "docs/scada"
Node: TypeAlias = dict[str, Any]


def keys(*models: type[Payload]) -> set[str]:
    return {field.alias or name for model in models for name, field in model.model_fields.items()}


def topics_of(pattern: str) -> list[type[Payload]]:
    """The payloads at a topic filter with five levels above."""
    below = pattern.removeprefix("+/+/+/+/+/").replace("+", "[^/]+")
    return [model for model in PAYLOADS if re.fullmatch(below, re.sub(r"\{\w+\}", "x", model.topic))]


def test_the_generated_files_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/scada_docs.py", "--check"],
        cwd=DOCS.parents[1],
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode() + "run: python scripts/scada_docs.py"


def test_the_tables_know_every_topic_field_and_alarm() -> None:
    fields, topics = (DOCS / "fields.md").read_text(), (DOCS / "topics.md").read_text()
    for model in PAYLOADS:
        shown = re.sub(r"\{(\w+)\}", r"<\1>", model.topic)
        assert f"| `{shown}` |" in topics
        section = fields.split(f"## `{shown}`\n")[1].split("\n## ")[0]
        told = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
        assert told == keys(model) - keys(Payload)
    alarms = re.findall(r"^\| `(\w+)` \|", (DOCS / "alarms.md").read_text(), re.MULTILINE)
    assert sorted(alarms) == sorted(alarm.key for alarm in CATALOGUE)


def test_units_of_the_field_table() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]*?) \|", (DOCS / "fields.md").read_text(), re.MULTILINE)
    units = dict(rows)
    assert units["infer_ms_p99"] == "ms"
    assert units["ts_ms"] == units["raised_ms"] == "ms since 1970, UTC"
    assert (units["roi_x_px"], units["area_mm2"], units["power_w"]) == ("px", "mm2", "W")
    assert (units["outbox_bytes"], units["outbox_oldest_s"], units["gpu_temp_c"]) == ("B", "s", "degC")


def test_every_tag_of_ignition_refers_to_a_field_that_is_published() -> None:
    station = json.loads((DOCS / "ignition-tags.json").read_text())
    assert station["tagType"] == "UdtType"
    paths = []
    for folder in station["tags"]:
        for tag in folder["tags"]:
            path = tag["sourceTagPath"]["binding"].removeprefix("{source}/")
            topic, _, field = path.rpartition("/")
            (model,) = topics_of(topic.replace(topic.partition("/")[2] or "-", "x"))
            assert field in keys(model), path
            paths.append(path)
    assert len(set(paths)) == len(paths)
    alarms = [
        alarm["name"] for folder in station["tags"] for tag in folder["tags"] for alarm in tag.get("alarms", [])
    ]
    assert sorted(alarms) == sorted(alarm.key for alarm in CATALOGUE)


def test_the_flow_is_wired_and_subscribes_to_what_is_numbered() -> None:
    flow: list[Node] = json.loads((DOCS / "node-red-flow.json").read_text())
    nodes = {node["id"]: node for node in flow}
    assert len(nodes) == len(flow)
    for node in flow:
        assert node["type"] in ("tab", "mqtt-broker", "mqtt in", "mqtt out", "function", "inject", "debug")
        assert all(to in nodes for output in node.get("wires", []) for to in output)
        assert node.get("broker", "kenpin-broker") in (*nodes, "localhost")
    heard = {n["topic"] for n in flow if n["type"] == "mqtt in" and n["wires"] == [["kenpin-once"]]}
    assert heard == {"+/+/+/+/+/event/+", "+/+/+/+/+/reply/+"}
    assert all(n["qos"] == "1" for n in flow if n["type"] == "mqtt in")
    assert nodes["kenpin-command"]["retain"] == "false"
    assert not nodes["kenpin-broker"]["cleansession"]


def test_the_telegraf_configuration_names_fields_that_are_there() -> None:
    inputs = tomllib.loads((DOCS / "telegraf.conf").read_text())["inputs"]["mqtt_consumer"]
    assert len({one["client_id"] for one in inputs}) == len(inputs)
    for one in inputs:
        (parser,) = one["json_v2"][0]["object"]
        for topic in one["topics"]:
            (model,) = topics_of(topic)
            known = keys(model)
            assert {parser["timestamp_key"], *parser["excluded_keys"]} <= known
            assert set(parser["tags"]) <= known | keys(Anomaly, PartResult)
            assert {"station", "test"} <= set(parser["tags"])


def test_the_opc_ua_tables_name_fields_and_commands_that_are_there() -> None:
    page = (DOCS / "opc-ua.md").read_text()
    alarms, rest = page.split("| method | command |")
    methods, vision = rest.split("## Machine vision")
    vision, monitoring = vision.split("## Condition monitoring")
    states, results = vision.split("| ResultDataType |")

    def named(text: str) -> set[str]:
        rows = [line.split("|")[2] for line in text.splitlines() if line.startswith("| ")]
        return {word for cell in rows for word in re.findall(r"`(\w+)`", cell)}

    assert named(alarms.split("| OPC UA |")[1]) <= keys(AlarmEvent)
    assert named(methods) <= set(DEFAULT_ACTIONS) | set(WRITE_ACTIONS)
    known_states = set(Status.model_json_schema()["properties"]["state"]["enum"])
    assert named(states.split("|---|---|")[1]) == known_states
    assert named(results.split("|---|---|---|")[1]) <= keys(PartResult)
    assert named(monitoring.split("|---|---|")[1]) <= keys(Kpi)
    assert {"active", "acked", "shelved", "severity"} <= keys(AlarmFields)


def test_the_example_of_the_subscriber_is_python() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "README.md").read_text(), re.DOTALL)
    compile(code, "README.md", "exec")
    imported = "\n".join(line for line in code.splitlines() if line.startswith("from "))
    exec(imported, {})
