from __future__ import annotations

import gzip
import math
import re

import numpy as np
import pytest
import torch

from htfcli.config.completion_run import CompletionRunConfig
from htfcli.engine.samples import Entries
from htfcli.errors import ConfigError, DataError
from htfcli.files.foreign import cells
from htfcli.files.own.axes import Axis
from htfcli.files.tables import table_file, text_output
from htfcli.files.tables.formats import read_queries, read_table
from htfcli.files.tables.table import Table
from tests.files.foreign.predictions import numbers
from tests.numbering import number

CSV = (
    "# IL-2, batch 7\n"
    "ligand,dose,cell,response\n"
    '"IL2, WT",10,Treg,1.5\n'
    "\n"
    '"IL2, WT",0.5,"N""K",\n'
    "# the second plate\n"
    "IL15, 10 ,Treg,NA\r\n"
    "Zelle ü,0.50,Treg,-2e300\n"
    "# checked by hand"
)


def read(path, content, **options):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Table.of(read_table([path], path.name, CompletionRunConfig(**options)))


def asked(path, axes, value="v"):
    source = read_queries([path], path.name, [axis.name for axis in axes], value, CompletionRunConfig())
    return Table.of(source).on(axes, unknown_labels=True)


def written(table, tmp_path, **options):
    target = tmp_path / f"out{table.suffix}"
    table.write(str(target), numbers, **options)
    data = target.read_bytes()
    return (gzip.decompress(data) if table.suffix.endswith(".gz") else data).decode()


def test_labels_names_and_holes(tmp_path):
    table = read(tmp_path / "a.csv", CSV)
    assert [axis.name for axis in table.axes] == ["ligand", "dose", "cell"]
    assert [axis.labels for axis in table.axes] == [("IL15", "IL2, WT", "Zelle ü"), ("0.5", "10"), ('N"K', "Treg")]
    assert table.index.tolist() == [[1, 1, 1], [1, 0, 0], [0, 1, 1], [2, 0, 1]]
    assert table.value[[0, 3]].tolist() == [1.5, -2e300]
    assert table.value[[1, 2]].isnan().all()
    assert table.dims == (3, 2, 2)
    assert table.value_name == "response"
    entries = table.entries()
    assert entries.index.tolist() == [[1, 1, 1], [2, 0, 1]]
    assert entries.value.tolist() == [1.5, -2e300]
    assert table.lacking() == 12 - 4


def test_holes_are_filled_and_nothing_else_is_touched(tmp_path):
    text = written(read(tmp_path / "a.csv", CSV), tmp_path)
    expected = CSV.replace('"N""K",\n', f'"N""K",{number(1, 0, 0)!r}\n').replace(
        "Treg,NA\r\n", f"Treg,{number(0, 1, 1)!r}\r\n"
    )
    assert text == expected


def test_every_value_can_be_replaced(tmp_path):
    text = written(read(tmp_path / "a.csv", CSV), tmp_path, everywhere=True)
    again = read(tmp_path / "b.csv", text)
    assert again.value.tolist() == [number(*row) for row in again.index.tolist()]


@pytest.mark.parametrize("block", [2, 3, 1000])
def test_missing_combinations_follow(tmp_path, monkeypatch, block):
    """Block by block, whatever the block: the whole is never in memory."""
    monkeypatch.setattr(cells, "BLOCK", block)
    monkeypatch.setattr(text_output, "BLOCK", block)
    monkeypatch.setattr(table_file, "BLOCK", block)
    asked = []

    def values(index):
        asked.append(len(index))
        return numbers(index)

    table = read(tmp_path / "a.csv", "x,y,note,v\nb,1,hm,5\na,7,,\nb,3,,6\n", index=["x", "y"])
    table.write(str(tmp_path / "out.csv"), values, further=True)
    assert (tmp_path / "out.csv").read_text() == (
        f"x,y,note,v\nb,1,hm,5\na,7,,{number(0, 2)}\nb,3,,6\n"
        f"a,1,,{number(0, 0)}\na,3,,{number(0, 1)}\nb,7,,{number(1, 2)}\n"
    )
    assert max(asked) <= block
    assert sum(asked) == 4


