"""A completion in numbers: the record that a machine reads, and the rows of the table that goes into a report."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import torch

from htfcli.config.records import Record
from htfcli.config.units import duration
from htfcli.engine.completion.result import Completion
from htfcli.engine.factorizations.mode_tree import ModeTree, Nested
from htfcli.engine.samples import Entries
from htfcli.files.own.axes import Axis

_MOST_ROWS = 24  # of a table, for ranks and for indices
_NAMED = 20  # labels listed of a mode
COUNTS = 0.01  # weight from which a member is worth a row
_STATED = 0.9  # the interval whose share of held-out entries is a row
LONG = ("scatter", "calibration", "steps")  # parts of a report that a reader of stdout does not want


def summarize(completion: Completion, entries: Entries, axes: Sequence[Axis]) -> Record:
    """What is known of a completion: its report, with names and labels instead of numbers.

    Args:
        completion: the result. entries: what it was fitted to. axes: the modes.
    """
    report = described(completion, axes)
    unobserved = unobserved_in(entries, axes)
    ordered = {one["mode"] for one in report.get("ordered") or []}
    return {
        **report,
        "observed": len(entries),
        "unobserved": unobserved,
        "warnings": [*report.get("warnings", []), *(_unobserved(one, one["mode"] in ordered) for one in unobserved)],
    }


def described(completion: Completion, axes: Sequence[Axis]) -> Record:
    """The report of a completion with names and labels instead of numbers, and its strongest factorization.

    Args:
        completion: the result. axes: the modes.
    """
    report, model = named(completion.report, axes), completion.model
    strongest: Record = {"tree": None, "mode_tree": None, "widths": {}, "parameters": 0}
    if model is not None:
        strongest = {
            "tree": named_tree(model.tree.to_nested(), axes),
            "mode_tree": model.tree.to_nested(),
            "widths": {model.tree.labels[v]: model.widths[v] for v in model.tree.interior},
            "parameters": len(model.parameters),
        }
    return {
        **report,
        "modes": [axis.name for axis in axes],
        "dims": list(completion.dims),
        **strongest,
        "coverage_90": _coverage(report.get("calibration") or {}),
    }


def named(report: Record, axes: Sequence[Axis]) -> Record:
    """A report whose numbers of modes and indices are replaced by what these are called."""
    found: Record = {key: value if key == "steps" else _renamed(value, axes) for key, value in report.items()}
    for member in found.get("members") or []:
        for one in (member, *(member.get("parts") or [])):
            if isinstance(one.get("tree"), list):
                one["tree"] = named_tree(one["tree"], axes)
    of_mode = [*(found.get("ordered") or []), *([found["units"]] if found.get("units") else [])]
    for one in found.get("per_index") or []:
        one["label"] = axes[one["mode"]].label(one["index"])
        of_mode.append(one)
    for one in of_mode:
        one["mode"] = axes[one["mode"]].name
    return found


def _renamed(value: Any, axes: Sequence[Axis]) -> Any:
    """The same data; `mode 1` in a text, also in a key, is the name of mode 1 if it has one."""
    if isinstance(value, dict):
        return {_renamed(key, axes): _renamed(part, axes) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_renamed(part, axes) for part in value]
    if not isinstance(value, str) or all(axis.name == str(mode) for mode, axis in enumerate(axes)):
        return value
    return re.sub(
        r"\bmodes? (\d+(?:, \d+)*)", lambda found: ", ".join(axes[int(m)].name for m in found[1].split(", ")), value
    )


def unobserved_in(entries: Entries, axes: Sequence[Axis]) -> list[Record]:
    """Modes that have indices without any observation, with the first labels of these."""
    found = []
    for mode, axis in enumerate(axes):
        absent = torch.nonzero(torch.bincount(entries.index[:, mode], minlength=axis.size) == 0).flatten().tolist()
        if absent:
            labels = [axis.label(index) for index in absent[:_NAMED]]
            found.append({"mode": axis.name, "count": len(absent), "labels": labels, "first": axis.place(absent[0])})
    return found


def _unobserved(absent: Record, ordered: bool) -> str:
    more = f" and {absent['count'] - 1:,} more" if absent["count"] > 1 else ""
    basis = "its neighbours and " if ordered else ""
    return f"no observations at {absent['first']}{more}; predictions there are defaults, from {basis}the other modes"


def named_tree(nested: Nested, axes: Sequence[Axis]) -> str:
    """A mode tree in a line, as `((ligand, dose), (cell, time))`."""
    if isinstance(nested, int):
        return axes[nested].name
    return f"({', '.join(named_tree(part, axes) for part in nested)})"


# --- the table --------------------------------------------------------------------------------------------------------


def rows(summary: Record) -> list[Record]:
    """The rows of the table for a person; what a report lacks is left out."""
    total = math.prod(summary["dims"])
    size = " x ".join(map(str, summary["dims"]))
    shown: list[tuple[str, str | None]] = [
        ("tensor", f"{size} ({', '.join(summary['modes'])})"),
        ("observed", _observed(summary, total)),
        ("predicted", f"{summary['predicted']:,}" if "predicted" in summary else None),
        *_held_out(summary),
        ("held-out R^2", _number(summary.get("r2"))),
        ("train relative error", _number(summary.get("train_error"))),
        *_covered(summary),
        ("loss", summary.get("loss")),
        *_members(summary),
        ("mode tree", summary["tree"]),
        *_ranks(summary),
        *_ordered(summary),
        *_per_index(summary),
        ("effort", _effort(summary)),
        ("time", duration(summary["seconds"]) if "seconds" in summary else None),
        *(("warning", text) for text in summary["warnings"]),
    ]
    return [{"completion": what, "": value} for what, value in shown if value is not None]


def _observed(summary: Record, total: int) -> str | None:
    if "observed" not in summary:
        return None
    return f"{summary['observed']:,} of {f'{total:,}' if total < 10**15 else 'far more'} entries"


def _held_out(summary: Record) -> list[tuple[str, str | None]]:
    kinds = summary.get("held_out") or {}
    if not kinds:
        return [("held-out relative error", _number(summary.get("held_out_error")))]
    found: list[tuple[str, str | None]] = []
    for kind, one in kinds.items():
        error, baseline = _number(one.get("error")), _number(one.get("baseline"))
        share = one.get("share")
        parts = [f"baseline {baseline}"] if baseline is not None else []
        parts += [f"{one['count']:,} entries"] if "count" in one else []
        parts += [f"{100 * share:.0f} % of the holes"] if _finite(share) else []
        found.append((f"held-out error, {kind}", None if error is None else f"{error} ({', '.join(parts)})"))
    return found


def _coverage(calibration: Record) -> dict[str, float]:
    """The share of held-out entries inside their 90 % intervals, by kind of holes."""
    shares = {}
    for kind, one in calibration.items():
        pairs = zip(one.get("stated", []), one.get("observed", []), strict=False)
        near = min(pairs, key=lambda pair: abs(pair[0] - _STATED), default=None)
        if near is not None and abs(near[0] - _STATED) < 0.02 and _finite(near[1]):
            shares[kind] = near[1]
    return shares


def _covered(summary: Record) -> list[tuple[str, str | None]]:
    shares = [f"{share:.2f} ({kind})" for kind, share in (summary.get("coverage_90") or {}).items()]
    return [("held out, inside 90 %", ", ".join(shares) or None)]


def _members(summary: Record) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    for member in summary.get("members") or []:
        weights = {kind: w for kind, w in (member.get("weights") or {}).items() if _finite(w) and w >= COUNTS}
        if weights:
            shown = ", ".join(f"{weight:.2f} ({kind})" for kind, weight in weights.items())
            found.append(("member", f"{member_name(member)}: weight {shown}"))
            for part in member.get("parts") or []:
                found.append(("", f"{part['weight']:.2f} of it {member_name(part)}"))
    return found


def member_name(member: Record) -> str:
    """A member in a few words: its tree and width, or what else it is, and whether it is interpolated."""
    if member.get("tree"):
        name = f"{member['tree']}" + (f", width {member['width']}" if member.get("width") is not None else "")
        name += f", ridge {member['ridge']:.3g}" if _finite(member.get("ridge")) else ""
    else:
        name = str(member.get("name")).removesuffix(", interpolated")
    return name + (" + interpolation" if member.get("interpolated") else "")


def _ranks(summary: Record) -> list[tuple[str, str | None]]:
    ranks, effective = summary.get("hierarchical_rank") or {}, summary.get("effective_rank") or {}
    if summary["mode_tree"] is None or not ranks:
        return []
    if len(ranks) > _MOST_ROWS:
        span = f"{min(ranks.values())} to {max(ranks.values())}"
        return [("ranks", f"{span} at {len(ranks)} nodes (htf measure-rank lists them)")]
    tree, found = ModeTree.from_nested(summary["mode_tree"]), list[tuple[str, str | None]]()
    for node in range(tree.root):
        label = tree.labels[node]
        if label in ranks and label in effective:
            name = "{" + ", ".join(summary["modes"][mode] for mode in tree.modes[node]) + "}"
            found.append((f"rank of {name}", f"{ranks[label]} (effective rank {effective[label]:.3g})"))
    return found


def _ordered(summary: Record) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    for one in summary.get("ordered") or []:
        parts = [f"{key} {one[key]:.3g}" for key in ("smoothing", "length", "nugget") if _finite(one.get(key))]
        found.append((f"order of {'mode ' if one['mode'].isdigit() else ''}{one['mode']}", ", ".join(parts) or "used"))
    return found


def _per_index(summary: Record) -> list[tuple[str, str | None]]:
    return [
        (
            f"held-out error, {'mode ' if one['mode'].isdigit() else ''}{one['mode']} {one['label']}",
            f"{_number(one.get('error'))} (its own mean {_number(one.get('baseline'))})",
        )
        for one in (summary.get("per_index") or [])[:_MOST_ROWS]
        if _finite(one.get("error"))
    ]


def _effort(summary: Record) -> str | None:
    if not summary.get("still_falling"):
        return summary.get("effort")
    advice = "" if summary.get("effort") == "thorough" else "; --effort thorough goes on"
    return f"{summary.get('effort')} (the held-out error was still falling{advice})"


def headline(summary: Record) -> str:
    """The result in a line."""
    error = _number(summary.get("held_out_error"))
    parts = [f"{summary['predicted']:,} entries predicted"] if "predicted" in summary else []
    return ", ".join(parts + ([f"held-out relative error {error}"] if error else []))


def _number(value: object) -> str | None:
    return f"{value:.4g}" if _finite(value) else None


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
