"""Reproduction of a published experiment: its runs, which are a sweep, then figure and table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import yaml
from matplotlib.figure import Figure

from htfcli.experiments.figures.style import render
from htfcli.experiments.paper.accuracies import compare_accuracies, draw_accuracies
from htfcli.experiments.paper.comparison import Comparison
from htfcli.experiments.paper.curves import (
    compare_dynamics,
    compare_matricizations,
    draw_dynamics,
    draw_matricizations,
)
from htfcli.experiments.paper.initialization import compare_initialization, draw_initialization
from htfcli.experiments.paper.phase_transition import Recovery, compare_recovery, draw_recovery, recovery_notes
from htfcli.experiments.paper.published import published_plan
from htfcli.experiments.paper.theorem import compare_theorem, draw_theorem
from htfcli.experiments.sweeps.summary import Row
from htfcli.experiments.sweeps.sweep import Sweep
from htfcli.files.own.container import write_bytes, write_text

_SMALLER = (
    "At scale mini, images and network are smaller than the published ones (CIFAR-10 or 150 x 150 paths, ResNet18): "
    "compare the pattern, not the numbers."
)


Table = Sequence[Comparison] | Sequence[Recovery]


@dataclass(frozen=True)
class _Presentation:
    """How an experiment is shown: functions of (rows, folder of the sweep, scale) that give figure and table.

    Args:
        notes: gives the lines under the table, of (rows, scale).
    """

    draw: Callable[[Sequence[Row], Path, str], Figure]
    compare: Callable[[Sequence[Row], Path, str], Table]
    notes: Callable[[Sequence[Row], str], list[str]] = lambda rows, scale: []


def _accuracies(name: str, x: str) -> _Presentation:
    return _Presentation(
        lambda rows, sweep, scale: draw_accuracies(rows, name, scale, x),
        lambda rows, sweep, scale: compare_accuracies(rows, name, scale, x),
        lambda rows, scale: [_SMALLER] if scale == "mini" else [],
    )


def _of_sweep(
    draw: Callable[[Sequence[Row], Path], Figure], compare: Callable[[Sequence[Row], Path], Table]
) -> _Presentation:
    return _Presentation(
        lambda rows, sweep, scale: draw(rows, sweep),
        lambda rows, sweep, scale: compare(rows, sweep),
    )


_PRESENTATIONS = {
    "dynamics": _of_sweep(draw_dynamics, compare_dynamics),
    "matricizations": _of_sweep(draw_matricizations, compare_matricizations),
    "is-same-class": _accuracies("is-same-class", "distance"),
    "pathfinder": _accuracies("pathfinder", "path_length"),
    "baselines": _accuracies("baselines", "distance"),
    "phase-transition": _Presentation(
        lambda rows, sweep, scale: draw_recovery(rows),
        lambda rows, sweep, scale: compare_recovery(rows),
        lambda rows, scale: recovery_notes(rows),
    ),
    "theorem": _of_sweep(draw_theorem, compare_theorem),
    "initialization": _of_sweep(draw_initialization, compare_initialization),
}


class Reproduction:
    """A published experiment, checked and ready to start; its runs are the sweep in `OUTPUT/NAME`.

    Args:
        name: one of `paper.NAMES`. scale: mini or full. output: folder of the results.
        changes: `key=value` settings of all runs that differ from the published ones. force: see `Sweep`.
    Raises:
        ConfigError: as for `Sweep`.
    """

    def __init__(self, name: str, scale: str, output: str, *, changes: Sequence[str] = (), force: bool = False) -> None:
        self.name, self.scale = name, scale
        self._output = Path(output)
        plan = published_plan(name, scale)
        if changes:
            plan = plan.with_base(changes)
        self.sweep = Sweep(plan, str(self._output / name), force=force)

    def present(self, rows: Sequence[Row]) -> Table:
        """Write figure (PDF and PNG), table and plan of the finished runs; returns the table."""
        shown = _PRESENTATIONS[self.name]
        figure = shown.draw(rows, self.sweep.path, self.scale)
        for kind in ("pdf", "png"):
            write_bytes(str(self._output / f"{self.name}.{kind}"), render(figure, kind))
        table = shown.compare(rows, self.sweep.path, self.scale)
        write_text(self._output / f"{self.name}.md", self._markdown(table, shown.notes(rows, self.scale)))
        plan = yaml.safe_dump(self.sweep.plan.model_dump(mode="json", exclude_unset=True), sort_keys=False)
        head = f"# htf sweep {self.name}.yaml -o runs/{self.name}\n"
        write_text(self._output / f"{self.name}.yaml", head + plan)
        return table

    def _markdown(self, table: Table, notes: Sequence[str]) -> str:
        names = [field.name.replace("_over_", "/") for field in fields(table[0])]
        lines = [f"# {self.name}, scale {self.scale}", "", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
        lines += ["| " + " | ".join(_shown(name, value) for name, value in asdict(row).items()) + " |" for row in table]
        for note in notes:
            lines += ["", note]
        lines += ["", f"The runs are in `{self.name}/`, their plan for `htf sweep` in `{self.name}.yaml`."]
        return "\n".join(lines) + "\n"


def _shown(name: str, value: object) -> str:
    """A cell of the table; empty for the seeds of a published number."""
    return "" if name == "seeds" and not value else str(value)
