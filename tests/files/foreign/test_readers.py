from __future__ import annotations

import gzip

import numpy as np
import pytest
import torch

from htfcli.engine.observations.observations import Observations
from htfcli.errors import ConfigError, DataError
from htfcli.files.inputs import load_observations, load_tensor

TENSOR = np.arange(24.0).reshape(2, 3, 4)
HOLES = TENSOR.copy()
HOLES[0, 1, 2] = HOLES[1, 2, 3] = np.nan
INDEX = np.argwhere(~np.isnan(HOLES))
VALUE = HOLES[~np.isnan(HOLES)]


def table(delimiter=",", first=0, names="", comment=""):
    rows = [delimiter.join([*map(str, index + first), str(value)]) for index, value in zip(INDEX, VALUE, strict=True)]
    return "\n".join([line for line in (comment, names) if line] + rows) + "\n"


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def check_holes(observations: Observations):
    assert observations.dims == (2, 3, 4)
    assert observations.test is None
    order = np.lexsort(observations.train.index.numpy().T[::-1])
    assert (observations.train.index.numpy()[order] == INDEX).all()
    assert (observations.train.value.numpy()[order] == VALUE).all()
    assert observations.train.value.dtype == torch.float64


# --- every format, with holes and without -----------------------------------------------------------------------------


def test_npy(tmp_path):
    np.save(tmp_path / "a.npy", HOLES)
    check_holes(load_observations(str(tmp_path / "a.npy")))
    np.save(tmp_path / "b.npy", TENSOR.astype(np.int16))
    assert (load_tensor(str(tmp_path / "b.npy")).numpy() == TENSOR).all()


def test_npz_and_which_array(tmp_path):
    np.savez(tmp_path / "one.npz", data=HOLES)
    check_holes(load_observations(str(tmp_path / "one.npz")))
    np.savez(tmp_path / "two.npz", a=HOLES, b=TENSOR)
    check_holes(load_observations(f"{tmp_path}/two.npz#a"))
    with pytest.raises(
        DataError, match=r"which array is meant \(got 2 arrays, allowed a, b\). Choose one: '.*two.npz#KEY'"
    ):
        load_observations(f"{tmp_path}/two.npz")
    with pytest.raises(DataError, match=r"which array is meant \(got c, allowed a, b\)"):
        load_observations(f"{tmp_path}/two.npz#c")


def test_a_name_with_a_hash_sign(tmp_path):
    np.save(tmp_path / "run#1.npy", HOLES)
    check_holes(load_observations(f"{tmp_path}/run#1.npy"))


def test_pt(tmp_path):
    torch.save(torch.from_numpy(HOLES), tmp_path / "a.pt")
    check_holes(load_observations(str(tmp_path / "a.pt")))
    torch.save({"x": torch.from_numpy(HOLES), "y": 3}, tmp_path / "b.pt")
    check_holes(load_observations(f"{tmp_path}/b.pt"))


def test_pt_that_would_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save(Evil(), tmp_path / "evil.pt")
    with pytest.raises(DataError, match=r"is not a readable .pt file of plain tensors"):
        load_tensor(str(tmp_path / "evil.pt"))
    assert not (tmp_path / "owned").exists()


def test_npy_of_objects_is_not_unpickled(tmp_path):
    np.save(tmp_path / "evil.npy", np.array([[1, "a"]], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"is not a readable .npy file: Array can't be memory-mapped: Python objects"):
        load_tensor(str(tmp_path / "evil.npy"))


def test_mat(tmp_path):
    scipy_io = pytest.importorskip("scipy.io")
    scipy_io.savemat(tmp_path / "a.mat", {"X": HOLES})
    check_holes(load_observations(str(tmp_path / "a.mat")))


def test_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    columns = {name: INDEX[:, k] for k, name in enumerate("ijk")}
    pq.write_table(pa.table({**columns, "value": VALUE}), tmp_path / "a.parquet")
    check_holes(load_observations(str(tmp_path / "a.parquet")))


@pytest.mark.parametrize("suffix", [".parquet", ".xlsx"])
def test_a_format_whose_library_is_missing(tmp_path, monkeypatch, suffix):
    import builtins

    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] in ("pyarrow", "openpyxl"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    path = write(tmp_path / f"a{suffix}", b"?")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"needs (pyarrow|openpyxl). pip install 'htf\[data\]'"):
        load_observations(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", table()),
        ("a.csv", table(names="gene,dose,time,response")),
        ("a.csv", table(names='"gene, name",dose,time,"response"')),
        ("a.csv", "\ufeff" + table(names="i,j,k,v")),
        ("a.csv", table(comment="# made by hand\n")),
        ("a.csv", table(comment="# à la main, 手\n")),
        ("a.csv", table().replace("\n", "\r\n")),
        ("a.tsv", table("\t", names="i\tj\tk\tv")),
        ("a.tns", table(" ", first=1)),
        ("a.tns", table("  ", first=1, comment="# FROSTT")),
        ("a.tns.gz", gzip.compress(table(" ", first=1).encode(), mtime=0)),
    ],
)  # fmt: skip
def test_coordinates(tmp_path, name, content):
    check_holes(load_observations(write(tmp_path / name, content)))


