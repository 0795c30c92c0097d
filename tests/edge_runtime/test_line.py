from __future__ import annotations

import queue
import time
from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kenpin.edge_runtime import standstill
from kenpin.edge_runtime.cable import Cable
from kenpin.edge_runtime.counter_gap import CounterGap
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.line import QUEUE, Line, Shot
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.series import SERIES
from kenpin.edge_runtime.site import in_this_process
from kenpin.edge_runtime.source import NO_SETTINGS, Fault, Lull, Settings, Trigger
from kenpin.edge_runtime.station import Station
from kenpin.frame import Frame
from tests.edge_runtime.conftest import Clock

IMAGE = np.zeros((4, 4, 3), np.uint8)


class Camera:
    """Takes a picture of each trigger, unless it is told to leave some out."""

    drawn = False
    waits = False
    live = True
    down_reason = ""
    settings: Settings = NO_SETTINGS

    def __init__(self, name: str = "cam", *, leaves_out: tuple[int, ...] = (), delay_s: float = 0.0) -> None:
        self.camera = name
        self.items: deque[Frame | Fault] = deque()
        self._leaves_out = leaves_out
        self._delay_s = delay_s

    def open(self) -> None:
        pass

    def add(self, trigger_id: int | None, part_id: str = "p") -> None:
        self.items.append(Frame(IMAGE, part_id, self.camera, trigger_id=trigger_id))

    def next(self, deadline_s: float) -> Frame | Fault | Lull:
        while not self.items and time.monotonic() < deadline_s:
            time.sleep(0.002)
        return self.items.popleft() if self.items else Lull.IDLE

    def trigger(self, trigger: Trigger) -> None:
        if trigger.trigger_id not in self._leaves_out:
            time.sleep(self._delay_s)
            self.add(trigger.trigger_id, trigger.part_id)

    def close(self) -> None:
        pass


class Triggers:
    refused = 3
    trouble = ""

    def __init__(self) -> None:
        self.queue: queue.Queue[Trigger] = queue.Queue()

    def wait(self, deadline_s: float) -> Trigger | None:
        try:
            return self.queue.get(timeout=max(0.0, deadline_s - time.monotonic()))
        except queue.Empty:
            return None

    def close(self) -> None:
        pass


def take(line: Line, count: int, within_s: float = 60.0) -> list[Shot]:
    shots: list[Shot] = []
    by_s = time.monotonic() + within_s
    while len(shots) < count and time.monotonic() < by_s:
        shot = line.next(time.monotonic() + 0.05)
        if not isinstance(shot, Lull):
            shots.append(shot)
    return shots


def verdicts(shot: Shot) -> list[str]:
    return ["frame" if isinstance(view, Frame) else view.verdict.value for view in shot.views]


def test_a_gap_in_the_cameras_own_numbers_gives_one_missed_part_each() -> None:
    camera = Camera()
    for number in (3, 4, 7):
        camera.add(number)
    line = Line([camera], None, CounterGap(last=1), wait_s=0.1)
    shots = take(line, 6)
    assert [s.trigger_id for s in shots] == [2, 3, 4, 5, 6, 7]
    assert [verdicts(s) for s in shots] == [["MISSED"], ["frame"], ["frame"], ["MISSED"], ["MISSED"], ["frame"]]
    assert len({s.part_id for s in shots if isinstance(s.views[0], Fault)}) == 3


def test_without_numbers_every_frame_is_a_part_and_none_is_claimed() -> None:
    camera = Camera()
    camera.add(None, "a")
    camera.add(None, "b")
    line = Line([camera], None, CounterGap(), wait_s=0.1)
    assert [s.part_id for s in take(line, 2)] == ["a", "b"]
    assert line.next(time.monotonic() + 0.01) is Lull.IDLE


