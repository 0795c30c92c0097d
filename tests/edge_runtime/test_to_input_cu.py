"""The kernel's source: compiled for the host it gives the numbers of to_input, and its PTX is up to date."""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import kenpin.edge_runtime
from kenpin.frame import Image
from kenpin.preprocess import to_input

REPOSITORY = Path(__file__).parents[2]
HERE = Path(kenpin.edge_runtime.__file__).parent
SOURCE, PTX = HERE / "to_input.cu", HERE / "to_input.ptx"
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
SIZES = [
    ((1080, 1920), (224, 224)),
    ((1080, 1920), (256, 256)),
    ((2048, 2448), (256, 256)),
    ((480, 640), (224, 224)),
    ((511, 257), (256, 256)),  # barely shrinks
    ((560, 672), (224, 224)),  # ties: 2.5 and 3
    ((448, 448), (224, 224)),  # 2 x 2 has a rounding of its own
    ((672, 896), (224, 224)),  # whole numbers
    ((224, 448), (224, 224)),  # one axis stays
    ((224, 224), (224, 224)),
    ((100, 900), (224, 224)),  # one axis grows
    ((900, 100), (224, 224)),
    ((112, 500), (224, 224)),
    ((224, 100), (224, 224)),
    ((100, 100), (224, 224)),  # both grow
    ((112, 112), (224, 224)),
    ((1, 1), (64, 64)),
    ((1, 500), (64, 64)),
    ((33, 1), (64, 64)),
    ((5, 7), (3, 2)),
]


class Arguments(ctypes.Structure):
    _fields_ = (
        ("source", ctypes.c_void_p),
        ("pitch", ctypes.c_longlong),
        ("source_width", ctypes.c_int),
        ("source_height", ctypes.c_int),
        ("target", ctypes.c_void_p),
        ("width", ctypes.c_int),
        ("height", ctypes.c_int),
    )


@pytest.fixture(scope="module")
def on_host(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Image]:
    library = tmp_path_factory.mktemp("kernels") / "kernels.so"
    command = ["g++", "-O2", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-shared", "-fPIC"]
    command.append("-Wl,-Bsymbolic")  # the driver in host memory has the same kernels
    subprocess.run(
        [*command, f"-I{HERE}", REPOSITORY / "tests/fake_cuda/kernels.cpp", "-o", library], check=True
    )
    run = ctypes.CDLL(str(library)).run_kernel

    def resize(image: Image, *, height: int, width: int) -> Image:
        target = np.zeros((height, width, 3), np.uint8)
        three = ctypes.c_uint * 3
        source = image.ctypes.data, image.strides[0], image.shape[1], image.shape[0]
        arguments = Arguments(*source, target.ctypes.data, width, height)
        grid, block = three(-(-width // 32), -(-height // 8), 1), three(32, 8, 1)
        assert run(b"to_input", grid, block, ctypes.byref(arguments))
        return target

    return resize


def opencv(image: Image, *, height: int, width: int) -> Image:
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def differences(
    resize: Callable[..., Image],
    size: tuple[int, int],
    target: tuple[int, int],
    wanted: Callable[..., Image] = to_input,
) -> Image:
    """Of noise, and of black and white noise, whose sums are the largest."""
    random = np.random.default_rng(0)
    found = []
    for levels, step in ((256, 1), (2, 255)):
        image = (random.integers(0, levels, (*size, 3)) * step).astype(np.uint8)
        height, width = target
        expected = wanted(image, height=height, width=width)
        found.append(np.abs(resize(image, height=height, width=width).astype(int) - expected).astype(np.uint8))
    return np.concatenate(found)


@pytest.mark.parametrize(("size", "target"), SIZES)
def test_gives_the_numbers_of_to_input(
    on_host: Callable[..., Image], size: tuple[int, int], target: tuple[int, int]
) -> None:
    apart = differences(on_host, size, target)
    assert (apart <= 1).mean() >= 0.999
    assert apart.max() <= 3
    if all(s >= t for s, t in zip(size, target, strict=True)):
        # to_input may round n + 1/2 to the other side in a large frame.
        assert apart.max() <= 1
        # The arithmetic is OpenCV's; on another processor it may add in another order.
        assert (differences(on_host, size, target, opencv) > 0).mean() <= 1e-3


def test_gives_the_numbers_of_to_input_for_all_small_sizes(on_host: Callable[..., Image]) -> None:
    sides = (1, 2, 3, 4, 7, 12)
    every = [
        differences(on_host, (h, w), (to_h, to_w)) for h, w, to_h, to_w in itertools.product(sides, repeat=4)
    ]
    assert max(int(apart.max()) for apart in every) <= 1


def test_reads_a_part_of_a_larger_frame(on_host: Callable[..., Image]) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    part = frame[11:51, 20:83]
    assert np.array_equal(on_host(part, height=16, width=24), to_input(part, height=16, width=24))


def test_the_shipped_ptx_is_that_of_this_source() -> None:
    said = re.search(r"SHA-256 ([0-9a-f]{64})", PTX.read_text())
    assert said is not None
    assert said[1] == hashlib.sha256(SOURCE.read_bytes()).hexdigest(), "run scripts/build_ptx.sh"


def test_the_shipped_ptx_runs_on_old_drivers() -> None:
    text = PTX.read_text()
    assert ".version 7.0\n" in text
    assert ".target sm_75\n" in text


@needs_nvcc
def test_the_shipped_ptx_is_what_nvcc_gives(tmp_path: Path) -> None:
    subprocess.run([REPOSITORY / "scripts/build_ptx.sh", tmp_path / "to_input.ptx"], check=True)
    made, shipped = (tmp_path / "to_input.ptx").read_text(), PTX.read_text()
    by = re.compile(r"^// nvcc: (.*)$", re.MULTILINE)
    if by.findall(made) == by.findall(shipped):
        assert made == shipped, "run scripts/build_ptx.sh"
    else:
        # Another compiler may choose other instructions for the same source.
        assert ".entry to_input(" in made


@needs_nvcc
@pytest.mark.parametrize("architecture", ["sm_87", "sm_90", "sm_110"])
def test_compiles_for_the_devices(tmp_path: Path, architecture: str) -> None:
    cubin = tmp_path / "to_input.cubin"
    nvcc = ["nvcc", "-cubin", f"-arch={architecture}", "-fmad=false", "-Werror=all-warnings"]
    subprocess.run([*nvcc, SOURCE, "-o", cubin], check=True)
    assert cubin.read_bytes().startswith(b"\x7fELF")


@needs_nvcc
@pytest.mark.parametrize("architecture", ["sm_87", "sm_90", "sm_110"])
def test_the_shipped_ptx_assembles_for_the_devices(tmp_path: Path, architecture: str) -> None:
    """What the driver of a device does with it."""
    cubin = tmp_path / "to_input.cubin"
    nvcc = ["nvcc", "-cubin", f"-arch={architecture}", PTX, "-o", cubin]
    subprocess.run(nvcc, check=True)
    assert cubin.read_bytes().startswith(b"\x7fELF")
