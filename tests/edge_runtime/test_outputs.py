from __future__ import annotations

import json
import os
import resource
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kenpin.config import OutputSection
from kenpin.edge_runtime import gpio_lines, gpio_output, gpio_trigger, result_inbox
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.log_output import LogOutput
from kenpin.edge_runtime.mqtt_output import MqttOutput
from kenpin.edge_runtime.output import Result
from kenpin.edge_runtime.outputs import Outputs, make_outputs
from kenpin.edge_runtime.result_inbox import ResultInbox, wake_publisher
from kenpin.edge_runtime.run_socket import send_in
from kenpin.errors import ConfigError
from tests.edge_runtime.conftest import Clock

OK, NG = Result("a", 1, Verdict.OK), Result("b", 2, Verdict.NG)


class Told:
    """An output that notes what it is told, and fails on demand."""

    def __init__(self, failure: str = "") -> None:
        self.results: list[Result] = []
        self.beats: list[bool] = []
        self.failure = failure

    def beat(self, *, ready: bool) -> None:
        self.beats.append(ready)
        if self.failure:
            raise OSError(self.failure)

    def busy(self, *, busy: bool) -> None:
        self.beat(ready=busy)

    def result(self, result: Result) -> None:
        if self.failure:
            raise OSError(self.failure)
        self.results.append(result)

    def close(self) -> None:
        pass


def test_an_ok_that_one_output_cannot_tell_is_none() -> None:
    first, broken, last = Told(), Told("cable cut"), Told()
    outputs = Outputs([first, broken, last])
    with pytest.raises(OSError, match="cable cut"):
        outputs.result(OK)
    assert last.results == []
    assert outputs.trouble == "the output failed: cable cut"


def test_what_holds_a_part_back_is_told_wherever_it_can_be() -> None:
    broken, last = Told("cable cut"), Told()
    Outputs([broken, last]).result(NG)
    assert last.results == [NG]


def test_an_output_that_works_again_is_no_trouble_any_more(caplog: pytest.LogCaptureFixture) -> None:
    output, other = Told("cable cut"), Told()
    outputs = Outputs([output, other])
    for ready in (True, False, True):
        outputs.beat(ready=ready)
        assert outputs.trouble == "the output failed: cable cut"
    assert output.beats == other.beats == [True, False, True]
    assert caplog.messages == ["Told failed: cable cut"]  # once, and not with each beat
    output.failure = ""
    outputs.beat(ready=True)
    assert outputs.trouble == ""


def test_the_line_goes_on_where_it_cannot_be_told_that_a_part_is_in_hand() -> None:
    broken, other = Told("cable cut"), Told()
    outputs = Outputs([broken, other])
    outputs.busy(busy=True)
    outputs.busy(busy=False)
    assert other.beats == [True, False]
    assert outputs.trouble == "the output failed: cable cut"


def test_the_log_has_a_line_per_result_and_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "outputs.jsonl"
    output = LogOutput(path, max_bytes=300)
    for number in range(6):
        output.result(Result(f"p{number}", number, Verdict.OK if number % 2 else Verdict.NG))
    output.close()
    lines = [json.loads(line) for line in (tmp_path / "outputs.jsonl.1").read_text().splitlines()]
    lines += [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["part_id"], line["pass"]) for line in lines] == [(f"p{k}", bool(k % 2)) for k in range(6)]


def test_only_ok_passes_in_the_log(tmp_path: Path) -> None:
    path = tmp_path / "outputs.jsonl"
    with closing(LogOutput(path)) as output:
        for verdict in Verdict:
            output.result(Result("p", 1, verdict))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {line["verdict"] for line in lines if line["pass"]} == {"OK"}
    assert len(lines) == len(Verdict)


def test_a_log_that_cannot_begin_anew_tells_nothing_and_writes_into_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "outputs.jsonl.1").mkdir()
    output = LogOutput(tmp_path / "outputs.jsonl", max_bytes=10)
    output.result(NG)
    with pytest.raises(OSError, match="Is a directory"):
        output.result(OK)
    with (tmp_path / "station.db").open("wb"):
        with pytest.raises(OSError, match="Is a directory"):
            output.result(OK)
        (tmp_path / "outputs.jsonl.1").rmdir()
        output.result(NG)
    (tmp_path / "outputs.jsonl").unlink()
    output.result(OK)
    output.close()
    assert (tmp_path / "station.db").read_bytes() == b""
    assert json.loads((tmp_path / "outputs.jsonl").read_text())["pass"]