def at(camera: Camera, number: int | None, seconds: float) -> None:
    """A picture that the camera took so many seconds after the clock's zero."""
    camera.items.append(
        Frame(IMAGE, f"{camera.camera}-{number}", camera.camera, round(seconds * 1e9), trigger_id=number)
    )


def at_one_cable() -> tuple[Camera, Camera, Line]:
    top, side = Camera("top"), Camera("side")
    cable = Cable([side], wait_s=0.05)
    return top, side, Line([top, side], None, CounterGap(), wait_s=0.05, cable=cable)


def same_part(shot: Shot) -> bool:
    """Whether all views of a part are pictures that were taken together, or there are not enough of them."""
    times = [view.captured_ns for view in shot.views if isinstance(view, Frame)]
    return len(times) < 2 or max(times) - min(times) < 10e6


def test_a_camera_at_a_cable_that_was_away_counts_again_after_three_parts_that_agree() -> None:
    top, side, line = at_one_cable()
    for number in range(1, 11):
        at(top, number, number / 10)  # ten parts a second
        if number not in (4, 5):  # the side camera was away, and goes on with its next number
            at(side, number - 2 * (number > 5), number / 10 + 0.004)
    shots = take(line, 10)
    expected = [["frame", "frame"]] * 3 + [["frame", "MISSED"]] * 4 + [["frame", "frame"]] * 3
    assert [verdicts(s) for s in shots] == expected
    assert all(same_part(s) for s in shots)
    reasons = [s.views[1].reason for s in shots[3:7]]  # type: ignore[union-attr]
    assert reasons[0] == "side took its next picture 204 ms after top"
    assert reasons[2] == (
        "side and top do not count the same parts: 4 and 6; 3 parts in a row must agree before they count again"
    )


def test_the_first_camera_at_a_cable_may_be_away_too() -> None:
    top, side, line = at_one_cable()
    for number in range(1, 11):
        at(side, number, number / 10)
        if number != 4:
            at(top, number - (number > 4), number / 10 + 0.004)
    shots = take(line, 9)
    expected = [["frame", "frame"]] * 3 + [["frame", "MISSED"]] * 2 + [["frame", "frame"]] * 4
    assert [verdicts(s) for s in shots] == expected
    assert all(same_part(s) for s in shots)


def test_parts_that_do_not_agree_on_a_new_difference_are_missed() -> None:
    top, side, line = at_one_cable()
    agree = [True, True, False, False, True, False, False, False, False, False, True]
    for number, ahead in enumerate((0, 0, 6, 6, 0, 6, 5, 6, 5, 5, 5), start=1):
        at(top, number, number / 10)
        at(side, number + ahead, number / 10)
    assert [verdicts(s)[1] == "frame" for s in take(line, 11)] == agree


def test_cameras_at_one_cable_that_begin_with_different_parts_never_agree() -> None:
    """Before they did once, pictures that come late by one part look as if they were taken with the next."""
    top, side, line = at_one_cable()
    for number in range(1, 9):
        at(top, number, number / 10)
        at(side, number - 1, number / 10 + 0.004)
    shots = take(line, 8)
    assert [verdicts(s) for s in shots] == [["frame", "MISSED"]] * 8
    assert "start kenpin anew while no part passes" in shots[-1].views[1].reason  # type: ignore[union-attr]


def test_the_first_part_proves_nothing_as_its_line_may_be_fast() -> None:
    top, side, line = at_one_cable()
    for number in range(1, 9):
        at(top, number, number / 40)
        at(side, number, (number + 1) / 40)  # its pictures come late by one part
    assert [verdicts(s)[1] for s in take(line, 8)] == ["frame"] + ["MISSED"] * 7


def test_at_a_fast_line_cameras_at_one_cable_must_agree_better() -> None:
    top, side, line = at_one_cable()
    for number in (1, 3):  # 40 parts a second, of which the station was not told one
        at(top, number, number / 40)
        at(side, number, number / 40 + 0.02)
    shots = take(line, 3)
    assert [verdicts(s) for s in shots] == [["frame", "frame"], ["MISSED"], ["frame", "MISSED"]]


