from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kenpin.canonical_json import canonical_json
from kenpin.engine_passport import Layers, Passport, Target
from kenpin.engine_store import PASSPORT, load_engine_key, mac, seal_engine, unseal_engine
from kenpin.errors import EngineError
from kenpin.station_folder import StationFolder
from kenpin.synced_file import replace_synced

PLAN = b"native code" * 100
TARGET = Target("a" * 64, "int8", "10.3.0", "Orin", "8.7", 8)


def passport(plan: bytes = PLAN, target: Target = TARGET, **changes: Any) -> Passport:
    fields = {
        **dataclasses.asdict(target),
        "model": "lamp-1.0",
        "cuda": "12.6",
        "driver": "540.4.0",
        "l4t": "36.4.3",
        "built_ms": 1,
        "build_s": 2.5,
        "layers": Layers(total=2, int8=("conv1",)),
        "software": "0",
        "plan_bytes": len(plan),
        "plan_sha256": hashlib.sha256(plan).hexdigest(),
    }
    return Passport(**{**fields, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> StationFolder:
    return StationFolder(tmp_path / "state")


@pytest.fixture
def place(folder: StationFolder) -> Path:
    return seal_engine(folder, PLAN, passport())


def plan_file(place: Path) -> Path:
    return place / f"{hashlib.sha256(PLAN).hexdigest()}.plan"


def refusal(folder: StationFolder, target: Target = TARGET) -> str:
    with pytest.raises(EngineError) as caught:
        unseal_engine(folder, target)
    assert caught.value.cure
    return caught.value.what


def test_what_was_sealed_is_unsealed(folder: StationFolder, place: Path) -> None:
    assert unseal_engine(folder, TARGET) == (PLAN, passport())
    assert place == folder.engines / TARGET.key


def test_a_new_engine_takes_the_place_of_the_old_one(folder: StationFolder, place: Path) -> None:
    seal_engine(folder, b"newer", passport(b"newer"))
    assert unseal_engine(folder, TARGET)[0] == b"newer"
    assert [path.name for path in place.glob("*.plan")] == [hashlib.sha256(b"newer").hexdigest() + ".plan"]


def test_an_engine_that_cannot_be_written_leaves_the_old_one(
    folder: StationFolder, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, data: bytes) -> None:
        if path.suffix == ".plan":
            raise OSError(errno.ENOSPC, "No space left on device")
        replace_synced(path, data)

    monkeypatch.setattr("kenpin.engine_store.replace_synced", refuse)
    with pytest.raises(EngineError, match="cannot write the engine: No space left"):
        seal_engine(folder, b"newer", passport(b"newer"))
    assert unseal_engine(folder, TARGET)[0] == PLAN


def test_without_an_engine_the_command_is_told(folder: StationFolder) -> None:
    with pytest.raises(
        EngineError, match="no int8 engine has been built for bundle aaaaaaaaaaaaaaaa"
    ) as caught:
        unseal_engine(folder, TARGET)
    assert caught.value.cure == f"build it with: kenpin build-engine --state {folder.root} --precision int8"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tensorrt": "10.16.1.11"}, "the engine was built for TensorRT 10.3.0, not 10.16.1.11"),
        ({"gpu": "NVIDIA Thor"}, "the engine was built for GPU Orin, not NVIDIA Thor"),
        (
            {"gpu": "NVIDIA Thor", "compute_capability": "11.0"},
            "the engine was built for GPU Orin, not NVIDIA Thor; compute capability 8.7, not 11.0",
        ),
        ({"bundle_sha256": "b" * 64}, "no int8 engine has been built for bundle bbbbbbbbbbbbbbbb"),
        ({"precision": "fp16"}, "no fp16 engine has been built for bundle aaaaaaaaaaaaaaaa"),
    ],
)
def test_what_differs_is_said_in_words(
    folder: StationFolder, place: Path, changes: dict[str, Any], words: str
) -> None:
    assert refusal(folder, dataclasses.replace(TARGET, **changes)) == words


