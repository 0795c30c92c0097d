"""The engines of a station: kept whole or not at all, and handed out only with the proof that it built them.

An engine is native code: nothing of it is handed to TensorRT before its passport has proven it. Engines lie in

    engines/<key>/passport.json     {"mac": HMAC-SHA256 of the passport, "passport": {...}}
    engines/<key>/<sha256>.plan     the engine, whose SHA-256 and size the passport names

The key is made of what an engine depends on (`Target`). The passport comes last: what it names is complete.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kenpin.canonical_json import canonical_json
from kenpin.engine_passport import Passport, Target, differences
from kenpin.errors import EngineError, private_again
from kenpin.station_folder import StationFolder
from kenpin.synced_file import replace_synced, sync_folder

PASSPORT = "passport.json"
_KEY_BYTES = 32
_MAX_PASSPORT_BYTES = 4 << 20


def seal_engine(folder: StationFolder, plan: bytes, passport: Passport) -> Path:
    """Put an engine into the station's folder, complete or not at all; the one that was there is replaced.

    Args:
        folder: The station's folder.
        plan: The engine; the passport names its size and SHA-256.
        passport: Its passport.

    Returns:
        The engine's folder.

    Raises:
        EngineError: It cannot be written; an older engine is unchanged.
    """
    target = folder.engines / passport.target.key
    body = passport.model_dump(mode="json", by_alias=True)
    key = load_engine_key(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        replace_synced(target / f"{passport.plan_sha256}.plan", plan)
        document = canonical_json({"mac": mac(key, canonical_json(body)), "passport": body})
        replace_synced(target / PASSPORT, document + b"\n")
        _remove_other_plans(target, passport.plan_sha256)
        sync_folder(folder.engines)
    except OSError as error:
        raise EngineError(
            f"cannot write the engine: {error.strerror}",
            where=target,
            cure="make room there, or let this user write; an older engine is unchanged",
        ) from None
    return target


def unseal_engine(folder: StationFolder, target: Target) -> tuple[bytes, Passport]:
    """Read an engine that this station built for exactly this target.

    Nothing is handed out before the passport's MAC, the target, the size and the SHA-256 are right.

    Raises:
        EngineError: It says what is wrong or what differs, with the command that builds it again.
    """
    place = folder.engines / target.key
    if not (place / PASSPORT).is_file():
        raise EngineError(_why_none(folder, target), where=folder.engines, cure=rebuild_command(folder, target))
    passport = _read_passport(folder, place)
    if passport.target != target:
        raise EngineError(
            differences(passport.target, target), where=place, cure=rebuild_command(folder, target)
        )
    path = place / f"{passport.plan_sha256}.plan"
    try:
        plan = path.read_bytes()
    except OSError as error:
        raise EngineError(
            f"the engine cannot be read: {error.strerror}", where=path, cure=rebuild_command(folder, target)
        ) from None
    if len(plan) != passport.plan_bytes:
        fault = f"the engine has {len(plan)} bytes instead of {passport.plan_bytes}"
    elif hashlib.sha256(plan).hexdigest() != passport.plan_sha256:
        fault = "the engine was changed after it was built"
    else:
        return plan, passport
    raise EngineError(fault, where=path, cure=rebuild_command(folder, target))


def rebuild_command(folder: StationFolder, target: Target) -> str:
    """The command that builds an engine."""
    return f"build it with: kenpin build-engine {folder.as_option} --precision {target.precision}"


def mac(key: bytes, body: bytes) -> str:
    """HMAC-SHA256 (RFC 2104) in hexadecimal."""
    return hmac.new(key, body, hashlib.sha256).hexdigest()


def _why_none(folder: StationFolder, target: Target) -> str:
    """Why there is no engine for this target: the nearest one that this station built tells."""
    others = []
    for place in sorted(folder.engines.glob("*/")):
        try:
            others.append(_read_passport(folder, place))
        except EngineError:
            continue
    same = [p for p in others if p.bundle_sha256 == target.bundle_sha256 and p.precision == target.precision]
    if same:
        return differences(max(same, key=lambda p: p.built_ms).target, target)
    return f"no {target.precision} engine has been built for bundle {target.bundle_sha256[:16]}"


def _read_passport(folder: StationFolder, place: Path) -> Passport:
    key = _load_key(folder.engine_key)
    path = place / PASSPORT
    cure = f"delete {place} and build it again with: kenpin build-engine {folder.as_option}"
    try:
        with path.open("rb") as file:
            document: Any = json.loads(file.read(_MAX_PASSPORT_BYTES))
        body, claimed = canonical_json(document["passport"]), str(document["mac"]).encode()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise EngineError("the engine's passport is damaged", where=path, cure=cure) from None
    if not hmac.compare_digest(claimed, mac(key, body).encode()):
        raise EngineError(
            "the engine's passport was not made by this station, or was changed", where=path, cure=cure
        )
    try:
        return Passport.model_validate_json(body)
    except ValidationError:
        raise EngineError("the engine's passport is of another kenpin version", where=path, cure=cure) from None


def load_engine_key(folder: StationFolder) -> bytes:
    """The station's secret for what TensorRT made here; made at its first use, readable by its owner only.

    Raises:
        EngineError: It is damaged, can be read by others, or cannot be made.
    """
    try:
        return _load_key(folder.engine_key) if folder.engine_key.exists() else _make_key(folder.engine_key)
    except OSError as error:
        raise EngineError(
            f"the station's engine key cannot be made: {error.strerror}",
            where=folder.engine_key,
            cure="make room there, or let this user write",
        ) from None


def _load_key(path: Path) -> bytes:
    again = f"delete {path} and build the engines again"
    try:
        about, text = path.stat(), path.read_text(encoding="ascii").strip()
        key = bytes.fromhex(text)
    except FileNotFoundError:
        raise EngineError(
            "the station's engine key is missing", where=path, cure="build the engines again"
        ) from None
    except (OSError, ValueError):
        raise EngineError("the station's engine key cannot be read", where=path, cure=again) from None
    if about.st_mode & 0o077:
        raise EngineError(
            "the station's engine key can be read by others",
            where=path,
            cure=f"{private_again(path)}; {again}",
        )
    if len(key) != _KEY_BYTES:
        raise EngineError("the station's engine key is damaged", where=path, cure=again)
    return key


def _make_key(path: Path) -> bytes:
    key = os.urandom(_KEY_BYTES)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_synced(path, key.hex().encode() + b"\n", mode=0o600)
    return key


def _remove_other_plans(place: Path, plan_sha256: str) -> None:
    for path in place.glob("*.plan"):
        if path.stem != plan_sha256:
            path.unlink()
