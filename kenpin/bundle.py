"""The bundle: what travels from the workstation to the station, verified before anything in it is parsed.

A bundle is a stored (not deflated) zip, or the same files in a folder once it is installed:

    manifest.json           canonical JSON: what this is, every file with size and SHA-256
    manifest.json.minisig   Ed25519 signature of the manifest
    model.onnx              INT8 Q/DQ model; where the manifest says so, with fp16, or the float model again
    model_fp.onnx           float model
    golden/*.png            frames with known scores
    card.md                 what the model is for and what it must not be used for
    train/*.safetensors     the model before export, to go on learning from; stations ignore it
    reference.png           the picture that the view was drawn on, where there is a view that needs it

The identity of a bundle is the SHA-256 of its manifest, which pins every other byte.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from kenpin.canonical_json import canonical_json
from kenpin.errors import BundleError
from kenpin.manifest import MAX_BYTES, FileEntry, Manifest, parse_manifest
from kenpin.signing import PublicKey, SecretKey, verify
from kenpin.synced_file import create_synced, replace_synced, sync_folder
from kenpin.view import REFERENCE

MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.minisig"
MODEL = "model.onnx"
MODEL_FP = "model_fp.onnx"
CARD = "card.md"
# Encoder and head before export; bundles of the first days lack them.
TRAINED = ("train/encoder.safetensors", "train/head.safetensors")
MAX_MANIFEST_BYTES = 4 << 20
MAX_ENTRIES = 10_000
# Of a zip: 100 bytes for each of so many files. What zipfile makes of it takes ten times as much memory.
_MAX_DIRECTORY = 1 << 20
# What zipfile raises on a zip that is not whole, or made to hurt.
_DAMAGED = (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, OverflowError, OSError, struct.error)


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Attributes:
        path: The zip file or the folder it was read from.
        sha256: Identity: SHA-256 of the manifest.
        manifest: The verified manifest.
        files: Content of each file, verified against the manifest.
        seal: The manifest and its signature, as they were read.
        signed_by: Name of the key that signed.
    """

    path: Path
    sha256: str
    manifest: Manifest
    files: Mapping[str, bytes]
    seal: Mapping[str, bytes]
    signed_by: str


def write_bundle(path: Path, *, manifest: Mapping[str, Any], files: Mapping[str, bytes], key: SecretKey) -> str:
    """Sign and write a bundle; the file appears whole or not at all.

    Args:
        path: The `.kenpin` file to write.
        manifest: Fields of `Manifest` without `files`.
        files: Path inside the bundle -> content.
        key: The signing key.

    Returns:
        The identity of the bundle.
    """
    entries = {n: FileEntry(size=len(d), sha256=hashlib.sha256(d).hexdigest()) for n, d in files.items()}
    parsed = Manifest.model_validate({**manifest, "files": entries})
    without = {name for name in ("view", "golden_tolerance_fp") if getattr(parsed, name) is None}
    content = canonical_json(parsed.model_dump(mode="json", by_alias=True, exclude=without))
    signature = key.sign(content, comment=f"product={parsed.product} version={parsed.version}")
    try:
        replace_synced(path, _to_zip({MANIFEST: content, SIGNATURE: signature.encode(), **files}))
    except OSError as error:
        raise BundleError(
            f"cannot write the bundle: {error.strerror}", where=path, cure="choose another place, or make room"
        ) from None
    return hashlib.sha256(content).hexdigest()


