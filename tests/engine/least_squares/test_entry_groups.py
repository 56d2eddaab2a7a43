from __future__ import annotations

import pytest
import torch

from htfcli.engine.least_squares.entry_groups import grouped
from tests.problems import generator


@pytest.mark.parametrize(("size", "count"), [(7, 0), (1, 9), (7, 1000), (300, 40), (5, 5)])
def test_every_entry_is_in_one_piece_of_its_index(size, count):
    column = torch.randint(size, (count,), generator=generator(0), dtype=torch.int32)
    groups = grouped(column, size)
    entry = groups.entry.flatten()
    row = groups.row.repeat_interleave(groups.entry.shape[1])
    there = entry >= 0
    assert torch.equal(entry[there].sort().values, torch.arange(count, dtype=torch.int32))
    assert torch.equal(column[entry[there].long()].long(), row[there])
    assert bool((groups.row.diff() >= 0).all())


def test_pieces_are_about_as_long_as_groups():
    assert grouped(torch.arange(1000) % 10, 10).entry.shape == (20, 64)
    assert grouped(torch.arange(1000) % 100, 100).entry.shape[1] == 8
    skewed = torch.cat([torch.zeros(990, dtype=torch.int64), torch.arange(1, 11)])
    assert grouped(skewed, 11).entry.numel() < 2000
