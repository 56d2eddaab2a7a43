"""`fit` of the Python API: a factorization fitted to observations, or to data of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from htfcli.api.inputs import labelled
from htfcli.config.records import Record
from htfcli.config.tensors import FitConfig
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.fitting.fit import fit as fit_observations
from htfcli.engine.observations.observations import Observations
from htfcli.engine.samples import Entries


def fit(
    observations: Any,
    config: FitConfig | None = None,
    *,
    modes: Sequence[Any] | None = None,
    value: Any = None,
    ordered: Sequence[str] = (),
    wide: bool | None = None,
    mask: Any = None,
    duplicates: Literal["refuse", "mean"] = "refuse",
    **settings: Any,
) -> tuple[Factorization, list[Record]]:
    """Fit a factorization to observations.

    Args:
        observations: `Observations`, or data of any kind that `complete` takes, (d_0, ..., d_{N-1}); holes are what is
            not observed.
        config: settings; the defaults of `htf fit` if None. settings: single ones by name, as width=16.
        modes, value, ordered, wide, mask, duplicates: what is a mode and a value of the data, as for `complete`.
    Returns: the factorization, in the units of the data, and the records of the run.
    Raises:
        ConfigError: if the configuration does not fit the data. DataError: if entries are out of range, repeated or not
            finite. RunError: if the run diverges.
    """
    if config is None:
        config = FitConfig.checked(settings)
    elif settings:
        config = FitConfig.checked(config.model_dump(exclude_unset=True) | settings)
    if not isinstance(observations, Observations):
        data = labelled(observations, modes=modes, value=value, ordered=ordered, wide=wide, mask=mask)
        entries, _ = data.observed(average=duplicates == "mean")
        observations = Observations(data.dims, Entries(entries.index.long(), entries.value))
    return fit_observations(observations, config)
