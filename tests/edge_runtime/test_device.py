"""The real pycuda on a driver in host memory: lifetimes, threads, errors. It shows nothing of a GPU's speed."""

from __future__ import annotations

import ctypes
import gc
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import kenpin.edge_runtime.device as device_module
from kenpin.edge_runtime.device import Device
from kenpin.errors import DeviceLost, EngineError

ILLEGAL_ADDRESS = 700
SOURCE = Path(device_module.__file__).with_name("to_input.cu")


@pytest.fixture
def device(fake_cuda: ctypes.CDLL) -> Iterator[Device]:
    with Device() as opened:
        yield opened
    gc.collect()


def run_python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", program, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_says_what_it_is(device: Device) -> None:
    assert (device.name, device.compute_capability, device.driver_version) == ("Fake Orin", (8, 7), 12060)
    assert device.multiprocessors == 8
    assert device.integrated is True


def test_bytes_go_there_and_back(device: Device) -> None:
    with device.current():
        stream, buffer = device.stream(), device.buffer(24)
        there, back = device.pinned((2, 3), np.float32), device.pinned((2, 3), np.float32)
        there.array[:] = np.arange(6).reshape(2, 3)
        device.upload(buffer, there, stream)
        device.download(back, buffer, stream)
        back.array[:] = -1
        stream.synchronize()
        assert back.array.tolist() == there.array.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_events_measure_between_marks(device: Device) -> None:
    with device.current():
        stream, first, last = device.stream(), device.event(), device.event()
        first.record(stream)
        last.record(stream)
        assert 0 <= last.elapsed_ms(first) < 1000


@pytest.mark.parametrize("integrated", [True, False])
def test_host_memory_is_mapped_where_the_device_shares_it(fake_cuda: ctypes.CDLL, *, integrated: bool) -> None:
    fake_cuda.fake_set(1, integrated)
    with Device() as device, device.current():
        assert device.integrated is integrated
        pinned = device.pinned((4,), np.uint8)
        assert bool(pinned.pointer) is integrated
        assert device.pinned((4,), np.uint8, mapped=True).pointer
        assert not device.pinned((4,), np.uint8, mapped=False).pointer
        if integrated:
            assert pinned.pointer == pinned.array.ctypes.data


def test_live_is_what_the_driver_counts(device: Device, fake_cuda: ctypes.CDLL) -> None:
    with device.current():
        device.stream()
        buffer, pinned = device.buffer(8), device.pinned((8,), np.uint8)
        assert device.live == fake_cuda.fake_memory_live() == 2
        buffer.free()
        buffer.free()
        assert (buffer.pointer, buffer.nbytes) == (0, 0)
        assert device.live == fake_cuda.fake_memory_live() == 1
        view = pinned.array[:4]
        pinned.free()
        pinned.free()
        assert (pinned.pointer, pinned.array.size) == (0, 0)
        assert device.live == fake_cuda.fake_memory_live() == 0, "although there is a view of it"
        del view


def test_closing_frees_what_is_alive_and_still_referred_to(fake_cuda: ctypes.CDLL) -> None:
    with Device() as device:
        with device.current():
            stream, event, kernel = device.stream(), device.event(), device.kernel(SOURCE, "to_input")
            buffer, pinned = device.buffer(8), device.pinned((8,), np.uint8)
            graph = device.record_graph(stream, lambda: device.upload(buffer, pinned, stream))
        assert (fake_cuda.fake_memory_live(), fake_cuda.fake_contexts_live()) == (2, 1)
    left = fake_cuda.fake_memory_live(), fake_cuda.fake_handles_live(), fake_cuda.fake_contexts_live()
    assert left == (0, 0, 0)
    assert device.live == 0
    device.close()
    with pytest.raises(EngineError, match="was closed"), device.current():
        pass
    assert event is not None
    assert kernel is not None
    assert graph is not None


@pytest.mark.parametrize("where", ["another thread", "within current"])
def test_closing_works_anywhere(fake_cuda: ctypes.CDLL, where: str) -> None:
    device = Device()
    with device.current():
        device.buffer(8)
        if where == "within current":
            device.close()
    if where == "another thread":
        with ThreadPoolExecutor(1) as pool:
            pool.submit(device.close).result()
    assert fake_cuda.fake_contexts_live() == 0
    assert fake_cuda.cuCtxGetDevice(ctypes.byref(ctypes.c_int())) == 201, "a context is left on this thread"


def test_two_devices_share_one_context(fake_cuda: ctypes.CDLL) -> None:
    """As TensorRT does: closing ours leaves the other one's work alone."""
    with Device() as other, other.current():
        buffer = other.buffer(4)
        with Device() as device, device.current():
            device.buffer(4)
        assert fake_cuda.fake_memory_live() == 1
        buffer.free()