def test_a_hole_whose_entry_is_known_from_another_row(tmp_path):
    table = read(tmp_path / "a.csv", "x,y,v\na,1,\na,1,5\nb,1,6\nb,2,\n")
    assert written(table, tmp_path, entries=table.entries()) == f"x,y,v\na,1,5.0\na,1,5\nb,1,6\nb,2,{number(1, 1)}\n"


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.tns", "a.tns.gz"])
def test_text_formats(tmp_path, name):
    delimiter = {"a.csv": ",", "a.tsv": "\t"}.get(name, " ")
    text = "\n".join(delimiter.join(row) for row in (("1", "9", "2.5"), ("3", "4", "nan"), ("1", "4", "7"))) + "\n"
    table = read(tmp_path / name, gzip.compress(text.encode()) if name.endswith("gz") else text)
    assert [axis.labels for axis in table.axes] == [("1", "3"), ("4", "9")]
    assert [axis.name for axis in table.axes] == ["0", "1"]
    assert written(table, tmp_path) == text.replace("nan", repr(number(1, 0)))
    further = f"3{delimiter}9{delimiter}{number(1, 1)!r}\n"
    assert written(table, tmp_path, further=True) == text.replace("nan", repr(number(1, 0))) + further


def test_which_columns(tmp_path):
    text = "y,id,x,v,w\na,1,p,5,8\nb,2,q,6,9\n"
    table = read(tmp_path / "a.csv", text, value="v", index=["x", "y"])
    assert [axis.name for axis in table.axes] == ["x", "y"]
    assert table.value.tolist() == [5, 6]
    assert len(read(tmp_path / "a.csv", text).axes) == 4
    assert [axis.name for axis in read(tmp_path / "b.csv", "1,2,3\n4,5,6\n", value="0").axes] == ["1", "2"]


def test_a_first_row_without_a_value_is_no_header(tmp_path):
    table = read(tmp_path / "a.csv", "p,q,\np,r,5\n")
    assert (table.source.file.head.named, len(table.value)) == (False, 2)


def test_fields_that_span_lines(tmp_path):
    text = 'x,y,v\n"a\nb",p,\n"a\nb",q,5\n'
    table = read(tmp_path / "a.csv", text)
    assert table.axes[0].labels == ("a\nb",)
    assert written(table, tmp_path) == text.replace("p,\n", f"p,{number(0, 0)}\n")
    with pytest.raises(DataError, match=r"a.csv line 4 has a value that is not a number \(got 'z'\)"):
        read(tmp_path / "a.csv", text.replace("p,\n", "p,2\n").replace("q,5", "q,z")[:-1].replace('"a\nb",q', "c,q"))


def test_duplicates(tmp_path):
    agree = "x,y,v\na,1,5\nb,1,6\na,1,5.0\n"
    entries = read(tmp_path / "a.csv", agree).entries()
    assert (entries.index.tolist(), entries.value.tolist()) == ([[0, 0], [1, 0]], [5, 6])
    differ = "x,y,v\nb,2,1\na,1,4\na,1,4\nb,2,1e308\na,1,7\n"
    table = read(tmp_path / "b.csv", differ)
    with pytest.raises(DataError) as error:
        table.entries()
    assert str(error.value) == (
        "b.csv line 5 disagrees with line 2 about one entry (got 1e+308 and 1.0). "
        "Correct one of them, or average them: --duplicates mean."
    )
    entries = table.entries(average=True)
    assert entries.index.tolist() == [[1, 1], [0, 0]]
    assert entries.value.tolist() == [pytest.approx(5e307), 5]


def test_averages_do_not_overflow(tmp_path):
    table = read(tmp_path / "a.csv", "x,y,v\na,1,1.7e308\na,1,1.6e308\n")
    assert table.entries(average=True).value.item() == pytest.approx(1.65e308)


def test_missing_value(tmp_path):
    table = read(tmp_path / "a.csv", "x,y,v\na,1,-999\na,2,5\n").without(-999)
    assert table.value.isnan().tolist() == [True, False]
    assert written(table, tmp_path) == f"x,y,v\na,1,{number(0, 0)}\na,2,5\n"


