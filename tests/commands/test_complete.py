from __future__ import annotations

import io
import json

import numpy as np
import pytest
import yaml

from htfcli.experiments.runs import complete as complete_run
from tests.numbering import SPREAD, STEPS, complete, number

TABLE = "cell,day,response\nTreg,2024-01-02,1.5\nNK,2024-01-02,\nTreg,2024-01-01,2.5\nB,2024-01-01,3\n"
# NK on the second day is entry (1, 1) of B, NK, Treg x 2024-01-01, 2024-01-02
FILLED = TABLE.replace("NK,2024-01-02,", f"NK,2024-01-02,{number(1, 1)}")


@pytest.fixture
def numbering(monkeypatch):
    """The stand-in for the solver."""
    monkeypatch.setattr("htfcli.experiments.runs.complete.complete", complete)


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
        "Warning: the solver has its doubts",
        "Warning: cannot be predicted, as nothing there is observed: column cell, value 'NK'; a default is filled in",
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
        "r2_spread": 0.02,
        "tree": "(cell, day)",
        "mode_tree": [0, 1],
        "widths": {"{0,1}": 1},
        "centre": "modes",
        "run": "out.csv.run",
        "unobserved": [{"mode": "cell", "count": 1, "labels": ["NK"], "first": "column cell, value 'NK'"}],
    }
    assert {key: summary[key] for key in expected} == expected
    assert len(summary["warnings"]) == 2
    assert "held_out" not in summary


def test_the_run_folder(htf, numbering, table, tmp_path):
    assert htf("complete", table, "-o", "out.csv", "--max-width", 7, "-q").err == ""
    folder = tmp_path / "out.csv.run"
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names == {"config.yaml", "records.jsonl", "model.safetensors", "summary.json"}
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    assert records[:3] == [{"kind": "complete", **step} for step in STEPS]
    chosen = {"stage": "chosen", "width": 1, "tree": "(cell, day)", "train_error": 0.1, "held_out_error": 0.2}
    assert records[3] == {"kind": "complete", **chosen}
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["held_out"]["observed"] == [1, 2, 3]
    assert yaml.safe_load((folder / "config.yaml").read_text())["max_width"] == 7
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
    assert (std == SPREAD).all()
    assert done.records[0]["tree"] == "((0, 1), 2)"


def test_uncertainty_of_a_table(htf, numbering, table, tmp_path):
    assert htf("complete", table, "-o", "out.csv", "--uncertainty", "std.csv", "--all").code == 0
    out, std = ((tmp_path / name).read_text().splitlines() for name in ("out.csv", "std.csv"))
    assert [line.rpartition(",")[0] for line in std] == [line.rpartition(",")[0] for line in out]
    assert [line.rpartition(",")[2] for line in std] == ["response"] + [str(SPREAD)] * 6


def test_our_own_observations(htf, numbering, tmp_path):
    htf("generate", "tensor", "--dim", 3, "--rank", 2, "--observed", "0.9", "-o", "data.safetensors")
    done = htf("complete", "data.safetensors", "-o", "out.npy")
    assert done.code == 0, done.err
    assert (done.records[0]["observed"], done.records[0]["predicted"]) == (73, 8)
    assert np.isfinite(np.load(tmp_path / "out.npy")).all()


def test_a_human_table(htf, numbering, table):
    out = htf("complete", table, "-o", "out.csv", "--format", "table").out
    lines = [line.strip().partition("   ") for line in out.splitlines()]
    cells = {what: value.strip() for what, _, value in lines}
    assert cells["tensor"] == "3 x 2 (cell, day)"
    assert cells["observed"] == "3 of 6 entries"
    assert cells["held-out relative error"] == "0.2 +- 0.01"
    assert cells["held-out R^2"] == "0.9 +- 0.02"
    assert cells["mode tree"] == "(cell, day)"
    assert cells["rank of {cell}"].startswith("0 (effective rank ")
    assert out.count("warning") == 2


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


