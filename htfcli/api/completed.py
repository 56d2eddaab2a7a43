"""What `complete` returns for data: the same kind of object with its holes filled, and all that is known of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from htfcli.api.inputs import Labelled, kind_of, modes_of
from htfcli.api.notebook import to_html
from htfcli.config.records import Record
from htfcli.engine.completion.result import Completion
from htfcli.errors import ConfigError, DataError
from htfcli.experiments.runs.completion_output import in_order
from htfcli.experiments.runs.completion_summary import described, headline, rows, summarize
from htfcli.files.foreign.frame_labels import Mode
from htfcli.files.foreign.frames import index_of
from htfcli.files.foreign.tensorly_formats import to_tensorly
from htfcli.files.own import container
from htfcli.files.own.completion import SavedCompletion, Slices, save_completion, slices_of, to_completion
from htfcli.files.own.container import refuse_existing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class FittedCompletion:
    """A completion that predicts entries by their labels.

    Args:
        completion: the tensor-level result. modes: their names and labels. value_name: what the values are called.
        report: plain data, with names and labels in place of numbers. config: settings that it was made with.
        slices: kept for the picture, of data of order 3.

    Attributes:
        completion: predictions by index, `values(index)`, `std(index)`, `interval(index, level)`.
        report: held-out errors by kind of holes, members and their weights, ranks, calibration, warnings.
    """

    def __init__(
        self,
        completion: Completion,
        modes: Sequence[Mode],
        value_name: str,
        report: Record,
        config: Record,
        slices: Slices | None = None,
    ) -> None:
        self.completion, self.report = completion, report
        self._modes, self._value_name, self._config, self._slices = tuple(modes), value_name, config, slices

    @property
    def ranks(self) -> dict[str, int]:
        """Rank at every node of the mode tree of the strongest factorization, by the names of its modes.

        Empty where no factorization counts: the mean and the effects of the modes predict best.
        """
        return {self._named(label): rank for label, rank in (self.report.get("hierarchical_rank") or {}).items()}

    def predict(self, rows: Any, level: float | None = None) -> Any:
        """Predictions of entries that are named by their labels, or by their indices where they have none.

        Labels that were never observed are predicted from the other modes alone.

        Args:
            rows: a DataFrame with a column, or a level of the index, per mode; or a sequence of tuples of labels, in
                the order of the modes, or of dictionaries; of arrays an array (n, N) of indices.
            level: add the ends of prediction intervals that hold the true value in this share of cases.
        Returns: (n,) float64; with a level three of these: value, lower, upper. For a DataFrame a Series, or a
            DataFrame of three columns, with its index.
        Raises:
            DataError: if the rows do not name entries. ConfigError: if the level is not between 0 and 1.
        """
        index = self._index(rows)
        value = self.completion.values(index).numpy()
        found = [value]
        if level is not None:
            found += [end.numpy() for end in self.completion.interval(index, _checked_level(level))]
        if kind_of(rows) != "frame":
            return value if level is None else tuple(found)
        import pandas as pd

        if level is None:
            return pd.Series(value, index=rows.index, name=self._value_name)
        names = (self._value_name, "lower", "upper")
        return pd.DataFrame(dict(zip(names, found, strict=True)), index=rows.index)

    def plot(self, what: Sequence[str] | None = None) -> Figure:
        """A matplotlib figure of members, held-out errors, calibration, held-out entries, the mode tree and slices.

        Args:
            what: some of `members`, `errors`, `calibration`, `held-out`, `tree`, `ridge`, `slices`; all if None.
        Raises:
            ConfigError: on any other name. DataError: if there is nothing to draw.
        """
        from htfcli.experiments.figures.completions import PANELS, DrawnCompletion, draw_completions, predicted_slices

        slices = predicted_slices(self._saved())
        drawn = DrawnCompletion("completion", list(self.report.get("steps") or []), self.report, slices)
        return draw_completions([drawn], tuple(PANELS) if what is None else tuple(what))

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the fit, with names and labels, to a .safetensors file.

        `htf complete FILE --predict rows.csv` and `load_completion` predict from it; the data are not in it.

        Args:
            path: of the file. force: replace what is there.
        Raises:
            ConfigError: if the file exists. DataError: if it cannot be written.
        """
        refuse_existing(str(path), force)
        save_completion(path, self._saved(), self._config)

    def to_tensorly(self) -> Any:
        """The strongest factorization as a CPTensor, TuckerTensor or TTTensor of tensorly, in units of the data.

        What is added to it (means, effects, interpolation, other members) is not in it; of noise-free data the
        factorization is everything.

        Raises:
            ConfigError: if its mode tree is none of theirs; tree="star" or "chain" asks for one that is.
            DataError: if no factorization counts, or it is one of logarithms or odds.
        """
        model = self.completion.model
        member = next((m for m in self.completion.members if m.model is model), None)
        if model is None or member is None:
            raise DataError("no factorization counts: the mean and effects of the modes predict best")
        if member.link:
            raise DataError("the factorization is one of transformed values", got=f"link {member.link.name}")
        units = self.completion.units
        model = model.to(dtype=torch.float64)
        if units.mode is None:
            at, factor = 0, units.scale.view(1, 1)
        else:
            at, factor = units.mode, units.scale[:-1].unsqueeze(1)
        leaf = model.node_weights[at]
        assert leaf is not None
        leaf.mul_(factor)
        return to_tensorly(model)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.completion.dims))
        names = ", ".join(mode.axis.name for mode in self._modes)
        return f"<{type(self).__name__}: {size} ({names}); {headline(self.report)}>"

    def __str__(self) -> str:
        found = rows(self.report)
        width = max(len(row["completion"]) for row in found)
        return "\n".join(f"{row['completion']:{width}}  {row['']}" for row in found)

    def _repr_html_(self) -> str:
        return to_html(self.report)

    def _named(self, label: str) -> str:
        tree = self.completion.model.tree if self.completion.model is not None else None
        node = tree.labels.index(label) if tree is not None and label in tree.labels else None
        if tree is None or node is None:
            return label
        return "{" + ", ".join(self._modes[mode].axis.name for mode in tree.modes[node]) + "}"

    def _index(self, rows: Any) -> Tensor:
        if all(mode.numbered for mode in self._modes) and kind_of(rows) == "array":
            order, dims = len(self._modes), self.completion.dims
            index = np.asarray(rows)
            if index.ndim != 2 or index.shape[1] != order or index.dtype.kind not in "iu":
                allowed = f"whole numbers of shape (n, {order})"
                raise DataError("the rows do not name entries by their indices", got=_shape(index), allowed=allowed)
            if wrong := [row for row in index.tolist() if any(not 0 <= i < d for i, d in zip(row, dims, strict=True))]:
                allowed = " x ".join(f"0-{d - 1}" for d in dims)
                raise DataError("the rows have an index out of range", got=wrong[0], allowed=allowed)
            return torch.from_numpy(index.astype(np.int64))
        return index_of(self._modes, rows)

    def _saved(self) -> SavedCompletion:
        axes = tuple(mode.axis for mode in self._modes)
        passing = ("seconds", "steps")  # equal fits are kept in equal bytes
        report = {key: value for key, value in self.completion.report.items() if key not in passing}
        return SavedCompletion(replace(self.completion, report=report), axes, self._value_name, self._slices)


