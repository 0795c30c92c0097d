"""USB cameras through OpenCV and V4L2: what is set, and what is read back."""

from __future__ import annotations

from collections.abc import Mapping

import cv2

from kenpin.edge_runtime.opencv_camera import MANUAL, Camera
from kenpin.edge_runtime.source import Settings, SourceUrl
from kenpin.errors import ConfigError

_EXPOSURE_US = 100  # the unit of V4L2_CID_EXPOSURE_ABSOLUTE, microseconds
_SIZE = {"width": cv2.CAP_PROP_FRAME_WIDTH, "height": cv2.CAP_PROP_FRAME_HEIGHT}
_AUTOMATICS = {
    "auto_exposure": cv2.CAP_PROP_AUTO_EXPOSURE,
    "auto_white_balance": cv2.CAP_PROP_AUTO_WB,
    "auto_focus": cv2.CAP_PROP_AUTOFOCUS,
}
# All that changes a picture and that OpenCV can tell.
_SIGNED = {
    **_SIZE,
    **_AUTOMATICS,
    "gain": cv2.CAP_PROP_GAIN,
    "exposure_us": cv2.CAP_PROP_EXPOSURE,
    "white_balance_k": cv2.CAP_PROP_WB_TEMPERATURE,
    "focus": cv2.CAP_PROP_FOCUS,
    "brightness": cv2.CAP_PROP_BRIGHTNESS,
    "contrast": cv2.CAP_PROP_CONTRAST,
    "saturation": cv2.CAP_PROP_SATURATION,
    "hue": cv2.CAP_PROP_HUE,
    "gamma": cv2.CAP_PROP_GAMMA,
    "sharpness": cv2.CAP_PROP_SHARPNESS,
    "backlight": cv2.CAP_PROP_BACKLIGHT,
    "zoom": cv2.CAP_PROP_ZOOM,
}
_ABSENT = -1  # what OpenCV says of a control that the camera has not


def usb_camera(url: SourceUrl) -> Camera:
    """Read `usb:INDEX?width=&height=&fps=&exposure_us=`.

    Raises:
        ConfigError: The address or an option is wrong.
    """
    if not url.target.isdecimal():
        raise ConfigError(f"{url.target!r} is not a camera's number", where=url.url, cure="for example usb:0")
    wish = {name: url.number(name, 0, low=1, high=100_000) for name in _SIZE if name in url.options}
    fps = url.number("fps", 0, low=1, high=100_000) if "fps" in url.options else None
    if "exposure_us" in url.options:
        exposure_us = url.number("exposure_us", 0, low=100, high=10_000_000)
        # Under an automatic a picture would change without anybody having changed anything.
        wish |= {"auto_exposure": MANUAL, "auto_white_balance": 0, "auto_focus": 0}
        wish["exposure_us"] = round(exposure_us / _EXPOSURE_US) * _EXPOSURE_US
    return Camera(
        f"usb{url.target}",
        f"/dev/video{url.target}",
        "check the cable, that no other program uses it, and that you may read it (group video)",
        lambda: _open(int(url.target), wish, fps),
        read=_settings,
        wish=wish,
    )


def _open(device: int, wish: Mapping[str, float], fps: float | None) -> cv2.VideoCapture:
    # Left to itself, an OpenCV that has GStreamer takes that, which knows none of the controls.
    capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
    for name, value in wish.items():
        capture.set(_SIGNED[name], value / _EXPOSURE_US if name == "exposure_us" else value)
    if fps is not None:
        capture.set(cv2.CAP_PROP_FPS, fps)
    # Otherwise old pictures queue in the driver and a verdict is about a part that has long passed.
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return capture


def _settings(capture: cv2.VideoCapture) -> Settings:
    """What V4L2 says; what the camera has not is left out, and what an automatic moves."""
    told = {name: capture.get(prop) for name, prop in _SIGNED.items()}
    read = {name: value for name, value in told.items() if value != _ABSENT}
    moved = set()
    if read.get("auto_exposure", MANUAL) != MANUAL:
        moved |= {"exposure_us", "gain"}
    if read.get("auto_white_balance"):
        moved.add("white_balance_k")
    if read.get("auto_focus"):
        moved.add("focus")
    settings: dict[str, float | str] = {name: value for name, value in read.items() if name not in moved}
    if "exposure_us" in settings:
        settings["exposure_us"] = read["exposure_us"] * _EXPOSURE_US
    code = int(capture.get(cv2.CAP_PROP_FOURCC))
    if code > 0:
        settings["pixel_format"] = code.to_bytes(4, "little").decode("ascii", "replace")
    return settings
