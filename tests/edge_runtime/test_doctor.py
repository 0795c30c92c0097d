from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import queue
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from kenpin.activation import change_activation
from kenpin.calibrating import begin_calibrating
from kenpin.calibration.masters_book import add_master, make_master
from kenpin.config import SourceSection
from kenpin.edge_runtime import damage, doctor_broker, doctor_service, doctor_station
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.decide import Decision, Verdict
from kenpin.edge_runtime.doctor import Check, Diagnosis, Finding, examine, passed
from kenpin.edge_runtime.doctor_broker import broker_checks
from kenpin.edge_runtime.doctor_host import host_checks, owners_of_cv2, power_mode
from kenpin.edge_runtime.doctor_station import station_checks
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.readiness import Readiness
from kenpin.edge_runtime.result_inbox import ResultInbox
from kenpin.edge_runtime.roles import publisher_vitals
from kenpin.edge_runtime.series import families
from kenpin.edge_runtime.sources import make_source
from kenpin.edge_runtime.station import Station
from kenpin.edge_runtime.store import Store
from kenpin.edge_runtime.vitals import Vitals, write_vitals
from kenpin.edge_runtime.watch import Watch
from kenpin.errors import EngineError, SourceError, StoreError
from kenpin.events import now_ms
from kenpin.hold import hold
from kenpin.masters import masters_file
from tests.edge_runtime import fake_device
from tests.edge_runtime.publishing_line import PublishingLine


def findings(workshop: Any, source: str = "") -> dict[str, Finding]:
    source = source or f"folder:{workshop.pictures(10, 20)}"
    found = examine(station_checks(workshop.config(source)), limit_s=180)
    assert all(f.words for f in found)
    assert all(f.cure for f in found if f.verdict != "PASS")
    return {f.name.partition(" ")[0] if f.name.startswith("camera") else f.name: f for f in found}


def test_a_station_that_is_well(workshop: Any) -> None:
    workshop.ready()
    found = findings(workshop)
    verdicts = {name: f.verdict for name, f in found.items()}
    # The record of this test has no limits for pictures, and its bundle is from 1970.
    assert verdicts == {
        "folder": "PASS",
        "secrets": "PASS",
        "database": "PASS",
        "line": "PASS",
        "trusted keys": "PASS",
        "bundle": "WARN",
        "calibration": "WARN",
        "engine": "PASS",
        "camera": "PASS",
        "service": "WARN",
    }
    assert "int8 on onnxruntime, 16 x 16, median" in found["engine"].words
    assert "32 x 32" in found["camera"].words


def test_without_bundle_and_calibration_each_line_has_its_cure(workshop: Any) -> None:
    found = findings(workshop)
    assert found["bundle"].verdict == "FAIL"
    assert "kenpin bundle install" in found["bundle"].cure
    workshop.install()
    found = findings(workshop)
    assert found["calibration"].verdict == "FAIL"
    assert found["calibration"].cure == "calibrate with: kenpin calibrate fit"


def test_a_key_that_is_not_there_is_one_failure_with_its_file_and_its_cure(workshop: Any) -> None:
    workshop.ready()
    workshop.public_key.rename(workshop.root / "elsewhere.pub")
    found = findings(workshop)
    (failure,) = (f for f in found.values() if f.verdict == "FAIL")
    assert failure.name == "trusted keys"
    assert failure.words == f"cannot read the key: No such file or directory: {workshop.public_key}"
    assert failure.cure.startswith("correct trusted_keys")
    for name in ("bundle", "calibration", "engine", "camera"):
        assert found[name].verdict == "WARN"
        assert found[name].cure == "see to trusted keys first"


def test_a_clock_that_stands_before_the_bundle_was_made_is_told(workshop: Any) -> None:
    workshop.calibrate(workshop.install(workshop.bundle(created_ms=now_ms() + 40 * 86_400_000)))
    found = findings(workshop)["bundle"]
    assert found.verdict == "FAIL"
    assert "made 40 days after what the clock says" in found.words
    assert "set the clock" in found.cure


