"""Data frames as labelled tensors: what is a mode, what is a hole, and that all else comes back as it was."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from htfcli.errors import ConfigError, DataError
from htfcli.files.foreign.frames import FrameTensor, read_frame


def by_index(index: Tensor) -> Tensor:
    """100, and the index of each mode as a digit after it: 100 + i + 10 j."""
    return 100 + (index * torch.tensor([10**k for k in range(index.shape[1])])).sum(1).double()


def long(value: object = None) -> pd.DataFrame:
    value = [1.0, None, 3.0, 4.0, 5.0, 6.0] if value is None else value
    return pd.DataFrame({"city": list("bababa"), "year": [2001, 2001, 2003, 2003, 2002, 2002], "v": value})


def unchanged(before: pd.DataFrame, after: pd.DataFrame) -> None:
    """All cells that had a value have it still, in the same place and type."""
    assert list(before.columns) == list(after.columns)
    pd.testing.assert_index_equal(before.index, after.index)
    pd.testing.assert_series_equal(before.dtypes, after.dtypes)
    pd.testing.assert_frame_equal(before, after.where(before.notna(), before))


def test_long():
    frame = long()
    tensor = read_frame(frame)
    assert tensor.dims == (2, 3)
    assert tensor.axes[0].labels == ("a", "b")
    assert tensor.axes[1].labels == ("2001", "2002", "2003")
    places, unordered = tensor.coordinates()
    assert places[0] is None
    assert places[1] is not None
    assert places[1].tolist() == [2001, 2002, 2003]
    assert unordered == [0]
    filled = tensor.filled(by_index)
    unchanged(frame, filled)
    assert filled.v.tolist() == [1, 100, 3, 4, 5, 6]


def test_the_frame_given_is_not_changed():
    frame = long()
    copy = frame.copy(deep=True)
    read_frame(frame).filled(by_index)
    pd.testing.assert_frame_equal(frame, copy)


@pytest.mark.parametrize(
    ("dtype", "filled"),
    [
        ("float32", 100.0), ("float16", 100.0), ("Float64", 100.0), ("Int64", 100), ("UInt8", 100), ("Int8", 100),
        (pd.ArrowDtype(pa.float32()), 100.0), (pd.ArrowDtype(pa.int16()), 100), ("boolean", True),
    ],
    ids=str,
)  # fmt: skip
def test_types_are_kept(dtype, filled):
    frame = long(pd.array([1, None, 1, 0, 1, 1], dtype=dtype))
    found = read_frame(frame, value="v").filled(by_index)
    unchanged(frame, found)
    assert found.v[1] == filled


def test_whole_numbers_are_rounded_and_held_inside_their_type():
    frame = long(pd.array([1, None, 3, 4, 5, None], dtype="Int8"))
    found = read_frame(frame, value="v").filled(lambda index: torch.tensor([2.6, 1e6]).double()[: len(index)])
    assert found.v.tolist() == [1, 3, 3, 4, 5, 127]


def test_whole_numbers_that_no_double_has():
    large = 2**53 + 1
    frame = long(pd.array([large, None, 3, 4, 5, 6], dtype="Int64"))
    assert read_frame(frame, value="v").filled(by_index).v[0] == large


@pytest.mark.parametrize("arrow", [False, True])
def test_decimals(arrow):
    cells = [Decimal("1.25"), None, Decimal("3.00"), Decimal("4.10"), Decimal("5.55"), Decimal("6.00")]
    dtype = pd.ArrowDtype(pa.decimal128(9, 2)) if arrow else object
    frame = long(pd.Series(cells, dtype=dtype))
    found = read_frame(frame, value="v").filled(lambda index: torch.full((len(index),), 2.71828).double())
    unchanged(frame, found)
    assert found.v[1] == Decimal("2.72")


@pytest.mark.parametrize("index", [None, [10, 12, 14, 16, 18, 20], list("uvwxyz")], ids=str)
def test_the_index_is_kept(index):
    frame = long() if index is None else long().set_axis(index)
    unchanged(frame, read_frame(frame, modes=["city", "year"], value="v").filled(by_index))


def test_other_columns_are_kept():
    frame = long().assign(note=["x", None, "y", "z", "z", "z"], day=pd.Timestamp("2024-01-01"))
    unchanged(frame, read_frame(frame, modes=["city", "year"], value="v").filled(by_index))


def test_combinations_without_a_row_are_added_where_no_cell_is_empty():
    frame = long().assign(city=lambda f: f.city.astype("category"), note="x").dropna().astype({"v": "float32"})
    tensor = read_frame(frame, modes=["city", "year"], value="v")
    assert tensor.further == 1
    assert tensor.asked().tolist() == [[0, 0]]
    filled = tensor.filled(by_index)
    pd.testing.assert_frame_equal(filled.iloc[:-1], frame)
    assert filled.iloc[-1].tolist()[:3] == ["a", 2001, 100.0]
    assert filled.index[-1] == 6
    assert tensor.asked().shape == (len(filled) - len(frame), 2)


def test_a_multi_index_is_modes():
    index = pd.MultiIndex.from_product(
        [["x", "y"], pd.date_range("2024-01-01", periods=2), [1.5, 2]], names=list("abc")
    )
    series = pd.Series(np.arange(8.0), index, name="v").drop(("y", pd.Timestamp("2024-01-01"), 2))
    tensor = read_frame(series.to_frame())
    assert tensor.dims == (2, 2, 2)
    assert tensor.axes[1].labels == ("2024-01-01", "2024-01-02")
    filled = tensor.filled(by_index).v
    pd.testing.assert_series_equal(filled.iloc[:-1], series)
    assert filled.index[-1] == ("y", pd.Timestamp("2024-01-01"), 2.0)
    assert filled.index.dtypes.equals(series.index.dtypes)


def wide() -> pd.DataFrame:
    return pd.DataFrame(
        {"station": ["S1", "S2", "S3"], "2016": [1, 2.5, None], "2017": [1.0, None, 3], "2019": [1, 2, 3]}
    )


def test_years_as_columns():
    frame = wide()
    tensor = read_frame(frame)
    assert [axis.name for axis in tensor.axes] == ["station", "column"]
    assert tensor.coordinates()[0][1].tolist() == [2016, 2017, 2019]
    assert not tensor.layout.remarks
    filled = tensor.filled(by_index)
    unchanged(frame, filled)
    assert filled["2016"].tolist() == [1, 2.5, 102]
    assert filled["2017"].tolist() == [1, 111, 3]


def test_an_attribute_of_the_entity_is_no_mode():
    frame = wide().assign(region=["n", "n", "s"])[["station", "region", "2016", "2017", "2019"]]
    assert [axis.name for axis in read_frame(frame).axes] == ["station", "column"]
    frame = wide().assign(region=["n", "n", "s"])[["region", "station", "2016", "2017", "2019"]]
    assert [axis.name for axis in read_frame(frame).axes] == ["station", "column"]


def test_several_values_are_a_mode_of_variables():
    frame = long().assign(w=[10, 20, 30, 40, None, 60]).rename(columns={"v": "gdp", "w": "pop"})
    for tensor in (
        read_frame(frame),
        read_frame(frame, value=["gdp", "pop"]),
        read_frame(frame, modes=["city", "year"]),
    ):
        assert [axis.name for axis in tensor.axes] == ["city", "year", "variable"]
        assert tensor.axes[2].labels == ("gdp", "pop")
        filled = tensor.filled(by_index)
        unchanged(frame, filled)
        assert filled["pop"][4] == 100 + 1 + 10 + 100
    assert "gdp, pop" in read_frame(frame).layout.remarks[0]
    assert not read_frame(frame, value=["gdp", "pop"]).layout.remarks


def test_truth_values():
    frame = long(pd.array([True, None, False, True, True, False], dtype="boolean"))
    tensor = read_frame(frame)
    assert tensor.value_name == "v"
    filled = tensor.filled(lambda index: torch.full((len(index),), 0.4).double())
    unchanged(frame, filled)
    assert filled.v[1] is np.False_


def test_an_index_that_is_a_column_too():
    frame = long().set_index("city", drop=False)
    tensor = read_frame(frame)
    assert [axis.name for axis in tensor.axes] == ["city", "year"]
    unchanged(frame, tensor.filled(by_index))


def test_a_matrix():
    frame = pd.DataFrame(np.where(np.eye(4) > 0, np.nan, 1.0), columns=list("abcd"))
    tensor = read_frame(frame)
    assert tensor.dims == (4, 4)
    assert tensor.coordinates()[1] == [1]  # nothing is known of the order of rows that have numbers only
    unchanged(frame, tensor.filled(by_index))


def test_columns_with_two_levels():
    columns = pd.MultiIndex.from_product([["t", "p"], [1, 2]], names=["what", "hour"])
    frame = pd.DataFrame(np.arange(12.0).reshape(3, 4), index=pd.Index(["a", "b", "c"], name="id"), columns=columns)
    frame.iloc[1, 2] = np.nan
    tensor = read_frame(frame)
    assert [axis.name for axis in tensor.axes] == ["id", "what", "hour"]
    filled = tensor.filled(by_index)
    unchanged(frame, filled)
    assert filled.iloc[1, 2] == 100 + 1 + 0 + 0


def test_row_numbers_and_second_names_are_left_out():
    frame = pd.DataFrame(
        {
            "id": range(20),
            "country": ["de", "fr"] * 10,
            "name": ["Germany", "France"] * 10,
            "year": np.repeat(np.arange(10), 2),
            "v": np.arange(20.0),
        }
    )
    tensor = read_frame(frame)
    assert [axis.name for axis in tensor.axes] == ["country", "year"]
    assert len(tensor.layout.remarks) == 2
    assert "column id has a different value in every row" in tensor.layout.remarks[0]
    assert "column name names the same as country" in tensor.layout.remarks[1]


def panel(rows: int = 48) -> pd.DataFrame:
    """A long frame that lacks some combinations: city, year, item and v."""
    every = [(f"c{i}", 2000 + j, f"k{k}", i + j * k + 0.5) for i in range(4) for j in range(5) for k in range(3)]
    frame = pd.DataFrame(every, columns=["city", "year", "item", "v"])
    return frame.sample(rows, random_state=0).reset_index(drop=True)


def stations(*names: str) -> pd.DataFrame:
    """A wide frame with one hole, a row per station."""
    values = np.arange(8.0 * len(names)).reshape(8, -1)
    values[1, 1] = np.nan
    return pd.DataFrame(values, columns=list(names)).assign(station=[f"S{i}" for i in range(8)])


@pytest.mark.parametrize(
    ("frame", "modes"),
    [
        (panel(), "city year item"),
        (panel().reset_index(), "city year item"),
        (panel().assign(note=[f"n{i}" for i in range(48)])[["city", "note", "year", "item", "v"]], "city year item"),
        (panel().assign(note=[f"n{i}" for i in range(48)])[["city", "note", "year", "v"]], "city year"),
        (panel().query("item == 'k0'")[["city", "year"]].assign(gdp=lambda f: f.index / 7, pop=1.5), "city year variable"),
        (stations("2016", "2017", "2019"), "station column"),
        (stations("2016-01", "2016-02", "2016-03").assign(region=list("nsnsnsns")), "station column"),
        (stations("2016", "2017", "2019").assign(station=range(101, 109)), "station column"),
        (stations("t1", "t2", "t3"), "station column"),
        (stations("t1", "t2", "t3").drop(columns="station"), "row column"),
        (stations("t1", "t2", "t3").set_index("station"), "station column"),
        (pd.DataFrame([(x / 2, y / 2, x * y + 0.25) for x in range(5) for y in range(6)], columns=["x", "y", "v"]), "x y"),
        (pd.DataFrame([(c, y, 7) for c in "abcd" for y in range(3)], columns=["c", "y", "count"]), "c y"),
    ],
)  # fmt: skip
def test_what_is_a_mode_is_found_out(frame, modes):
    assert [axis.name for axis in read_frame(frame).axes] == modes.split()


def test_ratings():
    frame = pd.DataFrame({"user": [1, 1, 2, 3], "item": [7, 8, 7, 8], "rating": [5, 3, 4, 1]})
    tensor = read_frame(frame)
    assert [axis.name for axis in tensor.axes] == ["user", "item"]
    assert tensor.value.tolist() == [5, 3, 4, 1]


@pytest.mark.parametrize(
    ("labels", "texts", "places"),
    [
        (["10", "9", "9.5"], ("9", "9.5", "10"), [9, 9.5, 10]),
        ([10.0, 9.0, 9.5], ("9", "9.5", "10"), [9, 9.5, 10]),
        (pd.array([True, False, True]), ("False", "True"), None),
        (pd.to_datetime(["2024-03-01", "2024-01-01", "2024-02-01"]), ("2024-01-01", "2024-02-01", "2024-03-01"), [19723, 19754, 19783]),
        (pd.PeriodIndex(["2024-03", "2024-01", "2024-02"], freq="M"), ("2024-01", "2024-02", "2024-03"), [19723, 19754, 19783]),
        (pd.Categorical(["hi", "lo", "mid"], ["lo", "mid", "top", "hi"], ordered=True), ("lo", "mid", "hi"), [0, 1, 3]),
        (["caf\u00e9", "cafe\u0301", "x"], ("caf\u00e9", "x"), None),
    ],
)  # fmt: skip
def test_labels(labels, texts, places):
    frame = pd.DataFrame({"a": labels, "b": ["u", "v", "u"], "v": [1.0, 2.0, None]})
    tensor = read_frame(frame, modes=["a", "b"], value="v")
    assert tensor.axes[0].labels == texts
    found = tensor.coordinates()[0][0]
    assert (None if found is None else found.tolist()) == places
    assert tensor.axes[0].positions() == places or isinstance(frame.a.dtype, pd.CategoricalDtype)


def test_zones_survive():
    moments = pd.date_range("2024-03-31", periods=4, freq="h", tz="Europe/Berlin")
    frame = pd.DataFrame({"t": moments, "b": list("uvuv"), "v": [1.0, 2.0, 3.0, 4.0]})
    tensor = read_frame(frame)
    assert np.allclose(np.diff(tensor.coordinates()[0][0]), 1 / 24)
    filled = tensor.filled(by_index)
    assert filled.t.dtype == frame.t.dtype
    assert len(filled) == 8
    assert tensor.index_of([("2024-03-31 01:00:00+01:00", "v")]).tolist() == [[1, 1]]


def test_ordered_text():
    frame = pd.DataFrame({"a": ["low", "mid", "high"], "b": ["u", "v", "u"], "v": [1.0, 2.0, None]})
    tensor = read_frame(frame, ordered=["a"])
    assert tensor.axes[0].labels == ("low", "mid", "high")
    assert tensor.coordinates()[0][0].tolist() == [0, 1, 2]


def test_entries_by_their_labels():
    tensor = read_frame(long())
    assert tensor.index_of([("a", 2003), ("zz", 2001)]).tolist() == [[0, 2], [-1, 0]]
    assert tensor.index_of([{"year": "2002", "city": "b"}]).tolist() == [[1, 1]]
    assert tensor.index_of(pd.DataFrame({"year": [2001.0], "city": ["b"]})).tolist() == [[1, 0]]
    assert tensor.index_of(pd.MultiIndex.from_tuples([("a", 2001)], names=["city", "year"])).tolist() == [[0, 0]]
    with pytest.raises(DataError, match=r"lack columns \(got city, allowed year\)"):
        tensor.index_of(pd.DataFrame({"city": ["b"]}))
    with pytest.raises(DataError, match=r"does not name an entry \(got 3 labels, allowed 2: city, year\)"):
        tensor.index_of([("a", 2001, 7)])


def test_something_else_of_every_entry():
    tensor = read_frame(wide())
    found = tensor.like(by_index)
    assert found.station.tolist() == ["S1", "S2", "S3"]
    assert found["2019"].tolist() == [120, 121, 122]
    assert found.dtypes[1:].unique().tolist() == [np.float64]
    assert tensor.like(by_index, holes_only=True)["2017"].tolist()[1] == 111
    assert tensor.like(by_index, holes_only=True)["2017"].isna().sum() == 2


def refused(frame: pd.DataFrame, **how: object) -> FrameTensor:
    tensor = read_frame(frame, **how)
    tensor.observed()
    return tensor


@pytest.mark.parametrize(
    ("frame", "how", "error", "words"),
    [
        (long().iloc[:0], {}, DataError, "no rows"),
        (long(), {"value": "w"}, ConfigError, "no such column (got w, allowed city, year, v)"),
        (long(), {"modes": ["city", "yeer"]}, ConfigError, "Did you mean year?"),
        (long(), {"modes": ["city", "v"], "value": "v"}, ConfigError, "got v twice"),
        (long(), {"modes": ["city"], "value": "v"}, DataError, "too few modes"),
        (long(["x"] * 6), {"value": "v"}, DataError, "row 0: column v has a value that is not a number (got 'x')"),
        (long().assign(year=[2001, None, 2002, 2002, 2003, 2003]), {"value": "v"}, DataError, "row 1 has no label in column year"),
        (long().assign(year=2001), {"value": "v"}, DataError, "row 2 disagrees with"),
        (long([None] * 6).astype({"v": float}), {"value": "v"}, DataError, "no observed value"),
        (long()[["city"]], {}, DataError, "no column of numbers"),
        (long().assign(v=["1.5", None, "2", "3", "4", "5"]), {}, DataError, "column v has numbers that are text (got '1.5')"),
        (pd.DataFrame(np.ones((2, 3)), columns=[None, "a", "b"]), {}, DataError, "has a column without a name"),
    ],
)  # fmt: skip
def test_refused(frame, how, error, words):
    with pytest.raises(error) as caught:
        refused(frame, **how)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
