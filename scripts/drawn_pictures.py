"""Pictures of nothing in particular, that an encoder learns its first weights from.

No photograph is used: dead leaves, noise, regular patterns, repeated motifs, cells and made-up parts, each with
parameters of its own, so that no two pictures are alike. That such pictures teach an encoder to see is shown by
Baradad et al., "Learning to See by Looking at Noise", NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Image = NDArray[np.float32]
# Fixed-point places of OpenCV's drawing: shapes lie between the pixels, too.
_BITS = 4
_UNIT = 2**_BITS
_CIRCLE, _POLYGON, _RECTANGLE, _ELLIPSE, _LINE = range(5)


def draw(r: Generator, side: int) -> NDArray[np.uint8]:
    """One picture, BGR (side, side, 3), with light, blur and noise as a camera would add them."""
    image = _part(r, side) if r.random() < 0.3 else _any_texture(r, side)
    if r.random() < 0.35:
        other, share = _any_texture(r, side), r.uniform(0.1, 0.6)
        image = image * (1 - share) + other * share
    if r.random() < 0.4:
        image = image + r.uniform(3, 25) * _spectrum(r, side)[..., None]
    if r.random() < 0.5:
        y, x = np.mgrid[0:side, 0:side] / side - 0.5
        image = image * (1 + r.normal(0, 0.3) * x + r.normal(0, 0.3) * y)[..., None]
    if r.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), r.uniform(0.4, 1.6))
    if r.random() < 0.3:
        image = np.repeat(image.mean(2, keepdims=True), 3, 2)
    image = image + r.normal(0, r.uniform(0.3, 6), image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def _leaves(r: Generator, side: int) -> Image:
    """Shapes over shapes, few large and many small (Lee, Mumford and Huang, IJCV 2001)."""
    colours = _palette(r, r.integers(2, 12))
    image = _filled(colours[0], side)
    smallest, largest = r.uniform(1, 4), r.uniform(8, side / 2.5)
    count = int(r.uniform(60, 350))
    kinds = r.choice(5, r.integers(1, 4), replace=False)
    drawn = r.random(count)
    power = 1 - r.uniform(1.5, 3.5)
    sizes = (smallest**power + (largest**power - smallest**power) * drawn) ** (1 / power)
    for size in np.sort(sizes)[::-1]:
        colour = colours[r.integers(len(colours))] + r.normal(0, 3, 3)
        place = r.uniform(0, side, 2)
        _shape(r, image, colour, (place, size, r.choice(kinds)))
    return image


def _noise(r: Generator, side: int) -> Image:
    if r.random() < 0.6:
        field = _spectrum(r, side)
    else:
        cells, octaves, fading = r.integers(2, 40), r.integers(1, 5), r.uniform(0.3, 0.8)
        field = _clouds(r, side, cells * np.exp(r.normal(0, 0.7, 2)), octaves=octaves, fading=fading)
    strength = r.uniform(0.3, 1.5)
    return _between(_palette(r, 3), field * strength)


def _regular(r: Generator, side: int) -> Image:
    """Stripes, waves, grids and checks, straight or wavering."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    wavering = r.choice([0, 0.5, 2, 5])
    if wavering:
        x = x + wavering * _clouds(r, side, r.integers(2, 8))
        y = y + wavering * _clouds(r, side, r.integers(2, 8))
    angle = r.uniform(0, np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    first, second = np.exp(r.uniform(np.log(4), np.log(50), 2))
    kind = r.integers(4)
    if kind == 3:
        field = ((np.floor(u / first) + np.floor(v / second)) % 2) * 2 - 1
    else:
        along, across = np.sin(2 * np.pi * u / first), np.sin(2 * np.pi * v / second)
        field = (along, along * across, np.maximum(along, across))[kind]
    if r.random() < 0.5:
        field = np.tanh(field * r.uniform(1, 6))
    colours = _palette(r, 3)
    return _between(colours, field.astype(np.float32) * r.uniform(0.3, 1.5))


def _motifs(r: Generator, side: int) -> Image:
    """One motif again and again: on a turned grid, or scattered."""
    cell = int(r.uniform(10, 48))
    colours = _palette(r, 5)
    motif = _filled(colours[0], cell)
    for _ in range(r.integers(1, 6)):
        colour, place = colours[r.integers(1, 5)], r.uniform(0, cell, 2)
        size, kind = r.uniform(1.5, cell / 2.5), r.integers(5)
        _shape(r, motif, colour, (place, size, kind))
    if r.random() < 0.5:
        count = side // cell + 2
        image = np.tile(motif, (count, count, 1))
        angle, (top, left) = r.uniform(0, 360), r.integers(0, cell, 2)
        image = image[top : top + side, left : left + side]
        turn = cv2.getRotationMatrix2D((side / 2, side / 2), angle, 1)
        return cv2.warpAffine(image, turn, (side, side), borderMode=cv2.BORDER_WRAP)
    image = _filled(colours[0], side)
    turned = r.random() < 0.5
    for _ in range(int(r.uniform(10, 120))):
        stamp = np.rot90(motif, r.integers(4)) if turned else motif
        x, y = r.integers(-cell // 2, side - cell // 2, 2)
        left, top, right, bottom = max(x, 0), max(y, 0), min(x + cell, side), min(y + cell, side)
        image[top:bottom, left:right] = stamp[top - y : bottom - y, left - x : right - x]
    return image


def _cells(r: Generator, side: int) -> Image:
    """The cells nearest to scattered points, filled, outlined or both."""
    places = r.uniform(0, side, (int(r.uniform(20, 500)), 2))
    division = cv2.Subdiv2D((0, 0, side + 1, side + 1))
    for x, y in places:
        division.insert((float(x), float(y)))
    outlines, _ = division.getVoronoiFacetList([])
    colours = _palette(r, r.integers(2, 8))
    filled, width = r.random() < 0.6, int(r.integers(1, 4))
    image = _filled(colours[0], side)
    for outline in outlines:
        polygon = [np.round(outline * _UNIT).astype(np.int32)]
        if filled:
            colour = colours[r.integers(len(colours))] + r.normal(0, 4, 3)
            cv2.fillPoly(image, polygon, colour.tolist(), cv2.LINE_AA, _BITS)
        if not filled or r.random() < 0.5:
            cv2.polylines(image, polygon, True, colours[-1].tolist(), width, cv2.LINE_AA, _BITS)
    return image


def _speckle(r: Generator, side: int) -> Image:
    """A second colour where clouds are dense."""
    clouds = _clouds(r, side, r.integers(8, 60))
    limit = r.uniform(0.5, 2)
    ground, colours = _noise(r, side), _palette(r, 2)
    share = 1 / (1 + np.exp(-np.clip((clouds - limit) * r.uniform(3, 12), -30, 30)))[..., None]
    return ground * (1 - share) + colours[0] * share


_TEXTURES: tuple[Callable[[Generator, int], Image], ...] = (
    _leaves, _leaves, _noise, _noise, _regular, _motifs, _cells, _speckle,
)  # fmt: skip


def _any_texture(r: Generator, side: int) -> Image:
    return _TEXTURES[r.integers(len(_TEXTURES))](r, side)


def _part(r: Generator, side: int) -> Image:
    """Something that lies on a ground: a few shapes, each with a texture or colour, shaded or not."""
    quiet = r.random() < 0.7
    image = _noise(r, side) * 0.3 + _palette(r, 1)[0] * 0.7 if quiet else _any_texture(r, side)
    middle = side / 2 + r.normal(0, side / 10, 2)
    for number in range(r.integers(1, 6)):
        mask = np.zeros((side, side, 1), np.float32)
        place = np.array([m + r.normal(0, side / 8) * (number > 0) for m in middle])
        size, kind = side * r.uniform(0.08, 0.42) / (1 + 0.5 * number), r.integers(4)
        _shape(r, mask, np.ones(1), (place, size, kind))
        content = _any_texture(r, side) if r.random() < 0.6 else _filled(_palette(r, 1)[0], side)
        if r.random() < 0.6:
            inside = cv2.distanceTransform((mask[..., 0] > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
            content = content * (0.5 + 0.5 * np.minimum(inside / r.uniform(3, 30), 1)[..., None])
        image = image * (1 - mask) + content * mask
    return image


def _shape(r: Generator, image: Image, colour: Image, at: tuple[Image, float, int]) -> None:
    """Draw one shape into an image of any number of channels: where, how large and which."""
    place, size, kind = at
    x, y = int(place[0] * _UNIT), int(place[1] * _UNIT)
    bgr, radius = [float(c) for c in colour], max(_UNIT // 2, int(size * _UNIT))
    if kind == _CIRCLE:
        cv2.circle(image, (x, y), radius, bgr, -1, cv2.LINE_AA, _BITS)
    elif kind == _ELLIPSE:
        axes = radius, max(_UNIT // 2, int(size * _UNIT * r.uniform(0.2, 1)))
        cv2.ellipse(image, (x, y), axes, r.uniform(0, 180), 0, 360, bgr, -1, cv2.LINE_AA, _BITS)
    elif kind == _LINE:
        angle, length = r.uniform(0, 2 * np.pi), size * _UNIT * 2
        step = int(length * np.cos(angle)), int(length * np.sin(angle))
        ends = (x - step[0], y - step[1]), (x + step[0], y + step[1])
        cv2.line(image, *ends, bgr, max(1, int(size / 6)), cv2.LINE_AA, _BITS)
    else:
        corners = np.array([x, y]) + _UNIT * (_polygon(r, size) if kind == _POLYGON else _rectangle(r, size))
        cv2.fillPoly(image, [corners.astype(np.int32)], bgr, cv2.LINE_AA, _BITS)


def _polygon(r: Generator, size: float) -> Image:
    """Three to seven corners round the origin."""
    count = r.integers(3, 8)
    angles, radii = np.sort(r.uniform(0, 2 * np.pi, count)), size * r.uniform(0.5, 1.3, count)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)


def _rectangle(r: Generator, size: float) -> Image:
    angle, height = r.uniform(0, 2 * np.pi), size * r.uniform(0.3, 1)
    u = np.array([np.cos(angle), np.sin(angle)]) * size
    v = np.array([-np.sin(angle), np.cos(angle)]) * height
    return np.array([u + v, u - v, -u - v, -u + v])


def _clouds(r: Generator, side: int, cells: Image | int, *, octaves: int = 2, fading: float = 0.5) -> Image:
    """Smooth noise (side, side) of unit variance: cells along x and y, each octave finer and fainter."""
    total = np.zeros((side, side), np.float32)
    for octave in range(octaves):
        width, height = np.clip(np.broadcast_to(cells, 2) * 2**octave, 2, side).astype(int)
        noise = r.standard_normal((height, width)).astype(np.float32)
        total += fading**octave * cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
    return total / (total.std() + 1e-6)


def _spectrum(r: Generator, side: int) -> Image:
    """Noise (side, side) of unit variance: a band or a power of frequencies, stretched and turned."""
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    angle, stretch = r.uniform(0, np.pi), np.exp(r.normal(0, 0.8))
    u = (fx * np.cos(angle) + fy * np.sin(angle)) * stretch
    v = (-fx * np.sin(angle) + fy * np.cos(angle)) / stretch
    frequency = np.sqrt(u * u + v * v) + 1 / side
    if r.random() < 0.3:
        centre = r.uniform(0.02, 0.3)
        amplitude = np.exp(-(((frequency - centre) / (centre * r.uniform(0.1, 0.6))) ** 2))
    else:
        amplitude = frequency ** -r.uniform(0.3, 2.2)
    phase = np.exp(2j * np.pi * r.random(frequency.shape))
    field = np.fft.irfft2(amplitude * phase, s=(side, side)).astype(np.float32)
    return (field - field.mean()) / (field.std() + 1e-6)


def _palette(r: Generator, count: int) -> Image:
    """Colours (count, 3) that go together, in two of five pictures round a grey."""
    base = r.uniform(20, 235, 3)
    if r.random() < 0.4:
        base[:] = base.mean()
    spread = r.uniform(5, 80)
    lighter = r.normal(0, spread, (count, 1))
    return np.clip(base + lighter + r.normal(0, spread * r.choice([0, 0.2, 1]), (count, 3)), 0, 255)


def _between(colours: Image, field: Image) -> Image:
    """A field (H, W) of about -2..2 as steps from the first colour towards the second, and beyond both."""
    return colours[0] + (colours[1] - colours[0]) * field[..., None] * 0.5


def _filled(colour: Image, side: int) -> Image:
    return np.full((side, side, 3), colour, np.float32)
