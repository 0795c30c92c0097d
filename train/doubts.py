"""Good pictures that are most unlike the others: some may show a defect that was taken for good.

They lie in `doubts.safetensors` of a run, with the maps that tell where they are unlike.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from kenpin.errors import TrainError
from kenpin.picture_files import sha256_of
from kenpin.pictures import Picture
from kenpin.strips import OVERLAP
from kenpin.synced_file import replace_synced
from kenpin.train.evaluate import Scores
from kenpin.train.fold import unfold
from kenpin.train.journal import cannot_write
from kenpin.train.run import RunFolder
from kenpin.train.tensor_file import read_tensors

_FILE = "doubts.safetensors"
_KEPT = 12


def save_doubts(folder: RunFolder, pictures: Sequence[Picture], scores: Tensor, maps: Tensor) -> None:
    """Keep those that are most unlike the others.

    Args:
        folder: The run that learned from them.
        pictures: The N pictures.
        scores: (N,)
        maps: Of the squares that the model sees, (N, h, h).

    Raises:
        TrainError: The file cannot be written.
    """
    chosen = scores.topk(min(_KEPT, len(pictures))).indices
    kept = unfold(maps[chosen], pictures[0].strips, overlap=OVERLAP // 4)
    tensors = {"scores": scores[chosen].cpu().contiguous(), "maps": kept.cpu().contiguous()}
    files = json.dumps([str(pictures[number].path.resolve()) for number in chosen.tolist()])
    try:
        replace_synced(folder.root / _FILE, save(tensors, {"files": files}), mode=0o666)
    except OSError as error:
        raise cannot_write(folder.root / _FILE, error) from None


def read_doubts(folder: RunFolder) -> Scores | None:
    """What was kept, the most unlike first, without pictures that are gone or were changed since.

    `None` where nothing is left, as where a run of before has kept nothing.

    Raises:
        TrainError: The file is damaged.
    """
    path = folder.root / _FILE
    if not path.exists():
        return None
    try:
        tensors, metadata = read_tensors(path)
        files = json.loads(metadata["files"])
        scores, maps = tensors["scores"].numpy(), tensors["maps"].numpy()
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise TrainError(f"cannot read: {error}", where=path, cure="remove it, or train again") from None
    rows = {row["file"]: row for row in folder.data["pictures"]}
    there = [n for n, file in enumerate(files) if _is_same(Path(file), rows[file]["sha256"])]
    if not there:
        return None
    sight, strips = folder.sight, folder.config.strips
    kept = [rows[files[number]] for number in there]
    pictures = [Picture(Path(row["file"]), row["label"], row["group"], None, sight, strips) for row in kept]
    return Scores(tuple(pictures), scores[there], np.zeros((len(there), 3), np.float32), maps[there], 0.0)


def _is_same(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256
