from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kenpin.errors import DataError
from kenpin.frame import Frame, Image, decode_picture, read_mask, read_picture

SUFFIXES = (".png", ".jpg", ".bmp", ".tif", ".webp")


def _texture(height: int = 48, width: int = 64) -> Image:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (5, 5), 0), dtype=np.uint8)


def _encode(suffix: str, image: np.ndarray) -> bytes:
    done, data = cv2.imencode(suffix, image)
    assert done
    return data.tobytes()


def _png(width: int, height: int, pixels: bytes) -> bytes:
    """A PNG of 8-bit RGB whose header claims a size that its pixels need not have."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body


def _says_all(error: DataError, *, where: str) -> bool:
    return bool(error.what and error.cure) and where in error.where


def test_a_frame_knows_both_of_its_times() -> None:
    first, second = (Frame(_texture(), part_id=part, camera="top") for part in "ab")
    assert first.captured_ns <= second.captured_ns
    assert first.ts_ms > 1_700_000_000_000


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_lossless_files_come_back_as_they_were(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"part{suffix}"
    path.write_bytes(_encode(suffix, _texture()))
    np.testing.assert_array_equal(read_picture(path), _texture())


def test_a_grey_picture_gets_three_equal_channels() -> None:
    grey = _texture()[..., 0]
    image = decode_picture(_encode(".png", grey), where="x")
    np.testing.assert_array_equal(image, np.dstack([grey] * 3))


def test_alpha_is_dropped_and_colours_stay() -> None:
    clear = np.dstack([_texture(), np.zeros((48, 64), np.uint8)])
    np.testing.assert_array_equal(decode_picture(_encode(".png", clear), where="x"), _texture())


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_of_16_bits_the_high_byte_stays(suffix: str) -> None:
    deep = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    image = decode_picture(_encode(suffix, deep), where="x")
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image[..., 1], (deep >> 8).astype(np.uint8))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bits", [10, 12])
def test_a_picture_of_a_12_bit_camera_is_refused_rather_than_seen_in_16_steps(suffix: str, bits: int) -> None:
    deep = np.linspace(0, 2**bits - 1, 48 * 64).reshape(48, 64).astype(np.uint16)
    with pytest.raises(DataError, match="12-bit camera") as caught:
        decode_picture(_encode(suffix, deep), where="x.png")
    assert _says_all(caught.value, where="x.png")


def test_a_mask_kept_as_jpeg_marks_what_was_drawn_and_no_ringing(tmp_path: Path) -> None:
    drawn = np.zeros((80, 100), np.uint8)
    cv2.ellipse(drawn, (45, 38), (14, 9), 30, 0, 360, 255, -1)
    path = tmp_path / "m.jpg"
    path.write_bytes(_encode(".jpg", drawn))
    assert abs(int((read_mask(path)[..., 0] > 0).sum()) - int((drawn > 0).sum())) <= 4


def test_a_mask_that_marks_everything_is_refused(tmp_path: Path) -> None:
    """As one drawn in the transparency alone, which is dropped."""
    path = tmp_path / "m.png"
    clear = np.full((48, 64, 4), 255, np.uint8)
    clear[:, 20:, 3] = 0
    path.write_bytes(_encode(".png", clear))
    with pytest.raises(DataError, match="marks the whole picture") as caught:
        read_mask(path)
    assert _says_all(caught.value, where="m.png")


def test_a_dark_picture_of_8_bits_is_a_picture() -> None:
    dark = _texture() // 32
    np.testing.assert_array_equal(decode_picture(_encode(".png", dark), where="x"), dark)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_cut_anywhere_is_refused(suffix: str) -> None:
    whole = _encode(suffix, _texture())
    for size in [*range(0, len(whole), max(1, len(whole) // 60)), len(whole) - 2, len(whole) - 1]:
        with pytest.raises(DataError) as caught:
            decode_picture(whole[:size], where="part 7")
        assert _says_all(caught.value, where="part 7")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_the_cut_is_found_before_a_decoder_that_fills_it_with_grey(suffix: str) -> None:
    """OpenCV 4 does; OpenCV 5 refuses by itself, but a Jetson has the older one."""
    whole = _encode(suffix, _texture())
    for size in (len(whole) // 2, len(whole) - 13):
        with pytest.raises(DataError, match="cut short"):
            decode_picture(whole[:size], where="x")


def test_a_cut_jpeg_with_a_whole_thumbnail_is_refused() -> None:
    plain, thumbnail = _encode(".jpg", _texture()), _encode(".jpg", _texture(16, 16))
    segment = b"Exif\0\0" + thumbnail
    whole = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + plain[2:]
    assert decode_picture(whole, where="x").shape == (48, 64, 3)
    for size in range(len(segment) // 2, len(whole) - 1, 40):
        with pytest.raises(DataError):
            decode_picture(whole[:size], where="x")
    with pytest.raises(DataError, match="cut short"):
        decode_picture(whole[:-40], where="x")


def test_bytes_behind_the_end_do_no_harm() -> None:
    for suffix in (".png", ".jpg"):
        assert decode_picture(_encode(suffix, _texture()) + bytes(500), where="x").shape == (48, 64, 3)


def _damaged(whole: bytes, foreign: bytes) -> bytes:
    middle = len(whole) * 2 // 3
    return whole[:middle] + foreign + whole[middle + len(foreign) :]


@pytest.mark.parametrize("progressive", [0, 1])
def test_a_jpeg_with_foreign_bytes_inside_is_refused(tmp_path: Path, progressive: int) -> None:
    """As another file's beginning; the decoder takes their mark for the end and fills the rest with grey."""
    noisy = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    whole = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])[1].tobytes()
    path = tmp_path / "p.jpg"
    for foreign in (whole[:700], np.random.default_rng(0).bytes(4096)):
        path.write_bytes(_damaged(whole, foreign))
        with pytest.raises(DataError, match="damaged inside") as caught:
            read_picture(path)
        assert _says_all(caught.value, where="p.jpg")


