from __future__ import annotations

import io
import json

import numpy as np
import pytest
import yaml

from htfcli.experiments.runs import complete as complete_run
from tests.numbering import STD, STEPS, Numbering, complete, number, stand_in

TABLE = "cell,day,response\nTreg,2024-01-02,1.5\nNK,2024-01-02,\nTreg,2024-01-01,2.5\nB,2024-01-01,3\n"
# NK on the second day is entry (1, 1) of B, NK, Treg x 2024-01-01, 2024-01-02
FILLED = TABLE.replace("NK,2024-01-02,", f"NK,2024-01-02,{number(1, 1)}")


@pytest.fixture
def numbering(monkeypatch):
    """The stand-in for the engine."""
    stand_in(monkeypatch)


@pytest.fixture
def table(tmp_path):
    (tmp_path / "data.csv").write_text(TABLE)
    return "data.csv"


@pytest.fixture
def cube(tmp_path):
    tensor = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
    tensor[0, 1, 2] = tensor[1, 0, 0] = np.nan
    np.save(tmp_path / "cube.npy", tensor)
    return tensor


# --- what comes out -----------------------------------------------------------------------------------------------------


def test_a_table(htf, numbering, table, tmp_path):
    done = htf("complete", table, "-o", "out.csv")
    assert done.code == 0
    assert (tmp_path / "out.csv").read_text() == FILLED
    assert done.err.splitlines() == [
        "3 x 2 (cell, day); 3 observed, 1 to predict; on cpu (1 thread)",
        "Warning: fibre of day: the engine has its doubts",
        "Warning: no observations at column cell, value 'NK'; predictions there are defaults, from the other modes",
    ]
    (summary,) = done.records
    expected = {
        "kind": "completion",
        "input": "data.csv",
        "output": "out.csv",
        "dims": [3, 2],
        "modes": ["cell", "day"],
        "observed": 3,
        "predicted": 1,
        "held_out_error": 0.2,
        "r2": 0.9,
        "tree": "(cell, day)",
        "mode_tree": [0, 1],
        "widths": {"{0,1}": 1},
        "strongest": 1,
        "still_falling": True,
        "run": "out.csv.run",
        "unobserved": [{"mode": "cell", "count": 1, "labels": ["NK"], "first": "column cell, value 'NK'"}],
    }
    assert {key: summary[key] for key in expected} == expected
    assert len(summary["warnings"]) == 2
    assert not {"scatter", "calibration", "steps"} & summary.keys()


def test_names_instead_of_numbers_in_the_report(htf, numbering, table):
    (summary,) = htf("complete", table, "-o", "out.csv").records
    assert list(summary["held_out"]) == ["random", "fibre of day"]
    assert summary["members"][1]["tree"] == "(cell, day)"
    assert summary["members"][1]["weights"] == {"random": 1.0, "fibre of day": 0.7}
    assert summary["ordered"][0]["mode"] == "day"
    assert summary["units"]["mode"] == "cell"
    assert [(one["mode"], one["label"]) for one in summary["per_index"]] == [("cell", "B"), ("cell", "NK")]


def test_the_run_folder(htf, numbering, table, tmp_path):
    assert htf("complete", table, "-o", "out.csv", "--width", 7, "-q").err == ""
    folder = tmp_path / "out.csv.run"
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names == {"config.yaml", "records.jsonl", "model.safetensors", "summary.json"}
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    assert records == [{"kind": "complete", **step} for step in STEPS]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["scatter"]["observed"] == [1, 2, 3]
    assert summary["scatter"]["kind"] == ["random", "random", "fibre of day"]
    assert list(summary["calibration"]) == ["random", "fibre of day"]
    assert yaml.safe_load((folder / "config.yaml").read_text())["width"] == 7
    assert htf("complete", table, "--config", folder / "config.yaml", "-o", "again.csv").code == 0
    assert (tmp_path / "again.csv").read_text() == FILLED
    assert htf("complete", table, "-o", "c.csv", "--run", "runs/mine", "-q").code == 0
    assert (tmp_path / "runs/mine/summary.json").exists()
    assert not (tmp_path / "c.csv.run").exists()


def test_a_table_without_holes_is_completed(htf, numbering, tmp_path):
    (tmp_path / "a.csv").write_text("x,y,v\np,1,5\nq,2,6\n")
    assert htf("complete", "a.csv", "-o", "out.csv").records[0]["predicted"] == 2
    expected = f"x,y,v\np,1,5\nq,2,6\np,2,{number(0, 1)}\nq,1,{number(1, 0)}\n"
    assert (tmp_path / "out.csv").read_text() == expected
    done = htf("complete", "out.csv", "-o", "full.csv", "-q")
    assert (tmp_path / "full.csv").read_text() == expected  # nothing is missing any more
    assert done.records[0]["predicted"] == 0


