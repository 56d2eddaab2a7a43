from __future__ import annotations

import numpy as np
import pytest
import torch

from htfcli.config.completion_run import CompletionRunConfig
from htfcli.errors import ConfigError, DataError
from htfcli.files.completion_input import load_data
from htfcli.files.foreign.readers import read_foreign
from htfcli.files.locating import locate
from tests.files.foreign.predictions import numbers
from tests.numbering import number

TENSOR = np.arange(24.0).reshape(2, 3, 4) / 7
HOLES = [(0, 1, 2), (1, 2, 3)]


def with_holes(dtype):
    tensor = TENSOR.astype(dtype)
    tensor[tuple(zip(*HOLES, strict=True))] = np.nan
    return tensor


def complete(path, tmp_path, everywhere=False, **options):
    out = tmp_path / f"out{path.suffix}"
    load_data(locate(str(path)), CompletionRunConfig(**options)).write(str(out), numbers, everywhere=everywhere)
    return out


@pytest.mark.parametrize("block", [1, 1000])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_holes_are_filled_and_the_rest_is_kept(tmp_path, monkeypatch, dtype, block):
    monkeypatch.setattr("htfcli.files.foreign.cells._PREDICTED", block)
    tensor = with_holes(dtype)
    tensor[1, 1, 1] = -0.0
    np.save(tmp_path / "a.npy", tensor)
    filled = np.load(complete(tmp_path / "a.npy", tmp_path))
    assert filled.dtype == np.dtype(dtype).newbyteorder("=")
    assert [filled[at] for at in HOLES] == [number(*at) for at in HOLES]
    kept = ~np.isnan(tensor)
    assert filled[kept].tobytes() == tensor[kept].astype(filled.dtype).tobytes()


def test_everywhere(tmp_path):
    np.save(tmp_path / "a.npy", with_holes("float64"))
    filled = np.load(complete(tmp_path / "a.npy", tmp_path, everywhere=True))
    assert all(filled[at] == number(*at) for at in np.ndindex(filled.shape))


def test_npz_pt_and_mat_keep_their_names_and_other_arrays(tmp_path):
    scipy_io = pytest.importorskip("scipy.io")
    tensor = with_holes("float32")
    np.savez(tmp_path / "a.npz", x=tensor, y=np.zeros(3))
    torch.save(torch.from_numpy(tensor).bfloat16(), tmp_path / "a.pt")
    torch.save({"x": torch.from_numpy(tensor), "step": 3}, tmp_path / "b.pt")
    scipy_io.savemat(tmp_path / "a.mat", {"x": tensor, "years": np.arange(4)})
    load_data(locate(f"{tmp_path}/a.npz#x"), CompletionRunConfig()).write(str(tmp_path / "out.npz"), numbers)
    with np.load(tmp_path / "out.npz") as arrays:
        assert sorted(arrays.files) == ["x", "y"]
        assert (arrays["y"] == np.zeros(3)).all()
        assert arrays["x"][HOLES[0]] == number(*HOLES[0])
    plain = torch.load(complete(tmp_path / "a.pt", tmp_path), weights_only=True)
    assert plain.dtype == torch.bfloat16
    assert plain[HOLES[0]] == torch.tensor(number(*HOLES[0])).bfloat16()
    named = torch.load(complete(tmp_path / "b.pt", tmp_path), weights_only=True)
    assert named["step"] == 3
    assert not torch.isnan(named["x"]).any()
    (tmp_path / "a.mat").rename(tmp_path / "b.mat")
    load_data(locate(f"{tmp_path}/b.mat#x"), CompletionRunConfig()).write(str(tmp_path / "out.mat"), numbers)
    mat = scipy_io.loadmat(tmp_path / "out.mat")
    assert mat["years"].tolist() == [[0, 1, 2, 3]]
    assert mat["x"][HOLES[1]] == number(*HOLES[1])


