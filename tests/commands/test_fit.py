from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import yaml

from htfcli.files.own.container import read

SMALL = ("generate", "tensor", "--dim", 4, "--width", 2, "-o", "data.safetensors")
QUICK = ("--width", 4, "--iterations", 60, "--record-every", 10)


@pytest.fixture
def data(htf):
    assert htf(*SMALL).code == 0
    return "data.safetensors"


def test_run_folder(htf, data, tmp_path):
    done = htf("fit", data, *QUICK, "-o", "runs/a")
    assert done.code == 0
    assert [r["iteration"] for r in done.records] == [0, 10, 20, 30, 40, 50, 60]
    assert done.err.splitlines()[0].startswith(
        "htf of 4 x 4 x 4 x 4, 100 parameters; 128 observations, 128 held out; float32"
    )
    assert done.err.splitlines()[1].startswith("all iterations done at iteration 60 after ")
    folder = tmp_path / "runs" / "a"
    names = {"config.yaml", "records.jsonl", "checkpoint.safetensors", "model.safetensors", "summary.json"}
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == names
    assert (folder / "records.jsonl").read_text() == done.out
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert (config["width"], config["iterations"], config["lr"]) == (4, 60, 0.01)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["stop_reason"], summary["iteration"], summary["parameters"]) == ("iterations", 60, 100)
    assert summary["train_loss"] == done.records[-1]["train_loss"]
    assert set(summary["hierarchical_rank"]) == {"{0}", "{1}", "{2}", "{3}", "{0,1}", "{2,3}"}
    again = htf("fit", data, "--config", folder / "config.yaml", "-o", "runs/b")  # the facts below are comments
    assert again.out == done.out
    assert (
        read(tmp_path / "runs/b/model.safetensors").tensors().keys()
        == read(folder / "model.safetensors").tensors().keys()
    )


def test_the_same_seed_is_the_same_bytes(htf, data, tmp_path):
    for name in ("a", "b"):
        htf("fit", data, *QUICK, "-o", name, "--seed", 2)
    for file in ("records.jsonl", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_default_output(htf, data, tmp_path):
    assert htf("fit", data, *QUICK).code == 0
    assert (tmp_path / "runs" / "data" / "model.safetensors").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--model", "cp", "--width", 3),
        ("--tree", "chain", "--width", "2,3,4"),
        ("--tree", "[[0, 2], [1, 3]]", "--width", "{'{0,2}': 2, default: 3}"),
        ("--tree", "balanced", "--arity", 4),
        ("--loss", "huber", "--optimizer", "adam"),
        ("--loss", "l1", "--optimizer", "sgd", "--momentum", 0.9, "--batch-size", 50),
        ("--init", "balanced", "--dtype", "float64", "--weight-norms", "--matricization", "0,2", "--matricization", "1"),
        ("--seconds", 0.01),
    ],
)  # fmt: skip
def test_options(htf, data, options):
    done = htf("fit", data, "--iterations", 20, "--record-every", 5, *options, "-o", "r", "-q")
    assert (done.code, done.err) == (0, "")
    if "--matricization" in options:
        assert [m["modes"] for m in done.records[0]["matricizations"]] == [[0, 2], [1]]


def test_matrix_model(htf):
    assert htf("generate", "tensor", "--target", "matrix", "--dims", "9,7", "--width", 2, "-o", "m").code == 0
    done = htf("fit", "m", "--model", "matrix", "--depth", 3, "--width", "8,5", "--iterations", 10, "-o", "r")
    assert done.code == 0, done.err
    assert [n["node"] for n in done.records[0]["nodes"]] == ["{0}", "{1}", "{0,1}"]


@pytest.mark.parametrize("format", ["csv", "table"])
def test_formats(htf, data, format):
    done = htf("fit", data, *QUICK, "-o", "r", "--format", format, "--matricization", "0,2")
    lines = done.out.splitlines()
    if format == "csv":
        assert len(lines) == 8
        rows = list(csv.DictReader(lines))
        assert list(rows[0])[:4] == ["kind", "iteration", "train_loss", "train_error"]
        assert all(any("effective_rank" in node for node in json.loads(row["nodes"])) for row in rows)
    else:
        assert "iteration" in done.out
        assert "test error" in done.out
        assert len(lines) >= 9