def test_all_combinations(htf, numbering, table, tmp_path):
    done = htf("complete", table, "--all", "-o", "out.csv")
    assert done.records[0]["predicted"] == 3
    added = f"B,2024-01-02,{number(0, 1)}\nNK,2024-01-01,{number(1, 0)}\n"
    assert (tmp_path / "out.csv").read_text() == FILLED + added


def test_too_many_combinations(htf, numbering, tmp_path, monkeypatch):
    monkeypatch.setattr(complete_run, "MOST_ROWS", 5)
    (tmp_path / "a.csv").write_text("".join(f"{i},{i},1\n" for i in range(3)))
    done = htf("complete", "a.csv", "-o", "out.csv")
    assert (done.code, done.error) == (
        1,
        "a.csv lacks too many combinations to write them all (got 6, allowed 5). "
        "Name those you need with --predict, or insist with --all.",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    assert htf("complete", "a.csv", "-o", "out.csv", "--all").code == 0
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 9
    (tmp_path / "b.csv").write_text("".join(",".join([str(i)] * 200) + ",1\n" for i in range(3)))
    done = htf("complete", "b.csv", "--all", "-o", "b.out")
    assert done.error == (
        "b.csv lacks too many combinations to write them all (got about 10^95, allowed 5). "
        "Name those you need with --predict."
    )


def test_a_large_tensor_is_never_dense(htf, numbering, tmp_path, monkeypatch):
    """10^12 entries, of which some are asked for."""
    monkeypatch.setattr("htfcli.engine.factorizations.factorization.Factorization.dense", None)
    labels = np.random.default_rng(0).integers(0, 10**4, (50, 3))
    (tmp_path / "a.csv").write_text("i,j,k,v\n" + "".join(f"{i},{j},{k},1\n" for i, j, k in labels) + "0,0,0,\n")
    done = htf("complete", "a.csv", "--dims", "10000,10000,10000", "-o", "out.csv", "-q")
    assert done.code == 0
    assert (tmp_path / "out.csv").read_text().splitlines()[-1] == f"0,0,0,{number(0, 0, 0)}"
    assert done.records[0]["unobserved"][0]["count"] > 9000


def test_smooth(htf, numbering, table, cube, tmp_path):
    assert htf("complete", table, "--smooth", "-o", "out.csv").code == 0
    assert f"Treg,2024-01-02,{number(2, 1)}\n" in (tmp_path / "out.csv").read_text()
    assert htf("complete", "cube.npy", "--smooth", "-o", "out.npy").code == 0
    assert np.load(tmp_path / "out.npy")[1, 2, 3] == number(1, 2, 3)


def test_a_dense_tensor_and_its_uncertainty(htf, numbering, cube, tmp_path):
    done = htf("complete", "cube.npy", "-o", "filled.npy", "--uncertainty", "std.npy")
    assert done.code == 0
    filled, std = np.load(tmp_path / "filled.npy"), np.load(tmp_path / "std.npy")
    assert filled.dtype == std.dtype == np.float32
    assert (filled[0, 1, 2], filled[1, 0, 0]) == (number(0, 1, 2), number(1, 0, 0))
    kept = ~np.isnan(cube)
    assert (filled[kept] == cube[kept]).all()
    assert (std == STD).all()
    assert done.records[0]["tree"] == "((0, 1), 2)"


def test_uncertainty_of_a_table(htf, numbering, table, tmp_path):
    assert htf("complete", table, "-o", "out.csv", "--uncertainty", "std.csv", "--all").code == 0
    out, std = ((tmp_path / name).read_text().splitlines() for name in ("out.csv", "std.csv"))
    assert [line.rpartition(",")[0] for line in std] == [line.rpartition(",")[0] for line in out]
    assert [line.rpartition(",")[2] for line in std] == ["response"] + [str(STD)] * 6


def test_our_own_observations(htf, numbering, tmp_path):
    htf("generate", "tensor", "--dim", 3, "--rank", 2, "--observed", "0.9", "-o", "data.safetensors")
    done = htf("complete", "data.safetensors", "-o", "out.npy")
    assert done.code == 0, done.err
    assert (done.records[0]["observed"], done.records[0]["predicted"]) == (73, 8)
    assert np.isfinite(np.load(tmp_path / "out.npy")).all()


def test_a_human_table(htf, numbering, table, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out = htf("complete", table, "-o", "out.csv", "--format", "table").out
    lines = [line.strip().partition("   ") for line in out.splitlines()]
    cells = {what: value.strip() for what, _, value in lines}
    assert cells["tensor"] == "3 x 2 (cell, day)"
    assert cells["observed"] == "3 of 6 entries"
    assert cells["held-out error, random"] == "0.2 (baseline 0.9, 30 entries, 75 % of the holes)"
    assert cells["held-out error, fibre of day"] == "0.4 (baseline 1, 12 entries, 25 % of the holes)"
    assert cells["held-out R^2"] == "0.9"
    assert cells["held out, inside 90 %"] == "0.91 (random), 0.85 (fibre of day)"
    members = [value.strip() for what, _, value in lines if what == "member"]
    heavy = "(cell, day), width 2, ridge 0.1 + interpolation: weight 1.00 (random), 0.70 (fibre of day)"
    assert members == ["mean: weight 0.30 (fibre of day)", heavy]
    assert cells["mode tree"] == "(cell, day)"
    assert cells["rank of {cell}"] == "2 (effective rank 1.5)"
    assert cells["order of day"] == "smoothing 3, length 2, nugget 0.05"
    assert cells["held-out error, cell B"] == "0.1 (its own mean 1)"
    assert cells["effort"] == "normal (the held-out error was still falling; --effort thorough goes on)"
    assert out.count("warning") == 2


def test_a_report_that_has_no_factorization(htf, numbering, table, monkeypatch):
    def alone(entries, dims, *args, **kwargs):
        found = Numbering(dims, {"held_out_error": 0.3, "r2": None, "effort": "quick", "warnings": []})
        found.model = None
        return found

    monkeypatch.setattr(complete_run, "complete", alone)
    out = htf("complete", table, "-o", "out.csv", "--format", "table").out
    assert "held-out relative error" in out
    assert not any(word in out for word in ("R^2", "mode tree", "rank of"))
    (summary,) = htf("complete", table, "-o", "b.csv").records
    assert (summary["tree"], summary["widths"], summary["parameters"]) == (None, {}, 0)


# --- intervals and imputations ------------------------------------------------------------------------------------------


def test_intervals_are_columns_of_a_table(htf, numbering, table, tmp_path):
    assert htf("complete", table, "-o", "out.csv", "--interval", 0.9, "--all").code == 0
    lines = (tmp_path / "out.csv").read_text().splitlines()
    low, high = number(1, 1) - 0.9, number(1, 1) + 0.9
    assert lines[:3] == [
        "cell,day,response,lower,upper",
        "Treg,2024-01-02,1.5,,",
        f"NK,2024-01-02,{number(1, 1)},{low},{high}",
    ]
    assert lines[5] == f"B,2024-01-02,{number(0, 1)},{number(0, 1) - 0.9},{number(0, 1) + 0.9}"  # a row that was added
    done = htf("complete", "out.csv", "-o", "b.csv", "--value", "response", "--index", "cell,day", "--interval", 0.5)
    assert (done.code, done.error) == (2, "--interval adds a column that out.csv has already (got lower).")


def test_intervals_of_a_parquet_table(htf, numbering, tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    data = pa.table({"x": ["p", "p", "q"], "y": [1, 2, 1], "v": [1.0, 2.0, None]})
    pq.write_table(data, tmp_path / "a.parquet")
    assert htf("complete", "a.parquet", "--interval", 0.5, "--all", "-o", "b.parquet").code == 0
    found = pq.read_table(tmp_path / "b.parquet").to_pylist()
    assert [row["v"] for row in found] == [1.0, 2.0, number(1, 0), number(1, 1)]
    assert [row["lower"] for row in found] == [None, None, number(1, 0) - 0.5, number(1, 1) - 0.5]


@pytest.mark.parametrize(
    ("name", "content", "observed", "ends"),
    [
        ("a.tns", "1 1 5\n1 2 6\n2 1 7\n", "1 1 5", [f"2 2 {number(1, 1) + e}" for e in (-0.9, 0.9)]),
    ],
)
def test_intervals_are_files_beside_other_formats(htf, numbering, cube, tmp_path, name, content, observed, ends):
    (tmp_path / name).write_text(content)
    assert htf("complete", name, "-o", "out.tns", "--interval", 0.9).code == 0
    for end, line in zip(("lower", "upper"), ends, strict=True):
        lines = (tmp_path / f"out.{end}.tns").read_text().splitlines()
        assert (lines[0], lines[-1]) == (observed, line)
    assert htf("complete", "cube.npy", "-o", "out.npy", "--interval", 0.5).code == 0
    upper = np.load(tmp_path / "out.upper.npy")
    assert upper[0, 1, 2] == number(0, 1, 2) + 0.5
    assert upper[0, 0, 0] == cube[0, 0, 0]  # observed entries stand as they are
    done = htf("complete", "cube.npy", "-o", "out.npy", "--run", "r", "--uncertainty", "u.npy")
    assert done.error == "out.npy exists. Choose another name, or replace it with --force."


def test_imputations_are_data_sets_of_their_own(htf, numbering, table, cube, tmp_path):
    assert htf("complete", table, "-o", "out.csv", "--imputations", 3, "--all", "--interval", 0.9).code == 0
    assert (tmp_path / "out.csv").read_text().startswith("cell,day,response,lower,upper\n")
    drawn = []
    for one in (1, 2, 3):
        rows = [line.split(",") for line in (tmp_path / f"out.{one}.csv").read_text().splitlines()]
        assert (rows[0], rows[1]) == (["cell", "day", "response"], ["Treg", "2024-01-02", "1.5"])
        assert len(rows) == 7
        drawn.append([float(rows[2][2]), float(rows[5][2]), float(rows[6][2])])
    means = [number(1, 1), number(0, 1), number(1, 0)]
    assert all(abs(value - mean) < 6 * STD for values in drawn for value, mean in zip(values, means, strict=True))
    assert len({value for values in drawn for value in values}) == 9
    assert htf("complete", table, "-o", "again.csv", "--imputations", 3, "--all").code == 0
    assert (tmp_path / "again.2.csv").read_text() == (tmp_path / "out.2.csv").read_text()
    assert htf("complete", "cube.npy", "-o", "out.npy", "--imputations", 2, "--smooth").code == 0
    first, second = np.load(tmp_path / "out.1.npy"), np.load(tmp_path / "out.2.npy")
    kept = ~np.isnan(cube)
    assert (first[kept] == cube[kept]).all()
    assert (first[~kept] != second[~kept]).all()


def test_imputations_of_queries_from_a_run(htf, numbering, table, tmp_path):
    assert htf("complete", table, "-o", "out.csv").code == 0
    done = htf(
        "complete", "out.csv.run", "--predict", table, "-o", "p.csv", "--imputations", 2, "--interval", 0.9, "--seed", 4
    )
    assert done.code == 0, done.err
    names = ("p.csv", "p.1.csv", "p.2.csv")
    assert all(len((tmp_path / name).read_text().splitlines()) == 5 for name in names)
    assert (tmp_path / "p.csv").read_text().startswith("cell,day,response,lower,upper\nTreg,2024-01-02,23.0,")


# --- what the engine is given -------------------------------------------------------------------------------------------


def test_numbers_and_dates_are_ordered_and_text_is_not(htf, numbering, tmp_path):
    (tmp_path / "a.csv").write_text(
        "site,day,dose,v\nb,2024-03-01,10,1\na,2024-01-01,1,2\na,2024-01-31,1,3\nb,2024-01-01,0.5,4\n"
    )
    assert htf("complete", "a.csv", "-o", "b.csv").code == 0
    (given,) = Numbering.calls
    site, day, dose = given["coordinates"]
    assert site is None and given["unordered"] == [0]
    assert (day - day[0]).tolist() == [0, 30, 60]
    assert dose.tolist() == [0.5, 1, 10]
    assert given["wanted"] is None  # every combination that the table lacks
    assert given["std"] is None


def test_ordered_text_stands_as_in_the_file(htf, numbering, cube, tmp_path):
    (tmp_path / "a.csv").write_text("level,x,v\nlow,p,1\nmid,p,2\nhigh,p,3\nlow,q,\n")
    assert htf("complete", "a.csv", "-o", "b.csv", "--ordered", "level").code == 0
    (given,) = Numbering.calls
    assert given["coordinates"][0].tolist() == [0, 1, 2]
    assert given["unordered"] == [1]
    assert given["entries"].index.tolist() == [[0, 0], [1, 0], [2, 0]]
    assert given["wanted"].tolist() == [[0, 1]]
    assert htf("complete", "cube.npy", "-o", "c.npy", "--ordered", "0,2").code == 0
    coordinates = Numbering.calls[-1]["coordinates"]
    assert [None if c is None else c.tolist() for c in coordinates] == [[0, 1], None, [0, 1, 2, 3]]


def test_known_measurement_errors(htf, numbering, cube, tmp_path):
    (tmp_path / "a.csv").write_text("x,y,v,e\np,1,5,0.1\nq,1,7,0.3\nq,1,9,0.4\np,2,,\n")
    done = htf("complete", "a.csv", "--std", "e", "--duplicates", "mean", "-o", "b.csv")
    assert done.code == 0, done.err
    assert (done.records[0]["modes"], done.records[0]["observed"]) == (["x", "y"], 2)
    given = Numbering.calls[-1]
    assert given["entries"].value.tolist() == [5, 8]
    assert given["std"].tolist() == pytest.approx([0.1, 0.25])  # of the mean of two: sqrt(.09 + .16) / 2
    assert (tmp_path / "b.csv").read_text().splitlines()[-1] == f"p,2,{number(0, 1)},"
    std = np.full(cube.shape, np.nan)
    std[~np.isnan(cube)] = np.arange(1.0, 23.0)
    np.save(tmp_path / "std.npy", std)
    assert htf("complete", "cube.npy", "--std", "std.npy", "-o", "c.npy").code == 0
    assert Numbering.calls[-1]["std"].tolist() == list(range(1, 23))


def test_queries_say_which_holes_matter(htf, numbering, table, tmp_path):
    (tmp_path / "q.csv").write_text("cell,day\nNK,2024-01-01\nXX,2024-01-02\n")
    assert htf("complete", table, "--predict", "q.csv", "-o", "p.csv").code == 0
    assert Numbering.calls[-1]["wanted"].tolist() == [[1, 0], [-1, 1]]


# --- reading options ----------------------------------------------------------------------------------------------------


def test_columns(htf, numbering, tmp_path):
    (tmp_path / "a.csv").write_text("v,y,x,w\n5,1,p,8\n,2,p,9\n6,2,q,9\n")
    assert htf("complete", "a.csv", "--value", "v", "--index", "x,y", "-o", "out.csv").code == 0
    assert (tmp_path / "out.csv").read_text() == f"v,y,x,w\n5,1,p,8\n{number(0, 1)},2,p,9\n6,2,q,9\n"
    (tmp_path / "c.yaml").write_text("index: [x, y]\nvalue: v\n")
    assert htf("complete", "a.csv", "--config", "c.yaml", "-o", "again.csv").code == 0
    assert (tmp_path / "again.csv").read_text() == (tmp_path / "out.csv").read_text()


def test_duplicates_and_missing_values(htf, numbering, tmp_path):
    (tmp_path / "a.csv").write_text("x,y,v\np,1,5\np,1,6\nq,1,-9\nq,2,4\n")
    done = htf("complete", "a.csv", "--missing-value", -9, "-o", "out.csv")
    assert (done.code, done.error) == (
        1,
        "a.csv line 3 disagrees with line 2 about one entry (got 6.0 and 5.0). "
        "Correct one of them, or average them: --duplicates mean.",
    )
    done = htf("complete", "a.csv", "--missing-value", -9, "--duplicates", "mean", "-o", "out.csv")
    assert done.records[0]["observed"] == 2
    assert (tmp_path / "out.csv").read_text() == f"x,y,v\np,1,5\np,1,6\nq,1,{number(1, 0)}\nq,2,4\n"


def test_a_missing_value_that_never_occurs_or_is_not_named(htf, numbering, cube, tmp_path):
    rows = "".join(f"{n % 4},{n // 4},{-999 if n % 5 == 0 else 1 + n / 7:g}\n" for n in range(20))
    (tmp_path / "a.csv").write_text("x,y,v\n" + rows)
    done = htf("complete", "a.csv", "--missing-value", -9999, "-o", "b.csv")
    message = "--missing-value does not occur in a.csv (got -9999, allowed a value from -999 to 3.71429)."
    assert (done.code, done.error) == (2, message)
    done = htf("complete", "a.csv", "-o", "c.csv")
    remark = (
        "4 values are -999, farther from all others than these are from each other; "
        "if that means missing, say so: --missing-value -999"
    )
    assert remark in done.records[0]["warnings"]
    done = htf("complete", "a.csv", "--missing-value", -999, "-o", "d.csv")
    assert done.records[0]["predicted"] == 4
    assert len(done.records[0]["warnings"]) == 1  # the stand-in's
    done = htf("complete", "cube.npy", "--missing-value", -1, "-o", "e.npy")
    assert done.error == "--missing-value does not occur in cube.npy (got -1, allowed a value from 0 to 23)."


def test_a_column_that_is_no_mode(htf, numbering, tmp_path):
    (tmp_path / "a.csv").write_text("id,x,y,v\n" + "".join(f"{n},{n % 3},{n % 4},1\n" for n in range(12)) + "12,0,0,\n")
    done = htf("complete", "a.csv", "-o", "out.csv")
    said = "column id has another value in every row and is left out; --index decides"
    assert done.err.splitlines()[0] == said
    assert (done.records[0]["notes"], done.records[0]["dims"]) == ([said], [3, 4])
    assert "column id" not in htf("complete", "a.csv", "--index", "x,y", "-o", "b.csv").err
    assert htf("complete", "a.csv", "--index", "id,x,y", "-o", "c.csv").records[0]["dims"] == [13, 3, 4]


# --- a fitted completion used again ---------------------------------------------------------------------------------------


def test_predictions_from_the_data_and_from_the_model(htf, numbering, table, tmp_path):
    (tmp_path / "q.csv").write_text("day,plate,cell\n2024-01-01,7,NK\n2024-01-02,8,Treg\n")
    done = htf("complete", table, "--predict", "q.csv", "-o", "p.csv", "--uncertainty", "s.csv")
    assert (done.code, done.records[0]["predicted"]) == (0, 2)
    expected = f"day,plate,cell,response\n2024-01-01,7,NK,{number(1, 0)}\n2024-01-02,8,Treg,{number(2, 1)}\n"
    assert (tmp_path / "p.csv").read_text() == expected
    for number_, model in enumerate(("p.csv.run", "p.csv.run/model.safetensors")):
        again = htf("complete", model, "--predict", "q.csv", "-o", f"{number_}.csv", "--uncertainty", f"{number_}s.csv")
        assert again.code == 0, again.err
        expected_record = {"model": model, "output": f"{number_}.csv", "predicted": 2, "warnings": []}
        assert again.records == [{"kind": "prediction", **expected_record}]
        assert (tmp_path / f"{number_}.csv").read_text() == expected
        assert (tmp_path / f"{number_}s.csv").read_text() == (tmp_path / "s.csv").read_text()


def test_a_label_never_seen_has_a_default_that_is_said_to_be_one(htf, numbering, table, tmp_path):
    """One unknown label among many queries does not refuse the others, from the data and from the run."""
    (tmp_path / "q.csv").write_text("cell,day\nNK,2024-01-01\nCD8,2024-01-02\nCD8,2025-01-01\n")
    said = [
        "2 of 3 rows of q.csv have a value of column cell that was never observed, as 'CD8'; "
        "their predictions are defaults, from the other columns alone",
        "1 of 3 rows of q.csv have a value of column day that was never observed, as '2025-01-01'; "
        "their predictions are defaults, from the other columns alone",
    ]
    first = htf("complete", table, "--predict", "q.csv", "-o", "p.csv")
    assert (first.code, first.records[0]["warnings"][-2:]) == (0, said)
    again = htf("complete", "p.csv.run", "--predict", "q.csv", "-o", "again.csv")
    assert again.records[0]["warnings"] == said
    assert again.err.count("Warning: ") == 2
    expected = f"cell,day,response\nNK,2024-01-01,{number(1, 0)}\nCD8,2024-01-02,{number(-1, 1)}\n"
    for name in ("p.csv", "again.csv"):
        assert (tmp_path / name).read_text() == f"{expected}CD8,2025-01-01,{number(-1, -1)}\n"


def test_predictions_of_a_dense_tensor(htf, numbering, cube, tmp_path):
    (tmp_path / "q.csv").write_text("i,j,k\n1,2,3\n0,0,0\n")
    assert htf("complete", "cube.npy", "--predict", "q.csv", "-o", "p.csv").code == 0
    assert (tmp_path / "p.csv").read_text() == f"i,j,k,value\n1,2,3,{number(1, 2, 3)}\n0,0,0,{number(0, 0, 0)}\n"


def test_other_commands_read_the_model(htf, numbering, table, tmp_path):
    htf("complete", table, "-o", "out.csv")
    facts = htf("inspect", "out.csv.run").records[0]
    assert (facts["kind"], facts["modes"], facts["value"]) == ("completion", ["cell", "day"], "response")
    assert (facts["dims"], facts["members"], facts["run_records"]) == ([3, 2], 2, 3)
    ranks = htf("measure-rank", "out.csv.run")
    assert [r["node"] for r in ranks.records] == ["{0}", "{1}"]
    strongest = "the strongest factorization (weight 1.00) of the average, without what is added to it"
    assert ranks.err == f"out.csv.run: {strongest}\n"
    assert htf("inspect", "out.csv.run/records.jsonl").records[0]["kind"] == "records of a completion"


# --- pipes ----------------------------------------------------------------------------------------------------------------


def test_a_pipeline_in_a_shell(shell):
    """The real solver, from stdin to stdout."""
    (shell.folder / "data.csv").write_text(TABLE)
    done = shell("cat data.csv | htf complete - -o - --width 1 | tail -n +3 | cut -d, -f1,2 | head -1")
    assert (done.code, done.out) == (0, "NK,2024-01-02\n")
    assert "held-out" in done.err or "entries predicted" in done.err
    assert {path.name for path in shell.folder.iterdir()} == {"data.csv"}
    done = shell(
        "htf complete data.csv -o out.csv --width 1 -q | jq -c .predicted && cut -d, -f1,2 out.csv | diff - <(cut -d, -f1,2 data.csv)"
    )
    assert (done.code, done.out) == (0, "1\n")


def test_bytes_on_stdout(htf, numbering, cube, tmp_path, monkeypatch):
    import sys

    sink = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(sink, encoding="utf-8"))
    done = htf("complete", "cube.npy", "-o", "-", "--run", "kept")
    assert done.code == 0
    assert np.load(io.BytesIO(sink.getvalue()))[0, 1, 2] == number(0, 1, 2)
    assert done.err.splitlines()[-1] == "2 entries predicted, held-out relative error 0.2"
    assert (tmp_path / "kept/model.safetensors").exists()
    assert not (tmp_path / "-.run").exists()


def test_a_table_from_stdin(htf, numbering, tmp_path, monkeypatch):
    import sys

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TABLE.encode())))
    done = htf("complete", "-", "-o", "-")
    assert (done.code, done.out) == (0, FILLED)


