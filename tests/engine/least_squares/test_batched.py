"""Levenberg-Marquardt on a batch of problems, and degrees of freedom."""

from __future__ import annotations

import pytest
import torch

from htfcli.config.tensors import TargetConfig
from htfcli.engine.least_squares.batched import EntryBatch, minimize_batch
from htfcli.engine.least_squares.degrees_of_freedom import jacobian_rank
from htfcli.engine.least_squares.jacobian import Sweeps
from htfcli.engine.observations.observations import sample_entries
from htfcli.engine.observations.synthetic import make_target
from htfcli.engine.samples import Entries

TREES = {
    "matrix": {"target": "matrix", "dims": [5, 4], "width": 2},
    "cp": {"target": "cp", "order": 3, "dim": 4, "width": 2},
    "htf": {"order": 4, "dims": [3, 2, 4, 3], "width": 2},
    "tucker": {"order": 3, "dim": 4, "tree": [[0], [1], [2]], "width": [2, 3]},
}


def target(values, seed=0):
    return make_target(TargetConfig.checked(values), torch.Generator().manual_seed(seed))


def everywhere(model):
    return torch.cartesian_prod(*(torch.arange(d) for d in model.dims))


def batch(values, runs, count):
    """Problems with their own targets and entries, and random weights for each."""
    targets = [target(values, seed) for seed in range(runs)]
    generator = torch.Generator().manual_seed(5)
    index = torch.stack([sample_entries(targets[0].dims, count, generator).long() for _ in targets])
    value = torch.stack([t.values(i) for t, i in zip(targets, index, strict=True)])
    starts = torch.randn(runs, len(targets[0].parameters), generator=generator, dtype=torch.float64)
    return targets, EntryBatch(targets[0], index, value), starts


@pytest.mark.parametrize("values", TREES.values(), ids=TREES)
def test_derivatives_are_those_of_each_problem(values):
    targets, entries, weights = batch(values, runs=3, count=11)
    jacobian, residual = entries.jacobian(weights)
    gradient = entries.gradient(weights)
    torch.testing.assert_close(entries.residuals(weights), residual)
    for k, model in enumerate(targets):
        one = Sweeps(model, Entries(entries.index[k], entries.value[k]))
        torch.testing.assert_close(residual[k], one.residuals(weights[k]))
        torch.testing.assert_close(jacobian[k], one.jacobian(weights[k]))
        torch.testing.assert_close(gradient[k], one.gradient(weights[k])[0] / 11)


def test_fully_observed_problems_are_solved():
    """From next to the solution, with and without a ridge at first; a problem that is hopeless does not disturb them."""
    targets, entries, noise = batch(TREES["cp"], runs=4, count=64)
    starts = torch.stack([t.parameters for t in targets]) + 0.05 * noise
    entries.value[3] = torch.randn(64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ridge = torch.tensor([0.0, 1e-3, 0.0, 0.0], dtype=torch.float64)
    ends, errors = minimize_batch(targets[0], starts, entries, torch.arange(4), ridge, 100)
    assert errors[:3].max() < 1e-12 < 1e-2 < errors[3]
    for k in range(3):
        model = targets[k].to()
        model.parameters.copy_(ends[k])
        torch.testing.assert_close(model.dense(), targets[k].dense(), rtol=1e-9, atol=1e-9)


def test_a_group_ends_with_its_first_solution():
    """A start at the solution ends the other start of its group at once, and no other group."""
    targets, entries, noise = batch(TREES["cp"], runs=2, count=64)
    first = targets[0].parameters
    starts = torch.stack([first, first + 0.3 * noise[0], targets[1].parameters + 0.05 * noise[1]])
    entries = entries.select(torch.tensor([0, 0, 1]))
    ends, errors = minimize_batch(
        targets[0], starts, entries, torch.tensor([0, 0, 1]), torch.zeros(3, dtype=torch.float64), 50
    )
    assert torch.equal(ends[1], starts[1])
    assert errors[0] < 1e-13 < errors[1]
    assert errors[2] < 1e-12


@pytest.mark.parametrize(
    ("values", "freedom"),
    [
        (TREES["matrix"], 2 * (5 + 4 - 2)),
        (TREES["cp"], 2 * (12 - 3 + 1)),
        (TREES["tucker"], 3 * (4 * 2 - 2 * 2) + 2**3),
        ({"order": 4, "dim": 4, "width": 2}, 28),  # counted by hand: matrices 7 + 7 at each of two nodes
    ],
    ids=["matrix", "cp", "tucker", "htf"],
)
def test_degrees_of_freedom_are_known(values, freedom):
    """R (m + n - R); R (sum d - N + 1); Tucker's; and for HTF of width 2 and order 4: the span of two 4 x 4 rank-one
    matrices has 12, twice, and the 2 x 2 matrix between the spans 4."""
    model = target(values)
    assert jacobian_rank(model, everywhere(model)) == freedom


def test_few_entries_determine_no_more_than_there_are():
    model = target(TREES["htf"])
    assert jacobian_rank(model, everywhere(model)[:5]) <= 5
