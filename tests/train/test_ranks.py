from __future__ import annotations

import copy
import os
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import ProcessRaisedException, spawn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parameters_to_vector

from kenpin.train import ranks
from kenpin.train.losses import defect_contrast

TIMEOUT_S = 120.0


def on_two_ranks(work: Callable[[], None], folder: Path) -> None:
    """Run `work` in two processes that train together. Fails with the trace of the one that fails, or hangs."""
    context = spawn(  # type: ignore[no-untyped-call]
        _rank, (work, folder / "rendezvous"), nprocs=2, join=False
    )
    deadline = time.monotonic() + TIMEOUT_S
    try:
        while not context.join(timeout=1):
            assert time.monotonic() < deadline, "the ranks hang"
    finally:
        for process in context.processes:
            process.kill()
            process.join()
        for file in context.error_files:
            Path(file).unlink(missing_ok=True)


def _rank(number: int, work: Callable[[], None], rendezvous: Path) -> None:
    warnings.simplefilter("error")
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=rendezvous.as_uri(),
        rank=number,
        world_size=2,
        timeout=timedelta(seconds=TIMEOUT_S / 2),
    )
    work()
    distributed.destroy_process_group()
    os._exit(0)  # a thread of gloo that is left may abort the process while the interpreter ends


def own(joined: Tensor, lengths: list[int]) -> Tensor:
    """The rows of this rank."""
    return torch.split(joined, lengths)[ranks.rank()].clone()


def close(actual: Tensor | None, expected: Tensor | None) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-9, rtol=1e-9)


def test_one_process_is_left_alone() -> None:
    x = torch.randn(3, 2, requires_grad=True)
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert (ranks.rank(), ranks.world()) == (0, 1)
    assert ranks.gather(x) is x
    assert ranks.total(x).tolist() == x.tolist()
    assert not ranks.total(x).requires_grad
    assert ranks.synchronise_norms(net) is net
    assert type(net[1]) is nn.BatchNorm1d
    synced, plain = ranks.SyncedBatchNorm1d(2), nn.BatchNorm1d(2)
    close(synced(x), plain(x))
    close(synced.running_var, plain.running_var)


def test_gather_joins_rows_and_returns_the_gradients_of_all_losses(tmp_path: Path) -> None:
    on_two_ranks(gathers, tmp_path)


def test_a_mean_is_that_of_the_joined_batch_whatever_its_weights_sum_to(tmp_path: Path) -> None:
    on_two_ranks(mean_of_all_ranks, tmp_path)


def gathers() -> None:
    assert ranks.world() == 2
    layouts_may_differ()
    for lengths in ([2, 2], [2, 5], [0, 3], [4, 0], [0, 0]):
        torch.manual_seed(0)
        joined, weights = torch.randn(sum(lengths), 3), torch.randn(2, sum(lengths), 3)
        x = own(joined, lengths).requires_grad_()
        got = ranks.gather(x)
        close(got, joined)
        (got * weights[ranks.rank()]).sum().backward()  # type: ignore[no-untyped-call]
        close(x.grad, own(weights.sum(0), lengths))
        for dtype in (torch.int64, torch.bool):
            assert torch.equal(ranks.gather(own(joined.to(dtype), lengths)), joined.to(dtype))
        assert ranks.gather(own(joined[:, 0], lengths)).shape == (sum(lengths),)


def mean_of_all_ranks() -> None:
    torch.manual_seed(0)
    for lengths in ([4, 4], [2, 5], [0, 3], [1, 1]):
        for weights in torch.rand(2, sum(lengths), dtype=torch.float64) * torch.tensor([[1.0], [0.01]]):
            values = torch.randn(sum(lengths), dtype=torch.float64)
            x = own(values, lengths).requires_grad_()
            mean = ranks.joined_mean(x, own(weights, lengths))
            mean.backward()  # type: ignore[no-untyped-call]
            close(ranks.total(mean) / ranks.world(), (values * weights).sum() / weights.sum())
            # DistributedDataParallel divides by the number of ranks.
            close(x.grad, own(weights / weights.sum() * ranks.world(), lengths))
    x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    ranks.joined_mean(x, torch.zeros(3)).backward()  # type: ignore[no-untyped-call]
    close(x.grad, torch.zeros_like(x))


