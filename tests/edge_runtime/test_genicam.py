from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kenpin.edge_runtime.block_numbers import BlockNumbers
from kenpin.edge_runtime.camera_time import CameraTime
from kenpin.edge_runtime.capture import Capture
from kenpin.edge_runtime.captured_source import CapturedSource
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.genicam_camera import Block
from kenpin.edge_runtime.genicam_settings import Opened, Wish, set_up
from kenpin.edge_runtime.genicam_source import _AWAY_S, GenicamSource
from kenpin.edge_runtime.pixel_format import PIXEL_FORMATS, Layout, code_of, to_bgr
from kenpin.edge_runtime.source import Fault, Lull, SourceUrl, Trigger
from kenpin.errors import ConfigError, SourceError
from kenpin.frame import Frame
from tests.edge_runtime.conftest import Clock
from tests.edge_runtime.taken import take

MONO8 = 0x01080001
LAYOUT = Layout(MONO8, 4, 6)


def block(block_id: int, **changes: Any) -> Block:
    data = np.full(24, block_id % 256, np.uint8)
    return replace(Block(block_id, block_id * 1_000_000, LAYOUT, data), **changes)


class ScriptedCamera:
    """A camera whose blocks the test writes."""

    name = "cam"
    where = "scripted"

    def __init__(self) -> None:
        self.blocks: queue.Queue[Block] = queue.Queue()
        self.opened = Opened({"exposure_us": 5000.0}, LAYOUT, 0.01)
        self.answers = threading.Event()
        self.answers.set()
        self.refusal = ""
        self.fired = 0
        self.opens = 0
        self.on_fire: Callable[[], None] = lambda: None

    def open(self, wish: Wish) -> Opened:
        self.opens += 1
        return self.opened

    def grab(self, wait_s: float) -> Block | None:
        try:
            return self.blocks.get(timeout=wait_s) if wait_s else self.blocks.get_nowait()
        except queue.Empty:
            return None

    def fire(self) -> None:
        self.fired += 1
        self.on_fire()

    def probe(self) -> None:
        if not self.answers.wait(10):
            raise SourceError("timeout")
        if self.refusal:
            raise SourceError(self.refusal)

    def close(self) -> None:
        pass


@pytest.fixture
def camera() -> ScriptedCamera:
    return ScriptedCamera()


@pytest.fixture
def opened(camera: ScriptedCamera, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], GenicamSource]]:
    """Opens the source; only tests of a lost camera lose one, however slow the machine is."""
    monkeypatch.setattr(f"{GenicamSource.__module__}.LOST_S", 60.0)
    sources: list[GenicamSource] = []

    def open_source(trigger: str) -> GenicamSource:
        sources.append(GenicamSource(camera, Wish(trigger)))
        sources[-1].open()
        return sources[-1]

    yield open_source
    camera.answers.set()
    for source in sources:
        source.close()