class CompletedData(FittedCompletion):
    """Data with its holes filled in; everything below that has a value for each entry is of the kind that was given.

    Args:
        data: what was completed. completion: of it. smooth: replace observed entries by predictions too.
        config: settings.
    """

    def __init__(self, data: Labelled, completion: Completion, smooth: bool, config: Record) -> None:
        entries, _ = data.observed(average=True)
        report = {"predicted": data.missing, **summarize(completion, entries, data.axes)}
        report["warnings"] += data.remarks
        slices = slices_of(data.values) if hasattr(data, "values") else None
        super().__init__(completion, data.modes, data.value_name, report, config, slices)
        self._data, self._smooth = data, smooth

    @cached_property
    def filled(self) -> Any:
        """The data with predictions in place of their holes; labels, types and observed entries are as they were.

        Whole numbers are rounded. A long table in which no value is empty has a row added for every combination of
        labels that had none.
        """
        return self._data.filled(self.completion.values, everywhere=self._smooth)

    @cached_property
    def std(self) -> Any:
        """Predictive standard deviations of all entries, float64; of observed ones as if they had to be predicted."""
        return self._data.like(self.completion.std)

    def interval(self, level: float = 0.9) -> tuple[Any, Any]:
        """Lower and upper ends, float64, between which the true value is in this share of cases.

        Observed entries are both ends of theirs, unless these are replaced too.

        Raises:
            ConfigError: if the level is not between 0 and 1.
        """
        _checked_level(level)

        def end_of(side: int) -> Callable[[Tensor], Tensor]:
            return lambda index: self.completion.interval(index, level)[side]

        lower, upper = (self._data.like(end_of(side), keep=not self._smooth) for side in (0, 1))
        return lower, upper

    def imputations(self, count: int, seed: int | None = None) -> list[Any]:
        """Completed data sets drawn from the predictive distribution, for Rubin's rules.

        Args:
            count: how many. seed: of the draws; that of the completion if None.
        """
        index = self._data.asked()
        generator = torch.Generator().manual_seed(int(self._config["seed"] if seed is None else seed))
        drawn = self.completion.imputations(index, count, generator)
        return [self._data.filled(in_order(values)) for values in drawn]


def load_completion(path: str | Path) -> FittedCompletion:
    """A completion that was saved, by `save` or by `htf complete` (`model.safetensors` in its run folder).

    Raises:
        DataError: if it is damaged, or is something else.
    """
    artefact = container.read(Path(path)).expect("completion")
    saved = to_completion(artefact)
    report = described(saved.completion, saved.axes)
    return FittedCompletion(
        saved.completion, modes_of(saved.axes), saved.value_name, report, dict(artefact.config), saved.slices
    )


def _checked_level(level: float) -> float:
    if not 0 < level < 1:
        raise ConfigError("the level of an interval is a share", got=level, allowed="above 0 and below 1")
    return level


def _shape(index: np.ndarray) -> str:
    return f"{index.dtype} of shape {index.shape}"