def test_a_bundle_that_was_given_up_is_told(workshop: Any) -> None:
    workshop.ready()
    change_activation(workshop.folder, lambda was: was.wanting("f" * 64, "activate").refused("it is too slow"))
    found = findings(workshop)["bundle"]
    assert found.verdict == "WARN"
    assert "ffffffffffffffff was given up: it is too slow" in found.words


def test_an_activation_that_was_damaged_is_told(workshop: Any) -> None:
    workshop.ready()
    workshop.folder.activation.write_text("{")
    found = findings(workshop)["bundle"]
    assert found.verdict == "WARN"
    assert f"{workshop.folder.activation} was damaged" in found.words
    assert found.cure.startswith("kenpin bundle install ")


def add_a_master(workshop: Any) -> None:
    folder, picture = workshop.folder, workshop.pictures(9) / "000.png"
    content = picture.read_bytes()
    master = make_master("M-1", "scratch", "NG", picture=content, suffix=".png")
    add_master(folder, master, content, by="Aiko", why="")


def test_masters_that_are_due_are_told(workshop: Any) -> None:
    workshop.ready()
    add_a_master(workshop)
    found = findings(workshop)["calibration"]
    assert (found.verdict, found.words, found.cure) == (
        "FAIL",
        "masters were never shown: M-1",
        "show them: kenpin masters check",
    )


def test_who_holds_the_station_is_told_while_it_does_not_run(workshop: Any) -> None:
    """As after a power cut in the middle of a check: once started it would release nothing."""
    workshop.ready()
    hold(workshop.folder.paused, "mes")
    found = findings(workshop)["calibration"]
    assert (found.verdict, found.words[:16]) == ("FAIL", "paused by mes si")
    assert found.cure.endswith(f"remove {workshop.folder.paused}")
    begin_calibrating(workshop.folder, "sato")
    found = findings(workshop)["calibration"]
    assert found.verdict == "FAIL"
    assert found.words.startswith("sato calibrates or shows masters since 20")
    assert found.words.endswith("; no part is released")


def test_masters_that_cannot_be_read_are_not_to_be_shown(workshop: Any) -> None:
    workshop.ready()
    add_a_master(workshop)
    book = masters_file(workshop.folder)
    book.write_bytes(book.read_bytes().replace(b"scratch", b"scritch"))
    found = findings(workshop)["calibration"]
    assert (found.verdict, found.cure) == (
        "FAIL",
        "find out who changed it; move the file away, keep it as evidence, and start a new one",
    )


def test_a_calibration_that_cannot_be_read_is_told_in_words(workshop: Any) -> None:
    records = workshop.ready().folder.records
    records.unlink()
    records.mkdir()
    found = findings(workshop)["calibration"]
    assert (found.verdict, found.words) == ("FAIL", f"{records} cannot be used: Is a directory")
    assert found.cure == "let the station's user read and write it"


def test_a_cure_of_several_steps_is_told_whole(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop.ready()
    ready = Readiness(fault="the engine key can be read by others; chmod 600 engine.key; build it again")
    monkeypatch.setattr(doctor_station, "check_readiness", lambda *_: ready)
    found = findings(workshop)["calibration"]
    assert (found.words, found.cure) == (
        "the engine key can be read by others",
        "chmod 600 engine.key; build it again",
    )


def test_a_public_key_that_is_gone_is_made_of_the_secret_one(workshop: Any) -> None:
    workshop.ready()
    workshop.folder.public_key.unlink()
    assert findings(workshop)["calibration"].verdict != "FAIL"


def test_a_public_key_that_is_damaged_is_told_with_its_cure(workshop: Any) -> None:
    workshop.ready()
    workshop.folder.public_key.write_text("x")
    found = findings(workshop)["calibration"]
    assert (found.verdict, found.words) == ("FAIL", "the file is not a minisign key")
    assert found.cure == "put it back from a copy, or remove it: it is made anew of station.key"


@pytest.mark.parametrize(("left", "verdict"), [(20, "WARN"), (10_000_000, "PASS")])
def test_a_disk_on_which_no_more_files_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int, verdict: str
) -> None:
    real = tuple(os.statvfs(tmp_path))
    counted = os.statvfs_result((*real[:5], 1_000, left, left, *real[8:]))
    monkeypatch.setattr(os, "statvfs", lambda _: counted)
    monkeypatch.setattr("kenpin.edge_runtime.doctor_host._LEAST_FREE", 0)
    found = next(check for check in host_checks(tmp_path) if check.name == "disk").look()
    assert (found.verdict, "--inodes" in found.cure) == (verdict, verdict == "WARN")


