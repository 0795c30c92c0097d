"""kenpin: visual inspection stations from pictures of good parts."""

import os

__version__ = "0.1.0"

# OpenCV reads this once, when it is first imported. A 1 MB file can otherwise unpack to gigabytes.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**26))
