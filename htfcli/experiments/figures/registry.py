"""Registry of figures: how the records of each kind of run are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from htfcli.errors import ConfigError, DataError
from htfcli.experiments.figures.completions import PANELS, plot_completions
from htfcli.experiments.figures.entanglement import plot_entanglement
from htfcli.experiments.figures.fits import DEFAULT, plot_runs
from htfcli.experiments.figures.networks import plot_locality, plot_training
from htfcli.files.own.records import Records


@dataclass(frozen=True)
class PlotOptions:
    """What to draw and how; the defaults suit each kind of run.

    Args:
        what: quantities. nodes: mode sets. top: curves per panel. log_x, log_y: logarithmic axes.
    """

    what: Sequence[str] | None = None
    nodes: Sequence[Sequence[int]] = ()
    top: int | None = None
    log_x: bool = False
    log_y: bool = False


def draw(runs: Sequence[Records], options: PlotOptions) -> Figure:
    """Draw runs of one kind.

    Raises:
        ConfigError: if the runs are of several kinds, or an option does not apply to their kind.
        DataError: if the records lack fields that records of their kind have.
    """
    kinds = sorted({run.kind for run in runs})
    if len(kinds) > 1:
        raise ConfigError("runs of different kinds cannot share a figure", got=" and ".join(kinds))
    try:
        return FIGURES[kinds[0]](runs, options)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        names = ", ".join(run.name for run in runs)
        raise DataError(f"the records of {names} are not as htf writes them", got=repr(error)[:80]) from error


def _fits(runs: Sequence[Records], options: PlotOptions) -> Figure:
    what = options.what or DEFAULT
    return plot_runs(runs, what, options.nodes, top=options.top, log_x=options.log_x, log_y=options.log_y)


def _completions(runs: Sequence[Records], options: PlotOptions) -> Figure:
    if options.nodes or options.top is not None or options.log_x or options.log_y:
        raise ConfigError("--node, --top, --log-x and --log-y are for records of fits", allowed="--what")
    return plot_completions(runs, options.what or tuple(PANELS))


def _whole(plot: Callable[[Sequence[Records]], Figure]) -> Callable[[Sequence[Records], PlotOptions], Figure]:
    def figure(runs: Sequence[Records], options: PlotOptions) -> Figure:
        if options != PlotOptions():
            raise ConfigError("--what, --node, --top, --log-x and --log-y are for other records", got=runs[0].kind)
        return plot(runs)

    return figure


FIGURES: dict[str, Callable[[Sequence[Records], PlotOptions], Figure]] = {
    "iteration": _fits,
    "complete": _completions,
    "epoch": _whole(plot_training),
    "locality": _whole(plot_locality),
    "entanglement": _whole(plot_entanglement),
}
