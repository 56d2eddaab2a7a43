"""Tables on the command line: one table is one tensor for every command, and its completion the same table, filled."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest

from tests.numbering import number, stand_in


@pytest.fixture
def numbering(monkeypatch):
    """The stand-in for the engine."""
    stand_in(monkeypatch)


def rank_one(rows, columns, seed=0):
    generator = np.random.default_rng(seed)
    return np.outer(generator.random(rows) + 1, generator.random(columns) + 1)


# --- first steps: one command each ----------------------------------------------------------------------------------------


def test_a_wide_table_of_years(htf, tmp_path):
    """The real engine: exact rank 1 is found, the file is written beside the data, untouched cells are as they were."""
    truth = 10 * rank_one(16, 8)
    years = range(2012, 2020)
    lines = ["station," + ",".join(map(str, years))]
    lines += [
        f"S{i}," + ",".join("" if (i + j) % 5 == 0 else f"{truth[i, j]:.2f}" for j in range(8)) for i in range(16)
    ]
    (tmp_path / "years.csv").write_text("\n".join(lines) + "\n")
    done = htf("complete", "years.csv")
    assert done.code == 0, done.err
    said = "a wide table, with 8 columns of values: 2012, 2013, 2014, ..., 2019 (--long if not)"
    assert done.err.splitlines()[0] == said
    assert (done.records[0]["dims"], done.records[0]["output"]) == ([16, 8], "years.completed.csv")
    before, after = (
        list(csv.reader(io.StringIO((tmp_path / name).read_text()))) for name in ("years.csv", "years.completed.csv")
    )
    for i, (old, new) in enumerate(zip(before[1:], after[1:], strict=True)):
        for j in range(8):
            if old[1 + j]:
                assert new[1 + j] == old[1 + j]
            else:
                assert float(new[1 + j]) == pytest.approx(truth[i, j], rel=0.1)


def test_a_matrix_without_names(htf, tmp_path):
    (tmp_path / "matrix.csv").write_text("\n".join(",".join(f"{v:.6f}" for v in row) for row in rank_one(12, 4)) + "\n")
    done = htf("inspect", "matrix.csv")
    assert (done.records[0]["dims"], done.records[0]["layout"]) == ([12, 4], "one column per index")
    assert [r["rank"] for r in htf("measure-rank", "matrix.csv").records] == [1, 1]


def test_a_german_spreadsheet_export(htf, numbering, tmp_path):
    text = 'Ort;Monat;Umsatz;Notiz\r\nKöln;2024-01;1.234,50;"viel\r\n#1"\r\nKöln;2024-02;;\r\nBonn;2024-01;-0,5;\r\n'
    (tmp_path / "export.csv").write_bytes(text.encode("cp1252"))
    done = htf("complete", "export.csv", "--value", "Umsatz", "--index", "Ort,Monat")
    assert done.code == 0, done.err
    assert done.err.splitlines()[0] == "read with semicolons, decimal commas, thousands separated by points, Latin-1"
    out = (tmp_path / "export.completed.csv").read_bytes().decode("cp1252")
    assert out == text.replace("2024-02;;", f"2024-02;{str(number(1, 1)).replace('.', ',')};")


def test_a_table_with_a_decimal_comma_and_no_header(htf, tmp_path):
    truth = 3 * rank_one(7, 6)
    (tmp_path / "messung.csv").write_text(
        "".join(
            f"{i + 0.5:.1f};{j + 0.25:.2f};{truth[i, j]:.2f}\n".replace(".", ",") for i in range(7) for j in range(6)
        )
    )
    record = htf("inspect", "messung.csv").records[0]
    assert (record["dims"], record["observed"], record["labels"]) == ([7, 6], 42, ["0.5 ... 6.5", "0.25 ... 5.25"])
    assert record["max"] == pytest.approx(truth.max(), abs=0.01)


def test_a_spreadsheet(htf, numbering, tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    pd.DataFrame({"country": ["NO", "SE"], 2001: [1.5, None], 2002: [2.5, 3.5]}).to_excel(
        tmp_path / "a.xlsx", index=False
    )
    assert htf("complete", "a.xlsx").code == 0
    sheet = openpyxl.load_workbook(tmp_path / "a.completed.xlsx").active
    assert [[cell.value for cell in row] for row in sheet] == [
        ["country", 2001, 2002],
        ["NO", 1.5, 2.5],
        ["SE", number(1, 0), 3.5],
    ]


def test_a_cube_of_netcdf(htf, tmp_path):
    """The real engine, with days that are missing altogether."""
    xr = pytest.importorskip("xarray")
    days = pd.date_range("2024-01-01", periods=20).delete([4, 9])
    wave = np.sin(np.arange(20) / 3)[np.delete(np.arange(20), [4, 9])]
    truth = 5 + np.multiply.outer(np.arange(1.0, 7), wave)
    shown = np.where(np.random.default_rng(0).random(truth.shape) < 0.8, truth, np.nan)
    xr.Dataset({"t": (("site", "time"), shown)}, coords={"time": days, "site": list("abcdef")}).to_netcdf(
        tmp_path / "a.nc"
    )
    done = htf("complete", "a.nc", "--effort", "quick")
    assert done.code == 0, done.err
    out = xr.load_dataset(tmp_path / "a.completed.nc")
    assert out.t.notnull().all() and (out.time.values == days.values).all()
    holes = np.isnan(shown)
    assert np.linalg.norm((out.t.values - truth)[holes]) < 0.2 * np.linalg.norm(truth[holes])
    assert done.records[0]["modes"] == ["site", "time"]


def test_a_zarr_folder_is_replaced_only_if_asked(htf, numbering, tmp_path):
    xr = pytest.importorskip("xarray")
    values = np.array([[1.0, np.nan], [3.0, 4.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr, about versions of its own format
        xr.Dataset({"t": (("x", "y"), values)}).to_zarr(tmp_path / "a.zarr")
    assert htf("complete", "a.zarr").code == 0
    assert htf("complete", "a.zarr").error.startswith("a.completed.zarr exists.")
    assert htf("complete", "a.zarr", "--force").code == 0
    assert xr.open_zarr(tmp_path / "a.completed.zarr", consolidated=False, chunks=None).t.values[0, 1] == number(0, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.completed.zarr", "a.completed.zarr.run", "a.zarr"]


# --- one table is one tensor ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("one.csv", "".join(f"{i},{j},{k},{i * j * k / 8}\n" for i in (1, 2) for j in (1, 2, 3) for k in (1, 2))),
        ("bigid.csv", "user,item,v\n" + "".join(f"{1000000007 * i},{2**40 + j},{i / (1 + j)}\n" for i in (1, 2, 3) for j in (0, 1))),
        ("wide.csv", "city,2001,2002\nOslo,1.5,2.5\nRome,3.5,4.5\n"),
        ("codes.csv", "zip,item,v\n01234,a,1.5\n1234,a,2.5\n01234,b,3\n1234,b,4\n"),
        ("semi.csv", "x;y;v\na;p;1,5\na;q;2,5\nb;p;3,5\nb;q;4,5\n"),
        ("gone.csv", "x,y,v\na,p,1\na,q,2\nb,p,3\nb,q,4\n"),
    ],
)  # fmt: skip
def test_every_command_sees_the_same_tensor(htf, numbering, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    inspected = htf("inspect", name).records[0]
    dims = inspected["dims"]
    assert htf("complete", name, "-o", f"out.{name}").records[0]["dims"] == dims
    fitted = htf("fit", name, "--iterations", 2, "-o", "run")
    assert f"htf of {' x '.join(map(str, dims))}, " in fitted.err
    assert f"{inspected['observed']} observations" in fitted.err
    shapes = [record["shape"] for record in htf("measure-rank", name).records if len(record["modes"]) == 1]
    assert [shape[0] for shape in shapes] == dims
    assert all(shape[0] * shape[1] == np.prod(dims) for shape in shapes)


def test_holes_and_repeated_rows_in_fit(htf, tmp_path):
    (tmp_path / "a.csv").write_text("x,y,v\na,p,1\na,q,\nb,p,3\nb,q,4\nb,q,5\n")
    done = htf("fit", "a.csv", "--iterations", 2, "-o", "run")
    assert (done.code, done.error) == (
        1,
        "a.csv line 6 disagrees with line 5 about one entry (got 5.0 and 4.0). Correct one of them, or average them: --duplicates mean.",
    )
    done = htf("fit", "a.csv", "--iterations", 2, "-o", "run", "--duplicates", "mean")
    assert (done.code, "3 observations" in done.err) == (0, True)
    done = htf("measure-rank", "a.csv", "--duplicates", "mean")
    assert done.error == "a.csv has missing entries (got 1 of 4). Fit a factorization to it first: htf fit."


def test_options_of_tables_are_those_of_every_command(htf, numbering, tmp_path):
    (tmp_path / "a.csv").write_text(
        "x~y~gdp~pop\n" + "".join(f"c{i}~{j}~{i + j}.25~-999\n" for i in range(3) for j in range(2))
    )
    options = ("--delimiter", "~", "--variables", "gdp,pop", "--header")
    assert htf("inspect", "a.csv", *options).records[0]["dims"] == [3, 2, 2]
    assert "3 x 2 x 2" in htf("fit", "a.csv", *options, "--iterations", 1, "-o", "run").err
    assert htf("measure-rank", "a.csv", *options).records[0]["shape"] == [3, 4]
    assert htf("complete", "a.csv", *options, "--missing-value", -999, "-o", "out.csv").records[0]["predicted"] == 6


# --- missing values ---------------------------------------------------------------------------------------------------------


def test_a_missing_value_that_never_occurs(htf, numbering, tmp_path):
    rows = [f"c{i},p{j},{-999 if (i + j) % 3 == 0 else 3 + i / (1 + j)}\n" for i in range(7) for j in range(6)]
    (tmp_path / "a.csv").write_text("city,product,value\n" + "".join(rows))
    done = htf("complete", "a.csv", "--missing-value", -9999)
    assert (done.code, done.error) == (
        2,
        "--missing-value does not occur in a.csv (got -9999, allowed a value from -999 to 8).",
    )
    done = htf("complete", "a.csv", "-o", "b.csv")
    remark = "14 values are -999, farther from all others than these are from each other; if that means missing, say so: --missing-value -999"
    assert remark in done.records[0]["warnings"]
    assert htf("complete", "a.csv", "--missing-value", -999, "-o", "c.csv").records[0]["predicted"] == 14
    assert remark in htf("fit", "a.csv", "--iterations", 1, "-o", "run").err


def test_absent_rows_that_are_zero(htf, numbering, tmp_path):
    (tmp_path / "a.csv").write_text("x,y,v\na,p,1\nb,q,2\na,q,\n")
    done = htf("complete", "a.csv", "--absent-is-zero")
    assert (done.records[0]["observed"], done.records[0]["predicted"]) == (3, 1)
    assert (tmp_path / "a.completed.csv").read_text() == f"x,y,v\na,p,1\nb,q,2\na,q,{number(0, 1)}\n"
    assert htf("inspect", "a.csv", "--absent-is-zero").records[0]["observed"] == 3


# --- files -------------------------------------------------------------------------------------------------------------------


def test_several_files_are_one_table(htf, numbering, tmp_path):
    (tmp_path / "1.csv").write_text("x,y,v\na,p,1\na,q,\n")
    (tmp_path / "2.csv").write_text("x,y,v\nb,p,3\nb,q,4\n")
    done = htf("complete", "1.csv", "2.csv", "-o", "out.csv")
    assert (done.code, done.records[0]["dims"]) == (0, [2, 2])
    assert (tmp_path / "out.csv").read_text() == f"x,y,v\na,p,1\na,q,{number(0, 1)}\nb,p,3\nb,q,4\n"
    assert htf("inspect", "[12].csv").records[0]["dims"] == [2, 2]
    done = htf("complete", "[12].csv")
    assert (done.code, done.error) == (2, "no output file. Name one with -o, or - for stdout.")


def test_an_unknown_ending_of_the_output_is_refused(htf, numbering, tmp_path):
    (tmp_path / "a.csv").write_text("x,y,v\na,p,1\nb,q,\n")
    for name, got in (("out.xlsx", ".xlsx"), ("out.dat", ".dat"), ("out", "no ending")):
        done = htf("complete", "a.csv", "-o", name)
        assert (done.code, done.error) == (2, f"{name} is not in the format of a.csv (got {got}, allowed .csv).")
    assert htf("complete", "a.csv", "-o", "out.csv.gz").code == 0
    assert pd.read_csv(tmp_path / "out.csv.gz").v.tolist() == [1, number(1, 1)]


def test_a_wide_table_has_bounds_in_files_beside_it(htf, numbering, tmp_path):
    (tmp_path / "a.csv").write_text("city,2001,2002\nOslo,1.5,\nRome,3.5,4.5\n")
    assert htf("complete", "a.csv", "--interval", 0.9, "--imputations", 1).code == 0
    low, high = (pd.read_csv(tmp_path / f"a.completed.{end}.csv")["2002"][0] for end in ("lower", "upper"))
    assert (low, high) == (number(0, 1) - 0.9, number(0, 1) + 0.9)
    assert pd.read_csv(tmp_path / "a.completed.1.csv")["2001"].tolist() == [1.5, 3.5]


def test_records_as_csv_have_all_keys(htf, numbering, tmp_path):
    (tmp_path / "a.csv").write_text("x,y,v\na,p,1\nb,q,\n")
    done = htf("complete", "a.csv", "-o", "b.csv", "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(done.out))
    record = htf("complete", "a.csv", "-o", "b.csv", "--force").records[0]
    assert {key.partition(".")[0] for key in row} == set(record)
    assert json.loads(row["dims"]) == record["dims"]
    assert json.loads(row["members"]) == record["members"]
    assert float(row["held_out.random.error"]) == record["held_out"]["random"]["error"]
    assert (row["output"], float(row["held_out_error"])) == ("b.csv", record["held_out_error"])


def test_records_of_different_keys_as_csv(capsys):
    from htfcli.cli.console import RecordWriter

    writer = RecordWriter("csv", lambda row: row)
    for record in ({"a": 1, "b": [1, 2]}, {"a": 2, "c": {"d": "x,y", "e": []}}):
        writer.write(record)
    writer.close()
    assert capsys.readouterr().out == 'a,b,c.d,c.e\n1,"[1, 2]",,\n2,,"x,y",[]\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"x,y,v\na,1,five\n"),
        ("a.csv", b"x;y;v\na;p;1,234\na;q;5,678\n"),
        ("a.xlsx", b"junk"),
        ("a.npy", None),
        ("a.doc", b"?"),
    ],
)
def test_nothing_heavy_is_imported_to_refuse_an_input(tmp_path, name, content):
    if content is None:
        np.save(tmp_path / name, np.ones((2, 3)))
    else:
        (tmp_path / name).write_bytes(content)
    script = f"import sys; from htfcli.app import main; code = main(['complete', {name!r}]); print(code, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() in (["1", "False"], ["2", "False"]), done.stderr
    assert done.stderr.startswith("Error: ")


@pytest.mark.parametrize("words", ["import htfcli", "from htfcli.app import main; main(['complete', '--help'])"])
def test_help_and_the_package_import_no_pandas(words):
    script = (
        f"import sys; {words}; print([name for name in ('pandas', 'torch', 'numpy', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