@pytest.mark.parametrize(
    "how",
    [
        [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
        [cv2.IMWRITE_JPEG_OPTIMIZE, 1],
        [cv2.IMWRITE_JPEG_RST_INTERVAL, 3],
        [cv2.IMWRITE_JPEG_QUALITY, 100],
    ],
)
def test_every_kind_of_whole_jpeg_is_read(how: list[int]) -> None:
    """With what other programs put behind its end, as a film of the same moment."""
    noisy = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    whole = cv2.imencode(".jpg", noisy, how)[1].tobytes()
    for behind in (b"", b"\xff\xda\xff\xe1", whole):
        assert decode_picture(whole + behind, where="x").shape == (240, 320, 3)


def test_a_png_with_a_flipped_bit_is_refused_before_the_decoder_writes_to_the_terminal(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """In words of its own, which name no file; and OpenCV 4 gives what it has read until then."""
    whole = _encode(".png", _texture(16, 16))
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DataError):
            decode_picture(bytes(damaged), where="x")
    assert capfd.readouterr().err == ""
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    with pytest.raises(DataError, match="damaged inside") as caught:
        decode_picture(bytes(damaged), where="part 7")
    assert _says_all(caught.value, where="part 7")


@given(st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF"]))
def test_bytes_that_are_no_picture_give_one_kind_of_error(noise: bytes, start: bytes) -> None:
    with pytest.raises(DataError):
        decode_picture(start + noise, where="x")


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "No such file"),
        ("folder", "Is a directory"),
        ("empty", "is empty"),
        ("text", "not a picture"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, kind: str, says: str) -> None:
    path = tmp_path / "part.png"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(b"" if kind == "empty" else b"not a picture")
    with pytest.raises(DataError, match=says) as caught:
        read_picture(path)
    assert _says_all(caught.value, where=str(path))


def test_a_picture_that_would_unpack_to_gigabytes_is_refused_in_little_memory(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(_png(30_000, 30_000, bytes(30_000 * 3 * 100)))
    assert bomb.stat().st_size < 20_000
    program = (
        "import resource, sys, pathlib\n"
        "from kenpin.errors import DataError\n"
        "from kenpin.frame import read_picture\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    read_picture(pathlib.Path(sys.argv[1]))\n"
        "except DataError as error:\n"
        "    print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, bomb], check=True, capture_output=True, text=True, timeout=300
    )
    *message, grown_kib = done.stdout.splitlines()
    assert "more pixels than allowed" in message[0]
    assert str(bomb) in message[1]
    assert int(grown_kib) < 50_000, "the picture was unpacked before it was refused"


def test_a_device_or_a_pipe_under_the_name_of_a_picture_is_refused_unread(tmp_path: Path) -> None:
    """A folder of a stranger may hold a link to /dev/zero, which has no end."""
    (tmp_path / "device.png").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("device.png", "pipe.png"):
        with pytest.raises(DataError, match="is no file"):
            read_picture(tmp_path / name)
