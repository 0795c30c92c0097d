"""Initial weights from a file of the user's own: torchvision's resnet18, as safetensors or torch state dict."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from kenpin.errors import ConfigError
from kenpin.train.encoder import LEAST_WIDTH, MOST_WIDTH, Encoder

FIRST = "conv1.weight"
# What wrappers put before every name: DataParallel, Lightning and most self-supervised trainers.
PREFIXES = ("module.", "model.", "encoder.")


def load_initial_weights(encoder: Encoder, path: Path) -> None:
    """Fill an encoder with the weights of a file; it is changed only if all of them fit.

    Our pictures are BGR and torchvision's RGB, so the input channels of the first convolution are turned
    round. What a whole resnet18 has beyond the encoder (layer4, fc) is ignored.

    Args:
        encoder: On any device.
        path: The file.

    Raises:
        ConfigError: The file is missing or no weights file, or weights are missing, too many, of another
            shape or not finite.
    """
    state = _read(path)
    expected = {name: value for name, value in encoder.state_dict().items() if value.is_floating_point()}
    _check_names(state, expected, where=path)
    for name, value in expected.items():
        _check_shape(name, state[name], expected=tuple(value.shape), where=path)
        _check_finite(name, state[name], where=path)
    weights = {name: state[name] for name in expected} | {FIRST: state[FIRST].flip(1)}
    encoder.load_state_dict(encoder.state_dict() | weights)


def width_of(path: Path) -> int:
    """Width of the encoder that the weights of a file fit: the output channels of its first convolution.

    Raises:
        ConfigError: The file is missing or no weights file, has no such convolution, or one that is too wide or
            too narrow for an encoder.
    """
    state = _read(path)
    _check_names(state, [FIRST], where=path)
    width = len(state[FIRST]) if state[FIRST].ndim else 0
    _check_shape(FIRST, state[FIRST], expected=(width, 3, 7, 7), where=path)
    if not LEAST_WIDTH <= width <= MOST_WIDTH:
        raise ConfigError(
            f"the initial weights are of a resnet18 of width {width}",
            where=path,
            cure=f"give one of a width from {LEAST_WIDTH} to {MOST_WIDTH}; ImageNet's is 64",
        )
    return width


def _read(path: Path) -> dict[str, Tensor]:
    """The floating-point tensors of a file by torchvision's names, float32.

    The only integers of a resnet18 count the batches of its batch norms; older files lack them.
    """
    content = _parse(_bytes_of(path), where=path)
    if isinstance(content, dict):
        content = content.get("state_dict", content)
    if not isinstance(content, dict):
        raise _not_weights(path)
    tensors = {str(k): v.float() for k, v in content.items() if torch.is_tensor(v) and v.is_floating_point()}
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read the initial weights: {error.strerror}",
            where=path,
            cure="check the path and its permissions",
        ) from None


def _parse(data: bytes, *, where: Path) -> object:
    with suppress(SafetensorError):
        return load(data)
    try:
        with warnings.catch_warnings():
            # torch warns of pickles that it did not write; either they load or they are refused below.
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # Bytes that are no weights make torch's reader fail in any way there is.
        raise _not_weights(where) from None


def _not_weights(path: Path) -> ConfigError:
    return ConfigError(
        "the file holds no weights that can be read without running code from it",
        where=path,
        cure="give a safetensors file, or what torch.save(model.state_dict(), FILE) wrote",
    )


def _check_names(state: dict[str, Tensor], expected: Iterable[str], *, where: Path) -> None:
    """Refuse missing weights, and more of our own layers' than we have: resnet34 would fit without them."""
    names = list(expected)
    parts = {name.split(".")[0] for name in names}
    missing = [name for name in names if name not in state]
    foreign = [name for name in state if name.split(".")[0] in parts and name not in names]
    for wrong, what in ((missing, "lack"), (foreign, "have more than resnet18")):
        if wrong:
            shown = ", ".join(wrong[:3]) + (", …" if len(wrong) > 3 else "")
            raise ConfigError(
                f"the initial weights {what}: {shown}",
                where=where,
                cure="give the floating-point weights of a resnet18 under torchvision's names",
            )


def _check_shape(name: str, found: Tensor, *, expected: tuple[int, ...], where: Path) -> None:
    if tuple(found.shape) != expected:
        raise ConfigError(
            f"{name} has shape {tuple(found.shape)} in the file, and {expected} is expected",
            where=where,
            cure="give a resnet18 file for the width of the encoder, or train with the width of the file",
        )


def _check_finite(name: str, found: Tensor, *, where: Path) -> None:
    if not found.isfinite().all():
        raise ConfigError(
            f"{name} has values that are not finite",
            where=where,
            cure="give a file from a training that ended well",
        )
