"""Files made to do harm: bombs, headers that lie, code to run, odd names, links, pipes, devices."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from tests.faults.fuzzing import command
from tests.faults.specimens import CNN, DATA, FIT, PAIRS


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """The error of a command line that must fail, run in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: object) -> str:
        code, said = command(tmp_path, *argv)
        assert code in (1, 2), said
        return said.removeprefix("Error: ").rstrip("\n")

    return run


# --- code to run ------------------------------------------------------------------------------------------------------


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_the_payload_works(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("name", ["x.pt", "x.npy", "x.npz", "x.safetensors", "x.parquet", "x.mat", "x", "x.jsonl"])
@pytest.mark.parametrize(
    "argv", ["inspect {}", "fit {} -o r", "measure-rank {}", "complete {} -o out.npy", "measure-locality {}"]
)
def test_nothing_is_unpickled(refused, tmp_path, name, argv):
    payload = Payload(tmp_path / "marker")
    if name == "x.npy":
        np.save(tmp_path / name, np.array([[payload, payload]], dtype=object), allow_pickle=True)
    elif name == "x.npz":
        np.savez(tmp_path / name, a=np.array([[payload, payload]], dtype=object), allow_pickle=True)
    elif name == "x.pt":
        torch.save({"a": payload}, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(pickle.dumps(payload))
    before = set(tmp_path.iterdir())
    refused(*argv.format(name).split())
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("option", ["--mask {}", "--predict {}"])
@pytest.mark.parametrize("name", ["x.pt", "x.npy"])
def test_nothing_is_unpickled_beside_the_data(refused, tmp_path, name, option):
    np.save(tmp_path / "data.npy", np.ones((3, 3)))
    payload = Payload(tmp_path / "marker")
    if name == "x.pt":
        torch.save(payload, tmp_path / name)
    else:
        np.save(tmp_path / name, np.array([[payload]], dtype=object), allow_pickle=True)
    refused("complete", "data.npy", "-o", "out.npy", *option.format(name).split())
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "text",
    [
        "width: !!python/object/apply:os.system ['touch marker']",
        "!!python/name:os.system",
        "width: !<tag:yaml.org,2002:python/module:os> x",
    ],
)
@pytest.mark.parametrize(
    "argv", ["fit data.csv --config x.yaml -o r", "sweep x.yaml -o s", "train-cnn --config x.yaml -o r"]
)
def test_yaml_builds_no_objects(refused, tmp_path, text, argv):
    (tmp_path / "x.yaml").write_text(text)
    assert "could not determine a constructor" in refused(*argv.split())
    assert not (tmp_path / "marker").exists()


def test_a_file_cannot_ask_for_code(refused, tmp_path):
    """Neither a network's file nor a checkpoint: only the command line names module:function."""
    (tmp_path / "evil.py").write_text(
        "from pathlib import Path\nPath('marker').touch()\ndef build(c, k): return None\n"
    )
    (tmp_path / "pairs.safetensors").write_bytes(PAIRS(tmp_path))
    code, _ = command(tmp_path, *map(str, CNN), "-q", "-o", "run")
    assert code == 0
    for name in ("model", "checkpoint"):
        file = tmp_path / "run" / f"{name}.safetensors"
        data = file.read_bytes()
        (size,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + size])
        header["__metadata__"]["htf.config"] = json.dumps(
            {**json.loads(header["__metadata__"]["htf.config"]), "model": "evil:build", "widths": None, "blocks": None}
        )
        text = json.dumps(header).encode()
        file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])
    for argv in ("measure-locality run", "train-cnn --resume -o run"):
        assert "which only your code can build (got no --model, allowed --model evil:build)" in refused(*argv.split())
    assert not (tmp_path / "marker").exists()


