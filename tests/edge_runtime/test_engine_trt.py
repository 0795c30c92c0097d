from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kenpin.build_log import BuildLog, last_step
from kenpin.bundle import Bundle, open_bundle
from kenpin.canonical_json import canonical_json
from kenpin.cli import cli
from kenpin.config import MOST_CAMERAS
from kenpin.edge_runtime.background_build import BackgroundBuild
from kenpin.edge_runtime.engine_choice import Choice, choose_engine
from kenpin.edge_runtime.engine_ort import OrtEngine
from kenpin.edge_runtime.engine_trt import TrtEngine, target_of
from kenpin.edge_runtime.golden_check import TRT_MARGIN, check_golden, prove
from kenpin.edge_runtime.readiness import check_readiness
from kenpin.edge_runtime.station import Station
from kenpin.engine_store import PASSPORT, unseal_engine
from kenpin.errors import DataError, DeviceLost, EngineError
from kenpin.record import append_record
from kenpin.signing import PublicKey, verify
from kenpin.sole_use import sole_use
from kenpin.view import Box, View
from tests.edge_runtime import fake_device
from tests.edge_runtime.conftest import SIZE, brightness_model
from tests.fake_jetson import FakeJetson, make_jetson
from tests.fake_tensorrt import VERSIONS

CAMERA = (3 * SIZE, 5 * SIZE, 3)