def layouts_may_differ() -> None:
    first = ranks.rank() == 0
    counts = torch.tensor([[1, 2], [3, 4]])
    assert ranks.total(counts if first else counts.T.contiguous().T).tolist() == [[2, 4], [6, 8]]
    joined = torch.arange(48.0).view(4, 3, 2, 2)
    layout = torch.channels_last if first else torch.contiguous_format
    close(ranks.gather(own(joined, [2, 2]).contiguous(memory_format=layout)), joined)


def test_batch_norm_sees_the_joined_batch(tmp_path: Path) -> None:
    on_two_ranks(norms, tmp_path)


def norms() -> None:
    assert ranks.world() == 2
    for momentum in (0.1, None):
        one_like_the_other(nn.BatchNorm2d(3, momentum=momentum), [5, 2], (3, 4, 4))
        one_like_the_other(nn.BatchNorm1d(3, momentum=momentum), [5, 2], (3,))
    one_like_the_other(nn.BatchNorm1d(3), [0, 6], (3,))
    one_like_the_other(nn.BatchNorm1d(3), [1, 1], (3,))
    one_like_the_other(nn.BatchNorm1d(3), [2, 3], (3, 7))
    one_like_the_other(nn.BatchNorm2d(3, affine=False), [1, 2], (3, 4, 4))
    one_like_the_other(nn.BatchNorm2d(3, track_running_stats=False), [1, 2], (3, 4, 4))
    a_single_row_does_not_spoil_the_running_variance()
    large_means_lose_no_digits()
    half_precision_in_and_out_but_not_between()


def one_like_the_other(plain: nn.Module, lengths: list[int], shape: tuple[int, ...]) -> None:
    """Two training batches and one evaluation, synced on the rank's rows and plain on the joined ones."""
    torch.manual_seed(1)
    plain = plain.double()
    for parameter in plain.parameters():
        nn.init.normal_(parameter)
    synced = ranks.synchronise_norms(copy.deepcopy(plain))
    assert type(synced) is not type(plain)
    for _ in range(2):
        joined = (3 * torch.randn(sum(lengths), *shape, dtype=torch.float64) + 2).requires_grad_()
        x = own(joined.detach(), lengths).requires_grad_()
        target = torch.randn_like(joined)
        expected, got = plain(joined), synced(x)
        close(got, own(expected, lengths))
        ((expected - target) ** 2).sum().backward()
        ((got - own(target, lengths)) ** 2).sum().backward()
        assert joined.grad is not None
        close(x.grad, own(joined.grad, lengths))
    for parameter, reference in zip(synced.parameters(), plain.parameters(), strict=True):
        assert parameter.grad is not None
        close(ranks.total(parameter.grad), reference.grad)
    same_state(synced, plain)
    if sum(1 for _ in plain.buffers()):
        close(synced.eval()(x), own(plain.eval()(joined), lengths))


def same_state(module: nn.Module, reference: nn.Module) -> None:
    state, expected = module.state_dict(), reference.state_dict()
    assert list(state) == list(expected)
    for name in state:
        close(state[name], expected[name])


def a_single_row_does_not_spoil_the_running_variance() -> None:
    synced = ranks.synchronise_norms(nn.BatchNorm1d(3))
    synced(own(torch.ones(1, 3), [0, 1]))
    torch.testing.assert_close(synced.running_var, torch.full((3,), 0.9))


