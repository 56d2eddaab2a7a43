"""What others make of the tasks of `complete_accuracy`: tensorly, pyttb and teneva, each where it is installed.

    pip install tensorly pyttb teneva
    OMP_NUM_THREADS=1 python -m tests.benchmarks.complete_accuracy A B --seeds 0-2 --peers

Each gets what `complete` gets, the observed entries, and chooses its rank and start by a tenth of them held out, as a
person would; what it chose is not fitted again, which peers that overfit do not survive.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch

from htfcli.engine.samples import Entries

DENSE = 10**6  # entries up to which peers that need the whole tensor are asked
RANKS = (1, 2, 3, 4, 5, 7, 10)
STARTS = 2

Values = Callable[[np.ndarray], np.ndarray]  # index (n, N) -> predictions (n,)
Peer = Callable[[tuple[int, ...], np.ndarray, np.ndarray, int, int], Values]


def tensorly_cp(dims: tuple[int, ...], index: np.ndarray, value: np.ndarray, rank: int, seed: int) -> Values:
    """CP by alternating least squares, holes filled by the model of the last sweep (EM)."""
    from tensorly.decomposition import parafac

    dense, seen = _dense(dims, index, value)
    cp = parafac(dense, rank, n_iter_max=2000, init="random", mask=seen, random_state=seed, tol=1e-9)
    return _of_cp(cp.weights, cp.factors)


def pyttb_gcp(dims: tuple[int, ...], index: np.ndarray, value: np.ndarray, rank: int, seed: int) -> Values:
    """CP of the observed entries by L-BFGS-B."""
    import pyttb as ttb
    from pyttb.gcp.handles import Objectives
    from pyttb.gcp.optimizers import LBFGSB

    dense, seen = _dense(dims, index, value)
    np.random.seed(seed)  # its starts come from there
    found, _, _ = ttb.gcp_opt(
        ttb.tensor(dense), rank, Objectives.GAUSSIAN, LBFGSB(maxiter=1000, iprint=-1), mask=ttb.tensor(seen), printitn=0
    )
    return _of_cp(found.weights, found.factor_matrices)


def teneva_als(dims: tuple[int, ...], index: np.ndarray, value: np.ndarray, rank: int, seed: int) -> Values:
    """Tensor train by alternating least squares."""
    import teneva

    start = teneva.rand(list(dims), rank, seed=seed)
    cores = teneva.als(index, value, start, nswp=100, e=1e-14, allow_skip_cores=True)
    return lambda at: np.asarray(teneva.get_many(cores, at))


PEERS: dict[str, tuple[Peer, str, bool]] = {  # library that it needs, and whether it needs the whole tensor
    "tensorly CP": (tensorly_cp, "tensorly", True),
    "pyttb GCP": (pyttb_gcp, "pyttb", True),
    "teneva ALS": (teneva_als, "teneva", False),
}


def peer_errors(observed: Entries, dims: tuple[int, ...], index: torch.Tensor, value: torch.Tensor) -> dict[str, float]:
    """Relative error of each peer that is installed and can take a tensor of these dimensions."""
    entries, known = observed.index.numpy().astype(np.int64), observed.value.numpy()
    order = np.random.default_rng(0).permutation(len(known))
    held, rest = order[: len(known) // 10], order[len(known) // 10 :]
    errors = {}
    for name, (fit, library, whole) in PEERS.items():
        if importlib.util.find_spec(library) is None or (whole and np.prod(dims, dtype=float) > DENSE):
            continue
        best, lowest = None, np.inf
        for rank in RANKS:
            for seed in range(STARTS):
                with _quiet(), contextlib.suppress(np.linalg.LinAlgError, ValueError):  # a fit that broke down
                    values = fit(dims, entries[rest], known[rest], rank, seed)
                    error = np.linalg.norm(values(entries[held]) - known[held])
                    if error < lowest:
                        best, lowest = values, error
        if best is not None:
            errors[name] = float(np.linalg.norm(best(index.numpy()) - value.numpy()) / value.norm())
    return errors


def _dense(dims: tuple[int, ...], index: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The tensor with zeros where nothing is known, and ones where something is."""
    dense, seen = np.zeros(dims), np.zeros(dims)
    dense[tuple(index.T)] = value
    seen[tuple(index.T)] = 1
    return dense, seen


def _of_cp(weights: np.ndarray, factors: list[np.ndarray]) -> Values:
    def values(at: np.ndarray) -> np.ndarray:
        product = np.broadcast_to(weights, (len(at), len(weights)))
        for mode, factor in enumerate(factors):
            product = product * factor[at[:, mode]]
        return product.sum(1)

    return values


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
