"""How a camera is set: read back, told to the station before the first picture, and shown by the doctor."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kenpin.edge_runtime import camera_source, doctor_camera
from kenpin.edge_runtime.camera_source import CameraSource
from kenpin.edge_runtime.capture import Capture
from kenpin.edge_runtime.captured_source import CapturedSource
from kenpin.edge_runtime.doctor import examine
from kenpin.edge_runtime.doctor_station import station_checks
from kenpin.edge_runtime.source import NO_SETTINGS, Fault, Lull, Settings, SourceUrl, Trigger
from kenpin.errors import ConfigError, SourceError
from kenpin.frame import Frame


class UsbCamera:
    """A UVC camera behind OpenCV: its controls by number, -1 for what it has not."""

    def __init__(self, controls: dict[int, float]) -> None:
        self.controls = controls

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return True

    def set(self, prop: int, value: float) -> bool:
        self.controls[prop] = value
        return True

    def get(self, prop: int) -> float:
        return self.controls.get(prop, -1.0)

    def read(self) -> tuple[bool, Any]:
        return True, np.random.default_rng().integers(0, 256, (32, 32, 3), np.uint8)

    def release(self) -> None:
        pass


@pytest.fixture
def usb(monkeypatch: pytest.MonkeyPatch) -> UsbCamera:
    plugged = UsbCamera(
        {
            cv2.CAP_PROP_FRAME_WIDTH: 640,
            cv2.CAP_PROP_FRAME_HEIGHT: 480,
            cv2.CAP_PROP_AUTO_EXPOSURE: 3,
            cv2.CAP_PROP_EXPOSURE: 157,
            cv2.CAP_PROP_GAIN: 5,
            cv2.CAP_PROP_AUTO_WB: 1,
            cv2.CAP_PROP_WB_TEMPERATURE: 4600,
        }
    )

    def capture(*which: int) -> UsbCamera:
        assert which in ((), (0, cv2.CAP_V4L2))  # GStreamer, which is asked first, knows no controls
        return plugged

    monkeypatch.setattr(camera_source.cv2, "VideoCapture", capture)
    return plugged


def test_what_an_automatic_moves_is_no_setting(usb: UsbCamera) -> None:
    source = CameraSource.from_url(SourceUrl.parse("usb:0"))
    source.open()
    assert source.settings == {"width": 640, "height": 480, "auto_exposure": 3, "auto_white_balance": 1}


def test_an_exposure_that_is_asked_for_switches_the_automatics_off(usb: UsbCamera) -> None:
    source = CameraSource.from_url(SourceUrl.parse("usb:0?exposure_us=4000"))
    source.open()
    assert usb.controls[cv2.CAP_PROP_EXPOSURE] == 40
    assert source.settings == {
        "width": 640,
        "height": 480,
        "gain": 5,
        "auto_exposure": 1,
        "auto_white_balance": 0,
        "exposure_us": 4000,
        "white_balance_k": 4600,
        "auto_focus": 0,
    }


def test_all_that_a_usb_camera_tells_is_signed(usb: UsbCamera) -> None:
    usb.controls |= {cv2.CAP_PROP_AUTOFOCUS: 1, cv2.CAP_PROP_FOCUS: 30, cv2.CAP_PROP_HUE: -3}
    usb.controls |= {cv2.CAP_PROP_GAMMA: 100, cv2.CAP_PROP_SHARPNESS: 2, cv2.CAP_PROP_BRIGHTNESS: 0}
    usb.controls[cv2.CAP_PROP_FOURCC] = cv2.VideoWriter.fourcc(*"YUYV")
    source = CameraSource.from_url(SourceUrl.parse("usb:0"))
    source.open()
    told = {"gamma": 100, "sharpness": 2, "brightness": 0, "hue": -3, "auto_focus": 1, "pixel_format": "YUYV"}
    automatics = {"auto_exposure": 3, "auto_white_balance": 1}
    assert source.settings == {"width": 640, "height": 480, **automatics, **told}


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("width=1280", "width was set to 1280, and the camera keeps 640"),
        ("exposure_us=4000", "exposure_us was set to 4000, and the camera keeps 15700"),
        ("fps=30&exposure_us=4000", "auto_exposure was set to 1, and the camera keeps 3"),
    ],
)
def test_what_a_usb_camera_does_not_keep_is_an_error(
    usb: UsbCamera, monkeypatch: pytest.MonkeyPatch, query: str, what: str
) -> None:
    kept = {cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_EXPOSURE}
    if "fps" in query:
        kept.add(cv2.CAP_PROP_AUTO_EXPOSURE)
    monkeypatch.setattr(usb, "set", lambda prop, value: prop in kept or usb.controls.update({prop: value}))
    source = CameraSource.from_url(SourceUrl.parse(f"usb:0?{query}"))
    with pytest.raises(SourceError, match=what) as error:
        source.open()
    assert source.down_reason == error.value.what
    assert error.value.cure


def test_an_exposure_that_a_usb_camera_has_not_cannot_be_set(
    usb: UsbCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    usb.controls = {cv2.CAP_PROP_FRAME_WIDTH: 640}
    monkeypatch.setattr(usb, "set", lambda _prop, _value: False)
    with pytest.raises(SourceError, match="has no exposure_us that could be set"):
        CameraSource.from_url(SourceUrl.parse("usb:0?exposure_us=4000")).open()


def test_another_stream_of_a_network_camera_is_another_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_source.cv2, "VideoCapture", lambda *_which: UsbCamera({}))
    monkeypatch.setattr(camera_source, "login", lambda _url: "bob:secret@")
    seen = []
    for url in ("rtsp://nvr/ch1/main?user=bob&password_file=pw", "rtsp://nvr/ch2/main"):
        source = CameraSource.from_url(SourceUrl.parse(url))
        source.open()
        seen.append((source.camera, dict(source.settings)))
    assert seen == [("rtsp-nvr", {"stream": "ch1/main"}), ("rtsp-nvr", {"stream": "ch2/main"})]


@pytest.mark.parametrize(
    ("url", "control", "words"),
    [
        ("usb:0", (cv2.CAP_PROP_AUTOFOCUS, 1), "it chooses its focus itself"),
        ("usb:0", (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")), "damaged is not noticed"),
        ("rtsp://camera/1", (cv2.CAP_PROP_FPS, 25), "damaged is not noticed"),
    ],
)
def test_the_doctor_warns_of_what_may_let_a_bad_part_pass(
    workshop: Any, monkeypatch: pytest.MonkeyPatch, url: str, control: tuple[int, float], words: str
) -> None:
    workshop.ready()
    camera = UsbCamera({cv2.CAP_PROP_AUTO_EXPOSURE: 1, control[0]: control[1]})
    monkeypatch.setattr(camera_source.cv2, "VideoCapture", lambda *_which: camera)
    found = {f.name: f for f in examine(station_checks(workshop.config(url)), limit_s=180)}
    assert found[f"camera {url}"].verdict == "WARN"
    assert words in found[f"camera {url}"].words


def test_the_doctor_warns_of_a_camera_that_sends_a_test_picture(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Testing(Turned):
        def next(self, deadline_s: float) -> Frame | Fault | Lull:
            item = super().next(deadline_s)
            self.settings = {"test_pattern": "GreyDiagonalRamp"}
            return item

    workshop.ready()
    monkeypatch.setattr(doctor_camera, "make_source", lambda _url: Testing())
    found = {f.name: f for f in examine(station_checks(workshop.config("pylon:0")), limit_s=180)}
    assert found["camera pylon:0"].verdict == "WARN"
    assert "it sends a test picture" in found["camera pylon:0"].words


def test_a_camera_that_comes_back_is_read_again(usb: UsbCamera) -> None:
    source = CameraSource.from_url(SourceUrl.parse("usb:0"))
    source.open()
    usb.controls[cv2.CAP_PROP_AUTO_EXPOSURE] = 1  # as after another program had it
    source.down_reason = "the camera delivers no picture"
    assert source.next(time.monotonic() + 1) is Lull.IDLE
    assert source.settings["exposure_us"] == 15_700


@pytest.mark.parametrize(("address", "verdict"), [("usb:0", "WARN"), ("usb:0?exposure_us=4000", "PASS")])
def test_the_doctor_warns_of_an_automatic(workshop: Any, usb: UsbCamera, address: str, verdict: str) -> None:
    workshop.ready()
    found = {f.name: f for f in examine(station_checks(workshop.config(address)), limit_s=180)}
    assert found[f"camera {address}"].verdict == verdict
    assert ("it chooses its exposure itself" in found[f"camera {address}"].words) == (verdict == "WARN")


@pytest.fixture
def csi(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pipelines that were opened."""
    opened: list[str] = []

    def capture(pipeline: str = "", *_api: int) -> UsbCamera:
        opened.append(pipeline)
        return UsbCamera({})

    monkeypatch.setattr(camera_source.cv2, "VideoCapture", capture)
    return opened


