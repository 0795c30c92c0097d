"""Kernels: functions that run on the device."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from kenpin.edge_runtime.cuda_session import Session
from kenpin.edge_runtime.cuda_stream import Stream
from kenpin.errors import EngineError

_NVCC = "/usr/local/cuda/bin/nvcc"


class Kernel:
    """A function that runs on the device."""

    def __init__(self, session: Session, code: bytes, name: str) -> None:
        self._session = session
        with session.told:
            self._module = session.cuda.module_from_buffer(code)
            self._function = self._module.get_function(name)

    def __call__(
        self, stream: Stream, grid: tuple[int, int, int], block: tuple[int, int, int], *arguments: np.generic
    ) -> None:
        """Enqueue it.

        Args:
            stream: Where.
            grid: Blocks along x, y and z.
            block: Threads of a block along x, y and z.
            arguments: In the types of the kernel: `numpy.int32` for int, `numpy.uint64` for a pointer.
        """
        with self._session.told:
            self._function(*arguments, grid=grid, block=block, stream=stream.raw)

    def free(self) -> None:
        """Give it back; a second time does nothing."""
        self._session.driver.check_thread()
        self._module = self._function = None
        self._session.disown(self)


def compiled(path: Path, compute_capability: tuple[int, int]) -> bytes:
    """Machine code for one kind of device."""
    architecture = "sm_{}{}".format(*compute_capability)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        nvcc = [shutil.which("nvcc") or _NVCC, "-cubin", f"-arch={architecture}", "-fmad=false"]
        try:
            subprocess.run([*nvcc, "-o", cubin, path], check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise EngineError(
                "there is no PTX beside the kernel, and no nvcc to compile it",
                where=path,
                cure="install kenpin again, or the CUDA toolkit",
            ) from None
        except subprocess.CalledProcessError as error:
            raise EngineError(
                f"the kernel does not compile for {architecture}: {error.stderr.strip()[:300]}",
                where=path,
                cure="install kenpin again, or another CUDA toolkit",
            ) from None
        return cubin.read_bytes()
