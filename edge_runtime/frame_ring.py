"""A ring of frames in shared memory: one process writes, one reads, and no name of it is left after a kill.

Each slot has a head and room for one picture. The head's first number is odd while the slot is written (a
sequence lock), and it ends with checksums of itself and of every eighth row, so a picture that was
overwritten or damaged while it was read is found.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from kenpin.errors import SourceError
from kenpin.frame import Image

# sequence, height, width, checksum of the rows, checksum of the head so far
_HEAD = struct.Struct("<QIIII")
_CHECKED = struct.Struct("<QIII")
_HEAD_BYTES = 64
_PAGE = mmap.PAGESIZE
_EVERY = 8  # rows


@dataclass(frozen=True)
class RingSize:
    """The size of a ring.

    Attributes:
        slots: Number of pictures.
        slot_bytes: Room for one picture, a multiple of the page size.
    """

    slots: int
    slot_bytes: int

    @classmethod
    def of(cls, image: Image, slots: int) -> RingSize:
        """A ring for pictures of the size of this one."""
        return cls(slots, -(-(_HEAD_BYTES + image.nbytes) // _PAGE) * _PAGE)

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.slots * self.slot_bytes


class RingWriter:
    """Makes the memory and writes into it.

    Args:
        size: Its size.

    Attributes:
        handle: File descriptor of the memory, for the reader.

    Raises:
        SourceError: There is not enough memory.
    """

    def __init__(self, size: RingSize) -> None:
        self.size = size
        try:
            self.handle = os.memfd_create("kenpin-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(self.handle, size.bytes)
            _seal(self.handle)
            self._memory = mmap.mmap(self.handle, size.bytes)
        except OSError as error:
            raise SourceError(
                f"no shared memory for {size.slots} frames of {size.slot_bytes / 1e6:.1f} MB: {error.strerror}",
                cure="free memory, or use a smaller picture",
            ) from None
        self._sequences = [0] * size.slots

    def fits(self, image: Image) -> bool:
        """Whether a picture has room in a slot."""
        return _HEAD_BYTES + image.nbytes <= self.size.slot_bytes

    def write(self, slot: int, image: Image) -> None:
        """Write a picture into a slot that nobody reads.

        Args:
            slot: Number of the slot.
            image: BGR uint8, shape (H, W, 3); it fits.
        """
        at = slot * self.size.slot_bytes
        self._sequences[slot] += 1
        struct.pack_into("<Q", self._memory, at, self._sequences[slot])
        height, width = image.shape[:2]
        room = np.frombuffer(self._memory, np.uint8, image.nbytes, at + _HEAD_BYTES).reshape(image.shape)
        room[:] = image
        self._sequences[slot] += 1
        head = _CHECKED.pack(self._sequences[slot], height, width, _checksum(room))
        struct.pack_into(f"<{len(head)}sI", self._memory, at, head, zlib.crc32(head))

    def close(self) -> None:
        """Give the memory back; a reader keeps what it has."""
        self._memory.close()
        os.close(self.handle)


class RingReader:
    """Reads what a writer of another process wrote.

    Args:
        handle: File descriptor of the memory; it is closed here.
        size: Its size.

    Raises:
        SourceError: The memory is not what was said.
    """

    def __init__(self, handle: int, size: RingSize) -> None:
        self._size = size
        try:
            self._memory = mmap.mmap(handle, size.bytes, prot=mmap.PROT_READ)
        except (OSError, ValueError) as error:
            raise SourceError(
                f"the frames in shared memory cannot be read: {error}", cure="restart the station"
            ) from None
        finally:
            os.close(handle)

    def read(self, slot: int) -> Image | None:
        """The picture in a slot: BGR uint8 (H, W, 3), read-only, no copy; `None` where it is damaged."""
        if not 0 <= slot < self._size.slots:
            return None
        at = slot * self._size.slot_bytes
        sequence, height, width, rows, head = _HEAD.unpack_from(self._memory, at)
        size = height * width * 3
        if sequence % 2 or not 0 < size <= self._size.slot_bytes - _HEAD_BYTES:
            return None
        if zlib.crc32(self._memory[at : at + _CHECKED.size]) != head:
            return None
        image = np.frombuffer(self._memory, np.uint8, size, at + _HEAD_BYTES).reshape(height, width, 3)
        return image if _checksum(image) == rows else None


def _checksum(image: Image) -> int:
    checksum = 0
    for row in image.reshape(len(image), -1)[::_EVERY]:
        checksum = zlib.crc32(row, checksum)
    return checksum


def _seal(handle: int) -> None:
    """Nobody may change the size: a mapping of memory that is gone would kill the reader."""
    fcntl.fcntl(handle, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
