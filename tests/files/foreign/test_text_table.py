from __future__ import annotations

import csv
import math
from contextlib import closing

import pytest

from htfcli.files.foreign.labelled_table import read_queries, read_table
from htfcli.files.foreign.text_table import Filled, Head, TextTable
from htfcli.files.own.axes import Axis


def table(path, text, delimiter=","):
    path.write_text(text)
    return TextTable(path, path.name, delimiter)


def filled(file, value, index_at=(0, 1)):
    """The table with `value` in place of every missing one."""
    head = file.head()
    value_at = len(head.names) - 1 - head.padding
    values = [v for _, block in file.blocks(head, list(index_at), value_at) for v in block.tolist()]

    def fill(start, stop):
        block = values[start:stop]
        return [math.isnan(v) for v in block], [value if math.isnan(v) else v for v in block], []

    target = file.path.with_name("out.csv")
    file.write(str(target), Filled(head, list(index_at), value_at, "v", fill, iter(())))
    return target.read_text()


# --- the columns ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "head"),
    [
        ("x,y,v\na,b,1\n", Head(["x", "y", "v"], True)),
        ("a,b,1\n", Head(["0", "1", "2"], False)),
        ("a,b,NA\na,c,1\n", Head(["0", "1", "2"], False)),
        ("a,b,\na,c,1\n", Head(["0", "1", "2"], False)),
        ("x,y,v,\na,b,1,\na,c,,\n", Head(["x", "y", "v", ""], True, 1)),
        ("x,y,v,,\na,b,1,, \n", Head(["x", "y", "v", "", ""], True, 2)),
        ("x,y,v,\na,b,1,\na,c,,note\n", Head(["0", "1", "2", "3"], False)),
    ],
)
def test_head(tmp_path, text, head):
    assert table(tmp_path / "a.csv", text).head() == head


def test_a_header_that_ends_in_a_comma(tmp_path):
    """As spreadsheets and loggers write it: a column without name and values is neither a mode nor the value."""
    text = "id,product,value,\nS0,P0,,\nS0,P1,3.5,\nS1,P0,4.5,\n"
    (tmp_path / "a.csv").write_text(text)
    read = read_table(tmp_path / "a.csv", "a.csv", ".csv")
    assert ([axis.name for axis in read.axes], read.value_name) == (["id", "product"], "value")
    assert read.value.tolist()[1:] == [3.5, 4.5]
    assert filled(TextTable(tmp_path / "a.csv", "a.csv", ","), 7.0) == text.replace("P0,,\n", "P0,7.0,\n")


def test_entries_asked_for_without_a_header_or_values(tmp_path):
    (tmp_path / "q.csv").write_text("low,S0,\nhigh,S1,\n")
    axes = (Axis("dose", 2, ("high", "low")), Axis("id", 2, ("S0", "S1")))
    assert read_queries(tmp_path / "q.csv", "q.csv", ".csv", axes, "v").index.tolist() == [[1, 0], [0, 1]]
    (tmp_path / "q.csv").write_text("id,dose,\nS0,low,\n")
    assert read_queries(tmp_path / "q.csv", "q.csv", ".csv", axes, "v").index.tolist() == [[1, 0]]


# --- fields over several lines ----------------------------------------------------------------------------------------

NOTE = '"seen by A\n#2 repeated\n\n ok"'


def test_notes_of_several_lines_stay_whole(tmp_path):
    """Within quotes, a line that begins with # is no comment and an empty one is not skipped."""
    text = f"# by hand\nx,y,note,v\na,p,{NOTE},\n\n# then\na,q,{NOTE},5\nb,p,plain,\n# end\n"
    out = filled(table(tmp_path / "a.csv", text), 2.5)
    assert out == text.replace(f"a,p,{NOTE},", f"a,p,{NOTE},2.5").replace("plain,", "plain,2.5")
    rows = list(csv.reader(out.splitlines(keepends=True)))
    assert [row[2] for row in rows if row[:1] == ["a"]] == ["seen by A\n#2 repeated\n\n ok"] * 2


def test_the_line_on_which_a_row_ends(tmp_path):
    file = table(tmp_path / "a.csv", f"# c\nx,y,note,v\na,p,{NOTE},1\n\nb,p,,2\n")
    head = file.head()
    assert [file.line_of(head, row) for row in range(2)] == [6, 8]


def test_comments_of_tns(tmp_path):
    file = table(tmp_path / "a.tns", "# c\n1 1 2.5 # good\n\n2 1 3\n# end\n", None)
    with closing(file._rows()) as rows:
        assert [(row.line, row.before, row.fields) for row in rows] == [
            (2, "# c\n", ["1", "1", "2.5"]),
            (4, "\n", ["2", "1", "3"]),
        ]
