"""Dataclasses of tensors and plain values, nested in each other, as named tensors and JSON, and back.

The annotations of the fields say what is read: a file names no class, and nothing in it is run. Fields that the
constructor does not take are not saved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.errors import ConfigError, DataError

T = TypeVar("T")


def state_of(value: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, and plain data with these names where the tensors belong."""
    tensors: dict[str, Tensor] = {}
    return tensors, _packed(value, "", tensors)


def read_state(kind: type[T], tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> T:
    """The value of a state; `kind` is its dataclass, `content` and `tensors`, of any shape, are those of `state_of`.

    Raises:
        DataError: if something is missing or of another kind than the fields are.
    """
    try:
        found: T = _unpacked(kind, content, tensors)
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError, ConfigError):
        raise DataError("the completion is damaged: a part is missing or not what it should be") from None
    return found


def _packed(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[name] = value.contiguous()
        return name
    if isinstance(value, Factorization):
        widths = [value.widths[v] for v in value.tree.interior]
        plain = {"dims": list(value.dims), "tree": value.tree.to_nested(), "widths": widths}
        return plain | {"parameters": _packed(value.parameters, name, tensors)}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinity
    if is_dataclass(value):
        parts = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
        return {key: _packed(part, f"{name}/{key}".strip("/"), tensors) for key, part in parts.items()}
    if isinstance(value, (list, tuple)):
        return [_packed(part, f"{name}/{number}", tensors) for number, part in enumerate(value)]
    return value


def _unpacked(kind: Any, plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    if kind is Tensor:
        return tensors[plain]
    if kind is Factorization:
        return _factorization(plain, tensors)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{f.name: _unpacked(hints[f.name], plain[f.name], tensors) for f in fields(kind) if f.init})  # type: ignore[operator]
    outer, inner = get_origin(kind) or kind, get_args(kind)
    if outer is UnionType:  # something or None
        return None if plain is None else _unpacked(inner[0], plain, tensors)
    if outer is float:
        return float(plain)
    if not isinstance(plain, list if outer is tuple else outer):
        raise TypeError
    if outer in (list, tuple):
        return outer(_unpacked(inner[0], part, tensors) for part in plain)
    return plain


def _factorization(plain: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Factorization:
    parameters, tree = tensors[plain["parameters"]], ModeTree.from_nested(plain["tree"])
    widths = {tree.labels[v]: width for v, width in zip(tree.interior, plain["widths"], strict=True)}
    model = HierarchicalTensorFactorization(plain["dims"], widths, tree)
    if parameters.shape != model.parameters.shape or not bool(torch.isfinite(parameters).all()):
        raise ValueError
    model.parameters.copy_(parameters)
    return model
