"""Candidates for the mode tree of data whose modes come in any order."""

from __future__ import annotations

from collections.abc import Sequence

from htfcli.engine.completion.pairing import proposed_tree
from htfcli.engine.factorizations.mode_tree import ModeTree, Nested, tree_of
from htfcli.engine.samples import Entries

MANY_MODES = 6  # above, a star finds nothing: products of so many centred vectors are nearly always nearly zero


def candidate_trees(
    tree: str | list[object], entries: Entries, dims: Sequence[int], arity: int | None = None
) -> list[ModeTree]:
    """Mode trees to try: the one asked for, or for `auto` a few.

    For `auto`: the balanced tree and the chain in the order of the modes, the star, for three and four modes all ways
    to pair them, and for more the tree that the `entries` propose, first where there are so many that no star is tried.
    """
    order = len(dims)
    if tree != "auto":
        return [tree_of(tree, order, arity)]
    nested: list[list[Nested]] = [ModeTree.named(name, order).to_nested() for name in ("star", "balanced")]
    if order > MANY_MODES:
        nested.reverse()
        del nested[1:]
    if order == 3:
        nested += [[[a, b], 3 - a - b] for a, b in ((0, 2), (1, 2))]
    if order == 4:
        nested += [[[0, a], [b, c]] for a, b, c in ((2, 1, 3), (3, 1, 2))]
    if order > 3:
        nested.append(ModeTree.named("chain", order).to_nested())
    proposed = proposed_tree(entries, dims) if order > 4 else None
    if proposed is not None:
        nested.insert(0 if order > MANY_MODES else len(nested), proposed.to_nested())
    found: dict[str, ModeTree] = {}
    for entry in nested:
        found.setdefault(str(entry), ModeTree.from_nested(entry))
    return list(found.values())
