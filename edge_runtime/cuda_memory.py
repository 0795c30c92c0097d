"""Memory of the device, and memory of the host that the device reaches by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from kenpin.edge_runtime.cuda_session import Session


class Buffer:
    """Memory of the device.

    Attributes:
        pointer: Its address there; 0 once it is freed.
        nbytes: Its size; 0 once it is freed.
    """

    def __init__(self, session: Session, nbytes: int) -> None:
        self._session = session
        with session.told:
            self._raw = session.cuda.mem_alloc(nbytes)
        self.pointer, self.nbytes = int(self._raw), nbytes

    def free(self) -> None:
        """Give it back; a second time does nothing."""
        self._session.driver.check_thread()
        # Nobody else knows pycuda's object, which gives its memory back as it goes.
        self._raw, self.pointer, self.nbytes = None, 0, 0
        self._session.disown(self)


class Pinned:
    """Memory of the host that the device copies from and to by itself.

    Attributes:
        array: The memory. It is gone after `free`: whoever took a view of it before must not use that any more.
        pointer: Its address on the device, 0 where it is not mapped.
    """

    def __init__(self, session: Session, shape: tuple[int, ...], dtype: DTypeLike, *, mapped: bool) -> None:
        self._session = session
        flags = session.cuda.host_alloc_flags.DEVICEMAP if mapped else 0
        with session.told:
            self.array: NDArray[Any] = session.cuda.pagelocked_empty(shape, dtype, mem_flags=flags)
            raw: Any = self.array.base
            self.pointer: int = raw.get_device_pointer() if mapped else 0

    def free(self) -> None:
        """Give it back; a second time does nothing."""
        self._session.driver.check_thread()
        raw: Any = self.array.base
        self.array, self.pointer = np.empty(0, self.array.dtype), 0
        if raw is not None:
            with self._session.told:
                raw.free()
        self._session.disown(self)
