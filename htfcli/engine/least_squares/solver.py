"""The least-squares solver for a model of a given size."""

from __future__ import annotations

from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.least_squares.alternating import AlternatingLeastSquares
from htfcli.engine.least_squares.levenberg_marquardt import MATRIX_LIMIT, LevenbergMarquardt
from htfcli.engine.samples import Entries

Solver = LevenbergMarquardt | AlternatingLeastSquares


def make_solver(model: Factorization, entries: Entries, ridge: float = 0.0, loss: str = "l2") -> Solver:
    """The solver for a model of this size."""
    kind = LevenbergMarquardt if len(model.parameters) <= MATRIX_LIMIT else AlternatingLeastSquares
    return kind(model, entries, ridge, loss)
