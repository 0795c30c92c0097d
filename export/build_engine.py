"""From a verified ONNX model to a TensorRT engine, on the station: an engine fits one GPU and one TensorRT.

One code base for TensorRT 10.3 to 11.4: the network is strongly typed, so the types stand in the model
(explicit Q/DQ), and no precision flag is set. Nothing here needs torch or onnx.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kenpin.engine_passport import Layers
from kenpin.engine_store import mac
from kenpin.errors import EngineError
from kenpin.export.build_progress import Listener, ctrl_c_waits, make_monitor
from kenpin.export.model_header import check_header
from kenpin.synced_file import replace_synced
from kenpin.tensorrt_seam import Tensor, check_tensors, failure, load_tensorrt, plain_errors, shared_log

_NO_COMPUTING = ("Reformat", "NoOp", "Constant")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_SEPARATOR = re.compile(r"[\x1e\x1f]")
_MAC_CHARS = 64
_CURE = (
    "if it speaks of memory, stop other programs and try again with less --workspace-mb; if it names a node, "
    "export again with --weights fp32qdq, then with --precision fp32; else report it with the versions"
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildOrder:
    """What to build.

    Attributes:
        model: The ONNX file, verified.
        workspace_mb: Most memory that a layer may use beside its tensors, MiB.
        cache: File of the timings that TensorRT measured before; it may be missing.
        key: The station's secret, by which it knows that file.
        listen: Is told how far it is.
    """

    model: bytes
    workspace_mb: int
    cache: Path
    key: bytes
    listen: Listener


@dataclass(frozen=True)
class Built:
    """What came of it.

    Attributes:
        plan: The engine.
        layers: Which layers really run in INT8.
        build_s: How long TensorRT took.
    """

    plan: bytes
    layers: Layers
    build_s: float


def build_plan(order: BuildOrder) -> Built:
    """Build an engine.

    The caller has found a CUDA device and made it current: without a driver TensorRT crashes the process.

    Raises:
        EngineError: TensorRT is missing or too old, does not take the model, or cannot build it.
        KeyboardInterrupt: Ctrl-C ended the build.
    """
    check_header(order.model)
    trt = load_tensorrt()
    log = shared_log(trt)
    with ctrl_c_waits() as cancelled, plain_errors(log, "build the engine"):
        builder = trt.Builder(log)
        monitor = make_monitor(trt, order.listen, cancelled)
        with _network(trt, log, builder, order.model) as network:
            config = _configure(trt, builder, order, monitor)
            log.forget()  # timings that it refused are no reason for what may follow
            started_s = time.monotonic()
            memory = builder.build_serialized_network(network, config)
            build_s = time.monotonic() - started_s
        if memory is None:
            raise failure(log, "build the engine", cure=_CURE)
        plan = bytes(memory)
        _keep_timings(order, config)
    with plain_errors(log, "load the engine that it has just built"):
        return Built(plan, _inspect(trt, log, plan), round(build_s, 3))


@contextmanager
def _network(trt: Any, log: Any, builder: Any, model: bytes) -> Iterator[Any]:
    """The network of a model. The parser lives as long, because the network's weights lie in its memory."""
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        raise _parser_error([parser.get_error(number) for number in range(parser.num_errors)], log)
    inputs = [_tensor(network.get_input(number), True) for number in range(network.num_inputs)]
    outputs = [_tensor(network.get_output(number), False) for number in range(network.num_outputs)]
    check_tensors(inputs + outputs)
    yield network
    del parser


def _tensor(tensor: Any, is_input: bool) -> Tensor:
    return Tensor(tensor.name, tensor.dtype.name, tuple(tensor.shape), is_input)


def _parser_error(errors: list[Any], log: Any) -> EngineError:
    if not errors:
        return failure(log, "read the model")
    places = []
    for error in errors[:5]:
        node, operator = error.node_name() or f"number {error.node()}", error.node_operator() or "?"
        places.append(f"node {node} ({operator}): {' '.join(error.desc().split())[:200]}")
    more = f"; and {len(errors) - 5} more" if len(errors) > 5 else ""
    return EngineError(
        "TensorRT does not take the model: " + "; ".join(places) + more,
        cure="export the bundle again with this version of kenpin; if it stays, export with --weights fp32qdq, "
        "then with --precision fp32",
    )


