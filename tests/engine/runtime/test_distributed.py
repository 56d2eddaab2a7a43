"""`Workers` by threads that exchange their tensors as processes do."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from htfcli.engine.runtime import distributed
from htfcli.engine.runtime.distributed import Workers, workers


class Group:
    """all_reduce and broadcast between threads, one per process."""

    def __init__(self, count):
        self.count, self.barrier = count, threading.Barrier(count, timeout=60)
        self.sent = [None] * count
        self.rank = threading.local()

    def exchange(self, tensor):
        self.sent[self.rank.number] = tensor.clone()
        self.barrier.wait()
        received = [sent.clone() for sent in self.sent]
        self.barrier.wait()
        return received

    def all_reduce(self, tensor):
        tensor.copy_(sum(self.exchange(tensor)))

    def broadcast(self, tensor, source):
        tensor.copy_(self.exchange(tensor)[source])


@pytest.fixture
def together(monkeypatch):
    """Call a function of `Workers` in several threads at once; returns what each gave."""

    def run(count, function):
        group = Group(count)
        monkeypatch.setattr(distributed, "dist", group)

        def of(rank):
            group.rank.number = rank
            return function(Workers(rank, count))

        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(of, range(count)))

    return run


@pytest.mark.parametrize("count", [1, 2, 3])
def test_shards_are_put_together_again(together, count):
    rows = torch.arange(7) * 10
    shards = [Workers(rank, count).shard(rows) for rank in range(count)]
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert torch.equal(torch.cat(shards), rows)
    assert all(torch.equal(whole, rows) for whole in together(count, lambda w: w.gathered(w.shard(rows))))


def test_sums_and_agreement(together):
    assert [t.tolist() for t in together(3, lambda w: w.sum(torch.tensor([1, w.rank])))] == [[3, 3]] * 3
    assert [int(t) for t in together(3, lambda w: w.agreed(torch.tensor(5 + w.rank)))] == [5] * 3
    assert together(3, lambda w: w.largest(-1.5 * w.rank - 1)) == [-1.0] * 3
    assert together(3, lambda w: w.any(w.rank == 2)) == [True] * 3
    assert together(2, lambda w: w.any(False)) == [False] * 2


def test_the_first_message(together):
    said = ["", "größer als 3", "other"]
    assert together(3, lambda w: w.first_message(said[w.rank])) == ["größer als 3"] * 3
    assert together(2, lambda w: w.first_message("")) == ["", ""]
    assert [len(text) for text in together(2, lambda w: w.first_message("x" * 3000))] == [1024] * 2


def test_gradients_are_summed(together):
    def summed(w):
        parameters = [nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(1))]
        parameters[0].grad = torch.full((2, 2), float(w.rank + 1))
        parameters[1].grad = torch.arange(3.0) * (w.rank + 1)
        w.sum_gradients(parameters)
        assert parameters[2].grad is None
        return [p.grad.tolist() for p in parameters[:2]]

    assert together(2, summed) == [[[[3.0, 3.0], [3.0, 3.0]], [0.0, 3.0, 6.0]]] * 2


def test_a_single_process_sends_nothing(monkeypatch):
    monkeypatch.setattr(distributed, "dist", None)
    alone = Workers()
    tensor = torch.ones(2)
    assert alone.first
    assert alone.sum(tensor) is tensor and alone.agreed(tensor) is tensor and alone.gathered(tensor) is tensor
    assert (alone.largest(2.0), alone.first_message("a"), alone.any(True)) == (2.0, "a", True)


def test_without_torchrun_there_is_one_process():
    with workers() as found:
        assert found == Workers(0, 1)
