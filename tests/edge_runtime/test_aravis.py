"""Against Aravis' own GigE Vision camera, over loopback."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.camera_cycles import unplug_again_and_again
from kenpin.edge_runtime.aravis_source import AravisCamera, aravis_source
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.genicam_source import GenicamSource
from kenpin.edge_runtime.source import Fault, Lull, SourceUrl, Trigger
from kenpin.errors import ConfigError, SourceError
from kenpin.frame import Frame
from tests.edge_runtime.fake_camera import ADDRESS, FakeCamera
from tests.edge_runtime.taken import take

pytest.importorskip("gi", reason="needs PyGObject and Aravis")

FIRST_ID = 65401  # of each fake camera, so that its ids soon start over


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCamera]:
    monkeypatch.setattr(f"{GenicamSource.__module__}.LOST_S", 60.0)  # however slow the machine is
    fake = FakeCamera()
    fake.plug_in()
    yield fake
    fake.unplug()


@pytest.fixture
def opened(camera: FakeCamera) -> Iterator[Callable[..., GenicamSource]]:
    sources: list[GenicamSource] = []

    def open_source(**options: str) -> GenicamSource:
        sources.append(aravis_source(SourceUrl(f"aravis:{ADDRESS}", "aravis", ADDRESS, options)))
        sources[-1].open()
        return sources[-1]

    yield open_source
    for source in sources:
        source.close()


def test_a_free_camera_delivers_new_pictures_with_its_ids(opened: Any) -> None:
    source = opened()
    frames = [item for item in take(source, 3) if isinstance(item, Frame)]
    assert all(frame.image.shape == (512, 512, 3) for frame in frames)
    numbers = [frame.frame_id for frame in frames]
    assert numbers == sorted(set(numbers))
    assert numbers[0] >= FIRST_ID
    assert all(0 <= time.monotonic_ns() - frame.captured_ns < 20e9 for frame in frames)


def test_ids_of_16_bits_that_start_over_are_no_gap(opened: Any) -> None:
    source = opened(width="16", height="16")
    source._device._camera.set_frame_rate(200.0)
    last = 0
    while last <= 65540:
        (item,) = take(source)
        assert isinstance(item, Frame)
        assert item.frame_id > last
        last = item.frame_id
    assert last < 65535 + 200
    assert source.skipped <= last - FIRST_ID


def test_settings_are_written_and_read_back(opened: Any) -> None:
    source = opened(exposure_us="5000", pixel_format="BayerRG8", width="128", height="64")
    assert source.settings == {
        "model": "Fake",
        "pixel_format": "BayerRG8",
        "width": 128,
        "height": 64,
        "trigger": "off",
        "exposure_us": 5000.0,
        "gain_raw": 0.0,
        "offset_x": 0,
        "offset_y": 0,
        "binning_horizontal": 1,
        "binning_vertical": 1,
    }
    (frame,) = take(source)
    assert isinstance(frame, Frame)
    assert frame.image.shape == (64, 128, 3)


def test_a_camera_that_looks_elsewhere_after_a_loss_stays_down(opened: Any) -> None:
    source = opened(width="128", height="64")
    source._device.write("OffsetX", 32)  # as a user set that is loaded at power-up would
    source.close()
    with pytest.raises(SourceError, match="came back with other settings") as error:
        source.open()
    assert "{'offset_x': 32}" in error.value.what


@pytest.mark.parametrize(
    ("options", "what", "cure"),
    [
        ({"pixel_format": "BGR8"}, "has no PixelFormat=BGR8", "it has BayerBG8"),
        ({"trigger": "line1"}, "has no TriggerSource=Line1", "it has Line0, Software"),
        ({"gain_db": "3"}, "has no Gain", "leave out gain_db"),
        ({"exposure_us": "1.5"}, "ExposureTimeAbs=1.5 was refused", "a value that the camera takes"),
        ({"exposure_us": "15.4"}, "and the camera keeps 15.0", "write 15.0"),
    ],
)
def test_what_the_camera_does_not_keep_is_refused(
    opened: Any, options: dict[str, str], what: str, cure: str
) -> None:
    with pytest.raises(SourceError, match=what) as error:
        opened(**options)
    assert cure in error.value.cure
    opened()  # nothing was held open


def test_pictures_that_cannot_become_bgr_are_refused(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = AravisCamera._connect

    def connect_to_a_deep_one(camera: AravisCamera) -> None:
        connect(camera)
        camera.write("PixelFormat", "Mono16")

    monkeypatch.setattr(AravisCamera, "_connect", connect_to_a_deep_one)
    with pytest.raises(SourceError, match="Mono16 cannot be used"):
        opened()


def test_each_software_trigger_gets_its_own_picture(opened: Any) -> None:
    source = opened(trigger="software")
    for number in (7, 8):
        source.trigger(Trigger(number))
        (frame,) = take(source)
        assert isinstance(frame, Frame)
        assert frame.trigger_id == number


def test_a_picture_whose_packets_were_lost_is_missed(
    opened: Any, camera: FakeCamera, monkeypatch: pytest.MonkeyPatch, wait_for: Any
) -> None:
    source = opened(trigger="software")
    monkeypatch.setattr(f"{GenicamSource.__module__}.LOST_S", 3.0)
    camera.lose_packets(0.2)
    faults: list[Fault] = []
    while not faults or not faults[-1].reason.startswith("incomplete: "):
        wait_for(lambda: not source.down_reason, "the camera back")
        source.trigger(Trigger(7 + len(faults)))
        (fault,) = take(source)
        assert isinstance(fault, Fault)
        faults.append(fault)
    assert [(fault.verdict, fault.trigger_id) for fault in faults] == [
        (Verdict.MISSED, 7 + number) for number in range(len(faults))
    ]
    # Of a picture whose first packet is lost, a fifth of them, Aravis tells nothing.
    assert {fault.reason for fault in faults[:-1]} <= {"the camera took no picture for its trigger"}


@pytest.mark.parametrize("trigger", ["off", "software", "line0"])
def test_a_camera_that_is_unplugged_is_lost_at_once_and_comes_back(
    opened: Any, camera: FakeCamera, monkeypatch: pytest.MonkeyPatch, wait_for: Any, trigger: str
) -> None:
    source = opened(trigger=trigger, exposure_us="5000")
    monkeypatch.setattr(f"{GenicamSource.__module__}.LOST_S", 0.7)
    unplugged_s = time.monotonic()
    camera.unplug()
    if trigger == "software":
        source.trigger(Trigger(7))
    while not isinstance(take(source)[0], Fault):
        pass
    # 0.95 s on an idle machine. The protocol's own heartbeat takes 5.4 s to say so.
    assert time.monotonic() - unplugged_s < 4
    assert source.down_reason
    assert source.next(time.monotonic()) is Lull.IDLE
    monkeypatch.setattr(f"{GenicamSource.__module__}.LOST_S", 60.0)
    camera.plug_in()
    wait_for(lambda: not source.down_reason, "the camera back")
    if trigger == "software":
        source.trigger(Trigger(8))
    if trigger != "line0":
        assert isinstance(take(source)[0], Frame)


@pytest.mark.slow
def test_an_unplugged_camera_comes_back_to_the_processes_of_a_station(
    camera: FakeCamera, tmp_path: Path
) -> None:
    found = unplug_again_and_again(tmp_path, camera, cycles=2, limit_s=120)
    assert found.history.violations() == [], found.history.summary()
    assert found.restarts == 0


def test_a_camera_that_is_not_there_says_what_to_check(opened: Any, camera: FakeCamera) -> None:
    camera.unplug()
    with pytest.raises(SourceError) as error:
        opened()
    assert "arv-tool" in error.value.cure


def test_without_aravis_the_cure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gi", None)
    with pytest.raises(ConfigError, match="not installed") as error:
        aravis_source(SourceUrl("aravis:x", "aravis", "x", {}))
    assert "apt install" in error.value.cure