def test_data_of_another_scale_with_holes(htf, tmp_path):
    """A user's own array: held-out error reported, result in the data's units."""
    a, b = np.random.default_rng(0).random((2, 12, 3))
    tensor = 1e5 * np.einsum("ir,jr->ij", a, b)
    tensor[np.random.default_rng(1).random((12, 12)) < 0.2] = np.nan
    np.save(tmp_path / "x.npy", tensor)
    options = ("--width", 6, "--iterations", 3000, "--test-fraction", 0.1, "--until-loss", 1e-7)
    done = htf("fit", "x.npy", *options, "-o", "r")
    assert done.code == 0
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["test_error"] < 0.1
    assert "held-out relative error" in done.err
    ranks = htf("measure-rank", "r").records
    assert ranks[0]["singular_values"][0] == pytest.approx(np.linalg.svd(1e5 * a @ b.T)[1][0], rel=0.02)


# --- resuming ---------------------------------------------------------------------------------------------------------------


def test_resume_after_the_end_with_more_iterations(htf, data, tmp_path):
    whole = htf("fit", data, *QUICK, "-o", "whole")
    assert htf("fit", data, *QUICK, "--iterations", 35, "-o", "part").code == 0
    assert [r["iteration"] for r in map(json.loads, (tmp_path / "part/records.jsonl").read_text().splitlines())] == [
        0,
        10,
        20,
        30,
        35,
    ]
    resumed = htf("fit", "--resume", "-o", "part", "--iterations", 60)  # data and settings are known
    assert resumed.code == 0, resumed.err
    assert (tmp_path / "part/records.jsonl").read_text() == whole.out
    for name in ("model.safetensors",):
        a, b = (read(tmp_path / run / name).tensors() for run in ("part", "whole"))
        assert all((a[k] == b[k]).all() for k in b)


def test_resume_drops_records_that_a_kill_left_behind(htf, data, tmp_path):
    htf("fit", data, *QUICK, "--iterations", 35, "-o", "a")
    whole = htf("fit", data, *QUICK, "-o", "b").out
    with (tmp_path / "a/records.jsonl").open("a") as file:
        file.write('{"kind": "iteration", "iteration": 40}\n{"kind": "iterat')
    assert htf("fit", data, "--resume", "-o", "a", "--iterations", 60).code == 0
    assert (tmp_path / "a/records.jsonl").read_text() == whole


def test_resume_what_cannot_be(htf, data, tmp_path):
    htf("fit", data, *QUICK, "-o", "a")
    done = htf("fit", data, "--resume", "-o", "b")
    assert (done.code, done.error) == (2, "b has no checkpoint to resume from. Start the run without --resume.")
    done = htf("fit", data, "--resume", "-o", "a", "--seed", 5)
    assert (done.code, done.error) == (
        2,
        "--seed cannot change when a run is resumed (got 5, allowed 0). Leave it out.",
    )
    done = htf("fit", data, "--resume", "-o", "-")
    assert (done.code, done.error) == (
        2,
        "--resume continues a run folder as it is (got -o -, allowed -o FOLDER alone).",
    )
    htf("generate", "tensor", "--dim", 4, "--seed", 9, "-o", "other.safetensors")
    done = htf("fit", "other.safetensors", "--resume", "-o", "a")
    assert (done.code, done.error) == (2, "the run was started on other data. Resume with the data it was started on.")
    (tmp_path / "a/checkpoint.safetensors").write_bytes(b"junk")
    done = htf("fit", data, "--resume", "-o", "a")
    assert done.code == 1
    assert done.error.startswith("cannot read a/checkpoint.safetensors: ")


