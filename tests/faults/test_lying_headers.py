"""Headers that contradict the data after them, and indices too large for memory."""

from __future__ import annotations

import json
import struct

import pytest

from tests.faults.fuzzing import command
from tests.faults.specimens import DATA


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


@pytest.mark.parametrize("index", [10**18 - 1, 2**62, 2**63 - 1, 2**63, 10**30, -1, -(2**63)])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "tns"])
def test_huge_indices(tmp_path, monkeypatch, index, suffix):
    monkeypatch.chdir(tmp_path)
    between = {"csv": ",", "tsv": "\t", "tns": " "}[suffix]
    rows = [(1, 1, 1, 0.5), (2, 1, 2, 1.5), (index, 2, 1, 2.5), (1, 2, 2, 1.0), (2, 2, 2, 0.1)]
    (tmp_path / f"x.{suffix}").write_text("\n".join(between.join(map(str, row)) for row in rows) + "\n")
    for argv in ("inspect", "measure-rank", "fit"):  # indices are labels, so none is too large
        more = ["-o", "r", "--iterations", "5", "--width", "2"] if argv == "fit" else []
        code, said = command(tmp_path, argv, f"x.{suffix}", *more)
        assert (code == 0) == (argv != "measure-rank"), said  # which takes no tensor with holes
        assert argv != "fit" or "3 x 2 x 2" in said
    code, said = command(tmp_path, "complete", f"x.{suffix}", "-o", f"y.{suffix}", "--width", "1", "--all")
    assert code == 0 or "Error" in said
