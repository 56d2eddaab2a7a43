"""Least-squares problems with a known solution."""

from __future__ import annotations

import torch

from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.samples import Entries
from tests.problems import generator, random_sample

TREES = {
    "balanced": ModeTree.named("balanced", 4),
    "star": ModeTree.named("star", 4),
    "chain": ModeTree.named("chain", 4),
    "half": ModeTree.named("half", 4),
    "crossed": ModeTree.from_nested([[0, 2], [1, 3]]),
    "single children": ModeTree.from_nested([[[0, 1]], [2, [3]]]),
}


DIMS = (5, 6, 4, 5)


def start_gaussian(model, value, generator):
    """Gaussian weights at which entries have the root mean square of the data, `value` (n,)."""
    model.init_gaussian(model.gaussian_std(float(value.square().mean().sqrt())), generator)


def problem(tree, widths=2, observed=0.5, noise=0.0, seed=0, dims=DIMS):
    """A target of rms about one, observed entries, and a start of the same shape."""
    target = HierarchicalTensorFactorization(dims, widths, tree)
    target.init_gaussian(target.gaussian_std(1.0), generator(seed))
    target.scale(float(target.dense().square().mean().sqrt()) ** -1)
    total = target.entries
    entries = random_sample("entries", dims, round(observed * total), seed)
    value = target.values(entries.index)
    entries = Entries(entries.index, value + noise * torch.randn(len(value), generator=generator(seed + 50)))
    model = HierarchicalTensorFactorization(dims, widths, tree)
    start_gaussian(model, entries.value, generator(seed + 100))
    return target, entries, model


def error(model, target):
    difference = model.dense() - target.dense()
    return float(difference.norm() / target.dense().norm())