# --- interruption and failure ---------------------------------------------------------------------------------------------


@pytest.fixture
def stop_after(monkeypatch):
    """Ctrl-C comes when it has been asked for so many times."""
    from htfcli.cli.interrupts import StopSignals

    def after(patience):
        asked: list[int] = []
        monkeypatch.setattr(StopSignals, "received", property(lambda self: len(asked.append(1) or asked) > patience))

    return after


def test_interrupted_while_searching(htf, numbering, table, tmp_path, stop_after):
    stop_after(0)
    done = htf("complete", table, "-o", "out.csv", "-q")
    assert (done.code, done.error) == (
        130,
        "interrupted, nothing is written; the models fitted so far are in out.csv.run/records.jsonl.",
    )
    assert not (tmp_path / "out.csv").exists()
    assert len((tmp_path / "out.csv.run/records.jsonl").read_text().splitlines()) == 3
    done = htf("complete", table, "-o", "-", "-q")
    assert (done.code, done.out, done.error) == (130, "", "interrupted, nothing is written.")


def test_interrupted_while_writing(htf, numbering, table, tmp_path, stop_after):
    """The fit is kept, and what the message advises works."""
    kept = "the fit is in out.csv.run, predict with: htf complete out.csv.run --predict."
    stop_after(1)
    done = htf("complete", table, "-o", "out.csv", "-q")
    assert (done.code, done.error) == (130, f"interrupted, nothing is written; {kept}")
    assert not (tmp_path / "out.csv").exists()
    assert htf("complete", "out.csv.run", "--predict", table, "-o", "out.csv").code == 130
    stop_after(99)
    assert htf("complete", "out.csv.run", "--predict", table, "-o", "out.csv").code == 0
    stop_after(2)
    done = htf("complete", table, "-o", "out.csv", "--uncertainty", "std.csv", "-q", "--force")
    assert done.error == f"interrupted, out.csv is written and std.csv is not; {kept}"
    stop_after(1)
    assert htf("complete", table, "-o", "-", "-q").error == "interrupted, the output is cut off."


