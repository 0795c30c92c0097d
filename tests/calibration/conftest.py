"""A bundle with a tiny model whose score is the mean brightness, so that pictures have known scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx import TensorProto, helper

from kenpin.bundle import CARD, MODEL, MODEL_FP, install_bundle, open_bundle, write_bundle
from kenpin.signing import SecretKey
from kenpin.station_folder import StationFolder
from tests import specimens

SIDE = 16


def brightness_model() -> bytes:
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["score"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["score", "last"], ["column"]),
        helper.make_node("Concat", ["column", "column", "column"], ["level_scores"], axis=1),
        helper.make_node("ReduceMean", ["pixels"], ["anomaly_map"], axes=[3], keepdims=0),
    ]
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, [1, SIDE, SIDE, 3])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("score", [1]), ("level_scores", [1, 3]), ("anomaly_map", [1, SIDE, SIDE]))
    ]
    last = helper.make_tensor("last", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "brightness", [frames], outputs, [last])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="session")
def write_grey() -> Callable[[Path, int], None]:
    def write(path: Path, brightness: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((SIDE, SIDE, 3), brightness, np.uint8))

    return write


@pytest.fixture(scope="session")
def signer() -> SecretKey:
    return SecretKey.generate()


@pytest.fixture
def trusted(tmp_path: Path, signer: SecretKey) -> Path:
    path = tmp_path / "signer.pub"
    path.write_text(signer.public.dumps())
    return path


@pytest.fixture
def make_bundle(tmp_path: Path, signer: SecretKey) -> Callable[..., Path]:
    def make(version: str, learned_from: tuple[str, ...] = (), product: str = "grey", known: int = 1) -> Path:
        model = brightness_model()
        black = cv2.imencode(".png", np.zeros((SIDE, SIDE, 3), np.uint8))[1].tobytes()
        manifest = specimens.manifest(
            product=product,
            version=version,
            input_shape=(1, SIDE, SIDE, 3),
            golden=[specimens.golden(0.0, (0.0, 0.0, 0.0))],
            golden_tolerance=1e-3,
            score_stats={"mean": 0.0, "std": 1.0, "p99": 0.0, "count": known},
            learned_from=learned_from,
        )
        path = tmp_path / f"{product}-{version}.kenpin"
        files = {MODEL: model, MODEL_FP: model, "golden/0.png": black, CARD: b"grey"}
        write_bundle(path, manifest=manifest, files=files, key=signer)
        return path

    return make


@pytest.fixture
def station(tmp_path: Path, make_bundle: Callable[..., Path], signer: SecretKey) -> StationFolder:
    folder = StationFolder(tmp_path / "station")
    folder.create()
    bundle = open_bundle(make_bundle("1"), [signer.public])
    folder.activate(install_bundle(bundle, folder.bundles))
    return folder