def test_a_csi_camera_is_automatic_until_an_exposure_is_asked_for(csi: list[str]) -> None:
    source = CameraSource.from_url(SourceUrl.parse("csi:0"))
    source.open()
    assert source.settings == {"width": 1920, "height": 1080, "auto_exposure": 3}
    assert csi[-1].startswith("nvarguscamerasrc sensor-id=0 tnr-mode=0 ! ")
    source = CameraSource.from_url(SourceUrl.parse("csi:1?exposure_us=4000&gain=2.5"))
    source.open()
    assert source.settings == {
        "width": 1920,
        "height": 1080,
        "auto_exposure": 1,
        "exposure_us": 4000,
        "gain": 2.5,
    }
    assert csi[-1].startswith(
        'nvarguscamerasrc sensor-id=1 tnr-mode=0 exposuretimerange="4000000 4000000" gainrange="2.5 2.5"'
        ' ispdigitalgainrange="1 1" wbmode=0 ! '
    )


def test_a_gain_without_an_exposure_would_not_hold() -> None:
    with pytest.raises(ConfigError, match="gain goes with an exposure"):
        CameraSource.from_url(SourceUrl.parse("csi:0?gain=2"))


@pytest.mark.parametrize(("address", "verdict"), [("csi:0", "WARN"), ("csi:0?exposure_us=4000", "PASS")])
def test_the_doctor_warns_of_an_automatic_csi_camera(
    workshop: Any, csi: list[str], address: str, verdict: str
) -> None:
    workshop.ready()
    found = {f.name: f for f in examine(station_checks(workshop.config(address)), limit_s=180)}
    assert csi
    assert found[f"camera {address}"].verdict == verdict