def _to_zip(files: Mapping[str, bytes]) -> bytes:
    """The one zip that these files make: the same files give the same bytes, on every machine."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            archive.writestr(entry, data)
    return out.getvalue()


def open_bundle(path: Path, trusted: Sequence[PublicKey]) -> Bundle:
    """Read and verify a bundle, from the file or from the folder it was installed to.

    Args:
        path: A `.kenpin` file or an installed bundle's folder.
        trusted: Keys that may have signed it.

    Raises:
        BundleError: It says what is wrong: missing, unsigned, signed by a stranger, changed, files missing,
            unexpected or outside, or made for a newer kenpin.
    """
    try:
        return _verify(path, _list_folder(path), trusted) if path.is_dir() else _open_zip(path, trusted)
    except FileNotFoundError:
        raise BundleError(
            "the bundle does not exist", where=path, cure="check the path, or export one"
        ) from None
    except OSError as error:
        raise BundleError(
            f"the bundle cannot be read: {error.strerror}",
            where=path,
            cure="check the path and its permissions",
        ) from None


def _refuse(why: str, path: Path) -> BundleError:
    cure = "do not use it; copy it again from the workstation or export again"
    return BundleError(why, where=path, cure=cure)


@dataclass(frozen=True)
class _Part:
    """A file of a bundle, not read yet."""

    size: int
    open: Callable[[], IO[bytes]]

    def read(self) -> bytes:
        with self.open() as file:
            return file.read(self.size)


class _Frugal(io.FileIO):
    """A file of which no more than `most` is read at once: zipfile would read a directory of any size."""

    most = _MAX_DIRECTORY

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self.most if size is None else min(size, self.most))


def _open_zip(path: Path, trusted: Sequence[PublicKey]) -> Bundle:
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise BundleError("the bundle is neither a file nor a folder", where=path, cure="check the path")
    _check_room(about.st_size, 0, path)
    with _Frugal(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                file.most = MAX_BYTES
                parts = _list_zip(archive, path)
                bundle = _verify(path, parts, trusted)
        except _DAMAGED as error:
            raise _refuse(f"the bundle is not a complete zip: {str(error) or 'it ends early'}", path) from None
        # A zip has room for bytes that no signature covers: comments, dates, gaps. Here it must have none.
        content = {**bundle.files, **bundle.seal}
        whole = _to_zip({name: content[name] for name in parts})
        file.seek(0)
        if file.read(len(whole) + 1) != whole:
            raise _refuse("the bundle holds bytes that kenpin did not write", path)
    return bundle


def _list_zip(archive: zipfile.ZipFile, path: Path) -> dict[str, _Part]:
    """Refuse everything that a bundle written by kenpin cannot contain, before a byte of it is read."""
    entries = archive.infolist()
    _check_room(sum(entry.file_size for entry in entries), len(entries), path)
    for entry in entries:
        name = entry.filename
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or "\\" in name or str(pure) != name:
            raise _refuse(f"the bundle holds a path that leads outside: {name!r}", path)
        if entry.compress_type != zipfile.ZIP_STORED:
            raise _refuse(f"{name!r} is compressed; bundles are stored", path)
        if entry.external_attr >> 16 & 0o170000 not in (0, 0o100000):
            raise _refuse(f"{name!r} is not a regular file", path)
    parts = {entry.filename: _Part(entry.file_size, partial(archive.open, entry)) for entry in entries}
    if len(parts) != len(entries):
        raise _refuse("the bundle holds a name twice", path)
    return parts


def _list_folder(folder: Path) -> dict[str, _Part]:
    parts: dict[str, _Part] = {}
    size = 0
    os.scandir(folder).close()  # what this user may not read is passed over by rglob, and not missing
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise _refuse(f"{name!r} is a link", folder)
        if path.is_dir():
            os.scandir(path).close()
        elif path.is_file():
            parts[name] = _Part(path.stat().st_size, partial(io.FileIO, path))
            size += parts[name].size
            _check_room(size, len(parts), folder)
    return parts


def _check_room(size: int, count: int, path: Path) -> None:
    if size > MAX_BYTES:
        raise _refuse(f"the bundle is larger than {MAX_BYTES >> 20} MiB", path)
    if count > MAX_ENTRIES:
        raise _refuse(f"the bundle holds more than {MAX_ENTRIES} files", path)


def _verify(path: Path, parts: Mapping[str, _Part], trusted: Sequence[PublicKey]) -> Bundle:
    seal = {name: _read_seal(name, parts, path) for name in (MANIFEST, SIGNATURE)}
    # Nothing else is read before this: whoever made a forged bundle must not fill the memory of a station.
    content, signature = seal[MANIFEST], seal[SIGNATURE].decode(errors="replace")
    signer = verify(content, signature, trusted, where=f"{path}: {MANIFEST}")
    manifest = parse_manifest(content, path)
    files = _read_files({name: parts[name] for name in parts if name not in seal}, manifest, path)
    return Bundle(path, hashlib.sha256(content).hexdigest(), manifest, files, seal, signer.name)


def install_bundle(bundle: Bundle, bundles: Path) -> Path:
    """Copy a verified bundle to `bundles/<sha256>/`, complete or not at all.

    Args:
        bundle: What `open_bundle` returned.
        bundles: The station's folder of bundles.

    Returns:
        The installed folder.

    Raises:
        BundleError: It cannot be written.
    """
    target = bundles / bundle.sha256
    content = {**bundle.files, **bundle.seal}
    try:
        if not _is_intact(target, content):
            _install(content, target)
    except OSError as error:
        raise BundleError(
            f"the bundle cannot be installed: {error.strerror}",
            where=target,
            cure="make room there and let this user write; the active bundle is unchanged",
        ) from None
    return target


def _is_intact(target: Path, content: Mapping[str, bytes]) -> bool:
    try:
        parts = _list_folder(target) if target.is_dir() else {}
        return parts.keys() == content.keys() and all(parts[n].read() == content[n] for n in parts)
    except BundleError:
        return False


def _install(content: Mapping[str, bytes], target: Path) -> None:
    staging = target.with_name(f".staging-{target.name}")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        for name, data in content.items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            create_synced(staging / name, data, mode=0o666)
        for folder in {(staging / name).parent for name in content}:
            sync_folder(folder)
    except BaseException:
        # The line needs the room: half a bundle must not keep a full disk full.
        shutil.rmtree(staging, ignore_errors=True)
        raise
    # What stands there already was damaged on the disk, or it would not be written again.
    shutil.rmtree(target, ignore_errors=True)
    staging.rename(target)
    sync_folder(target.parent)


def _read_seal(name: str, parts: Mapping[str, _Part], path: Path) -> bytes:
    if name not in parts:
        raise _refuse(f"the bundle has no {name}", path)
    if parts[name].size > MAX_MANIFEST_BYTES:
        raise _refuse(f"{name} is larger than {MAX_MANIFEST_BYTES >> 20} MiB", path)
    return parts[name].read()


def _read_files(parts: Mapping[str, _Part], manifest: Manifest, path: Path) -> dict[str, bytes]:
    """Read what the manifest names, and refuse everything else."""
    missing = sorted(manifest.files.keys() - parts.keys())
    if missing:
        raise _refuse(f"the bundle lacks {', '.join(missing)}", path)
    needed = {MODEL, MODEL_FP, CARD, *(golden.file for golden in manifest.golden)}
    if manifest.view is not None and manifest.view.needs_reference:
        needed.add(REFERENCE)
    unnamed = sorted(needed - manifest.files.keys())
    if unnamed:
        raise BundleError(
            f"the manifest does not name {', '.join(unnamed)}", where=path, cure="export the bundle again"
        )
    extra = sorted(parts.keys() - manifest.files.keys())
    if extra:
        raise _refuse(f"the bundle holds what its manifest does not name: {', '.join(map(repr, extra))}", path)
    files = {}
    for name, part in parts.items():
        entry = manifest.files[name]
        if part.size != entry.size:
            raise _refuse(f"{name} has {part.size} bytes instead of {entry.size}", path)
        files[name] = part.read()
        if hashlib.sha256(files[name]).hexdigest() != entry.sha256:
            raise _refuse(f"{name} was changed after signing", path)
    return files
