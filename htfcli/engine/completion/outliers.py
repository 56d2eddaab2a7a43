"""Observations that lie far from what all others say: spikes of a sensor, zeros that stand for nothing.

Least squares are decided by them, and no average of such fits is any good. So where a few residuals make up much of the
squared error, a robust fit (Huber) is tried on values cut off at first; if it predicts the other held-out entries
clearly better, what lies far from it is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from htfcli.engine.completion.members import Fit
from htfcli.engine.completion.splits import Split
from htfcli.engine.completion.training import Candidate
from htfcli.engine.least_squares.robust import deviation_of
from htfcli.engine.samples import Entries

_FAR = 10.0  # deviations, by the middle of the residuals, from which a residual is an outlier's (case 02)
_HALF = 0.5  # of the squared residuals, that outliers make up; of the error of least squares, that a robust fit makes
_MOST = 0.05  # share of outliers: more are no outliers


def heavy_tailed(residual: Tensor) -> bool:
    """Whether a few of the residuals (n,) make up more of their squares than noise does."""
    size = residual.abs()
    tail = size[size > _HALF * _FAR * deviation_of(size)]  # least squares have followed outliers half the way
    return bool(tail.square().sum() > _HALF * size.square().sum())


def find_outliers(
    candidate: Candidate, split: Split, entries: Entries, between: Mapping[int, Tensor], sweeps: int
) -> Tensor | None:
    """Which observations (n,) are outliers; None where there are none.

    Args:
        candidate: the best by least squares. split: that it was fitted on. entries: all of them. sweeps: of the
        robust fit.
    """
    plain = candidate.members[0]
    assert plain.model is not None
    miss = plain.at(split.held.index) - split.held.value
    if not heavy_tailed(torch.cat([miss, plain.at(split.train.index) - split.train.value])):
        return None
    middle = float(split.train.value.median())
    limit = _FAR * deviation_of((split.train.value - middle).abs())
    if limit == 0.0:
        return None
    clipped = split.train.value.clamp(middle - limit, middle + limit)
    size = float(clipped.square().mean().sqrt()) or 1.0
    recipe = replace(candidate.recipe, loss="huber", centre="")
    fit = Fit(recipe, replace(split.train, value=clipped / size), between)
    for ridge in (0.5, 0.1, 0.02):
        fit.run(sweeps, ridge, 0.0)
    robust = fit.member()
    residual = size * robust.at(entries.index) - entries.value
    far = residual.abs() > _FAR * deviation_of(residual.abs())
    if not bool(far.any()) or float(far.double().mean()) > _MOST:
        return None
    for mode, d in enumerate(plain.model.dims):  # an index most of whose entries are far off is no row of spikes
        count = torch.bincount(entries.index[:, mode], minlength=d)
        off = torch.bincount(entries.index[far, mode], minlength=d)
        most = 2 * off > count
        if bool(((count >= 4) & most).any()):
            return None
        far &= ~most[entries.index[:, mode].long()]  # of an index seen once or twice, nothing may be left
    if not bool(far.any()):
        return None
    own = size * robust.at(split.held.index) - split.held.value
    inside = own.abs() <= _FAR * deviation_of(residual.abs())
    if float(miss[~inside].square().mean()) < float(miss[inside].square().mean()):  # not so if none is held out
        return None  # what least squares predict from the others is no outlier: the robust fit is wrong there
    better = float(own[inside].square().mean()) < _HALF**2 * float(miss[inside].square().mean())
    return far if better else None
