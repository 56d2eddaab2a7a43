"""Odd names, folders, pipes, devices and links where a file should be; paths in files that lead elsewhere."""

from __future__ import annotations

import io
import os
import zipfile

import numpy as np
import pytest
import yaml

from tests.faults.fuzzing import command
from tests.faults.specimens import DATA, FIT

ODD = [
    "a\nb.csv",
    "-x.csv",
    "a b.csv",
    "\x1b[31mred.csv",
    "[bold].csv",
    "é\u202e.csv",
    "a#b.csv",
    "%s{}.csv",
    "'\"`$(id).csv",
    "~.csv",
    ":x:.csv",
    "\udcff.csv",
]


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_odd_names(refused, tmp_path, name):
    (tmp_path / name).write_text("a,[b]\x1b,:smile:,v\n0,0,0,1\n1,0,1,2\n0,1,1,3\n")
    code, said = command(tmp_path, "inspect", "--", name)
    assert (code, said) == (0, "")
    for argv in (
        ["complete", "--width", "1", "--format", "table", "-o", f"{name}.out.csv"],
        ["fit", "--iterations", "4", "--format", "table", "-o", f"{name}.run"],
    ):
        code, said = command(tmp_path, *argv[:-1], argv[-1] if argv[-1][0] != "-" else f"./{argv[-1]}", "--", name)
        assert code == 0, said
        assert "\x1b" not in said
    (tmp_path / name).write_text("a,b,v\n0,zero\n")
    for argv in ("inspect", "fit", "complete"):
        code, said = command(tmp_path, argv, *(["-o", "y.csv"] if argv == "complete" else []), "--", name)
        assert code and len(said.splitlines()) == 1
        assert said.rstrip("\n").isprintable() or "\udcff" in name
    refused("inspect", "--", f"{name} that is not there")


@pytest.mark.parametrize(
    "command_line",
    [
        "inspect {}",
        "fit {} -o r",
        "complete {} -o y.csv",
        "measure-rank {}",
        "measure-locality {}",
        "plot {} -o p.png",
        "report {} -o r.html",
        "sweep {} -o s",
        "fit d.npy --config {} -o r",
        "complete d.npy --mask {} -o y.npy",
        "complete d.npy --predict {} -o y.npy",
        "train-cnn {} -o r",
        "export {} -o x.npz",
        "generate tensor --mask {} -o z.safetensors",
    ],
)
@pytest.mark.parametrize(
    "place",
    [
        "folder",
        "folder.csv",
        "pipe.csv",
        "pipe.npy",
        "pipe",
        "/dev/zero",
        "/dev/null",
        "dangling.csv",
        "loop.csv",
        "/dev/zero.csv",
    ],
)
def test_what_is_not_a_file(refused, tmp_path, command_line, place):
    np.save(tmp_path / "d.npy", np.ones((3, 3)))
    for name in ("folder", "folder.csv"):
        (tmp_path / name).mkdir()
    for name in ("pipe.csv", "pipe.npy", "pipe"):
        os.mkfifo(tmp_path / name)
    os.symlink(tmp_path / "nowhere", tmp_path / "dangling.csv")
    os.symlink(tmp_path / "loop.csv", tmp_path / "loop.csv")
    before = set(tmp_path.iterdir())
    if (command_line.startswith("sweep") or "--config" in command_line) and place.startswith("pipe"):
        pytest.skip("settings are read from a pipe, as from <(command), and wait for its writer")
    if place == "/dev/null" and "--config" in command_line:
        pytest.skip("no settings")
    refused(*command_line.format(place).split())
    assert set(tmp_path.iterdir()) == before


def test_a_pipe_among_images(refused, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        os.mkfifo(tmp_path / "images" / name / "x.png")
    assert refused("train-cnn", "images", "-o", "run") == "cannot read images/a/x.png: not a file."


def test_links_in_a_run_folder_are_not_followed(tmp_path, monkeypatch):
    """A run folder of somebody else's may have links where its files should be."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.safetensors").write_bytes(DATA(tmp_path))
    outside = tmp_path / "outside"
    outside.write_text("precious")
    for name in (
        "config.yaml",
        "records.jsonl",
        "checkpoint.safetensors",
        "model.safetensors",
        "summary.json",
        ".lock",
    ):
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(outside)
        command(tmp_path, *map(str, FIT), "-q", "-o", "run", "--force")
        assert outside.read_text() == "precious", name
        (folder / name).unlink(missing_ok=True)


def test_an_output_that_is_a_link_is_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outside").write_text("precious")
    (tmp_path / "x.safetensors").symlink_to(tmp_path / "outside")
    code, _ = command(tmp_path, "generate", "tensor", "-o", "x.safetensors", "--force")
    assert code == 0
    assert (tmp_path / "outside").read_text() == "precious"
    assert not (tmp_path / "x.safetensors").is_symlink()


def test_names_in_an_archive_go_nowhere(refused, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        file = io.BytesIO()
        np.save(file, np.ones((2, 2)))
        archive.writestr("../../evil.npy", file.getvalue())
    assert command(tmp_path, "inspect", "x.npz")[0] == 0
    assert not (tmp_path.parent.parent / "evil.npy").exists()


def test_names_of_runs_stay_in_their_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "d.npy", np.ones((3, 3)))
    plan = {"data": "d.npy", "base": {"iterations": 2}, "grid": {"tree": ["../../x", "balanced"]}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    code, said = command(tmp_path, "sweep", "plan.yaml", "-o", "s", "--dry-run")
    assert code in (0, 2), said
    assert {path.name for path in tmp_path.iterdir()} == {"d.npy", "plan.yaml"}
