"""Files of pictures below a folder, and what they hold."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from kenpin.errors import DataError
from kenpin.frame import PICTURE_SUFFIXES


def list_pictures(folder: Path) -> list[Path]:
    """All picture files below a folder, sorted by path.

    Raises:
        DataError: The folder is missing or holds no picture, or one below it cannot be read.
    """
    check_folder(folder)
    found = sorted(p for p in files_below(folder) if is_picture(p, folder))
    if not found:
        kinds = " ".join(sorted(PICTURE_SUFFIXES))
        raise DataError("the folder holds no picture", where=folder, cure=f"put pictures there ({kinds})")
    return found


def check_folder(folder: Path) -> None:
    """Make sure that a folder is there.

    Raises:
        DataError: It is not.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"the picture folder {what}", where=folder, cure="give a folder of PNG or JPEG files")


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder; `Path.rglob` passes over linked folders and those that it may not read."""

    def refuse(error: OSError) -> None:
        cure = "check its permissions, or where the links below it lead"
        raise DataError(f"cannot read the folder: {error.strerror}", where=error.filename, cure=cure) from None

    for here, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        inside = Path(here)
        folders[:] = [n for n in folders if not n.startswith(".") and not _leads_back(inside / n)]
        yield from (inside / name for name in files)


def _leads_back(path: Path) -> bool:
    """Whether a path is a link to a folder on the way to it, or to one above that."""
    return path.is_symlink() and any(p.resolve().is_relative_to(path.resolve()) for p in path.parents)


def is_picture(path: Path, root: Path) -> bool:
    """Tell whether a path below `root` is a picture file. A broken link is one: reading it names it."""
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return path.suffix.lower() in PICTURE_SUFFIXES and not hidden and not path.is_dir()


def name_below(path: Path, root: Path) -> str:
    """A path relative to a folder above it, in one spelling: macOS writes ü and が as two characters each."""
    return one_spelling(path.relative_to(root).as_posix())


def one_spelling(name: str) -> str:
    """A name in Unicode's normal form C, in which most machines write it."""
    return unicodedata.normalize("NFC", name)


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones."""
    return sorted(d for d in folder.iterdir() if d.is_dir() and not d.name.startswith("."))


def contents_of(paths: Sequence[Path]) -> list[str]:
    """A name for what each file holds: its SHA-256 where another file is as long, else its own path.

    A file that cannot be read has its path, too: reading the picture names it.
    """

    def content(path: Path, size: int) -> str:
        try:
            return sha256_of(path) if size >= 0 and counts[size] > 1 else str(path)
        except OSError:
            return str(path)

    sizes = [path.stat().st_size if path.is_file() else -1 for path in paths]  # no end has a link to /dev/zero
    counts = Counter(sizes)
    return [content(path, size) for path, size in zip(paths, sizes, strict=True)]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, or of all pictures in a folder one after the other, as hex digits."""
    files = list_pictures(path) if path.is_dir() else [path]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