def test_an_ok_of_which_the_log_takes_a_part_only_is_none(tmp_path: Path) -> None:
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(LogOutput(tmp_path / "outputs.jsonl")) as output:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, usual[1]))
        try:
            with pytest.raises(OSError, match="in part only"):
                output.result(OK)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        output.result(NG)
    lines = (tmp_path / "outputs.jsonl").read_text().splitlines()
    assert [json.loads(line)["verdict"] for line in lines] == ["NG"]


def test_on_a_full_disk_of_the_log_the_line_is_not_ready_between_two_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log, other = LogOutput(tmp_path / "outputs.jsonl"), Told()
    outputs = Outputs([log, other])
    full = os.statvfs_result((4096, 4096, 1000, 10, 0, 100, 10, 10, 0, 255))
    with monkeypatch.context() as disk:
        disk.setattr(os, "fstatvfs", lambda _: full)
        for _ in range(2):
            outputs.beat(ready=not outputs.trouble)
    outputs.beat(ready=not outputs.trouble)
    assert other.beats == [True, False, False]
    assert outputs.trouble == "", "there is room again"
    assert caplog.text.count(f"No space left on device: {tmp_path / 'outputs.jsonl'}") == 1
    log.close()


def test_a_log_that_takes_no_line_is_trouble_until_it_takes_the_one_that_it_owes(tmp_path: Path) -> None:
    """A quota or a failing disk leaves room by the file system's word; READY would come back by itself."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    log, other = LogOutput(tmp_path / "outputs.jsonl"), Told()
    outputs = Outputs([log, other])
    outputs.result(OK)
    size = (tmp_path / "outputs.jsonl").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            outputs.result(OK)
        outputs.result(NG)  # as the station takes it back
        for _ in range(3):
            outputs.beat(ready=not outputs.trouble)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    outputs.beat(ready=not outputs.trouble)
    assert other.beats == [False, False, False, False]
    assert outputs.trouble == ""
    outputs.result(OK)
    lines = (tmp_path / "outputs.jsonl").read_text().splitlines()
    assert [json.loads(line)["verdict"] for line in lines] == ["OK", "NG", "OK"]
    log.close()


def test_a_log_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="output log") as error:
        LogOutput(tmp_path / "none" / "outputs.jsonl")
    assert error.value.cure


def test_results_reach_the_publisher_or_nobody(tmp_path: Path) -> None:
    output = MqttOutput(tmp_path)
    outputs = Outputs([output])
    with pytest.raises(OSError, match="takes no result"):
        outputs.result(OK)
    assert outputs.trouble == (
        "the output failed: the publisher's process takes no result (No such file or directory)"
    )
    inbox = ResultInbox(tmp_path)
    output.result(OK)
    wake_publisher(tmp_path)
    assert inbox.receive(1.0) == [OK]
    longest = Result("\U0001f529" * 1024, 2**63 - 1, Verdict.OK)  # a path of 4096 bytes
    output.result(longest)
    assert inbox.receive(1.0) == [longest]
    started_s = time.monotonic()
    assert inbox.receive(0.1) == []
    assert time.monotonic() - started_s >= 0.1
    inbox.close()
    wake_publisher(tmp_path)  # nobody there: no error


def test_where_no_publisher_takes_results_that_is_trouble_also_between_two_parts(tmp_path: Path) -> None:
    outputs = Outputs([MqttOutput(tmp_path)])
    with pytest.raises(OSError, match="No such file"):
        outputs.result(OK)
    outputs.beat(ready=True)
    assert (
        outputs.trouble
        == "the output failed: the publisher's process takes no result (No such file or directory)"
    )
    inbox = ResultInbox(tmp_path)
    outputs.beat(ready=True)
    assert outputs.trouble == ""
    inbox.close()


def test_a_result_that_lay_there_while_the_publisher_stood_still_is_told_no_more(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_inbox, "time", clock)
    inbox, output = ResultInbox(tmp_path), MqttOutput(tmp_path)
    output.result(OK)
    clock.now_s += 0.9
    output.result(Result("new", 8, Verdict.OK))
    clock.now_s += 0.2
    assert [result.part_id for result in inbox.receive(1.0)] == ["new"]
    assert (inbox.late, inbox.malformed) == (1, 0)
    inbox.close()


def test_what_is_no_result_is_counted_and_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inbox = ResultInbox(tmp_path)
    good = {"part_id": "A", "trigger_id": 7, "verdict": "OK", "mono_ns": time.monotonic_ns()}
    malformed = [
        b"",
        b"\xff",
        b"[" * 16000,
        *(json.dumps(content).encode() for content in (None, 7, [], [good], {"part_id": "A"})),
        *(json.dumps({**good, **other}).encode() for other in ({"verdict": "FINE"}, {"verdict": []})),
        *(json.dumps({**good, **other}).encode() for other in ({"part_id": 1}, {"trigger_id": "7"})),
        json.dumps({**good, "mono_ns": "7"}).encode(),
        json.dumps({**good, "part_id": "A" * 17000}).encode(),  # more than is read
    ]
    for body in malformed:
        send_in(tmp_path, "publisher.sock", body)
        MqttOutput(tmp_path).result(OK)
        assert inbox.receive(1.0) == [OK]
    assert inbox.malformed == len(malformed)
    assert caplog.text.count("what is no result") == 1
    inbox.close()


class Request:
    """What gpiod hands out."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.levels: list[tuple[int, int]] = []
        self.events: list[Any] = []
        self.released = False

    def set_value(self, line: int, value: int) -> None:
        self.levels.append((line, value))

    def wait_edge_events(self, timeout: float) -> bool:
        return bool(self.events)

    def read_edge_events(self, count: int) -> list[Any]:
        return [self.events.pop(0) for _ in range(count)]

    def release(self) -> None:
        self.released = True


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """gpiod without a chip: there is none here."""
    made: list[Request] = []

    def request_lines(chip: str, *, consumer: str, config: Any) -> Request:
        if chip != "/dev/gpiochip0":
            raise FileNotFoundError(2, "No such file or directory")
        made.append(Request(config))
        return made[-1]

    line = SimpleNamespace(
        Value=SimpleNamespace(ACTIVE=1, INACTIVE=0),
        Direction=SimpleNamespace(OUTPUT="output"),
        Edge=SimpleNamespace(RISING="rising"),
    )
    gpiod = SimpleNamespace(line=line, LineSettings=lambda **given: given, request_lines=request_lines)
    for module in (gpio_lines, gpio_output, gpio_trigger):
        monkeypatch.setattr(module, "load_gpiod", lambda: gpiod)
    return made


