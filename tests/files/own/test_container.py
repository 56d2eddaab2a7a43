from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
import safetensors.torch

from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.errors import ConfigError, DataError
from htfcli.files.own import container
from htfcli.files.own.artefacts import save_factorization, to_factorization
from tests.files.own.tampering import tamper
from tests.problems import generator


def model():
    return HierarchicalTensorFactorization((3, 4, 5), [2, 3]).init_gaussian(1.0, generator())


def test_the_same_content_is_the_same_bytes(tmp_path):
    """Also from one process to the next: safetensors shuffles its metadata."""
    files = [tmp_path / f"{k}.safetensors" for k in range(5)]
    for file in files:
        save_factorization(file, model(), {"a": 1})
    assert len({file.read_bytes() for file in files}) == 1
    (size,) = struct.unpack("<Q", files[0].read_bytes()[:8])
    header = json.loads(files[0].read_bytes()[8 : 8 + size])
    assert list(header["__metadata__"]) == ["htf.config", "htf.content", "htf.kind", "htf.schema", "htf.version"]


# --- writing --------------------------------------------------------------------------------------------------------------


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    save_factorization(path, model())
    before = path.read_bytes()

    def full(*args, **kwargs):
        Path(args[1]).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(DataError, match=r"cannot write .*m.safetensors: No space left on device"):
        save_factorization(path, model().scale(2.0))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_writing_where_there_is_no_folder(tmp_path):
    with pytest.raises(DataError, match=r"cannot write .*: No such file or directory"):
        save_factorization(tmp_path / "no" / "m.safetensors", model())


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_have_the_usual_permissions(tmp_path, umask):
    """Those of the umask when the file is written, whatever it was when the package was imported."""
    before = os.umask(umask)
    try:
        save_factorization(tmp_path / "m.safetensors", model())
        container.write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(before)
    for name in ("m.safetensors", "a.txt"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o666 & ~umask


def test_existing_files_are_not_replaced_unasked(tmp_path):
    path = tmp_path / "a"
    container.refuse_existing(str(path), force=False)
    path.write_text("x")
    with pytest.raises(ConfigError, match=r"a exists. Choose another name, or replace it with --force."):
        container.refuse_existing(str(path), force=False)
    container.refuse_existing(str(path), force=True)
    with pytest.raises(ConfigError, match=r"is a folder \(allowed a file\)"):
        container.refuse_existing(str(tmp_path), force=True)


# --- reading what is broken -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot read x"),
        (b"junk" * 9, "cannot read x"),
        (struct.pack("<Q", 2**40) + b"{}", "cannot read x"),
        (struct.pack("<Q", 2) + b"[]", "cannot read x"),
    ],
)
def test_foreign_bytes(tmp_path, content, message):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        container.read(path, "x")
    assert str(error.value).startswith(message)


def test_truncation_anywhere_is_noticed(tmp_path):
    path = tmp_path / "x.safetensors"
    save_factorization(path, model())
    whole = path.read_bytes()
    for end in range(0, len(whole), 37):
        path.write_bytes(whole[:end])
        with pytest.raises(DataError, match="cannot read x"):
            container.read(path, "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "9"}, "x has an unknown schema (got 9, allowed 1)."),
        ({"kind": "tensor"}, "x holds something else (got tensor, allowed factorization)."),
        ({"content": "nonsense"}, "x is damaged: its metadata is not JSON."),
        ({"content": "[1]"}, "x is damaged: its metadata is not a JSON object."),
        ({"content": "[" * 100_000}, "x is damaged: its metadata is not JSON."),
        ({"content": "{}"}, "x is damaged: its description of the factorization is malformed."),
    ],
)
def test_changed_metadata(tmp_path, change, message):
    path = tmp_path / "x.safetensors"
    save_factorization(path, model())
    tamper(path, **change)
    with pytest.raises(DataError) as error:
        to_factorization(container.read(path, "x"))
    assert str(error.value) == message