@pytest.fixture
def impatient(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{GenicamSource.__module__}.LOST_S", 0.4)


def wish(query: str) -> Wish:
    options = dict(pair.split("=") for pair in query.split("&"))
    return Wish.from_url(SourceUrl(f"aravis:x?{query}", "aravis", "x", options))


# Pixel formats


@pytest.mark.parametrize(
    ("name", "corner"), [("BayerRG8", (1, 1)), ("BayerGR8", (1, 0)), ("BayerGB8", (0, 1)), ("BayerBG8", (0, 0))]
)
def test_a_bayer_pattern_gives_the_colour_that_was_seen(name: str, corner: tuple[int, int]) -> None:
    pattern = np.full((12, 16), 60, np.uint8)  # green
    row, column = corner
    pattern[row::2, column::2] = 20  # blue: diagonally beside red
    pattern[1 - row :: 2, 1 - column :: 2] = 200
    code = code_of(name)
    assert code is not None
    image = to_bgr(pattern.reshape(-1), Layout(code, 12, 16))
    assert image[6, 8].tolist() == [20, 60, 200]


@pytest.mark.parametrize(
    ("name", "bgr"), [("Mono8", [1, 1, 1]), ("RGB8Packed", [3, 2, 1]), ("BGR8", [1, 2, 3])]
)
def test_other_formats_become_bgr_without_the_padding_of_their_rows(name: str, bgr: list[int]) -> None:
    code = code_of(name)
    assert code is not None
    channels = 1 if name == "Mono8" else 3
    rows = np.full((4, 6 * channels + 2), 255, np.uint8)
    rows[:, : 6 * channels] = np.tile([1, 2, 3][:channels], 6)
    image = to_bgr(rows.reshape(-1), Layout(code, 4, 6), padding=2)
    assert image.shape == (4, 6, 3)
    assert (image == bgr).all()


def test_a_picture_is_a_copy_and_never_of_fewer_bytes_than_its_layout_says() -> None:
    data = np.zeros(72, np.uint8)
    layout = Layout(code_of("BGR8") or 0, 4, 6)
    image = to_bgr(data, layout)
    data[:] = 9
    assert image.max() == 0
    with pytest.raises(ValueError, match="71 bytes of 72"):
        to_bgr(data[:71], layout)


# Block ids


def test_block_ids_of_16_bits_rise_on_after_65535() -> None:
    numbers = BlockNumbers()
    assert [numbers.take(k) for k in (65534, 65535, 1, 3)] == [65534, 65535, 65536, 65538]
    assert numbers.left_out == 1
    numbers = BlockNumbers()
    assert [numbers.take(k) for k in (65534, 2)] == [65534, 65537]
    assert numbers.left_out == 2


def test_block_ids_of_64_bits_go_over_65535_and_begin_with_0() -> None:
    assert [BlockNumbers().take(0)] == [0]
    numbers = BlockNumbers()
    assert [numbers.take(k) for k in (65535, 65536, 65539)] == [65535, 65536, 65539]
    assert numbers.left_out == 2
    assert numbers.take(600) == 65540  # set anew, not started over after 65535
    assert numbers.left_out == 2


def test_a_block_that_comes_late_or_again_is_no_second_part() -> None:
    numbers = BlockNumbers()
    assert [numbers.take(k) for k in (65535, 2, 1, 2, 0, 3)] == [65535, 65537, None, None, None, 65538]
    assert (numbers.left_out, numbers.late) == (1, 2)


def test_a_camera_that_was_opened_again_goes_on_with_the_next_number() -> None:
    numbers = BlockNumbers()
    numbers.take(500)
    numbers.start_over()
    assert [numbers.take(k) for k in (1, 2)] == [501, 502]
    assert numbers.left_out == 0


@given(start=st.integers(65000, 65535), steps=st.lists(st.integers(1, 50), max_size=60))
def test_every_block_that_is_left_out_is_counted(start: int, steps: list[int]) -> None:
    numbers = BlockNumbers()
    numbers.take(start)
    at = start
    for step in steps:
        at += step
        assert numbers.take((at - 1) % 65535 + 1) == at
    assert numbers.left_out == sum(step - 1 for step in steps)


# The camera's clock


def test_a_picture_that_waited_shows_as_old() -> None:
    clock = CameraTime()
    assert clock.host_ns(1_000, arrival_ns=50_000) == 50_000
    assert clock.host_ns(2_000, arrival_ns=90_000) == 51_000
    assert clock.host_ns(3_000, arrival_ns=51_500) == 51_500  # a quicker way
    assert clock.host_ns(4_000, arrival_ns=99_000) == 52_500


def test_clocks_that_drift_apart_are_followed() -> None:
    clock = CameraTime()
    for second in range(1, 100_000, 10):
        arrival_ns = second * 1_000_050_000  # the camera's is slow by 50 ppm
        assert arrival_ns - clock.host_ns(second * 1_000_000_000, arrival_ns=arrival_ns) < 1_000_000


# Settings


class ScriptedFeatures:
    """Keeps what is written, as far as its steps let it."""

    where = "scripted"

    def __init__(self) -> None:
        self.values: dict[str, float | str] = {
            "DeviceModelName": "M1",
            "PixelFormat": "Mono8",
            "Width": 6,
            "Height": 4,
            "ExposureAuto": "Continuous",
            "ExposureTime": 10_000.0,
            "GainAuto": "Off",
            "Gain": 0.0,
            "BalanceWhiteAuto": "Continuous",
            "BalanceRatioSelector": "Red",
            "AcquisitionFrameRate": 25.0,
            "AcquisitionMode": "Continuous",
            "TriggerSelector": "AcquisitionStart",
            "TriggerMode": "On",
            "TriggerSource": "Software",
            "TriggerActivation": "FallingEdge",
        }
        self.enums: dict[str, tuple[str, ...]] = {
            "PixelFormat": ("Mono8", "Mono16", "BayerRG8"),
            "ExposureAuto": ("Off", "Continuous"),
            "GainAuto": ("Off",),
            "BalanceWhiteAuto": ("Off", "Once", "Continuous"),
            "BalanceRatioSelector": ("Red", "Green", "Blue"),
            "AcquisitionMode": ("Continuous",),
            "TriggerSelector": ("FrameStart", "AcquisitionStart"),
            "TriggerMode": ("On", "Off"),
            "TriggerSource": ("Software", "Line1"),
            "TriggerActivation": ("RisingEdge", "FallingEdge"),
        }
        self.step: float = 0.0
        self.balance = {"Red": 1.8, "Green": 1.0, "Blue": 1.2}

    def has(self, name: str) -> bool:
        return name in self.values or name == "BalanceRatio"

    def choices(self, name: str) -> Sequence[str]:
        return self.enums.get(name, ())

    def read(self, name: str) -> float | str:
        if name == "BalanceRatio":
            return self.balance[str(self.values["BalanceRatioSelector"])]
        return self.values[name]

    def write(self, name: str, value: float | str) -> None:
        self.values[name] = value + self.step if isinstance(value, float) else value


def test_what_is_wished_is_written_and_what_is_signed_is_read_back() -> None:
    camera = ScriptedFeatures()
    opened = set_up(camera, wish("exposure_us=5000&gain_db=3&trigger=line1&pixel_format=BayerRG8"))
    assert opened.settings == {
        "model": "M1",
        "pixel_format": "BayerRG8",
        "width": 6,
        "height": 4,
        "trigger": "line1",
        "exposure_us": 5000.0,
        "gain_db": 3.0,
        "balance_red": 1.8,
        "balance_blue": 1.2,
    }
    assert opened.period_s == pytest.approx(0.04)
    assert camera.values["ExposureAuto"] == "Off"
    assert camera.values["BalanceWhiteAuto"] == "Off"
    assert camera.values["TriggerSelector"] == "FrameStart"
    assert (camera.values["TriggerMode"], camera.values["TriggerSource"]) == ("On", "Line1")
    assert camera.values["TriggerActivation"] == "RisingEdge"


def test_a_camera_that_runs_freely_waits_for_no_trigger() -> None:
    camera = ScriptedFeatures()
    set_up(camera, Wish())
    assert camera.values["TriggerMode"] == "Off"


def test_a_grey_picture_has_no_white_balance() -> None:
    camera = ScriptedFeatures()
    camera.enums["BalanceWhiteAuto"] = ()  # there, and cannot be switched off
    assert "balance_red" not in set_up(camera, wish("pixel_format=Mono8")).settings


def test_what_else_changes_a_picture_is_signed_and_its_automatics_are_off() -> None:
    camera = ScriptedFeatures()
    before = set_up(camera, Wish()).settings
    changes: dict[str, float | str] = {"OffsetX": 16, "ReverseX": 1, "BlackLevel": 2.5, "TestPattern": "Off"}
    camera.values |= {**changes, "LUTEnable": 0, "BslHue": 0.1234567, "ExposureMode": "TriggerWidth"}
    camera.values["BlackLevelAuto"] = "Continuous"
    camera.enums |= {"BlackLevelAuto": ("Off", "Continuous"), "ExposureMode": ("Timed", "TriggerWidth")}
    assert set_up(camera, Wish()).settings == before | {
        "offset_x": 16,
        "reverse_x": 1,
        "black_level": 2.5,
        "test_pattern": "Off",
        "lut_enable": 0,
        "bsl_hue": 0.123,
        "exposure_mode": "Timed",
    }
    assert camera.values["BlackLevelAuto"] == "Off"


def test_a_feature_that_cannot_be_read_after_all_does_not_keep_the_camera_away() -> None:
    class Broken(ScriptedFeatures):
        def read(self, name: str) -> float | str:
            if name == "Gamma":
                raise SourceError("not readable")
            return super().read(name)

    camera = Broken()
    camera.values |= {"Gamma": 1.0, "OffsetY": 2}
    settings = set_up(camera, Wish()).settings
    assert "gamma" not in settings
    assert settings["offset_y"] == 2


@pytest.mark.parametrize(("query", "step"), [("exposure_us=5000", 6.0), ("gain_db=3", 0.02)])
def test_a_value_that_the_camera_does_not_keep_is_an_error(query: str, step: float) -> None:
    camera = ScriptedFeatures()
    camera.step = step
    with pytest.raises(SourceError, match="and the camera keeps") as error:
        set_up(camera, wish(query))
    assert "write " in error.value.cure
    camera.step = step / 10  # its own steps, less than half a grey level
    set_up(camera, wish(query))


@pytest.mark.parametrize(
    ("pixel_format", "query", "what", "cure"),
    [
        ("Mono16", "trigger=off", "pictures in Mono16 cannot be used", "pixel_format"),
        ("Mono8", "pixel_format=RGB8", "has no PixelFormat=RGB8", "it has Mono8"),
        ("Mono8", "trigger=line2", "has no TriggerSource=Line2", "it has Software, Line1"),
    ],
)
def test_what_the_camera_cannot_do_is_refused(pixel_format: str, query: str, what: str, cure: str) -> None:
    camera = ScriptedFeatures()
    camera.values["PixelFormat"] = pixel_format
    with pytest.raises(SourceError, match=what) as error:
        set_up(camera, wish(query))
    assert cure in error.value.cure


def test_a_camera_without_gain_in_db_says_so() -> None:
    camera = ScriptedFeatures()
    del camera.values["Gain"]
    camera.values["GainRaw"] = 7
    assert set_up(camera, Wish()).settings["gain_raw"] == 7
    with pytest.raises(SourceError, match="has no Gain"):
        set_up(camera, Wish(gain_db=3.0))


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("trigger=cable", "trigger=cable"),
        ("exposure_us=0", "exposure_us=0"),
        ("gain_db=x", "gain_db=x"),
        ("pixel_format=Mono12", "Mono12"),
    ],
)
def test_a_wrong_option_is_refused_before_any_camera_is_asked(query: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as error:
        wish(query)
    assert error.value.cure


# The source


def test_a_free_camera_gives_its_newest_picture_and_counts_what_was_passed_over(
    camera: ScriptedCamera, opened: Any, tmp_path: Path
) -> None:
    source = opened("off")
    for k in (1, 2, 5):
        camera.blocks.put(block(k))
    (frame,) = take(source, 1)
    assert isinstance(frame, Frame)
    assert (frame.frame_id, frame.trigger_id, frame.part_id) == (5, None, "cam-000005")
    camera.blocks.put(block(9))
    take(source, 1)
    assert source.skipped == 3
    capture = Capture(source, tmp_path, 0, latest=True)
    with closing(capture.link):
        numbers = capture._vitals().numbers
    assert numbers['dropped_total{stage="capture",reason="no_part",camera="cam"}'] == 3


def test_the_count_of_a_camera_at_a_cable_is_the_number_of_the_part(
    camera: ScriptedCamera, opened: Any
) -> None:
    source = opened("line1")
    camera.blocks.put(block(65535))
    camera.blocks.put(block(1, timestamp_ns=70_000_000_000))
    camera.blocks.put(block(4, timestamp_ns=70_000_000_001))
    items = take(source, 3)
    assert [item.trigger_id for item in items] == [65535, 65536, 65539]
    assert source.skipped == 0


@pytest.mark.parametrize("trigger", ["off", "line1", "software"])
def test_an_incomplete_picture_is_missed_and_never_shown(
    camera: ScriptedCamera, opened: Any, trigger: str
) -> None:
    source = opened(trigger)
    broken = block(1, layout=None, data=np.empty(0, np.uint8), reason="missing-packets")
    if trigger == "software":
        camera.on_fire = lambda: camera.blocks.put(broken)
        source.trigger(Trigger(7))
    else:
        camera.blocks.put(broken)
    (fault,) = take(source, 1)
    assert isinstance(fault, Fault)
    assert (fault.verdict, fault.reason) == (Verdict.MISSED, "incomplete: missing-packets")
    assert fault.trigger_id == {"off": None, "line1": 1, "software": 7}[trigger]


@pytest.mark.parametrize("trigger", ["off", "line1", "software"])
def test_pictures_that_lay_there_while_nobody_asked_are_no_parts(
    camera: ScriptedCamera, opened: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch, trigger: str
) -> None:
    monkeypatch.setattr(f"{GenicamSource.__module__}.time", clock)
    source = opened(trigger)
    if trigger == "software":
        source.trigger(Trigger(7))  # this one was asked for
        camera.blocks.put(block(1))
        clock.sleep(2 * _AWAY_S)
        assert [item.trigger_id for item in take(source, 1)] == [7]
        return
    for number in (1, 2, 3):
        camera.blocks.put(block(number))
    clock.sleep(2 * _AWAY_S)
    later = threading.Timer(0.1, camera.blocks.put, [block(4)])
    later.start()
    (frame,) = take(source, 1)
    later.join()
    assert isinstance(frame, Frame)
    assert frame.image[0, 0, 0] == frame.frame_id == 4


def test_a_camera_is_read_before_there_is_a_station(
    camera: ScriptedCamera, tmp_path: Path, request: pytest.FixtureRequest, wait_for: Any
) -> None:
    over = threading.Event()
    source = GenicamSource(camera, Wish("line1"))
    capture = Capture(source, tmp_path, 0, latest=False)
    thread = threading.Thread(target=capture.run, args=(over.is_set,))
    thread.start()
    request.addfinalizer(thread.join)
    request.addfinalizer(over.set)
    camera.blocks.put(block(1))
    camera.blocks.put(block(2, layout=None, data=np.empty(0, np.uint8), reason="missing-packets"))
    wait_for(lambda: capture.counts.faults == 1, "the pictures to be read")
    assert capture.link.unsent == 0  # they are nobody's
    station = CapturedSource(tmp_path, 0, source)
    station.open()
    camera.blocks.put(block(3))
    assert [item.trigger_id for item in take(station, 1)] == [3]
    station.close()


def test_a_picture_with_fewer_bytes_than_its_size_is_incomplete(camera: ScriptedCamera, opened: Any) -> None:
    source = opened("line1")
    camera.blocks.put(block(1, data=np.zeros(23, np.uint8)))
    (fault,) = take(source, 1)
    assert isinstance(fault, Fault)
    assert "incomplete: 23 bytes of 24" in fault.reason


def test_a_trigger_gets_its_own_picture(camera: ScriptedCamera, opened: Any) -> None:
    source = opened("software")
    camera.on_fire = lambda: camera.blocks.put(block(camera.fired))
    for number in (7, 9):
        asked = Trigger(number, "P" if number == 9 else "")
        source.trigger(asked)
        (frame,) = take(source, 1)
        assert isinstance(frame, Frame)
        assert (frame.trigger_id, frame.captured_ns) == (number, asked.mono_ns)
        assert frame.part_id == ("P" if number == 9 else "cam-000007")


def test_a_trigger_that_comes_too_early_never_gets_the_picture_of_another_part(
    camera: ScriptedCamera, opened: Any, wait_for: Any
) -> None:
    source = opened("software")
    for number in (1, 2, 3):
        source.trigger(Trigger(number))
    wait_for(lambda: camera.fired, "the trigger")
    camera.blocks.put(block(1))
    first, second, third = take(source, 3)
    assert isinstance(first, Frame)
    assert [first.trigger_id, second.trigger_id, third.trigger_id] == [1, 2, 3]
    assert isinstance(second, Fault)
    assert isinstance(third, Fault)
    assert second.verdict is Verdict.MISSED
    assert "still busy" in second.reason
    assert camera.fired == 1


def test_a_picture_that_nobody_asked_for_is_no_part(camera: ScriptedCamera, opened: Any) -> None:
    source = opened("software")
    camera.blocks.put(block(1))
    assert source.next(time.monotonic() + 0.1) is Lull.IDLE
    assert source.skipped == 1
    camera.on_fire = lambda: camera.blocks.put(block(3))  # and one that was lost on the way
    source.trigger(Trigger(5))
    (fault,) = take(source, 1)
    assert isinstance(fault, Fault)
    assert "nobody asked" in fault.reason


def test_a_trigger_that_brings_no_picture_is_missed_and_the_camera_opened_again(
    camera: ScriptedCamera, opened: Any, impatient: None, wait_for: Any
) -> None:
    source = opened("software")
    source.trigger(Trigger(5))
    (fault,) = take(source, 1)
    assert (fault.trigger_id, source.down_reason) == (5, "the camera took no picture for its trigger")
    source.trigger(Trigger(6))
    (fault,) = take(source, 1)
    assert isinstance(fault, Fault)
    assert "is down" in fault.reason
    wait_for(lambda: not source.down_reason, "the camera back")
    assert camera.opens == 2


def test_a_camera_that_runs_freely_is_lost_when_it_falls_silent(
    camera: ScriptedCamera, opened: Any, wait_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = opened("off")
    camera.blocks.put(block(1))
    take(source, 1)
    monkeypatch.setattr(f"{GenicamSource.__module__}.LOST_S", 0.4)
    (fault,) = take(source, 1)
    assert isinstance(fault, Fault)
    assert (fault.verdict, fault.trigger_id) == (Verdict.MISSED, None)
    assert source.down_reason == "the camera delivers no picture"
    assert source.next(time.monotonic()) is Lull.IDLE
    monkeypatch.setattr(f"{GenicamSource.__module__}.LOST_S", 60.0)
    wait_for(lambda: not source.down_reason, "the camera back")
    camera.blocks.put(block(1))
    (frame,) = take(source, 1)
    assert (frame.part_id, camera.opens) == ("cam-000002", 2)


def test_a_slow_camera_is_given_three_periods(camera: ScriptedCamera, opened: Any, impatient: None) -> None:
    camera.opened = replace(camera.opened, period_s=100.0)
    source = opened("off")
    assert source.next(time.monotonic() + 1) is Lull.IDLE
    assert not source.down_reason


def test_a_camera_at_a_cable_is_lost_when_it_does_not_answer(
    camera: ScriptedCamera, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = opened("line1")
    assert source.next(time.monotonic() + 1) is Lull.IDLE  # no part, and all is well
    camera.answers.clear()
    monkeypatch.setattr(f"{GenicamSource.__module__}.LOST_S", 0.4)
    (fault,) = take(source, 1)
    assert isinstance(fault, Fault)
    assert source.down_reason == "the camera does not answer"


def test_a_camera_that_refuses_to_answer_is_lost(camera: ScriptedCamera, opened: Any, wait_for: Any) -> None:
    source = opened("line1")
    camera.refusal = "access denied"
    (fault,) = take(source, 1)
    assert isinstance(fault, Fault)
    assert source.down_reason == fault.reason == "access denied"
    camera.refusal = ""
    wait_for(lambda: not source.down_reason, "the camera back")
    assert source.next(time.monotonic() + 0.2) is Lull.IDLE
    camera.blocks.put(block(1))
    assert isinstance(take(source, 1)[0], Frame)


def test_an_error_that_nobody_foresaw_does_not_keep_a_camera_away(
    camera: ScriptedCamera, opened: Any, wait_for: Any
) -> None:
    source = opened("line1")
    probe, reopen, fails = camera.probe, camera.open, [1, 1]

    def fail(at: int, otherwise: Callable[[], Any]) -> Any:
        if fails[at]:
            fails[at] -= 1
            raise TypeError("no such node")
        return otherwise()

    camera.open = lambda wish: fail(1, lambda: reopen(wish))  # type: ignore[method-assign]
    camera.probe = lambda: fail(0, probe)  # type: ignore[method-assign]
    (fault,) = take(source, 1)
    assert isinstance(fault, Fault)
    assert fault.reason == "no such node"
    wait_for(lambda: not source.down_reason, "the camera back", 10.0)
    camera.blocks.put(block(1))
    assert isinstance(take(source, 1)[0], Frame)


def test_what_is_closed_fires_no_more(camera: ScriptedCamera, opened: Any) -> None:
    source = opened("software")
    source.close()
    source.trigger(Trigger(1))
    (fault,) = take(source, 1)
    assert isinstance(fault, Fault)
    assert (camera.fired, fault.trigger_id) == (0, 1)


def test_pictures_of_another_size_are_never_judged(camera: ScriptedCamera, opened: Any) -> None:
    source = opened("line1")
    camera.blocks.put(block(1, layout=Layout(MONO8, 2, 12)))
    (fault,) = take(source, 1)
    assert isinstance(fault, Fault)
    assert fault.verdict is Verdict.NO_DECISION
    assert "Mono8 12x2 instead of Mono8 6x4" in fault.reason
    assert source.down_reason


def test_a_camera_whose_clock_stands_still_is_frozen(camera: ScriptedCamera, opened: Any) -> None:
    source = opened("line1")
    for k in (1, 2):
        camera.blocks.put(block(k, timestamp_ns=5))
    _, fault = take(source, 2)
    assert isinstance(fault, Fault)
    assert (fault.verdict, "frozen" in fault.reason) == (Verdict.NO_DECISION, True)


def test_a_camera_that_comes_back_with_other_settings_stays_down(
    camera: ScriptedCamera, opened: Any, impatient: None, wait_for: Any
) -> None:
    source = opened("off")
    assert source.settings == {"exposure_us": 5000.0}
    camera.opened = replace(camera.opened, settings={"exposure_us": 9000.0})
    take(source, 1)
    wait_for(lambda: "other settings: {'exposure_us': 9000.0}" in source.down_reason, "the refusal")
    assert source.settings == {"exposure_us": 5000.0}


def test_only_a_camera_that_is_triggered_by_software_takes_triggers(opened: Any) -> None:
    with pytest.raises(SourceError, match="takes no triggers"):
        opened("line1").trigger(Trigger(1))


def test_the_formats_that_are_offered_are_those_that_can_be_used() -> None:
    assert all(code_of(name) is not None for name in PIXEL_FORMATS)
    assert code_of("Mono16") is None