def test_a_camera_that_does_not_open(workshop: Any) -> None:
    workshop.ready()
    found = findings(workshop, "usb:93")
    assert (found["camera"].verdict, found["camera"].words) == (
        "FAIL",
        "the camera does not open: /dev/video93",
    )
    assert "check the cable" in found["camera"].cure


def test_secrets_that_others_can_read(workshop: Any) -> None:
    workshop.ready()
    workshop.folder.key.write_text("secret")
    workshop.folder.key.chmod(0o644)
    found = findings(workshop)["secrets"]
    assert found.verdict == "FAIL"
    assert found.cure == f"chmod 600 {workshop.folder.key}"


def test_a_folder_that_others_can_look_into(workshop: Any) -> None:
    workshop.ready()
    workshop.folder.root.chmod(0o755)  # as useradd makes it on Debian: a file that others read they can lock
    found = findings(workshop)["folder"]
    assert (found.verdict, found.cure) == ("WARN", f"chmod o-rwx {workshop.folder.root}")
    assert "lock" in found.words
    workshop.folder.root.chmod(0o750)
    assert findings(workshop)["folder"].verdict == "PASS"


def test_a_secret_that_this_user_cannot_look_at_keeps_no_other_from_being_looked_at(workshop: Any) -> None:
    workshop.ready()
    hidden = workshop.root / ("x" * 300)  # as in a folder of another user: asking whether it is there fails
    url = f"rtsp://127.0.0.1:9/x?user=boss&password_file={hidden}"
    assert findings(workshop, url)["secrets"].verdict == "PASS"
    workshop.folder.key.chmod(0o644)
    assert findings(workshop, url)["secrets"].cure == f"chmod 600 {workshop.folder.key}"


def test_the_password_of_a_camera_is_a_secret(workshop: Any, tmp_path: Path) -> None:
    workshop.ready()
    password = tmp_path / "camera.password"
    password.write_text("word")
    password.chmod(0o644)
    url = f"rtsp://127.0.0.1:9/x?user=boss&password_file={password}"
    assert findings(workshop, url)["secrets"].cure == f"chmod 600 {password}"
    with pytest.raises(SourceError, match="can be read by others"):
        make_source(url).open()


def test_a_running_station_keeps_its_camera(workshop: Any) -> None:
    workshop.ready()
    workshop.folder.run.mkdir()
    write_vitals(workshop.folder.run, Vitals(role="station", pid=1, numbers={"ready": 1}))
    found = findings(workshop, "usb:93")
    assert "camera" not in found
    assert found["running station"].verdict == "PASS"


def test_a_station_that_systemd_runs_is_seen_by_whoever_types_a_command(
    workshop: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = tmp_path / "run" / "kenpin"
    given.mkdir(parents=True)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(given))
    config = workshop.ready().config(f"folder:{workshop.pictures(10)}")
    with Station(config):
        write_vitals(workshop.folder.run, Vitals(role="station", pid=1, numbers={"ready": 1}))
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    assert workshop.folder.run.resolve() == given
    assert findings(workshop, "usb:93")["running station"].verdict == "PASS"
    given.rename(tmp_path / "gone")  # as after a boot
    assert workshop.folder.run == workshop.folder.root / "run"


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (None, "without its publisher"),
        ({"broker_denied": 1.0, "broker_connected": 1.0}, "refuses"),
        ({"broker_denied": 1.0, "broker_connected": 0.0}, "has no connection"),
        ({"broker_connected": 0.0, "events_acked_total": 7.0}, "has no connection"),
    ],
)
def test_a_station_whose_alerts_stay_in_the_store_is_told(
    workshop: Any, free_port: int, told: dict[str, float] | None, words: str
) -> None:
    workshop.ready().port = free_port
    workshop.folder.run.mkdir()
    for role in ("station", "capture-0"):
        write_vitals(workshop.folder.run, Vitals(role=role, pid=1, numbers={"ready": 1.0}))
    if told is not None:
        texts = {"unread": "event/anomaly"}  # of the connection before
        write_vitals(workshop.folder.run, Vitals(role="publisher", pid=1, numbers=told, texts=texts))
    found = findings(workshop)["readers"]
    assert found.verdict == "FAIL"
    assert words in found.words