def test_a_missing_value_that_does_not_occur(tmp_path):
    table = read(tmp_path / "a.csv", "x,y,v\na,1,-999\na,2,5.5\na,3,\n")
    message = "--missing-value does not occur in a.csv (got -9999, allowed a value from -999 to 5.5)."
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        table.without(-9999)


def test_given_dimensions(tmp_path):
    table = read(tmp_path / "a.csv", "0,2,1\n1,0,2\n").on([Axis("0", 4), Axis("1", 3)])
    assert table.dims == (4, 3)
    assert table.lacking() == 10
    with pytest.raises(DataError) as error:
        table.on([Axis("0", 4), Axis("1", 2)])
    assert str(error.value) == ("a.csv line 1: column 1 has an unknown value (got '2', allowed '0', '1').")


def test_a_tensor_of_any_order(tmp_path):
    rows = [[str(v) for v in row] for row in np.random.default_rng(0).integers(0, 9, (20, 70)).tolist()]
    table = read(tmp_path / "a.csv", "".join(",".join([*row, "1.5"]) + "\n" for row in rows))
    assert math.prod(table.dims) > 2**63
    assert table.lacking() == math.prod(table.dims) - 20
    assert len(table.entries()) == 20


AXES = (Axis("ligand", 2, ("IL15", "IL2")), Axis("dose", 3, ("0.5", "2", "10")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dose,note,ligand\n10.0,x,IL2\n", "dose,note,ligand,v\n10.0,x,IL2,{}\n"),
        ("dose,v,ligand\n10,,IL2\n", "dose,v,ligand\n10,{},IL2\n"),
        ("dose,v,ligand\n10,5,IL2\n", "dose,v,ligand\n10,{},IL2\n"),
        ("IL2,10\n", "IL2,10,{}\n"),
        ("IL2,10,7\n", "IL2,10,{}\n"),
    ],
)
def test_queries(tmp_path, text, expected):
    path = tmp_path / "q.csv"
    path.write_text(text)
    queries = asked(path, AXES)
    assert queries.index.tolist() == [[1, 2]]
    assert written(queries, tmp_path, everywhere=True) == expected.format(number(1, 2))


def test_queries_with_labels_never_seen(tmp_path):
    path = tmp_path / "q.csv"
    path.write_text("ligand,dose\nIL2,2\nIL7,2\nIL9,3\n")
    queries = asked(path, AXES)
    assert queries.index.tolist() == [[1, 1], [-1, 1], [-1, -1]]
    assert queries.unknown == (("ligand", "IL7", 2), ("dose", "3", 1))


def test_what_is_asked_for_is_what_is_written(tmp_path):
    """In the same order, with and without rows that are added."""
    table = read(tmp_path / "a.csv", "x,y,v\np,1,5\nq,2,\nr,1,\nq,2,7\n")
    entries = table.entries()
    for options in ({}, {"further": True}, {"everywhere": True}):
        seen = []

        def values(index, seen=seen):
            seen.append(index.long())
            return numbers(index)

        known = None if options.get("everywhere") else entries
        table.write(str(tmp_path / "out.csv"), values, known, **options)
        assert table.asked(known, **options).tolist() == torch.cat(seen).tolist()


