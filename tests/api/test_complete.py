"""`complete` of the Python API: every kind of data comes back as the same kind, and says how far to trust it."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
import xarray as xr

from htfcli import CompleteConfig, Entries, HtfError, Observations, complete, load_completion
from htfcli.errors import ConfigError, DataError
from tests import numbering
from tests.numbering import Numbering, number

CITIES, YEARS, ITEMS = ["oslo", "rome", "bern"], [2001, 2002, 2004, 2005], ["x", "y"]
NOISE = 0.0625
TRUTH = np.einsum("i,j,k->ijk", [1.0, 2.0, 4.0], [1.0, 1.5, 2.0, 2.5], [1.0, 3.0])
# noise of multiples of it, so that float32 and float64 hold the same numbers
DATA = TRUTH + NOISE * np.random.default_rng(0).integers(-2, 3, TRUTH.shape)
HOLES = [(0, 1, 1), (2, 3, 0)]
QUICK: dict[str, Any] = {"effort": "quick", "seed": 3, "tree": "star", "width": 3}


def array(dtype="float64"):
    values = DATA.astype(dtype)
    values[tuple(zip(*HOLES, strict=True))] = np.nan
    return values


def long():
    rows = [
        (c, y, k, DATA[i, j, n]) for i, c in enumerate(CITIES) for j, y in enumerate(YEARS) for n, k in enumerate(ITEMS)
    ]
    frame = pd.DataFrame(rows, columns=["city", "year", "item", "value"])
    hole = [
        frame.query("city == @CITIES[@i] and year == @YEARS[@j] and item == @ITEMS[@k]").index[0] for i, j, k in HOLES
    ]
    frame.loc[hole, "value"] = np.nan
    return frame


def wide():
    return long().pivot(index=["city", "item"], columns="year", values="value")


def cube():
    return xr.DataArray(array("float32"), {"city": CITIES, "year": YEARS, "item": ITEMS}, name="value")


KINDS = {
    "array": array,
    "float32": lambda: array("float32"),
    "list": lambda: array().tolist(),
    "torch": lambda: torch.tensor(array("float32")),
    "long": long,
    "dropped": lambda: long().dropna(),
    "wide": wide,
    "series": lambda: long().set_index(["city", "year", "item"])["value"],
    "dataarray": cube,
    "dataset": lambda: xr.Dataset({"a": cube(), "b": cube() * 2}),
}


def as_array(data) -> np.ndarray:
    """The (3, 4, 2) numbers in data of any kind."""
    if isinstance(data, pd.DataFrame) and "value" in data.columns:
        data = data.set_index(["city", "year", "item"])["value"]
    if isinstance(data, pd.DataFrame):
        data = data.stack(future_stack=True).reorder_levels(["city", "year", "item"])
    if isinstance(data, pd.Series):
        return np.array([data.loc[(c, y, k)] for c in CITIES for y in YEARS for k in ITEMS], dtype=float).reshape(
            3, 4, 2
        )
    if isinstance(data, xr.Dataset):
        data = data["a"]
    return np.asarray(data, dtype=float)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module", params=KINDS)
def completed(request):
    """Of every kind, by the engine itself."""
    return request.param, complete(KINDS[request.param](), **QUICK)


def test_every_kind_comes_back_filled(completed):
    kind, done = completed
    given = KINDS[kind]()
    assert type(done.filled) is type(given)
    found, observed = as_array(done.filled), as_array(KINDS["array"]())
    known = ~np.isnan(observed)
    assert np.array_equal(found[known], observed[known])
    assert np.abs(found - TRUTH).max() < (
        2 if kind == "dataset" else 5 * NOISE
    )  # which has a mode more, of twice the same
    assert done.report["predicted"] == (4 if kind == "dataset" else 2)


def test_all_else_is_of_the_same_kind(completed):
    kind, done = completed
    given, found = KINDS[kind](), as_array(done.filled)
    for of_each in (done.std, *done.interval(0.9), *done.imputations(2)):
        assert type(of_each) is type(given)
        assert np.isfinite(as_array(of_each)).all()
    lower, upper = map(as_array, done.interval(0.9))
    known = ~np.isnan(array())
    assert (lower[~known] < found[~known]).all()
    assert (found[~known] < upper[~known]).all()
    assert np.array_equal(lower[known], found[known])
    assert np.array_equal(upper[known], found[known])
    one, other = (as_array(drawn.imputations(1)[0]) for drawn in (done, done))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, as_array(done.imputations(1, seed=9)[0]))


@pytest.mark.parametrize("kind", ["array", "dropped"])
def test_equal_calls_give_equal_results(kind):
    one, other = (complete(KINDS[kind](), **QUICK).filled for _ in range(2))
    assert np.array_equal(as_array(one), as_array(other))


@pytest.fixture
def stand_in(monkeypatch):
    """An engine whose predictions say for which entry they are."""
    numbering.stand_in(monkeypatch)
    monkeypatch.setattr("htfcli.api.complete.complete_entries", numbering.complete)


def test_what_the_engine_is_given(stand_in, kind):
    """The same entries, coordinates and order of modes, whatever the data come in."""
    complete(KINDS[kind](), modes=["city", "year", "item"] if kind in ("long", "dropped") else None)
    (given,) = Numbering.calls
    count = 44 if kind == "dataset" else 22
    assert len(given["entries"]) == count
    labelled = kind not in ("array", "float32", "list", "torch")
    at = [axis for axis, places in enumerate(given["coordinates"]) if places is not None]
    assert len(at) == labelled
    assert not labelled or given["coordinates"][at[0]].tolist() == YEARS
    assert len(given["unordered"]) == (0 if not labelled else 3 if kind == "dataset" else 2)


def test_rows_and_columns_of_a_frame(stand_in):
    """Order, index, other columns and types of a frame; predictions stand where they belong."""
    frame = long().assign(note="n", value=lambda f: f.value.astype("Float32")).sample(frac=1, random_state=0)
    filled = complete(frame, modes=["city", "year", "item"], value="value").filled
    pd.testing.assert_frame_equal(filled[frame.value.notna()], frame[frame.value.notna()])
    assert filled.dtypes.equals(frame.dtypes)
    order = sorted(CITIES)
    for row in frame.index[frame.value.isna()]:
        city, year, item = frame.loc[row, ["city", "year", "item"]]
        assert filled.loc[row, "value"] == number(order.index(city), YEARS.index(year), ITEMS.index(item))


def test_predictions_by_labels(stand_in):
    done = complete(long(), modes=["city", "year", "item"])
    assert done.predict([("bern", 2001, "x"), ("rome", 2005, "y")]).tolist() == [number(0, 0, 0), number(2, 3, 1)]
    rows = pd.DataFrame({"item": ["y"], "city": ["oslo"], "year": [2004]}, index=["here"])
    found = done.predict(rows)
    assert found.name == "value"
    assert found.to_dict() == {"here": number(1, 2, 1)}
    found = done.predict(rows, level=0.5)
    assert found.loc["here"].tolist() == [number(1, 2, 1), number(1, 2, 1) - 0.5, number(1, 2, 1) + 0.5]
    assert done.predict([("paris", 2001, "x")]).tolist() == [number(-1, 0, 0)]  # never seen


def test_predictions_by_indices(stand_in):
    done = complete(array())
    assert done.predict(np.array([[0, 1, 1]])).tolist() == [number(0, 1, 1)]
    value, lower, _ = done.predict([[2, 3, 0]], level=0.9)
    assert (value - lower).tolist() == pytest.approx([0.9])
    with pytest.raises(DataError, match=r"out of range \(got \[3, 0, 0\], allowed 0-2 x 0-3 x 0-1\)"):
        done.predict([[0, 0, 0], [3, 0, 0]])
    with pytest.raises(DataError, match=r"whole numbers of shape \(n, 3\)"):
        done.predict([[0, 0]])


def test_progress_and_stopping(monkeypatch):
    steps = []
    done = complete(array(), effort="quick", on_progress=steps.append, should_stop=lambda: len(steps) > 1)
    assert {"stage", "tree", "width", "held_out_error"} <= set(steps[0])
    assert len(steps) < 10
    assert np.isfinite(done.filled).all()


def test_smooth_replaces_what_was_observed(stand_in):
    assert complete(array(), smooth=True).filled[0, 0, 0] == number(0, 0, 0)
    assert complete(array()).filled[0, 0, 0] == DATA[0, 0, 0]


def test_measurement_errors(stand_in):
    complete(long().assign(error=0.5), modes=["city", "year", "item"], value="value", std="error")
    assert Numbering.calls[-1]["std"].tolist() == [0.5] * 22
    std = np.arange(24.0).reshape(3, 4, 2) + 1
    complete(array(), std=std)
    assert Numbering.calls[-1]["std"].tolist() == std[~np.isnan(array())].tolist()


def test_settings_by_name_or_in_a_configuration(stand_in):
    for done in (
        complete(array(), seed=4, effort="quick"),
        complete(array(), config=CompleteConfig(seed=4), effort="quick"),
    ):
        assert (done._config["seed"], done._config["effort"]) == (4, "quick")
    with pytest.raises(ConfigError, match=r"unknown setting efort \(Did you mean effort\?\)"):
        complete(array(), efort="quick")


def test_rows_that_disagree(stand_in):
    frame = pd.concat([long().dropna(), long().dropna().head(1).assign(value=9.0)], ignore_index=True)
    with pytest.raises(DataError, match=r"row 22 disagrees with row 0 about one entry \(got 9.0 and "):
        complete(frame, modes=["city", "year", "item"])
    complete(frame, modes=["city", "year", "item"], duplicates="mean")
    assert (9 + DATA[0, 0, 0]) / 2 in Numbering.calls[-1]["entries"].value


@pytest.mark.parametrize(
    ("given", "how", "words"),
    [
        (DATA, {}, "the array has no hole: there is nothing to fill in. smooth=True"),
        (np.full((2, 2), np.nan), {}, "the array has no observed entry"),
        (np.array([[1, np.inf], [np.nan, 1]]), {}, "an observed value is NaN or infinite"),
        (pd.Series([1.0, None]), {}, "a series names its entries by a MultiIndex"),
        (object(), {}, "this is not data that can be completed (got object"),
        (pa.table({"a": [1.0, None], "b": [1.0, 2.0]}), {}, "tables are read from pandas (got pyarrow.Table). Convert it: data.to_pandas()."),
        ("table.csv", {}, "this is not data that can be completed (got str"),
        (array(), {"value": "x", "wide": True}, "value, wide: not for an array"),
        (wide(), {"mask": array() > 0}, "mask: not for a data frame"),
        (cube(), {"modes": ["a"]}, "modes: not for xarray"),
        (array(), {"dims": (3, 4, 2)}, "dims: only for Entries"),
        (array(), {"unordered": [0]}, "unordered: not for this kind of data"),
        (Entries(torch.zeros(1, 2, dtype=torch.int64), torch.ones(1)), {"dims": (2, 2), "mask": array() > 0}, "mask: not for this kind of data"),
        (array(), {"std": np.ones(3)}, "std does not have the tensor's shape (got (3,), allowed (3, 4, 2))"),
        (array(), {"tree": [[0, 1], 5]}, "the mode tree must hold every mode once"),
    ],
)  # fmt: skip
def test_refused_in_one_sentence(given, how, words):
    with pytest.raises(HtfError) as caught:
        complete(given, **how)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_many_combinations_are_not_written_but_predicted(monkeypatch, stand_in):
    monkeypatch.setattr("htfcli.files.foreign.frames.MOST_ROWS", 1)
    done = complete(long().dropna(), modes=["city", "year", "item"])
    assert done.predict([("bern", 2001, "x")]).tolist() == [number(0, 0, 0)]
    with pytest.raises(DataError, match=r"too many combinations .* \(got 2, allowed 1\)"):
        _ = done.filled


# --- entries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("convert", [
    lambda index, value: Entries(index, value.float()),
    lambda index, value: Entries(index.int(), value),
    lambda index, value: Entries(index.numpy(), value.numpy()),
    lambda index, value: Observations((6, 5, 4), Entries(index, value.float())).checked().train,
    lambda index, value: Entries(index.tolist(), value.tolist()),
])  # fmt: skip
def test_entries_of_other_types(stand_in, convert):
    index = torch.cartesian_prod(torch.arange(6), torch.arange(5), torch.arange(4))[::2]
    value = (index[:, 0] + 1.0).double() * (2.0 + index[:, 1] + index[:, 2]) / 2  # the same in float32
    complete(convert(index, value), (6, 5, 4), CompleteConfig(**QUICK))
    given = Numbering.calls[-1]["entries"]
    assert torch.equal(given.index, index)
    assert torch.equal(given.value, value)


def test_entries_of_single_precision():
    index = torch.cartesian_prod(torch.arange(6), torch.arange(5))
    value = (1.0 + index[:, 0]) * (2.0 + index[:, 1])
    config = CompleteConfig(effort="quick", tree="star", width=3)
    done = complete(Entries(index[::2], value[::2]), (6, 5), config)
    assert done.values(index).dtype == torch.float64
    assert torch.equal(
        done.values(index), complete(Entries(index[::2], value[::2].double()), (6, 5), config).values(index)
    )


@pytest.mark.parametrize(
    ("index", "value", "words"),
    [
        (torch.zeros(3, 2), torch.ones(3), "not whole numbers of shape (n, N) (got float32 of shape (3, 2))"),
        (torch.zeros(3, 2).long(), torch.ones(4), "not as many indices as values (got 3 and 4)"),
        (torch.zeros(3, 2).long(), torch.ones(3, 1), "the values of entries are not numbers of shape (n,)"),
        (torch.tensor([[0, 7]]), torch.ones(1), "out of range (got [0, 7], allowed 0-2 x 0-2)"),
    ],
)
def test_entries_that_are_none(index, value, words):
    with pytest.raises(DataError) as caught:
        complete(Entries(index, value), (3, 3))
    assert words in str(caught.value)


def test_entries_need_dims():
    with pytest.raises(ConfigError, match="the dimensions of the tensor are missing"):
        complete(Entries(torch.zeros(1, 2).long(), torch.ones(1)))


# --- what comes with it -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done():
    return complete(long(), modes=["city", "year", "item"], **QUICK)


def test_report_speaks_in_names(done):
    assert done.report["modes"] == ["city", "year", "item"]
    assert done.report["observed"] == 22
    assert json.loads(json.dumps(done.report)) == done.report
    assert set(done.ranks) <= {"{city}", "{year}", "{item}", "{city, year}", "{year, item}", "{city, item}"}
    assert "22 of 24 entries" in str(done)
    assert repr(done).startswith("<CompletedData: 3 x 4 x 2 (city, year, item); 2 entries predicted")


def test_saved_and_loaded(done, tmp_path):
    path = tmp_path / "model.safetensors"
    done.save(path)
    with pytest.raises(ConfigError, match="exists\\. Choose another name"):
        done.save(path)
    loaded = load_completion(path)
    rows = long()[["city", "year", "item"]]
    assert loaded.predict(rows, level=0.9).equals(done.predict(rows, level=0.9))
    assert loaded.ranks == done.ranks
    assert "held-out" in loaded._repr_html_()
    bytes_before = path.read_bytes()
    done.save(path, force=True)
    assert path.read_bytes() == bytes_before


def test_a_saved_completion_predicts_on_the_command_line(htf, done, tmp_path):
    done.save(tmp_path / "model.safetensors")
    (tmp_path / "rows.csv").write_text("city,year,item\noslo,2002,y\n")
    assert htf("complete", "model.safetensors", "--predict", "rows.csv", "-o", "out.csv", "-q").code == 0
    (found,) = pd.read_csv(tmp_path / "out.csv")["value"]
    assert found == pytest.approx(done.predict([("oslo", 2002, "y")])[0])


def test_picture(done):
    titles = [axes.get_title() for axes in done.plot().axes]
    assert "members and their weights" in titles
    assert [axes.get_title() for axes in done.plot(["errors"]).axes] == ["held-out error by kind of holes"]
    with pytest.raises(ConfigError, match="unknown quantity to plot"):
        done.plot(["erors"])


def test_slices_in_the_picture_of_an_array(completed):
    kind, done = completed
    drawn = any(axes.get_title().startswith("observed") for axes in done.plot().axes)
    assert drawn == (kind in ("array", "float32", "list", "torch", "dataarray"))


def test_results_can_be_sent_to_other_processes(done):
    other = pickle.loads(pickle.dumps(done))
    pd.testing.assert_frame_equal(other.filled, done.filled)
    assert other.predict([("oslo", 2001, "x")]).tolist() == done.predict([("oslo", 2001, "x")]).tolist()


def test_other_libraries_are_imported_only_when_their_objects_come():
    code = (
        "import sys, numpy as np\nfrom htfcli import complete\n"
        "x = np.outer(np.arange(1.0, 7), np.arange(1.0, 6)); x[1, 2] = np.nan\n"
        "done = complete(x, effort='quick'); done.filled; done.std; done._repr_html_; done.predict([[0, 0]])\n"
        "print({'pandas', 'xarray', 'sklearn', 'tensorly', 'pyarrow', 'matplotlib'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
