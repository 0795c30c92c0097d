"""A small real bundle, a station that may run it, a real broker and an independent subscriber."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import json
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from paho.mqtt.client import Client

from benchmarks.rig import Broker, Listener, Rig
from kenpin.broker import held_port
from kenpin.bundle import Bundle, install_bundle, open_bundle, write_bundle
from kenpin.config import StationConfig
from kenpin.edge_runtime import commander
from kenpin.record import CalibrationRecord, append_record, head
from kenpin.signing import SecretKey
from kenpin.station_folder import StationFolder
from tests import specimens
from tests.edge_runtime.publishing_line import PublishingLine

# pycuda has to be built (scripts/install_pycuda.sh). Where there is a real driver, pycuda would take that one.
ON_FAKE_CUDA = ["test_cuda_graph.py", "test_device.py", "test_engine_on_device.py", "test_frame_kernel.py"]
collect_ignore = [] if find_spec("pycuda") and not ctypes.util.find_library("cuda") else ON_FAKE_CUDA
# What `make peers` installs.
collect_ignore += [] if find_spec("gi") else ["test_aravis.py"]
collect_ignore += [] if find_spec("pypylon") else ["test_pylon.py"]
# Builds the library that lets disk and clock fail.
collect_ignore += [] if shutil.which("cc") else ["test_faults.py"]
_ON_SPARKPLUG = [f"test_sparkplug{what}.py" for what in ("", "_feed", "_payload", "_session")]
collect_ignore += [] if find_spec("pysparkplug") else _ON_SPARKPLUG

SIZE = 16
TIMEOUT_MS = 60_000  # a machine that does something else at the same time is seldom what is tested
GOLDEN_SCORE = 40.0


def publisher_command(config: Path) -> list[str]:
    """How a station's publisher is started alone."""
    return [sys.executable, "-m", "kenpin", "run", "--role", "publisher", "--config", str(config)]


