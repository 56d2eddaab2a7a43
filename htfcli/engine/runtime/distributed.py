"""Training by several processes (torchrun) as if by one: shards of batches, gradients and batch statistics summed.

Two things make the result that of one process with the whole batch: batch normalization takes its statistics over all
shards, by sums whose gradients are sums too (torch's SyncBatchNorm is for CUDA only and not twice differentiable), and
gradients are summed once after the backward pass (DistributedDataParallel cannot do gradients of gradients).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from htfcli.errors import Interrupted


@dataclass(frozen=True)
class Workers:
    """The processes that train together, seen from one of them; one by default.

    Args:
        rank: of this process, from 0. count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and talks."""
        return self.rank == 0

    def shard(self, rows: Tensor) -> Tensor:
        """This process's part of (b,) rows; parts differ by one row at most."""
        return rows.tensor_split(self.count)[self.rank]

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over processes of a tensor of any shape, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def agreed(self, tensor: Tensor) -> Tensor:
        """The tensor, of any shape, of the first process, in place."""
        if self.count > 1:
            dist.broadcast(tensor, 0)
        return tensor

    def gathered(self, part: Tensor) -> Tensor:
        """The (b,) numbers of which every process has its `shard`."""
        if self.count == 1:
            return part
        sizes = torch.zeros(self.count, dtype=torch.int64, device=part.device)
        sizes[self.rank] = len(part)
        whole = [part.new_zeros(int(size)) for size in self.sum(sizes).tolist()]
        whole[self.rank].copy_(part)
        return self.sum(torch.cat(whole))

    def largest(self, number: float) -> float:
        """The largest of the numbers that the processes have."""
        if self.count == 1:
            return number
        numbers = torch.zeros(self.count, dtype=torch.float64)
        numbers[self.rank] = number
        return float(self.sum(numbers).max())

    def heard(self, text: str) -> str:
        """What the first process with something to say says, in all of them."""
        if self.count == 1:
            return text
        letters = torch.zeros(self.count, 1024, dtype=torch.int64)
        own = text.encode()[: letters.shape[1]]
        letters[self.rank, : len(own)] = torch.tensor(list(own), dtype=torch.int64)
        words = [bytes(row).rstrip(b"\0").decode(errors="replace") for row in self.sum(letters).tolist()]
        return next(filter(None, words), "")

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return flag if self.count == 1 else bool(self.sum(torch.tensor(int(flag))))

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradients by their sums over processes, in one message."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.count > 1 and gradients:
            flat = self.sum(torch.cat([g.flatten() for g in gradients]))
            ends = accumulate(g.numel() for g in gradients)
            for gradient, end in zip(gradients, ends, strict=True):
                gradient.copy_(flat[end - gradient.numel() : end].view_as(gradient))


_team: ContextVar[Workers] = ContextVar("team", default=Workers())  # noqa: B039 -- frozen


def team() -> Workers:
    """The processes that share the work at this point of the program: those of the `workers` block around it."""
    return _team.get()


@contextmanager
def workers() -> Iterator[Workers]:
    """The processes that torchrun started, connected while the block runs; one process without torchrun."""
    if not dist.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield Workers()
        return
    # Flags travel on the CPU, gradients where they are
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    dist.init_process_group(backend)
    team = Workers(dist.get_rank(), dist.get_world_size())
    before = _team.set(team)
    try:
        yield team
        _leave(team)
    except Interrupted:
        _leave(team)
        raise
    finally:
        _team.reset(before)
        dist.destroy_process_group()


def _leave(team: Workers) -> None:
    """Wait until every process is through with its last message: one that ends early breaks those of the others."""
    token = torch.zeros(1)
    if team.first:
        for act in (dist.recv, dist.send):
            for rank in range(1, team.count):
                act(token, rank)
        return
    dist.send(token, 0)
    with suppress(RuntimeError):  # the first process has gone, which says the same
        dist.recv(token, 0)


class _Sum(torch.autograd.Function):
    """The sum over processes; its gradient is the same sum of gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return sum_over_processes(gradient.contiguous())


def sum_over_processes(tensor: Tensor) -> Tensor:
    """The sum of a tensor of any shape, differentiable any number of times."""
    total: Tensor = _Sum.apply(tensor)  # type: ignore[no-untyped-call]
    return total


class _OverProcesses(nn.modules.batchnorm._BatchNorm):
    """Batch normalization whose batch is that of all processes."""

    def mean_over_batch(self, x: Tensor) -> Tensor:
        """Mean over samples and positions of all processes, (1, c, 1, ...) for x (b, c, ...)."""
        return self._mean_and_count(x)[0]

    def _mean_and_count(self, x: Tensor) -> tuple[Tensor, Tensor]:
        sums = x.sum([0, *range(2, x.dim())])
        total = sum_over_processes(torch.cat([sums, sums.new_tensor([x.numel() / x.shape[1]])]))
        return (total[:-1] / total[-1]).view(1, -1, *[1] * (x.dim() - 2)), total[-1]

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and self.running_mean is not None:
            return super().forward(x)
        precise = x.to(torch.promote_types(x.dtype, torch.float32))  # under autocast too
        mean, count = self._mean_and_count(precise)
        centred = precise - mean
        variance = self.mean_over_batch(centred.square())
        if self.training and self.track_running_stats:
            self._update(mean.flatten(), (variance * count / (count - 1)).flatten())
        value = centred * (variance + self.eps).rsqrt()
        if self.affine:
            value = value * self.weight.view_as(mean) + self.bias.view_as(mean)
        return value.to(x.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), rate)
        self.running_var.lerp_(variance.to(self.running_var), rate)


class _OverProcesses1d(_OverProcesses, nn.BatchNorm1d):
    pass


class _OverProcesses2d(_OverProcesses, nn.BatchNorm2d):
    pass


class _OverProcesses3d(_OverProcesses, nn.BatchNorm3d):
    pass


_KINDS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _OverProcesses1d,
    nn.BatchNorm2d: _OverProcesses2d,
    nn.BatchNorm3d: _OverProcesses3d,
}


def synchronize_batch_norms(model: nn.Module) -> None:
    """Make every batch normalization of a network one over all processes; parameters and names stay."""
    for module in model.modules():
        if type(module) in _KINDS:
            module.__class__ = _KINDS[type(module)]
