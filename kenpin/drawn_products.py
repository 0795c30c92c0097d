"""Four drawn products, as a camera would see them before noise and light: fabric, metal, board, cap.

Each function draws one good part; board and cap also one with a fault that only this product can have.
Canvases are BGR float32 (SIZE, SIZE, 3) with values around 0 to 1; masks are uint8 (SIZE, SIZE), 255 where
the fault is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE = 256
MIDDLE = SIZE / 2
CAP_RADIUS = 104

Canvas = NDArray[np.float32]
Mask = NDArray[np.uint8]
Colour = tuple[float, float, float]

_PRINT_COLOUR = np.array([0.42, 0.14, 0.10], np.float32)
_PRINT_LINES = (("LOT 4711", -34, 0.62), ("2026-11", 4, 0.66), ("* QC-B *", 42, 0.56))
_SUBPIXEL_BITS = 4


def fabric(rng: np.random.Generator) -> Canvas:
    """Plain weave: warp and weft cross over each other, threads differ a little in width and brightness."""
    pitch, angle = rng.uniform(9.6, 10.4), math.radians(rng.uniform(-4, 4))
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    wobble = cloud(rng, 3) * 0.9
    u = (math.cos(angle) * x + math.sin(angle) * y + wobble) / np.float32(pitch) + np.float32(rng.random())
    v = (math.cos(angle) * y - math.sin(angle) * x + wobble.T) / np.float32(pitch) + np.float32(rng.random())
    column, row = np.floor(u).astype(np.intp), np.floor(v).astype(np.intp)
    across, along = np.cos(np.pi * (u - column - 0.5)), np.cos(np.pi * (v - row - 0.5))
    thread = rng.standard_normal((2, 64), dtype=np.float32) * 0.05
    warp = across * (0.75 + 0.25 * along) * (1 + thread[0][column % 64])
    weft = along * (0.75 + 0.25 * across) * (0.85 + thread[1][row % 64])
    height = np.where((column + row) % 2 == 0, warp, weft)
    dye = np.array([0.45, 0.52, 0.60], np.float32) * np.float32(rng.uniform(0.96, 1.04))
    return _canvas((0.35 + 0.65 * height)[..., None] * dye + cloud(rng, 24)[..., None] * 0.02)


def metal(rng: np.random.Generator) -> Canvas:
    """Brushed steel: fine and coarse grain along one direction, slightly turned."""
    grain = 0.05 * _grain(rng, length=64, width=1) + 0.015 * _grain(rng, length=128, width=4)
    turn = cv2.getRotationMatrix2D((MIDDLE, MIDDLE), rng.uniform(-3, 3), 1)
    turned = cv2.warpAffine(grain, turn, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT)
    brightness = 0.55 + np.asarray(turned) + 0.02 * cloud(rng, 2)
    return _canvas(brightness[..., None] * np.array([1.0, 0.98, 0.95], np.float32))


def cap(rng: np.random.Generator, fault: str = "") -> tuple[Canvas, Mask]:
    """A printed screw cap. Faults: `missing_print` (a piece is not printed), `offset_print` (turned, moved)."""
    shift, turn = rng.uniform(-2, 2, 2), rng.uniform(-2, 2)
    body = _cap_body(rng, shift)
    ink = _print_layer()
    mask = no_fault()
    if fault == "missing_print":
        ink, mask = _wipe_print(rng, ink)
    if fault == "offset_print":
        shift = shift + rng.uniform(3, 6, 2) * rng.choice([-1, 1], 2)
        turn += rng.choice([-1, 1]) * rng.uniform(8, 14)
    move = _motion(turn, shift)
    ink = _canvas(cv2.warpAffine(ink, move, (SIZE, SIZE)))
    mask = np.asarray(cv2.warpAffine(mask, move, (SIZE, SIZE), flags=cv2.INTER_NEAREST), np.uint8)
    if fault == "offset_print":
        mask = _grown((ink > 0.2).astype(np.uint8) * 255, 5)
    strength = ink[..., None] * np.float32(rng.uniform(0.76, 0.84))
    return _canvas(body * (1 - strength) + strength * _PRINT_COLOUR), mask


@dataclass(frozen=True)
class _Component:
    """A chip (0), a black (1) or a brown (2) two-pad part on the board, in pixels."""

    kind: int
    x: int
    y: int
    width: int
    height: int


def board(rng: np.random.Generator, fault: str = "") -> tuple[Canvas, Mask]:
    """A populated circuit board. Faults: `missing_component`, `shifted_component`."""
    components, tracks = _board_layout()
    faulty = int(rng.integers(len(components))) if fault else -1
    lacquer = np.float32(rng.uniform(0.92, 1.08))
    picture = np.full((SIZE, SIZE, 3), np.array([26, 84, 41]) * lacquer, np.uint8)
    for start, end in tracks:
        cv2.line(picture, start, end, (41, 117, 66), 2, cv2.LINE_AA)
        for via in (start, end):
            cv2.circle(picture, via, 3, (150, 158, 140), -1, cv2.LINE_AA)
    mask = no_fault()
    for number, component in enumerate(components):
        _draw_pads(picture, component)
        place = rng.uniform(-1, 1, 2), rng.uniform(-1.5, 1.5)
        if number == faulty and fault == "shifted_component":
            place = rng.choice([-1, 1], 2) * rng.uniform(4.5, 6.5, 2), rng.choice([-1, 1]) * rng.uniform(8, 14)
        if number == faulty:
            _fill_box(mask, component, grow=5)
        if number != faulty or fault != "missing_component":
            _draw_component(picture, component, place, brightness=rng.uniform(0.9, 1.1))
    return _moved(rng, _canvas(picture / 255)), mask


def cloud(rng: np.random.Generator, cells: int) -> Canvas:
    """Smooth noise with standard deviation around 1 (fractal: each octave twice as fine, half as strong).

    Args:
        rng: Source of chance.
        cells: Blobs across the picture in the coarsest octave.

    Returns:
        Float32 (SIZE, SIZE).
    """
    total = np.zeros((SIZE, SIZE), np.float32)
    for octave in range(2):
        knots = rng.standard_normal((cells * 2**octave + 2,) * 2, dtype=np.float32)
        total += 0.5**octave * np.asarray(cv2.resize(knots, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC))
    return _canvas(total / math.hypot(1, 0.5))


def blurred(image: Canvas, sigma: float) -> Canvas:
    """Gaussian blur, `sigma` in pixels."""
    return _canvas(cv2.GaussianBlur(image, (0, 0), sigma))


def no_fault() -> Mask:
    """The mask of a good part."""
    return np.zeros((SIZE, SIZE), np.uint8)


def _grain(rng: np.random.Generator, *, length: int, width: int) -> Canvas:
    """Streaks of about `length` x `width` pixels, standard deviation 1."""
    knots = rng.standard_normal((SIZE // width, SIZE // length * 4), dtype=np.float32)
    streaks = blurred(_canvas(cv2.resize(knots, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)), 0.7)
    return _canvas(streaks / streaks.std())


def _cap_body(rng: np.random.Generator, shift: NDArray[np.float64]) -> Canvas:
    body = np.full((SIZE, SIZE, 3), 43, np.uint8)
    middle = (_fixed(MIDDLE + shift[0]), _fixed(MIDDLE + shift[1]))
    plastic = np.array([219, 214, 199]) * rng.uniform(0.97, 1.03)
    for radius, colour in ((CAP_RADIUS, plastic * 0.72), (96, plastic)):
        cv2.circle(body, middle, _fixed(radius), _colour(colour), -1, cv2.LINE_AA, _SUBPIXEL_BITS)
    ridges = rng.uniform(0, 2 * math.pi)
    for angle in ridges + np.arange(60) * (2 * math.pi / 60):
        spot = (middle[0] + _fixed(100 * math.cos(angle)), middle[1] + _fixed(100 * math.sin(angle)))
        cv2.circle(body, spot, _fixed(2), (115, 112, 107), -1, cv2.LINE_AA, _SUBPIXEL_BITS)
    return _canvas(_canvas(body) / 255 + cloud(rng, 6)[..., None] * 0.008)


@lru_cache(maxsize=1)
def _print_layer() -> Canvas:
    """Ink of the print, 0 to 1, shared by all caps and therefore read-only."""
    layer = np.zeros((SIZE, SIZE), np.uint8)
    for text, below_middle, scale in _PRINT_LINES:
        (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, scale, 1)
        corner = (int(MIDDLE - width / 2), int(MIDDLE + below_middle))
        cv2.putText(layer, text, corner, cv2.FONT_HERSHEY_DUPLEX, scale, (255,), 1, cv2.LINE_AA)
    cv2.circle(layer, (int(MIDDLE), int(MIDDLE)), 78, (204,), 1, cv2.LINE_AA)
    ink = _canvas(np.clip(blurred(_canvas(layer), 0.6) / 255 * 1.2, 0, 1))
    ink.setflags(write=False)
    return ink


def _wipe_print(rng: np.random.Generator, ink: Canvas) -> tuple[Canvas, Mask]:
    """Take the ink away in a box over one of the lines."""
    _, below_middle, _ = _PRINT_LINES[rng.integers(len(_PRINT_LINES))]
    left, bottom = int(MIDDLE + rng.uniform(-42, 12)), int(MIDDLE + below_middle + 3)
    wiped = np.zeros((SIZE, SIZE), np.float32)
    cv2.rectangle(wiped, (left, bottom - 17), (left + int(rng.integers(18, 32)), bottom), (1.0,), -1)
    mask = ((ink > 0.15) & (wiped > 0)).astype(np.uint8) * 255
    return _canvas(ink * (1 - blurred(wiped, 1) * np.float32(rng.uniform(0.75, 1)))), _grown(mask, 3)


@lru_cache(maxsize=1)
def _board_layout() -> tuple[tuple[_Component, ...], tuple[tuple[tuple[int, int], tuple[int, int]], ...]]:
    """The components and tracks that every board has: drawn by lot once, from a fixed seed."""
    rng = np.random.default_rng(7)
    taken = np.zeros((SIZE, SIZE), bool)
    components: list[_Component] = []
    while len(components) < 20:
        kind = int(rng.integers(3))
        width, height = ((38, 30), (22, 11), (12, 20))[kind]
        x, y = (int(v) for v in rng.integers(14, (SIZE - width - 14, SIZE - height - 14)))
        around = taken[y - 7 : y + height + 7, x - 7 : x + width + 7]
        if not around.any():
            around[7:-7, 7:-7] = True
            components.append(_Component(kind, x, y, width, height))
    tracks = []
    for _ in range(26):
        x, y, length = (int(v) for v in rng.integers((8, 8, 30), (SIZE - 8, SIZE - 8, 160)))
        end = (min(x + length, SIZE - 8), y) if rng.random() < 0.5 else (x, min(y + length, SIZE - 8))
        tracks.append(((x, y), end))
    return tuple(components), tuple(tracks)


def _draw_pads(picture: Mask, c: _Component) -> None:
    """Solder pads at the two ends of a small part, pins along a chip."""
    tin = (173, 173, 168)
    if c.kind == 0:
        for x in range(c.x + 4, c.x + c.width - 2, 6):
            cv2.rectangle(picture, (x, c.y - 4), (x + 2, c.y + c.height + 4), tin, -1)
        return
    wide = c.width > c.height
    for end in (0, 1):
        x = c.x - 4 + end * (c.width if wide else 0) + (0 if wide else 4)
        y = c.y - 4 + end * (0 if wide else c.height) + (4 if wide else 0)
        corner = (x + (7 if wide else c.width), y + (c.height if wide else 7))
        cv2.rectangle(picture, (x, y), corner, tin, -1)


def _draw_component(
    picture: Mask, c: _Component, place: tuple[NDArray[np.float64], float], *, brightness: float
) -> None:
    """Draw the body at its place: moved by (dx, dy) pixels, turned by degrees."""
    (dx, dy), angle = place
    middle = (c.x + c.width / 2 + dx, c.y + c.height / 2 + dy)
    corners = cv2.boxPoints((middle, (c.width, c.height), angle))
    colour = np.array(((28, 27, 26), (33, 43, 56), (92, 138, 168))[c.kind]) * brightness
    outline = np.round(corners * 2**_SUBPIXEL_BITS).astype(np.int32)
    cv2.fillConvexPoly(picture, outline, _colour(colour), cv2.LINE_AA, _SUBPIXEL_BITS)
    if c.kind == 0:
        pin_one = corners.mean(0) + 0.7 * (corners[0] - corners.mean(0))
        spot = (_fixed(pin_one[0]), _fixed(pin_one[1]))
        cv2.circle(picture, spot, _fixed(2), (120, 120, 120), -1, cv2.LINE_AA, _SUBPIXEL_BITS)
        label = (round(middle[0]) - 11, round(middle[1]) + 4)
        cv2.putText(picture, f"K{c.x % 90 + 10}", label, cv2.FONT_HERSHEY_PLAIN, 0.7, (140, 140, 140))


def _fill_box(mask: Mask, c: _Component, *, grow: int) -> None:
    mask[max(c.y - grow, 0) : c.y + c.height + grow, max(c.x - grow, 0) : c.x + c.width + grow] = 255


def _moved(rng: np.random.Generator, image: Canvas) -> Canvas:
    """Where the part lies under the camera varies by a pixel and half a degree."""
    move = _motion(rng.uniform(-0.4, 0.4), rng.uniform(-1, 1, 2))
    return _canvas(cv2.warpAffine(image, move, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT))


def _motion(turn: float, shift: NDArray[np.float64]) -> NDArray[np.float64]:
    """Affine matrix (2, 3): turn by degrees around the middle, then move by pixels."""
    matrix = np.asarray(cv2.getRotationMatrix2D((MIDDLE, MIDDLE), turn, 1), np.float64)
    matrix[:, 2] += shift
    return matrix


def _grown(mask: Mask, pixels: int) -> Mask:
    return np.asarray(cv2.dilate(mask, np.ones((pixels, pixels), np.uint8)), np.uint8)


def _canvas(values: object) -> Canvas:
    return np.asarray(values, np.float32)


def _fixed(value: float) -> int:
    """A coordinate as OpenCV takes it with sub-pixel bits."""
    return round(float(value) * (1 << _SUBPIXEL_BITS))


def _colour(values: NDArray[np.float64]) -> Colour:
    blue, green, red = (float(v) for v in values)
    return blue, green, red
