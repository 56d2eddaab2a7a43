"""netCDF and zarr: variables are filled, and coordinates, attributes and everything else are kept."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from htfcli.config.completion_run import CompletionRunConfig
from htfcli.errors import ConfigError, DataError
from htfcli.files.completion_input import load_data, order_of_modes
from htfcli.files.foreign.datasets import DatasetTensor
from htfcli.files.locating import locate
from tests.files.foreign.predictions import numbers
from tests.numbering import number

xr = pytest.importorskip("xarray")


@pytest.fixture
def cube():
    """Temperatures with gaps, on days with a gap too; stored as packed whole numbers, beside another variable."""
    values = np.arange(12.0).reshape(4, 3)
    values[1, 2] = values[3, 0] = np.nan
    days = np.array(["2024-01-01", "2024-01-02", "2024-01-05", "2024-01-06"], "datetime64[ns]")
    data = xr.Dataset(
        {"t": (("time", "site"), values, {"units": "degC"}), "height": ("site", [1.0, 2.0, 3.0])},
        coords={"time": ("time", days, {"long_name": "day"}), "site": ["a", "b", "c"]},
        attrs={"title": "mine"},
    )
    data.t.encoding = {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -9999}
    return data


def stored(data, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr, about versions of its own format
        data.to_zarr(path, mode="w") if path.suffix == ".zarr" else data.to_netcdf(path)
    return path


def opened(path):
    return (
        xr.open_zarr(path, consolidated=False, chunks=None).load() if path.suffix == ".zarr" else xr.load_dataset(path)
    )


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_gaps_are_filled_and_the_rest_is_kept(tmp_path, cube, suffix):
    path = stored(cube, tmp_path / f"a{suffix}")
    data = load_data(locate(str(path)), CompletionRunConfig())
    assert isinstance(data, DatasetTensor)
    assert ([axis.name for axis in data.axes], data.dims, data.lacking()) == (["time", "site"], (4, 3), 2)
    positions, unordered = order_of_modes(data, [])
    assert positions[0] is not None and (positions[0] - positions[0][0]).tolist() == [0, 1, 4, 5]
    assert unordered == [1]
    target = tmp_path / f"out{suffix}"
    data.write(str(target), numbers)
    out = opened(target)
    assert (out.t.values[1, 2], out.t.values[3, 0]) == (number(1, 2), number(3, 0))
    known = cube.t.notnull().values
    assert (out.t.values[known] == cube.t.values[known]).all()
    assert (out.attrs, out.t.attrs["units"], out.time.attrs["long_name"]) == ({"title": "mine"}, "degC", "day")
    assert out.t.encoding["dtype"] == np.int16
    xr.testing.assert_equal(out.drop_vars("t"), cube.drop_vars("t"))


def test_deviations_are_not_packed(tmp_path, cube):
    data = load_data(locate(str(stored(cube, tmp_path / "a.nc"))), CompletionRunConfig())
    data.write(str(tmp_path / "std.nc"), lambda index: 0.01 * numbers(index), everywhere=True, own_type=False)
    assert opened(tmp_path / "std.nc").t.values[1, 2] == pytest.approx(0.01 * number(1, 2))


def test_which_variables(tmp_path, cube):
    cube["u"] = cube.t + 100
    path = stored(cube, tmp_path / "a.nc")
    both = load_data(locate(str(path)), CompletionRunConfig())
    assert ([axis.name for axis in both.axes], both.axes[2].labels) == (["time", "site", "variable"], ("t", "u"))
    assert load_data(locate(f"{path}#u"), CompletionRunConfig()).dims == (4, 3)
    assert load_data(locate(str(path)), CompletionRunConfig(variables=["u", "t"])).dims == (4, 3, 2)
    with pytest.raises(ConfigError, match=r"the data set has no such variable \(got v, allowed t, height, u\)"):
        load_data(locate(f"{path}#v"), CompletionRunConfig())


def test_masks_and_marks(tmp_path, cube):
    path = stored(cube.fillna(-999), tmp_path / "a.nc")
    assert load_data(locate(str(path)), CompletionRunConfig(missing_value=-999)).lacking() == 2
    with pytest.raises(ConfigError, match=r"--missing-value does not occur in .*a.nc \(got -5"):
        load_data(locate(str(path)), CompletionRunConfig(missing_value=-5))
    np.save(tmp_path / "mask.npy", np.eye(4, 3, dtype=bool))
    assert load_data(locate(str(path)), CompletionRunConfig(mask=str(tmp_path / "mask.npy"))).lacking() == 9


def test_a_data_set_without_numbers(tmp_path):
    path = stored(xr.Dataset({"x": ("site", ["a", "b"])}), tmp_path / "a.nc")
    with pytest.raises(DataError, match="the data set has no variable of numbers with two dimensions or more"):
        load_data(locate(str(path)), CompletionRunConfig())