@pytest.mark.parametrize(
    "changes", [{"tensorrt": "10.16.1.11"}, {"bundle_sha256": "b" * 64}, {"precision": "fp32"}]
)
def test_an_engine_under_another_ones_name_is_refused(
    folder: StationFolder, place: Path, changes: dict[str, Any]
) -> None:
    other = dataclasses.replace(TARGET, **changes)
    shutil.copytree(place, folder.engines / other.key)
    assert refusal(folder, other).startswith("the engine was built for ")


@pytest.mark.parametrize("size", [0, 1, len(PLAN) - 1])
def test_a_truncated_engine_is_refused(folder: StationFolder, place: Path, size: int) -> None:
    plan_file(place).write_bytes(PLAN[:size])
    assert refusal(folder) == f"the engine has {size} bytes instead of {len(PLAN)}"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.integers(0, len(PLAN) - 1), st.integers(0, 7))
def test_one_flipped_bit_of_the_engine_is_refused(
    folder: StationFolder, place: Path, byte: int, bit: int
) -> None:
    flipped = bytearray(PLAN)
    flipped[byte] ^= 1 << bit
    plan_file(place).write_bytes(flipped)
    assert refusal(folder) == "the engine was changed after it was built"


def test_a_missing_engine_is_refused(folder: StationFolder, place: Path) -> None:
    plan_file(place).unlink()
    assert "cannot be read" in refusal(folder)


@pytest.mark.parametrize("field", sorted(Passport.model_fields))
def test_no_field_of_the_passport_can_be_changed(folder: StationFolder, place: Path, field: str) -> None:
    document = json.loads((place / PASSPORT).read_text())
    name = Passport.model_fields[field].alias or field
    document["passport"][name] = "c" * 64
    (place / PASSPORT).write_text(json.dumps(document))
    assert "not made by this station" in refusal(folder)


def test_a_forged_engine_with_a_fitting_passport_needs_the_key(folder: StationFolder, place: Path) -> None:
    evil = b"evil code"
    document = json.loads((place / PASSPORT).read_text())
    document["passport"] = passport(evil).model_dump(mode="json", by_alias=True)
    (place / f"{hashlib.sha256(evil).hexdigest()}.plan").write_bytes(evil)
    (place / PASSPORT).write_text(json.dumps(document))
    assert "not made by this station" in refusal(folder)


def test_an_engine_of_another_station_is_refused(folder: StationFolder, place: Path, tmp_path: Path) -> None:
    other = StationFolder(tmp_path / "other")
    load_engine_key(other)
    shutil.copytree(folder.engines, other.engines)
    assert "not made by this station" in refusal(other)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "3", "[" * 10**5),
        *('{"mac": 1, "passport": {}}', '{"mac": "\\ud800", "passport": {}}', '{"passport": {}}'),
    ],
)
def test_a_damaged_passport_is_refused(folder: StationFolder, place: Path, text: str) -> None:
    (place / PASSPORT).write_text(text)
    assert "the engine's passport" in refusal(folder)


def test_a_passport_of_another_kenpin_is_refused(
    folder: StationFolder, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"schema": "kenpin.engine.v2"}
    code = mac(load_engine_key(folder), canonical_json(body))
    (place / PASSPORT).write_text(json.dumps({"mac": code, "passport": body}))
    assert "of another kenpin version" in refusal(folder)


def test_the_key_is_made_once_and_for_its_owner_only(folder: StationFolder) -> None:
    key = load_engine_key(folder)
    assert len(key) == 32
    assert folder.engine_key.stat().st_mode & 0o777 == 0o600
    assert load_engine_key(folder) == key


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.chmod(0o640), "can be read by others"),
        (lambda path: path.write_text("00" * 31), "damaged"),
        (lambda path: path.write_text("no hex"), "cannot be read"),
        (lambda path: path.unlink(), "missing"),
    ],
)
def test_a_key_that_proves_nothing_is_refused(
    folder: StationFolder, place: Path, spoil: Any, words: str
) -> None:
    spoil(folder.engine_key)
    assert f"engine key {'is ' if words in ('damaged', 'missing') else ''}{words}" in refusal(folder)


def test_a_key_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="cannot be made"):
        load_engine_key(StationFolder(tmp_path / "file"))
