"""Candidates for the mode tree of data whose modes come in any order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.mode_tree import ModeTree, Nested, tree_of
from htfcli.engine.ranks.hierarchical_rank import spectra_at
from htfcli.errors import DataError

_MOST_PAIRED = 24  # modes up to which a fitted model is asked how they pair; their pairs grow as the square


def candidate_trees(tree: str | list[object], order: int, arity: int | None = None) -> dict[str, ModeTree]:
    """Mode trees to try, by their nested lists as text: the one asked for, or for `auto` a few.

    For `auto`: the balanced tree and the chain in the order of the modes, the star, and for three and four modes all
    ways to pair them.
    """
    if tree != "auto":
        chosen = tree_of(tree, order, arity)
        return {text_of(chosen): chosen}
    nested: list[list[Nested]] = [ModeTree.named(name, order).to_nested() for name in ("balanced", "star")]
    if order == 3:
        nested += [[[a, b], 3 - a - b] for a, b in ((0, 2), (1, 2))]
    if order == 4:
        nested += [[[0, a], [b, c]] for a, b, c in ((2, 1, 3), (3, 1, 2))]
    if order > 3:
        nested.append(ModeTree.named("chain", order).to_nested())
    return {text_of(t): t for t in map(ModeTree.from_nested, nested)}


def text_of(tree: ModeTree) -> str:
    """The nested lists of a tree, as its name."""
    return str(tree.to_nested())


def paired_tree(model: Factorization) -> ModeTree | None:
    """The binary tree that joins, level by level, modes whose joint matricization is of low rank in a fitted model.

    Two sets of modes I, J go together where the effective rank of [[W]]_{I + J} is small against the product of those
    of [[W]]_I and [[W]]_J, the most it could be.

    Returns: the tree; None for few modes, for very many, or where the model is too large to be asked.
    """
    if not 4 < model.order <= _MOST_PAIRED:
        return None
    parts: list[tuple[tuple[int, ...], Nested]] = [((mode,), mode) for mode in range(model.order)]
    try:
        while len(parts) > 1:
            parts = _joined(model, parts)
    except DataError:  # a matricization that cuts the model's own tree in too many places
        return None
    root = parts[0][1]
    assert isinstance(root, list)
    return ModeTree.from_nested(_ordered(root)[1])


def _ordered(nested: Nested) -> tuple[int, Nested]:
    """The smallest mode, and the tree with all children in the order of their smallest modes: one form for each."""
    if isinstance(nested, int):
        return nested, nested
    children = sorted((_ordered(child) for child in nested), key=lambda child: child[0])
    return children[0][0], [child for _, child in children]


def _joined(
    model: Factorization, parts: Sequence[tuple[tuple[int, ...], Nested]]
) -> list[tuple[tuple[int, ...], Nested]]:
    """Parts joined in pairs, the pair that suits best first; one is left over where their number is odd."""
    if len(parts) == 2:
        return [(parts[0][0] + parts[1][0], [parts[0][1], parts[1][1]])]
    pairs = list(combinations(range(len(parts)), 2))
    joint = spectra_at(model, [parts[a][0] + parts[b][0] for a, b in pairs])
    own = [spectrum.effective_rank for spectrum in spectra_at(model, [modes for modes, _ in parts])]
    cost = {
        pair: spectrum.effective_rank / (own[pair[0]] * own[pair[1]])
        for pair, spectrum in zip(pairs, joint, strict=True)
    }
    left, joined = set(range(len(parts))), []
    for a, b in sorted(pairs, key=lambda pair: (cost[pair], pair)):
        if a in left and b in left:
            left -= {a, b}
            joined.append((parts[a][0] + parts[b][0], [parts[a][1], parts[b][1]]))
    return joined + [parts[k] for k in sorted(left)]