@pytest.fixture(params=VERSIONS)
def jetson(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeJetson:
    made = make_jetson(tmp_path, monkeypatch, request.param)
    made.build()
    return made


@pytest.fixture
def jetson_6(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeJetson:
    made = make_jetson(tmp_path, monkeypatch, "10.3.0")
    made.build()
    return made


def bundle_of(jetson: FakeJetson) -> Bundle:
    return open_bundle(jetson.workshop.folder.installed(), [jetson.workshop.signer.public])


def open_engine(jetson: FakeJetson) -> TrtEngine:
    device = jetson.device()
    target = target_of(bundle_of(jetson), "int8", device)
    plan, passport = unseal_engine(jetson.workshop.folder, target)
    return TrtEngine(plan, passport.precision, device)


def choose(jetson: FakeJetson, precision: Any = "int8") -> Choice:
    return choose_engine(jetson.workshop.folder, bundle_of(jetson), precision)


def assert_all_is_given_back(jetson: FakeJetson) -> None:
    """TensorRT lets go of its memory while its device is there and current."""
    assert not jetson.trt.alive
    assert jetson.trt.misused == []
    assert fake_device.opened == []


def random_frames(count: int, shape: tuple[int, ...]) -> list[Any]:
    chance = np.random.default_rng(0)
    return [chance.integers(0, 256, shape, np.uint8) for _ in range(count)]


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("shape", [CAMERA, (SIZE, SIZE, 3), (5, 2 * SIZE, 3)])
def test_scores_are_those_of_onnx_runtime(
    jetson: FakeJetson, integrated: bool, graphs: bool, shape: tuple[int, ...]
) -> None:
    jetson.device.integrated, jetson.device.graphs = integrated, graphs
    twin = OrtEngine(brightness_model(), "int8")
    with open_engine(jetson) as engine:
        for frame in random_frames(4, shape):
            ours, theirs = engine.score(frame), twin.score(frame)
            assert ours.score == pytest.approx(theirs.score)
            assert ours.level_scores == pytest.approx(theirs.level_scores)
            np.testing.assert_allclose(ours.anomaly_map, theirs.anomaly_map, rtol=1e-6)
            assert ours.anomaly_map.dtype == np.float32
        assert engine.device.launches == (3 if graphs else 0)
        assert (engine.runtime, engine.precision, engine.input_size) == ("tensorrt", "int8", (SIZE, SIZE))


def test_only_what_ran_once_is_recorded(jetson_6: FakeJetson, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT sets itself up in its first run: recorded then, no frame would ever have a graph."""
    frame = np.full(CAMERA, 90, np.uint8)
    with open_engine(jetson_6) as engine:
        with monkeypatch.context() as patched:
            patched.setattr(jetson_6.trt, "enqueue", lambda *_: False)
            with pytest.raises(EngineError, match="cannot run the engine"):
                engine.score(frame)
        launches = []
        for _ in range(3):
            assert engine.score(frame).score == 90
            launches.append(engine.device.launches)
    assert launches == [0, 1, 2]


def test_that_there_is_no_graph_stands_in_the_log(jetson_6: FakeJetson, caplog: Any) -> None:
    jetson_6.device.graphs = False
    with open_engine(jetson_6) as engine:
        for frame in random_frames(3, CAMERA):
            engine.score(frame)
    told = [message for message in caplog.messages if "CUDA graph" in message]
    assert told == ["No CUDA graph, so a frame takes longer: cuStreamEndCapture failed"]


@pytest.mark.parametrize("graphs", [False, True])
def test_no_memory_is_taken_per_frame(jetson: FakeJetson, graphs: bool) -> None:
    jetson.device.graphs = graphs
    with open_engine(jetson) as engine:
        engine.score(random_frames(1, CAMERA)[0])
        engine.score(random_frames(1, (SIZE, SIZE, 3))[0])
        before = (engine.device.live, engine.device.allocations)
        for frame in random_frames(30, CAMERA) + random_frames(30, (SIZE, SIZE, 3)):
            engine.score(frame)
        assert (engine.device.live, engine.device.allocations) == before
    assert engine.device.live == 0
    assert_all_is_given_back(jetson)


def test_a_view_that_is_not_contiguous_is_scored_as_it_looks(jetson_6: FakeJetson) -> None:
    frame = random_frames(1, CAMERA)[0]
    with open_engine(jetson_6) as engine:
        flipped = engine.score(frame[:, ::-1]).anomaly_map
        np.testing.assert_array_equal(flipped, engine.score(frame[:, ::-1].copy()).anomaly_map)


def test_results_stay_when_the_next_frame_comes(jetson_6: FakeJetson) -> None:
    dark, bright = np.zeros(CAMERA, np.uint8), np.full(CAMERA, 200, np.uint8)
    with open_engine(jetson_6) as engine:
        first = engine.score(dark)
        engine.score(bright)
        assert first.anomaly_map.max() == 0
        assert engine.gpu_ms > 0


def test_any_thread_may_score(jetson_6: FakeJetson) -> None:
    scores: list[float] = []
    with open_engine(jetson_6) as engine:
        frame = np.full(CAMERA, 90, np.uint8)
        thread = threading.Thread(target=lambda: scores.append(engine.score(frame).score))
        thread.start()
        thread.join()
    assert scores == [90]


def test_cameras_of_several_sizes_have_their_memory_each(jetson: FakeJetson) -> None:
    twin = OrtEngine(brightness_model(), "int8")
    frames = random_frames(1, CAMERA) + random_frames(1, (48, 60, 3))
    with open_engine(jetson) as engine:
        for frame in frames * 3:
            assert engine.score(frame).score == pytest.approx(twin.score(frame).score)
        # The first frame of each size is enqueued step by step.
        assert engine.device.launches == 4


def test_the_memory_for_frames_of_ever_new_sizes_is_bounded(jetson_6: FakeJetson) -> None:
    with open_engine(jetson_6) as engine:
        for columns in range(1, 1 + MOST_CAMERAS):
            engine.score(np.zeros((48, columns, 3), np.uint8))
        live = engine.device.live
        with pytest.raises(EngineError, match="has 60 x 48 pixels, and 8 other sizes came before") as caught:
            engine.score(np.zeros((48, 60, 3), np.uint8))
        assert "let each camera keep its size" in caught.value.cure
        assert engine.device.live == live
        assert engine.score(np.full((48, 8, 3), 7, np.uint8)).score == 7


@pytest.mark.parametrize("refused", ["kernel", "buffer"])
def test_a_frame_that_finds_no_room_leaves_nothing_behind(
    jetson_6: FakeJetson, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    def refuse(*_: object) -> None:
        raise EngineError("the GPU refused", cure="wait")

    with open_engine(jetson_6) as engine:
        live = engine.device.live
        with monkeypatch.context() as patched:
            patched.setattr(jetson_6.device, refused, refuse)
            with pytest.raises(EngineError, match="the GPU refused"):
                engine.score(np.zeros(CAMERA, np.uint8))
            assert engine.device.live == live
        assert engine.score(np.full(CAMERA, 7, np.uint8)).score == 7


def test_a_gpu_that_brings_frames_otherwise_to_the_models_size_scores_none(
    jetson_6: FakeJetson, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The golden frames have the model's size: they pass whatever the kernel makes of a camera's frames."""
    kernel, columns, too_dark = jetson_6.device.kernel, 5, 3

    def off(self: Any, path: Path, name: str) -> Any:
        def launch(stream: Any, *rest: Any) -> None:
            kernel(self, path, name)(stream, *rest)
            target = fake_device._view(int(rest[6]), (SIZE, SIZE, 3))
            stream.enqueue(lambda: np.subtract(target[:, columns], too_dark, out=target[:, columns]))

        return launch

    frame = np.full(CAMERA, 90, np.uint8)
    with open_engine(jetson_6) as engine, monkeypatch.context() as patched:
        patched.setattr(jetson_6.device, "kernel", off)
        for _ in range(3):
            with pytest.raises(
                EngineError, match=r"otherwise than the processor: 6\.25 % of the values"
            ) as caught:
                engine.score(frame)
        assert "ONNX Runtime" in caught.value.cure
        assert engine.score(frame[:SIZE, :SIZE]).score == 90
        too_dark = 2  # as little as another rounding makes
        assert engine.score(frame).anomaly_map.min() == 88
    with open_engine(jetson_6) as engine:
        assert engine.score(frame).score == 90
    assert_all_is_given_back(jetson_6)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros(CAMERA, np.float32),
        np.zeros(CAMERA[:2], np.uint8),
        np.zeros((*CAMERA[:2], 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_frame_is_refused(jetson_6: FakeJetson, image: Any) -> None:
    with open_engine(jetson_6) as engine, pytest.raises(DataError, match="must be BGR uint8") as caught:
        engine.score(image)
    assert caught.value.cure


def test_a_number_that_is_not_finite_is_refused(jetson_6: FakeJetson) -> None:
    with open_engine(jetson_6) as engine:
        jetson_6.trt.noise = float("nan")
        with pytest.raises(EngineError, match="not finite"):
            engine.score(np.zeros(CAMERA, np.uint8))


def test_an_engine_that_tensorrt_does_not_load_is_refused(jetson: FakeJetson) -> None:
    device = jetson.device()
    with pytest.raises(EngineError, match="cannot load the engine: Serialization assertion"):
        TrtEngine(b"from another version", "int8", device)
    device.close()


def test_an_engine_that_finds_no_room_is_let_go_of(jetson: FakeJetson, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise EngineError("no memory", cure="stop other programs")

    plan, device = jetson.plan.read_bytes(), jetson.device()
    monkeypatch.setattr(jetson.device, "pinned", refuse)
    with pytest.raises(EngineError, match="no memory"):
        TrtEngine(plan, "int8", device)
    device.close()
    assert_all_is_given_back(jetson)


@pytest.mark.parametrize("name", ["execute_async_v3", "set_tensor_address"])
def test_what_tensorrt_refuses_is_an_error(
    jetson_6: FakeJetson, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(f"tests.fake_tensorrt.Context.{name}", lambda *_: False)
    with pytest.raises(EngineError, match="TensorRT cannot"), open_engine(jetson_6) as engine:
        engine.score(np.zeros(CAMERA, np.uint8))


def test_a_lost_device_is_told_also_where_tensorrt_meets_it_first(jetson_6: FakeJetson) -> None:
    with open_engine(jetson_6) as engine:
        jetson_6.trt.enqueue = lambda *_: False
        jetson_6.device.lost = DeviceLost("an illegal address", cure="restart the station")
        with pytest.raises(DeviceLost):
            engine.score(np.zeros(CAMERA, np.uint8))


def test_the_station_uses_the_engine_that_it_built(jetson: FakeJetson) -> None:
    choice = choose(jetson)
    assert (choice.loaded().runtime, choice.note, choice.build) == ("tensorrt", "", None)
    choice.loaded().close()
    assert jetson.trt.loads == 3  # inspected and proven at the build, and loaded now


def test_the_engine_has_the_view_of_its_bundle(jetson_6: FakeJetson) -> None:
    bundle, view = bundle_of(jetson_6), View(frame_size=(64, 48), roi=Box(8, 4, 40, 40))
    seen = replace(bundle, manifest=bundle.manifest.model_copy(update={"view": view}))
    with closing(choose_engine(jetson_6.workshop.folder, seen, "int8").loaded()) as engine:
        assert engine.runtime == "tensorrt"
        assert engine.sight is not None
        assert engine.sight.view == view


@pytest.mark.parametrize("precision", ["int8", None])
def test_without_an_engine_onnx_runtime_runs_and_one_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Any
) -> None:
    jetson = make_jetson(tmp_path, monkeypatch, "10.3.0")
    choice = choose(jetson, precision)
    # INT8 also without a calibration: thresholds that are set now shall hold for the engine to come.
    assert (choice.loaded().runtime, choice.loaded().precision, choice.build) == ("onnxruntime", "int8", "int8")
    assert "no int8 engine has been built" in choice.note
    assert jetson.trt.loads == 0


def spoil_plan(jetson: FakeJetson) -> None:
    data = bytearray(jetson.plan.read_bytes())
    data[40] ^= 1
    jetson.plan.write_bytes(data)


def cut_plan(jetson: FakeJetson) -> None:
    jetson.plan.write_bytes(jetson.plan.read_bytes()[:-1])


def forge_passport(jetson: FakeJetson) -> None:
    path = jetson.engine / PASSPORT
    path.write_text(path.read_text().replace('"mac":"', '"mac":"0'))


def update_tensorrt(jetson: FakeJetson) -> None:
    jetson.trt.__version__ = "10.16.2.10"


def change_gpu(jetson: FakeJetson) -> None:
    jetson.device.name = "NVIDIA Thor"


def change_capability(jetson: FakeJetson) -> None:
    jetson.device.compute_capability = (11, 0)


def change_module(jetson: FakeJetson) -> None:
    """All modules of Orin have one name."""
    jetson.device.multiprocessors = 16


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_plan, "the engine was changed after it was built"),
        (cut_plan, "bytes instead of"),
        (forge_passport, "not made by this station"),
        (update_tensorrt, "built for TensorRT"),
        (change_gpu, "built for GPU Orin, not NVIDIA Thor"),
        (change_capability, "built for compute capability 8.7, not 11.0"),
        (change_module, "built for multiprocessors 8, not 16"),
    ],
)
def test_a_stale_or_foreign_engine_is_never_loaded(jetson: FakeJetson, spoil: Any, words: str) -> None:
    loads = jetson.trt.loads
    spoil(jetson)
    choice = choose(jetson)
    assert choice.loaded().runtime == "onnxruntime"
    assert words in choice.note
    assert choice.build == "int8"
    assert jetson.trt.loads == loads


def test_a_build_that_failed_is_not_tried_again_by_itself(jetson_6: FakeJetson) -> None:
    jetson_6.trt.fail_build = "out of memory"
    cut_plan(jetson_6)
    with pytest.raises(EngineError):
        jetson_6.build()
    choice = choose(jetson_6)
    assert choice.build is None
    assert "the last build failed: TensorRT cannot build the engine: out of memory" in choice.note


def test_that_another_build_failed_does_not_keep_this_one_from_being_tried(jetson_6: FakeJetson) -> None:
    jetson_6.trt.fail_build = "out of memory"
    with pytest.raises(EngineError):
        jetson_6.build()
    update_tensorrt(jetson_6)
    assert choose(jetson_6).build == "int8"


def test_the_engine_of_another_precision_runs_only_where_nothing_is_calibrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jetson = make_jetson(tmp_path, monkeypatch, "10.3.0")
    jetson.build("--precision", "fp32")
    for calibrated, found in ((None, ("tensorrt", "fp32")), ("int8", ("onnxruntime", "int8"))):
        with closing(choose(jetson, calibrated).loaded()) as engine:
            assert (engine.runtime, engine.precision) == found


def test_an_engine_that_scores_otherwise_does_not_run(jetson: FakeJetson) -> None:
    jetson.trt.noise = 0.05
    choice = choose(jetson)
    assert choice.loaded().runtime == "onnxruntime"
    assert "scores a known frame 40.05 instead of 40" in choice.note
    assert choice.build is None
    assert_all_is_given_back(jetson)


def test_what_the_golden_frames_say_is_told_whole(jetson_6: FakeJetson) -> None:
    """The engine is not kept, so this sentence is all that is left of it."""
    bundle = bundle_of(jetson_6)
    (golden,) = bundle.manifest.golden
    frames = tuple(golden.model_copy(update={"score": golden.score + off}) for off in (0.02, -0.5, 0.04))
    manifest = bundle.manifest.model_copy(update={"golden": frames})
    words = "a known frame 40 instead of 39.5, the worst of 2 of 3 that are off by more than 0.03"
    with open_engine(jetson_6) as engine, pytest.raises(EngineError, match=words) as caught:
        prove(engine, replace(bundle, manifest=manifest), cure="build again")
    assert caught.value.cure == "build again"


def test_without_golden_frames_no_engine_is_proven(jetson_6: FakeJetson) -> None:
    bundle = bundle_of(jetson_6)
    none = replace(bundle, manifest=bundle.manifest.model_copy(update={"golden": ()}))
    with open_engine(jetson_6) as engine, pytest.raises(EngineError, match="no golden frames"):
        prove(engine, none, cure="build again")


def test_the_tolerance_of_tensorrt_is_the_stated_one(jetson_6: FakeJetson) -> None:
    bundle = bundle_of(jetson_6)
    with open_engine(jetson_6) as engine:
        assert check_golden(engine, bundle).tolerance == TRT_MARGIN * bundle.manifest.golden_tolerance
    twin = OrtEngine(brightness_model(), "int8")
    assert check_golden(twin, bundle).tolerance == bundle.manifest.golden_tolerance


def test_the_float_model_has_a_tolerance_and_golden_scores_of_its_own(jetson_6: FakeJetson) -> None:
    bundle = bundle_of(jetson_6)
    object.__setattr__(bundle.manifest.golden[0], "score_fp", 41.0)
    floating, int8 = OrtEngine(brightness_model(), "fp32"), OrtEngine(brightness_model(), "int8")
    expected = [check_golden(engine, bundle).worst.expected for engine in (floating, int8)]
    assert expected == [41, 40]
    assert check_golden(floating, bundle).tolerance == bundle.manifest.golden_tolerance  # a bundle without one
    object.__setattr__(bundle.manifest, "golden_tolerance_fp", 1e-4)
    assert check_golden(floating, bundle).tolerance == 1e-4
    assert check_golden(int8, bundle).tolerance == bundle.manifest.golden_tolerance


def test_where_no_gpu_answers_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    jetson = make_jetson(tmp_path, monkeypatch, "10.3.0")
    jetson.device.missing = EngineError("there is no NVIDIA driver", cure="install JetPack")
    choice = choose(jetson)
    assert (choice.loaded().runtime, choice.note, choice.build) == ("onnxruntime", "", None)
    assert "there is no NVIDIA driver; install JetPack" in caplog.text


def test_a_gpu_that_answers_no_more_is_told(jetson_6: FakeJetson) -> None:
    jetson_6.device.missing = EngineError("the driver does not start", cure="restart the machine")
    choice = choose(jetson_6)
    assert (choice.loaded().runtime, choice.build) == ("onnxruntime", None)
    assert choice.note == "the driver does not start; restart the machine"


@pytest.mark.parametrize(
    ("error", "build"),
    [
        (EngineError("TensorRT cannot load the engine: magicTag == MAGIC failed"), "int8"),
        (EngineError("TensorRT cannot make room for the engine: Out of memory"), None),
        (DeviceLost("the GPU is lost", cure="restart"), None),
    ],
)
def test_a_sealed_engine_that_does_not_load_is_built_again_where_that_helps(
    jetson_6: FakeJetson, monkeypatch: pytest.MonkeyPatch, error: EngineError, build: str | None
) -> None:
    def refuse(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(TrtEngine, "_load", refuse)
        choice = choose(jetson_6)
    assert choice.loaded().runtime == "onnxruntime"
    assert choice.note.startswith(error.what)
    assert choice.build == build
    assert_all_is_given_back(jetson_6)


def test_a_lack_of_memory_is_seen_also_where_the_last_words_do_not_say_so(
    jetson: FakeJetson, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Building again would take more of it."""
    trt = jetson.trt

    def refuse(*_: object) -> None:
        trt.say(trt.ILogger.ERROR, "Error Code 1: Cuda Runtime (out of memory)")
        trt.say(trt.ILogger.ERROR, "Error Code 4: Internal Error (Engine deserialization failed.)")

    monkeypatch.setattr(trt.Runtime, "deserialize_cuda_engine", refuse)
    choice = choose(jetson)
    assert "deserialization failed.); before that: Error Code 1: Cuda Runtime (out of memory)" in choice.note
    assert choice.build is None


def test_builds_that_take_the_machine_down_are_given_up(jetson_6: FakeJetson) -> None:
    folder, key = jetson_6.workshop.folder, jetson_6.passport.target.key
    cut_plan(jetson_6)
    for attempt in (1, 2, 3):
        assert choose(jetson_6).build == "int8"
        BuildLog(folder, key)  # and nothing after it: the power fails
        step = last_step(folder)
        assert step is not None
        assert step.attempt == attempt
    choice = choose(jetson_6)
    assert choice.build is None
    assert "3 builds in a row were cut off" in choice.note
    assert jetson_6.build().exit_code == 0
    assert choose(jetson_6).loaded().runtime == "tensorrt"


@pytest.mark.parametrize(
    ("has_built", "on_jetson", "told"),
    [(False, False, [False, False]), (False, True, [False, True]), (True, False, [True, True])],
)
def test_that_tensorrt_is_not_installed_is_told_where_it_was_or_should_be(
    jetson_6: FakeJetson, monkeypatch: pytest.MonkeyPatch, has_built: bool, on_jetson: bool, told: list[bool]
) -> None:
    if not has_built:
        jetson_6.workshop.folder.engine_key.unlink()
    monkeypatch.setattr("kenpin.tensorrt_seam.is_installed", lambda: False)
    monkeypatch.setattr("kenpin.edge_runtime.engine_choice.is_jetson", lambda: on_jetson)
    jetson_6.device.missing = AssertionError("the device is not asked for")  # type: ignore[assignment]
    choice = choose(jetson_6)
    assert (choice.loaded().runtime, choice.build) == ("onnxruntime", None)
    assert ["TensorRT is not installed" in words for words in (choice.note, choice.no_gpu)] == told


def test_tensorrt_8_is_said_and_onnx_runtime_runs(jetson_6: FakeJetson) -> None:
    jetson_6.trt.__version__ = "8.6.2"
    choice = choose(jetson_6)
    assert choice.loaded().runtime == "onnxruntime"
    assert "8.6.2 is too old" in choice.note
    assert choice.build is None


def test_fp16_without_an_engine_gives_no_decision_with_the_cure_and_is_built(jetson_6: FakeJetson) -> None:
    workshop = jetson_6.workshop
    bundle = workshop.install(workshop.bundle(quantization={"precision": "fp16"}))
    workshop.calibrate(bundle, rev=2, precision="fp16")
    ready = check_readiness(workshop.folder, [workshop.signer.public])
    assert (ready.engine, ready.build) == (None, "fp16")
    assert "no fp16 engine has been built" in ready.fault
    assert "kenpin build-engine" in ready.fault
    jetson_6.build()
    ready = check_readiness(workshop.folder, [workshop.signer.public])
    assert ready.engine is not None
    assert (ready.engine.precision, ready.fault) == ("fp16", "")


def test_what_runs_can_be_told_to_the_last_file(jetson_6: FakeJetson) -> None:
    workshop = jetson_6.workshop
    bundle = workshop.install(workshop.bundle(lineage={"data_sha256": "cd" * 32}))
    workshop.calibrate(bundle, rev=2)
    model = check_readiness(workshop.folder, [workshop.signer.public]).model
    assert model is not None
    assert (model.signed_by, model.dataset_sha256) == (workshop.signer.public.name, "cd" * 32)
    assert (model.tensorrt, model.engine_sha256) == ("", "")  # ONNX Runtime runs
    assert jetson_6.build().exit_code == 0
    model = check_readiness(workshop.folder, [workshop.signer.public]).model
    assert model is not None
    passports = [json.loads(p.read_text())["passport"] for p in workshop.folder.engines.glob(f"*/{PASSPORT}")]
    (told,) = [passport for passport in passports if passport["bundle_sha256"] == bundle.sha256]
    assert (model.tensorrt, model.engine_sha256) == (told["tensorrt"], told["plan_sha256"])


def start(jetson: FakeJetson, *brightness: int) -> Station:
    return Station(jetson.workshop.config(f"folder:{jetson.workshop.pictures(*brightness)}"))


def verdicts(jetson: FakeJetson) -> list[tuple[str, str]]:
    connection = sqlite3.connect(jetson.workshop.folder.database)
    try:
        return connection.execute("SELECT verdict, reason FROM part ORDER BY seq").fetchall()
    finally:
        connection.close()


def test_a_station_runs_on_its_engine_and_gives_the_memory_back(
    jetson: FakeJetson, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    real = jetson.device.__init__

    def remember(self: Any, index: int = 0) -> None:
        real(self, index)
        made.append(self)

    monkeypatch.setattr(jetson.device, "__init__", remember)
    with start(jetson, 10, 150, 250, 20) as station:
        report = station.run()
    assert [verdict for verdict, _ in verdicts(jetson)] == ["OK", "REVIEW", "NG", "OK"]
    assert report.precision == "int8"
    (device,) = made
    assert device.launches > 0
    assert (device.live, device.closed) == (0, True)


def test_a_lost_device_ends_the_station_after_the_part_got_its_verdict(jetson: FakeJetson) -> None:
    lost = DeviceLost("an illegal address; the GPU cannot be used", cure="restart the station")
    with start(jetson, 10, 20, 30) as station:
        jetson.device.lost = lost
        with pytest.raises(DeviceLost):
            station.run()
    assert verdicts(jetson) == [("NO_DECISION", lost.what)]
    assert lost.exit_code not in (0, 1, 2)


def test_an_error_that_passes_does_not_end_the_station(jetson_6: FakeJetson) -> None:
    with start(jetson_6, 10, 20) as station:
        jetson_6.device.lost = EngineError("the GPU refused", cure="wait")
        station.run()
    assert verdicts(jetson_6) == [("NO_DECISION", "the GPU refused")] * 2


def test_a_station_on_onnx_runtime_says_so_and_builds_in_the_background(
    jetson_6: FakeJetson, monkeypatch: pytest.MonkeyPatch, caplog: Any, wait_for: Any
) -> None:
    started: list[tuple[Any, ...]] = []

    class Build:
        told = "being built: 40 %"

        def __init__(self, *arguments: Any) -> None:
            started.append(arguments)
            self._closed = threading.Event()

        def wait(self) -> None:
            self._closed.wait()

        def close(self) -> None:
            started.append(("closed",))
            self._closed.set()

    monkeypatch.setattr("kenpin.edge_runtime.candidate.BackgroundBuild", Build)
    update_tensorrt(jetson_6)
    workshop = jetson_6.workshop
    states: list[tuple[str, str]] = []
    with start(jetson_6, 10) as station:
        wait_for(lambda: started, "the build")
        station._news = SimpleNamespace(  # type: ignore[assignment]
            start=lambda: None,
            stop=lambda **_: None,
            wake=lambda: None,
            set_state=lambda *state: states.append(state),
            acked=0,
        )
        station.run()
    assert {state for state, _ in states} == {"DEGRADED"}
    assert all(reason.endswith("; being built: 40 %") for _, reason in states)
    assert [verdict for verdict, _ in verdicts(jetson_6)] == ["OK"]
    wait_for(lambda: len(started) == 2, "the end of the build")
    folder = workshop.folder
    arguments = (folder, "int8", (workshop.public_key,), folder.installed(), 1024)
    assert started == [arguments, ("closed",)]
    assert "ONNX Runtime runs instead of TensorRT: the engine was built for TensorRT 10.3.0" in caplog.text


def test_the_engine_that_was_built_meanwhile_is_taken(
    jetson_6: FakeJetson, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    class Build:
        told = ""

        def __init__(self, *_arguments: Any) -> None:
            assert jetson_6.build().exit_code == 0

        def wait(self) -> None:
            pass

        def close(self) -> None:
            pass

    monkeypatch.setattr("kenpin.edge_runtime.candidate.BackgroundBuild", Build)
    update_tensorrt(jetson_6)
    runtimes: list[str] = []
    pictures = jetson_6.workshop.pictures(10, 20)
    source = f"folder:{pictures}?loop=1&rate=50"
    station = Station(
        jetson_6.workshop.config(source), on_part=lambda _part: runtimes.append(station._ready.engine.runtime)
    )
    with station:
        station.run(stopping=lambda: "tensorrt" in runtimes or len(runtimes) > 3000)
    assert (runtimes[0], runtimes[-1]) == ("onnxruntime", "tensorrt")
    assert {verdict for verdict, _ in verdicts(jetson_6)} == {"OK"}
    assert "The int8 engine on tensorrt decides from here on." in caplog.text


SITE = """
import sys
sys.path.insert(0, {root!r})
from tests.edge_runtime import fake_device
from tests.fake_tensorrt import make_tensorrt
sys.modules["tensorrt"] = make_tensorrt("10.3.0")
import kenpin.edge_runtime.device
kenpin.edge_runtime.device.Device = fake_device.Device
"""


@pytest.fixture
def fakes_for_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE.format(root=str(Path(__file__).parents[2])))
    monkeypatch.setenv("PYTHONPATH", str(site))


def test_the_background_build_makes_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fakes_for_children: None, caplog: Any, wait_for: Any
) -> None:

    jetson = make_jetson(tmp_path, monkeypatch, "10.3.0")
    assert choose(jetson).build == "int8"
    build = BackgroundBuild(jetson.workshop.folder, "int8", (jetson.workshop.public_key,))
    nice = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    assert os.getpriority(os.PRIO_PROCESS, build._process.pid) == nice
    wait_for(lambda: "The engine is built" in caplog.text, "the engine")
    build.close()
    assert choose(jetson).loaded().runtime == "tensorrt"


def test_the_outcome_of_a_build_that_failed_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fakes_for_children: None, caplog: Any, wait_for: Any
) -> None:
    jetson = make_jetson(tmp_path, monkeypatch, "10.3.0")
    build = BackgroundBuild(jetson.workshop.folder, "fp16", (jetson.workshop.public_key,))
    wait_for(lambda: "The engine was not built (exit code 1)" in caplog.text, "the log")
    build.close()
    assert "no fp16 model" in caplog.text


def test_a_build_that_is_refused_says_nothing_in_the_log_of_the_other(
    jetson_6: FakeJetson, fakes_for_children: None, caplog: Any
) -> None:
    folder = jetson_6.workshop.folder
    with sole_use(folder.engines / "build.lock"):
        BuildLog(folder, "other")
        build = BackgroundBuild(folder, "int8", (jetson_6.workshop.public_key,))
        build.wait()
    assert "another engine is being built" in caplog.text
    assert [step["state"] for step in jetson_6.build_steps()] == ["BUILDING"]


@pytest.fixture
def endless_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build in the background that takes longer than any test."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def test_how_far_a_build_is_can_be_told(
    jetson_6: FakeJetson, monkeypatch: pytest.MonkeyPatch, endless_build: None, wait_for: Any
) -> None:
    monkeypatch.setattr("kenpin.edge_runtime.background_build._LOOK_S", 0.02)
    with closing(BackgroundBuild(jetson_6.workshop.folder, "int8", ())) as build:
        assert build.told == "the engine is being built"
        BuildLog(jetson_6.workshop.folder, "a").step("Building engine", 0.47)
        wait_for(lambda: build.told == "the engine is being built: Building engine, 40 %", "the step")


def test_a_build_is_ended_with_the_station(jetson_6: FakeJetson, endless_build: None, caplog: Any) -> None:
    build = BackgroundBuild(jetson_6.workshop.folder, "int8", ())
    build.close()
    assert build._process.returncode == -signal.SIGTERM
    assert caplog.text == ""


def test_how_a_build_ended_that_could_not_say_so_is_kept(
    jetson_6: FakeJetson, endless_build: None, caplog: Any
) -> None:
    folder, key = jetson_6.workshop.folder, jetson_6.passport.target.key
    cut_plan(jetson_6)
    build = BackgroundBuild(folder, "int8", ())
    assert Path(f"/proc/{build._process.pid}/oom_score_adj").read_text().strip() == "1000"
    BuildLog(folder, key)
    build.close()
    assert choose(jetson_6).build == "int8"
    assert jetson_6.build_steps()[-1]["state"] == "INTERRUPTED"

    build = BackgroundBuild(folder, "int8", ())
    BuildLog(folder, key)
    build._process.send_signal(signal.SIGSEGV)
    build.wait()
    choice = choose(jetson_6)
    assert choice.build is None
    assert "the last build failed: it was ended by SIGSEGV; build it with kenpin build-engine" in choice.note


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_build_that_was_asked_to_end_before_its_station_is_tried_again(
    jetson_6: FakeJetson, endless_build: None, asked: signal.Signals
) -> None:
    """systemd asks all processes of a service at once, as does Ctrl-C on a terminal."""
    folder, key = jetson_6.workshop.folder, jetson_6.passport.target.key
    cut_plan(jetson_6)
    build = BackgroundBuild(folder, "int8", ())
    BuildLog(folder, key)
    build._process.send_signal(asked)
    build.wait()
    assert jetson_6.build_steps()[-1]["state"] == "INTERRUPTED"
    assert choose(jetson_6).build == "int8"


def verify_engine(jetson: FakeJetson, *words: object) -> Any:
    workshop = jetson.workshop
    workshop.folder.key.unlink(missing_ok=True)
    workshop.folder.public_key.unlink(missing_ok=True)
    workshop.station_key.save(workshop.folder.key)
    options = ("--state", workshop.folder.root, "--trust", workshop.public_key)
    return jetson.kenpin("verify-engine", *options, *words)


def test_verify_engine_signs_what_the_engine_scored(jetson: FakeJetson, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    jetson.trt.noise = 0.02
    result = verify_engine(jetson, "--json", "--out", out)
    document = json.loads(result.stdout)
    report = document["report"]
    assert (report["passed"], report["runtime"], report["precision"]) == (True, "tensorrt", "int8")
    assert report["bundle_sha256"] == bundle_of(jetson).sha256
    assert report["tolerance"] == pytest.approx(0.03)
    (frame,) = report["frames"]
    assert (frame["file"], frame["expected"], frame["score"]) == ("golden/0.png", 40, pytest.approx(40.02))
    # Which engine that was: without TensorRT, GPU and the plan's SHA-256 the tolerance tells of none.
    sealed = json.loads(next(jetson.workshop.folder.engines.glob("*/passport.json")).read_bytes())["passport"]
    assert report["engine"] == sealed
    # The file is signed in minisign's format with the station's key.
    key = PublicKey.load(jetson.workshop.folder.public_key)
    signature = out.with_name("report.json.minisig").read_text()
    verify(out.read_bytes(), signature, [key], where=out)
    assert out.read_bytes() == canonical_json(report)
    assert signature == document["signature"]
    assert "passed: lamp-1.0, int8 on tensorrt, 1 golden frames, the worst off by 0.02" in result.stderr
    verify_engine(jetson, "--out", out)  # over its own


def test_verify_engine_does_not_pass_where_onnx_runtime_stands_in(jetson_6: FakeJetson, tmp_path: Path) -> None:
    jetson_6.trt.noise = 1.0
    out = tmp_path / "report.json"
    with pytest.raises(EngineError, match="did not pass"):
        verify_engine(jetson_6, "--out", out)
    report = json.loads(out.read_text())
    assert (report["passed"], report["runtime"], report["engine"]) == (False, "onnxruntime", None)
    assert "scores a known frame 41 instead of 40" in report["note"]


def test_what_does_not_pass_is_never_told_to_have(
    jetson_6: FakeJetson, capsys: pytest.CaptureFixture[str]
) -> None:
    """ONNX Runtime holds the frames; who reads the first line alone must not take it for TensorRT's."""
    jetson_6.trt.noise = 1.0
    workshop = jetson_6.workshop
    words = ("verify-engine", "--state", workshop.folder.root, "--trust", workshop.public_key)
    with pytest.raises(EngineError, match="did not pass"):
        cli.main([str(word) for word in words], standalone_mode=False)
    told = capsys.readouterr().err
    assert told.startswith("FAILED: lamp-1.0, int8 on onnxruntime, 1 golden frames, the worst off by 0")
    assert "passed:" not in told


def test_verify_engine_does_not_pass_where_the_gpu_cannot_be_used_and_never_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The station starts as usual with ONNX Runtime; whoever asks for TensorRT hears that it does not run."""
    jetson = make_jetson(tmp_path, monkeypatch, "10.3.0")
    jetson.device.missing = EngineError("pycuda cannot be imported", cure="install it")
    out = tmp_path / "report.json"
    with pytest.raises(EngineError, match="did not pass"):
        verify_engine(jetson, "--out", out)
    report = json.loads(out.read_text())
    assert (report["passed"], report["runtime"]) == (False, "onnxruntime")
    assert report["note"] == "pycuda cannot be imported; install it"


def test_verify_engine_takes_the_calibration_of_the_active_bundle_though_another_is_newer(
    jetson_6: FakeJetson,
) -> None:
    workshop = jetson_6.workshop
    workshop.folder.records.unlink()
    workshop.calibrate(bundle_of(jetson_6), precision="fp32")
    other = workshop.record(bundle_of(jetson_6), rev=2, bundle_sha256="b" * 64)
    append_record(workshop.folder.records, other, workshop.station_key)
    assert jetson_6.build("--precision", "fp32").exit_code == 0
    report = json.loads(verify_engine(jetson_6, "--json").stdout)["report"]
    assert (report["passed"], report["precision"], report["runtime"]) == (True, "fp32", "tensorrt")


def test_verify_engine_reports_a_failure_and_fails(jetson_6: FakeJetson, tmp_path: Path) -> None:
    workshop, out = jetson_6.workshop, tmp_path / "report.json"
    workshop.install(workshop.bundle(model=brightness_model(scale=2.0)))
    with pytest.raises(EngineError, match="did not pass"):
        verify_engine(jetson_6, "--out", out)
    report = json.loads(out.read_text())
    assert (report["passed"], report["runtime"]) == (False, None)
    assert "scores a known frame 80 instead of 40" in report["fault"]


def test_calibration_scores_with_the_engine_of_the_station(jetson_6: FakeJetson, tmp_path: Path) -> None:
    workshop = jetson_6.workshop
    workshop.folder.records.unlink()
    workshop.folder.public_key.unlink()
    good = workshop.pictures(10, 11, 12, 13, 14, 15)
    jetson_6.trt.noise = 0.02
    options = ("--state", workshop.folder.root, "--trust", workshop.public_key, "--by", "tester", "--json")
    result = jetson_6.kenpin("calibrate", "fit", "--good", good, *options)
    record = json.loads(result.stdout)["record"]
    assert record["precision"] == "int8"
    assert record["good"]["000.png"] == pytest.approx(10.02)