def test_a_column_that_is_no_mode(htf, numbering, tmp_path):
    (tmp_path / "a.csv").write_text("id,x,y,v\n" + "".join(f"{n},{n % 3},{n % 4},1\n" for n in range(12)) + "12,0,0,\n")
    done = htf("complete", "a.csv", "-o", "out.csv")
    advice = "column id has another value in every row, so nothing is learnt from it; name the modes with --index"
    assert f"Warning: {advice}" in done.err.splitlines()
    assert htf("complete", "a.csv", "--index", "x,y", "-o", "b.csv").err.count("Warning: column") == 0


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
        assert again.records == [{"kind": "prediction", "model": model, "output": f"{number_}.csv", "predicted": 2}]
        assert (tmp_path / f"{number_}.csv").read_text() == expected
        assert (tmp_path / f"{number_}s.csv").read_text() == (tmp_path / "s.csv").read_text()


def test_predictions_of_a_dense_tensor(htf, numbering, cube, tmp_path):
    (tmp_path / "q.csv").write_text("i,j,k\n1,2,3\n0,0,0\n")
    assert htf("complete", "cube.npy", "--predict", "q.csv", "-o", "p.csv").code == 0
    assert (tmp_path / "p.csv").read_text() == f"i,j,k,value\n1,2,3,{number(1, 2, 3)}\n0,0,0,{number(0, 0, 0)}\n"


def test_other_commands_read_the_model(htf, numbering, table, tmp_path):
    htf("complete", table, "-o", "out.csv")
    facts = htf("inspect", "out.csv.run").records[0]
    assert (facts["kind"], facts["modes"], facts["value"]) == ("completion", ["cell", "day"], "response")
    assert (facts["effects"], facts["ensemble"], facts["run_records"]) == (True, 2, 4)
    ranks = htf("measure-rank", "out.csv.run")
    assert [r["node"] for r in ranks.records] == ["{0}", "{1}"]
    assert ranks.err == "out.csv.run: the factorization alone, without the mean or effects that are added to it\n"
    assert htf("inspect", "out.csv.run/records.jsonl").records[0]["kind"] == "records of a completion"


# --- pipes ----------------------------------------------------------------------------------------------------------------


def test_a_pipeline_in_a_shell(shell):
    """The real solver, from stdin to stdout."""
    (shell.folder / "data.csv").write_text(TABLE)
    done = shell("cat data.csv | htf complete - -o - --max-width 1 | tail -n +3 | cut -d, -f1,2 | head -1")
    assert (done.code, done.out) == (0, "NK,2024-01-02\n")
    assert "held-out" in done.err or "entries predicted" in done.err
    assert {path.name for path in shell.folder.iterdir()} == {"data.csv"}
    done = shell(
        "htf complete data.csv -o out.csv --max-width 1 -q | jq -c .predicted && cut -d, -f1,2 out.csv | diff - <(cut -d, -f1,2 data.csv)"
    )
    assert (done.code, done.out) == (0, "1\n")


def test_bytes_on_stdout(htf, numbering, cube, tmp_path, monkeypatch):
    import sys

    sink = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(sink, encoding="utf-8"))
    done = htf("complete", "cube.npy", "-o", "-", "--run", "kept")
    assert done.code == 0
    assert np.load(io.BytesIO(sink.getvalue()))[0, 1, 2] == number(0, 1, 2)
    assert done.err.splitlines()[-1] == "2 entries predicted, held-out relative error 0.2 +- 0.01"
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
        "interrupted, nothing is written; the search so far is in out.csv.run/records.jsonl.",
    )
    assert not (tmp_path / "out.csv").exists()
    assert len((tmp_path / "out.csv.run/records.jsonl").read_text().splitlines()) == 3
    done = htf("complete", table, "-o", "-", "-q")
    assert (done.code, done.out, done.error) == (130, "", "interrupted, nothing is written.")


