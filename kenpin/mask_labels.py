"""Folders in which good and bad parts lie together, and masks tell which is which, as in KSDD2 and DAGM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from kenpin.errors import DataError
from kenpin.folder_names import masks_beside
from kenpin.frame import read_mask

_LABELS = frozenset({"label", "labels"})


def read_mask_labels(pictures: Sequence[Path]) -> Mapping[Path, Path | None]:
    """Which parts are bad, by their masks.

    Either each part has a mask beside it, all black where the part is good (KSDD2: `1.png`, `1_GT.png`); or bad
    ones alone have one, in a folder `Label` (DAGM: `1.PNG`, `Label/1_label.PNG`).

    Args:
        pictures: All files below a folder, masks included.

    Returns:
        The mask of each part that is bad, `None` for one that is good; nothing where the masks lie otherwise.

    Raises:
        DataError: It is not clear of one whether it is good, or a mask cannot be read.
    """
    masks = masks_beside(pictures)
    places = {mask.parent for mask in masks}
    is_beside = all(mask.parent == part.parent for mask, part in masks.items())
    are_labels = all(place.name.casefold() in _LABELS for place in places)
    if not masks or len({*masks.values()}) < len(masks) or not (is_beside or are_labels):
        return {}
    found = dict.fromkeys(path for path in pictures if path not in masks)
    found |= {part: mask for mask, part in masks.items()}
    for path, mask in found.items():
        if mask is None and (is_beside or path.parent in places):
            raise DataError(
                "it is a mask without its picture, or others beside it have a mask and it has none",
                where=path,
                cure="give each part a mask, all black where the part is good; or take all masks out",
            )
    return {part: mask if mask and read_mask(mask).any() else None for part, mask in found.items()}
