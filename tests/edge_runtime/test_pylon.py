"""Against pylon's own emulated camera."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.genicam_settings import Wish
from kenpin.edge_runtime.genicam_source import GenicamSource
from kenpin.edge_runtime.pylon_source import PylonCamera, pylon_source
from kenpin.edge_runtime.source import Fault, Lull, SourceUrl, Trigger
from kenpin.errors import SourceError
from kenpin.frame import Frame
from tests.edge_runtime.taken import take

pytest.importorskip("pypylon", reason="needs pypylon")

# SWIG's modules do not survive that a warning of theirs is an error.
pytestmark = pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")

SERIAL = "0815-0000"  # of the emulated camera


@pytest.fixture(autouse=True)
def emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYLON_CAMEMU", "1")
    monkeypatch.setattr(f"{GenicamSource.__module__}.LOST_S", 60.0)  # however slow the machine is
    monkeypatch.setattr(f"{PylonCamera.__module__}._READY_MS", 60_000)


@pytest.fixture
def opened() -> Iterator[Callable[..., GenicamSource]]:
    sources: list[GenicamSource] = []

    def open_source(target: str = SERIAL, **options: str) -> GenicamSource:
        sources.append(pylon_source(SourceUrl(f"pylon:{target}", "pylon", target, options)))
        sources[-1].open()
        return sources[-1]

    yield open_source
    for source in sources:
        source.close()


def emulated(source: GenicamSource) -> Any:
    """The features of the emulated camera behind a source, as a maker's program would see them."""
    camera = source._device
    assert isinstance(camera, PylonCamera)
    return camera._nodes


def test_a_free_camera_delivers_new_pictures(opened: Any) -> None:
    source = opened()
    frames = take(source, 3)
    assert all(isinstance(frame, Frame) and frame.image.shape == (1040, 1024, 3) for frame in frames)
    numbers = [frame.frame_id for frame in frames if isinstance(frame, Frame)]
    assert numbers == sorted(set(numbers))
    assert frames[0].camera == f"pylon-{SERIAL}"


def test_pictures_that_nobody_took_in_time_are_counted_and_the_newest_is_given(opened: Any) -> None:
    source = opened()
    take(source)
    time.sleep(0.5)
    frame = take(source)[0]
    assert isinstance(frame, Frame)
    assert source.skipped > 3
    assert source.skipped >= frame.frame_id - 3


def test_settings_are_written_and_read_back(opened: Any) -> None:
    source = opened("0", exposure_us="5000", gain_db="6", pixel_format="BayerRG8", width="640", height="480")
    assert source.settings == {
        "model": "CamEmu",
        "pixel_format": "BayerRG8",
        "width": 640,
        "height": 480,
        "trigger": "off",
        "exposure_us": 5000.0,
        "gain_db": 6.0,
        "offset_x": 0,
        "offset_y": 0,
        "reverse_x": 0,
        "reverse_y": 0,
        "test_image_selector": "Testimage2",
        "binning_horizontal": 1,
        "binning_vertical": 1,
        "binning_horizontal_mode": "Sum",
        "binning_vertical_mode": "Sum",
        "exposure_mode": "Timed",
        "trigger_delay": 0.0,
        "black_level": 0.0,
        "digital_shift": 0,
        "gamma": 1.0,
    }
    (frame,) = take(source)
    assert isinstance(frame, Frame)
    assert frame.image.shape == (480, 640, 3)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"width": "99999"}, "Width=99999 was refused"),
        ({"exposure_us": "1.5"}, "ExposureTime was set to 1.5, and the camera keeps 2.0"),
        ({"trigger": "line9"}, "has no TriggerSource=Line9"),
    ],
)
def test_what_the_camera_does_not_keep_is_refused(options: dict[str, str], what: str) -> None:
    url = SourceUrl("pylon:0", "pylon", "0", options)
    camera = PylonCamera("0")
    with pytest.raises(SourceError, match=what) as error:
        camera.open(Wish.from_url(url))
    assert error.value.cure
    assert camera._camera is None  # nothing is held open


