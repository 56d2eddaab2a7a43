"""`TensorCompleter`: completion as a transformer of scikit-learn, NaN in and filled out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from htfcli.errors import DataError, HtfError

try:
    from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError:
    raise DataError("TensorCompleter needs scikit-learn 1.6 or later", next_step="pip install 'htf[vision]'.") from None

_LEAST_NOISE = 1e-6  # of a column over its own deviation: exact data have none, and a row is divided by it


class _InvalidInputError(HtfError, ValueError):
    """As scikit-learn raises it."""


class TensorCompleter(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Fills the NaN of a matrix (samples, features), or of a tensor whose first axis is samples, by `complete`.

    Rows that were in the data of `fit` are filled as there. A new row is filled by its conditional mean in the
    probabilistic principal component model of the filled training data,

        x = mu + sigma * (L t + e),  t ~ N(0, I),  e ~ N(0, I),

    with mu the means of the columns, sigma (p,) their predictive deviations and L (p, r) the principal axes of the
    standardized data, scaled by the root of their variance beyond the noise: t = (I + L_o^T L_o)^(-1) L_o^T z_o, o the
    observed columns. Source: Tipping and Bishop, Probabilistic principal component analysis (JRSS B, 1999).

    Args:
        feature_shape: fold every row of a matrix into a tensor of this shape, as (items, occasions).
        tree, width, loss, min, max, integers, nonnegative, effort, seconds: as in `CompleteConfig`.
        random_state: seed of all random numbers; equal data are filled equally by default.

    Attributes:
        completion_: the `CompletedData` of the training data, with report, ranks and picture.
        n_features_in_, feature_names_in_: as of other transformers.
    """

    def __init__(
        self,
        *,
        feature_shape: Sequence[int] | None = None,
        tree: Any = "auto",
        width: Any = None,
        loss: str = "auto",
        min: float | None = None,
        max: float | None = None,
        integers: bool = False,
        nonnegative: bool = False,
        effort: str = "normal",
        seconds: float | None = None,
        random_state: Any = 0,
    ) -> None:
        self.feature_shape = feature_shape
        self.tree = tree
        self.width = width
        self.loss = loss
        self.min = min
        self.max = max
        self.integers = integers
        self.nonnegative = nonnegative
        self.effort = effort
        self.seconds = seconds
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803 -- scikit-learn's name
        """Complete the training data (n, p), or (n, d_1, ..., d_N), and keep what new rows are filled by.

        Raises:
            ValueError: if a value is infinite or no number, nothing is observed, or there is one sample only.
        """
        from htfcli.api.complete import complete

        found = self._validated(X, reset=True)
        shape = (len(found), *self._shape_of(found))
        if self.random_state is None or not isinstance(self.random_state, int | np.integer):
            seed = int(check_random_state(self.random_state).randint(2**31))
        else:
            seed = int(self.random_state)
        names = ("tree", "width", "loss", "min", "max", "integers", "nonnegative", "effort", "seconds")
        settings = {name: getattr(self, name) for name in names}
        try:
            self.completion_ = complete(found.reshape(shape), smooth=True, seed=seed, **settings)
        except HtfError as error:
            raise _InvalidInputError(str(error).rstrip(".")) from None
        flat = found.reshape(len(found), -1)
        predicted = np.asarray(self.completion_.filled, dtype=np.float64).reshape(flat.shape)
        self._filled = np.where(np.isnan(flat), predicted, flat)
        self._row_of = {key: row for row, key in reversed(list(enumerate(_keys(flat))))}
        deviation = np.asarray(self.completion_.std).reshape(flat.shape)
        self._mean, self._noise, self._loadings = _components(self._filled, deviation)
        return self

    def transform(self, X: Any) -> Any:  # noqa: N803
        """The data (n, p), or (n, d_1, ..., d_N), with NaN replaced; observed values stay as they are.

        Raises:
            ValueError: if they have other features than the training data.
        """
        check_is_fitted(self)
        found = self._validated(X, reset=False)
        flat = found.reshape(len(found), -1).astype(np.float64)
        filled = flat.copy()
        new = []
        for row, key in enumerate(_keys(flat)):
            known = self._row_of.get(key)
            if known is None:
                new.append(row)
            else:
                filled[row] = self._filled[known]
        if new:
            filled[new] = self._conditional(flat[new])
        filled = np.where(np.isnan(flat), filled, flat)
        return filled.reshape(found.shape).astype(found.dtype)

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> Any:  # noqa: N803
        """`fit(X)` and `transform(X)` of data (n, p), or (n, d_1, ..., d_N)."""
        return self.fit(X, y).transform(X)

    def _conditional(self, rows: np.ndarray) -> np.ndarray:
        """Conditional means (n, p) of rows given what is observed of them."""
        scaled = (rows - self._mean) / self._noise
        known = ~np.isnan(scaled)
        scaled = np.where(known, scaled, 0.0)
        patterns, which = np.unique(known, axis=0, return_inverse=True)
        latent = np.empty((len(rows), self._loadings.shape[1]))
        for number, pattern in enumerate(patterns):
            own = np.flatnonzero(which.reshape(-1) == number)
            loadings = self._loadings * pattern[:, None]
            inner = np.eye(loadings.shape[1]) + loadings.T @ loadings
            latent[own] = np.linalg.solve(inner, loadings.T @ scaled[own].T).T
        found = self._mean + self._noise * (latent @ self._loadings.T)
        completion = self.completion_.completion
        found = np.clip(found, completion.lowest, completion.highest)
        return np.asarray(np.rint(found) if completion.integers else found)

    def _shape_of(self, found: np.ndarray) -> tuple[int, ...]:
        """Of one sample."""
        if self.feature_shape is None:
            return tuple(found.shape[1:])
        shape = tuple(int(d) for d in self.feature_shape)
        if math.prod(shape) != math.prod(found.shape[1:]):
            got, allowed = " x ".join(map(str, shape)), f"{math.prod(found.shape[1:])} features"
            raise _InvalidInputError(
                "feature_shape does not have as many entries as there are features", got=got, allowed=allowed
            )
        return shape

    def _validated(self, X: Any, *, reset: bool) -> np.ndarray:  # noqa: N803
        found = validate_data(
            self,
            X,
            reset=reset,
            dtype=(np.float64, np.float32),
            ensure_all_finite="allow-nan",
            allow_nd=True,
            ensure_min_samples=2 if reset else 1,
        )
        return np.asarray(found)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _keys(rows: np.ndarray) -> list[bytes]:
    """Bytes that are equal for equal rows (n, p), NaN and zeros of either sign included."""
    found = np.where(np.isnan(rows), np.nan, rows + 0.0).astype(np.float64)
    return [row.tobytes() for row in np.ascontiguousarray(found)]


def _components(filled: np.ndarray, deviation: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means (p,), noise (p,) and loadings (p, r) of filled data (n, p), whose entries have predictive deviations."""
    mean = filled.mean(0)
    centred = filled - mean
    spread = np.sqrt(np.square(centred).mean(0))
    noise = np.sqrt(np.square(deviation).mean(0))
    noise = np.maximum(noise, _LEAST_NOISE * np.where(spread > 0, spread, 1.0))
    _, singular, axes = np.linalg.svd(centred / noise, full_matrices=False)
    variance = np.square(singular) / len(filled) - 1.0
    kept = variance > 0
    return mean, noise, axes[kept].T * np.sqrt(variance[kept])
