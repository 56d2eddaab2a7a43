"""The published curves that leave zero: one seed drawn as published, and over all seeds when and how many do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from htfcli.engine.ranks.hierarchical_rank import spectra_at
from htfcli.errors import DataError
from htfcli.experiments.figures.fits import Panel, draw_panel, ranked_curves
from htfcli.experiments.figures.style import new_figure
from htfcli.experiments.paper.comparison import Comparison, mean_and_error, quartiles, share
from htfcli.experiments.paper.published import PUBLISHED_DYNAMICS
from htfcli.experiments.sweeps.summary import Row
from htfcli.files.own.artefacts import to_observations
from htfcli.files.own.container import read
from htfcli.files.own.records import Records, load_records

LEFT_ZERO = 0.01  # a value has left zero once it exceeds this fraction of the largest final value
_TOP = 10
_NORM, _SINGULAR = "component_norms", "singular_values"
_YLABEL = {_NORM: "component norm", _SINGULAR: "singular value"}
_LOWEST = 1e-4  # end of the axis of values over the largest one


@dataclass(frozen=True)
class Curves:
    """A panel of curves that leave zero.

    Args:
        title: of the panel. model: whose runs are drawn. key: the list in their records. node: where it is recorded.
        modes: the matricization whose rank is compared with the target's.
    """

    title: str
    model: str
    key: str
    node: str
    modes: tuple[int, ...]

    def of(self, run: Records) -> list[tuple[str, list[float | None]]]:
        """Label and values of the largest curves of a run."""
        return ranked_curves(self.node, self.key)(run)[:_TOP]


DYNAMICS = (
    Curves("matrix factorization", "matrix", _SINGULAR, "{0}", (0,)),
    Curves("tensor factorization", "cp", _NORM, "{0,1,2}", (0,)),
    Curves("hierarchical tensor factorization", "htf", _NORM, "{0,1,2,3}", (0, 1)),
)
MATRICIZATIONS = (
    Curves("local components at {1, 2}", "htf", _NORM, "{0,1}", (0, 1)),
    Curves("local components at {1, 2, 3, 4}", "htf", _NORM, "{0,1,2,3}", (0, 1)),
    Curves("matricization {1, 2}, in the tree", "htf", _SINGULAR, "{0,1}", (0, 1)),
    Curves("matricization {1, 3}, not in the tree", "htf", _SINGULAR, "{0,2}", (0, 2)),
)


@dataclass(frozen=True)
class Fitted:
    """A finished fit: the row of its summary, and its records."""

    row: Row
    run: Records

    @property
    def rank(self) -> int:
        """Components per node of the target."""
        return int(self.row["generate"]["width"])

    def target(self, modes: tuple[int, ...]) -> tuple[list[float], float]:
        """Singular values of a matricization of the target over the largest one, and its effective rank."""
        target = to_observations(read(Path(self.row["data"]))).target
        if target is None:
            raise DataError(f"{self.row['data']} does not contain the target")
        (spectrum,) = spectra_at(target, [modes])
        values = spectrum.scaled(_TOP)
        return [value / values[0] for value in values], spectrum.effective_rank

    def effective_rank(self, modes: tuple[int, ...]) -> float:
        """Effective rank of a matricization at the last record."""
        last = self.run.records[-1]
        places: list[Row] = [*last["nodes"], *last.get("matricizations", [])]
        found = next(place for place in places if tuple(place["modes"]) == modes and "effective_rank" in place)
        return float(found["effective_rank"])


_DrawSeeds = Callable[[Axes, Curves, Sequence[Fitted]], None]


def fits_of(rows: Sequence[Row], sweep: Path, model: str) -> list[Fitted]:
    """The finished fits of a model, in the order of the plan; `sweep` is the folder."""
    chosen = [row for row in rows if row["settings"]["model"] == model and row["status"] == "finished"]
    return [Fitted(row, load_records(str(sweep / "runs" / row["run"]))) for row in chosen]


def rises(panel: Curves, run: Records) -> list[int]:
    """The first recorded iteration at which each curve has left zero, for the curves that do, in increasing order."""
    values = _values(panel, run)
    above = values > LEFT_ZERO * np.nanmax(values[:, -1])
    return sorted(run.records[int(np.argmax(row))]["iteration"] for row in above if row[-1])


def one_after_another(times: Sequence[int]) -> bool:
    """Whether no two curves left zero between the same two records."""
    return len(set(times)) == len(times)


def _values(panel: Curves, run: Records) -> npt.NDArray[np.float64]:
    return np.array([[math.nan if v is None else v for v in values] for _, values in panel.of(run)])


# --- figures ----------------------------------------------------------------------------------------------------------


def draw_dynamics(rows: Sequence[Row], sweep: Path) -> Figure:
    """Draw the curves of the first seed, and under them when each value leaves zero, over all seeds."""
    return _draw(rows, sweep, DYNAMICS, _draw_times)


def draw_matricizations(rows: Sequence[Row], sweep: Path) -> Figure:
    """Draw the curves of the first seed, and under them the values at the end, over all seeds."""
    return _draw(rows, sweep, MATRICIZATIONS, _draw_ends)


def _draw(rows: Sequence[Row], sweep: Path, panels: Sequence[Curves], draw_seeds: _DrawSeeds) -> Figure:
    with new_figure(3.1 * len(panels), 4.8, dpi=200) as figure:
        for number, panel in enumerate(panels):
            fits = fits_of(rows, sweep, panel.model)
            axes = figure.add_subplot(2, len(panels), number + 1)
            first = fits[0]
            shown = Panel(panel.title, _YLABEL[panel.key], panel.of, ranked=True)
            iterations = [r["iteration"] for r in first.run.records]
            draw_panel(axes, shown, panel.of(first.run), iterations, False, False)
            axes.set_title(f"{panel.title}\nseed {first.row['settings']['seed']}")
            axes.set_ylabel(f"top {_TOP} {_YLABEL[panel.key]}s")
            axes.set_xlabel("iteration")
            axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
            draw_seeds(figure.add_subplot(2, len(panels), len(panels) + number + 1), panel, fits)
    return figure


def _draw_times(axes: Axes, panel: Curves, fits: Sequence[Fitted]) -> None:
    times = [rises(panel, fit.run) for fit in fits]
    most = max(map(len, times))
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, _TOP))  # as above
    for k in range(most):
        found = [of[k] for of in times if len(of) > k]
        low, middle, high = np.quantile(found, [0.25, 0.5, 0.75])
        axes.plot([low, high], [k + 1, k + 1], color=colors[k], linewidth=5, alpha=0.35, solid_capstyle="butt")
        axes.plot([middle], [k + 1], "|", color=colors[k], markersize=13, markeredgewidth=2)
        axes.plot(found, [k + 1] * len(found), "o", color=colors[k], markersize=2.5, alpha=0.8)
        if len(found) < len(fits):
            axes.annotate(
                share([len(of) > k for of in times]), (0.99, k + 1), xycoords=("axes fraction", "data"),
                ha="right", va="center", fontsize=6,
            )  # fmt: skip
    axes.set_title(f"{len(fits)} seeds: median and quartiles")
    axes.set_xlabel("iteration at which it leaves zero")
    axes.set_ylabel(f"{_YLABEL[panel.key]}, in order")
    axes.set_xlim(0, 1.2 * max((time for of in times for time in of), default=1))  # with room for the counts
    axes.set_ylim(0.4, most + 0.8)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")


def _draw_ends(axes: Axes, panel: Curves, fits: Sequence[Fitted]) -> None:
    ends = [np.sort(_values(panel, fit.run)[:, -1])[::-1] for fit in fits]
    values = np.array([end / end[0] for end in ends])
    low, middle, high = np.nanquantile(values, [0.25, 0.5, 0.75], axis=0).clip(_LOWEST)
    number = np.arange(1, len(middle) + 1)
    axes.errorbar(
        number, middle, yerr=[middle - low, high - middle], fmt="o", color="#31688e", markersize=4, capsize=2.5,
        label="end of the fit",
    )  # fmt: skip
    if panel.key == _SINGULAR:
        of_target = np.array([fit.target(panel.modes)[0] for fit in fits])
        places = np.arange(1, of_target.shape[1] + 1)
        axes.plot(places, np.median(of_target, axis=0).clip(_LOWEST), "x", color="#d95f02", label="target")
        axes.legend(loc="lower left")
    axes.axhline(LEFT_ZERO, color="0.4", linewidth=0.8, linestyle=":")
    axes.set_yscale("log")
    axes.set_ylim(_LOWEST / 1.5, 2)
    axes.set_title(f"{len(fits)} seeds: median and quartiles")
    axes.set_xlabel(f"{_YLABEL[panel.key]}, in order")
    axes.set_ylabel("at the end, over the largest")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


# --- tables -----------------------------------------------------------------------------------------------------------


def compare_dynamics(rows: Sequence[Row], sweep: Path) -> list[Comparison]:
    """Compare how many values leave zero and when: the first seed as published, then all seeds."""
    return [row for panel in DYNAMICS for row in _dynamics_of(panel, fits_of(rows, sweep, panel.model))]


def _dynamics_of(panel: Curves, fits: Sequence[Fitted]) -> list[Comparison]:
    times = [rises(panel, fit.run) for fit in fits]
    apart = [one_after_another(of) for of in times]
    low = [len(of) <= fit.rank for of, fit in zip(times, fits, strict=True)]
    iterations = [fit.run.records[-1]["iteration"] for fit in fits]
    found: list[tuple[str, str, int]] = [
        ("values that leave zero", str(len(times[0])), 1),
        ("one after another", "yes" if apart[0] else "some together", 1),
        ("they leave zero at iterations", "; ".join(f"{time:,}" for time in times[0]), 1),
        ("iterations", f"{iterations[0]:,}", 1),
    ]
    seeds = len(fits)
    if seeds > 1:
        both = [a and b for a, b in zip(apart, low, strict=True)]
        found.append(("values that leave zero, median (quartiles)", quartiles([len(of) for of in times]), seeds))
        for k in range(max(map(len, times))):
            at = [of[k] for of in times if len(of) > k]
            found.append((f"number {k + 1} leaves zero at iteration, median (quartiles)", quartiles(at), len(at)))
        found.append(("iterations, median (quartiles)", quartiles(iterations), seeds))
        found.append(("seeds in which they leave one after another", share(apart), seeds))
        found.append(("seeds with no more values than the target's rank", share(low), seeds))
        found.append(("seeds with both, as published", share(both), seeds))
        found += _ranks(panel, fits)
    published = {quantity: of.get(panel.model, "") for quantity, of in PUBLISHED_DYNAMICS.items()}
    return [Comparison(panel.title, name, published.get(name, ""), ours, count) for name, ours, count in found]


def _ranks(panel: Curves, fits: Sequence[Fitted]) -> list[tuple[str, str, int]]:
    modes = ", ".join(str(mode + 1) for mode in panel.modes)
    name = f"effective rank at {{{modes}}}, mean ± standard error"
    return [
        (name, mean_and_error([fit.effective_rank(panel.modes) for fit in fits]), len(fits)),
        (f"{name}, of the target", mean_and_error([fit.target(panel.modes)[1] for fit in fits]), len(fits)),
    ]


def compare_matricizations(rows: Sequence[Row], sweep: Path) -> list[Comparison]:
    """Compare matricizations of nodes of the mode tree, which have low rank, with one that is not a node."""
    found = []
    fits = fits_of(rows, sweep, "htf")
    for panel in MATRICIZATIONS:
        counts = [len(rises(panel, fit.run)) for fit in fits]
        published = "" if panel.node == "{0,2}" else "about 5"
        name = f"of the top {_TOP} {_YLABEL[panel.key]}s, those that leave zero"
        found.append(Comparison(panel.title, name, published, str(counts[0]), 1))
        if len(fits) > 1:
            found.append(Comparison(panel.title, f"{name}, median (quartiles)", "", quartiles(counts), len(fits)))
        if panel.key == _SINGULAR:
            first = f"{fits[0].effective_rank(panel.modes):.2f}"
            found.append(Comparison(panel.title, "effective rank", "", first, 1))
        if panel.key == _SINGULAR and len(fits) > 1:
            found += [Comparison(panel.title, text, "", ours, count) for text, ours, count in _ranks(panel, fits)]
    if len(fits) > 1:
        inside, outside = ([fit.effective_rank(p.modes) for fit in fits] for p in MATRICIZATIONS[2:])
        lower = [i < o for i, o in zip(inside, outside, strict=True)]
        found.append(
            Comparison("both", "seeds with a lower rank in the tree than outside", "", share(lower), len(fits))
        )
    return found