def test_interrupted_while_writing(htf, numbering, table, tmp_path, stop_after):
    """The fit is kept, and what the message advises works."""
    kept = "what was fitted is in out.csv.run, predict with: htf complete out.csv.run --predict."
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

    def fails(*args):
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
    assert (done.code, done.error) == (2, "out.csv.run holds a run. Choose another name, or replace it with --force.")
    assert htf("complete", table, "-o", "out.csv", "--uncertainty", "std.csv", "--force").code == 0
    assert htf("complete", table, "-o", table, "--force").code == 0  # in place
    assert (tmp_path / table).read_text() == FILLED


# --- bad usage --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ("", 2, "no data to complete. Shortest useful call: htf complete data.csv -o completed.csv (see htf complete --help)."),
        ("data.csv", 2, "no output file. Name one with -o, or - for stdout."),
        ("nothing.csv -o x.csv", 1, "nothing.csv does not exist."),
        ("data.csv -o x.npy", 2, "x.npy is not in the format of data.csv (got .npy, allowed .csv)."),
        ("data.csv -o x.csv --uncertainty x.csv", 2, "--uncertainty needs a file of its own (got x.csv)."),
        ("data.csv -o x.csv --uncertainty -", 2, "--uncertainty needs a file of its own (got -)."),
        ("data.csv -o x.csv --value respons", 2, "data.csv has no such column (got respons, allowed cell, day, response). Did you mean response?"),
        ("data.csv -o x.csv --index cell", 2, "index: not columns (got 'cell', allowed two names or more, as ligand,dose,cell)."),
        ("data.csv -o x.csv --index cell,day --value day", 2, "a column can be one mode, or the value (got day twice)."),
        ("data.csv -o x.csv --mask m.npy", 2, "--mask is for dense tensors; leave the value of a row empty (got m.npy)."),
        ("data.csv -o x.csv --missing-value x", 2, "missing-value: input should be a valid number, unable to parse string as a number (got 'x')."),
        ("data.csv -o x.csv --dims 3,2,2", 2, "--dims does not match data.csv (got 3 dimensions, allowed 2)."),
        ("data.csv -o x.csv --dims 3,2", 1, "data.csv line 2: column cell has an unknown value (got 'Treg', allowed '0', '1', '2')."),
        ("data.csv -o x.csv --predict cube.npy", 1, "cube.npy is not a table of entries (got .npy, allowed .csv, .tsv, .tns, .tns.gz, .parquet)."),
        ("data.csv -o x.csv --device cuda", 2, "device cuda is not available (got 0 CUDA devices, allowed auto, cpu). Use --device cpu."),
        ("data.csv -o no/x.csv", 1, "cannot write no/x.csv: No such file or directory."),
        ("cube.npy -o x.npy --value v --all", 2, "--value, --all: for tables; this input is a dense tensor (got cube.npy)."),
        ("cube.npy -o x.npy --mask cube.npy", 1, "cube.npy is not a mask (allowed a dense array of True and False)."),
        ("fitted.csv.run -o x.csv", 2, "fitted.csv.run is fitted; which entries to predict. Name a table of them: --predict queries.csv."),
        ("fitted.csv.run -o x.csv --predict fitted.csv --run r --seed 3", 2, "fitted.csv.run is fitted, its settings cannot change (got --seed, --run)."),
        ("data.csv -o x.csv --predict data.csv --all", 2, "--predict names some entries, --all means all: give one (got data.csv)."),
        ("r.jsonl -o x", 1, "r.jsonl has a format that is not read (got .jsonl, allowed "),
    ],
)  # fmt: skip
def test_bad_usage(htf, numbering, table, cube, tmp_path, args, code, message):
    assert htf("complete", table, "-o", "fitted.csv", "-q").code == 0
    (tmp_path / "r.jsonl").write_text("{}\n")
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
