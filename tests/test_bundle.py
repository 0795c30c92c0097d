"""Bundles: every way in which one can be wrong, and what installing survives."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kenpin.audit import audit_file, read_audit
from kenpin.bundle import MANIFEST, SIGNATURE, Bundle, install_bundle, open_bundle, write_bundle
from kenpin.bundle_cli import bundle as bundle_command
from kenpin.canonical_json import canonical_json
from kenpin.errors import BundleError, ConfigError
from kenpin.manifest import MAX_BYTES
from kenpin.signing import PublicKey, SecretKey
from kenpin.station_folder import StationFolder
from tests import specimens

KEY = SecretKey(b"12345678", bytes(range(32)))
TRUSTED = [KEY.public]
FILES = {
    "model.onnx": b"int8 model",
    "model_fp.onnx": b"float model",
    "card.md": b"# cap 1\n",
    "golden/0.png": b"picture",
}
MANIFEST_FIELDS = specimens.manifest(
    version="1",
    created_ms=1_700_000_000_000,
    golden=[{**specimens.golden(1.0, (1, 2, 3)), "score_fp": 1.1}],
    score_stats={"mean": 0.5},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sound bundle."""
    path = tmp_path / "cap-1.kenpin"
    write_bundle(path, manifest=MANIFEST_FIELDS, files=FILES, key=KEY)
    return path


