"""Files of tensors with words beside them, in the form of safetensors."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load
from torch import Tensor

_SIZE_BYTES = 8


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file and the words beside them, whatever its name: safetensors itself takes UTF-8 only.

    Raises:
        OSError: It cannot be read.
        SafetensorError: It is damaged.
    """
    content = path.read_bytes()
    tensors = load(content)  # which proves the head, too
    head = content[_SIZE_BYTES : _SIZE_BYTES + int.from_bytes(content[:_SIZE_BYTES], "little")]
    return tensors, json.loads(head).get("__metadata__", {})
