"""A completion as tensors and plain data, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import torch
from torch import Tensor

from htfcli.engine.completion.columns import Column, Interpolation
from htfcli.engine.completion.effects import Effects
from htfcli.engine.completion.holes import Holes
from htfcli.engine.completion.interpolation import Kernel
from htfcli.engine.completion.links import Link
from htfcli.engine.completion.members import Member
from htfcli.engine.completion.uncertainty import Calibration
from htfcli.engine.completion.units import Units
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.errors import DataError

T = TypeVar("T")


def state_of(completion: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Everything that predictions need, and the report."""
    c = completion
    tensors = {
        "units/shift": c.units.shift,
        "units/scale": c.units.scale,
        "holes/cells": c.holes.cells,
        "blend": c.blend,
        "weights": c.weights,
        "observed": c.observed.to(torch.int32),
        "calibration/coefficients": c.calibration.coefficients,
        "calibration/quantiles": c.calibration.quantiles,
    }
    for mode in range(len(c.dims)):
        tensors[f"calibration/noise/{mode}"] = c.calibration.noise[mode]
        tensors[f"calibration/counts/{mode}"] = c.calibration.counts[mode]
        position = c.positions[mode]
        if position is not None:
            tensors[f"positions/{mode}"] = position
        if c.holes.counts:
            tensors[f"holes/counts/{mode}"] = c.holes.counts[mode]
    members, interpolations = [], []
    for number, member in enumerate(c.members):
        if member.model is not None:
            tensors |= {f"members/{number}/weights/{k}": w for k, w in member.model.weights.items()}
        effects = member.effects
        if effects is not None:
            tensors |= {f"members/{number}/effects/{k}": v for k, v in enumerate(effects.values)}
        members.append(
            {
                "factorization": None if member.model is None else member.model.describe(),
                "effects": None
                if effects is None
                else {"mean": effects.mean, "terms": [list(t) for t in effects.terms]},
                "link": asdict(member.link),
            }
        )
    for number, one in enumerate(c.interpolations):
        tensors[f"interpolations/{number}/residual"] = one.residual
        if one.kernel.correlation is not None:
            tensors[f"interpolations/{number}/correlation"] = one.kernel.correlation
        interpolations.append(
            {
                "modes": list(one.kernel.modes),
                "lengths": list(one.kernel.lengths),
                "nugget": one.kernel.nugget,
                "smooth": one.kernel.smooth,
                "cross": one.kernel.cross,
                "variance": one.variance,
                "count": one.kernel.count,
            }
        )
    content = {
        "dims": list(c.dims),
        "units": c.units.mode,
        "holes": {"names": c.holes.names, "share": c.holes.share, "starved": [list(s) for s in c.holes.starved]},
        "members": members,
        "columns": [[column.name, column.source, column.interpolation] for column in c.columns],
        "interpolations": interpolations,
        "lowest": c.lowest if math.isfinite(c.lowest) else None,
        "highest": c.highest if math.isfinite(c.highest) else None,
        "integers": c.integers,
        "report": c.report,
    }
    return {name: t.contiguous() for name, t in tensors.items()}, content


def read_state(tensors: Mapping[str, Tensor], content: Mapping[str, Any], make: Callable[..., T]) -> T:
    """The completion of a state.

    Args:
        tensors, content: of `state_of`, tensors of any shape. make: the class of a completion.
    Raises:
        DataError: if it is damaged.
    """
    try:
        return _read(tensors, content, make)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError):
        raise DataError("the completion is damaged: its parts do not fit each other") from None


def _read(tensors: Mapping[str, Tensor], content: Mapping[str, Any], make: Callable[..., T]) -> T:
    dims = tuple(int(d) for d in content["dims"])
    order = len(dims)
    members = tuple(_member(tensors, content["members"][k], k, dims) for k in range(len(content["members"])))
    interpolations = []
    for number, saved in enumerate(content["interpolations"]):
        correlation = tensors.get(f"interpolations/{number}/correlation")
        kernel = Kernel(
            tuple(saved["modes"]),
            tuple(saved["lengths"]),
            saved["nugget"],
            saved["count"],
            saved["smooth"],
            saved["cross"],
            correlation,
        )
        residual = tensors[f"interpolations/{number}/residual"]
        interpolations.append(Interpolation(kernel, residual, saved["variance"]))
    saved = content["holes"]
    holes = Holes(dims, list(saved["names"]), list(saved["share"]), tensors["holes/cells"])
    holes.starved = [(int(a), int(b)) for a, b in saved["starved"]]
    holes.counts = [tensors[f"holes/counts/{m}"] for m in range(order)] if "holes/counts/0" in tensors else []
    columns = tuple(Column(str(a), int(b), int(c)) for a, b, c in content["columns"])
    kinds = len(holes.names)
    weights, blend, observed = tensors["weights"], tensors["blend"], tensors["observed"].long()
    calibration = Calibration(
        tensors["calibration/coefficients"],
        tuple(tensors[f"calibration/noise/{m}"] for m in range(order)),
        tuple(tensors[f"calibration/counts/{m}"] for m in range(order)),
        tensors["calibration/quantiles"],
    )
    fits = (
        weights.shape == (kinds * (1 if content["units"] is None else dims[content["units"]] + 1), len(columns))
        and blend.shape == (len(members),)
        and len(holes.cells) in (0, math.prod(dims))
        and all(-1 <= c.source < len(members) and -1 <= c.interpolation < len(interpolations) for c in columns)
        and all(len(i.residual) == len(observed) for i in interpolations)
        and all(calibration.noise[m].shape == calibration.counts[m].shape == (dims[m] + 1,) for m in range(order))
        and calibration.quantiles.shape[0] == kinds
    )
    if not fits:
        raise ValueError
    return make(
        dims,
        Units(content["units"], tensors["units/shift"], tensors["units/scale"]),
        holes,
        members,
        blend,
        columns,
        weights,
        tuple(interpolations),
        observed,
        [tensors.get(f"positions/{m}") for m in range(order)],
        calibration,
        -math.inf if content["lowest"] is None else float(content["lowest"]),
        math.inf if content["highest"] is None else float(content["highest"]),
        bool(content["integers"]),
        dict(content["report"]),
    )


def _member(tensors: Mapping[str, Tensor], saved: Mapping[str, Any], number: int, dims: tuple[int, ...]) -> Member:
    model, effects = None, None
    shape = saved["factorization"]
    if shape is not None:
        children = tuple(() for _ in dims) + tuple(tuple(c) for c in shape["children"])
        tree = ModeTree(children)
        widths = dict(zip(tree.interior, shape["widths"], strict=True))
        model = HierarchicalTensorFactorization.blank(dims, tree, widths)
        start = f"members/{number}/weights/"
        model.load({name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)})
    if saved["effects"] is not None:
        terms = tuple(tuple(int(m) for m in t) for t in saved["effects"]["terms"])
        values = tuple(tensors[f"members/{number}/effects/{k}"] for k in range(len(terms)))
        if any(len(v) != math.prod(dims[m] for m in t) + 1 for v, t in zip(values, terms, strict=True)):
            raise ValueError
        effects = Effects(float(saved["effects"]["mean"]), terms, values, dims)
    link = Link(**saved["link"])
    if link.name not in ("identity", "log", "logit"):
        raise ValueError
    return Member(model, effects, link)