def large_means_lose_no_digits() -> None:
    torch.manual_seed(2)
    joined, target = torch.randn(80, 3, 8, 8) + 3000, torch.randn(80, 3, 8, 8)
    exact, x = joined.double().requires_grad_(), own(joined, [30, 50]).requires_grad_()
    expected, got = nn.BatchNorm2d(3).double()(exact), ranks.synchronise_norms(nn.BatchNorm2d(3))(x)
    ((expected - target) ** 3).sum().backward()
    ((got - own(target, [30, 50])) ** 3).sum().backward()
    assert exact.grad is not None
    assert x.grad is not None
    torch.testing.assert_close(got, own(expected.float(), [30, 50]), atol=5e-4, rtol=0)
    assert (x.grad - own(exact.grad, [30, 50])).abs().mean() < 1e-3


def half_precision_in_and_out_but_not_between() -> None:
    torch.manual_seed(2)
    joined, plain = torch.randn(8, 3, 4, 4).bfloat16(), nn.BatchNorm2d(3)
    synced = ranks.synchronise_norms(nn.BatchNorm2d(3))
    expected, got = plain(joined), synced(own(joined, [3, 5]))
    torch.testing.assert_close(got, own(expected, [3, 5]))
    torch.testing.assert_close(synced.running_var, plain.running_var, atol=1e-6, rtol=0)


class Net(nn.Module):
    """A convolution and a projection, both with batch norm, as in the pretraining."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.projection = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, views: Tensor, broken: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Views (3, N, 3, H, W), `broken` (N,) -> anchors (N, D), positives (N, D), defects (M, D)."""
        first, second, changed = self.features(views.flatten(0, 1)).mean((2, 3)).chunk(3)
        rows = torch.cat([first, second, changed[broken]])
        unit = functional.normalize(self.projection(rows), dim=1)
        return unit[: len(first)], unit[len(first) : 2 * len(first)], unit[2 * len(first) :]


def test_a_step_on_two_ranks_is_the_step_on_the_joined_batch(tmp_path: Path) -> None:
    on_two_ranks(steps, tmp_path)


def steps() -> None:
    # The second time no picture of the second rank shows its defect.
    for broken in ([0, 1, 1, 0, 1, 1, 0, 1], [0, 1, 1, 0, 1, 0, 0, 0]):
        step_alike(torch.tensor(broken, dtype=torch.bool), [5, 3])


def step_alike(broken: Tensor, lengths: list[int]) -> None:
    torch.manual_seed(3)
    plain = Net().double()
    synced = DistributedDataParallel(ranks.synchronise_norms(copy.deepcopy(plain)))
    before = parameters_to_vector(plain.parameters()).detach()
    views = torch.randn(3, len(broken), 3, 6, 6, dtype=torch.float64)
    step(plain, joined_loss(plain, views, broken))
    own_views = torch.split(views, lengths, 1)[ranks.rank()]
    step(synced, own_loss(synced, own_views, own(broken, lengths)))
    same_state(synced.module, plain)
    moved = parameters_to_vector(plain.parameters()).detach() - before
    assert moved.abs().max() > 1e-2, "the step is too small to tell anything"


def joined_loss(net: nn.Module, views: Tensor, broken: Tensor) -> Tensor:
    anchors, positives, defects = net(views, broken)
    return defect_contrast(anchors, positives, defects, temperature=0.2).mean()


def own_loss(net: nn.Module, views: Tensor, broken: Tensor) -> Tensor:
    anchors, positives, defects = net(views, broken)
    own_losses = defect_contrast(anchors, positives, ranks.gather(defects), temperature=0.2)
    return own_losses.sum() / ranks.total(torch.tensor(len(anchors))) * ranks.world()


def step(net: nn.Module, loss: Tensor) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def test_a_rank_that_fails_fails_the_test(tmp_path: Path) -> None:
    with pytest.raises(ProcessRaisedException, match="rank 1 gave up"):
        on_two_ranks(give_up, tmp_path)


def give_up() -> None:
    assert ranks.rank() == 0, "rank 1 gave up"
    # Not in a collective: there, it may notice that the other is gone, and fail first.
    time.sleep(TIMEOUT_S)
