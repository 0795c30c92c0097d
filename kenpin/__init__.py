"""kenpin: visual inspection stations from pictures of good parts."""

import os

__version__ = "0.1.0"

# OpenCV reads this once, when it is first imported. A 1 MB file can otherwise unpack to gigabytes.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**26))
# A camera that is away is tried again for ever, and kenpin says so once; OpenCV would warn each time.
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