def brightness_model(*, scale: float = 1.0, divide_by: float = 1.0, breaks_at: float = 1e9) -> bytes:
    """Score = brightest pixel * scale / divide_by; the levels are a half, three quarters and all of it.

    From `breaks_at` on the score is no number: the logarithm of what is left is none.
    """
    numbers = {"scale": scale, "divide_by": divide_by, "breaks_at": breaks_at, "nothing": 0.0}
    constants = [helper.make_tensor(k, TensorProto.FLOAT, [], [v]) for k, v in numbers.items()]
    constants += [
        helper.make_tensor("shares", TensorProto.FLOAT, [1, 3], [0.5, 0.75, 1.0]),
        helper.make_tensor("channels", TensorProto.INT64, [1], [3]),
        helper.make_tensor("places", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("column", TensorProto.INT64, [2], [1, 1]),
    ]
    nodes = [
        helper.make_node("Cast", ["frames"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "channels"], ["grey"], keepdims=0),
        helper.make_node("Mul", ["grey", "scale"], ["scaled"]),
        helper.make_node("Div", ["scaled", "divide_by"], ["anomaly_map"]),
        helper.make_node("ReduceMax", ["anomaly_map", "places"], ["brightest"], keepdims=0),
        helper.make_node("Sub", ["breaks_at", "brightest"], ["left"]),
        helper.make_node("Log", ["left"], ["log"]),
        helper.make_node("Mul", ["log", "nothing"], ["nothing_or_nan"]),
        helper.make_node("Add", ["brightest", "nothing_or_nan"], ["score"]),
        helper.make_node("Reshape", ["score", "column"], ["score_column"]),
        helper.make_node("Mul", ["score_column", "shares"], ["level_scores"]),
    ]
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "brightness",
        [tensor("frames", TensorProto.UINT8, [1, SIZE, SIZE, 3])],
        [
            tensor("score", TensorProto.FLOAT, [1]),
            tensor("level_scores", TensorProto.FLOAT, [1, 3]),
            tensor("anomaly_map", TensorProto.FLOAT, [1, SIZE, SIZE]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def grey_png(brightness: int, size: int = SIZE) -> bytes:
    return cv2.imencode(".png", np.full((size, size, 3), brightness, np.uint8))[1].tobytes()


@dataclass
class Workshop:
    """Makes bundles and stations below one folder."""

    root: Path
    signer: SecretKey = field(default_factory=SecretKey.generate)
    station_key: SecretKey = field(default_factory=SecretKey.generate)
    port: int = 0

    @property
    def folder(self) -> StationFolder:
        return StationFolder(self.root / "state")

    @property
    def public_key(self) -> Path:
        return self.root / "signer.pub"

    def bundle(self, *, model: bytes | None = None, reference: bytes = b"", **changes: Any) -> Bundle:
        """A signed bundle of the brightness model, with the reference picture of its view where it has one."""
        model = brightness_model() if model is None else model
        levels = (GOLDEN_SCORE / 2, GOLDEN_SCORE * 0.75, GOLDEN_SCORE)
        golden = [specimens.golden(GOLDEN_SCORE, levels)]
        fields = {"product": "lamp", "version": "1.0", "input_shape": (1, SIZE, SIZE, 3), "golden": golden}
        manifest = specimens.manifest(**{**fields, **changes})
        files = {
            "model.onnx": model,
            "model_fp.onnx": model,
            "golden/0.png": grey_png(int(GOLDEN_SCORE)),
            "card.md": b"# lamp",
            **({"reference.png": reference} if reference else {}),
        }
        path = self.root / "lamp.kenpin"
        write_bundle(path, manifest=manifest, files=files, key=self.signer)
        return open_bundle(path, [self.signer.public])

    def install(self, bundle: Bundle | None = None) -> Bundle:
        """Install and activate a bundle."""
        bundle = bundle or self.bundle()
        self.folder.create()
        self.folder.activate(install_bundle(bundle, self.folder.bundles))
        self.public_key.write_text(self.signer.public.dumps())
        return bundle

    def record(self, bundle: Bundle, **changes: Any) -> CalibrationRecord:
        """A calibration record: below 100 OK, from 200 on NG."""
        place = {"bundle_sha256": bundle.sha256, "previous_sha256": head(self.folder.records)}
        good = {"a.png": 10.0, "b.png": 20.0, "c.png": 30.0}
        return specimens.record(**{**place, "t1": 100.0, "t2": 200.0, "good": good, **changes})

    def calibrate(self, bundle: Bundle, **changes: Any) -> CalibrationRecord:
        """Sign a record and put it in force."""
        record = self.record(bundle, **changes)
        for path in (self.folder.key, self.folder.public_key):
            path.unlink(missing_ok=True)
        self.station_key.save(self.folder.key)
        append_record(self.folder.records, record, self.station_key)
        return record

    def calibrated(self, **changes: Any) -> Bundle:
        """Install the bundle and calibrate it."""
        bundle = self.install()
        self.calibrate(bundle, **changes)
        return bundle

    def ready(self) -> Workshop:
        """The same, to go on with."""
        self.calibrated()
        return self

    def pictures(self, *brightness: int) -> Path:
        """A folder with one grey picture per value, named in their order."""
        folder = self.root / "parts"
        folder.mkdir(exist_ok=True)
        for number, value in enumerate(brightness):
            (folder / f"{number:03d}.png").write_bytes(grey_png(value, 2 * SIZE))
        return folder

    def config(self, source: str, **mqtt: Any) -> StationConfig:
        """The station's configuration."""
        if self.port:
            mqtt["url"] = f"mqtt://127.0.0.1:{self.port}"
        return StationConfig.model_validate(
            {
                "station": {
                    "topic": "plant/line/st1",
                    "state_dir": self.folder.root,
                    "trusted_keys": [self.public_key],
                },
                "source": {"url": source},
                "mqtt": mqtt,
                "decide": {"timeout_ms": TIMEOUT_MS},
            }
        )

    def toml(self, source: str) -> Path:
        """The same as a file."""
        path = self.root / "station.toml"
        path.write_text(
            f'[station]\ntopic = "plant/line/st1"\nstate_dir = "{self.folder.root}"\n'
            f'trusted_keys = ["{self.public_key}"]\n[source]\nurl = "{source}"\n'
            f"[decide]\ntimeout_ms = {TIMEOUT_MS}\n"
            + (f'[mqtt]\nurl = "mqtt://127.0.0.1:{self.port}"\n' if self.port else "")
        )
        return path


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    made = Workshop(tmp_path)
    made.public_key.write_text(made.signer.public.dumps())
    return made


@pytest.fixture
def line(tmp_path: Path) -> Iterator[PublishingLine]:
    made = PublishingLine(tmp_path / "station.db")
    yield made
    made.stop()
    made.store.close()


@pytest.fixture
def rig(workshop: Workshop, tmp_path: Path) -> Iterator[Rig]:
    # Drawn fabrics score 96 to 122 in the test's model, so that all verdicts come.
    workshop.calibrated(t1=107.0, t2=109.0)
    made = Rig(tmp_path / "rig", workshop.folder, workshop.public_key, rate=20)
    yield made
    made.close()


@pytest.fixture
def make_mosquitto(tmp_path: Path) -> Iterator[Callable[..., Broker]]:
    made: list[Broker] = []

    def make(extra: str = "") -> Broker:
        made.append(Broker(tmp_path / f"mosquitto{len(made)}", extra=extra))
        return made[-1]

    yield make
    for broker in made:
        broker.kill()


@pytest.fixture
def mosquitto(make_mosquitto: Callable[..., Broker]) -> Broker:
    broker = make_mosquitto()
    broker.start()
    return broker


class Subscriber:
    """mosquitto_sub with MQTT 5."""

    def __init__(self, port: int, client_id: str) -> None:
        self.messages: list[dict[str, Any]] = []
        lasting = ("-V", "5", "-i", client_id, "-c", "-x", "3600", "-q", "1")
        asked = (*lasting, "-t", "plant/#", "-t", "ready", "-F", "%j")
        self._listener = Listener(port, lambda line: self.messages.append(json.loads(line)), *asked)
        ready = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), "-t", "ready", "-m", "{}", "-q", "1"]
        wait_for(lambda: subprocess.run(ready, check=True) and bool(self.messages), "the subscription")

    def payloads(self, topic: str) -> list[dict[str, Any]]:
        return [
            json.loads(m["payload"]) for m in list(self.messages) if m["topic"] == f"plant/line/st1/{topic}"
        ]

    def events(self) -> list[dict[str, Any]]:
        return self.payloads("event/anomaly")

    def first_seqs(self) -> list[int]:
        """Numbers of the events in the order of their first delivery."""
        return list(dict.fromkeys(event["seq"] for event in self.events()))

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def make_subscriber() -> Iterator[Callable[[int], Subscriber]]:
    made: list[Subscriber] = []

    def make(port: int) -> Subscriber:
        made.append(Subscriber(port, f"scada{len(made)}"))
        return made[-1]

    yield make
    for subscriber in made:
        subscriber.close()


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = 180.0) -> None:
    # Longer than a station takes to start on a machine that is busy with something else.
    by_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < by_s, f"{what} did not come in {timeout_s} s"
        time.sleep(0.02)