def test_a_fault_at_a_cable_is_that_of_the_part_of_its_time() -> None:
    top, side, line = at_one_cable()
    now_s = time.monotonic()
    for number in (1, 2):
        at(top, number, now_s + number / 10)
    side.items.append(Fault("x", "side", Verdict.MISSED, "incomplete: torn", round((now_s + 0.1) * 1e9)))
    at(side, 2, now_s + 0.2)
    shots = take(line, 2)
    assert [verdicts(s)[1] for s in shots] == ["MISSED", "frame"]
    assert shots[0].views[1].reason == "incomplete: torn"  # type: ignore[union-attr]


def test_without_numbers_a_picture_from_before_the_first_camera_was_away_is_no_view_of_a_part() -> None:
    top, side = Camera("top"), Camera("side")
    line = Line([top, side], None, CounterGap(), wait_s=0.5)
    now_s = time.monotonic()
    at(side, None, now_s - 60)
    at(side, None, now_s - 0.02)
    at(top, None, now_s)
    (shot,) = take(line, 1)
    assert [view.captured_ns for view in shot.views] == [round(now_s * 1e9), round((now_s - 0.02) * 1e9)]


def test_a_trigger_without_its_frame_is_missed_when_its_time_has_run_out() -> None:
    camera, triggers = Camera(leaves_out=(2, 4)), Triggers()
    line = Line([camera], triggers, CounterGap(), wait_s=0.15)
    line.open()
    for number in (1, 2, 3, 4):
        triggers.queue.put(Trigger(number, f"A-{number}"))
    shots = take(line, 4)
    line.close()
    assert [s.part_id for s in shots] == ["A-1", "A-2", "A-3", "A-4"]
    assert [verdicts(s) for s in shots] == [["frame"], ["MISSED"], ["frame"], ["MISSED"]]


def test_all_cameras_of_a_part_come_together_and_a_late_frame_is_not_taken_for_the_next_part() -> None:
    first, second, triggers = Camera("top"), Camera("side", leaves_out=(2, 4)), Triggers()
    line = Line([first, second], triggers, CounterGap(), wait_s=0.15)
    line.open()
    for number in (1, 2, 3, 4):
        triggers.queue.put(Trigger(number))
        time.sleep(0.02)
    second.items.appendleft(Frame(IMAGE, "old", "side", trigger_id=0))
    shots = take(line, 4)
    line.close()
    assert [verdicts(s) for s in shots] == [["frame", "frame"], ["frame", "MISSED"]] * 2
    assert [view.trigger_id for s in shots for view in s.views] == [1, 1, 2, 2, 3, 3, 4, 4]


def test_every_trigger_of_a_line_that_is_too_fast_gets_one_answer(wait_for: Any) -> None:
    camera, triggers = Camera(), Triggers()
    line = Line([camera], triggers, CounterGap(), wait_s=0.2)
    line.open()
    for number in range(1, 51):
        triggers.queue.put(Trigger(number))
    wait_for(lambda: line.waiting == 50, "the burst")
    shots = take(line, 50)
    line.close()
    assert [s.trigger_id for s in shots] == list(range(1, 51))
    missed = [s for s in shots if isinstance(s.views[0], Fault)]
    assert len(missed) == line.overruns == 50 - QUEUE
    assert line.numbers() == {
        'dropped_total{stage="trigger",reason="overrun"}': 50 - QUEUE,
        'dropped_total{stage="trigger",reason="refused"}': 3,
        'dropped_total{stage="trigger",reason="repeated"}': 0,
        "trigger_restarts_total": 0,
    }
    assert {name.partition("{")[0] for name in line.numbers()} <= SERIES.keys()
    assert all(s.views[0].verdict is Verdict.MISSED for s in missed if isinstance(s.views[0], Fault))


