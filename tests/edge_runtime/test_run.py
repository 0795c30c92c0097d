from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kenpin.edge_runtime.cli import Teller
from kenpin.edge_runtime.cli import run as run_command
from kenpin.edge_runtime.decide import Decision, Verdict
from kenpin.edge_runtime.part import Part
from kenpin.edge_runtime.station import Station
from kenpin.edge_runtime.vitals import read_vitals
from kenpin.errors import ConfigError
from kenpin.events import Anomaly, Kpi, Status

KENPIN = (sys.executable, "-m", "kenpin")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*KENPIN, *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)


@pytest.fixture
def start() -> Iterator[Any]:
    made: list[subprocess.Popen[str]] = []

    def popen(*arguments: object) -> subprocess.Popen[str]:
        made.append(
            subprocess.Popen(
                [*KENPIN, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
        return made[-1]

    yield popen
    for process in made:
        process.kill()
        process.communicate()


def test_parts_without_a_decision_for_one_reason_do_not_flood_the_journal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tell = Teller()

    def told(count: int, verdict: Verdict, reason: str) -> int:
        for number in range(count):
            tell(Part(str(number), "cam", "session", 0, 0, Decision(verdict, reason)))
        return len(capsys.readouterr().err.splitlines())

    assert told(1000, Verdict.NO_DECISION, "not calibrated") == 10
    assert told(3, Verdict.NG, "") == 3
    assert told(2, Verdict.NO_DECISION, "not calibrated") == 2
    assert told(5, Verdict.OK, "") == 0
    assert told(1, Verdict.MISSED, "no frame came") == 1
    # What was measured is another number in each picture, as of an empty belt or of a camera that has frozen.
    measured = (f"no part, or another one: match {match}" for match in ("0.1", "0.27", "3e-05", "1"))
    assert [told(1, Verdict.NO_DECISION, reason) for reason in measured] == [1, 1, 0, 1]


def test_the_name_of_a_part_writes_no_line_of_its_own_and_commands_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    part = Part("a\nOK          b\x1b[2J.png", "cam", "session", 0, 0, Decision(Verdict.NG))
    Teller()(part)
    assert capsys.readouterr().err == "NG          a OK          b\\x1b[2J.png\n"


def test_run_prints_one_json_document_and_everything_human_to_stderr(workshop: Any) -> None:
    folder = workshop.ready().pictures(10, 150, 250)
    (folder / "003.png").write_bytes(b"not a picture")
    started_s = time.monotonic()
    done = run("run", "--config", workshop.toml(f"folder:{folder}"), "--json")
    lasted_ms = (time.monotonic() - started_s) * 1000
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["parts"] == {"OK": 1, "REVIEW": 1, "NG": 1, "MISSED": 0, "NO_DECISION": 1}
    assert report["reasons"] == {"the file is not a picture that can be decoded": 1}
    assert (report["events_written"], report["events_acked"], report["outbox_depth"]) == (2, 0, 2)
    assert report["engine_precision"] == "int8"
    assert 0 < report["latency_ms_p50"] <= report["latency_ms_p99"] < lasted_ms
    assert 0 < report["infer_ms_p50"] <= report["latency_ms_p99"]
    assert 20 < report["rss_mb"] <= 200
    lines = done.stderr.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["REVIEW", "001.png"],
        ["NG", "002.png"],
        ["NO_DECISION", "003.png"],
    ]
    assert "score 250 (T1 100, T2 200)" in lines[1]


def test_each_line_of_a_recording_is_a_part_however_fast_they_come(workshop: Any) -> None:
    root = workshop.ready().pictures(*[10] * 6)
    lines = [{"file": f"{k:03d}.png", "part_id": f"p{k}", "frame_id": k, "after_ns": k} for k in range(6)]
    (root / "frames.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = run("run", "--config", workshop.toml(f"replay:{root}"), "--json")
    assert done.returncode == 0, done.stderr
    assert sum(json.loads(done.stdout)["parts"].values()) == 6


def test_run_ends_with_a_table_for_people(workshop: Any) -> None:
    folder = workshop.ready().pictures(10, 250, 10)
    config = workshop.toml("folder:elsewhere")
    done = run("run", "--config", config, "--source", f"folder:{folder}", "--max-parts", 2)
    assert done.returncode == 0
    assert done.stdout == ""
    for text in ("NO_DECISION", "capture to verdict", "1 written, 0 acknowledged", "1 waiting", "int8", "MB"):
        assert text in done.stderr


def test_run_without_a_bundle_says_why_once(workshop: Any) -> None:
    done = run("run", "--config", workshop.toml(f"folder:{workshop.pictures(1, 2)}"), "--json")
    assert done.returncode == 0
    assert done.stderr.count("No part can be judged: no bundle is installed") == 1
    assert json.loads(done.stdout)["parts"]["NO_DECISION"] == 2


@pytest.mark.parametrize("source", ["video:/none.mp4", "synthetic:bord", "camera:0"])
def test_a_wrong_source_is_said_without_a_traceback(workshop: Any, source: str) -> None:
    done = run("run", "--config", workshop.ready().toml(source))
    assert done.returncode in (1, 2)
    assert "\nerror: " in "\n" + done.stderr
    assert "cure:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_folder_is_found_before_any_process_is_started(workshop: Any) -> None:
    done = run("run", "--config", workshop.ready().toml("folder:/none"))
    assert done.stderr == "error: the picture folder does not exist\n  where: /none\n  cure:  check the path\n"
    assert not read_vitals(workshop.folder.run)


def test_a_camera_that_is_away_is_waited_for(workshop: Any, start: Any, wait_for: Any) -> None:
    process = start("run", "--config", workshop.ready().toml("usb:93"), "--json")

    def told() -> bool:
        station = read_vitals(workshop.folder.run).get("station")
        return station is not None and station.reason == "usb93 is down: the camera does not open"

    wait_for(told, "the station's word")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert sum(json.loads(out)["parts"].values()) == 0
    assert "cure:  check the cable" in err
    assert "WARN" not in err  # OpenCV's, once a second for ever


def test_sigterm_finishes_the_part_and_says_goodbye(
    workshop: Any, mosquitto: Any, make_subscriber: Any, wait_for: Any, start: Any
) -> None:
    workshop.port = mosquitto.port
    scada = make_subscriber(mosquitto.port)
    folder = workshop.ready().pictures(10, 250)
    process = start("run", "--config", workshop.toml(f"folder:{folder}?rate=20&loop=1"), "--json")
    wait_for(lambda: len(scada.events()) >= 3, "three events")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    report = json.loads(out)
    assert report["outbox_depth"] == 0
    assert report["events_written"] == report["events_acked"]
    wait_for(lambda: scada.payloads("status")[-1]["state"] == "STOPPED", "the goodbye")
    assert scada.payloads("status")[-1]["reason"] == "shutdown"
    assert [s["state"] for s in scada.payloads("status")][-2] == "RUNNING"
    assert len(scada.first_seqs()) == report["events_written"]
    assert scada.payloads("kpi")[-1]["parts_total"] == sum(report["parts"].values())


def test_payloads_are_exactly_those_of_the_contract(
    workshop: Any, mosquitto: Any, make_subscriber: Any, wait_for: Any
) -> None:
    workshop.port = mosquitto.port
    scada = make_subscriber(mosquitto.port)
    with Station(workshop.ready().config(f"folder:{workshop.pictures(250, 150)}")) as station:
        station.run()
    wait_for(lambda: len(scada.events()) == 2 and scada.payloads("kpi"), "the messages")
    ng, review = (Anomaly.model_validate(event) for event in scada.events())
    status = Status.model_validate(scada.payloads("status")[0])
    Kpi.model_validate(scada.payloads("kpi")[0])
    assert (ng.verdict, ng.threshold, ng.margin) == ("NG", 200, 50)
    assert (review.verdict, review.threshold, review.margin) == ("REVIEW", 100, 50)
    assert (ng.level, ng.score_coarse, ng.score_mid, ng.score_fine) == ("fine", 125, 187.5, 250)
    assert (ng.roi_x_px, ng.roi_y_px, ng.roi_w_px, ng.roi_h_px, ng.area_px) == (0, 0, 32, 32, 1024)
    # A usual good part scores 20: 500 at T2 = 200.
    assert (ng.severity, review.severity) == (int(500 * 230 / 180), int(500 * 130 / 180))
    assert (ng.seq, review.seq) == (1, 2)
    assert (ng.part_id, ng.camera, ng.model_id) == ("000.png", "parts", "lamp-1.0")
    assert (ng.threshold_rev, ng.engine_precision) == (1, "int8")
    assert (ng.ng_rate_window, review.ng_rate_window) == (1.0, 0.5)
    assert ng.session_id == review.session_id == status.session_id
    assert ng.id < review.id
    assert not ng.test
    for payload in (*scada.events(), *scada.payloads("status"), *scada.payloads("kpi")):
        assert all(isinstance(value, str | bool | int | float) for value in payload.values())
        assert len(json.dumps(payload)) <= 8192


def test_drawn_parts_are_marked_as_tests(workshop: Any) -> None:
    with Station(workshop.ready().config("synthetic:board?rate=100&defects=1")) as station:
        station.run(max_parts=3)
    done = run("events", "--state", workshop.folder.root, "--json")
    found = json.loads(done.stdout)
    assert all(event["test"] for event in found)


def test_the_last_will_tells_that_the_station_died(
    workshop: Any, mosquitto: Any, make_subscriber: Any, wait_for: Any, start: Any
) -> None:
    workshop.port = mosquitto.port
    scada = make_subscriber(mosquitto.port)
    folder = workshop.ready().pictures(10)
    process = start("run", "--config", workshop.toml(f"folder:{folder}?rate=20&loop=1"))
    wait_for(lambda: scada.payloads("status"), "the status")
    process.kill()
    wait_for(lambda: not scada.payloads("status")[-1]["online"], "the last will")
    alive, will = scada.payloads("status")[0], scada.payloads("status")[-1]
    assert (will["state"], will["reason"]) == ("STOPPED", "lwt")
    assert (will["session_id"], will["connected_ms"]) == (alive["session_id"], alive["connected_ms"])


def test_events_reads_from_a_number_on_and_follows(workshop: Any, start: Any) -> None:
    with Station(workshop.ready().config(f"folder:{workshop.pictures(250, 150, 10, 255)}")) as station:
        station.run()
    state = workshop.folder.root
    found = json.loads(run("events", "--state", state, "--since", 2, "--json").stdout)
    assert [(e["seq"], e["verdict"]) for e in found] == [(2, "REVIEW"), (3, "NG")]
    people = run("events", "--state", state)
    assert people.stdout == ""
    assert "000.png" in people.stderr
    watcher = start("events", "--state", state, "--since", 3, "--watch", "--json")
    assert json.loads(watcher.stdout.readline())["seq"] == 3
    with Station(workshop.config(f"folder:{workshop.folder.root.parent}/parts")) as station:
        station.run(max_parts=1)
    assert json.loads(watcher.stdout.readline())["seq"] == 4
    missing = run("events", "--state", state / "none")
    assert missing.returncode == 1
    assert "no station database" in missing.stderr


# Imports take longer than a life of the station here, so one process imports and forks the others.
# A line is one write: print makes two of it where Python does not buffer, and the kill may come between them.
NURSERY = """
import os, sys
from pathlib import Path
from kenpin.config_file import load_config
from kenpin.edge_runtime.station import Station

config = load_config(Path(sys.argv[1]))
for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        os.write(1, b"%d\\n" % os.getpid())
        with Station(config, on_part=lambda _: os.write(1, b"part\\n")) as station:
            station.run()
    os.waitpid(child, 0)
    os.write(1, b"dead\\n")
"""


def test_no_event_is_lost_or_invented_over_twenty_kills(
    workshop: Any, mosquitto: Any, make_subscriber: Any, wait_for: Any, tmp_path: Path
) -> None:
    workshop.port = mosquitto.port
    scada = make_subscriber(mosquitto.port)
    folder = workshop.ready().pictures(10, 250, 150, 20)
    config = workshop.toml(f"folder:{folder}?rate=200&loop=1")
    chance = random.Random(1)
    with subprocess.Popen(
        [sys.executable, "-c", NURSERY, str(config)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as nursery:
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        try:
            for _ in range(20):
                nursery.stdin.write("\n")
                nursery.stdin.flush()
                child = int(nursery.stdout.readline())
                for _part in range(chance.choice((0, 20, 60))):  # as many where the machine is busy
                    assert nursery.stdout.readline() == "part\n"
                time.sleep(chance.uniform(0.0, 0.1))
                os.kill(child, signal.SIGKILL)
                while (told := nursery.stdout.readline()) != "dead\n":
                    assert told == "part\n"
        finally:
            os.killpg(nursery.pid, signal.SIGKILL)
    with Station(workshop.config(f"folder:{folder}")) as station:
        assert station.run().depth.waiting == 0
    database = sqlite3.connect(workshop.folder.database)
    committed = [s for (s,) in database.execute("SELECT seq FROM outbox ORDER BY seq")]
    owed = database.execute("SELECT seq FROM part WHERE verdict IN ('NG', 'REVIEW') ORDER BY seq").fetchall()
    paid = database.execute("SELECT part_seq FROM outbox ORDER BY seq").fetchall()
    wrong = database.execute("SELECT count(*) FROM part WHERE released AND verdict <> 'OK'").fetchone()
    database.close()
    wait_for(lambda: len(scada.first_seqs()) >= len(committed), "every event")
    assert len(committed) > 40
    assert owed == paid  # one event for each part that owes one, and no other
    # After each restart live events go before those that waited.
    assert sorted(scada.first_seqs()) == committed == list(range(1, len(committed) + 1))
    assert wrong == (0,)


@pytest.mark.parametrize("section", ["[output]\nmqtt = true\n", "[sparkplug]\nenabled = true\n"])
def test_alone_it_refuses_what_only_the_publishers_process_does(workshop: Any, section: str) -> None:
    path = workshop.ready().toml(f"folder:{workshop.pictures(10)}")
    path.write_text(path.read_text() + section + '[mqtt]\nurl = "mqtt://127.0.0.1"\n')
    error = CliRunner().invoke(run_command, ["--config", str(path), "--single-process"]).exception
    assert isinstance(error, ConfigError)
    assert "leave out --single-process" in error.cure
