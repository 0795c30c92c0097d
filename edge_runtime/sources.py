"""Where frames come from: files, recordings, cameras, drawn parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kenpin.edge_runtime.aravis_source import aravis_source
from kenpin.edge_runtime.camera_source import CameraSource
from kenpin.edge_runtime.folder_source import FolderSource
from kenpin.edge_runtime.genicam_settings import Wish
from kenpin.edge_runtime.pylon_source import pylon_source
from kenpin.edge_runtime.replay_source import ReplaySource
from kenpin.edge_runtime.source import FrameSource, SourceUrl
from kenpin.edge_runtime.synthetic_source import SyntheticSource
from kenpin.edge_runtime.video_source import VideoSource

_MAKE: Mapping[str, Callable[[SourceUrl], FrameSource]] = {
    "folder": FolderSource.from_url,
    "video": VideoSource.from_url,
    "replay": ReplaySource.from_url,
    "usb": CameraSource.from_url,
    "rtsp": CameraSource.from_url,
    "csi": CameraSource.from_url,
    "aravis": aravis_source,
    "pylon": pylon_source,
    "synthetic": SyntheticSource.from_url,
}

_GENICAM = ("aravis", "pylon")


def make_source(url: str) -> FrameSource:
    """Make the source of an address; it is not opened yet.

    * `folder:DIR?rate=0&loop=0`: every picture is one part; `rate` parts per second, 0 = as fast as they are
      taken; `loop=1` starts over at the end.
    * `video:FILE`: every frame is one part.
    * `replay:DIR?speed=1`: what `kenpin record` wrote, with its own times, numbers and gaps.
    * `usb:INDEX?width=&height=&fps=`, `csi:SENSOR?width=&height=&fps=`, `rtsp://HOST/PATH?user=&password_file=`:
      the newest picture of a camera, again and again.
    * `aravis:CAMERA?exposure_us=&gain_db=&pixel_format=&width=&height=&trigger=off`, `pylon:SERIAL?…`: GigE and
      USB3 Vision cameras; `trigger=software` or a cable, `trigger=line1`.
    * `synthetic:PRODUCT?seed=1&rate=10&defects=0.2`: drawn parts on a line that does not wait; with
      `trigger=1` a part for each trigger; with `width=&height=` larger pictures.

    Raises:
        ConfigError: The address is wrong.
    """
    parsed = SourceUrl.parse(url)
    return _MAKE[parsed.scheme](parsed)


def make_sources(urls: Sequence[str]) -> list[FrameSource]:
    """Make the sources of a station, each with a name of its own; none is opened yet.

    Two channels of one RTSP server, or two folders `good`, had one name: what is watched per camera, such
    as a picture that stands still, would see both in turn and find nothing.

    Args:
        urls: Their addresses, in the station's order.

    Raises:
        ConfigError: One is wrong.
    """
    made = [make_source(url) for url in urls]
    names: set[str] = set()
    for source in made:
        base, number = source.camera, 1
        while source.camera in names:
            number += 1
            source.camera = f"{base}-{number}"
        names.add(source.camera)
    return made


def check_address(url: str) -> None:
    """Read an address to its last option. Nothing is opened, and the packages of cameras may be missing here.

    Raises:
        ConfigError: The address is wrong.
    """
    parsed = SourceUrl.parse(url)
    if parsed.scheme in _GENICAM:
        Wish.from_url(parsed)
    else:
        _MAKE[parsed.scheme](parsed).close()