def test_threads_share_a_device(device: Device, fake_cuda: ctypes.CDLL) -> None:
    def work(number: int) -> int:
        with device.current():
            stream, buffer = device.stream(), device.buffer(4)
            there, back = device.pinned((1,), np.int32), device.pinned((1,), np.int32)
            for _ in range(20):
                there.array[:] = number
                device.upload(buffer, there, stream)
                device.download(back, buffer, stream)
                stream.synchronize()
            answer = int(back.array[0])
            for owned in (buffer, there, back, stream):
                owned.free()
            return answer

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(8))) == list(range(8))
    assert device.live == fake_cuda.fake_memory_live() == 0


@pytest.mark.parametrize("how", ["buffer", "pinned", "stream", "event", "upload", "free", "synchronize"])
def test_a_thread_without_context_is_told_so(device: Device, fake_cuda: ctypes.CDLL, how: str) -> None:
    with device.current():
        stream, buffer, pinned = device.stream(), device.buffer(4), device.pinned((4,), np.uint8)
    calls: dict[str, Callable[[], object]] = {
        "buffer": lambda: device.buffer(4),
        "pinned": lambda: device.pinned((4,), np.uint8),
        "stream": device.stream,
        "event": device.event,
        "upload": lambda: device.upload(buffer, pinned, stream),
        "free": buffer.free,
        "synchronize": stream.synchronize,
    }
    with ThreadPoolExecutor(1) as pool:
        error = pool.submit(calls[how]).exception()
    assert isinstance(error, EngineError)
    assert not isinstance(error, DeviceLost)
    assert "this thread has no GPU context" in error.what
    assert "device.current()" in error.cure
    assert device.live == fake_cuda.fake_memory_live() == 2


def test_no_memory_is_told_and_not_the_end(device: Device, fake_cuda: ctypes.CDLL) -> None:
    with device.current():
        with pytest.raises(EngineError, match="the GPU refused, cuMemAlloc failed: out of memory") as caught:
            device.buffer(1 << 40)
        assert not isinstance(caught.value, DeviceLost)
        device.buffer(8)
    assert device.live == 1


# The last two came with the GPU of Thor, and with devices that share memory with it.
@pytest.mark.parametrize("result", [ILLEGAL_ADDRESS, 721, 911])
def test_an_error_that_stays_is_a_lost_device(device: Device, fake_cuda: ctypes.CDLL, result: int) -> None:
    with device.current():
        stream, buffer, pinned = device.stream(), device.buffer(4), device.pinned((4,), np.uint8)
        fake_cuda.fake_fail(b"cuMemcpyHtoDAsync_v2", result, 1)
        with pytest.raises(DeviceLost, match=rf"cuMemcpyHtoDAsync.*CUDA error {result}") as caught:
            device.upload(buffer, pinned, stream)
        assert caught.value.exit_code == 3
        assert "restart the station" in caught.value.cure
        for call in (stream.synchronize, lambda: device.buffer(4), device.event, buffer.free):
            with pytest.raises(DeviceLost):
                call()
        fake_cuda.fake_forget()


def test_work_that_outlives_its_memory_loses_the_device(device: Device, fake_cuda: ctypes.CDLL) -> None:
    """The same from the device's side: a stream tells it when somebody waits."""
    with device.current():
        stream, pinned = device.stream(), device.pinned((4,), np.uint8)
        kernel = device.kernel(SOURCE, "to_input")
        fake_cuda.fake_fail(b"cuStreamSynchronize", ILLEGAL_ADDRESS, 1)
        with pytest.raises(DeviceLost):
            stream.synchronize()
        with pytest.raises(DeviceLost):
            kernel(stream, (1, 1, 1), (1, 1, 1), np.uint64(pinned.pointer))
        fake_cuda.fake_forget()