@pytest.mark.parametrize(
    ("code", "cure"),
    [(errno.ENOSPC, "make room"), (errno.EROFS, "read-only"), (errno.EACCES, "station's user")],
)
def test_a_folder_that_cannot_be_written_has_the_cure_of_its_cause(
    workshop: Any, monkeypatch: pytest.MonkeyPatch, code: int, cure: str
) -> None:
    workshop.ready()
    write = Path.write_bytes

    def refuse(path: Path, data: bytes) -> int:
        if path.name == ".doctor":
            raise OSError(code, os.strerror(code))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    found = findings(workshop)["folder"]
    assert found.verdict == "FAIL"
    assert cure in found.cure


@pytest.mark.parametrize(
    ("error", "words", "cure"),
    [
        (sqlite3.OperationalError("disk I/O error"), "disk I/O error", "free space"),
        (sqlite3.DatabaseError("database disk image is malformed"), "damaged", "moves the damaged file aside"),
    ],
)
def test_a_database_that_cannot_be_read_is_told_with_its_cure(
    workshop: Any, monkeypatch: pytest.MonkeyPatch, error: sqlite3.Error, words: str, cure: str
) -> None:
    Store(workshop.ready().folder.database).close()
    monkeypatch.setattr(damage, "_look_at_all", Mock(side_effect=error))
    found = findings(workshop, "usb:93")["database"]
    assert found.verdict == "FAIL"
    assert words in found.words
    assert cure in found.cure


def test_a_station_whose_key_is_gone_is_told(workshop: Any) -> None:
    workshop.ready().folder.key.unlink()
    found = findings(workshop)["secrets"]
    assert (found.verdict, "key is gone" in found.words) == ("FAIL", True)
    assert "from a copy of the folder" in found.cure


def test_parts_are_told_without_counting_a_year_of_them(workshop: Any) -> None:
    with closing(Store(workshop.ready().folder.database)) as store:
        assert findings(workshop, "usb:93")["database"].words == "no part yet"
        parts = [Part(str(n), "cam", "s", 0, 0, Decision(Verdict.NG)) for n in range(3)]
        store.commit([(part, None) for part in parts])
        store.change(lambda connection, _: connection.execute("DELETE FROM part WHERE seq = 1"))
        assert findings(workshop, "usb:93")["database"].words == "parts 2 to 3"


def test_a_database_of_a_newer_kenpin_is_told(workshop: Any) -> None:
    Store(workshop.ready().folder.database).close()
    with closing(sqlite3.connect(workshop.folder.database)) as connection:
        connection.execute("PRAGMA user_version = 99")
    found = findings(workshop, "usb:93")["database"]
    assert (found.verdict, found.words) == ("FAIL", "it was written by a newer kenpin")


def test_files_that_root_left_in_the_folder_are_told(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop.ready()
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path).name != "station.key")
    found = findings(workshop)["folder"]
    assert found.verdict == "FAIL"
    assert "station.key" in found.words
    assert "sudo chown -R" in found.cure


@pytest.mark.parametrize(
    ("output", "cure"),
    [
        ({"modbus": "1502"}, "HOST:PORT"),
        ({"gpio": "gpiochip0/4,17,27,22"}, "kenpin[gpio]"),
        ({"log": Path("/nowhere/out.log")}, "make that folder"),
    ],
)
def test_an_output_that_would_end_the_station_is_told(
    workshop: Any, monkeypatch: pytest.MonkeyPatch, output: dict[str, Any], cure: str
) -> None:
    monkeypatch.setattr(doctor_station, "find_spec", lambda _: None)
    config = workshop.ready().config("usb:93")
    config = config.model_copy(update={"output": config.output.model_copy(update=output)})
    (line,) = (f for f in examine(station_checks(config)) if f.name == "line")
    assert line.verdict == "FAIL"
    assert cure in line.cure