def test_parts_that_are_missed_already_do_not_make_the_next_one_missed(wait_for: Any) -> None:
    camera, triggers = Camera(), Triggers()
    line = Line([camera], triggers, CounterGap(), wait_s=5.0)
    line.open()
    for number in range(1, 51):
        triggers.queue.put(Trigger(number))
    wait_for(lambda: line.waiting == 50, "the burst")
    take(line, QUEUE)
    triggers.queue.put(Trigger(51))
    wait_for(lambda: line.waiting == 50 - QUEUE + 1, "one more")
    shots = take(line, 50 - QUEUE + 1)
    line.close()
    assert [s.trigger_id for s in shots if not isinstance(s.views[0], Fault)] == [51]


def test_a_camera_is_heard_while_no_part_comes_and_what_is_left_of_an_old_part_is_dropped() -> None:
    camera, triggers = Camera(), Triggers()
    told = ["the cable is cut"]

    def hear(deadline_s: float) -> Frame | Fault | Lull:
        camera.down_reason = told[0]
        return Camera.next(camera, deadline_s)

    camera.next = hear  # type: ignore[method-assign]
    line = Line([camera], triggers, CounterGap(), wait_s=5.0)
    line.open()
    assert line.next(time.monotonic()) is Lull.IDLE
    assert "the cable is cut" in line.down
    told[0] = ""
    triggers.queue.put(Trigger(1))
    assert [verdicts(s) for s in take(line, 1)] == [["frame"]]
    camera.add(1, "late")
    camera.add(None, "nobody's")
    told[0] = "cut again"
    for _ in range(3):
        assert line.next(time.monotonic()) is Lull.IDLE
    assert not camera.items
    assert "cut again" in line.down
    triggers.queue.put(Trigger(2))
    assert [verdicts(s) for s in take(line, 1)] == [["frame"]]
    line.close()


def test_an_input_that_breaks_is_said_and_heard_again_when_it_is_back(wait_for: Any) -> None:
    camera, triggers = Camera(), Triggers()
    hear, broken = triggers.wait, [True]

    def wait(deadline_s: float) -> Trigger | None:
        if broken[0]:
            raise OSError(19, "No such device")
        return hear(deadline_s)

    triggers.wait = wait  # type: ignore[method-assign]
    line = Line([camera], triggers, CounterGap(), wait_s=5.0)
    line.open()
    wait_for(lambda: "no trigger can be heard: No such device" in line.deaf, "the trouble", 5.0)
    broken[0] = False
    triggers.queue.put(Trigger(1))
    assert [verdicts(s) for s in take(line, 1, within_s=5.0)] == [["frame"]]
    assert line.deaf == ""
    line.close()


def test_a_late_picture_of_a_number_is_not_taken_for_the_part_that_has_it_after_a_restart_of_the_counter() -> (
    None
):
    """A PLC that starts anew counts from 1 again, and its camera may just have hung."""
    camera, triggers = Camera(), Triggers()
    line = Line([camera], triggers, CounterGap(last=7), wait_s=0.1)
    late = time.monotonic_ns()
    for number in (1, 2):
        camera.items.append(Frame(IMAGE, "old", "cam", late, trigger_id=number))
    camera.trigger = lambda _trigger: None  # type: ignore[method-assign]
    line.open()
    for number in (1, 2):
        triggers.queue.put(Trigger(number, f"new-{number}"))
    shots = take(line, 2)
    line.close()
    assert [verdicts(s) for s in shots] == [["MISSED"], ["MISSED"]]


