"""What is set in a GenICam camera by the names of the SFNC, and read back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kenpin.edge_runtime.genicam_features import AUTOMATICS, Features, what_else
from kenpin.edge_runtime.pixel_format import PIXEL_FORMATS, Layout, code_of
from kenpin.edge_runtime.source import Settings, SourceUrl
from kenpin.errors import ConfigError, SourceError

# Names of the SFNC, then those that cameras had before it.
_EXPOSURE = ("ExposureTime", "ExposureTimeAbs")
_GAIN = ("Gain", "GainAbs")
_BALANCE = ("BalanceRatio", "BalanceRatioAbs")
_RATE = (
    "ResultingFrameRate",
    "AcquisitionResultingFrameRate",
    "ResultingFrameRateAbs",
    "AcquisitionFrameRate",
    "AcquisitionFrameRateAbs",
)
# Cameras round to their own steps. Both are less than half a grey level of 256.
_EXPOSURE_OFF = 0.001  # share
_GAIN_OFF_DB = 0.01


@dataclass(frozen=True)
class Wish:
    """What the address asks of a camera; what is left out stays as it is in the camera.

    Attributes:
        trigger: `off` = it runs freely, `software` = `FrameSource.trigger`, `line1` = a cable at that input.
        exposure_us: Exposure, microseconds.
        gain_db: Gain, dB.
        pixel_format: One of `PIXEL_FORMATS`.
        width: Columns.
        height: Rows.
    """

    trigger: str = "off"
    exposure_us: float | None = None
    gain_db: float | None = None
    pixel_format: str | None = None
    width: int | None = None
    height: int | None = None

    @classmethod
    def from_url(cls, url: SourceUrl) -> Wish:
        """Read `?exposure_us=&gain_db=&trigger=&pixel_format=&width=&height=`.

        Raises:
            ConfigError: An option is out of range.
        """
        trigger = url.options.get("trigger", "off")
        if not re.fullmatch(r"off|software|line\d", trigger):
            raise ConfigError(
                f"trigger={trigger} is not usable", where=url.url, cure="give off, software or line0 to line9"
            )
        pixel_format = url.options.get("pixel_format")
        if pixel_format is not None and code_of(pixel_format) is None:
            raise ConfigError(
                f"pictures in {pixel_format} cannot be used",
                where=url.url,
                cure=f"give one of {', '.join(PIXEL_FORMATS)}",
            )
        width, height = (_number(url, side, low=1, high=100_000) for side in ("width", "height"))
        return cls(
            trigger,
            _number(url, "exposure_us", low=1, high=10_000_000),
            _number(url, "gain_db", low=-60, high=100),
            pixel_format,
            None if width is None else int(width),
            None if height is None else int(height),
        )


@dataclass(frozen=True)
class Opened:
    """A camera as it was opened.

    Attributes:
        settings: What a calibration is signed for, as the camera says it.
        layout: Of each of its pictures.
        period_s: Shortest time between two pictures, seconds; 0 where the camera does not say.
    """

    settings: Settings
    layout: Layout
    period_s: float


def set_up(camera: Features, wish: Wish) -> Opened:
    """Write what is wished, read everything back.

    The automatics are switched off: under them a picture would change without anybody having changed anything.

    Raises:
        SourceError: The camera refuses a value, keeps another one, or its pictures cannot become BGR.
    """
    for name, size in (("PixelFormat", wish.pixel_format), ("Width", wish.width), ("Height", wish.height)):
        if size is not None:
            _set(camera, name, size)
    for name in ("ExposureAuto", "GainAuto", *(("BalanceWhiteAuto",) if _has_colour(camera) else ())):
        if camera.has(name):
            _set(camera, name, "Off")
    for name in AUTOMATICS:
        if "Off" in camera.choices(name):
            _set(camera, name, "Off")
    if "Timed" in camera.choices("ExposureMode"):
        _set(camera, "ExposureMode", "Timed")  # not as long as the trigger's pulse happens to be
    if camera.has("AcquisitionMode"):
        _set(camera, "AcquisitionMode", "Continuous")
    if wish.exposure_us is not None:
        exposure = _named(camera, _EXPOSURE, "exposure_us")
        _set(camera, exposure, wish.exposure_us, off=wish.exposure_us * _EXPOSURE_OFF)
    if wish.gain_db is not None:
        _set(camera, _named(camera, _GAIN, "gain_db"), wish.gain_db, off=_GAIN_OFF_DB)
    _set_trigger(camera, wish.trigger)
    return _read_back(camera, wish.trigger)


def _set_trigger(camera: Features, trigger: str) -> None:
    if trigger == "off" and not camera.has("TriggerMode"):
        return
    _set(camera, "TriggerSelector", "FrameStart")
    if trigger != "off":
        _set(camera, "TriggerSource", trigger.capitalize())
    if trigger.startswith("line"):
        _set(camera, "TriggerActivation", "RisingEdge")
    _set(camera, "TriggerMode", "Off" if trigger == "off" else "On")


def _read_back(camera: Features, trigger: str) -> Opened:
    pixel_format = str(camera.read("PixelFormat"))
    code = code_of(pixel_format)
    if code is None:
        raise _no_format(pixel_format, camera.where)
    layout = Layout(code, int(camera.read("Height")), int(camera.read("Width")))
    settings: dict[str, float | str] = {
        "model": camera.read("DeviceModelName"),
        "pixel_format": pixel_format,
        "width": layout.width,
        "height": layout.height,
        "trigger": trigger,
    }
    if exposure := _first(camera, _EXPOSURE):
        settings["exposure_us"] = round(float(camera.read(exposure)), 3)
    if gain := _first(camera, (*_GAIN, "GainRaw")):
        settings["gain_raw" if gain == "GainRaw" else "gain_db"] = round(float(camera.read(gain)), 3)
    if _has_colour(camera):
        settings |= _white_balance(camera)
    settings |= what_else(camera)
    rate_name = _first(camera, _RATE)
    rate = float(camera.read(rate_name)) if rate_name else 0.0
    exposure_s = float(settings.get("exposure_us", 0.0)) / 1e6
    return Opened(settings, layout, max(1 / rate if rate > 0 else 0.0, exposure_s))


def _has_colour(camera: Features) -> bool:
    return not str(camera.read("PixelFormat")).startswith("Mono")


def _white_balance(camera: Features) -> dict[str, float]:
    """Gain of red and blue, as far as the camera tells."""
    found = {}
    for colour in ("Red", "Blue"):
        if colour in camera.choices("BalanceRatioSelector"):
            camera.write("BalanceRatioSelector", colour)
            if balance := _first(camera, _BALANCE):
                found[f"balance_{colour.lower()}"] = round(float(camera.read(balance)), 3)
    return found


def _set(camera: Features, name: str, value: float | str, *, off: float = 0.0) -> None:
    """Write a feature and read it back; it may be off by so much."""
    choices = camera.choices(name) if isinstance(value, str) else ()
    if isinstance(value, str) and value not in choices:
        raise SourceError(
            f"the camera has no {name}={value}",
            where=camera.where,
            cure=f"it has {', '.join(choices)}"
            if choices
            else f"it has no {name} at all: leave this option out",
        )
    camera.write(name, value)
    kept = camera.read(name)
    same = kept == value if isinstance(kept, str) or isinstance(value, str) else abs(kept - value) <= off
    if not same:
        raise SourceError(
            f"{name} was set to {value}, and the camera keeps {kept}",
            where=camera.where,
            cure=f"write {kept} into its address if that will do, or a value that the camera can keep",
        )


def _named(camera: Features, names: Sequence[str], option: str) -> str:
    name = _first(camera, names)
    if not name:
        raise SourceError(
            f"the camera has no {names[0]} that could be set",
            where=camera.where,
            cure=f"leave out {option}, and set it with the maker's own program",
        )
    return name


def _first(camera: Features, names: Sequence[str]) -> str:
    return next((name for name in names if camera.has(name)), "")


def _number(url: SourceUrl, name: str, *, low: float, high: float) -> float | None:
    return url.number(name, low, low=low, high=high) if name in url.options else None


def _no_format(name: str, where: str) -> SourceError:
    return SourceError(
        f"pictures in {name} cannot be used",
        where=where,
        cure=f"give pixel_format in its address, one of {', '.join(PIXEL_FORMATS)}",
    )