def test_a_search_that_fails_leaves_no_folder(htf, table, tmp_path, monkeypatch):
    from htfcli.errors import DataError

    def fails(*args, **kwargs):
        raise DataError("the solver gave up")

    monkeypatch.setattr(complete_run, "complete", fails)
    done = htf("complete", table, "-o", "out.csv", "-q")
    assert (done.code, done.error) == (1, "the solver gave up.")
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]


def test_what_is_there_is_not_replaced_unasked(htf, numbering, table, tmp_path):
    assert htf("complete", table, "-o", "out.csv", "--uncertainty", "std.csv").code == 0
    done = htf("complete", table, "-o", "out.csv")
    assert (done.code, done.error) == (2, "out.csv exists. Choose another name, or replace it with --force.")
    done = htf("complete", table, "-o", "new.csv", "--uncertainty", "std.csv")
    assert (done.code, done.error) == (2, "std.csv exists. Choose another name, or replace it with --force.")
    (tmp_path / "out.csv").unlink()
    done = htf("complete", table, "-o", "out.csv", "-q")
    assert (done.code, done.error) == (
        2,
        "out.csv.run contains a run. Choose another name, or replace it with --force.",
    )
    assert htf("complete", table, "-o", "out.csv", "--uncertainty", "std.csv", "--force").code == 0
    assert htf("complete", table, "-o", table, "--force").code == 0  # in place
    assert (tmp_path / table).read_text() == FILLED