def test_a_certificate_that_is_not_there_is_told_with_its_key(workshop: Any, tmp_path: Path) -> None:
    workshop.ready()
    files = {"cert_file": tmp_path / "no.pem", "key_file": tmp_path / "no.key"}
    config = workshop.config("usb:93", url="mqtts://127.0.0.1:1", **files)
    (login,) = (f for f in examine(broker_checks(config)) if f.name == "login")
    assert "cert_file" in login.cure


def test_the_broker_answers_and_delivers_the_last_will(workshop: Any, mosquitto: Any) -> None:
    workshop.ready().port = mosquitto.port
    found = findings(workshop)
    assert (found["broker"].verdict, found["last will"].verdict) == ("PASS", "PASS")


def test_a_broker_that_is_away(workshop: Any, free_port: int) -> None:
    workshop.ready().port = free_port
    found = findings(workshop)
    assert found["broker"].verdict == "FAIL"
    assert "refused" in found["broker"].words


def test_events_that_nobody_reads_are_told(
    workshop: Any, mosquitto: Any, make_subscriber: Any, wait_for: Any
) -> None:
    workshop.ready().port = mosquitto.port
    workshop.folder.run.mkdir()
    line = PublishingLine(workshop.folder.database)
    publisher = line.publish(mosquitto.port)
    wait_for(lambda: publisher.is_connected, "the connection")

    inbox = ResultInbox(workshop.folder.run)

    def told() -> Finding:
        vitals = publisher_vitals(publisher, Identity("st1"), Watch({}), inbox)
        unknown = families(vitals.numbers.items())[1]
        assert unknown == 0
        write_vitals(workshop.folder.run, vitals)
        return findings(workshop)["readers"]

    assert told().verdict == "PASS"
    assert "no event" in told().words
    line.commit(1)
    wait_for(lambda: publisher.traffic.acked == 1, "the event")
    assert (told().verdict, publisher.traffic.no_subscriber) == ("WARN", 1)
    assert "nobody subscribes to event/anomaly" in told().words
    make_subscriber(mosquitto.port)
    line.commit(1)
    wait_for(lambda: publisher.traffic.acked == 2, "the next event")
    assert (told().verdict, publisher.traffic.no_subscriber) == ("PASS", 1)
    inbox.close()
    line.stop()
    line.store.close()


def test_events_that_a_broker_does_not_take_are_told(workshop: Any, mosquitto: Any) -> None:
    workshop.ready().port = mosquitto.port
    workshop.folder.run.mkdir()
    line = PublishingLine(workshop.folder.database)
    line.commit(2)
    write_vitals(workshop.folder.run, Vitals(role="publisher", pid=1, numbers={"broker_connected": 1}))
    assert findings(workshop)["readers"].verdict == "PASS"
    line.store.change(
        lambda connection, _: connection.execute("UPDATE outbox SET created_ms = created_ms - 61000")
    )
    found = findings(workshop)["readers"]
    assert found.verdict == "WARN"
    assert found.words.startswith("2 events wait for the broker, the oldest for 6")
    line.store.close()


