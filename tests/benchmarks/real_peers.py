"""What people would otherwise pick for the tables of `real_tables`, with defaults, or tuned on a tenth held out.

    pip install scikit-learn tensorly scikit-image

Those whose package is not installed are left out. Each gets the shown entries and predicts the hidden ones.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np

from tests.benchmarks.real_tables import Table

Array = np.ndarray
Predict = Callable[[Array], Array]  # shown, NaN at the holes -> filled, of the same shape

PRIOR = 2.0  # observations that say "no effect"
PRIOR_OF_RATINGS = 5.0
SWEEPS = 30
MOST_COLUMNS, MOST_ROWS = 200, 20_000  # of a matrix that imputers of scikit-learn are asked about
RANKS = (1, 2, 3, 5, 8, 12)


def peers(table: Table) -> Iterator[tuple[str, Array, float]]:
    """Name, predictions of the hidden entries (h,) and CPU seconds of each."""
    known = ~np.isnan(table.values)
    hidden = (table.hole > 0) & known
    for name, predict in _peers(table).items():
        started = time.process_time()
        shown = np.where(hidden, np.nan, table.values)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            filled = predict(shown)
        yield name, filled[hidden], time.process_time() - started


def _peers(table: Table) -> dict[str, Predict]:
    if table.index is not None:
        index = table.index
        return {"mean": mean, "effects": lambda y: listed_effects(index, y)}
    found: dict[str, Predict] = {"mean": mean, "effects": effects}
    order = table.values.ndim
    if order > 2:
        found["pairs"] = pairs
    if table.time is not None:
        at = table.time
        found["interpolation"] = lambda x: interpolated(x, effects(x), at)
        found["interpolation of what pairs leave"] = lambda x: interpolated_rest(x, at)
    for mode in range(order):
        found[f"softImpute {mode}"] = lambda x, mode=mode: unfolded(x, mode, soft_impute)
    if importlib.util.find_spec("sklearn") is not None:
        for mode, d in enumerate(table.values.shape):
            if d <= MOST_COLUMNS and table.values.size / d <= MOST_ROWS:
                found[f"KNNImputer {mode}"] = lambda x, mode=mode: unfolded(x, mode, knn)
                if d <= 30:
                    found[f"IterativeImputer {mode}"] = lambda x, mode=mode: unfolded(x, mode, iterative)
        if table.counts:
            found["Poisson pairs"] = poisson
            found["log pairs"] = lambda x: np.expm1(pairs(np.log1p(x)))
    if importlib.util.find_spec("tensorly") is not None:
        found["parafac"] = parafac
    d = table.values.shape
    if importlib.util.find_spec("skimage") is not None and order == 3 and min(d[:2]) >= 32 and d[2] <= 4:
        found["biharmonic"] = biharmonic
    return found


# --- mean, effects, interpolation -----------------------------------------------------------------------------------------


def mean(shown: Array) -> Array:
    return np.where(np.isnan(shown), np.nanmean(shown), shown)


def effects(shown: Array) -> Array:
    """A shrunken effect of every index of every mode, (d_0, ...) everywhere."""
    return _backfitted(shown, [(mode,) for mode in range(shown.ndim)])


def pairs(shown: Array) -> Array:
    """A shrunken effect of every pair of indices."""
    terms = list(combinations(range(shown.ndim), 2))
    return _backfitted(shown, [(mode,) for mode in range(shown.ndim)] + (terms if shown.ndim > 2 else []))


def _backfitted(shown: Array, terms: list[tuple[int, ...]]) -> Array:
    known = ~np.isnan(shown)
    centre = np.nanmean(shown)
    total = np.full(shown.shape, centre)
    parts = [np.zeros([d if m in term else 1 for m, d in enumerate(shown.shape)]) for term in terms]
    counts = [known.sum(tuple(m for m in range(shown.ndim) if m not in term), keepdims=True) for term in terms]
    for _ in range(SWEEPS):
        for number, term in enumerate(terms):
            others = tuple(m for m in range(shown.ndim) if m not in term)
            rest = np.where(known, shown - total + parts[number], 0.0).sum(others, keepdims=True)
            fresh = rest / (counts[number] + PRIOR)
            total = total + fresh - parts[number]
            parts[number] = fresh
    return total


def interpolated_rest(shown: Array, along: int) -> Array:
    base = pairs(shown)
    return base + interpolated(shown - base, np.zeros_like(shown), along)


def listed_effects(index: Array, shown: Array) -> Array:
    """The same for a list of entries of which a few are known."""
    known = ~np.isnan(shown)
    centre = np.nanmean(shown)
    parts = [np.zeros(index[:, mode].max() + 1) for mode in range(index.shape[1])]
    for _ in range(SWEEPS):
        for mode, own in enumerate(index.T):
            rest = shown - centre - sum(p[index[:, m]] for m, p in enumerate(parts) if m != mode)
            sums = np.bincount(own[known], rest[known], len(parts[mode]))
            parts[mode] = sums / (np.bincount(own[known], minlength=len(parts[mode])) + PRIOR_OF_RATINGS)
    return centre + sum(p[index[:, m]] for m, p in enumerate(parts))


def interpolated(shown: Array, otherwise: Array, along: int) -> Array:
    """Linear along a mode within every fibre; `otherwise` where nothing of a fibre is known."""
    moved, filled = np.moveaxis(shown, along, -1), np.moveaxis(otherwise.copy(), along, -1)
    at = np.arange(moved.shape[-1])
    for place in np.ndindex(moved.shape[:-1]):
        known = ~np.isnan(moved[place])
        if known.any():
            filled[place] = np.interp(at, at[known], moved[place][known])
    return np.moveaxis(filled, -1, along)


# --- matrices -------------------------------------------------------------------------------------------------------------


def unfolded(shown: Array, mode: int, fill: Predict) -> Array:
    """A tensor as a matrix of which a mode is the columns, scaled, filled and folded back."""
    matrix = np.moveaxis(shown, mode, -1)
    folded = matrix.shape
    matrix = matrix.reshape(-1, folded[-1])
    shift, scale = np.nanmean(matrix, 0), np.nanstd(matrix, 0)
    shift, scale = np.nan_to_num(shift, nan=float(np.nanmean(shown))), np.where(scale > 0, scale, 1.0)
    filled = fill((matrix - shift) / scale)
    return np.moveaxis((shift + scale * np.nan_to_num(filled)).reshape(folded), -1, mode)


def knn(matrix: Array) -> Array:
    from sklearn.impute import KNNImputer

    return KNNImputer(keep_empty_features=True).fit_transform(matrix)


def iterative(matrix: Array) -> Array:
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    return IterativeImputer(random_state=0, keep_empty_features=True).fit_transform(matrix)


def soft_impute(matrix: Array) -> Array:
    """Soft-thresholded singular values (Mazumder, Hastie, Tibshirani, JMLR 11, 2010), the threshold by a tenth held out."""
    known = ~np.isnan(matrix)
    held = known & (np.random.default_rng(0).random(matrix.shape) < 0.1)

    def path(seen: Array) -> Iterator[Array]:
        filled = np.where(seen, matrix, 0.0)
        start = np.linalg.svd(filled, compute_uv=False)[0]
        for threshold in start * 0.6 ** np.arange(1, 13):
            for _ in range(8):
                u, s, v = np.linalg.svd(filled, full_matrices=False)
                low = (u * np.maximum(s - threshold, 0)) @ v
                filled = np.where(seen, matrix, low)
            yield low

    errors = [np.square(low - matrix)[held].sum() for low in path(known & ~held)]
    best = int(np.argmin(errors))
    return next(low for number, low in enumerate(path(known)) if number == best)


# --- others -----------------------------------------------------------------------------------------------------------------


def parafac(shown: Array) -> Array:
    """tensorly's masked CP; the rank by a tenth held out."""
    from tensorly import cp_to_tensor
    from tensorly.decomposition import parafac as fit

    known = ~np.isnan(shown)
    centre, scale = np.nanmean(shown), np.nanstd(shown) or 1.0
    values = np.where(known, (shown - centre) / scale, 0.0)
    held = known & (np.random.default_rng(0).random(shown.shape) < 0.1)

    def filled(seen: Array, rank: int) -> Array:
        options = {"n_iter_max": 300, "init": "random", "random_state": 0, "tol": 1e-6}
        return cp_to_tensor(fit(values * seen, rank, mask=seen, **options))

    def error(rank: int) -> float:
        return float(np.square(filled(known & ~held, rank) - values)[held].sum())

    best = min((rank for rank in RANKS if rank <= max(shown.shape)), key=error)
    return centre + scale * filled(known, best)


def poisson(shown: Array) -> Array:
    """A log-linear model of pairs, a little shrunken."""
    from sklearn.linear_model import PoissonRegressor
    from sklearn.preprocessing import OneHotEncoder

    place = np.indices(shown.shape).reshape(shown.ndim, -1).T
    terms = [place[:, [m]] for m in range(shown.ndim)]
    terms += [place[:, [a]] * shown.shape[b] + place[:, [b]] for a, b in combinations(range(shown.ndim), 2)]
    features = OneHotEncoder().fit_transform(np.concatenate(terms, 1))
    known = ~np.isnan(shown.ravel())
    model = PoissonRegressor(alpha=1e-3, max_iter=300).fit(features[known], shown.ravel()[known])
    return model.predict(features).reshape(shown.shape)


def biharmonic(shown: Array) -> Array:
    from skimage.restoration import inpaint_biharmonic

    filled = [inpaint_biharmonic(np.nan_to_num(x), np.isnan(x)) for x in np.moveaxis(shown, -1, 0)]
    return np.stack(filled, -1)
