"""What is known of a camera that OpenCV opens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import cv2

from kenpin.edge_runtime.source import NO_SETTINGS, Settings

MANUAL, AUTOMATIC = 1, 3  # V4L2_EXPOSURE_MANUAL, V4L2_EXPOSURE_APERTURE_PRIORITY


@dataclass(frozen=True)
class Camera:
    """One camera.

    Attributes:
        name: Its name.
        where: Device or address, for messages.
        cure: What to check when it does not open.
        connect: Opens it.
        live: Whether its pictures come uncompressed, so that no two are alike.
        read: Reads back how it is set.
        wish: What it was asked for, by the names of its settings.
    """

    name: str
    where: str
    cure: str
    connect: Callable[[], cv2.VideoCapture]
    live: bool = True
    read: Callable[[cv2.VideoCapture], Settings] = field(default=lambda _capture: NO_SETTINGS)
    wish: Mapping[str, float] = field(default_factory=dict)

    def not_kept(self, settings: Settings) -> str:
        """What it was asked for and is not set to, in words; empty where it kept all.

        It need not have an automatic.

        Args:
            settings: How it is set.
        """
        for name, value in self.wish.items():
            if name not in settings and not name.startswith("auto_"):
                return f"the camera has no {name} that could be set"
            if settings.get(name, value) != value:
                return f"{name} was set to {value:g}, and the camera keeps {settings[name]:g}"
        return ""