class Turned:
    """A camera whose exposure somebody turns, now and then; its picture is as bright."""

    camera = "turned"
    drawn = False
    waits = False
    live = False
    down_reason = ""

    def __init__(self) -> None:
        self.settings: Settings = NO_SETTINGS
        self._number = 0

    def open(self) -> None:
        pass

    def next(self, deadline_s: float) -> Frame | Fault | Lull:
        time.sleep(0.01)
        self._number += 1
        exposure = self._number // 3 % 200
        self.settings = {"exposure_us": exposure}
        return Frame(np.full((8, 8, 3), exposure, np.uint8), str(self._number), self.camera)

    def trigger(self, trigger: Trigger) -> None:
        raise AssertionError

    def close(self) -> None:
        pass


class Slow(Turned):
    """The same, and it takes its time to open."""

    def open(self) -> None:
        time.sleep(0.5)


def read_in_a_thread(source: Turned, run: Path, request: pytest.FixtureRequest) -> None:
    over = threading.Event()
    capture = Capture(source, run, 0, latest=False)
    thread = threading.Thread(target=capture.run, args=(over.is_set,))
    thread.start()
    request.addfinalizer(thread.join)
    request.addfinalizer(over.set)


def test_a_camera_that_is_being_opened_is_not_told_as_down(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    read_in_a_thread(Slow(), tmp_path, request)
    station = CapturedSource(tmp_path, 0, Turned())
    station.open()
    assert station.down_reason in ("", "its process has not answered yet")
    assert isinstance(station.next(time.monotonic() + 180), Frame)
    assert not station.down_reason
    station.close()


def test_a_change_reaches_the_station_before_its_first_picture(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    read_in_a_thread(Turned(), tmp_path, request)
    for _ in range(2):  # a station that is new finds them, too
        station = CapturedSource(tmp_path, 0, Turned())
        station.open()
        taken = 0
        while taken < 30:
            item = station.next(time.monotonic() + 180)
            if isinstance(item, Frame):
                assert station.settings == {"exposure_us": int(item.image[0, 0, 0])}
                taken += 1
        station.close()