def signed(content: Mapping[str, bytes], **changes: Any) -> dict[str, bytes]:
    """The content of a bundle with any manifest, rightly signed: what a careless exporter could make."""
    entries = {n: {"size": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in content.items()}
    fields = {"schema": "kenpin.bundle.v1", "files": entries, **MANIFEST_FIELDS, **changes}
    manifest = canonical_json(fields)
    return {MANIFEST: manifest, SIGNATURE: KEY.sign(manifest, comment="x").encode(), **content}


def zipped(
    path: Path, content: Mapping[str, bytes], entry: Callable[[str], zipfile.ZipInfo] | None = None
) -> Path:
    """Write a zip as any tool might, entry by entry."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            info = entry(name) if entry else zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            archive.writestr(info, data)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        open_bundle(path, TRUSTED)
    assert caught.value.where
    assert caught.value.cure
    return caught.value.what


def test_round_trip(path: Path) -> None:
    found = open_bundle(path, TRUSTED)
    assert dict(found.files) == FILES
    assert found.manifest.product == "cap"
    assert found.signed_by == KEY.public.name
    assert found.sha256 == hashlib.sha256(found.seal[MANIFEST]).hexdigest()
    assert not list(path.parent.glob("*.part"))


def test_the_same_content_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.kenpin"
    write_bundle(again, manifest=MANIFEST_FIELDS, files=FILES, key=KEY)
    assert again.read_bytes() == path.read_bytes()


def test_every_changed_byte_is_refused(path: Path) -> None:
    data = path.read_bytes()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        refusal(path)


def test_every_cut_is_refused(path: Path) -> None:
    data = path.read_bytes()
    for length in range(0, len(data), 37):
        path.write_bytes(data[:length])
        refusal(path)


@pytest.mark.parametrize("where", ["before", "after", "comment", "extra", "date"])
def test_bytes_that_no_signature_covers_are_refused(path: Path, where: str) -> None:
    data = path.read_bytes()
    if where in ("before", "after"):
        path.write_bytes(b"#!/bin/sh\n" + data if where == "before" else data + b"\n")
    else:
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = b"hello" if where == "comment" else b""
            archive.filelist[0].extra = b"\x99\x99\x04\x00evil" if where == "extra" else b""
            archive.filelist[0].date_time = (2000, 1, 1, 0, 0, 0) if where == "date" else (1980, 1, 1, 0, 0, 0)
            archive._didModify = True  # type: ignore[attr-defined]
    assert "did not write" in refusal(path)


def test_missing_and_unexpected_files(tmp_path: Path) -> None:
    content = signed(FILES)
    without = {n: d for n, d in content.items() if n != "model.onnx"}
    assert refusal(zipped(tmp_path / "a", without)) == "the bundle lacks model.onnx"
    assert "does not name: 'run.sh'" in refusal(zipped(tmp_path / "b", {**content, "run.sh": b"evil"}))
    swapped = {**content, "model.onnx": b"evil model"}
    assert refusal(zipped(tmp_path / "c", swapped)) == "model.onnx was changed after signing"
    longer = {**content, "model.onnx": b"int8 model."}
    assert refusal(zipped(tmp_path / "d", longer)) == "model.onnx has 11 bytes instead of 10"


@pytest.mark.parametrize("needed", ["model.onnx", "model_fp.onnx", "card.md", "golden/0.png"])
def test_a_manifest_must_name_what_a_station_needs(tmp_path: Path, needed: str) -> None:
    files = {n: d for n, d in FILES.items() if n != needed}
    assert refusal(zipped(tmp_path / "a", signed(files))) == f"the manifest does not name {needed}"


def test_unsigned(tmp_path: Path) -> None:
    content = signed(FILES)
    del content[SIGNATURE]
    assert refusal(zipped(tmp_path / "a", content)) == f"the bundle has no {SIGNATURE}"
    del content[MANIFEST]
    assert refusal(zipped(tmp_path / "b", content)) == f"the bundle has no {MANIFEST}"


def test_wrong_key_and_damaged_signature(path: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not trusted here"):
        open_bundle(path, [SecretKey.generate().public])
    content = signed(FILES)
    broken = content[SIGNATURE].replace(b"\n", b"\r\n")
    assert "malformed" in refusal(zipped(tmp_path / "a", {**content, SIGNATURE: broken}))
    assert "malformed" in refusal(zipped(tmp_path / "b", {**content, SIGNATURE: b"\xff\xfe"}))
    of_another = signed(FILES, product="board")[SIGNATURE]
    assert "changed after signing" in refusal(zipped(tmp_path / "c", {**content, SIGNATURE: of_another}))


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "a/../../evil", "..\\evil", "C:\\evil", "./evil", "a//evil", "folder/"]
)
def test_paths_that_lead_outside_are_refused_even_if_signed(tmp_path: Path, name: str) -> None:
    content = signed({**FILES, name: b"evil" if not name.endswith("/") else b""})
    assert "leads outside" in refusal(zipped(tmp_path / "a", content))


def test_entries_that_are_no_plain_files(tmp_path: Path) -> None:
    content = signed(FILES)

    def link(name: str) -> zipfile.ZipInfo:
        info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
        info.external_attr = (0o120777 if name == "card.md" else 0o600) << 16
        return info

    assert refusal(zipped(tmp_path / "a", content, link)) == "'card.md' is not a regular file"

    def deflated(name: str) -> zipfile.ZipInfo:
        info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
        info.compress_type = zipfile.ZIP_DEFLATED
        return info

    assert "compressed" in refusal(zipped(tmp_path / "b", content, deflated))


def test_duplicate_name(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("model.onnx", FILES["model.onnx"])
    assert refusal(path) == "the bundle holds a name twice"


def test_sizes_are_limited_before_anything_is_read(path: Path, tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as sparse:
        sparse.truncate(MAX_BYTES + 1)
    assert "larger than 1024 MiB" in refusal(tmp_path / "huge")
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 20 : entry + 28] = struct.pack("<II", MAX_BYTES + 1, MAX_BYTES + 1)
    path.write_bytes(data)
    assert "larger than 1024 MiB" in refusal(path)
    big = {**signed(FILES), MANIFEST: b" " * (5 << 20)}
    assert "manifest.json is larger than 4 MiB" in refusal(zipped(tmp_path / "b", big))
    many = {f"{number:x}": b"" for number in range(10_001)}
    assert refusal(zipped(tmp_path / "c", many)) == "the bundle holds more than 10000 files"


@pytest.mark.parametrize("kind", ["zip", "directory", "folder"])
def test_a_forged_bundle_is_not_read(path: Path, tmp_path: Path, kind: str) -> None:
    forged = tmp_path / "forged"
    content = {**signed(FILES), "model.onnx": bytes(64 << 20)}
    content[MANIFEST] = content[MANIFEST].replace(b"cap", b"nut")
    if kind == "zip":
        zipped(forged, content)
    elif kind == "directory":

        def commented(name: str) -> zipfile.ZipInfo:
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.comment = bytes(65_000)
            return info

        zipped(forged, {f"{number}": b"" for number in range(1000)}, commented)
    else:
        for name, data in content.items():
            (forged / name).parent.mkdir(parents=True, exist_ok=True)
            (forged / name).write_bytes(data)
    assert ("Truncated" if kind == "directory" else "signature does not fit") in refusal(forged)
    tracemalloc.start()
    refusal(forged)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 << 20


def test_a_folder_has_the_limits_of_a_file(tmp_path: Path) -> None:
    huge, many = tmp_path / "huge", tmp_path / "many"
    for folder in (huge, many):
        folder.mkdir()
    with (huge / "model.onnx").open("wb") as sparse:
        sparse.truncate(MAX_BYTES + 1)
    assert refusal(huge) == "the bundle is larger than 1024 MiB"
    for number in range(10_001):
        (many / f"{number}").touch()
    assert refusal(many) == "the bundle holds more than 10000 files"


def test_a_name_in_a_bundle_cannot_write_a_verdict_of_its_own(tmp_path: Path) -> None:
    hostile = "a\nvalid: lamp 9.9, signed by you\n\x1b[2J"

    def deflated(name: str) -> zipfile.ZipInfo:
        info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
        info.compress_type = zipfile.ZIP_DEFLATED
        return info

    said = [
        refusal(zipped(tmp_path / "a", {hostile: b"x" * 99}, deflated)),
        refusal(zipped(tmp_path / "b", {**signed(FILES), hostile: b""})),
    ]
    assert all(text.isprintable() and "valid" in text for text in said)


def test_newer_runtime_is_needed(tmp_path: Path) -> None:
    newer = zipped(tmp_path / "a", signed(FILES, min_runtime="99.0"))
    assert "needs kenpin 99.0 or newer" in refusal(newer)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", "kenpin.bundle.v9"),
        ("surprise", 1),
        ("min_runtime", "soon"),
        ("golden_tolerance", 0),
        ("product", "../cap"),
        ("files", {"model.onnx": {"size": -1, "sha256": "0" * 64}}),
    ],
)
def test_a_manifest_that_is_not_understood(tmp_path: Path, field: str, value: object) -> None:
    what = refusal(zipped(tmp_path / "a", signed(FILES, **{field: value})))
    assert "not understood" in what
    assert field in what


@pytest.mark.parametrize("value", [b"NaN", b"Infinity"])
def test_a_tolerance_that_accepts_everything_is_refused(tmp_path: Path, value: bytes) -> None:
    content = signed(FILES)
    manifest = content[MANIFEST].replace(b'"golden_tolerance":0.01', b'"golden_tolerance":' + value)
    content |= {MANIFEST: manifest, SIGNATURE: KEY.sign(manifest, comment="x").encode()}
    assert "golden_tolerance" in refusal(zipped(tmp_path / "a", content))


def test_what_is_no_bundle(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == "the bundle does not exist"
    (tmp_path / "text").write_text("hello")
    assert "not a complete zip" in refusal(tmp_path / "text")
    assert "neither a file nor a folder" in refusal(Path("/dev/zero"))
    assert refusal(tmp_path / "text" / "below").startswith("the bundle cannot be read")
    (tmp_path / "folder").mkdir()
    assert "has no manifest.json" in refusal(tmp_path / "folder")


@pytest.mark.parametrize("closed", [".", "golden"])
def test_a_folder_that_this_user_may_not_read_is_no_damaged_bundle(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    installed = install_bundle(open_bundle(path, TRUSTED), tmp_path)
    scandir = os.scandir

    def refuse(folder: Path) -> Any:
        if Path(folder) == installed / closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert refusal(installed) == "the bundle cannot be read: Permission denied"


def test_writing_fails_without_traces(tmp_path: Path) -> None:
    target = tmp_path / "cap.kenpin"
    target.mkdir()
    with pytest.raises(BundleError, match="cannot write the bundle"):
        write_bundle(target, manifest=MANIFEST_FIELDS, files=FILES, key=KEY)
    assert [p.name for p in tmp_path.iterdir()] == ["cap.kenpin"]


@pytest.fixture
def station(tmp_path: Path) -> StationFolder:
    folder = StationFolder(tmp_path / "station")
    folder.create()
    return folder


def install(path: Path, station: StationFolder) -> Bundle:
    found = open_bundle(path, TRUSTED)
    station.activate(install_bundle(found, station.bundles))
    return found


def test_installed_bundle_is_the_same(path: Path, station: StationFolder) -> None:
    found = install(path, station)
    active = open_bundle(station.active, TRUSTED)
    assert (active.sha256, active.files) == (found.sha256, found.files)
    assert station.active.resolve().name == found.sha256


def test_what_is_installed_whole_is_not_written_again(path: Path, station: StationFolder) -> None:
    """It may be the active one, which a power cut between taking it away and putting it back would cost."""
    found = install(path, station)
    before = station.active.stat().st_ino
    assert install_bundle(found, station.bundles).name == found.sha256
    assert station.active.stat().st_ino == before


@pytest.mark.parametrize("damage", ["changed", "missing", "extra", "link"])
def test_damage_on_the_disk_is_found_and_mended_by_installing_again(
    path: Path, station: StationFolder, damage: str
) -> None:
    install(path, station)
    model = station.active / "model.onnx"
    if damage == "changed":
        model.write_bytes(b"evil model")
    elif damage == "extra":
        (station.active / "run.sh").write_text("evil")
    else:
        model.unlink()
        if damage == "link":
            # The right content today; tomorrow whoever owns that file may change it.
            (station.root / "elsewhere").write_bytes(FILES["model.onnx"])
            model.symlink_to(station.root / "elsewhere")
    what = refusal(station.active)
    assert ("run.sh" if damage == "extra" else "model.onnx") in what
    install(path, station)
    open_bundle(station.active, TRUSTED)


def test_an_install_that_fails_leaves_the_old_bundle_active(
    path: Path, station: StationFolder, tmp_path: Path
) -> None:
    old = install(path, station)
    large = tmp_path / "large.kenpin"
    write_bundle(large, manifest=MANIFEST_FIELDS, files={**FILES, "model.onnx": bytes(1 << 20)}, key=KEY)
    (tmp_path / "line.pub").write_text(KEY.public.dumps())
    command = [sys.executable, "-m", "kenpin", "bundle", "install", large, "--state", station.root]
    done = subprocess.run(
        [
            "sh",
            "-c",
            'ulimit -f 100; exec "$@"',
            "sh",
            *map(str, command),
            "--trust",
            str(tmp_path / "line.pub"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "cannot be installed: File too large" in done.stderr
    assert [kept.name for kept in station.bundles.iterdir()] == [old.sha256]
    assert open_bundle(station.active, TRUSTED).sha256 == old.sha256


_INSTALL_FOREVER = """
import itertools, sys
from pathlib import Path
from kenpin.bundle import install_bundle, open_bundle
from kenpin.signing import PublicKey
from kenpin.station_folder import StationFolder
import shutil
station, key, *paths = map(Path, sys.argv[1:])
bundles = [open_bundle(path, [PublicKey.load(key)]) for path in paths]
folder = StationFolder(station)
print("ready", flush=True)
for bundle in itertools.cycle(bundles):
    folder.activate(install_bundle(bundle, folder.bundles))
    for other in folder.bundles.iterdir():
        if other.name != bundle.sha256:
            shutil.rmtree(other.rename(folder.root / "gone"))
"""


def test_killed_while_installing(path: Path, station: StationFolder, tmp_path: Path) -> None:
    """Whenever the process dies, the active bundle is one of the two, and no bundle is there in part."""
    second = tmp_path / "second.kenpin"
    write_bundle(second, manifest={**MANIFEST_FIELDS, "version": "2"}, files=FILES, key=KEY)
    (tmp_path / "line.pub").write_text(KEY.public.dumps())
    install(path, station)
    command = [sys.executable, "-c", _INSTALL_FOREVER, station.root, tmp_path / "line.pub", path, second]
    for attempt in range(6):
        with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(0.011 + 0.017 * attempt)
            child.send_signal(signal.SIGKILL)
        assert open_bundle(station.active, TRUSTED).manifest.version in ("1", "2")
        for folder in station.bundles.glob("[!.]*"):
            assert open_bundle(folder, TRUSTED).sha256 == folder.name
        shutil.rmtree(station.root / "gone", ignore_errors=True)


@pytest.fixture
def public(tmp_path: Path) -> str:
    (tmp_path / "line.pub").write_text(KEY.public.dumps())
    return str(tmp_path / "line.pub")


def test_command_keygen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "my.key"
    done = CliRunner().invoke(bundle_command, ["keygen", "--out", str(out)])
    assert done.exit_code == 0
    assert SecretKey.load(out).public.name in done.stderr
    again = CliRunner().invoke(bundle_command, ["keygen", "--out", str(out)])
    assert isinstance(again.exception, ConfigError)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert CliRunner().invoke(bundle_command, ["keygen"]).exit_code == 0
    assert (tmp_path / "config/kenpin/signing.pub").exists()


def test_command_verify(path: Path, public: str) -> None:
    done = CliRunner().invoke(bundle_command, ["verify", str(path), "--trust", public, "--json"])
    answer = json.loads(done.stdout)
    assert answer["valid"]
    assert answer["sha256"] == open_bundle(path, TRUSTED).sha256
    data = bytearray(path.read_bytes())
    data[data.index(b"int8 model")] ^= 1
    path.write_bytes(data)
    damaged = CliRunner().invoke(bundle_command, ["verify", str(path), "--trust", public, "--json"])
    answer = json.loads(damaged.stdout)
    assert not answer["valid"]
    assert "model.onnx" in answer["error"]


def test_exit_codes_of_verify(path: Path, public: str) -> None:
    command = [sys.executable, "-m", "kenpin", "bundle", "verify", str(path)]
    environment = {**os.environ, "XDG_CONFIG_HOME": str(path.parent / "nowhere")}

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *more], capture_output=True, text=True, check=False, env=environment)

    assert run("--trust", public).returncode == 0
    assert run().returncode == 2  # no key to trust
    path.write_bytes(path.read_bytes()[:-1])
    broken = run("--trust", public)
    assert broken.returncode == 1
    assert broken.stdout == ""
    assert "where:" in broken.stderr
    assert "cure:" in broken.stderr


def test_command_show(path: Path, public: str) -> None:
    done = CliRunner().invoke(bundle_command, ["show", str(path), "--trust", public])
    assert "# cap 1" in done.stderr
    assert "whole pictures" in done.stderr
    assert done.stdout == ""
    answer = CliRunner().invoke(bundle_command, ["show", str(path), "--trust", public, "--json"])
    assert json.loads(answer.stdout)["manifest"]["schema"] == "kenpin.bundle.v1"


@pytest.mark.parametrize("verb", [["list"], ["shadow", "--off"], ["activate", "1234"]])
def test_a_folder_that_is_no_station_s_is_refused(tmp_path: Path, verb: list[str]) -> None:
    done = CliRunner().invoke(bundle_command, [*verb, "--state", str(tmp_path / "none")])
    assert "no bundle was ever installed there" in str(done.exception)
    assert not (tmp_path / "none").exists()


def test_command_install(path: Path, public: str, tmp_path: Path) -> None:
    state = tmp_path / "state"
    done = CliRunner().invoke(bundle_command, ["install", str(path), "--state", str(state), "--trust", public])
    assert done.exit_code == 0
    sha256 = open_bundle(state / "active", TRUSTED).sha256
    assert f"cap 1, sha256 {sha256}" in done.stderr
    assert "a running station takes it by itself" in done.stderr
    write_bundle(tmp_path / "cap-2.kenpin", manifest={**MANIFEST_FIELDS, "version": "2"}, files=FILES, key=KEY)
    command = ["install", str(tmp_path / "cap-2.kenpin"), "--state", str(state), "--trust", public]
    done = CliRunner().invoke(bundle_command, command)
    assert "installed and active: cap 2" in done.stderr
    assert "a running station takes it by itself" in done.stderr
    (tmp_path / "file").write_text("")
    command = ["install", str(path), "--state", str(tmp_path / "file"), "--trust", public]
    assert isinstance(CliRunner().invoke(bundle_command, command).exception, ConfigError)
    (tmp_path / "odd/active").mkdir(parents=True)
    command = ["install", str(path), "--state", str(tmp_path / "odd"), "--trust", public]
    assert isinstance(CliRunner().invoke(bundle_command, command).exception, BundleError)


def test_what_a_station_refuses_stands_in_its_audit(path: Path, public: str, tmp_path: Path) -> None:
    folder = StationFolder(tmp_path / "state")
    end = ["--state", str(folder.root), "--trust", public]
    forged = tmp_path / "forged.kenpin"
    forged.write_bytes(path.read_bytes().replace(b"int8 model", b"evil model"))
    CliRunner().invoke(bundle_command, ["install", str(forged), *end])
    assert not audit_file(folder).exists()  # a station that was never set up keeps none
    CliRunner().invoke(bundle_command, ["install", str(path), *end])
    done = CliRunner().invoke(bundle_command, ["install", str(forged), *end])
    assert isinstance(done.exception, BundleError)
    CliRunner().invoke(bundle_command, ["install", str(tmp_path / "mistyped.kenpin"), *end])
    (installed,) = folder.bundles.glob("[0-9a-f]*")
    (installed / "model.onnx").write_bytes(b"evil model")
    CliRunner().invoke(bundle_command, ["activate", installed.name[:8], *end])
    refused = [row["new"] for row in read_audit(folder, PublicKey.load(folder.public_key))][1:]
    assert refused == [
        "refused: forged.kenpin: the bundle is not a complete zip: Bad CRC-32 for file 'model.onnx'",
        f"refused: {installed.name}: model.onnx was changed after signing",
    ]


@pytest.mark.parametrize("place", [1 << 63, -10])
def test_a_zip_that_points_outside_itself(path: Path, place: int) -> None:
    if place < 0:
        path.write_bytes(path.read_bytes()[-place:])
    else:
        with zipfile.ZipFile(path, "a") as archive:
            archive.filelist[0].header_offset = place
            archive._didModify = True  # type: ignore[attr-defined]
    assert "not a complete zip" in refusal(path)


def test_a_zip_that_lies_about_where_an_entry_is(path: Path) -> None:
    """Two directory entries that point to the same bytes."""
    data = bytearray(path.read_bytes())
    entries = [m for m in range(len(data)) if data[m : m + 4] == b"PK\x01\x02"]
    data[entries[3] + 42 : entries[3] + 46] = data[entries[2] + 42 : entries[2] + 46]
    path.write_bytes(data)
    refusal(path)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert len(archive.infolist()) == len(entries)
