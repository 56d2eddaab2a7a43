"""Processes that share the work of one run (torchrun), with the result of one process.

Whoever needs the other processes takes a `Workers` argument. Each process computes on its shard of the data; sums go
over all shards. Gradients are summed once, after the backward pass, because DistributedDataParallel does not support
gradients of gradients; batch statistics are summed by `vision.shared_batch_norm`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.distributed as dist
from torch import Tensor, nn

from htfcli.errors import Interrupted


@dataclass(frozen=True)
class Workers:
    """The processes of a run, as one of them sees them; a single process by default.

    Args:
        rank: number of this process, from 0. count: number of processes.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is process 0, the only one that writes files and messages."""
        return self.rank == 0

    def shard(self, rows: Tensor) -> Tensor:
        """This process's part of (b, ...) rows; parts differ in length by at most one row."""
        return rows.tensor_split(self.count)[self.rank]

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor of any shape over all processes, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def agreed(self, tensor: Tensor) -> Tensor:
        """Replace a tensor of any shape by that of process 0, in place."""
        if self.count > 1:
            dist.broadcast(tensor, 0)
        return tensor

    def gathered(self, part: Tensor) -> Tensor:
        """The whole (b,) tensor, of which every process passes its `shard`."""
        if self.count == 1:
            return part
        sizes = torch.zeros(self.count, dtype=torch.int64, device=part.device)
        sizes[self.rank] = len(part)
        whole = [part.new_zeros(int(size)) for size in self.sum(sizes).tolist()]
        whole[self.rank].copy_(part)
        return self.sum(torch.cat(whole))

    def largest(self, number: float) -> float:
        """The maximum of a number over all processes."""
        if self.count == 1:
            return number
        numbers = torch.zeros(self.count, dtype=torch.float64)
        numbers[self.rank] = number
        return float(self.sum(numbers).max())

    def first_message(self, text: str) -> str:
        """The text of the lowest-ranked process whose text is not empty; cut off after 1024 bytes."""
        if self.count == 1:
            return text
        letters = torch.zeros(self.count, 1024, dtype=torch.int64)
        own = text.encode()[: letters.shape[1]]
        letters[self.rank, : len(own)] = torch.tensor(list(own), dtype=torch.int64)
        words = [bytes(row).rstrip(b"\0").decode(errors="replace") for row in self.sum(letters).tolist()]
        return next(filter(None, words), "")

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in at least one process."""
        return flag if self.count == 1 else bool(self.sum(torch.tensor(int(flag))))

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace all gradients by their sums over processes, in one message."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.count > 1 and gradients:
            flat = self.sum(torch.cat([g.flatten() for g in gradients]))
            ends = accumulate(g.numel() for g in gradients)
            for gradient, end in zip(gradients, ends, strict=True):
                gradient.copy_(flat[end - gradient.numel() : end].view_as(gradient))


@contextmanager
def workers() -> Iterator[Workers]:
    """Connect the processes that torchrun started while the block runs; without torchrun, yield a single process."""
    if not dist.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield Workers()
        return
    # Flags are summed on the CPU, gradients on the device they are on
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    dist.init_process_group(backend)
    connected = Workers(dist.get_rank(), dist.get_world_size())
    try:
        yield connected
        _leave(connected)
    except Interrupted:
        _leave(connected)
        raise
    finally:
        dist.destroy_process_group()


def _leave(workers: Workers) -> None:
    """Wait until every process has received its last message: one that exits early breaks those still in transit."""
    token = torch.zeros(1)
    if workers.first:
        for act in (dist.recv, dist.send):
            for rank in range(1, workers.count):
                act(token, rank)
        return
    dist.send(token, 0)
    with suppress(RuntimeError):  # process 0 has exited, so it waits for nothing
        dist.recv(token, 0)
