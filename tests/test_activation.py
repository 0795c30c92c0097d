"""Which bundle runs: the old one or the new one, whatever happens, and never one that is too old."""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kenpin.activation import (
    Activation,
    change_activation,
    read_activation,
    refuse_older,
    version_order,
)
from kenpin.audit import Entry, append
from kenpin.bundle import Bundle, install_bundle, open_bundle, write_bundle
from kenpin.canonical_json import canonical_json
from kenpin.errors import BundleError, ConfigError
from kenpin.signing import SecretKey
from kenpin.station_folder import StationFolder
from tests import specimens

# Whatever brings a change to the disk: a process may die before each of them.
CALLS = ("fsync", "rename", "replace", "symlink", "unlink", "mkdir", "open", "rmdir")


@pytest.fixture
def folder(tmp_path: Path) -> StationFolder:
    made = StationFolder(tmp_path / "state")
    made.create()
    return made


def test_root_makes_no_files_in_the_folder_of_another_user(
    folder: StationFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:
        folder.create()
        append(folder, Entry("bundle", "root"))  # its own folder
        os.chown(folder.root, 12345, 12345)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for step in (folder.create, lambda: append(folder, Entry("bundle", "root"))):
        with pytest.raises(ConfigError, match="belongs to") as caught:
            step()
        assert "sudo -u" in caught.value.cure


def test_a_new_folder_is_its_users_alone(folder: StationFolder) -> None:
    assert folder.root.stat().st_mode & 0o777 == 0o700


def test_who_may_not_work_in_a_folder_is_told_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "mkdir", Mock(side_effect=PermissionError(13, "Permission denied")))
    for user, cure in ((os.geteuid(), "create it for this user"), (12345, "sudo -u")):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        with pytest.raises(ConfigError, match="Permission denied") as caught:
            StationFolder(tmp_path).create()
        assert cure in caught.value.cure


def make(root: Path, version: str, *, floor: str = "") -> Bundle:
    """A small signed bundle, whose model no one runs here."""
    key = SecretKey.generate()
    manifest = specimens.manifest(
        product="lamp",
        version=version,
        floor=floor,
        input_shape=(1, 8, 8, 3),
        golden=[specimens.golden(1.0, (1.0, 1.0, 1.0))],
    )
    names = ("model.onnx", "model_fp.onnx", "golden/0.png", "card.md")
    path = root / f"lamp-{version}.kenpin"
    write_bundle(path, manifest=manifest, files={name: version.encode() for name in names}, key=key)
    return open_bundle(path, [key.public])


def first(folder: StationFolder, bundle: Bundle) -> Activation:
    install_bundle(bundle, folder.bundles)
    return change_activation(folder, lambda a: a.running(bundle.sha256, bundle.manifest, on_trial=False))


