"""What the page's tests share: a browser without a screen, a station to look at, and the page as a process."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import cv2
import numpy as np
from fastapi.testclient import TestClient

from benchmarks.rig import port_for
from kenpin.config import WebSection
from kenpin.edge_runtime.database import open_database
from kenpin.edge_runtime.vitals import Vitals, write_vitals
from kenpin.events import now_ms
from kenpin.station_folder import StationFolder

PANEL: Any = {"width": 1280, "height": 800}
WAIT_S = 120  # the page runs only while nobody else wants the processors (SCHED_IDLE): tests beside do
WAIT_MS = 1000 * WAIT_S
PIN = "274913"
PEOPLE = {"vera": "viewer", "sato": "technician", "abe": "engineer"}


class Visit(TestClient):
    """A browser without a picture: keeps cookies, and sends forms as a page of the site does."""

    def token(self) -> str:
        text = self.get("/login").text
        return text.split('name="token" value="', 1)[1].split('"', 1)[0]

    def submit(self, path: str, **fields: str) -> Any:
        origin = str(self.base_url).rstrip("/")
        return self.post(path, data={"token": self.token(), **fields}, headers={"Origin": origin})

    def log_in(self, name: str, pin: str = PIN) -> Any:
        return self.submit("/login", name=name, pin=pin)


MakeVisit = Callable[..., Visit]


def add_parts(folder: StationFolder, verdicts: list[str], *, step_ms: int = 2000) -> None:
    """Write parts, the last one now."""
    scores = {"OK": 0.2, "REVIEW": 0.4, "NG": 0.8}
    now = now_ms()
    rows = [
        (
            f"A-{k:05}",
            now - (len(verdicts) - 1 - k) * step_ms,
            verdict,
            "" if verdict in scores else "blurred: focus 0.1",
            "" if verdict in scores else "blurred",
            scores[verdict] + 0.01 * (k % 9) if verdict in scores else None,
        )
        for k, verdict in enumerate(verdicts)
    ]
    sql = """INSERT INTO part (part_id, ts_ms, verdict, reason, cause, score, camera, session_id,
        captured_mono_ns, decided_mono_ns, decided_ns, t1, t2, threshold_rev, bundle_sha256, latency_ms,
        frame_id)
        VALUES (?, ?, ?, ?, ?, ?, 'cam', 's', 0, 0, 0, 0.35, 0.45, 1, 'b', 61.0, 1)"""
    with closing(open_database(folder.database)) as connection:
        connection.execute("BEGIN")
        connection.executemany(sql, rows)
        connection.execute("COMMIT")


def raise_alarms(folder: StationFolder, states: dict[str, str]) -> None:
    """These alarms and no others."""
    with closing(open_database(folder.database)) as connection:
        connection.execute("DELETE FROM alarm")
        for key, state in states.items():
            standing = json.dumps({"state": state, "active": True, "raised_ms": now_ms()})
            connection.execute("INSERT INTO alarm VALUES (?, ?)", (key, standing))


def show_live(folder: StationFolder, **changes: Any) -> None:
    """What a running station tells: its vitals and the picture of the last part."""
    texts = {"model": "bracket-a-1.4", "bundle_sha256": "7f3a91c2" * 8}
    write_vitals(folder.run, Vitals(**{"role": "station", "pid": 1, "texts": texts, **changes}))
    frame = np.full((500, 800, 3), 70, np.uint8)
    cv2.rectangle(frame, (120, 130), (680, 370), (180, 172, 160), -1)
    cv2.circle(frame, (600, 320), 30, (60, 60, 230), -1)
    (folder.run / "live.jpg").write_bytes(cv2.imencode(".jpg", frame)[1].tobytes())
    told = {"part_id": "A-00001", "verdict": "OK", "reason": "", "score": 0.2, "t1": 0.35, "t2": 0.45}
    measured = {"light": 1.01, "focus": 1.3, "light_abs": 90.0, "light_low": 80.0, "light_high": 100.0}
    (folder.run / "live.json").write_text(json.dumps({**told, "ts_ms": now_ms(), **measured}))


class Server:
    """The page in a process of its own."""

    def __init__(self, folder: StationFolder, **section: Any) -> None:
        self.port = port_for(self)
        made = WebSection(listen=f"127.0.0.1:{self.port}", **section)
        self.url = f"{'https' if made.has_tls else 'http'}://{made.listen}"
        program = (
            "import sys; from pathlib import Path\n"
            "from kenpin.calibration.web.app import create_app\n"
            "from kenpin.config import WebSection\n"
            "from kenpin.calibration.web.server import serve\n"
            "from kenpin.station_folder import StationFolder\n"
            "section = WebSection.model_validate_json(sys.argv[2])\n"
            "serve(create_app(StationFolder(Path(sys.argv[1])), section, station='L2-03'), section)\n"
        )
        command = [sys.executable, "-c", program, str(folder.root), made.model_dump_json()]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE)

    def wait(self) -> None:
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError(f"the page does not answer: {self.stop()}")

    def stop(self) -> str:
        self.process.terminate()
        assert self.process.stderr is not None
        return self.process.communicate(timeout=WAIT_S)[1].decode()