def test_integers_stay_integers(tmp_path):
    """Rounded, inside their type, and observed ones to the last digit; deviations of them do not."""
    np.save(tmp_path / "a.npy", np.array([[1, -999], [3, 4]], np.int16))
    filled = np.load(complete(tmp_path / "a.npy", tmp_path, missing_value=-999))
    assert filled.dtype == np.int16
    assert filled.tolist() == [[1, number(0, 1)], [3, 4]]
    large = np.array([[2**60 + 1, 0], [-(2**62) - 3, 5]])
    np.save(tmp_path / "b.npy", large)
    np.save(tmp_path / "mask.npy", large != 0)
    data = load_data(locate(str(tmp_path / "b.npy")), CompletionRunConfig(mask=str(tmp_path / "mask.npy")))
    for value, found in ((20.6, 21), (1e30, 2**63 - 1), (-1e30, -(2**63))):
        data.write(str(tmp_path / "out.npy"), lambda index, v=value: torch.full((len(index),), v, dtype=torch.float64))
        out = np.load(tmp_path / "out.npy")
        assert out.dtype == np.int64
        assert out.tolist() == [[2**60 + 1, found], [-(2**62) - 3, 5]]
    data.write(str(tmp_path / "std.npy"), lambda i: 0.25 * numbers(i), everywhere=True, own_type=False)
    assert np.load(tmp_path / "std.npy")[0, 1] == number(0, 1) / 4


def test_a_missing_value_that_a_float32_rounds(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1, -999.9], [3, 4]], np.float32))
    assert np.load(complete(tmp_path / "a.npy", tmp_path, missing_value=-999.9))[0, 1] == number(0, 1)


def test_a_missing_value_that_does_not_occur(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1, -999], [3, 4]], np.int16))
    with pytest.raises(ConfigError, match=r"does not occur in .*a.npy \(got -9999, allowed a value from -999 to 4\)\."):
        load_data(locate(str(tmp_path / "a.npy")), CompletionRunConfig(missing_value=-9999))


def test_mask(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1.0, 2.0], [np.nan, 4.0]]))
    np.save(tmp_path / "mask.npy", np.array([[True, False], [True, True]]))
    filled = np.load(complete(tmp_path / "a.npy", tmp_path, mask=str(tmp_path / "mask.npy")))
    assert filled.tolist() == [[1, number(0, 1)], [number(1, 0), 4]]  # NaN is a hole, whatever the mask says


def test_a_mask_of_another_shape(tmp_path):
    np.save(tmp_path / "a.npy", TENSOR)
    np.save(tmp_path / "mask.npy", np.ones((2, 3), bool))
    with pytest.raises(
        ConfigError, match=r"^the mask does not have the tensor's shape \(got \(2, 3\), allowed \(2, 3, 4\)\)\.$"
    ):
        load_data(locate(str(tmp_path / "a.npy")), CompletionRunConfig(mask=str(tmp_path / "mask.npy")))


def test_a_prediction_beyond_the_type(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1.0, np.nan], [3.0, 4.0]], np.float16))
    data = load_data(locate(str(tmp_path / "a.npy")), CompletionRunConfig())
    data.write(str(tmp_path / "out.npy"), lambda index: torch.full((len(index),), 1e9, dtype=torch.float64))
    assert np.load(tmp_path / "out.npy")[0, 1] == np.finfo(np.float16).max


def test_extreme_values_survive(tmp_path):
    tensor = np.array([[1e300, np.nan], [1e-300, -1e300]])
    np.save(tmp_path / "a.npy", tensor)
    filled = read_foreign(complete(tmp_path / "a.npy", tmp_path), "out").values
    assert filled[1].tolist() == [1e-300, -1e300]


def test_nothing_observed(tmp_path):
    np.save(tmp_path / "a.npy", np.full((2, 2), np.nan))
    with pytest.raises(DataError, match="has no observed entry: all are NaN"):
        load_data(locate(str(tmp_path / "a.npy")), CompletionRunConfig()).entries()