def test_bounds_beside_values(tmp_path):
    """Also in rows that are added; a row whose value is known, from any row, has none."""
    table = read(tmp_path / "a.csv", "x,y,v\np,1,5\nq,2,\nr,1,\nq,2,7 # note\n")
    text = written(table, tmp_path, entries=table.entries(), further=True, bounds=lambda i: (-numbers(i), numbers(i)))
    assert text.splitlines() == [
        "x,y,v,lower,upper",
        "p,1,5,,",
        "q,2,7.0,,",
        f"r,1,{number(2, 0)},-{number(2, 0)},{number(2, 0)}",
        "q,2,7 # note,,",
        *(
            f"{x},{y},{v},-{v},{v}"
            for x, y, v in (("p", 2, number(0, 1)), ("q", 1, number(1, 0)), ("r", 2, number(2, 1)))
        ),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ligand\nIL2\n", "q.csv lacks columns (got ligand, allowed dose)."),
        ("a,b,c\nIL2,10,x\n", "q.csv lacks columns (got a, b, c, allowed ligand, dose)."),
        ("ligand,dose\n", "q.csv has no entries."),
    ],
)  # fmt: skip
def test_queries_that_cannot_be_answered(tmp_path, text, message):
    path = tmp_path / "q.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        asked(path, AXES)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "x,y,v\na,1,5\n,1,6\n", "a.csv line 3 has no label in column x (got ''). Give it one, or leave the row out."),
        ("a.csv", "x,y,v\na,NaN,5\n", "a.csv line 2 has no label in column y (got 'NaN'). Give it one, or leave the row out."),
        ("a.csv", "x,y,v\n\n# note\na,1,5\na,1\n", "a.csv line 5 has the wrong number of columns (got 2, allowed 3)."),
        ("a.csv", "x,y,v\na,1,5\na,2,five\n", "a.csv line 3 has a value that is not a number (got 'five')."),
        ("a.csv", "x,y,v\na,1,1_0\n", "a.csv line 2 has a value that is not a number (got '1_0')."),
        ("a.csv", "x,y,v\na,1,5\na,2,-inf\n", "a.csv line 3 has no finite value (got -inf)."),
        ("a.csv", "x,y,v\na,2,1e999\n", "a.csv line 2 has no finite value (got 1e999)."),
        ("a.csv", f"x,y,v\na,2,{'9' * 400}\n", f"a.csv line 2 has no finite value (got {'9' * 40})."),
        ("a.csv", "x,y,v\n", "a.csv has no entries."),
        ("a.csv", "", "a.csv has no entries."),
        ("a.csv", "x,x,v\na,b,1\n", "a.csv has two columns of the same name (got x)."),
        ("a.csv", "x,v\na,1\n", "a.csv has too few columns (got 2, allowed 2 indices or more and a value)."),
        ("a.csv", "x\na\n", "a.csv has too few columns (got 1, allowed 2 indices or more and a value). What separates the fields? --delimiter."),
        ("a.csv", "x,y,v\na,1,\na,2,null\n", "a.csv has no observed value. Is the value in another column? --value."),
        ("a.csv", b"x,y\0,v\na,1,2\n", "a.csv is not a text file."),
        ("a.tns.gz", gzip.compress(b"1 1 1\n" * 100, mtime=0)[:-9], "a.tns.gz is truncated."),
        ("a.tns.gz", b"not gzip", "a.tns.gz is damaged: Not a gzipped file (b'no')."),
        ("a.parquet", b"junk", "a.parquet is not a readable .parquet file: "),
    ],
)  # fmt: skip
def test_broken_tables(tmp_path, name, content, message):
    with pytest.raises(DataError) as error:
        read(tmp_path / name, content).entries()
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"value": "respnse"}, "a.csv has no such column (got respnse, allowed x, y, response). Did you mean response?"),
        ({"index": ["x", "z"]}, "a.csv has no such column (got z, allowed x, y, response)."),
        ({"index": ["x", "response"]}, "the last column is a mode, so it does not contain the values. Name their column with --value."),
    ],
)  # fmt: skip
def test_columns_that_are_not_there(tmp_path, options, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        read(tmp_path / "a.csv", "x,y,response\na,1,5\n", **options)


def test_a_failed_write_leaves_nothing(tmp_path):
    table = read(tmp_path / "a.csv", "x,y,v\na,1,\nb,1,5\n")

    def fails(index):
        raise DataError("no")

    with pytest.raises(DataError, match="no"):
        table.write(str(tmp_path / "out.csv"), fails)
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_known_entries_of_a_large_tensor():
    index = torch.tensor([[5] * 70, [3] * 70])
    known = cells.known_at(Entries(index, torch.tensor([1.0, 2.0])), torch.tensor([[3] * 70, [4] * 70]), [10] * 70)
    assert known[0] == 2
    assert known[1].isnan()
