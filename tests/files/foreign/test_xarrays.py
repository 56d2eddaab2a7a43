"""DataArrays and Datasets as labelled tensors, and back with coordinates, attributes, encodings and types."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from htfcli.errors import ConfigError, DataError
from htfcli.files.foreign.frames import index_of
from htfcli.files.foreign.xarrays import read_xarray
from tests.files.foreign.predictions import numbers
from tests.numbering import number


def cube(dtype="float32") -> xr.DataArray:
    values = np.arange(24, dtype=dtype).reshape(2, 3, 4)
    values[1, 0, 2] = np.nan
    times = pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-05", "2024-01-06"])
    coords = {"lat": [60.0, 50.0], "station": list("cab"), "time": times, "height": ("station", [1, 2, 3])}
    array = xr.DataArray(values, coords, ["lat", "station", "time"], "t2m", {"units": "K"})
    array.encoding = {"dtype": "int16", "scale_factor": 0.01}
    return array


def test_an_array():
    given = cube()
    read = read_xarray(given)
    assert [axis.name for axis in read.axes] == ["lat", "station", "time"]
    assert read.axes[0].labels == ("50", "60")  # sorted, though the array is not
    assert read.axes[1].labels == ("a", "b", "c")
    places, unordered = read.coordinates()
    assert places[0].tolist() == [50, 60]
    assert (places[2] - places[2][0]).tolist() == [0, 1, 4, 5]
    assert unordered == [1]
    filled = read.filled(numbers)
    assert filled[1, 0, 2] == number(0, 2, 2)  # lat 50 is first, station c is last
    expected = given.copy()
    expected[1, 0, 2] = number(0, 2, 2)
    xr.testing.assert_identical(filled, expected)
    assert filled.dtype == np.float32
    assert filled.encoding == given.encoding
    assert np.isnan(given[1, 0, 2])


def test_entries_are_where_their_labels_are():
    read = read_xarray(cube())
    entries, _ = read.observed()
    at = entries.index.tolist().index([1, 0, 3])  # lat 60, station a, 6 January
    assert float(entries.value[at]) == float(cube().sel(lat=60, station="a", time="2024-01-06"))
    assert index_of(read.modes, [(50, "c", "2024-01-05"), (55, "c", "2024-01-05")]).tolist() == [[0, 2, 2], [-1, 2, 2]]


def test_dimensions_without_coordinates():
    read = read_xarray(xr.DataArray([[1.0, np.nan], [3.0, 4.0]], dims=["x", "y"]))
    assert read.coordinates() == ([None, None], [])
    assert float(read.filled(numbers)[0, 1]) == number(0, 1)


def test_calendars_of_climate_models():
    pytest.importorskip("cftime")
    times = xr.date_range("2001-02-27", periods=4, calendar="noleap", use_cftime=True)
    given = xr.DataArray(np.array([[1, 2, np.nan, 4]] * 2), {"time": times}, ["x", "time"])
    read = read_xarray(given)
    assert read.coordinates()[0][1].tolist() == [0, 1, 2, 3]  # no 29 February
    assert read.filled(numbers).indexes["time"].equals(given.indexes["time"])


def dataset() -> xr.Dataset:
    array = cube()
    return xr.Dataset(
        {
            "t2m": array,
            "count": array.transpose("time", "lat", "station").fillna(0).astype("int16"),
            "elevation": ("station", [1.0, np.nan, 3.0]),
            "name": ("station", ["x", "y", "z"]),
        },
        attrs={"source": "here"},
    )


def test_variables_of_a_data_set_are_a_mode():
    given = dataset()
    read = read_xarray(given)
    assert [axis.name for axis in read.axes] == ["lat", "station", "time", "variable"]
    assert read.axes[3].labels == ("count", "t2m")
    filled = read.filled(numbers)
    assert float(filled.t2m[1, 0, 2]) == number(0, 2, 2, 1)
    xr.testing.assert_identical(filled.drop_vars("t2m"), given.drop_vars("t2m"))
    assert filled.t2m.attrs == {"units": "K"}
    assert filled["count"].dims == ("time", "lat", "station")
    assert pickle.loads(pickle.dumps(read)).filled(numbers).identical(filled)


def test_one_variable_of_a_data_set():
    read = read_xarray(dataset(), value="t2m")
    assert read.dims == (2, 3, 4)
    assert float(read.filled(numbers).t2m[1, 0, 2]) == number(0, 2, 2)


def test_variables_with_other_dimensions_are_left_and_said():
    given = dataset().assign(cover=(("lat", "station"), np.array([[1, np.nan, 3], [4, 5, 6]])))
    read = read_xarray(given)
    assert read.remarks == ("variables cover have other dimensions and are left as they are",)


@pytest.mark.parametrize(
    ("given", "how", "error", "words"),
    [
        (cube()[0, 0], {}, DataError, "the array t2m has too few axes (got 1"),
        (dataset(), {"value": "t3m"}, ConfigError, "no such variable (got t3m, allowed t2m, count, elevation, name). Did you mean t2m?"),
        (dataset(), {"value": ["t2m", "elevation"]}, ConfigError, "need the same dimensions (got t2m (lat, station, time); elevation (station))"),
        (dataset()[["name"]], {}, DataError, "no variable of numbers with two dimensions"),
        (cube(), {"ordered": ["sation"]}, ConfigError, "no such mode (got sation"),
    ],
)  # fmt: skip
def test_refused(given, how, error, words):
    with pytest.raises(error) as caught:
        read_xarray(given, **how)
    assert words in str(caught.value)
