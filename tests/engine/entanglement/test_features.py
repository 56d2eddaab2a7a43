"""Canonical partitions, scales and labels."""

from __future__ import annotations

import pytest
import torch

from htfcli.engine.entanglement.features import FeatureData, canonical_partitions, deepest
from htfcli.errors import ConfigError, DataError


def blocks(shape, level):
    return [p.features for p in canonical_partitions(shape, [level])]


def test_blocks_of_a_line_are_contiguous_halves_of_halves():
    assert blocks((8,), 1) == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert blocks((8,), 3) == [(n,) for n in range(8)]
    assert blocks((7,), 2) == [(0,), (1, 2), (3, 4), (5, 6)]


@pytest.mark.parametrize("shape", [(13,), (16,), (6, 9), (1, 8), (8, 1)])
def test_blocks_of_a_level_are_a_partition_nested_in_the_level_above(shape):
    above = [tuple(range(torch.Size(shape).numel()))]
    for level in range(1, deepest(shape) + 1):
        found = blocks(shape, level)
        assert sorted(n for block in found for n in block) == list(
            above[0] if level == 1 else range(len(sum(above, ())))
        )
        assert all(any(set(block) <= set(one) for one in above) for block in found)
        above = found


def test_blocks_of_a_grid_are_squares():
    assert blocks((4, 4), 1) == [(0, 1, 4, 5), (2, 3, 6, 7), (8, 9, 12, 13), (10, 11, 14, 15)]
    positions = [p.position for p in canonical_partitions((4, 4), [1])]
    assert positions == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert len(blocks((8, 8), 2)) == 16


@pytest.mark.parametrize("level", [0, 4])
def test_a_level_that_does_not_exist(level):
    with pytest.raises(ConfigError, match=r"no such level of 8 features \(got \d, allowed 1 to 3\)"):
        list(canonical_partitions((8,), [level]))


def features(values, **more):
    values = torch.as_tensor(values, dtype=torch.float64)
    return FeatureData("x", values[:, :, None], (values.shape[1],), **more)


def test_scales():
    values = [[0.0, 5.0, 7.0], [10.0, 6.0, 7.0]]
    assert features(values).scaled()[:, :, 0].tolist() == [[0, 0, 0], [1, 1, 0]]
    assert features(values, common_scale=True).scaled()[:, :, 0].tolist() == [[0, 0.5, 0.7], [1, 0.6, 0.7]]
    assert features(values).constant.tolist() == [False, False, True]


def test_labels_are_one_class_against_the_rest():
    two = features([[0, 1]] * 3, labels=torch.tensor([0, 1, 1]), classes=("a", "b"))
    assert two.signs().tolist() == [[-1, 1, 1]]
    three = features([[0, 1]] * 3, labels=torch.tensor([0, 2, 1]), classes=("a", "b", "c"))
    assert three.signs().tolist() == [[1, -1, -1], [-1, -1, 1], [-1, 1, -1]]
    assert features([[0, 1]] * 3).signs().tolist() == [[1, 1, 1]]
    with pytest.raises(DataError, match=r"all samples of x have one label \(got b\)"):
        features([[0, 1]] * 3, labels=torch.tensor([1, 1, 1]), classes=("a", "b")).signs()


def test_samples_are_drawn_with_their_labels():
    data = features(torch.arange(40).view(20, 2), labels=torch.arange(20))
    drawn = data.drawn(7, seed=3)
    assert len(drawn) == 7
    assert torch.equal(drawn.values[:, 0, 0] / 2, drawn.labels.double())
    assert torch.equal(drawn.values, data.drawn(7, seed=3).values)
    assert not torch.equal(drawn.values, data.drawn(7, seed=4).values)
    assert data.drawn(None, 0) is data.drawn(20, 0) is data
