"""`--init FILE`: a user's own resnet18 as the start, and files that are none."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from kenpin.errors import ConfigError
from kenpin.train.encoder import BasicBlock, Encoder
from kenpin.train.init import load_initial_weights, width_of

State = dict[str, Tensor]
WIDTH = 8


class ReferenceResnet18(Encoder):
    """A whole resnet18 under torchvision's names, with random weights and statistics; it takes RGB."""

    def __init__(self) -> None:
        super().__init__(WIDTH)
        self.layer4 = nn.Sequential(BasicBlock(4 * WIDTH, 8 * WIDTH, 2), BasicBlock(8 * WIDTH, 8 * WIDTH, 1))
        self.fc = nn.Linear(8 * WIDTH, 10)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                for values in (module.weight.data, module.running_var):
                    assert values is not None
                    values.uniform_(0.5, 1.5)


@pytest.fixture
def reference() -> ReferenceResnet18:
    torch.manual_seed(0)
    return ReferenceResnet18().eval()


def as_state_dict(state: State, path: Path) -> None:
    torch.save(state, path)


def as_safetensors(state: State, path: Path) -> None:
    save_file(state, path)


def wrapped(state: State, path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, path)


def twice_wrapped(state: State, path: Path) -> None:
    torch.save({f"module.encoder.{k}": v for k, v in state.items()}, path)


def without_counters(state: State, path: Path) -> None:
    torch.save({k: v for k, v in state.items() if "num_batches" not in k}, path)


@pytest.mark.parametrize("save", [as_state_dict, as_safetensors, wrapped, twice_wrapped, without_counters])
def test_bgr_pictures_give_the_features_that_the_reference_gives_on_rgb(
    reference: ReferenceResnet18, tmp_path: Path, save: Callable[[State, Path], None]
) -> None:
    path = tmp_path / "resnet18.bin"
    save(reference.state_dict(), path)
    assert width_of(path) == WIDTH
    encoder = Encoder(width_of(path)).eval()
    load_initial_weights(encoder, path)
    rgb = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        # In double precision, because the order of the channels changes what a sum is rounded to.
        expected = reference.double()(rgb)
        got = encoder.double()(rgb.flip(1))
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def refused(path: Path) -> ConfigError:
    """Load a file that must be refused, and see that the encoder stays as it was."""
    encoder = Encoder(WIDTH)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    with pytest.raises(ConfigError) as caught:
        load_initial_weights(encoder, path)
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    assert caught.value.exit_code == 2
    assert caught.value.where == str(path)
    assert caught.value.cure
    return caught.value


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    assert "cannot read the initial weights: No such file" in refused(tmp_path / "none.pth").what
    assert "cannot read the initial weights: Is a directory" in refused(tmp_path).what
    with pytest.raises(ConfigError, match="No such file"):
        width_of(tmp_path / "none.pth")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not weights at all" * 9,
        b"PK\x03\x04" + bytes(range(256)),
        b"\x80\x02" + bytes(range(256)),
        pickle.dumps([1, 2], protocol=2),
        pickle.dumps([1, 2], protocol=4),
    ],
    ids=["empty", "text", "cut zip", "cut pickle", "a list", "a list that torch warns of"],
)
def test_a_file_that_holds_no_weights_is_refused_once(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(data)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert "holds no weights" in refused(tmp_path / "w.pth").what
    assert told == []


def test_a_tensor_alone_is_not_weights(tmp_path: Path) -> None:
    torch.save(torch.zeros(8, 3, 7, 7), tmp_path / "w.pth")
    assert "holds no weights" in refused(tmp_path / "w.pth").what


class Attack:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("with_torch", [False, True])
def test_code_in_a_file_does_not_run(tmp_path: Path, *, with_torch: bool) -> None:
    path, trace = tmp_path / "w.pth", tmp_path / "trace"
    if with_torch:
        torch.save({"conv1.weight": Attack(trace)}, path)
    else:
        path.write_bytes(pickle.dumps(Attack(trace)))
    error = refused(path)
    assert not trace.exists()
    assert "without running code" in error.what
    assert "state_dict" in error.cure


def test_missing_weights_are_named(reference: ReferenceResnet18, tmp_path: Path) -> None:
    kept = {k: v for k, v in reference.state_dict().items() if not k.startswith("layer2.1.")}
    torch.save(kept, tmp_path / "w.pth")
    error = refused(tmp_path / "w.pth")
    assert "lack: layer2.1.conv1.weight, layer2.1.bn1.weight, layer2.1.bn1.bias, …" in error.what
    assert "torchvision's names" in error.cure


def test_weights_under_other_names_are_missing(reference: ReferenceResnet18, tmp_path: Path) -> None:
    torch.save({f"trunk.{k}": v for k, v in reference.state_dict().items()}, tmp_path / "w.pth")
    assert "lack: conv1.weight" in refused(tmp_path / "w.pth").what
    with pytest.raises(ConfigError, match=r"lack: conv1\.weight\n"):
        width_of(tmp_path / "w.pth")


def test_weights_that_are_integers_are_missing(reference: ReferenceResnet18, tmp_path: Path) -> None:
    torch.save({k: v.to(torch.int8) for k, v in reference.state_dict().items()}, tmp_path / "w.pth")
    error = refused(tmp_path / "w.pth")
    assert "lack" in error.what
    assert "floating-point" in error.cure


def test_a_deeper_resnet_is_not_taken_for_a_resnet18(reference: ReferenceResnet18, tmp_path: Path) -> None:
    state = reference.state_dict()
    more = {k.replace("layer3.1", "layer3.2"): v for k, v in state.items() if k.startswith("layer3.1")}
    torch.save(state | more, tmp_path / "w.pth")
    assert "have more than resnet18: layer3.2.conv1.weight" in refused(tmp_path / "w.pth").what


def test_weights_of_another_width_are_refused_with_both_shapes(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(Encoder(16).state_dict(), path)
    error = refused(path)
    assert "conv1.weight has shape (16, 3, 7, 7) in the file, and (8, 3, 7, 7) is expected" in error.what
    assert "train with the width of the file" in error.cure
    assert width_of(path) == 16


@pytest.mark.parametrize("width", [4, 128])
def test_a_width_that_no_encoder_has_is_refused(tmp_path: Path, width: int) -> None:
    torch.save({"conv1.weight": torch.zeros(width, 3, 7, 7)}, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=f"width {width}") as refused:
        width_of(tmp_path / "w.pth")
    assert "64" in refused.value.cure


@pytest.mark.parametrize("shape", [(8, 1, 7, 7), (8, 3, 3, 3), (8,), ()])
def test_a_first_layer_for_other_pictures_has_no_width(tmp_path: Path, shape: tuple[int, ...]) -> None:
    torch.save({"conv1.weight": torch.zeros(shape)}, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"conv1\.weight has shape"):
        width_of(tmp_path / "w.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(
    reference: ReferenceResnet18, tmp_path: Path, value: float
) -> None:
    state = reference.state_dict()
    state["layer3.1.bn2.running_var"][3] = value
    torch.save(state, tmp_path / "w.pth")
    assert "layer3.1.bn2.running_var has values that are not finite" in refused(tmp_path / "w.pth").what