def _configure(trt: Any, builder: Any, order: BuildOrder, monitor: Any) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, order.workspace_mb << 20)
    # What stayed float did so for its digits: TF32 keeps ten bits of them.
    config.clear_flag(trt.BuilderFlag.TF32)
    # Otherwise the inspector cannot say which layers run in INT8.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.progress_monitor = monitor
    for timings in (_earlier_timings(order), b""):
        cache = config.create_timing_cache(timings)
        if cache is not None and config.set_timing_cache(cache, False):
            break  # TensorRT refuses timings of another version or GPU
    return config


def _earlier_timings(order: BuildOrder) -> bytes:
    """Timings of an earlier build, if this station wrote them: TensorRT trusts them as it trusts an engine."""
    try:
        data = order.cache.read_bytes()
    except OSError:
        return b""
    timings = data[_MAC_CHARS:]
    return timings if data[:_MAC_CHARS] == mac(order.key, timings).encode() else b""


def _keep_timings(order: BuildOrder, config: Any) -> None:
    """They make the next build shorter. That they cannot be kept is no reason to have no engine."""
    cache = config.get_timing_cache()
    if cache is None:
        return  # TensorRT took none
    timings = bytes(cache.serialize())
    try:
        order.cache.parent.mkdir(parents=True, exist_ok=True)
        replace_synced(order.cache, mac(order.key, timings).encode() + timings)
    except OSError as error:
        _log.warning("The timings cannot be kept, so the next build takes as long: %s", error.strerror)


def _inspect(trt: Any, log: Any, plan: bytes) -> Layers:
    """Ask TensorRT what it built. An answer that cannot be read gives no layers, never an error."""
    runtime = trt.Runtime(log)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise failure(log, "load the engine that it has just built")
    inspector = engine.create_engine_inspector()
    return read_layers(str(inspector.get_engine_information(trt.LayerInformationFormat.JSON)))


def read_layers(text: str) -> Layers:
    """Which layers run in INT8, from the inspector's JSON.

    TensorRT 10 writes `Format/Datatype` of a tensor in one string, TensorRT 11 a `DataType` of its own. Layers
    are only names where the engine was built without detail.

    Args:
        text: What the inspector returned.

    Returns:
        No layers also where none is seen to be a convolution: each model has some, so what it says is not
        understood, and that all of them run in INT8 must not be told.
    """
    try:
        # Separators stood in it as they are: NVIDIA/TensorRT#2779.
        told = json.loads(text, strict=False)["Layers"]
        layers = [layer for layer in told if isinstance(layer, dict)]
    except (ValueError, KeyError, TypeError, RecursionError):
        return Layers()
    computing = [layer for layer in layers if layer.get("LayerType") not in _NO_COMPUTING]
    convolutions = [layer for layer in computing if _is_convolution(layer)]
    if not convolutions:
        return Layers()
    int8 = [_name(layer) for layer in computing if _takes_int8(layer)]
    others = [_name(layer) for layer in convolutions if not _takes_int8(layer)]
    return Layers(total=len(layers), int8=tuple(int8), float_convolutions=tuple(others))


def _name(layer: dict[str, Any]) -> str:
    """Its name; of what Myelin, the compiler inside, made, the ONNX nodes that it was made of."""
    name = str(layer.get("Name", "?"))
    nodes = _NODE.findall(str(layer.get("Metadata", ""))) if name.startswith("__myl") else []
    return _SEPARATOR.sub(" + ", " + ".join(dict.fromkeys(nodes)) or name)


def _is_convolution(layer: dict[str, Any]) -> bool:
    kind = str(layer.get("LayerType")).lower()
    # A node that only stores or quantises a weight has the name of its convolution, too.
    nodes = [node for node in _name(layer).lower().split(" + ") if not node.endswith(("_q", "_dq"))]
    return "conv" in kind or kind == "correlation" or any("conv" in node for node in nodes)


def _takes_int8(layer: dict[str, Any]) -> bool:
    inputs = layer.get("Inputs")
    first = inputs[0] if isinstance(inputs, list) and inputs else None
    if not isinstance(first, dict):
        return False
    told = [value for key, value in first.items() if key.lower().replace("/", "").endswith("datatype")]
    return any("int8" in str(value).lower() and "uint8" not in str(value).lower() for value in told)
