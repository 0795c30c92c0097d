"""Several processes that train as one: their loss is that of one process with all their batches joined.

Contrast and batch norm look at the whole batch, so what one process sees of it is not enough: embeddings and
statistics have to be exchanged, and gradients have to find their way back. Everything here is the identity
in a single process. All of it is collective: every rank has to make the same calls in the same order, also
in the backward pass, or the others wait for it.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable

M = TypeVar("M", bound=nn.Module)


def world() -> int:
    """Number of processes that train together, 1 where torch.distributed is not initialised."""
    return distributed.get_world_size() if _distributed() else 1


def rank() -> int:
    """Number of this process, 0..world() - 1."""
    return distributed.get_rank() if _distributed() else 0


def _distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def gather(x: Tensor) -> Tensor:
    """Rows of all ranks, in the order of the ranks.

    The gradient of a row is summed over the losses of all ranks and goes to the rank that owns the row. With
    DistributedDataParallel, which averages the gradients of the ranks, each rank's loss therefore has to be

        sum over its own anchors / total(number of its own anchors) * world()

    Then the averaged gradient is that of the mean over the joined batch. A mean over local anchors would be
    wrong as soon as ranks differ in their number.

    Args:
        x: Rows of this rank (N_r, ...) on the device of the process group. N_r may differ between ranks and
            be 0, all else may not. Where a gradient is wanted, every rank has to ask for it and to use the
            result in its loss: a rank without rows passes an empty part of its graph, not a new tensor.

    Returns:
        (sum of N_r, ...)
    """
    if world() == 1:
        return x
    lengths = _all_gather(torch.tensor([len(x)], device=x.device)).flatten().tolist()
    # Collectives want equal shapes.
    padding = x.new_zeros(max(lengths) - len(x), *x.shape[1:])
    padded = _all_gather(torch.cat([x, padding]))
    return torch.cat([rows[:length] for rows, length in zip(padded, lengths, strict=True)])


def total(x: Tensor) -> Tensor:
    """Sum over the ranks, without gradient: for counts. Any shape, the same on each rank."""
    if world() == 1:
        return x.detach()
    summed = x.detach().clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(summed)
    return summed


def joined_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over the joined batch, normalised as `gather` asks for.

    Args:
        values: Of this rank, any shape.
        weights: The same shape, 0 or more, no gradient. Where all of them are 0, on every rank, so is the mean.
    """
    whole = total(weights.sum())
    # Not clamped at 1: weights need not be counts, and with fewer than 1 in all, that would be no mean.
    return (values * weights).sum() / whole.where(whole > 0, 1) * world()


class _AllGather(torch.autograd.Function):
    """Equal shapes (...) of all ranks -> (world, ...). torch.distributed.nn has it, but deprecated."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        parts = [torch.empty_like(x) for _ in range(world())]
        distributed.all_gather(parts, x)
        return torch.stack(parts)

    @staticmethod
    @once_differentiable
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        return total(gradients[0])[rank()]


def _all_gather(x: Tensor) -> Tensor:
    gathered: Tensor = _AllGather.apply(x)  # type: ignore[no-untyped-call]
    return gathered


class SyncedBatchNorm1d(nn.BatchNorm1d):
    """BatchNorm1d over the joined batch of all ranks, for (N_r, C) or (N_r, C, L); N_r may be 0 on some ranks.

    torch.nn.SyncBatchNorm is not used because it refuses tensors on a CPU.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Plain BatchNorm1d in evaluation and in a single process."""
        return _normalised(self, input) if self.training and world() > 1 else super().forward(input)


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d over the joined batch of all ranks, for (N_r, C, H, W)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Plain BatchNorm2d in evaluation and in a single process."""
        return _normalised(self, input) if self.training and world() > 1 else super().forward(input)


def synchronise_norms(module: M) -> M:
    """Let each BatchNorm1d and BatchNorm2d of a module see the joined batch; does nothing in one process.

    Args:
        module: Changed in place. Parameters, buffers and the names of the state dict stay.

    Returns:
        The same module.
    """
    for part in module.modules() if world() > 1 else ():
        # Only the class differs, and whoever holds the norm (its parent, a hook) keeps it.
        if type(part) is nn.BatchNorm1d:
            part.__class__ = SyncedBatchNorm1d
        elif type(part) is nn.BatchNorm2d:
            part.__class__ = SyncedBatchNorm2d
    return module


def _normalised(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Batch norm (Ioffe and Szegedy 2015) with the joined statistics; x (N_r, C, ...)."""
    # Half precision is too coarse for statistics.
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    count, mean, variance = _statistics(wide)
    if norm.track_running_stats:
        _track(norm, mean, variance * count / (count - 1).clamp(min=1))
    shape = (1, -1, *[1] * (x.ndim - 2))
    # Not x * scale + shift: where the mean is large, that costs the gradient a digit.
    result = (wide - mean.view(shape)) * torch.rsqrt(variance + norm.eps).view(shape)
    if norm.affine:
        result = torch.addcmul(norm.bias.view(shape), result, norm.weight.view(shape))
    return result.to(x.dtype)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count (1,), mean (C,) and biased variance (C,) of the joined batch.

    Counts, means and variances of the ranks are combined as in Chan, Golub and LeVeque 1979: unlike the sum of
    squares, this loses no digits where the mean is large.
    """
    others = [0, *range(2, x.ndim)]
    if len(x):
        variance, mean = torch.var_mean(x, others, correction=0)
    else:
        # Zeros that hang on the graph: this rank, too, has to take part in the backward pass.
        mean = variance = x.sum(others)
    own = torch.cat([mean.new_full((1,), x[:, 0].numel()), mean, variance])
    counts, means, variances = torch.split(_all_gather(own), [1, len(mean), len(mean)], 1)
    count = counts.sum(0)
    joined = (counts * means).sum(0) / count
    return count, joined, (counts * (variances + (means - joined) ** 2)).sum(0) / count


@torch.no_grad()
def _track(norm: nn.BatchNorm1d | nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics towards mean and unbiased variance (C,), as torch's batch norm does."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked += 1
    weight = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean), weight)
    norm.running_var.lerp_(variance.to(norm.running_var), weight)