def test_divergence_keeps_the_last_good_checkpoint(htf, data, tmp_path):
    done = htf(
        "fit", data, *QUICK, "--optimizer", "sgd", "--lr", 5, "--init-std", 0.7, "-o", "r", "-q", "--record-every", 1
    )
    assert done.code == 1
    assert done.error.startswith("training diverged by iteration ")
    assert "is saved, continue with: htf fit --resume -o r" in done.error
    checkpoint = read(tmp_path / "r/checkpoint.safetensors").tensors()
    assert bool(checkpoint["parameters"].isfinite().all())
    assert not (tmp_path / "r/model.safetensors").exists()
    assert htf("fit", "--resume", "-o", "r", "--lr", 1e-3).code == 0  # what the message advises works


def test_a_table_even_if_interrupted(htf, data, monkeypatch):
    from htfcli.cli.interrupts import StopSignals

    monkeypatch.setattr(StopSignals, "received", property(lambda self: len(seen.append(1) or seen) > 30))
    seen: list[int] = []
    done = htf("fit", data, *QUICK, "-o", "r", "--format", "table", "-q")
    assert done.code == 130
    assert "train loss" in done.out


def test_settings_of_extreme_size(htf, data):
    for args in (
        ("--seed", 2**63 - 1, "--batch-size", 50),
        ("--set", "matricization=0,2"),
        ("--set", "matricization=[[0,2],1]"),
    ):
        assert htf("fit", data, *QUICK, *args, "-o", "r", "--force").code == 0
    done = htf("fit", data, "--seed", 2**63)
    assert (done.code, done.error) == (
        2,
        "seed: input should be less than or equal to 9223372036854775807 (got '9223372036854775808').",
    )


def test_a_summary_is_json_whatever_the_numbers(htf, tmp_path):
    np.save(tmp_path / "zero.npy", np.zeros((3, 3)))
    assert htf("fit", "zero.npy", *QUICK, "-o", "r").code == 0
    summary = json.loads((tmp_path / "r/summary.json").read_text(), parse_constant=lambda text: pytest.fail(text))
    assert summary["train_error"] is None


# --- bad usage --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ("", 2, "no data to fit. Shortest useful call: htf fit data.npy (see htf fit --help)."),
        ("nothing.npy", 1, "nothing.npy does not exist."),
        ("{data} --width 0", 2, "the width of node {0,1} is not positive (got 0, allowed 1 or more)."),
        ("{data} --width -3", 2, "the width of node {0,1} is not positive (got -3, allowed 1 or more)."),
        ("{data} --width 1,2,3", 2, "the widths do not match the levels of the tree (got 3, allowed 1 or 2)."),
        ("{data} --tree [[0,1],2]", 2, "the mode tree does not fit the tensor (got 3 modes, allowed 4)."),
        ("{data} --tree [[0,1],[2,4]]", 2, "the mode tree must hold every mode once, numbered from 0 (got [4] without [3], allowed 0 to 3)."),
        ("{data} --device cuda:7", 2, "device cuda:7 is not available (got 0 CUDA devices, allowed auto, cpu). Use --device cpu."),
        ("{data} --device gpu", 2, "device: not a device (got 'gpu', allowed auto, cpu, cuda or cuda:N)."),
        ("{data} --model cp --tree star", 2, "tree: only for model htf or hierarchical-tucker (got model cp)."),
        ("{data} --model matrix", 2, "a matrix factorization needs two modes (got 4, allowed 2)."),
        ("{data} --model cp --width 2,3", 2, "width: model cp has one width (got several)."),
        ("{data} --solver second-order --lr 0.1 --batch-size 5", 2, "lr, batch-size: only for solver gradient (got solver second-order)."),
        ("{data} --solver second-order --optimizer sgd --momentum 0.5", 2, "optimizer, momentum: only for solver gradient (got solver second-order)."),
        ("{data} --solver second-order --dtype float32", 2, "dtype: solver second-order computes in float64 (got float32)."),
        ("{data} --ridge 0.1", 2, "ridge: only for solver second-order (got solver gradient)."),
        ("{data} --solver second-order --ridge -1", 2, "ridge: input should be greater than or equal to 0 (got '-1')."),
        ("{data} --momentum 0.5", 2, "momentum: only for optimizer sgd (got optimizer group-rmsprop)."),
        ("{data} --lr 0 --iterations -1 --dtype float16", 2, "Invalid value for '--dtype': 'float16' is not one of 'float32', 'float64'. Did you mean float64? See 'htf fit --help'."),
        ("{data} --lr 0 --iterations -1", 2, "2 problems: lr: input should be greater than 0 (got '0'); iterations: input should be greater than or equal to 0 (got '-1')."),
        ("{data} --matricization 0,x", 2, "matricization: not sets of modes (got ['0,x'], allowed e.g. 0,2, or in YAML [[0, 2], [1]])."),
        ("{data} --set matricization=x", 2, "matricization: not sets of modes (got 'x', allowed e.g. 0,2, or in YAML [[0, 2], [1]])."),
        ("{data} --tree [[0,1],[2,3]] --arity 3", 2, "a mode tree given as nested lists does not take an arity (got 3, allowed none)."),
        ("None", 1, "None does not exist."),
        ("{data} --matricization 0,9", 2, "a matricization needs at least one mode, but not all, and each once (got 0,9, allowed modes from 0 to 3)."),
        ("{data} --test-fraction 0.1", 2, "the observations already have a held-out part (got 128). Leave --test-fraction out."),
        ("{data} --dims 4,4,4,4", 2, "--dims is for tables; this input has its own dimensions (got [4, 4, 4, 4])."),
        ("{data} -o data.safetensors", 1, "cannot write the run folder data.safetensors: File exists."),
        ("{data} -o /proc/nowhere", 1, "cannot write the run folder /proc/nowhere: No such file or directory."),
    ],
)  # fmt: skip
def test_bad_usage(htf, data, tmp_path, args, code, message):
    done = htf("fit", *args.replace("{data}", data).split(), "-q")
    assert (done.code, done.error) == (code, message)
    assert done.out == ""
    assert [path.name for path in tmp_path.iterdir()] == [data]


