"""`TensorCompleter` among the transformers of scikit-learn."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from htfcli import HtfError, TensorCompleter

QUICK = TensorCompleter(effort="quick", tree="star", width=3)
CHECKS = list(estimator_checks_generator(QUICK, mark="skip"))


def name_of(check) -> str:
    return getattr(check, "func", check).__name__


def marked(check):
    """Those about being a transformer in every run, the others nightly: each fits several times."""
    always = any(word in name_of(check) for word in ("transformer", "n_features", "parameters_default", "set_output"))
    return pytest.param(check, marks=pytest.mark.slow if always else pytest.mark.long, id=name_of(check))


@pytest.mark.parametrize("check", [marked(check) for _, check in CHECKS])
def test_scikit_learn(check):
    """All checks that scikit-learn has for transformers; it leaves out only that of array libraries, which are an option
    that is not switched on."""
    check(clone(QUICK))


def test_that_checks_are_many():
    assert len(CHECKS) > 35


def data(rows=60, seed=0):
    """(rows, 6) of rank two with noise, NaN at a fifth of it."""
    generator = np.random.default_rng(seed)
    loadings = np.random.default_rng(99).standard_normal((2, 6))
    full = generator.standard_normal((rows, 2)) @ loadings + 3 + 0.05 * generator.standard_normal((rows, 6))
    return full, np.where(generator.random(full.shape) < 0.2, np.nan, full)


@pytest.fixture(scope="module")
def fitted():
    return clone(QUICK).fit(data()[1])


def test_filled(fitted):
    full, holes = data()
    filled = fitted.transform(holes)
    known = ~np.isnan(holes)
    assert np.array_equal(filled[known], holes[known])
    error = np.sqrt(np.mean((filled - full)[~known] ** 2))
    assert error < 0.3 * full.std()
    assert np.array_equal(filled, fitted.completion_.filled[: len(filled)]) or np.allclose(
        filled[~known], np.asarray(fitted.completion_.filled)[~known]
    )


def test_new_rows_are_filled_from_what_is_observed_of_them(fitted):
    full, holes = data(40, seed=5)
    filled = fitted.transform(holes)
    known = ~np.isnan(holes)
    assert np.array_equal(filled[known], holes[known])
    by_mean = np.nanmean(data()[1], axis=0)
    error = np.sqrt(np.mean((filled - full)[~known] ** 2))
    assert error < 0.4 * np.sqrt(np.mean((by_mean - full)[~known] ** 2))


def test_a_row_of_which_nothing_is_observed_is_the_mean(fitted):
    filled = fitted.transform(np.full((1, 6), np.nan))
    assert np.allclose(filled, np.asarray(fitted._filled).mean(0))


def test_new_rows_against_the_conditional_mean_of_a_normal_distribution(fitted):
    """The formula with latent variables against that with the covariance matrix."""
    row = np.array([[1.0, np.nan, 2.0, 3.0, np.nan, 4.0]])
    known = ~np.isnan(row[0])
    covariance = fitted._loadings @ fitted._loadings.T + np.eye(6)
    covariance = covariance * np.outer(fitted._noise, fitted._noise)
    away = row[0, known] - fitted._mean[known]
    gain = covariance[np.ix_(~known, known)] @ np.linalg.inv(covariance[np.ix_(known, known)])
    assert np.allclose(fitted.transform(row)[0, ~known], fitted._mean[~known] + gain @ away)


@pytest.mark.slow
def test_in_a_pipeline_with_cross_validation():
    full, holes = data(50)
    target = full @ np.arange(1.0, 7)
    pipeline = make_pipeline(clone(QUICK), StandardScaler(), LinearRegression())
    assert cross_val_score(pipeline, holes, target, cv=2).min() > 0.8
    search = GridSearchCV(pipeline, {"tensorcompleter__width": [2, 3]}, cv=2).fit(holes, target)
    assert search.best_params_["tensorcompleter__width"] in (2, 3)


@pytest.mark.slow
def test_frames(fitted):
    _, holes = data(30)
    frame = pd.DataFrame(holes, columns=list("abcdef"), index=[f"r{i}" for i in range(30)])
    completer = clone(QUICK).set_output(transform="pandas")
    filled = completer.fit_transform(frame)
    assert filled.columns.tolist() == frame.columns.tolist()
    assert filled.index.tolist() == frame.index.tolist()
    assert completer.get_feature_names_out().tolist() == frame.columns.tolist()
    assert np.array_equal(filled, clone(QUICK).fit_transform(holes))


def test_samples_may_be_tensors():
    generator = np.random.default_rng(1)
    full = np.einsum("ir,jr,kr->ijk", *(generator.random((d, 2)) for d in (20, 4, 3))) + 1
    holes = np.where(generator.random(full.shape) < 0.2, np.nan, full)
    filled = clone(QUICK).fit_transform(holes)
    assert filled.shape == full.shape
    folded = clone(QUICK).set_params(feature_shape=(4, 3)).fit(holes.reshape(20, 12))
    assert folded.completion_.report["dims"] == [20, 4, 3]
    assert np.array_equal(folded.transform(holes.reshape(20, 12)), filled.reshape(20, 12))
    with pytest.raises(ValueError, match=r"as many entries as there are features \(got 4 x 4, allowed 12 features\)"):
        clone(QUICK).set_params(feature_shape=(4, 4)).fit(holes.reshape(20, 12))


def test_equal_data_are_filled_equally():
    _, holes = data(20)
    assert np.array_equal(clone(QUICK).fit_transform(holes), clone(QUICK).fit_transform(holes))
    states = [clone(QUICK).set_params(random_state=np.random.RandomState(3)).fit(holes) for _ in range(2)]
    assert states[0].completion_._config["seed"] == states[1].completion_._config["seed"]


def test_sent_to_other_processes(fitted):
    _, holes = data(10, seed=3)
    assert np.array_equal(pickle.loads(pickle.dumps(fitted)).transform(holes), fitted.transform(holes))


@pytest.mark.parametrize(
    ("given", "how", "words"),
    [
        (np.full((4, 3), np.nan), {}, "no observed entry"),
        (np.array([[1.0, np.inf], [2.0, 1.0]]), {}, "infinity"),
        (np.ones((3, 2)), {"loss": "l3"}, "loss: input should be"),
        (-np.ones((3, 2)), {"nonnegative": True}, "the data are to be non-negative"),
    ],
)
def test_refused_as_scikit_learn_does(given, how, words):
    with pytest.raises(ValueError, match=words):
        clone(QUICK).set_params(**how).fit(given)


def test_errors_are_those_of_htf_too():
    with pytest.raises(HtfError):
        clone(QUICK).fit(np.full((4, 3), np.nan))


def test_whole_numbers_and_bounds_hold_for_new_rows():
    generator = np.random.default_rng(2)
    ratings = generator.integers(1, 6, (40, 5)).astype(float)
    ratings[generator.random(ratings.shape) < 0.2] = np.nan
    completer = clone(QUICK).set_params(integers=True).fit(ratings)
    new = np.array([[5.0, np.nan, 5, 5, np.nan], [np.nan, 1, np.nan, 1, 1]])
    filled = completer.transform(new)
    assert np.array_equal(filled, np.rint(filled))
    assert filled.min() >= 1
    assert filled.max() <= 5