def test_pictures_that_cannot_become_bgr_are_refused(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = PylonCamera._connect

    def connect_to_a_deep_one(camera: PylonCamera) -> None:
        connect(camera)
        camera.write("PixelFormat", "Mono16")

    monkeypatch.setattr(PylonCamera, "_connect", connect_to_a_deep_one)
    with pytest.raises(SourceError, match="Mono16 cannot be used") as error:
        opened()
    assert "pixel_format" in error.value.cure


def test_a_camera_that_is_not_there_says_which_are(opened: Any) -> None:
    for target in ("12345678", "7"):
        with pytest.raises(SourceError, match="not found") as error:
            opened(target)
        assert SERIAL in error.value.cure


def test_each_software_trigger_gets_its_own_picture(opened: Any) -> None:
    source = opened(trigger="software")
    emulated(source).GetNode("AcquisitionFrameRateAbs").SetValue(40)  # 25 ms until the next one can be taken
    for number in range(7, 17):
        source.trigger(Trigger(number))
        (frame,) = take(source)
        assert isinstance(frame, Frame)
        assert frame.trigger_id == number


def test_triggers_that_come_too_early_are_missed_one_by_one(opened: Any) -> None:
    # The emulated camera ignores them without a word, as real ones do: three triggers, one picture.
    source = opened(trigger="software")
    for number in (7, 8, 9):
        source.trigger(Trigger(number))
    first, *others = take(source, 3)
    assert isinstance(first, Frame)
    assert [item.trigger_id for item in (first, *others)] == [7, 8, 9]
    assert all(isinstance(item, Fault) and item.verdict is Verdict.MISSED for item in others)
    source.trigger(Trigger(10))
    (frame,) = take(source)
    assert isinstance(frame, Frame)
    assert frame.trigger_id == 10


def test_a_failed_buffer_is_missed_and_the_next_one_is_not(opened: Any) -> None:
    source = opened(trigger="software")
    nodes = emulated(source)
    nodes.GetNode("ForceFailedBufferCount").SetValue(1)
    nodes.GetNode("ForceFailedBuffer").Execute()
    source.trigger(Trigger(7))
    (fault,) = take(source)
    assert isinstance(fault, Fault)
    assert fault.verdict is Verdict.MISSED
    assert "incompletely grabbed" in fault.reason
    source.trigger(Trigger(8))
    assert isinstance(take(source)[0], Frame)


def test_the_count_of_a_camera_at_a_cable_is_the_number_of_the_part(opened: Any) -> None:
    source = opened(trigger="line1")
    nodes = emulated(source)
    items: list[Frame | Fault] = []
    for count in range(3):
        if count == 1:
            nodes.GetNode("ForceFailedBufferCount").SetValue(1)
            nodes.GetNode("ForceFailedBuffer").Execute()
        while len(items) == count:  # one that comes before the camera is ready is lost
            nodes.GetNode("TriggerSoftware").Execute()  # the emulator's cable
            item = source.next(time.monotonic() + 0.2)
            items += [] if isinstance(item, Lull) else [item]
    assert [item.trigger_id for item in items] == [0, 1, 2]
    assert [type(item) for item in items] == [Frame, Fault, Frame]


def test_a_camera_that_falls_silent_is_lost_and_comes_back(
    opened: Any, monkeypatch: pytest.MonkeyPatch, wait_for: Any
) -> None:
    source = opened()
    take(source)
    monkeypatch.setattr(f"{GenicamSource.__module__}.LOST_S", 0.7)
    emulated(source).GetNode("AcquisitionStop").Execute()
    while not isinstance(take(source)[0], Fault):
        pass
    assert source.down_reason == "the camera delivers no picture"
    monkeypatch.setattr(f"{GenicamSource.__module__}.LOST_S", 60.0)
    wait_for(lambda: not source.down_reason, "the camera back")
    assert isinstance(take(source)[0], Frame)