# --- bad usage --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ("", 2, "no data to complete. Shortest useful call: htf complete data.csv (see htf complete --help)."),
        ("fitted.csv.run", 2, "no output file. Name one with -o, or - for stdout."),
        ("data.csv -o x.xlsx", 2, "x.xlsx is not in the format of data.csv (got .xlsx, allowed .csv)."),
        ("nothing.csv -o x.csv", 1, "nothing.csv does not exist."),
        ("data.csv -o x.npy", 2, "x.npy is not in the format of data.csv (got .npy, allowed .csv)."),
        ("data.csv -o x.csv --uncertainty x.csv", 2, "--uncertainty needs a file of its own (got x.csv)."),
        ("data.csv -o x.csv --uncertainty -", 2, "--uncertainty needs a file of its own (got -)."),
        ("data.csv -o x.csv --value respons", 2, "data.csv has no such column (got respons, allowed cell, day, response). Did you mean response?"),
        ("data.csv -o x.csv --index cell", 1, "data.csv has too few columns of numbers for a wide table (got 1, allowed 2 or more)."),
        ("full.npy", 1, "full.npy has no missing entry: nothing to fill. Are missing entries marked (--missing-value, --mask)?"),
        ("data.csv -o x.csv --index cell,day --value day", 2, "a column can be one mode, the value or its error (got day twice)."),
        ("data.csv -o x.csv --value response --std response", 2, "a column can be one mode, the value or its error (got response twice)."),
        ("data.csv -o x.csv --std respons", 2, "data.csv has no such column (got respons, allowed cell, day, response). Did you mean response?"),
        ("data.csv -o x.csv --std response", 1, "data.csv has too few columns (got 3, allowed 2 indices or more and a value, beside its standard deviation)."),
        ("errors.csv -o x.csv --std e", 1, "errors.csv line 2: the standard deviation of a value must be above zero (got 0.0)."),
        ("blanks.csv -o x.csv --std e", 1, "blanks.csv line 3: the standard deviation of a value must be above zero (got nothing)."),
        ("cube.npy -o x.npy --std errors.csv", 2, "--std of a dense tensor is a dense array of its shape (got errors.csv, allowed .npy)."),
        ("cube.npy -o x.npy --std small.npy", 2, "small.npy does not have the tensor's shape (got (2, 3), allowed (2, 3, 4))."),
        ("cube.npy -o x.npy --std zeros.npy", 1, "zeros.npy: the standard deviation of an observed entry must be above zero (got 0.0)."),
        ("data.csv -o x.csv --ordered days", 2, "--ordered: no such mode (got days, allowed cell, day). Did you mean day?"),
        ("data.csv -o x.csv --ordered ,", 2, "ordered: not names of modes (got ',', allowed one or more names, as year,hour)."),
        ("data.csv -o x.csv --interval 90", 2, "interval: input should be less than 1 (got '90')."),
        ("data.csv -o x.csv --imputations 0", 2, "imputations: input should be greater than or equal to 1 (got '0')."),
        ("data.csv -o - --imputations 5", 2, "--imputations writes files beside the output. Name a file with -o."),
        ("cube.npy -o - --interval 0.9", 2, "--interval writes files beside a .npy output. Name a file with -o."),
        ("data.csv -o x.csv --min 3 --max 1", 2, "min: must be below max (got min 3.0, max 1.0)."),
        ("data.csv -o x.csv --max-width 3", 2, "No such option"),
        ("data.csv -o x.csv --set centre=none", 2, "unknown setting centre"),
        ("data.csv -o x.csv --mask m.npy", 2, "--mask is for dense tensors; leave the value of a row empty (got m.npy)."),
        ("data.csv -o x.csv --missing-value x", 2, "missing-value: input should be a valid number, unable to parse string as a number (got 'x')."),
        ("data.csv -o x.csv --dims 3,2,2", 2, "--dims does not match data.csv (got 3 dimensions, allowed 2)."),
        ("data.csv -o x.csv --dims 3,2", 1, "data.csv line 2: column cell has an unknown value (got 'Treg', allowed '0', '1', '2')."),
        ("data.csv -o x.csv --predict cube.npy", 1, "cube.npy is not a table of entries (got .npy, allowed .csv, .csv.gz, .tsv, "),
        ("data.csv -o x.csv --device cuda", 2, "device cuda is not available (got 0 CUDA devices, allowed auto, cpu). Use --device cpu."),
        ("data.csv -o no/x.csv", 1, "cannot write no/x.csv: No such file or directory."),
        ("cube.npy -o x.npy --value v --all", 2, "--value, --all: for tables; this input is a dense tensor (got cube.npy)."),
        ("cube.npy -o x.npy --mask cube.npy", 1, "cube.npy is not a mask (allowed a dense array of True and False)."),
        ("fitted.csv.run -o x.csv", 2, "fitted.csv.run is fitted; which entries to predict. Name a table of them: --predict queries.csv."),
        ("fitted.csv.run -o x.csv --predict fitted.csv --run r --seed 3 --interval 0.9", 2, "fitted.csv.run is fitted, its settings cannot change (got --seed, --run)."),
        ("data.csv -o x.csv --predict data.csv --all", 2, "--predict names some entries, --all means all: give one (got data.csv)."),
        ("r.jsonl -o x", 1, "r.jsonl has too few columns (got 0, allowed 2 indices or more and a value)."),
        ("data.doc -o x.doc", 1, "data.doc has a format that htf does not read (got .doc, allowed .safetensors, "),
    ],
)  # fmt: skip
def test_bad_usage(htf, numbering, table, cube, tmp_path, args, code, message):
    assert htf("complete", table, "-o", "fitted.csv", "-q").code == 0
    (tmp_path / "r.jsonl").write_text("{}\n")
    (tmp_path / "data.doc").write_text("x")
    np.save(tmp_path / "full.npy", np.ones((2, 3)))
    (tmp_path / "errors.csv").write_text("x,y,v,e\np,1,5,0\nq,2,6,1\n")
    (tmp_path / "blanks.csv").write_text("x,y,v,e\np,1,5,1\nq,2,6,\n")
    np.save(tmp_path / "small.npy", np.ones((2, 3)))
    np.save(tmp_path / "zeros.npy", np.zeros((2, 3, 4)))
    before = {path.name for path in tmp_path.iterdir()}
    done = htf("complete", *args.split(), "-q")
    assert (done.code, done.error[: len(message)]) == (code, message)
    assert done.out == ""
    assert {path.name for path in tmp_path.iterdir()} == before


def test_the_standing_in_solver_is_the_real_one_in_shape():
    """What these tests stand in for has the interface of what they stand in for."""
    import inspect

    from htfcli.engine.completion import complete as completion

    assert list(inspect.signature(complete).parameters) == list(inspect.signature(completion.complete).parameters)