def test_gpio_toggles_ready_and_valid_and_sets_pass_first(requests: list[Request]) -> None:
    output = gpio_output.GpioOutput("gpiochip0/4,17,27,22")
    (request,) = requests
    output.beat(ready=True)
    output.beat(ready=True)
    output.beat(ready=False)
    output.busy(busy=True)
    output.result(OK)
    output.result(NG)
    output.close()
    ready, busy, valid, passes = 4, 17, 27, 22
    assert request.levels[:4] == [(ready, 1), (ready, 0), (ready, 0), (busy, 1)]
    assert request.levels[4:8] == [(passes, 1), (valid, 1), (passes, 0), (valid, 0)]
    assert request.levels[8:] == [(passes, 0), (ready, 0), (busy, 0), (valid, 0)]
    assert request.released


@pytest.mark.parametrize("verdict", [v for v in Verdict if v is not Verdict.OK])
def test_only_ok_passes_by_gpio(requests: list[Request], verdict: Verdict) -> None:
    output = gpio_output.GpioOutput("gpiochip0/4,17,27,22")
    output.result(OK)
    output.result(Result("b", 2, verdict))
    assert requests[0].levels == [(22, 1), (27, 1), (22, 0), (27, 0)]


def test_gpio_edges_are_triggers_with_the_kernels_number_and_time(requests: list[Request]) -> None:
    trigger = gpio_trigger.GpioTrigger("gpiochip0/18")
    now_ns = time.monotonic_ns()
    requests[0].events.append(SimpleNamespace(line_seqno=7, timestamp_ns=now_ns))
    found = trigger.wait(time.monotonic() + 1)
    assert found is not None
    assert (found.trigger_id, found.mono_ns) == (7, now_ns)
    assert trigger.wait(time.monotonic()) is None


@pytest.mark.parametrize("lines", ["gpiochip0/4,17", "gpiochip0/4,4,5,6", "4,5,6,7", "gpiochip0/a,b,c,d"])
def test_wrong_gpio_lines_are_said(requests: list[Request], lines: str) -> None:
    with pytest.raises(ConfigError, match="does not name 4 GPIO lines"):
        gpio_output.GpioOutput(lines)


def test_a_chip_that_is_not_there_is_said(requests: list[Request]) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        gpio_output.GpioOutput("gpiochip9/4,17,27,22")


def test_what_moves_the_line_hears_of_an_ok_last(workshop: Any, requests: list[Request]) -> None:
    """The log's disk is full: its part is no good part, and no wire may say that it is one."""
    output = {"gpio": "gpiochip0/4,17,27,22", "log": "/dev/full"}
    config = workshop.config("synthetic:board").model_copy(update={"output": OutputSection(**output)})
    last = Told()
    with closing(make_outputs(config, workshop.root, last)) as outputs:
        with pytest.raises(OSError, match="No space left"):
            outputs.result(OK)
        assert requests[0].levels == []
        assert last.results == []
        outputs.result(NG)
        assert requests[0].levels
        assert last.results == [NG]
