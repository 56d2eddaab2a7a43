"""The figure of a run, by the kind of its records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from htfcli.errors import ConfigError, DataError
from htfcli.experiments.figures.completions import PANELS, plot_completions
from htfcli.experiments.figures.fits import DEFAULT, plot_runs
from htfcli.experiments.figures.networks import plot_locality, plot_training
from htfcli.files.own.records import Records


@dataclass(frozen=True)
class Wishes:
    """What of a run is to be drawn, and how; None and empty for what suits it."""

    what: Sequence[str] | None = None
    nodes: Sequence[Sequence[int]] = ()
    top: int | None = None
    log_x: bool = False
    log_y: bool = False


def draw(runs: Sequence[Records], wishes: Wishes) -> Figure:
    """Draw runs of one kind.

    Raises:
        ConfigError: if they are of several kinds, or what is wished for is not drawn of this one.
        DataError: if they do not hold what records of this kind do.
    """
    kinds = sorted({run.kind for run in runs})
    if len(kinds) > 1:
        raise ConfigError("runs of different kinds do not go into one figure", got=" and ".join(kinds))
    try:
        return FIGURES[kinds[0]](runs, wishes)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        names = ", ".join(run.name for run in runs)
        raise DataError(f"the records of {names} are not as htf writes them", got=repr(error)[:80]) from error


def _fits(runs: Sequence[Records], wishes: Wishes) -> Figure:
    what = wishes.what or DEFAULT
    return plot_runs(runs, what, wishes.nodes, top=wishes.top, log_x=wishes.log_x, log_y=wishes.log_y)


def _completions(runs: Sequence[Records], wishes: Wishes) -> Figure:
    if wishes.nodes or wishes.top is not None or wishes.log_x or wishes.log_y:
        raise ConfigError("--node, --top, --log-x and --log-y are for records of fits", allowed="--what")
    return plot_completions(runs, wishes.what or tuple(PANELS))


def _networks(plot: Callable[[Sequence[Records]], Figure]) -> Callable[[Sequence[Records], Wishes], Figure]:
    def figure(runs: Sequence[Records], wishes: Wishes) -> Figure:
        if wishes != Wishes():
            raise ConfigError("--what, --node, --top, --log-x and --log-y are for other records", got=runs[0].kind)
        return plot(runs)

    return figure


FIGURES: dict[str, Callable[[Sequence[Records], Wishes], Figure]] = {
    "iteration": _fits,
    "complete": _completions,
    "epoch": _networks(plot_training),
    "locality": _networks(plot_locality),
}
