"""The features of a GenICam camera, and which of them change a picture beside those that an address can set."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import Protocol

from kenpin.errors import SourceError

# Automatics beside those of exposure, gain and white balance; few cameras have any of them.
AUTOMATICS = (
    "BlackLevelAuto",
    "BlackLevelBalanceAuto",
    "GainAutoBalance",
    "GammaAuto",
    "SharpnessAuto",
    "HueAuto",
    "SaturationAuto",
    "FocusAuto",
)
# What else changes a picture, by names of the SFNC and of makers. It is not written, and signed all the same:
# a camera that was without power starts with what its user set says, such as another place on the sensor.
_SIGNED = (
    *("OffsetX", "OffsetY", "ReverseX", "ReverseY", "TestPattern", "TestImageSelector"),
    *("BinningHorizontal", "BinningVertical", "BinningHorizontalMode", "BinningVerticalMode"),
    *("DecimationHorizontal", "DecimationVertical", "ExposureMode", "TriggerDelay", "TriggerDelayAbs"),
    *("BlackLevel", "BlackLevelAbs", "BlackLevelRaw", "DigitalShift", "LUTEnable"),
    *("GammaEnable", "Gamma", "GammaSelector", "ColorTransformationEnable", "LightSourceSelector"),
    *("LightSourcePreset", "Hue", "Saturation", "Sharpness", "SharpnessEnable", "SharpnessEnhancement"),
    *("NoiseReduction", "Brightness", "Contrast", "DefectCorrectStaticEnable", "DefectPixelCorrection"),
    *("BslLightSourcePreset", "BslColorSpace", "BslHue", "BslSaturation", "BslBrightness", "BslContrast"),
    *("BslContrastMode", "BslSharpnessEnhancement", "BslNoiseReduction"),
)
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class Features(Protocol):
    """A camera's features.

    Each method raises `SourceError` where the camera does not answer or refuses.
    """

    where: str

    def has(self, name: str) -> bool:
        """Whether the feature is there now."""
        ...

    def choices(self, name: str) -> Sequence[str]:
        """What the feature can be set to, where it is a choice."""
        ...

    def read(self, name: str) -> float | str:
        """Its value, from the camera itself."""
        ...

    def write(self, name: str, value: float | str) -> None:
        """Set it."""
        ...


def what_else(camera: Features) -> dict[str, float | str]:
    """What else changes a picture, as far as the camera tells: `OffsetX` as `offset_x`."""
    found: dict[str, float | str] = {}
    for name in _SIGNED:
        # A camera that says it had a feature and then cannot read it can be used all the same.
        with contextlib.suppress(SourceError):
            if camera.has(name):
                value = camera.read(name)
                found[_WORD.sub("_", name).lower()] = value if isinstance(value, str) else round(value, 3)
    return found