@pytest.fixture(name="wait_for")
def wait_for_fixture() -> Callable[..., None]:
    return wait_for


def let_thread_die(client: Client, at: str = "on_message") -> tuple[Any, Any]:
    """Let paho's thread end without a word at the next call of a callback; sockets that it leaves open."""
    usual = getattr(client, at)

    def dies(*_: Any) -> None:
        setattr(client, at, usual)
        raise SystemExit  # passes by paho's own guard

    setattr(client, at, dies)
    return client._sockpairR, client._sockpairW


@pytest.fixture(scope="session")
def libcuda(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """A driver in host memory. By its name, pycuda and our own calls find it as if it were the real one."""
    pycuda = find_spec("pycuda._driver")
    assert pycuda is not None
    built = tmp_path_factory.mktemp("fake_cuda") / "libcuda.so.1"
    build = Path(__file__).parents[1] / "fake_cuda/build.sh"
    subprocess.run([build, built, str(pycuda.origin)], check=True)
    return ctypes.CDLL(str(built), ctypes.RTLD_GLOBAL)


@pytest.fixture
def fake_cuda(libcuda: ctypes.CDLL) -> Iterator[ctypes.CDLL]:
    """The same, of which nothing may be left after a test."""
    libcuda.fake_set(1, 1)
    yield libcuda
    libcuda.fake_heal()
    left = libcuda.fake_memory_live(), libcuda.fake_handles_live(), libcuda.fake_contexts_live()
    assert left == (0, 0, 0), "memory, handles or contexts are left"


@dataclass
class Clock:
    """In place of a module's `time`: it goes on where the test says so, or where somebody sleeps."""

    now_s: float = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def monotonic_ns(self) -> int:
        return round(self.now_s * 1e9)

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def closed() -> Iterator[Callable[[Any], Any]]:
    """Closes what a test opens, however the test ends: a socket that is left open fails another test."""
    with contextlib.ExitStack() as opened:
        yield lambda made: opened.enter_context(contextlib.closing(made))


@pytest.fixture
def free_port() -> Iterator[int]:
    with held_port() as port:
        yield port


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A key that may sign commands."""
    path = tmp_path / "ops1.key"
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32))
    return path


@pytest.fixture
def synchronised(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that commands can be checked against: that of a test machine may not be."""
    monkeypatch.setattr(commander, "clock_is_synchronised", lambda: True)