def test_a_certificate_of_the_broker_that_does_not_verify(
    workshop: Any, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.ready().port = free_port
    why = "its certificate is not yet valid, by this machine's clock"
    monkeypatch.setattr(doctor_broker, "_listen", lambda *_: (queue.SimpleQueue(), why))
    found = findings(workshop)["broker"]
    assert found.verdict == "FAIL"
    assert "set the clock" in found.cure


def test_a_broker_that_allows_nothing(workshop: Any, make_mosquitto: Any, tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read elsewhere/#\n")
    acl.chmod(0o600)
    broker = make_mosquitto(f"acl_file {acl}")
    broker.start()
    workshop.ready().port = broker.port
    found = findings(workshop)["broker"]
    assert found.verdict == "FAIL"
    assert "plant/line/st1" in found.cure or "permissions" in found.cure


@pytest.mark.parametrize(
    ("check", "lacks"),
    [("last will", "retain_available false"), ("broker", "max_qos 0"), ("broker", "max_packet_size 8000")],
)
def test_a_broker_that_cannot_carry_a_station_is_told_with_its_cure(
    workshop: Any, make_mosquitto: Any, check: str, lacks: str
) -> None:
    broker = make_mosquitto(lacks)
    broker.start()
    workshop.ready().port = broker.port
    found = findings(workshop)[check]
    assert found.verdict == "FAIL"
    assert lacks.split(maxsplit=1)[0] in found.cure


def test_the_last_will_of_the_doctor_does_not_stay_at_the_broker(workshop: Any, mosquitto: Any) -> None:
    workshop.ready().port = mosquitto.port
    left = ("mosquitto_pub", "-p", str(mosquitto.port), "-t", "plant/line/st1/doctor", "-m", "will", "-r")
    subprocess.run(left, check=True)  # as by one that was killed
    found = findings(workshop)
    assert (found["broker"].verdict, found["last will"].verdict) == ("PASS", "PASS")
    listen = ("mosquitto_sub", "-p", str(mosquitto.port), "-t", "#", "-W", "1", "-v")
    assert subprocess.run(listen, capture_output=True, check=False).stdout == b""


class Named:
    def __init__(self, name: str) -> None:
        self.metadata = {"Name": name}


def test_two_packages_that_bring_opencv_are_found() -> None:
    names = ["numpy", "opencv-python", "opencv-python-headless", "opencv_contrib_python"]
    installed: Any = [Named(name) for name in names]
    assert owners_of_cv2(installed) == ["opencv-python", "opencv-python-headless", "opencv_contrib_python"]
    assert len(owners_of_cv2(importlib.metadata.distributions())) <= 1


def test_a_check_that_fails_or_hangs_is_a_finding() -> None:
    def raise_ours() -> Diagnosis:
        raise StoreError("the disk is full", cure="make room")

    def raise_other() -> Diagnosis:
        raise ValueError("oops")

    def hang() -> Diagnosis:
        time.sleep(3)
        return passed("late")

    def raise_systems() -> Diagnosis:
        raise PermissionError(errno.EACCES, "Permission denied", "/etc/kenpin/mqtt")

    checks = [Check("a", raise_ours), Check("b", raise_other), Check("d", raise_systems)]
    ours, other, systems = examine(checks, limit_s=180)
    (hung,) = examine([Check("c", hang)], limit_s=0.3)
    assert ours == Finding("a", "FAIL", "the disk is full", "make room")
    assert other.words == "ValueError: oops"
    assert systems.words == "Permission denied: /etc/kenpin/mqtt"
    assert "station's user" in systems.cure
    assert (hung.verdict, hung.words) == ("FAIL", "no answer within 0.3 s")


def test_this_machine_is_looked_at(tmp_path: Path) -> None:
    found = {f.name: f for f in examine(host_checks(tmp_path / "not" / "there"))}
    assert {"machine", "disk", "memory", "clock", "OpenCV", "engine runtime"} <= found.keys()
    assert found["OpenCV"].verdict == "PASS"
    assert " UTC, " in found["clock"].words


@pytest.mark.parametrize("lacks", ["pycuda", "a library of TensorRT", ""])
def test_a_tensorrt_that_cannot_be_used_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    def refuse(*_: object) -> None:
        raise EngineError(f"{lacks} is missing", cure="install it")

    device: Any = type("Device", (fake_device.Device,), {})
    if lacks == "pycuda":
        monkeypatch.setattr(device, "__init__", refuse)
    elif lacks:
        monkeypatch.setattr("kenpin.tensorrt_seam.load_tensorrt", refuse)
    else:
        monkeypatch.setattr("kenpin.tensorrt_seam.load_tensorrt", lambda: None)
    monkeypatch.setattr("kenpin.edge_runtime.device.Device", device)
    monkeypatch.setattr("kenpin.tensorrt_seam.is_installed", lambda: True)
    (found,) = (f for f in examine(host_checks(tmp_path)) if f.name == "engine runtime")
    assert found.words.startswith("TensorRT, ")
    assert (found.verdict, found.cure) == (("WARN", "install it") if lacks else ("PASS", ""))
    assert lacks in found.words
    assert fake_device.opened == []


@pytest.mark.parametrize(
    ("governor", "jetson", "found"),
    [
        ("performance", "", ("PASS", "cores by performance")),
        ("powersave", "", ("WARN", "they are kept slow")),
        (None, "", ("PASS", "does not tell")),
        ("schedutil", "MAXN_SUPER", ("PASS", "NV Power Mode: MAXN_SUPER")),
        ("schedutil", "15W", ("WARN", "NV Power Mode: 15W, cores by schedutil")),
    ],
)
def test_a_machine_that_is_kept_slow_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, governor: str | None, jetson: str, found: tuple[str, str]
) -> None:
    verdict, words = found
    if governor:
        (tmp_path / "scaling_governor").write_text(governor + "\n")
    if jetson:
        tool = tmp_path / "nvpmodel"
        tool.write_text(f"#!/bin/sh\necho 'NV Power Mode: {jetson}'\necho 2\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    told = power_mode(tmp_path / "scaling_governor")
    assert told.verdict == verdict
    assert words in told.words
    assert bool(told.cure) == (verdict == "WARN")
    assert "-m 0" not in told.cure  # which is 15 W on an Orin Nano


@pytest.mark.parametrize(
    ("enabled", "publisher", "said"),
    [
        ("enabled", "active", ("PASS", "4 units are active, 3 restarts")),
        ("enabled", "failed", ("FAIL", "kenpin-publisher.service is failed")),
        ("disabled", "active", ("WARN", "not installed, or not started at boot")),
    ],
)
def test_units_as_the_documents_say_to_start_them(
    workshop: Any, monkeypatch: pytest.MonkeyPatch, enabled: str, publisher: str, said: tuple[str, str]
) -> None:
    """`systemctl enable kenpin.target` leaves every service disabled."""
    tool = workshop.root / "systemctl"
    tool.write_text(
        f"""#!/bin/sh
case "$2" in
kenpin.target) echo UnitFileState={enabled} ;;
kenpin-station.service) printf 'UnitFileState=disabled\\nActiveState=active\\nNRestarts=1\\n' ;;
*) printf 'Id=kenpin-station.service\\nActiveState=active\\nNRestarts=1\\n\\n'
   printf 'Id=kenpin-publisher.service\\nActiveState={publisher}\\nNRestarts=2\\n\\n'
   printf 'Id=kenpin-health.service\\nActiveState=active\\nNRestarts=0\\n\\n'
   printf 'Id=kenpin-capture@0.service\\nActiveState=active\\nNRestarts=0\\n' ;;
esac
"""
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{workshop.root}:{os.environ['PATH']}")
    monkeypatch.setattr(doctor_service, "_SYSTEMD", workshop.root)
    workshop.ready()
    found = findings(workshop, "usb:93")["service"]
    assert (found.verdict, found.words) == said
    if said[0] == "PASS":
        source = SourceSection(url="usb:93", views=("usb:94",))
        config = workshop.config("usb:93").model_copy(update={"source": source})
        (service,) = (check for check in station_checks(config) if check.name == "service")
        assert "another configuration: kenpin-capture@1.service is missing" in service.look().words


@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_ends_with_1_when_something_fails(workshop: Any, as_json: bool) -> None:
    config = workshop.toml(f"folder:{workshop.pictures(10)}")
    command = [sys.executable, "-m", "kenpin", "doctor", "--config", config, *(["--json"] if as_json else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1, done.stderr
    if as_json:
        assert {"name", "verdict", "words", "cure"} == json.loads(done.stdout)["findings"][0].keys()
        assert done.stderr == ""
    else:
        assert done.stdout == ""
        assert "kenpin bundle install FILE" in " ".join(done.stderr.split())


def test_square_brackets_are_shown_as_they_are(tmp_path: Path) -> None:
    config = tmp_path / "station.toml"
    config.write_text(f'[station]\nstate_dir = "{tmp_path}/st"\n[source]\nurl = "folder:/none/[/x]"\n')
    command = [sys.executable, "-m", "kenpin", "doctor", "--config", config]
    wide = {**os.environ, "COLUMNS": "300"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=wide, check=False)
    assert "set trusted_keys in [station] to" in done.stderr
    assert "folder:/none/[/x]" in done.stderr
