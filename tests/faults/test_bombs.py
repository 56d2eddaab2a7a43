"""Small files that unpack to gigabytes, claim any size, or nest without end."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

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
    column = pa.nulls(1 << 20, pa.int64())  # no bytes in the file, eight per row in memory
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
    assert "x.pt does not fit in memory (got shape [1000000, 1000000]: 7.28 TiB, allowed" in refused("inspect", "x.pt")
    with torch.sparse.check_sparse_tensor_invariants():
        sparse = torch.sparse_coo_tensor(torch.zeros((2, 1), dtype=torch.long), torch.ones(1), (10**6, 10**6))
    torch.save(sparse, tmp_path / "y.pt")
    assert "y.pt does not fit in memory (got shape [1000000, 1000000]: 7.28 TiB" in refused("inspect", "y.pt")
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
