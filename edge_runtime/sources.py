"""Where frames come from: a folder of pictures, a video, a USB camera, drawn parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kenpin.edge_runtime.folder_source import FolderSource
from kenpin.edge_runtime.source import Source, SourceUrl
from kenpin.edge_runtime.synthetic_source import SyntheticSource
from kenpin.edge_runtime.video_source import CameraSource, VideoSource

_OPEN: Mapping[str, Callable[[SourceUrl], Source]] = {
    "folder": FolderSource.open,
    "video": VideoSource.open,
    "usb": CameraSource.open,
    "synthetic": SyntheticSource.open,
}


def open_source(url: str) -> Source:
    """Open a source by its address.

    * `folder:DIR?rate=0&loop=0`: every picture is one part; `rate` parts per second, 0 = as fast as they are
      taken; `loop=1` starts over at the end.
    * `video:FILE`: every frame is one part.
    * `usb:INDEX?width=&height=&fps=`: the newest picture of a camera, again and again.
    * `synthetic:PRODUCT?seed=1&rate=10&defects=0.2`: drawn parts on a line that does not wait.

    Raises:
        ConfigError: The address is wrong.
        SourceError: The folder, file or camera does not open.
    """
    parsed = SourceUrl.parse(url)
    return _OPEN[parsed.scheme](parsed)