def test_existing_run(htf, data, tmp_path):
    assert htf("fit", data, *QUICK, "-o", "r").code == 0
    done = htf("fit", data, *QUICK, "-o", "r")
    assert (done.code, done.error) == (2, "r contains a run. Continue it with --resume, or replace it with --force.")
    assert htf("fit", data, *QUICK, "-o", "r", "--force", "--seed", 3).code == 0
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"cat")
    for force in ((), ("--force",)):
        done = htf("fit", data, *QUICK, "-o", "photos", *force)
        assert (done.code, done.error) == (2, "photos exists and is not a run folder. Choose another name.")
    assert (tmp_path / "photos" / "cat.png").exists()


def test_two_processes_on_one_folder(htf, data):
    from htfcli.files.own.run_folder import RunFolder

    with RunFolder("r"):
        done = htf("fit", data, *QUICK, "-o", "r", "-q")
    assert (done.code, done.error) == (2, "another process is using r. Wait for it, or choose another folder.")


def test_a_file_of_another_kind(htf, data):
    htf("fit", data, *QUICK, "-o", "r")
    done = htf("fit", "r", "-o", "s")
    assert (done.code, done.error) == (1, "r holds something else (got factorization, allowed observations).")


def test_tensorboard_gets_the_records(htf, data, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    done = htf("fit", data, *QUICK, "--track", "tensorboard", "-o", "tracked")
    assert done.code == 0, done.err
    resumed = htf("fit", "--resume", "--iterations", 80, "--track", "tensorboard", "-o", "tracked")
    assert resumed.code == 0, resumed.err
    events = accumulator.EventAccumulator(str(tmp_path / "tracked/tensorboard"))
    events.Reload()
    records = [json.loads(line) for line in (tmp_path / "tracked/records.jsonl").read_text().splitlines()]
    losses = [(event.step, event.value) for event in events.Scalars("train_loss")]
    assert [step for step, _ in losses] == [record["iteration"] for record in records]
    assert [value for _, value in losses] == pytest.approx([record["train_loss"] for record in records])
    assert "nodes/{0,1}/effective_rank" in events.Tags()["scalars"]
    assert htf("fit", data, "--track", "tensorboard", "-o", "-").error == (
        "--track writes into the run folder (got -o -, allowed -o FOLDER)."
    )
