"""Typed tables: parquet and feather come back with their types, metadata and observed values."""

from __future__ import annotations

import datetime
import decimal
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from htfcli.config.tables import TableConfig
from htfcli.errors import DataError
from htfcli.files.tables.formats import read_table
from htfcli.files.tables.table import Table
from tests.files.foreign.predictions import numbers
from tests.numbering import number


def read(path, **options):
    return read_table([path], path.name, TableConfig(**options))


def filled(path, target=None, **options):
    target = target or path.with_name(f"out{path.suffix}")
    source = read(path)
    table = Table.of(source)
    table.write(str(target), numbers, table.entries(), **options)
    return pq.read_table(target) if target.suffix == ".parquet" else feather.read_table(target)


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
    source = read(tmp_path / "a.parquet", index=["cell", "day", "plate"])
    assert [mode.axis.labels for mode in source.modes] == [("NK", "Treg"), ("2024-01-01", "2024-01-02"), ("7", "900")]
    Table.of(source).write(str(tmp_path / "out.parquet"), numbers, further=True)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.types == pa.table(columns).schema.types
    out = table.to_pydict()
    assert out["response"][:4] == [1, number(0, 0, 0), 3, 4]
    assert (out["note"][:4], out["day"][:4]) == (["a", None, "b", "c"], days)
    rows = list(zip(out["cell"], out["day"], out["plate"], strict=True))
    assert len(set(rows)) == len(rows) == 8
    at = rows.index(("NK", days[0], 7))
    assert (out["response"][at], out["note"][at]) == (number(0, 1, 0), None)


@pytest.mark.parametrize("name", ["a.parquet", "a.feather"])
@pytest.mark.parametrize(
    ("values", "predicted"),
    [
        (pa.array([2**60 + 1, None, -(2**62) - 3, 5]), 21),
        (pa.array([0.1, None, 1e-30, 3], pa.float32()), np.float32(21)),
        (pa.array([decimal.Decimal("12345678901234567890.12"), None, decimal.Decimal("0.10"), decimal.Decimal(3)], pa.decimal128(38, 2)), decimal.Decimal("21.00")),
        (pa.array([1, None, 3, 250], pa.uint8()), 21),
        (pa.array([True, None, False, True]), True),
        (pa.array([0.5, None, 2, 3], pa.float64()), 21.0),
    ],
)  # fmt: skip
def test_observed_values_keep_their_type_to_the_last_digit(tmp_path, name, values, predicted):
    """Predictions are rounded to what the type can hold; entry (0, 1) is predicted as 21."""
    table = pa.table({"x": ["p", "p", "q", "q"], "y": ["a", "b", "a", "b"], "v": values})
    table = table.replace_schema_metadata({b"mine": b"kept"})
    (pq.write_table if name.endswith("parquet") else feather.write_feather)(table, tmp_path / name)
    out = filled(tmp_path / name)
    assert number(0, 1) == 21
    assert out.schema.field("v").type == values.type
    assert out.column("v").to_pylist() == [predicted if value is None else value for value in values.to_pylist()]
    assert out.schema.metadata[b"mine"] == b"kept"


def test_deviations_of_whole_numbers_are_no_whole_numbers(tmp_path):
    pq.write_table(pa.table({"x": ["p", "q"], "y": ["a", "b"], "v": [1, 2]}), tmp_path / "a.parquet")
    out = filled(tmp_path / "a.parquet", everywhere=True, own_type=False)
    assert out.schema.field("v").type == pa.float64()


