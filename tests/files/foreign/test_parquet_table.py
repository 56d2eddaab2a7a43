from __future__ import annotations

import datetime
import math

import pytest

from htfcli.errors import DataError
from htfcli.files.foreign.labelled_table import read_table
from tests.files.foreign.predictions import numbers
from tests.numbering import number

pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")


def test_labels_of_any_type_and_further_rows(tmp_path):
    days = [datetime.date(2024, 1, day) for day in (2, 1, 2, 1)]
    columns = {
        "cell": pa.array(["Treg", "NK", "NK", "Treg"]).dictionary_encode(),
        "day": days,
        "plate": pa.array([7, 7, 900, 7], pa.int16()),
        "note": ["a", None, "b", "c"],
        "response": pa.array([1, None, 3, 4], pa.int32()),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet", "a.parquet", ".parquet", index=["cell", "day", "plate"])
    assert [axis.labels for axis in table.axes] == [("NK", "Treg"), ("2024-01-01", "2024-01-02"), ("7", "900")]
    table.write(str(tmp_path / "out.parquet"), numbers, further=True)
    out = pq.read_table(tmp_path / "out.parquet").to_pydict()
    assert out["response"][:4] == [1.0, number(0, 0, 0), 3.0, 4.0]
    assert (out["note"][:4], out["day"][:4]) == (["a", None, "b", "c"], days)
    assert len(out["response"]) == 8
    rows = list(zip(out["cell"], out["day"], out["plate"], strict=True))
    assert len(set(rows)) == 8
    at = rows.index(("NK", days[0], 7))
    assert (out["response"][at], out["note"][at]) == (number(0, 1, 0), None)


def test_columns_that_cannot_be_used(tmp_path):
    pq.write_table(pa.table({"x": ["a"], "y": ["b"], "v": ["c"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"column v does not hold numbers \(got string, allowed integers or floats\)"):
        read_table(tmp_path / "a.parquet", "a.parquet", ".parquet")
    pq.write_table(pa.table({"x": ["a", None], "y": ["b", "b"], "v": [1.0, 2.0]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"line 2 has no label in column x \(got ''\)"):
        read_table(tmp_path / "b.parquet", "b.parquet", ".parquet")
    pq.write_table(pa.table({"x": ["a", "b"], "y": ["b", "b"], "v": [1.0, math.inf]}), tmp_path / "c.parquet")
    with pytest.raises(DataError, match=r"c.parquet line 2 has no finite value \(got inf\)"):
        read_table(tmp_path / "c.parquet", "c.parquet", ".parquet")
