"""The choice of a solver by the number of parameters."""

from __future__ import annotations

import pytest
import torch

from htfcli.engine.factorizations.cp import CPFactorization
from htfcli.engine.least_squares import solver as solvers
from htfcli.engine.least_squares.alternating import AlternatingLeastSquares
from htfcli.engine.least_squares.levenberg_marquardt import LevenbergMarquardt
from htfcli.engine.least_squares.solver import make_solver
from tests.problems import generator, random_sample


@pytest.mark.parametrize(("limit", "kind"), [(24, LevenbergMarquardt), (23, AlternatingLeastSquares)])
def test_the_limit_is_in_parameters(monkeypatch, limit, kind):
    model = CPFactorization((5, 4, 3), 2).init_gaussian(1.0, generator())
    assert len(model.parameters) == 24
    monkeypatch.setattr(solvers, "MATRIX_LIMIT", limit)
    entries = random_sample("entries", model.dims, 30, 0)
    solver = make_solver(model, entries, 0.5, "huber")
    assert type(solver) is kind
    assert solver.ridge == 0.5
    residual = model.values(entries.index) - entries.value
    squares = float(residual.square().sum())
    assert solver.objective == pytest.approx(squares + 0.5 * float(model.parameters.square().sum()))
    solver.run(1)  # the weights of the robust loss apply now
    residual = model.values(entries.index) - entries.value
    assert 0 < solver.loss < float(residual.square().sum())
    assert torch.isfinite(model.parameters).all()
