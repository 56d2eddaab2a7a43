"""A completion in numbers: the record that a machine reads, and the rows of the table that goes into a report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from htfcli.engine.factorizations.mode_tree import ModeTree, Nested
from htfcli.engine.samples import Entries
from htfcli.engine.completion.predictor import Completion
from htfcli.engine.ranks.hierarchical_rank import FactoredSpectra
from htfcli.files.own.axes import Axis
from htfcli.config.units import duration

Record = dict[str, Any]

_MOST_RANKS = 24  # rows of a table
_NAMED = 20  # labels listed of a mode
LONG = ("held_out", "steps")  # parts of a report that a reader of stdout does not want


def summarize(completion: Completion, entries: Entries, axes: Sequence[Axis]) -> Record:
    """What is known of a completion: its report, ranks, and labels instead of numbers.

    Args:
        completion: the result. entries: what it was fitted to. axes: the modes.
    """
    report, model = dict(completion.report), completion.predictor.model
    if not all(isinstance(report.get(key), dict) for key in ("hierarchical_rank", "effective_rank")):
        spectra = FactoredSpectra(model).spectra()
        report["hierarchical_rank"] = {s.label: s.rank() for s in spectra}
        report["effective_rank"] = {s.label: s.effective_rank for s in spectra}
    unobserved = unobserved_in(entries, axes)
    return {
        **report,
        "modes": [axis.name for axis in axes],
        "dims": list(model.dims),
        "observed": len(entries),
        "tree": named_tree(model.tree.to_nested(), axes),
        "mode_tree": model.tree.to_nested(),
        "widths": {model.tree.labels[v]: model.widths[v] for v in model.tree.interior},
        "parameters": len(model.parameters),
        "unobserved": unobserved,
        "warnings": [*report.get("warnings", []), *map(_without_observation, unobserved)],
    }


def unobserved_in(entries: Entries, axes: Sequence[Axis]) -> list[Record]:
    """Modes that have indices without any observation, with the first labels of these."""
    found = []
    for mode, axis in enumerate(axes):
        absent = torch.nonzero(torch.bincount(entries.index[:, mode], minlength=axis.size) == 0).flatten().tolist()
        if absent:
            named = [axis.label(index) for index in absent[:_NAMED]]
            found.append({"mode": axis.name, "count": len(absent), "labels": named, "first": axis.place(absent[0])})
    return found


def _without_observation(absent: Record) -> str:
    more = f" and {absent['count'] - 1} more" if absent["count"] > 1 else ""
    return f"cannot be predicted, as nothing there is observed: {absent['first']}{more}; a default is filled in"


def named_tree(nested: Nested, axes: Sequence[Axis]) -> str:
    """A mode tree in a line, as `((ligand, dose), (cell, time))`."""
    if isinstance(nested, int):
        return axes[nested].name
    return f"({', '.join(named_tree(part, axes) for part in nested)})"


def rows(summary: Record) -> list[Record]:
    """The rows of the table for a person; what a report lacks is left out."""
    tree = ModeTree.from_nested(summary["mode_tree"])
    total = math.prod(summary["dims"])
    size = " x ".join(map(str, summary["dims"]))
    shown: list[tuple[str, str | None]] = [
        ("tensor", f"{size} ({', '.join(summary['modes'])})"),
        ("observed", f"{summary['observed']:,} of {f'{total:,}' if total < 10**15 else 'far more'} entries"),
        ("predicted", f"{summary['predicted']:,}"),
        ("held-out relative error", _with_spread(summary, "held_out_error")),
        ("held-out R^2", _with_spread(summary, "r2")),
        ("train relative error", _with_spread(summary, "train_error")),
        ("mode tree", summary["tree"]),
    ]
    ranks, effective = summary["hierarchical_rank"], summary["effective_rank"]
    if len(ranks) > _MOST_RANKS:
        span = f"{min(ranks.values())} to {max(ranks.values())}"
        shown.append(("ranks", f"{span} at {len(ranks)} nodes (htf measure-rank lists them)"))
    else:
        for node in range(tree.root):
            label = tree.labels[node]
            if label in ranks and label in effective:
                name = "{" + ", ".join(summary["modes"][mode] for mode in tree.modes[node]) + "}"
                shown.append((f"rank of {name}", f"{ranks[label]} (effective rank {effective[label]:.3g})"))
    shown += [(key, str(summary[key]) if key in summary else None) for key in ("centre", "loss", "solver")]
    shown += [("time", duration(summary["seconds"]))]
    shown += [("warning", text) for text in summary["warnings"]]
    return [{"completion": what, "": value} for what, value in shown if value is not None]


def headline(summary: Record) -> str:
    """The result in a line."""
    error = _with_spread(summary, "held_out_error")
    return f"{summary['predicted']:,} entries predicted" + (f", held-out relative error {error}" if error else "")


def _with_spread(summary: Record, key: str) -> str | None:
    value, spread = summary.get(key), summary.get(f"{key}_spread")
    if not isinstance(value, float) or math.isnan(value):
        return None
    return f"{value:.4g}" + (f" +- {spread:.2g}" if isinstance(spread, float) and not math.isnan(spread) else "")
