"""Mode trees: which modes of a tensor are grouped together, level by level.

A mode tree is a rooted tree over the modes {0, ..., N-1}. Leaves are single modes, an interior node is the union of its
children, and the root holds all modes. Interior nodes have one or more children (layered networks have single ones).
Source: Razin, Maman and Cohen (ICML 2022, arXiv 2201.11729), definition of a mode tree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from htfcli.errors import ConfigError, did_you_mean

Nested = int | list["Nested"]


@dataclass(frozen=True)
class ModeTree:
    """A rooted tree over modes, with nodes numbered from the leaves up.

    Node n < N is the leaf of mode n. Interior nodes follow by height (longest path down to a leaf), so that children
    precede their parent and the root is last.

    Args:
        children: the numbers of each node's children; empty for leaves.
    """

    children: tuple[tuple[int, ...], ...]

    @classmethod
    def from_nested(cls, nested: object) -> ModeTree:
        """Build from nested lists: an integer is a leaf, a list an interior node, e.g. `[[0, 1], [2, 3]]`.

        Raises:
            ConfigError: if a mode is missing, repeated or not an integer, or a node is empty.
        """
        if not isinstance(nested, list):
            raise ConfigError(
                "a mode tree is written as nested lists of modes", got=_short(nested), allowed="e.g. [[0, 1], [2, 3]]"
            )
        parts: list[list[object]] = [nested]  # interior nodes, parents before children
        slots: list[list[int]] = []  # per interior node its children: a mode >= 0, or ~(number of the interior node)
        seen: set[int] = set()
        for part in parts:  # grows during the loop
            if not part:
                raise ConfigError("an interior node of the mode tree has no children", got="[]")
            slot: list[int] = []
            for item in part:
                if isinstance(item, list):
                    slot.append(~len(parts))
                    parts.append(item)
                elif isinstance(item, int) and not isinstance(item, bool):
                    if item in seen:
                        raise ConfigError("a mode appears twice in the mode tree", got=f"mode {item}")
                    seen.add(item)
                    slot.append(item)
                else:
                    raise ConfigError("a leaf of the mode tree is not a mode number", got=_short(item))
            slots.append(slot)
        order = len(seen)
        missing = sorted(set(range(order)) - seen)
        if missing:
            strays = sorted(seen - set(range(order)))
            raise ConfigError(
                "the mode tree must hold every mode once, numbered from 0",
                got=f"{_short(strays)} without {_short(missing)}",
                allowed=f"0 to {order - 1}",
            )
        return cls(_number_by_height(order, slots))

    @classmethod
    def named(cls, name: str, order: int, arity: int | None = None) -> ModeTree:
        """One of the named trees (`TREES`) over `order` modes.

        Args:
            name: key of `TREES`; `square` may carry its grid, as in `square:4x8`.
            order: number of modes, at least 2.
            arity: children per node (2 if None; for `square` modes per patch, 4 if None); not for `chain` and `star`.

        Raises:
            ConfigError: if the name is unknown or does not allow this order or arity.
        """
        if order < 2:
            raise ConfigError("a mode tree needs at least two modes", got=order, allowed="2 or more")
        kind, _, argument = name.partition(":")
        if kind not in TREES or (argument and kind != "square"):
            raise ConfigError(
                "unknown mode tree",
                got=name,
                allowed=", ".join(TREES),
                next_step=f"{did_you_mean(kind, TREES)}Nested lists are possible too, e.g. '[[0, 1], [2, 3]]'.",
            )
        if arity is not None and arity < 2:
            raise ConfigError("the arity of a mode tree is too small", got=arity, allowed="2 or more")
        if arity is not None and kind in ("chain", "star"):
            raise ConfigError(f"the {kind} tree does not take an arity", got=arity, allowed="none")
        return cls.from_nested(TREES[kind](order, arity, argument))

    @cached_property
    def order(self) -> int:
        """Number of modes N."""
        return sum(1 for c in self.children if not c)

    @property
    def root(self) -> int:
        """The number of the root."""
        return len(self.children) - 1

    @property
    def interior(self) -> range:
        """Interior nodes, children before parents; the root is last."""
        return range(self.order, len(self.children))

    @cached_property
    def parent(self) -> tuple[int, ...]:
        """Parent of every node; -1 for the root."""
        parent = [-1] * len(self.children)
        for node, children in enumerate(self.children):
            for child in children:
                parent[child] = node
        return tuple(parent)

    @cached_property
    def modes(self) -> tuple[tuple[int, ...], ...]:
        """Modes under every node, ascending."""
        modes: list[tuple[int, ...]] = []
        for node, children in enumerate(self.children):
            modes.append(tuple(sorted(m for c in children for m in modes[c])) if children else (node,))
        return tuple(modes)

    @cached_property
    def height(self) -> tuple[int, ...]:
        """Length of the longest path from every node down to a leaf; 0 for leaves."""
        height: list[int] = []
        for children in self.children:
            height.append(1 + max(height[c] for c in children) if children else 0)
        return tuple(height)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """A short unique name for every node: its modes; for a single-child node, the name of the child and `'`."""
        labels: list[str] = []
        for node, children in enumerate(self.children):
            labels.append(labels[children[0]] + "'" if len(children) == 1 else label_of(self.modes[node]))
        return tuple(labels)

    def find(self, modes: Sequence[int]) -> int | None:
        """The lowest node with exactly these `modes`, or None."""
        return self._node_of_modes.get(tuple(sorted(modes)))

    @cached_property
    def _node_of_modes(self) -> dict[tuple[int, ...], int]:
        return {modes: node for node, modes in reversed(list(enumerate(self.modes)))}

    def to_nested(self) -> list[Nested]:
        """The tree as nested lists; the inverse of `from_nested`."""
        nested: list[Nested] = []
        for node, children in enumerate(self.children):
            nested.append([nested[c] for c in children] if children else node)
        root = nested[-1]
        assert isinstance(root, list)
        return root


def tree_of(tree: str | list[Any], order: int, arity: int | None = None) -> ModeTree:
    """A mode tree from its name (a key of `TREES`) or from nested lists.

    Raises:
        ConfigError: see `ModeTree.named` and `ModeTree.from_nested`; or if an arity is given for nested lists.
    """
    if isinstance(tree, str):
        return ModeTree.named(tree, order, arity)
    if arity is not None:
        raise ConfigError("a mode tree given as nested lists does not take an arity", got=arity, allowed="none")
    return ModeTree.from_nested(tree)


def label_of(modes: Sequence[int], first: int = 0) -> str:
    """Modes as a set, `{0,1}`, with runs of five or more as ranges, `{0-31}`; `first` is shown for mode 0."""
    runs: list[list[int]] = []
    for mode in sorted(modes):
        if runs and mode == runs[-1][1] + 1:
            runs[-1][1] = mode
        else:
            runs.append([mode, mode])
    spans = [
        f"{low + first}-{high + first}" if high - low > 3 else ",".join(str(m + first) for m in range(low, high + 1))
        for low, high in runs
    ]
    return "{" + ",".join(spans) + "}"


def _number_by_height(order: int, slots: list[list[int]]) -> tuple[tuple[int, ...], ...]:
    """Children of all nodes, interior ones numbered by height (ties in the given order); `slots`: parents first."""
    height = [0] * len(slots)
    for part in reversed(range(len(slots))):
        height[part] = 1 + max((height[~s] for s in slots[part] if s < 0), default=0)
    by_height = sorted(range(len(slots)), key=lambda part: height[part])
    number = {part: order + position for position, part in enumerate(by_height)}
    interior = [tuple(s if s >= 0 else number[~s] for s in slots[part]) for part in by_height]
    return tuple(() for _ in range(order)) + tuple(interior)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# --- named trees: (order, arity, argument) -> nested lists ------------------------------------------------------------


def _levels(order: int, groups: Callable[[int], list[list[int]]], keep_single: bool = False) -> list[Nested]:
    """Group the nodes of a level into the next until one node is left; `groups(count)`: positions of each group."""
    nodes: list[Nested] = list(range(order))
    while len(nodes) > 1:
        nodes = [
            [nodes[i] for i in group] if len(group) > 1 or keep_single else nodes[group[0]]
            for group in groups(len(nodes))
        ]
    root = nodes[0]
    assert isinstance(root, list)
    return root


def _consecutive(count: int, arity: int) -> list[list[int]]:
    return [list(range(start, min(start + arity, count))) for start in range(0, count, arity)]


def _strided(count: int, arity: int) -> list[list[int]]:
    stride = math.ceil(count / arity)
    return [list(range(start, count, stride)) for start in range(stride)]


def _balanced(order: int, arity: int | None, argument: str) -> list[Nested]:
    return _levels(order, lambda count: _consecutive(count, arity or 2))


def _layered(order: int, arity: int | None, argument: str) -> list[Nested]:
    return _levels(order, lambda count: _consecutive(count, arity or 2), keep_single=True)


def _half(order: int, arity: int | None, argument: str) -> list[Nested]:
    return _levels(order, lambda count: _strided(count, arity or 2))


def _chain(order: int, arity: int | None, argument: str) -> list[Nested]:
    nested: list[Nested] = [0, 1]
    for mode in range(2, order):
        nested = [nested, mode]
    return nested


def _star(order: int, arity: int | None, argument: str) -> list[Nested]:
    return list(range(order))


def _square(order: int, arity: int | None, argument: str) -> list[Nested]:
    """Modes are the cells of a grid, row by row; each level groups square patches (2 x 2 by default)."""
    rows, columns = _grid(order, argument)
    side = math.isqrt(arity or 4)
    if side * side != (arity or 4):
        raise ConfigError("the arity of the square tree must be a square", got=arity, allowed="4, 9, 16, ...")

    def patches(count: int) -> list[list[int]]:
        nonlocal rows, columns
        groups = [
            [r * columns + c for r in range(top, min(top + side, rows)) for c in range(left, min(left + side, columns))]
            for top in range(0, rows, side)
            for left in range(0, columns, side)
        ]
        rows, columns = math.ceil(rows / side), math.ceil(columns / side)
        return groups

    return _levels(order, patches)


def _grid(order: int, argument: str) -> tuple[int, int]:
    if not argument:
        side = math.isqrt(order)
        if side * side != order:
            raise ConfigError(
                "the square tree needs a square number of modes",
                got=order,
                allowed="4, 9, 16, ...",
                next_step="For a grid that is not square write e.g. square:4x8.",
            )
        return side, side
    try:
        rows, columns = (int(part) for part in argument.split("x"))
    except ValueError:
        raise ConfigError("the grid of the square tree is malformed", got=argument, allowed="e.g. 4x8") from None
    if rows < 1 or columns < 1 or rows * columns != order:
        raise ConfigError(
            "the grid of the square tree does not match the modes", got=argument, allowed=f"{order} modes"
        )
    return rows, columns


TREES: dict[str, Callable[[int, int | None, str], list[Nested]]] = {
    "balanced": _balanced,
    "half": _half,
    "square": _square,
    "chain": _chain,
    "star": _star,
    "layered": _layered,
}
