"""Cameras through OpenCV that run freely: USB (V4L2), RTSP, and CSI through GStreamer."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np

from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.opencv_camera import AUTOMATIC, MANUAL, Camera
from kenpin.edge_runtime.source import NO_SETTINGS, Fault, Lull, Settings, SourceUrl, Untriggered
from kenpin.edge_runtime.usb_camera import usb_camera
from kenpin.errors import ConfigError, SourceError, private_again, reason_of
from kenpin.frame import Frame, Image

_REOPEN_S = 1.0
# Longest time to open a network camera, and for one of its pictures. Neither comes near the silence after which
# a capture process is killed (`CAPTURE_S`).
_OPEN_MS, _READ_MS = 2500, 1000
# Without its temporal noise reduction: that mixes a part's picture with those before.
_CSI = (
    "nvarguscamerasrc sensor-id={sensor} tnr-mode=0{fixed}"
    " ! video/x-raw(memory:NVMM),width={width},height={height},framerate={fps}/1"
    " ! nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR"
    " ! appsink drop=true max-buffers=1 sync=false"
)


class CameraSource(Untriggered):
    """A camera that runs freely: each call takes its newest picture, and comes back by itself.

    While it is away, each second gives one fault.

    Args:
        camera: Which one.
    """

    drawn = False
    waits = False

    def __init__(self, camera: Camera) -> None:
        self.camera = camera.name
        self.live = camera.live
        self.down_reason = ""
        self.settings: Settings = NO_SETTINGS
        self._camera = camera
        self._index = 0
        self._capture = cv2.VideoCapture()
        self._again_s = 0.0

    @classmethod
    def from_url(cls, url: SourceUrl) -> CameraSource:
        """Read `usb:INDEX`, `csi:SENSOR` or `rtsp://HOST/PATH`, with their options.

        Raises:
            ConfigError: The address or an option is wrong.
        """
        return cls({"usb": usb_camera, "rtsp": _rtsp, "csi": _csi}[url.scheme](url))

    def open(self) -> None:
        """Open the camera.

        Raises:
            SourceError: The camera does not open, or does not keep what it is set to.
        """
        if not self._connect():
            self.down_reason = "the camera does not open"
            raise SourceError(self.down_reason, where=self._camera.where, cure=self._camera.cure)
        what = self._camera.not_kept(self.settings)
        if what:
            self.close()
            self.down_reason = what
            cure = "write what it keeps into its address if that will do, or a value that it can keep"
            raise SourceError(what, where=self._camera.where, cure=cure)

    def next(self, deadline_s: float) -> Frame | Fault | Lull:
        """The camera's newest picture, or a fault."""
        if self.down_reason:
            return self._come_back(deadline_s)
        image = read_image(self._capture)
        if image is None:
            self.close()
            self.down_reason = "the camera delivers no picture"
            self._again_s = 0.0
            return self._fault()
        self._index += 1
        return Frame(image, self._part_id(), self.camera, frame_id=self._index)

    def close(self) -> None:
        """Let the camera go."""
        self._capture.release()

    def _come_back(self, deadline_s: float) -> Fault | Lull:
        if self._again_s > deadline_s:
            time.sleep(max(0.0, deadline_s - time.monotonic()))
            return Lull.IDLE
        time.sleep(max(0.0, self._again_s - time.monotonic()))
        self._again_s = time.monotonic() + _REOPEN_S
        return Lull.IDLE if self._connect() else self._fault()

    def _connect(self) -> bool:
        self._capture = self._camera.connect()
        if not self._capture.isOpened():
            return False
        self.settings = self._camera.read(self._capture)
        self.down_reason = ""
        return True

    def _fault(self) -> Fault:
        self._index += 1
        return Fault(self._part_id(), self.camera, Verdict.MISSED, "the camera delivers no picture")

    def _part_id(self) -> str:
        return f"{self.camera}-{self._index:06d}"


def read_image(capture: cv2.VideoCapture) -> Image | None:
    """The next picture of a camera or file; `None` where it gives none."""
    try:
        delivered, image = capture.read()
    except cv2.error:
        return None
    return np.ascontiguousarray(image, dtype=np.uint8) if delivered else None


def _rtsp(url: SourceUrl) -> Camera:
    host, slash, path = url.target.removeprefix("//").partition("/")
    if not url.target.startswith("//") or not host:
        raise ConfigError(
            "the camera's address is not usable",
            where=url.url,
            cure="write rtsp://HOST/PATH?user=NAME&password_file=FILE",
        )
    if ("user" in url.options) != ("password_file" in url.options):
        raise ConfigError(
            "user and password_file go together",
            where=url.url,
            cure="write rtsp://HOST/PATH?user=NAME&password_file=FILE, or neither of the two",
        )
    return Camera(
        f"rtsp-{host}",
        f"rtsp://{host}{slash}{path}",
        "check that the camera answers, and its user and password",
        lambda: cv2.VideoCapture(
            f"rtsp://{login(url)}{host}{slash}{path}",
            cv2.CAP_FFMPEG,
            [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _OPEN_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _READ_MS],
        ),
        live=False,
        read=lambda _capture: {"stream": path},  # another one of the same host is another camera
    )


def login(url: SourceUrl) -> str:
    """What stands before the host of a network camera; empty where it wants no login.

    Raises:
        SourceError: The password cannot be read, or others can read it.
    """
    if "user" not in url.options:
        return ""
    path = Path(url.options["password_file"])
    try:
        password = path.read_text(encoding="utf-8").strip()
        if path.stat().st_mode & 0o077:
            raise SourceError(
                "the camera's password can be read by others", where=path, cure=private_again(path)
            )
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"the camera's password cannot be read: {reason_of(error)}",
            where=path,
            cure="give password_file=FILE after the camera's address, readable for this user",
        ) from None
    return f"{quote(url.options['user'], safe='')}:{quote(password, safe='')}@"


def _csi(url: SourceUrl) -> Camera:
    if not url.target.isdecimal():
        raise ConfigError(f"{url.target!r} is not a sensor's number", where=url.url, cure="for example csi:0")
    width, height, fps = (
        int(url.number(name, default, low=1, high=100_000))
        for name, default in (("width", 1920), ("height", 1080), ("fps", 30))
    )
    fixed = ""
    settings: dict[str, float | str] = {"width": width, "height": height, "auto_exposure": AUTOMATIC}
    if "exposure_us" in url.options:
        exposure_us = int(url.number("exposure_us", 0, low=10, high=10_000_000))
        gain = url.number("gain", 1, low=1, high=1000)
        exposure_ns = 1000 * exposure_us
        # Ranges without width, as NVIDIA's source knows no fixed values; and its automatic white balance off.
        fixed = (
            f' exposuretimerange="{exposure_ns} {exposure_ns}" gainrange="{gain:g} {gain:g}"'
            ' ispdigitalgainrange="1 1" wbmode=0'
        )
        settings |= {"auto_exposure": MANUAL, "exposure_us": exposure_us, "gain": gain}
    elif "gain" in url.options:
        raise ConfigError("gain goes with an exposure", where=url.url, cure="add exposure_us=MICROSECONDS")
    pipeline = _CSI.format(sensor=url.target, fixed=fixed, width=width, height=height, fps=fps)
    return Camera(
        f"csi{url.target}",
        f"CSI sensor {url.target}",
        "OpenCV needs GStreamer: apt's python3-opencv on a Jetson, never pip's; then check the cable",
        lambda: cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER),
        # As it was asked for: NVIDIA's source cannot be read back.
        read=lambda _capture: settings,
    )
