"""The NVIDIA driver, libcuda, through ctypes: is there one, and what pycuda does not offer."""

from __future__ import annotations

import ctypes

from kenpin.errors import DeviceLost, EngineError

_LIBRARY = "libcuda.so.1"
_WITHOUT = "or run the station with ONNX Runtime on the CPU"

_NO_CONTEXT = 201

# Results after which no call succeeds again in this process: "CUDA Driver API", CUresult.
_LOST = frozenset(
    {
        4,  # the driver is shutting down
        214,  # memory error that ECC cannot correct
        220,  # NVLink
        226,  # contained
        700,  # illegal address
        702,  # a kernel ran too long
        709,  # the context was destroyed
        710,  # assert
        714,  # hardware stack
        715,  # illegal instruction
        716,  # misaligned address
        717,  # address space
        718,  # program counter
        719,  # launch failed
        721,  # a kernel left tensor memory behind (Thor)
        911,  # a device outside of CUDA
        999,  # unknown
    }
)


class Driver:
    """The driver of a machine that has a CUDA device.

    Raises:
        EngineError: There is no driver, it does not start, or it sees no device.
    """

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(_LIBRARY)
        except OSError:
            raise EngineError(
                f"there is no NVIDIA driver: {_LIBRARY} is not found",
                cure=f"install the driver (on a Jetson it is part of JetPack), {_WITHOUT}",
            ) from None
        self._start()
        self.version = self._number("cuDriverGetVersion")
        self.devices = self._number("cuDeviceGetCount")
        if not self.devices:
            raise EngineError("the NVIDIA driver sees no device", cure=f"check nvidia-smi, {_WITHOUT}")

    def call(self, name: str, *arguments: object) -> None:
        """Call a function of the driver.

        Raises:
            DeviceLost: Nothing will run on the device again in this process.
            EngineError: The call failed, or this driver does not have the function.
        """
        result = self.result(name, *arguments)
        if result:
            raise self._error(result, f"{name} failed: {self._says(result)}")

    def result(self, name: str, *arguments: object) -> int:
        """Call a function of the driver and return its CUresult, 0 where it succeeded."""
        try:
            function = getattr(self._library, name)
        except AttributeError:
            raise EngineError(
                f"the NVIDIA driver has no {name}",
                cure="update it; JetPack 6.1 is the oldest one that is supported",
            ) from None
        return int(function(*arguments))

    def standing_error(self, said: str) -> EngineError | None:
        """What fails each call of this thread, not only the last one; None where that is not so.

        Args:
            said: What the last one that failed says.
        """
        result = self.result("cuCtxSynchronize")
        return self._error(result, said) if result in _LOST or result == _NO_CONTEXT else None

    def check_thread(self) -> None:
        """See that this thread may free: from others, pycuda only warns, and the memory is gone.

        Raises:
            EngineError: This thread has no context.
        """
        self.call("cuCtxGetDevice", ctypes.byref(ctypes.c_int()))

    def pop_released(self) -> None:
        """Take a primary context, which was just released, from this thread: releasing leaves it there."""
        # Its result tells nothing: the context may be gone with its last user.
        self.result("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def _start(self) -> None:
        result = self.result("cuInit", 0)
        if result:
            raise EngineError(
                f"the NVIDIA driver does not start: {self._says(result)} (CUDA error {result})",
                cure=f"see whether nvidia-smi works and this user may open /dev/nvidia*, {_WITHOUT}",
            )

    @staticmethod
    def _error(result: int, said: str) -> EngineError:
        if result in _LOST:
            return DeviceLost(
                f"the GPU is lost, {said} (CUDA error {result})",
                cure="restart the station; if it comes back, check power supply, temperature and dmesg",
            )
        if result == _NO_CONTEXT:
            cure = "put the call into `with device.current():`"
            return EngineError(f"this thread has no GPU context, {said}", cure=cure)
        cure = "see nvidia-smi or tegrastats for what else runs there"
        return EngineError(f"the GPU refused, {said} (CUDA error {result})", cure=cure)

    def _number(self, name: str) -> int:
        number = ctypes.c_int()
        self.call(name, ctypes.byref(number))
        return number.value

    def _says(self, result: int) -> str:
        text = ctypes.c_char_p()
        self.result("cuGetErrorString", result, ctypes.byref(text))
        return text.value.decode(errors="replace") if text.value else "unknown error"
