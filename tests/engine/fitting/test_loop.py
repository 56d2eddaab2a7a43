"""The loop of a fit: stop rules and resumed runs."""

from __future__ import annotations

import pytest
import torch

from htfcli.engine.observations.synthetic import make_observations
from htfcli.errors import DataError
from tests.engine.fitting.small_fits import SMALL, start

SMOOTH = {"optimizer": "sgd", "lr": 0.01, "init_std": 0.3}  # short steps of plain gradient descent: the loss falls


def first_run_below(losses, tolerance, patience):
    """Number of the record that ends the first run of `patience` consecutive losses below the tolerance."""
    return next(
        k for k in range(patience - 1, len(losses)) if all(x < tolerance for x in losses[k - patience + 1 : k + 1])
    )


@pytest.mark.parametrize("patience", [1, 4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_stops_after_consecutive_records_below_the_loss(dtype, patience):
    """The tolerance is one that the losses of a run without it pass on the way."""
    options = {**SMOOTH, "dtype": dtype, "iterations": 80, "record_every": 5}
    losses = [record["train_loss"] for record in start(make_observations(SMALL), **options).run()]
    tolerance = sorted(losses)[len(losses) // 2]
    run = start(make_observations(SMALL), **options, until_loss=tolerance, patience=patience)
    records = list(run.run())
    assert run.stop_reason == "loss"
    assert len(records) - 1 == first_run_below(losses, tolerance, patience)
    assert [record["train_loss"] for record in records] == losses[: len(records)]


def test_stops_after_iterations_and_seconds():
    run = start(make_observations(SMALL), iterations=25)
    assert [r["iteration"] for r in run.run()] == [0, 10, 20, 25]
    assert run.stop_reason == "iterations"
    run = start(make_observations(SMALL), iterations=10**9, seconds=0.05)
    list(run.run())
    assert run.stop_reason == "seconds"


@pytest.mark.parametrize(
    "settings", [{}, {"batch_size": 30}, {"optimizer": "adam"}, {"optimizer": "sgd", "momentum": 0.5}]
)
def test_resume_is_bit_for_bit(settings):
    observations = make_observations(SMALL)
    whole = start(observations, **settings)
    records = list(whole.run())
    halted = start(observations, **settings)
    before = list(halted.run(lambda iteration: iteration == 33))
    assert halted.stop_reason == "interrupted"
    resumed = start(observations, **settings)
    resumed.load_state(halted.state())
    assert before + list(resumed.run()) == records
    assert torch.equal(resumed.model.parameters, whole.model.parameters)


@pytest.mark.parametrize(("cut", "patience"), [(33, 7), (40, 7), (35, 3)])
def test_patience_counts_the_same_after_a_resume(cut, patience):
    """Also when the run was cut at a record, off the schedule of records, or stopped by a shorter patience."""
    observations = make_observations(SMALL)
    losses = [r["train_loss"] for r in start(observations, **SMOOTH, iterations=200).run()]
    options = {**SMOOTH, "until_loss": sorted(losses)[len(losses) // 2], "patience": 7, "iterations": 200}
    whole = start(observations, **options)
    records = list(whole.run())
    assert whole.stop_reason == "loss"
    cut_at = records[-1]["iteration"] - 70 + cut  # somewhere among the records that count
    first = start(observations, **options | {"iterations": cut_at, "patience": patience})
    list(first.run())
    second = start(observations, **options)
    second.load_state(first.state())
    assert list(second.run())[-1] == records[-1]


def test_a_state_of_another_model():
    observations = make_observations(SMALL)
    with pytest.raises(DataError, match="the checkpoint does not fit the model"):
        start(observations, width=5).load_state(start(observations).state())


def test_the_same_seed_is_the_same_run():
    observations = make_observations(SMALL)
    assert list(start(observations, seed=5).run()) == list(start(observations, seed=5).run())
    assert list(start(observations, seed=5).run()) != list(start(observations, seed=6).run())


@pytest.mark.parametrize("settings", [{}, {"batch_size": 30}, {"solver": "second-order"}])
def test_a_caller_that_computes_the_gradients(settings):
    """`course` asks for a gradient before every iteration, and once more before the last record."""
    observations = make_observations(SMALL)
    own, other = ({"solver": "gradient"} | settings | {"iterations": 7, "record_every": 3} for _ in range(2))
    wanted = list(start(observations, **own).run())
    run, asked, records = start(observations, **other), 0, []
    with torch.no_grad():
        for record in run.course():
            if record is None:
                run._descend()
                asked += 1
            else:
                records.append(record)
    assert records == wanted
    assert asked == 8
    assert run.iteration == 7


def test_an_interruption_yields_nothing():
    run = start(make_observations(SMALL))
    assert list(run.run(lambda iteration: True)) == []
    assert (run.stop_reason, run.iteration, run.good_state) == ("interrupted", 0, None)


def test_the_good_state_is_that_of_the_last_record():
    run = start(make_observations(SMALL), iterations=25)
    seen = []
    for _ in run.run():
        seen.append(None if run.good_state is None else int(run.good_state["counters"][0]))
    assert seen == [0, 10, 20, 20]


@pytest.mark.parametrize("scale", [3.0, 1e-30, 1e30])
def test_the_result_is_in_the_units_of_the_data(scale):
    run = start(make_observations(SMALL), dtype="float32", init_std=0.5)
    result = run.result(scale)
    assert result.parameters.dtype == (torch.float32 if scale == 3.0 else torch.float64)
    assert torch.allclose(result.dense().double() * scale, run.model.dense().double(), rtol=1e-4, atol=1e-6)


def test_a_state_of_the_other_solver():
    observations = make_observations(SMALL)
    one, other = start(observations), start(observations, solver="second-order")
    for loop, state in ((one, other.state()), (other, one.state())):
        with pytest.raises(DataError, match="the checkpoint does not fit the model"):
            loop.load_state(state)