def test_dims_of_tables(tmp_path):
    """Without dimensions a table is a tensor of its labels, for every command."""
    path = write(tmp_path / "a.csv", "0,0,1.5\n1,2,2.5\n")
    assert load_observations(path).dims == (2, 2)
    assert load_observations(path, (4, 5)).dims == (4, 5)
    with pytest.raises(DataError, match=r"a.csv line 2: column 1 has an unknown value \(got '2', allowed '0', '1'\)"):
        load_observations(path, (4, 2))
    with pytest.raises(ConfigError, match=r"--dims does not match .*a.csv \(got 3 dimensions, allowed 2\)"):
        load_observations(path, (4, 2, 2))
    np.save(tmp_path / "b.npy", TENSOR)
    with pytest.raises(ConfigError, match="--dims is for tables"):
        load_observations(str(tmp_path / "b.npy"), (2, 3, 4))


def test_coordinates_of_a_whole_tensor(tmp_path):
    path = write(tmp_path / "a.csv", "1,1,4\n0,0,1\n0,1,2\n1,0,3\n")
    assert load_tensor(path).tolist() == [[1, 2], [3, 4]]


# --- what is wrong, and where -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "0,0,1\n0,1\n", "line 2 has the wrong number of columns (got 2, allowed 3)."),
        ("a.csv", "0,0,1\n0,1,2,3\n", "line 2 has the wrong number of columns (got 4, allowed 3)."),
        ("a.csv", "0,0,1\n0,,2\n", "line 2 has no label in column 1 (got '')."),
        ("a.csv", "0,0,one\n", "line 1 has a value that is not a number (got 'one')."),
        ("a.csv", "i,j,v\n", "has no entries."),
        ("a.csv", "0,0,1\n0,1,one\n", "line 2 has a value that is not a number (got 'one')."),
        ("a.csv", "i,j,v\n0,0,1\n\n0,1,inf\n", "line 4 has no finite value (got inf)."),
        ("a.csv", "0,0,1\n1,1,2\n0,0,3\n", "line 3 disagrees with line 1 about one entry (got 3.0 and 1.0)."),
        ("a.csv", "1,2\n", "has too few columns (got 2, allowed 2 indices or more and a value)."),
        ("a.csv", "", "has no entries."),
        ("a.csv", "# nothing\n\n", "has no entries."),
        ("a.tns", "1 1 1\n1 1 \u0661\n", "line 2 has a value that is not a number (got '\u0661')."),
        ("a.tns", "1 1 1\n1 1 \u22121\n", "line 2 has a value that is not a number (got '\u22121')."),
        ("a.tns.gz", gzip.compress(b"1 1 1\n", mtime=0)[:-6], "is truncated."),
        ("a.tns.gz", gzip.compress(b"1 1 1\n", mtime=0)[:10] + b"\xff" * 20, "is damaged: Error -3 while decompressing data"),
        ("a.tns.gz", b"not gzip", "Not a gzipped file (b'no')."),
        ("a.npy", b"\x93NUMPY\x01\x00", "is not a readable .npy file"),
        ("a.npz", b"PK\x03\x04junk", "is not a readable .npz file"),
        ("a.pt", b"junk", "is not a readable .pt file of plain tensors"),
        ("a.mat", b"junk" * 40, "is not a readable .mat file"),
        ("a.parquet", b"junk", "is not a readable .parquet file"),
        ("a.feather", b"junk", "is not a readable .feather file"),
        ("a.xlsx", b"junk", "is not a readable .xlsx file"),
        ("a.jsonl", b"junk", "line 1 is not a JSON object (got 'junk')."),
        ("a.nc", b"junk", "is not a readable .nc file"),
        ("a.doc", b"junk", "has a format that htf does not read (got .doc, allowed .safetensors, .npy"),
        ("noname", b"junk", "has a format that htf does not read (got no suffix, allowed .safetensors, .npy"),
    ],
)  # fmt: skip
def test_broken_files(tmp_path, name, content, message):
    with pytest.raises(DataError) as error:
        load_observations(write(tmp_path / name, content))
    assert message in str(error.value)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3), "is not a tensor (got shape (3,), allowed 2 modes or more)."),
        (np.zeros((2, 0)), "is empty (got shape (2, 0))."),
        (np.zeros((2, 2), complex), "does not hold real numbers (got type complex128, allowed integers or floats)."),
        (np.array([["a", "b"]]), "does not hold real numbers (got type <U1, allowed integers or floats)."),
        (np.full((2, 2), np.nan), "has no observed entry: all are NaN."),
        (np.array([[1.0, 2], [np.inf, 3]]), "has an infinite value at [1, 0]. Mark missing entries by NaN."),
    ],
)
def test_unusable_arrays(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError) as error:
        load_observations(str(tmp_path / "a.npy"))
    assert message in str(error.value)


def test_holes_where_none_may_be(tmp_path):
    np.save(tmp_path / "a.npy", HOLES)
    with pytest.raises(
        DataError, match=r"has missing entries \(got 2 of 24\). Fit a factorization to it first: htf fit."
    ):
        load_tensor(str(tmp_path / "a.npy"))


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.npy does not exist"):
        load_observations("nowhere.npy")
    with pytest.raises(DataError, match=r"has no model.safetensors"):
        load_tensor(str(tmp_path))