def dies_at(number: int, work: Callable[[], object]) -> bool:
    """Do it in another process, which ends like kill -9 before its n-th call; whether it came to an end."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    left = [number]

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)
            return call(*args, **options)

        return instead

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    work()
    os._exit(0)


def test_without_a_file_the_link_says_what_runs(folder: StationFolder, tmp_path: Path) -> None:
    assert read_activation(folder).current == ""
    bundle = make(tmp_path, "1")
    folder.activate(install_bundle(bundle, folder.bundles))
    assert read_activation(folder) == Activation(current=bundle.sha256)


def test_a_change_is_kept_and_the_link_follows(folder: StationFolder, tmp_path: Path) -> None:
    old, new = make(tmp_path, "1"), make(tmp_path, "2")
    first(folder, old)
    install_bundle(new, folder.bundles)
    after = change_activation(folder, lambda a: a.running(new.sha256, new.manifest, on_trial=True))
    assert (after.state, after.previous) == ("trial", old.sha256)
    assert read_activation(folder) == after
    assert folder.installed().name == new.sha256
    back = change_activation(folder, lambda a: a.gone_back("it failed"))
    assert (back.current, back.left, back.reason) == (old.sha256, new.sha256, "it failed")
    assert folder.installed().name == old.sha256


def test_what_was_given_up_is_told_until_another_is_wanted_or_runs(
    folder: StationFolder, tmp_path: Path
) -> None:
    bundle = make(tmp_path, "1")
    given_up = Activation(left=bundle.sha256, reason="it failed")
    assert given_up.wanting("", "").reason == "it failed"
    for after in (
        given_up.wanting("0" * 64, "activate"),
        given_up.running("0" * 64, bundle.manifest, on_trial=False),
    ):
        assert (after.left, after.reason) == ("", "")


def test_killed_at_every_step_it_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    old, new = make(tmp_path, "1"), make(tmp_path, "2")
    seen = set()
    for number in range(200):
        folder = StationFolder(tmp_path / f"state{number}")
        folder.create()
        first(folder, old)

        def work(folder: StationFolder = folder) -> None:
            install_bundle(new, folder.bundles)
            change_activation(folder, lambda a: a.running(new.sha256, new.manifest, on_trial=True))

        came_to_its_end = dies_at(number, work)
        after = change_activation(folder, lambda a: a)  # what a start does
        assert folder.installed().name == after.current
        assert sorted(p.name for p in folder.installed().iterdir()) == sorted(
            ["card.md", "golden", "manifest.json", "manifest.json.minisig", "model.onnx", "model_fp.onnx"]
        )
        assert (after.current, after.state) in ((old.sha256, "good"), (new.sha256, "trial"))
        seen.add(after.current)
        if came_to_its_end:
            assert after.current == new.sha256
            break
    else:
        pytest.fail("it never came to its end")
    assert number > 15
    assert seen == {old.sha256, new.sha256}


def test_a_change_waits_for_the_one_before_it(folder: StationFolder) -> None:
    """The station and the command line change it at the same time: neither loses what the other did."""
    inside, go_on = threading.Event(), threading.Event()

    def slowly(now: Activation) -> Activation:
        inside.set()
        assert go_on.wait(180)
        return now.wanting("a" * 64, "shadow")

    first = threading.Thread(target=change_activation, args=(folder, slowly))
    second = threading.Thread(target=change_activation, args=(folder, Activation.started))
    first.start()
    assert inside.wait(180)
    second.start()
    second.join(0.5)
    has_waited = second.is_alive()
    go_on.set()
    first.join()
    second.join()
    assert has_waited
    after = read_activation(folder)
    assert (after.candidate, after.starts) == ("a" * 64, 1)


def test_a_damaged_file_is_answered_by_the_link(folder: StationFolder, tmp_path: Path) -> None:
    bundle = make(tmp_path, "1")
    first(folder, bundle)
    whole = folder.activation.read_bytes()
    chance = random.Random(1)
    for _ in range(300):
        damaged = bytearray(whole[: chance.randrange(len(whole))])
        if damaged and chance.random() < 0.5:
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        folder.activation.write_bytes(damaged)
        found = read_activation(folder)
        assert found.current == bundle.sha256
        assert "damaged" in found.reason


def test_no_flipped_bit_passes_unnoticed(folder: StationFolder, tmp_path: Path) -> None:
    """In newest and floors it would be another version, and refuse bundles that may run."""
    bundle = make(tmp_path, "1")
    first(folder, bundle)
    whole, before = folder.activation.read_bytes(), read_activation(folder)
    assert before.newest
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        folder.activation.write_bytes(damaged)
        found = read_activation(folder)
        assert (found.current, found.newest) == (bundle.sha256, {})
        assert "was damaged; kenpin bundle install" in found.trouble


@pytest.mark.parametrize(
    "written",
    [
        '{"schema":"kenpin.activation.v1","reason":"\\ud800","sha256":"0"}',
        '{"schema":"kenpin.activation.v1","starts":NaN,"sha256":"0"}',
        '{"schema":"kenpin.activation.v1","sha256":["0"]}',
        "[" * 100_000,
        "7",
    ],
)
def test_whatever_else_stands_in_the_file_is_answered_by_the_link(
    folder: StationFolder, tmp_path: Path, written: str
) -> None:
    bundle = make(tmp_path, "1")
    first(folder, bundle)
    folder.activation.write_text(written)
    found = read_activation(folder)
    assert found.current == bundle.sha256
    assert "was damaged" in found.trouble


def test_a_file_of_before_is_read_and_leads_to_no_bundle_that_is_not_there(
    folder: StationFolder, tmp_path: Path
) -> None:
    """It has no sum of its content."""
    bundle = make(tmp_path, "1")
    first(folder, bundle)
    before = read_activation(folder)
    whole = canonical_json(before.model_dump(mode="json", by_alias=True))
    folder.activation.write_bytes(whole)
    assert read_activation(folder) == before
    folder.activation.write_bytes(whole.replace(bundle.sha256.encode(), b"A" + bundle.sha256[1:].encode()))
    now = change_activation(folder, Activation.started)
    assert "names a bundle that is not there; kenpin bundle install" in now.trouble
    assert folder.active_sha256 == bundle.sha256, "the link was led astray"


def test_a_kenpin_that_knows_more_fields_reads_the_file(folder: StationFolder, tmp_path: Path) -> None:
    first(folder, make(tmp_path, "1"))
    before, content = read_activation(folder), json.loads(folder.activation.read_bytes())
    assert content["reason"] == ""
    del content["reason"], content["sha256"]
    content["sha256"] = hashlib.sha256(canonical_json(content)).hexdigest()
    folder.activation.write_bytes(canonical_json(content))
    assert read_activation(folder) == before


def test_a_file_that_cannot_be_read_is_answered_by_the_link_and_not_replaced(
    folder: StationFolder, tmp_path: Path
) -> None:
    bundle = make(tmp_path, "1")
    first(folder, bundle)
    folder.activation.unlink()
    folder.activation.mkdir()
    found = read_activation(folder)
    assert (found.current, found.task) == (bundle.sha256, "")
    assert str(folder.activation) in found.trouble
    with pytest.raises(OSError, match="Is a directory"):
        change_activation(folder, lambda a: a.wanting("0" * 64, "activate"))
    assert folder.activation.is_dir()


def test_an_older_bundle_from_outside_is_refused(folder: StationFolder, tmp_path: Path) -> None:
    now = first(folder, make(tmp_path, "1.10"))
    with pytest.raises(BundleError, match=r"1\.9 is older than 1\.10"):
        refuse_older(now, make(tmp_path, "1.9").manifest, is_kept=False)
    refuse_older(now, make(tmp_path, "1.9").manifest, is_kept=True)  # going back is a person's right
    refuse_older(now, make(tmp_path, "1.11").manifest, is_kept=False)


def test_below_the_floor_nobody_goes_back(folder: StationFolder, tmp_path: Path) -> None:
    first(folder, make(tmp_path, "1"))
    now = first(folder, make(tmp_path, "3", floor="2"))
    with pytest.raises(BundleError, match="asks for 2 or newer"):
        refuse_older(now, make(tmp_path, "1").manifest, is_kept=True)
    refuse_older(now, make(tmp_path, "2").manifest, is_kept=True)
    # The floor stays when a bundle without one follows.
    later = first(folder, make(tmp_path, "4"))
    with pytest.raises(BundleError, match="asks for 2 or newer"):
        refuse_older(later, make(tmp_path, "1").manifest, is_kept=True)


def test_versions_are_ordered_as_people_read_them() -> None:
    ordered = ["", "1.9", "1.10rc1", "1.10", "1.10.1", "2", "20261127.120000"]
    shuffled = random.Random(1).sample(ordered, len(ordered))
    assert sorted(shuffled, key=version_order) == ordered


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=4), st.integers(0, 3))
def test_a_larger_number_is_newer(numbers: list[int], place: int) -> None:
    place %= len(numbers)
    larger = [n + (k == place) for k, n in enumerate(numbers)]
    assert version_order(".".join(map(str, numbers))) < version_order(".".join(map(str, larger)))