def test_triggers_that_came_while_the_station_stood_still_are_missed_and_no_picture_is_taken_of_them() -> None:
    """Frozen, or on a machine that swaps: other parts stand before the camera by now."""
    camera, triggers = Camera(), Triggers()
    came = deque([1, 2, 3])

    def wait(deadline_s: float) -> Trigger | None:
        time.sleep(0.7 if len(came) == 3 else 0.0)
        return Trigger(came.popleft()) if came else Triggers.wait(triggers, deadline_s)

    triggers.wait = wait  # type: ignore[method-assign]
    line = Line([camera], triggers, CounterGap(), wait_s=0.5)
    line.open()
    shots = take(line, 3)
    line.close()
    assert not camera.items
    assert [verdicts(s) for s in shots] == [["MISSED"]] * 3
    assert all("ms before it was heard" in s.views[0].reason for s in shots if isinstance(s.views[0], Fault))


def test_an_edge_that_is_read_late_takes_no_picture() -> None:
    """Its time is that of the interrupt."""
    camera, triggers = Camera(), Triggers()
    line = Line([camera], triggers, CounterGap(), wait_s=0.5)
    line.open()
    triggers.queue.put(Trigger(1, mono_ns=time.monotonic_ns() - 600_000_000))
    (shot,) = take(line, 1)
    line.close()
    assert verdicts(shot) == ["MISSED"]
    assert not camera.items


def test_what_is_heard_after_a_standstill_counts_from_its_beginning(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standstill, "time", clock)
    watch = standstill.Standstill(0.5)
    begun_s = clock.now_s
    told = []
    for passes_s in (0.4, 0.4, 0.7, 0.1, 0.2):
        clock.now_s += passes_s
        told.append(round(watch.heard_since_ns() / 1e9 - begun_s, 3))
    assert told == [0.4, 0.8, 0.8, 0.8, 1.8]


def test_a_number_asked_twice_is_one_part() -> None:
    camera, triggers = Camera(), Triggers()
    line = Line([camera], triggers, CounterGap(), wait_s=0.1)
    line.open()
    for number in (1, 1, 2):
        triggers.queue.put(Trigger(number))
    shots = take(line, 2)
    assert take(line, 1, within_s=0.3) == []
    line.close()
    assert [s.trigger_id for s in shots] == [1, 2]


@pytest.mark.parametrize(
    ("url", "verdict"), [("aravis:1?trigger=line1", "MISSED"), ("replay:r", "NO_DECISION")]
)
def test_a_station_compares_the_times_of_cameras_that_count_at_a_cable(
    workshop: Any, url: str, verdict: str
) -> None:
    top, side = Camera("top"), Camera("side")
    at(top, 1, 0.1)
    at(side, 1, 0.3)
    config = workshop.config("usb:0")
    source = {"url": url, "views": ("aravis:2?trigger=line1",), "trigger": "camera-line"}
    config = config.model_copy(update={"source": config.source.model_copy(update=source)})
    site = replace(in_this_process(), cameras=lambda *_: [top, side])
    parts: list[Part] = []
    with Station(config, site=site, on_part=parts.append) as station:
        station.run(max_parts=1)
    assert [part.decision.verdict.value for part in parts] == [verdict]


@pytest.mark.parametrize(("trigger", "parts"), [("camera-line", 1), ("", 0)])
def test_the_first_part_after_a_start_is_no_repeat_where_the_camera_counts_from_then_on(
    workshop: Any, trigger: str, parts: int
) -> None:
    source = {"url": "aravis:1?trigger=line1" if trigger else "usb:0", "trigger": trigger}
    config = workshop.config("usb:0")
    config = config.model_copy(update={"source": config.source.model_copy(update=source)})
    done: list[list[Part]] = []
    for limit_s in (60, 60 if parts else 1):
        camera = Camera("top")
        camera.add(1)
        site = replace(in_this_process(), cameras=lambda *_, camera=camera: [camera])
        done.append([])
        with Station(config, site=site, on_part=done[-1].append) as station:
            by_s = time.monotonic() + limit_s
            station.run(max_parts=1, stopping=lambda by_s=by_s: time.monotonic() > by_s)
    assert [len(inspected) for inspected in done] == [1, parts]
