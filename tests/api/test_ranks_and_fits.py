"""`hierarchical_rank`, `spectra_of` and `fit` take what `complete` takes; results as tensors of tensorly."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from htfcli import CPFactorization, FitConfig, complete, fit, hierarchical_rank, spectra_of, to_tensorly
from htfcli.errors import ConfigError, DataError

FACTORS = [np.random.default_rng(k).random((d, 2)) for k, d in enumerate((5, 4, 6))]
TENSOR = np.einsum("ir,jr,kr->ijk", *FACTORS)


def long(values=TENSOR) -> pd.DataFrame:
    rows = [(f"a{i}", 2000 + j, f"c{k}", values[i, j, k]) for i, j, k in np.ndindex(values.shape)]
    return pd.DataFrame(rows, columns=["a", "b", "c", "value"]).sample(frac=1, random_state=0)


KINDS = {
    "numpy": TENSOR,
    "integers": np.add.outer(np.add.outer(np.arange(5), np.arange(4)), np.arange(6)),  # rank two as well
    "list": TENSOR.tolist(),
    "torch": torch.tensor(TENSOR),
    "frame": long(),
    "series": long().set_index(["a", "b", "c"])["value"],
    "xarray": xr.DataArray(TENSOR, dims=list("abc")),
    "factorization": CPFactorization((5, 4, 6), 2).load({f"factor{k}": torch.tensor(f) for k, f in enumerate(FACTORS)}),
    "tensorly": to_tensorly(CPFactorization((5, 4, 6), 2).load({f"factor{k}": torch.tensor(f) for k, f in enumerate(FACTORS)})),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_of_every_kind(kind):
    assert hierarchical_rank(KINDS[kind], tolerance=1e-9)[:3] == (2, 2, 2)
    assert [spectrum.rank(1e-9) for spectrum in spectra_of(KINDS[kind])][:3] == [2, 2, 2]


def test_columns_are_named_as_for_complete():
    frame = long().assign(note=1.0)
    assert hierarchical_rank(frame, tolerance=1e-9, modes=["a", "b", "c"], value="value")[:3] == (2, 2, 2)


def test_holes_have_no_rank():
    holes = np.where(np.quantile(TENSOR, 0.8) < TENSOR, np.nan, TENSOR)
    for given in (holes, torch.tensor(holes), long(holes)):
        with pytest.raises(DataError, match=r"has missing entries .* Complete it first: complete\(data\)\.filled\."):
            hierarchical_rank(given)


@pytest.mark.parametrize("kind", ["numpy", "list", "torch", "series", "xarray"])
def test_fits_of_every_kind(kind):
    model, records = fit(KINDS[kind], FitConfig(iterations=3, width=2), seed=5)
    other, _ = fit(torch.tensor(TENSOR), iterations=3, width=2, seed=5)
    assert model.dims == (5, 4, 6)
    assert torch.equal(model.parameters, other.parameters)
    assert records


def test_holes_are_not_observed():
    holes = np.where(np.quantile(TENSOR, 0.8) < TENSOR, np.nan, TENSOR)
    model, _ = fit(holes, solver="second-order", width=4, iterations=200)
    known = ~np.isnan(holes)
    assert np.abs(model.dense().numpy() - TENSOR)[known].max() < 1e-3
    with pytest.raises(ConfigError, match="unknown setting widht"):
        fit(holes, widht=3)


def test_a_completion_as_a_tensor_of_tensorly():
    """In units of the data: of noise-free data the factorization is everything."""
    holes = TENSOR.copy()
    holes[0, 1, 2] = holes[3, 3, 3] = np.nan
    done = complete(100 * holes, tree="star", width=3, effort="quick")
    tensor = done.to_tensorly()
    assert type(tensor).__name__ == "CPTensor"
    assert np.allclose(tensor.to_tensor(), 100 * TENSOR, rtol=1e-6)
    assert hierarchical_rank(done) == (2, 2, 2)
    assert done.ranks == {"{0}": 2, "{1}": 2, "{2}": 2}
    assert np.allclose(done.to_tensorly().to_tensor(), tensor.to_tensor())  # asking changed nothing
    assert np.allclose(np.asarray(done.filled), 100 * TENSOR, rtol=1e-6)


def test_where_no_factorization_counts():
    done = complete([[1, 2, None], [4, 5, 7]])  # too few entries for anything but their mean
    assert done.filled[0][2] == pytest.approx(3.8)
    with pytest.raises(DataError, match="no factorization counts"):
        done.to_tensorly()
    with pytest.raises(DataError, match="no factorization counts"):
        hierarchical_rank(done)
    assert done.ranks == {}


def test_variables_in_units_of_their_own():
    """The mode of variables has its scales in the tensor of tensorly; their means are not in it."""
    variables = np.einsum(
        "ir,jr,kr->ijk", *(np.random.default_rng(k).standard_normal((d, 2)) for k, d in enumerate((9, 8, 3)))
    )
    holes = variables * [1.0, 1e3, 1e6]
    holes[1, 2, 0] = holes[4, 4, 2] = np.nan
    done = complete(holes, tree="star", width=3, effort="quick")
    units = done.completion.units
    assert units.mode == 2
    index = torch.cartesian_prod(*map(torch.arange, holes.shape))
    shift, scale = units.of(index)
    fitted = done.completion.model.values(index)
    found = torch.tensor(done.to_tensorly().to_tensor()).flatten()
    assert torch.allclose(found, scale * fitted)
    residual = (torch.tensor(np.asarray(done.filled)).flatten() - shift - found) / scale
    assert float(residual.square().mean().sqrt()) < 0.3  # of a deviation: what means, effects and other members add