def test_the_help_says_what_code_is_run(capsys):
    from htfcli.app import main

    for name in ("train-cnn", "measure-locality"):
        assert main([name, "--help"]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "module:function" in said
        assert "the only way in which htf runs a user's code" in said


# --- bombs ------------------------------------------------------------------------------------------------------------

HUGE = 10**13


def lying_npy(shape: str) -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros((1, 2)))
    head, body = file.getvalue()[:10], file.getvalue()[10:]
    text = body[: struct.unpack("<H", head[8:])[0]]
    return (
        head
        + text.replace(b"(1, 2), }", f"{shape}, }}".encode())[: len(text) - 1].rstrip().ljust(len(text) - 1)
        + b"\n"
        + body[len(text) :]
    )


def zip_of(name: str, data: bytes, claimed: int) -> bytes:
    """An archive whose directory claims that a member unpacks to so many bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    packed = bytearray(file.getvalue())
    at = packed.rindex(b"PK\x01\x02") + 24
    packed[at : at + 4] = struct.pack("<I", claimed)
    return bytes(packed)


def test_npy_that_claims_any_size(refused, tmp_path):
    for shape in (f"({HUGE}, 2)", f"({2**62}, {2**62})", "(-1, -1)", "(1, -2)", f"({HUGE},)"):
        (tmp_path / "x.npy").write_bytes(lying_npy(shape))
        assert "x.npy" in refused("inspect", "x.npy")


def test_npz_bomb(refused, tmp_path):
    zeros = lying_npy("(300, 1000000)") + bytes(10)
    (tmp_path / "x.npz").write_bytes(zip_of("x.npy", zeros, 2_400_000_200))
    said = refused("inspect", "x.npz")
    assert "does not fit in memory" in said or "is not a readable .npz file" in said


def test_npz_bomb_that_keeps_its_word(refused, tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("x.npy", "w") as member,
    ):
        file = io.BytesIO()
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (600, 1 << 20)})
        member.write(file.getvalue())
        for _ in range(600):
            member.write(bytes(1 << 20))
    assert (tmp_path / "x.npz").stat().st_size < 4 << 20
    assert "does not fit in memory (got " in refused("inspect", "x.npz")


def test_gzip_bomb(refused, tmp_path):
    member = gzip.compress(b"1" * (64 << 20), 1)
    (tmp_path / "x.tns.gz").write_bytes(gzip.compress(b"1 1 1.0\n", 1) + member * 32)  # 2 GiB in one line
    for argv in ("inspect x.tns.gz", "complete x.tns.gz -o y.tns.gz"):
        assert "x.tns.gz line 2 is too long" in refused(*argv.split())


def test_parquet_bomb(refused, tmp_path):
    column = pa.array(np.zeros(1 << 20, np.int64))
    with pq.ParquetWriter(
        tmp_path / "x.parquet", pa.schema([("i", pa.int64()), ("j", pa.int64()), ("v", pa.int64())]), compression="zstd"
    ) as writer:
        for _ in range(60):
            writer.write_table(pa.table({"i": column, "j": column, "v": column}))
    for argv in ("inspect x.parquet", "complete x.parquet -o y.parquet"):
        said = refused(*argv.split())
        assert "x.parquet does not fit in memory (got 62,914,560 rows of 3 columns" in said


def test_pt_bomb(refused, tmp_path):
    torch.save(torch.zeros(1).expand(10**6, 10**6), tmp_path / "x.pt")
    assert "x.pt does not fit in memory (got shape [1000000, 1000000]: 7.276 TiB, allowed" in refused("inspect", "x.pt")
    with torch.sparse.check_sparse_tensor_invariants():
        sparse = torch.sparse_coo_tensor(torch.zeros((2, 1), dtype=torch.long), torch.ones(1), (10**6, 10**6))
    torch.save(sparse, tmp_path / "y.pt")
    assert "y.pt does not fit in memory (got shape [1000000, 1000000]: 7.276 TiB" in refused("inspect", "y.pt")
    with torch.sparse.check_sparse_tensor_invariants(False):
        sparse = torch.sparse_coo_tensor(torch.full((2, 1), 10**9), torch.ones(1), (3, 3))
    torch.save(sparse, tmp_path / "z.pt")
    assert "z.pt is not a readable .pt file" in refused("inspect", "z.pt")


def test_png_bomb(refused, tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "x.png").write_bytes(
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", head)
            + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
            + chunk(b"IEND", b"")
        )
    assert "too many pixels" in refused("train-cnn", "images", "-o", "run")


def test_yaml_bombs(refused, tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)
    ]
    for name, text in (
        ("laughs", "\n".join(lines)),
        ("width", "\n".join([*lines, "width: *a29"])),
        ("itself", "width: &a [*a, 3]"),
        ("key", "? &a [*a]\n: 1"),
        ("deep", "width: " + "[" * 100_000),
        ("digits", "lr: " + "9" * 50_000),
        ("date", "lr: 2024-99-99"),
        ("long", "width: [" + "1," * 900_000 + "]"),
        ("large", "#" * 2_000_000),
    ):
        (tmp_path / "x.yaml").write_text(text)
        for argv in ("fit data.csv --config x.yaml -o r", "sweep x.yaml -o s"):
            assert len(refused(*argv.split())) < 2000, name


def test_records_nested_too_deeply(refused, tmp_path):
    (tmp_path / "x.jsonl").write_text("[" * 200_000 + "\n" + '{"kind": "iteration", "iteration": 0}\n')
    refused("inspect", "x.jsonl")
    (tmp_path / "x.jsonl").write_text('{"kind": "iteration", "iteration": ' + "9" * 10_000 + "}\n")
    refused("inspect", "x.jsonl")


# --- headers that lie -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    ["size", "huge size", "overlap", "beyond", "negative", "dtype", "shape", "hole", "no object", "not text", "empty"],
)
@pytest.mark.parametrize("argv", ["inspect x.safetensors", "fit x.safetensors -o r", "complete x.safetensors -o y.npy"])
def test_safetensors_headers_that_lie(refused, tmp_path, change, argv):
    data = DATA(tmp_path)
    (tmp_path / "made.safetensors").unlink()
    (size,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    told = header["train/index"]
    start, stop = told["data_offsets"]
    told |= {
        "overlap": {"data_offsets": [start + 8 if start == 0 else start - 8, stop]},
        "beyond": {"data_offsets": [start, stop + 2**40]},
        "negative": {"shape": [-18, -3]},
        "dtype": {"dtype": "F64"},
        "shape": {"shape": [2**40, 2**40]},
        "hole": {"data_offsets": [start + 4, stop + 4]},
    }.get(change, {})
    text = json.dumps(header).encode()
    text = {"no object": b"[1, 2]", "not text": b"\xff\xfe" * 20, "empty": b""}.get(change, text)
    told_size = {"size": len(text) + 1000, "huge size": 2**63 + 5}.get(change, len(text))
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", told_size) + text + body)
    said = refused(*argv.split())
    assert "x.safetensors" in said


# --- huge indices -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [10**18 - 1, 2**62, 2**63 - 1, 2**63, 10**30, -1, -(2**63)])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "tns"])
def test_huge_indices(tmp_path, monkeypatch, index, suffix):
    monkeypatch.chdir(tmp_path)
    between = {"csv": ",", "tsv": "\t", "tns": " "}[suffix]
    rows = [(1, 1, 1, 0.5), (2, 1, 2, 1.5), (index, 2, 1, 2.5), (1, 2, 2, 1.0), (2, 2, 2, 0.1)]
    (tmp_path / f"x.{suffix}").write_text("\n".join(between.join(map(str, row)) for row in rows) + "\n")
    for argv in ("inspect", "measure-rank", "fit"):
        more = ["-o", "r", "--iterations", "5", "--width", "2"] if argv == "fit" else []
        code, said = command(tmp_path, argv, f"x.{suffix}", *more)
        assert argv == "inspect" or code, said
        if argv == "fit" and 0 < index < 2**62:
            assert "does not fit in memory" in said
    code, said = command(tmp_path, "complete", f"x.{suffix}", "-o", f"y.{suffix}", "--width", "1", "--all")
    assert code == 0 or "Error" in said  # indices are labels there


# --- names and places -------------------------------------------------------------------------------------------------

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