LOSES_IT = """
import ctypes, sys, threading
fake = ctypes.CDLL(sys.argv[1], ctypes.RTLD_GLOBAL)
from kenpin.edge_runtime.device import Device
from kenpin.errors import KenpinError

def work():
    with device.current():
        fail.wait()

fail = threading.Event()
try:
    with Device() as device:
        other = threading.Thread(target=work)
        other.start()
        with device.current():
            stream = device.stream()
            kept = stream, device.buffer(4), device.event(), device.pinned((4,), "u1")
            if sys.argv[2] == "working":
                fake.fake_fail(sys.argv[3].encode(), 700, 1)
                fail.set()
                other.join()
                stream.synchronize()
        fake.fake_fail(sys.argv[3].encode(), 700, 1)
        fail.set()
        other.join()
except KenpinError as error:
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize(
    ("when", "refuses", "code"),
    [
        ("working", "cuStreamSynchronize", 3),
        ("working", "cuCtxPopCurrent_v2", 3),
        ("closing", "cuCtxPopCurrent_v2", 0),
        ("closing", "cuCtxPushCurrent_v2", 0),
        ("closing", "cuCtxGetDevice", 0),
        ("closing", "cuMemFree_v2", 0),
    ],
)
def test_a_lost_device_does_not_take_the_exit_code_along(
    libcuda: ctypes.CDLL, when: str, refuses: str, code: int
) -> None:
    """Left to itself, pycuda aborts the process at its end."""
    done = run_python(LOSES_IT, libcuda._name, when, refuses)
    assert done.returncode == code, done.stderr


def test_copies_have_to_fit(device: Device) -> None:
    with device.current():
        stream, buffer, pinned = device.stream(), device.buffer(4), device.pinned((5,), np.uint8)
        with pytest.raises(EngineError, match="5 bytes does not fit a buffer of 4"):
            device.upload(buffer, pinned, stream)
        with pytest.raises(EngineError, match="5 bytes does not fit a buffer of 4"):
            device.download(pinned, buffer, stream)
        freed = device.pinned((4,), np.uint8)
        freed.free()
        with pytest.raises(EngineError, match="does not fit"):
            device.upload(buffer, freed, stream)


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [(".version 7.0\n", "to_input", "not found|another error"), ("not PTX", "to_input", "cuModuleLoadDataEx")],
    ids=["no such function", "damaged"],
)
def test_a_kernel_that_does_not_load_is_told(
    device: Device, tmp_path: Path, content: str, name: str, said: str
) -> None:
    (tmp_path / "it.ptx").write_text(content)
    with device.current(), pytest.raises(EngineError, match=said):
        device.kernel(tmp_path / "it.cu", name)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
def test_without_ptx_nvcc_compiles(device: Device, tmp_path: Path) -> None:
    shutil.copy(SOURCE, tmp_path)
    with device.current():
        device.kernel(tmp_path / SOURCE.name, "to_input")
        (tmp_path / "bad.cu").write_text("__global__ void to_input( {}")
        with pytest.raises(EngineError, match="does not compile for sm_87"):
            device.kernel(tmp_path / "bad.cu", "to_input")


def test_without_ptx_and_nvcc_it_says_what_to_do(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("kenpin.edge_runtime.cuda_kernel._NVCC", str(tmp_path / "nvcc"))
    with device.current(), pytest.raises(EngineError, match="no PTX beside the kernel"):
        device.kernel(tmp_path / "it.cu", "to_input")


def test_no_driver_is_told_before_anything_else() -> None:
    done = run_python(
        "import sys; sys.modules['pycuda'] = None\n"
        "from kenpin.edge_runtime.device import Device\n"
        "from kenpin.errors import EngineError\n"
        "try:\n    Device()\nexcept EngineError as error:\n    print(error)"
    )
    assert done.stdout.startswith("there is no NVIDIA driver: libcuda.so.1 is not found"), done.stderr
    assert "ONNX Runtime" in done.stdout


def test_no_device_is_told(fake_cuda: ctypes.CDLL) -> None:
    fake_cuda.fake_set(0, 1)
    with pytest.raises(EngineError, match="sees no device"):
        Device()


def test_a_device_that_is_not_there_is_told(fake_cuda: ctypes.CDLL) -> None:
    for index in (1, -1):
        with pytest.raises(EngineError, match=f"no CUDA device {index}"):
            Device(index)


@pytest.mark.parametrize("result", [100, 804])
def test_a_driver_that_does_not_start_is_told(fake_cuda: ctypes.CDLL, result: int) -> None:
    fake_cuda.fake_fail(b"cuInit", result, 0)
    with pytest.raises(EngineError, match=f"does not start: .* \\(CUDA error {result}\\)"):
        Device()


@pytest.mark.parametrize("function", ["cuDeviceGetName", "cuDevicePrimaryCtxRetain"])
def test_a_device_that_does_not_open_is_told(fake_cuda: ctypes.CDLL, function: str) -> None:
    """Not that a thread has no context: there is none yet."""
    fake_cuda.fake_fail(function.encode(), 2, 0)
    with pytest.raises(EngineError, match=r"the GPU refused, .* failed: out of memory"):
        Device()


def test_no_pycuda_is_told_with_how_to_get_it(fake_cuda: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(EngineError, match="pycuda cannot be imported") as caught:
        Device()
    assert "pip install 'kenpin[jetson]'" in caught.value.cure
    assert "PATH=/usr/local/cuda/bin" in caught.value.cure


def test_an_error_that_is_ours_passes_unchanged(device: Device) -> None:
    with pytest.raises(ZeroDivisionError), device.current():
        _ = 1 // 0
    with device.current():
        device.buffer(4)
