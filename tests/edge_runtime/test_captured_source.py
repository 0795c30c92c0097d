"""Between a capture process and the station nothing is lost without a word."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from kenpin.edge_runtime import capture_wire, captured_source
from kenpin.edge_runtime.capture import Capture
from kenpin.edge_runtime.capture_link import SLOTS, WAITING, CaptureLink
from kenpin.edge_runtime.captured_source import CapturedSource
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.pulse import Pulse
from kenpin.edge_runtime.roles import CAPTURE_S
from kenpin.edge_runtime.run_socket import connect_in
from kenpin.edge_runtime.source import NO_SETTINGS, Fault, Lull, Trigger
from kenpin.edge_runtime.sources import make_source
from kenpin.errors import SourceError
from kenpin.frame import Frame
from tests.edge_runtime.conftest import grey_png
from tests.edge_runtime.taken import take

Ends: TypeAlias = tuple[Capture, CapturedSource]
WAIT_S = 30.0  # longest time from a trigger to its frame
MANY = 3000  # far more than what fits into the socket
UNSENT = 'dropped_total{stage="capture",reason="unsent",camera="cam"}'


class Told:
    """A camera that delivers what it is told to, and answers triggers as it is told to."""

    camera = "cam"
    drawn = False
    waits = False
    live = False
    down_reason = ""
    settings = NO_SETTINGS

    def __init__(self, answer: Callable[[Trigger], Frame | Fault | None] = lambda _: None) -> None:
        self.items: queue.SimpleQueue[Frame | Fault] = queue.SimpleQueue()
        self.answer = answer
        self.error: str = ""

    def open(self) -> None:
        if self.error:
            raise SourceError(self.error, where="cam", cure="none")

    def close(self) -> None: ...

    def trigger(self, trigger: Trigger) -> None:
        item = self.answer(trigger)
        if item is not None:
            self.items.put(item)

    def next(self, deadline_s: float) -> Frame | Fault | Lull:
        try:
            return self.items.get(timeout=max(0.0, deadline_s - time.monotonic()))
        except queue.Empty:
            return Lull.IDLE


def frame(number: int | None = None) -> Frame:
    return Frame(np.zeros((8, 8, 3), np.uint8), "part", "cam", frame_id=1, trigger_id=number)


def fault(number: int | None = None) -> Fault:
    return Fault(f"part-{number}", "cam", Verdict.MISSED, "it was dark", trigger_id=number)


@contextmanager
def running(source: Any, run: Path, *, latest: bool = False) -> Iterator[Capture]:
    made = Capture(source, run, 0, latest=latest, wait_s=WAIT_S)
    stop = threading.Event()
    thread = threading.Thread(target=made.run, args=(stop.is_set,))
    thread.start()
    try:
        yield made
    finally:
        stop.set()
        thread.join()


@contextmanager
def both_ends(source: Any, run: Path) -> Iterator[Ends]:
    with running(source, run) as made:
        station = CapturedSource(run, 0, source)
        station.open()
        try:
            yield made, station
        finally:
            station.close()


@pytest.fixture
def joined(tmp_path: Path) -> Callable[[Any], AbstractContextManager[Ends]]:
    (tmp_path / "run").mkdir()
    return lambda source: both_ends(source, tmp_path / "run")


def test_each_unreadable_picture_of_a_folder_is_told(tmp_path: Path, joined: Any) -> None:
    (tmp_path / "pictures").mkdir()
    for n in range(MANY):
        (tmp_path / f"pictures/{n:05d}.png").write_bytes(b"no picture")
    with joined(make_source(f"folder:{tmp_path}/pictures")) as (made, station):
        time.sleep(0.3)  # the station is slower than the folder
        told = take(station, MANY + 1)
        assert [item.part_id for item in told] == [f"{n:05d}.png" for n in range(MANY)]
        assert made.link.unsent == 0


def test_pictures_of_a_camera_that_the_station_does_not_know_are_not_judged(tmp_path: Path) -> None:
    """As after a change of the configuration, when only the process of the camera was started anew."""
    (tmp_path / "run").mkdir()
    source = Told()
    with running(source, tmp_path / "run"):
        station = CapturedSource(tmp_path / "run", 0, source)
        station.camera = "other"
        station.open()
        source.items.put(frame())
        (item,) = take(station, 1)
        assert isinstance(item, Fault)
        assert item.verdict is Verdict.NO_DECISION
        assert "reads cam" in item.reason
        assert station.next(time.monotonic() + 3 * capture_wire.BEAT_S) is Lull.IDLE
        assert "reads cam" in station.down_reason
        station.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_capture_that_hears_the_station_no_more_ends_so_that_another_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_end: object, link: socket.socket) -> None:
        link.close()
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(CaptureLink, "_take_in", broken)
    source, by_s = Told(), time.monotonic() + 20
    capture = Capture(source, tmp_path, 0, latest=False)
    station = connect_in(tmp_path, capture_wire.socket_name(0), socket.SOCK_SEQPACKET)
    with station, pytest.raises(SourceError, match="the station cannot be heard"):
        capture.run(lambda: time.monotonic() > by_s)


def test_faults_that_the_station_has_no_time_for_wait_and_come_before_the_next_picture(joined: Any) -> None:
    source = Told()
    with joined(source) as (made, station):
        for number in range(WAITING):
            source.items.put(fault(number))
        source.items.put(frame())
        time.sleep(0.5)
        told = take(station, WAITING + 1)
        assert [item.trigger_id for item in told] == [*range(WAITING), None]
        assert isinstance(told[-1], Frame) or "overrun" in told[-1].reason
        assert made.link.unsent == 0


def test_no_more_faults_wait_than_the_bound_and_the_others_are_counted(joined: Any, wait_for: Any) -> None:
    source = Told()
    with joined(source) as (made, station):
        for number in range(MANY):
            source.items.put(fault(number))
        wait_for(lambda: made.counts.faults == MANY, "all faults")
        assert len(made.link._waiting) == WAITING
        kept = MANY - made.link.unsent
        assert made._vitals().numbers[UNSENT] == MANY - kept > 0
        assert [item.trigger_id for item in take(station, kept)] == list(range(kept))


def test_what_waits_for_a_station_that_has_gone_is_not_told_to_the_next_one(joined: Any, wait_for: Any) -> None:
    source = Told()
    with joined(source) as (made, station):
        for number in range(WAITING):
            source.items.put(fault(number))
        wait_for(lambda: made.counts.faults == WAITING, "all faults")
        waiting = len(made.link._waiting)
        assert waiting > 0
        station.close()
        wait_for(lambda: made.link.unsent == waiting, "the count")
        source.items.put(fault(7))
        wait_for(lambda: made.link.unsent == waiting + 1, "one that nobody hears")
        wait_for(lambda: station.next(time.monotonic()) is Lull.IDLE and made.link.is_up, "a new link")
        source.items.put(fault(8))
        assert [item.trigger_id for item in take(station, 1)] == [8]


def refuse(_: Trigger) -> Frame:
    raise SourceError("too many triggers wait", where="cam", cure="none")


def test_a_trigger_that_the_camera_refuses_is_answered(joined: Any) -> None:
    with joined(Told(refuse)) as (_, station):
        station.trigger(Trigger(7, "A-7"))
        (item,) = take(station, 1)
        assert isinstance(item, Fault)
        assert (item.part_id, item.trigger_id, item.verdict) == ("A-7", 7, Verdict.MISSED)
        assert item.reason == "the camera was not triggered: too many triggers wait"
        assert not station._asked


def test_a_trigger_that_comes_to_the_camera_too_late_takes_no_picture(joined: Any) -> None:
    """Another part stands before it by then."""
    with joined(Told(lambda t: frame(t.trigger_id))) as (_, station):
        station.trigger(Trigger(7, mono_ns=time.monotonic_ns() - round(WAIT_S * 1e9)))
        (item,) = take(station, 1)
        assert isinstance(item, Fault)
        assert item.reason.startswith("the camera was not triggered: late")


def test_a_refused_trigger_says_nothing_of_those_before_it(joined: Any) -> None:
    with joined(Told(lambda t: refuse(t) if t.trigger_id == 3 else None)) as (_, station):
        for number in range(4):
            station.trigger(Trigger(number))
        assert [item.trigger_id for item in take(station, 1)] == [3]
        assert list(station._asked) == [0, 1, 2]


def test_a_trigger_of_a_camera_that_does_not_open_is_answered_at_once(joined: Any) -> None:
    source = Told()
    source.error = "the cable is cut"
    with joined(source) as (_, station):
        station.trigger(Trigger(1))
        (item,) = take(station, 1)
        assert isinstance(item, Fault)
        assert item.reason == "the camera was not triggered: the cable is cut"


@pytest.mark.parametrize("item", [frame, fault])
def test_a_later_answer_misses_the_parts_whose_answer_was_lost(joined: Any, item: Any) -> None:
    source = Told(lambda t: item(t.trigger_id) if t.trigger_id % 5 == 4 else None)
    with joined(source) as (_, station):
        for number in range(10):
            station.trigger(Trigger(number))
        told = take(station, 10)
        assert [one.trigger_id for one in told] == list(range(10))
        lost = [one for one in told if isinstance(one, Fault) and "no answer" in one.reason]
        assert [one.trigger_id for one in lost] == [0, 1, 2, 3, 5, 6, 7, 8]
        assert not station._asked


def test_a_camera_that_never_answers_is_asked_only_so_often(joined: Any, wait_for: Any) -> None:
    bound = captured_source._TRIGGERS
    asked: list[int] = []
    with joined(Told(lambda t: asked.append(t.trigger_id))) as (_, station):
        for number in range(bound):
            station.trigger(Trigger(number))
            if number % 64 == 63:
                wait_for(lambda number=number: len(asked) > number, "the triggers")
        station.trigger(Trigger(bound))
        (item,) = take(station, 1)
        assert isinstance(item, Fault)
        assert item.trigger_id == bound
        assert item.reason == f"cam was not asked: {bound} triggers have no answer yet"
        assert len(station._asked) == bound == WAITING  # else there was no room for the answers


def test_a_trigger_without_a_process_is_missed_with_a_reason(tmp_path: Path) -> None:
    station = CapturedSource(tmp_path, 0, Told())  # type: ignore[arg-type]
    station.trigger(Trigger(1))
    station.down_reason = ""
    station.trigger(Trigger(2))
    first, second = take(station, 2)
    assert isinstance(first, Fault)
    assert isinstance(second, Fault)
    assert first.reason == "cam was not asked: its process has not answered yet"
    assert second.reason == "cam was not asked: its process is away"


def test_a_picture_that_is_given_back_twice_is_one_free_place(tmp_path: Path, wait_for: Any) -> None:
    source = Told()
    with running(source, tmp_path) as made:
        wait_for(lambda: made._is_open, "the camera")
        with connect_in(tmp_path, capture_wire.socket_name(0), socket.SOCK_SEQPACKET) as link:
            source.items.put(frame())
            wait_for(lambda: len(made.link._free) == SLOTS - 1, "a picture")
            for _ in range(3):
                link.send(capture_wire.pack("release", slot=0))
            link.send(capture_wire.pack("release", slot=SLOTS))
            wait_for(lambda: len(made.link._free) == SLOTS, "the place")
            source.items.put(frame())
            wait_for(lambda: made.counts.frames == 2 and len(made.link._free) == SLOTS - 1, "another picture")
            assert len(set(made.link._free)) == len(made.link._free)


@pytest.mark.parametrize("end", ["a station that does not read", "the next station", "a larger picture"])
def test_each_newest_picture_that_is_dropped_is_counted(tmp_path: Path, wait_for: Any, end: str) -> None:
    source, name = Told(), capture_wire.socket_name(0)
    with (
        running(source, tmp_path, latest=True) as made,
        connect_in(tmp_path, name, socket.SOCK_SEQPACKET) as link,
        contextlib.ExitStack() as later,
    ):
        wait_for(lambda: made._is_open and made.link.is_up, "both ends")
        for _ in range(2):
            source.items.put(frame())
        wait_for(lambda: made.link._newest is not None, "one that waits")
        assert made.link.skipped == 0
        if end == "a station that does not read":
            while made.link.send(capture_wire.pack("end")):
                pass
            link.send(capture_wire.pack("release", slot=0))
        elif end == "the next station":
            later.enter_context(connect_in(tmp_path, name, socket.SOCK_SEQPACKET))
        else:
            source.items.put(replace(frame(), image=np.zeros((80, 80, 3), np.uint8)))
        wait_for(lambda: made.link.skipped == 1, "the count")
        assert made.link._newest is None


def test_a_picture_of_a_folder_waits_for_the_next_station(tmp_path: Path, joined: Any, wait_for: Any) -> None:
    (tmp_path / "pictures").mkdir()
    for n in range(SLOTS + 4):
        (tmp_path / f"pictures/{n:02d}.png").write_bytes(grey_png(n))
    with joined(make_source(f"folder:{tmp_path}/pictures")) as (made, station):
        wait_for(lambda: made.counts.frames == SLOTS + 1, "a full ring")
        station.close()
        time.sleep(3 * capture_wire.BEAT_S)
        assert made.counts.frames == SLOTS + 1
        station.open()
        assert take(station, 1)[0].part_id == f"{SLOTS:02d}.png"


def test_a_picture_of_a_line_waits_for_no_station(tmp_path: Path, joined: Any, wait_for: Any) -> None:
    source = Told()
    with joined(source) as (made, station):
        station.close()
        wait_for(lambda: not made.link.is_up, "the end of the link")
        for _ in range(3):
            source.items.put(frame())
        wait_for(lambda: made.counts.frames == 3, "the pictures")
        assert made.counts.ring_full == 0


@pytest.fixture
def silent_peer() -> Iterator[int]:
    """The port of a device that accepts every connection and says nothing."""
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    accepted.append(server.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    for link in accepted:
        link.close()


def test_a_network_camera_that_is_silent_neither_looks_dead_nor_hides_why(
    joined: Any, silent_peer: int, wait_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks: list[int] = []
    tick = Pulse.tick
    monkeypatch.setattr(Pulse, "tick", lambda self: (ticks.append(1), tick(self)))
    reason, round_s = "the camera does not open", 0.05
    with joined(make_source(f"rtsp://127.0.0.1:{silent_peer}/x")) as (made, station):
        wait_for(
            lambda: station.next(time.monotonic() + round_s) and station.down_reason == reason, "the reason"
        )
        seen = Counter[int]()  # rounds, of which a machine that is busy makes fewer, after so many ticks
        while seen.total() * round_s < 8:
            assert station.next(time.monotonic() + round_s) is Lull.IDLE
            assert station.down_reason == reason
            seen[len(ticks)] += 1
        assert max(seen.values()) * round_s < CAPTURE_S - 1.5
        assert len(seen) > 20
        assert not made._is_open