def test_the_index_that_pandas_saved_is_no_data(tmp_path):
    """Row numbers of a filtered frame: no mode, and 210 rows stay 210 combinations."""
    rows = [(f"c{i}", f"p{j}", f"2020-0{k + 1}", 1.0 + i + j + k) for i in range(7) for j in range(6) for k in range(5)]
    frame = pd.DataFrame(rows, columns=["city", "product", "month", "value"])
    kept = frame[np.random.default_rng(5).random(210) < 0.7]
    kept.to_parquet(tmp_path / "sales.parquet")
    assert pq.read_table(tmp_path / "sales.parquet").column_names[-1] == "__index_level_0__"
    source = read(tmp_path / "sales.parquet")
    assert [mode.axis.size for mode in source.modes] == [7, 6, 5]
    assert source.value_name == "value"
    table = Table.of(source)
    assert table.lacking() == 210 - len(kept)
    table.write(str(tmp_path / "out.parquet"), numbers, table.entries(), further=True)
    out = pd.read_parquet(tmp_path / "out.parquet")
    assert len(out) == 210 and out.value.notna().all()
    assert out.index.is_unique and list(out.index[: len(kept)]) == list(kept.index)
    pd.testing.assert_frame_equal(out.iloc[: len(kept)], kept)


def test_levels_of_a_pandas_index_are_modes(tmp_path):
    index = pd.MultiIndex.from_product(
        [["a", "b"], pd.to_datetime(["2024-01-02", "2024-01-01"]).tz_localize("Europe/Oslo")], names=["city", "when"]
    )
    frame = pd.DataFrame({"value": [1.5, None, 2.5, 3.5]}, index=index)
    frame.to_parquet(tmp_path / "a.parquet")
    source = read(tmp_path / "a.parquet")
    assert [mode.axis.name for mode in source.modes] == ["city", "when"]
    assert source.modes[1].coordinates is not None
    filled(tmp_path / "a.parquet")
    out = pd.read_parquet(tmp_path / "out.parquet")
    pd.testing.assert_index_equal(out.index, index)
    assert out.value.tolist() == [1.5, number(0, 0), 2.5, 3.5]


def test_ordered_categories_are_in_their_order(tmp_path):
    sizes = pd.Categorical(["small", "large", "medium", "small"], ["small", "medium", "large"], ordered=True)
    frame = pd.DataFrame({"size": sizes, "on": [True, True, False, False], "v": [1.0, 2.0, np.nan, 4.0]})
    frame.to_parquet(tmp_path / "a.parquet")
    source = read(tmp_path / "a.parquet")
    assert source.modes[0].axis.labels == ("small", "medium", "large")
    assert source.modes[0].coordinates == (0, 1, 2)
    assert source.modes[1].axis.labels == ("False", "True")
    filled(tmp_path / "a.parquet", further=True)
    out = pd.read_parquet(tmp_path / "out.parquet")
    assert out.dtypes.to_dict() == frame.dtypes.to_dict()
    assert len(out) == 6


def test_a_folder_of_parquet_files(tmp_path):
    from htfcli.files.locating import locate

    frame = pd.DataFrame({"x": ["p", "p", "q", "q"], "year": [1, 2, 1, 2], "v": [1.0, 2.0, 3.0, None]})
    for year in (1, 2):
        (tmp_path / "parts" / f"year={year}").mkdir(parents=True)
        frame[frame.year == year].drop(columns="year").to_parquet(
            tmp_path / "parts" / f"year={year}" / "0.parquet", index=False
        )
    (tmp_path / "plain").mkdir()
    source = read_table(locate(str(tmp_path / "parts")).paths, "parts", TableConfig(value="v"))
    assert [mode.axis.name for mode in source.modes] == ["x", "year"]
    assert len(source.value) == 4
    frame[:2].to_parquet(tmp_path / "plain" / "1.parquet")
    frame[2:].to_parquet(tmp_path / "plain" / "2.parquet")
    source = read_table(locate(str(tmp_path / "plain")).paths, "plain")
    assert source.index.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_columns_that_cannot_be_used(tmp_path):
    pq.write_table(pa.table({"x": ["a"], "y": ["b"], "v": ["c"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"column v does not hold numbers \(got string, allowed integers or floats\)"):
        read(tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": ["a", None], "y": ["b", "b"], "v": [1.0, 2.0]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"line 2 has no label in column x \(got ''\)"):
        read(tmp_path / "b.parquet")
    pq.write_table(pa.table({"x": ["a", "b"], "y": ["b", "b"], "v": [1.0, math.inf]}), tmp_path / "c.parquet")
    with pytest.raises(DataError, match=r"c.parquet line 2 has no finite value \(got inf\)"):
        read(tmp_path / "c.parquet")
