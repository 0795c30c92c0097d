from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kenpin.build_log import BuildStep
from kenpin.engine_passport import Layers
from kenpin.engine_store import load_engine_key, mac
from kenpin.errors import EngineError
from kenpin.export import build_engine
from kenpin.export.build_engine import read_layers
from kenpin.export.model_header import check_header
from tests.edge_runtime import fake_device
from tests.edge_runtime.conftest import brightness_model
from tests.fake_jetson import FakeJetson, make_jetson
from tests.fake_tensorrt import VERSIONS, Config, make_tensorrt


@pytest.fixture(params=VERSIONS)
def jetson(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeJetson:
    return make_jetson(tmp_path, monkeypatch, request.param)


@pytest.fixture
def jetson_6(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeJetson:
    return make_jetson(tmp_path, monkeypatch, "10.3.0")


def changed(**changes: Any) -> bytes:
    """The brightness model with something wrong."""
    model = onnx.ModelProto.FromString(brightness_model())
    if "opset" in changes:
        model.opset_import[0].version = changes["opset"]
    if "ir" in changes:
        model.ir_version = changes["ir"]
    if changes.get("dynamic"):
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "height"
    if changes.get("op"):
        model.graph.node[3].op_type = changes["op"]
        model.graph.node[3].name = "/head/odd"
    if changes.get("external"):
        tensor = model.graph.initializer[0]
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights.bin")
    if changes.get("zero_point"):
        model.graph.initializer.append(numpy_helper.from_array(np.array(3, np.int8), "shift"))
        node = helper.make_node("QuantizeLinear", ["scaled", "scale", "shift"], ["q"], name="/encoder/q")
        model.graph.node.append(node)
    if changes.get("other"):
        model.graph.output[0].name = "logits"
    return bytes(model.SerializeToString())


def test_an_engine_is_built_proven_and_sealed_with_its_passport(jetson: FakeJetson) -> None:
    bundle = jetson.workshop.bundle()
    result = jetson.build("--json")
    document = json.loads(result.stdout)
    passport = jetson.passport
    assert document["passport"] == passport.model_dump(mode="json", by_alias=True)
    assert document["engine"] == str(jetson.engine)
    assert document["golden"] == {"frames": 1, "tolerance": pytest.approx(0.03), "worst": 0.0}
    assert (passport.bundle_sha256, passport.model, passport.precision) == (bundle.sha256, "lamp-1.0", "int8")
    assert (passport.tensorrt, passport.cuda) == (jetson.trt.__version__, "12.6")
    assert (passport.gpu, passport.compute_capability) == ("Orin", "8.7")
    assert passport.plan_bytes == jetson.plan.stat().st_size
    assert passport.target.key == jetson.engine.name
    # The one layer of four that computes in INT8; what only changes a format does not count.
    assert passport.layers.int8 == ("conv1 + relu",)
    assert (passport.layers.total, passport.layers.float_convolutions) == (4, ("conv2", "head.map"))
    for words in (
        "lamp-1.0, int8",
        "1 of 4 layers run in INT8; convolutions before the head that do not: conv2 (export returned 0 ",
        "1 of 1 within",
    ):
        assert words in result.stderr


def test_a_float_engine_is_not_blamed_for_its_float_layers(jetson_6: FakeJetson) -> None:
    told = jetson_6.build("--precision", "fp32").stderr
    assert "4 layers, all in float" in told
    assert "INT8" not in told


def test_the_network_is_strongly_typed_and_no_precision_flag_is_set(jetson: FakeJetson) -> None:
    jetson.build("--workspace-mb", 64)
    (config,), flags = jetson.trt.configs, jetson.trt.NetworkDefinitionCreationFlag
    assert jetson.trt.networks == [1 << int(flags.STRONGLY_TYPED)]
    assert config._flags == set()  # TF32 is off too: it would cost the float layers their digits
    assert config._limits == {jetson.trt.MemoryPoolType.WORKSPACE: 64 << 20}
    assert config.profiling_verbosity == jetson.trt.ProfilingVerbosity.DETAILED


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_each_precision_has_an_engine_of_its_own(jetson_6: FakeJetson, precision: str) -> None:
    jetson_6.build("--precision", precision)
    assert jetson_6.passport.precision == precision


def test_a_bundle_without_an_fp16_model_is_refused_before_tensorrt(jetson_6: FakeJetson) -> None:
    with pytest.raises(EngineError, match=r"the bundle has no fp16 model: its model\.onnx is int8"):
        jetson_6.build("--precision", "fp16")
    assert jetson_6.trt.networks == []


@pytest.mark.parametrize("precision", ["int8", "fp16", "fp32"])
def test_the_bundle_says_what_is_built(jetson_6: FakeJetson, precision: str) -> None:
    workshop = jetson_6.workshop
    workshop.install(workshop.bundle(quantization={"precision": precision}))
    jetson_6.build()
    assert jetson_6.passport.precision == precision


def test_a_precision_that_is_not_known_is_refused(jetson_6: FakeJetson) -> None:
    workshop = jetson_6.workshop
    workshop.install(workshop.bundle(quantization={"precision": "int4"}))
    with pytest.raises(EngineError, match="'int4' of the bundle's model is not known"):
        jetson_6.build()


def test_a_bundle_that_is_not_installed_can_be_built_ahead(jetson_6: FakeJetson) -> None:
    ahead = jetson_6.workshop.bundle(version="2.0")
    jetson_6.build("--bundle", ahead.path)
    assert jetson_6.passport.bundle_sha256 == ahead.sha256


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (changed(dynamic=True), "no fixed shape: frames UINT8"),
        (changed(op="Det"), r"node /head/odd \(Det\): In function checkDet"),
        (changed(zero_point=True), r"node /encoder/q \(QuantizeLinear\): .*Non-zero zero point"),
        (changed(external=True), "Failed to open file"),
        (changed(opset=24), "opset 24"),
        (changed(opset=8), "opset 8"),
        (changed(ir=11), "IR version 11"),
        (changed(other=True), "not a kenpin model: .*logits"),
        (bytes(1 << 20), "not an ONNX file"),
        (brightness_model()[:-3], "not an ONNX file"),
        (b"", "not an ONNX file"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused_in_plain_words(
    jetson: FakeJetson, model: bytes, what: str
) -> None:
    jetson.build()
    before = jetson.plan.read_bytes()
    jetson.workshop.install(jetson.workshop.bundle(model=model))
    with pytest.raises(EngineError, match=what) as caught:
        jetson.build()
    assert caught.value.cure
    assert jetson.trt.builds == 1  # nobody waited minutes for that
    assert jetson.plan.read_bytes() == before
    assert jetson.build_steps()[-1]["state"] == "FAILED"


def test_half_a_gigabyte_of_zeros_is_refused_at_once() -> None:
    with pytest.raises(EngineError, match="not an ONNX file"):
        check_header(bytes(500 << 20))


def test_a_bundle_without_golden_frames_is_refused(jetson_6: FakeJetson) -> None:
    jetson_6.workshop.install(jetson_6.workshop.bundle(golden=()))
    with pytest.raises(EngineError, match="no golden frames"):
        jetson_6.build()
    assert jetson_6.trt.networks == []


def test_an_engine_that_scores_otherwise_is_not_kept(jetson: FakeJetson) -> None:
    jetson.build()
    before = jetson.passport
    jetson.trt.noise = 0.05
    words = r"scores a known frame 40.05 instead of 40, the worst of 1 of 1 that are off by more than 0.03"
    with pytest.raises(EngineError, match=words):
        jetson.build()
    assert jetson.passport == before
    assert "40.05" in jetson.build_steps()[-1]["reason"]


def test_a_difference_within_the_tolerance_passes(jetson_6: FakeJetson) -> None:
    jetson_6.trt.noise = 0.02  # twice what ONNX Runtime may be off
    jetson_6.build()


def test_without_a_device_tensorrt_is_not_touched(jetson: FakeJetson) -> None:
    jetson.device.missing = EngineError("there is no NVIDIA driver", cure="install JetPack")
    with pytest.raises(EngineError, match="no NVIDIA driver"):
        jetson.build()
    assert jetson.trt.networks == []
    assert jetson.trt.loads == 0


def test_tensorrt_8_is_refused_with_the_cure(jetson_6: FakeJetson) -> None:
    jetson_6.trt.__version__ = "8.6.2"
    with pytest.raises(EngineError, match=r"TensorRT 8\.6\.2 is too old") as caught:
        jetson_6.build()
    assert "JetPack 6.1 or newer" in caught.value.cure


def test_a_library_that_tensorrt_lacks_is_named(jetson_6: FakeJetson, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(name: str) -> None:
        raise ImportError("libnvdla_compiler.so: cannot open shared object file: No such file or directory")

    monkeypatch.setattr("kenpin.tensorrt_seam.importlib", SimpleNamespace(import_module=lacking))
    with pytest.raises(EngineError, match="libnvdla_compiler") as caught:
        jetson_6.build()
    assert "python3-libnvinfer" in caught.value.cure


def test_what_tensorrt_says_when_it_gives_up_is_told(jetson: FakeJetson) -> None:
    jetson.trt.fail_build = "Could not find any implementation for node conv1 due to insufficient workspace"
    with pytest.raises(EngineError, match="cannot build the engine: Could not find any implementation"):
        jetson.build()


def test_a_second_build_tells_its_own_error(jetson: FakeJetson) -> None:
    """TensorRT talks to the first logger of the process only."""
    for said in ("first words", "second words"):
        jetson.trt.fail_build = said
        with pytest.raises(EngineError, match=f"cannot build the engine: {said}"):
            jetson.build()
    jetson.trt.fail_build = ""
    with pytest.raises(EngineError) as caught:
        jetson.build()
    assert caught.value.what == "TensorRT cannot build the engine"


# The words and their order are those of TensorRT 10: NVIDIA/TensorRT#4258 and yuanyang1991/birefnet_tensorrt#4.
NO_MEMORY = ("ERROR", "Error Code 1: Cuda Runtime (out of memory)")
TOO_SMALL = (
    "WARNING",
    "UNSUPPORTED_STATE: Skipping tactic 0 due to insufficient memory on requested size of 38",
)
SKIPPED = ("ERROR", "Error Code: 9: Skipping tactic 0x0000000000000000 due to exception")


@pytest.mark.parametrize("said_before", [[NO_MEMORY, *[SKIPPED] * 9], [TOO_SMALL, SKIPPED], [SKIPPED]])
def test_why_tensorrt_gave_up_is_told_also_where_its_last_words_do_not(
    jetson: FakeJetson, said_before: list[tuple[str, str]]
) -> None:
    jetson.trt.said_before = said_before
    jetson.trt.fail_build = "Internal Error (Could not find any implementation for node {ForeignNode[a...b]})"
    with pytest.raises(EngineError, match="implementation for node") as caught:
        jetson.build()
    assert caught.value.what.endswith(f"; before that: {said_before[0][1]}")
    assert "--workspace-mb" in caught.value.cure
    assert "--weights fp32qdq" in caught.value.cure


@pytest.mark.parametrize(
    ("severity", "words"), [("WARNING", "TF32 is not used"), ("INFO", "not out of memory")]
)
def test_what_is_no_reason_is_not_told(jetson_6: FakeJetson, severity: str, words: str) -> None:
    cache = jetson_6.workshop.folder.engines / "timings-10.3.0.cache"
    cache.parent.mkdir(parents=True)
    timings = b"of another version"
    key = load_engine_key(jetson_6.workshop.folder)
    cache.write_bytes(mac(key, timings).encode() + timings)
    jetson_6.trt.said_before = [(severity, words)]
    jetson_6.trt.fail_build = "no tactic"
    with pytest.raises(EngineError) as caught:
        jetson_6.build()
    assert caught.value.what == "TensorRT cannot build the engine: no tactic"


def test_a_build_that_gives_up_without_a_word_is_an_error(jetson_6: FakeJetson) -> None:
    jetson_6.trt.fail_build = ""
    with pytest.raises(EngineError) as caught:
        jetson_6.build()
    assert caught.value.what == "TensorRT cannot build the engine"


def test_an_exception_of_tensorrt_does_not_leak(jetson_6: FakeJetson, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(jetson_6.trt.Builder, "__init__", broken)
    with pytest.raises(EngineError, match="factory function returned nullptr"):
        jetson_6.build()


def test_timings_are_kept_and_used_again(jetson: FakeJetson) -> None:
    jetson.build()
    jetson.build()
    assert [config._given for config in jetson.trt.configs] == [b"", b"measured"]


@pytest.mark.parametrize("place", [0, -1])
def test_timings_that_this_station_did_not_write_are_not_read(jetson_6: FakeJetson, place: int) -> None:
    jetson_6.build()
    (cache,) = jetson_6.workshop.folder.engines.glob("timings-*.cache")
    data = bytearray(cache.read_bytes())
    data[place] ^= 1
    cache.write_bytes(data)
    jetson_6.build()
    assert jetson_6.trt.configs[-1]._given == b""


def test_timings_that_tensorrt_refuses_are_measured_again(jetson_6: FakeJetson) -> None:
    jetson_6.build()
    (cache,) = jetson_6.workshop.folder.engines.glob("timings-*.cache")
    cache.write_bytes(mac(load_engine_key(jetson_6.workshop.folder), b"another GPU").encode() + b"another GPU")
    jetson_6.build()
    assert jetson_6.trt.configs[-1]._given == b""


@pytest.mark.parametrize("written", [".plan", "passport.json"])
def test_a_full_disk_leaves_the_old_engine(
    jetson: FakeJetson, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    jetson.build()
    before = (jetson.passport, jetson.plan.read_bytes())
    real = os.fsync

    def full(handle: int) -> None:
        if f"{written}.{os.getpid()}-" in str(Path(f"/proc/self/fd/{handle}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EngineError, match="No space left on device") as caught:
        jetson.build()
    assert "unchanged" in caught.value.cure
    passport = jetson.passport
    assert (passport, (jetson.engine / f"{passport.plan_sha256}.plan").read_bytes()) == before
    assert not list(jetson.workshop.folder.engines.rglob("*.part"))


def test_two_builds_at_once_are_refused(jetson_6: FakeJetson) -> None:
    jetson_6.build()
    with (jetson_6.workshop.folder.engines / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(EngineError, match="another engine is being built"):
            jetson_6.build()
    jetson_6.build()


@pytest.mark.parametrize("call", [1, 3, 4, 9])
def test_ctrl_c_ends_the_build_whatever_tensorrt_calls_just_then(
    jetson: FakeJetson, ctrl_c: None, call: int
) -> None:
    handlers: list[Any] = []

    def press() -> None:
        if len(handlers) == call - 1:
            os.kill(os.getpid(), signal.SIGINT)
        handlers.append(signal.getsignal(signal.SIGINT))

    jetson.trt.arrives = press
    with pytest.raises(click.Abort):
        jetson.build()
    assert jetson.trt.builds == 0
    # Whoever does not want to wait for TensorRT's next step presses again.
    assert set(handlers[call - 1 :]) == {signal.SIG_DFL}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not list(jetson.workshop.folder.engines.rglob("*.plan"))
    last = jetson.build_steps()[-1]
    assert (last["state"], last["reason"]) == ("INTERRUPTED", "interrupted")


def test_where_ctrl_c_is_ignored_it_stays_so(jetson_6: FakeJetson, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        jetson_6.trt.arrives = lambda: os.kill(os.getpid(), signal.SIGINT)
        jetson_6.build()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_engine_that_cannot_be_loaded_after_its_build_is_told_in_plain_words(
    jetson_6: FakeJetson, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(jetson_6.trt.Runtime, "__init__", broken)
    with pytest.raises(EngineError, match=r"cannot load the engine that it has just built: .*nullptr"):
        jetson_6.build()


def test_a_build_whose_engine_does_not_load_leaves_no_device_open(
    jetson_6: FakeJetson, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise EngineError("TensorRT cannot make room for the engine")

    monkeypatch.setattr("kenpin.edge_runtime.engine_trt.TrtEngine._load", refuse)
    with pytest.raises(EngineError, match="make room"):
        jetson_6.build()
    assert fake_device.opened == []


def test_timings_that_tensorrt_does_not_keep_are_no_reason_to_have_no_engine(jetson_6: FakeJetson) -> None:
    jetson_6.trt.takes_timings = False
    jetson_6.build()
    assert not list(jetson_6.workshop.folder.engines.glob("timings-*.cache"))


def test_progress_that_cannot_be_told_does_not_end_the_build(
    jetson_6: FakeJetson, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError("the terminal went away")

    monkeypatch.setattr("kenpin.export.build_progress.Bars.show", broken)
    jetson_6.build()


def test_every_step_of_a_build_can_be_read_while_it_runs(
    jetson: FakeJetson, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kenpin.build_log._LEAST_S", 0.0)
    jetson.build()
    steps = [BuildStep.model_validate(step) for step in jetson.build_steps()]
    assert [step.state for step in steps[:-1]] == ["BUILDING"] * (len(steps) - 1)
    assert steps[-1].state == "DONE"
    assert {step.key for step in steps} == {jetson.engine.name}
    phases = [(step.phase, step.share) for step in steps]
    assert ("Timing", pytest.approx(2 / 3)) in phases
    assert ("Building Engine", 0.5) in phases
    assert ("golden frames", 0.0) in phases


def test_only_one_line_per_second_is_written(jetson_6: FakeJetson) -> None:
    jetson_6.build()
    assert len(jetson_6.build_steps()) == 3  # began, the first step, done


@pytest.mark.parametrize(
    "text", ["", "nonsense", "[]", "{}", '{"Layers": 3}', '{"Layers": ["conv1", "conv2"]}', "[" * 10**5]
)
def test_an_inspector_that_cannot_be_read_gives_no_layers(text: str) -> None:
    assert read_layers(text) == Layers()


def told_layer(name: str, kind: str, first_input: str, nodes: str = "") -> dict[str, Any]:
    """A layer as TensorRT 10 tells it; `nodes` are the ONNX nodes that it was made of."""
    metadata = "\x1e".join(f"[ONNX Layer: {node}]" for node in nodes.split())
    inputs = [{"Name": "x", "Dimensions": [1, 3, 8, 8], "Format/Datatype": first_input}]
    return {"Name": name, "LayerType": kind, "Inputs": inputs, "Outputs": [], "Metadata": metadata}


def test_uint8_is_not_int8() -> None:
    layers = [told_layer("cast", "kgen", "Row major UInt8"), told_layer("conv1", "CaskConvolution", "Int8")]
    assert read_layers(json.dumps({"Layers": layers})).int8 == ("conv1",)


def test_layers_that_tensorrts_own_compiler_made_have_the_names_of_the_model() -> None:
    """The forms are those of NVIDIA/TensorRT#4397, and of its trt-engine-explorer for the separators."""
    layers = [
        told_layer("__myl_ConvRelu_myl0_1", "fusion", "Int8", "w.conv1.weight_dq encoder.conv1 node_relu"),
        told_layer("__myl_Conv_myl0_2", "correlation", "Float", "encoder.layer2.0.downsample.0"),
        told_layer("__myl_Dequ_myl0_3", "kgen", "Int8", "w.layer3.0.conv1.weight_dq"),
        told_layer("__myl_MaxPool_myl0_4", "kgen", "Float"),
        told_layer("w.conv2.weight_dq\x1eencoder.conv2", "CaskConvolution", "Float"),
        told_layer("w.conv2.weight_q", "Scale", "Float"),
    ]
    found = read_layers(json.dumps({"Layers": layers}))
    assert found.total == len(layers)
    assert found.int8 == ("w.conv1.weight_dq + encoder.conv1 + node_relu", "w.layer3.0.conv1.weight_dq")
    assert found.float_convolutions == ("encoder.layer2.0.downsample.0", "w.conv2.weight_dq + encoder.conv2")


def test_separators_that_stand_as_they_are_are_read() -> None:
    text = json.dumps({"Layers": [told_layer("encoder.conv1", "CaskConvolution", "Int8", "a b")]})
    assert read_layers(text.replace("\\u001e", "\x1e")).int8 == ("encoder.conv1",)


def test_that_no_convolution_is_seen_does_not_tell_that_all_run_in_int8() -> None:
    layers = [told_layer("__myl_A_myl0_1", "kgen", "Float"), told_layer("__myl_B_myl0_2", "fusion", "Int8")]
    assert read_layers(json.dumps({"Layers": layers})) == Layers()


def test_the_fake_knows_only_names_of_its_version() -> None:
    old, new = make_tensorrt("10.3.0"), make_tensorrt("11.4.0.106")
    with pytest.raises(AttributeError, match="INT8"):
        new.BuilderFlag.INT8  # noqa: B018
    assert old.BuilderFlag.INT8 is not None
    with pytest.raises(
        AttributeError, match=r"IBuilderConfig of TensorRT 10\.3\.0 has no attribute 'build_route'"
    ):
        Config(old).build_route = 1
    Config(new).build_route = 1
    with pytest.raises(AttributeError, match="no attribute 'create_nothing'"):
        old.create_nothing  # noqa: B018


def test_a_call_that_only_one_version_has_fails_the_build(
    jetson: FakeJetson, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = build_engine._configure

    def only_in_11_4(trt: Any, builder: Any, order: Any, monitor: Any) -> Any:
        config = real(trt, builder, order, monitor)
        config.build_route = 1
        return config

    monkeypatch.setattr(build_engine, "_configure", only_in_11_4)
    if jetson.trt.__version__.startswith("11.4"):
        jetson.build()
    else:
        with pytest.raises(EngineError, match="no attribute 'build_route'"):
            jetson.build()
