"""Where a second-order fit begins: near zero, around one, grown from a narrower model or pruned from a wider one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.ranks.hierarchical_rank import FactoredSpectra
from htfcli.engine.ranks.local_components import LocalComponents

_AROUND_ONE = 0.1  # spread of the weights of a start around one
_SMALL = 0.3  # new components over the root mean square of the old ones


def start_gaussian(model: Factorization, value: Tensor, generator: torch.Generator) -> None:
    """Centred Gaussian weights that give entries of the root mean square of the data, `value` (n,)."""
    model.init_gaussian(model.gaussian_std(float(value.square().mean().sqrt()) or 1.0), generator)


def start_around_one(model: Factorization, value: Tensor, generator: torch.Generator) -> None:
    """Leaves 1 + noise, inner matrices identity + noise, the root such that entries are near the mean of `value` (n,).

    In high orders the product of centred factors is nearly always nearly zero, and no method gets anywhere from there;
    products of factors around one are not.
    """
    model.init_gaussian(_AROUND_ONE, generator)
    tree, weights = model.tree, model.node_weights
    for node in range(len(tree.children)):
        weight = weights[node]
        if weight is None:
            continue
        if node < tree.order:
            weight.add_(1.0)
        elif node != tree.root:
            weight.add_(torch.eye(*weight.shape, dtype=weight.dtype, device=weight.device))
        else:
            weight.add_(1.0 / weight.shape[0])
    mean, rms = float(value.mean()), float(value.square().mean().sqrt())
    last = weights[tree.root]
    if last is None:  # no output weights: the first leaf carries the sign, and the sum is over all components
        last = weights[0]
        mean, rms = mean / model.widths[tree.root], rms / model.widths[tree.root]
    assert last is not None
    last.mul_(mean if abs(mean) > 0.1 * rms else rms or 1.0)


STARTS: dict[str, Callable[[Factorization, Tensor, torch.Generator], None]] = {
    "near zero": start_gaussian,
    "around one": start_around_one,
}


def grown(
    model: Factorization, widths: Mapping[int, int], generator: torch.Generator, small: float = _SMALL
) -> Factorization:
    """A wider copy: the old components and new ones, small and random, which then rise if the data want them.

    Args:
        model: to be copied. widths: of the copy. generator: for the new weights, whose standard deviation is `small`
        times the root mean square of the old ones.
    """
    wider = type(model).blank(model.dims, model.tree, widths).to(model.parameters.dtype, model.parameters.device)
    wider.init_gaussian(1.0, generator)
    for new, old in zip(wider.node_weights, model.node_weights, strict=True):
        if new is not None and old is not None:
            new.mul_(small * float(old.square().mean().sqrt()))
            new[: old.shape[0], : old.shape[1]] = old
    return wider


def pruned(model: Factorization, widths: Mapping[int, int]) -> Factorization:
    """A narrower copy: at every node the components of the largest norms."""
    components = LocalComponents(model)
    kept = {v: components.norms(v).argsort(descending=True)[: widths[v]] for v in model.tree.interior}
    narrower = type(model).blank(model.dims, model.tree, widths).to(model.parameters.dtype, model.parameters.device)
    for node, (new, old) in enumerate(zip(narrower.node_weights, model.node_weights, strict=True)):
        if new is None or old is None:
            continue
        rows = old if node < model.order else old.index_select(0, kept[node])
        parent = model.tree.parent[node]
        new.copy_(rows if parent < 0 else rows.index_select(1, kept[parent]))
    return narrower


def needed_widths(model: Factorization, tolerance: float) -> dict[int, int]:
    """Per node as many components as the largest rank among its children's matricizations, at most as many as it has.

    Args:
        model: a fitted one. tolerance: singular values above this times the largest count.
    """
    ranks = {s.label: s.rank(tolerance) for s in FactoredSpectra(model).spectra()}
    tree = model.tree
    return {
        v: max(1, min(model.widths[v], max(ranks.get(tree.labels[c], 1) for c in tree.children[v])))
        for v in tree.interior
    }
