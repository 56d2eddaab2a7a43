"""Spreadsheets and JSON Lines: what is filled in, and that all else stays as it was."""

from __future__ import annotations

import datetime
import json

import numpy as np
import pytest

from htfcli.config.completion_run import CompletionRunConfig
from htfcli.errors import ConfigError, DataError
from htfcli.files.tables.formats import read_table
from htfcli.files.tables.table import Table
from tests.files.foreign.predictions import numbers
from tests.numbering import number

openpyxl = pytest.importorskip("openpyxl")


def read(path, **options):
    return read_table([path], path.name, CompletionRunConfig(**options))


def written(source, tmp_path, **options):
    target = tmp_path / f"out{source.file.suffix}"
    table = Table.of(source)
    table.write(str(target), numbers, table.entries(), **options)
    return target


@pytest.fixture
def book(tmp_path):
    """A workbook as people have them: notes in one sheet, a wide table with formats and a formula in the other."""
    made = openpyxl.Workbook()
    made.active.title = "Notes"
    made.active["A1"] = "asked in spring"
    sheet = made.create_sheet("Panel")
    for row in (["country", 2001, 2002, 2003], ["NO", 1.5, None, 3], ["SE", "n/a", 2.5, 4.25], ["DK", 5, 6, "=B2*2"]):
        sheet.append(row)
    sheet["B2"].number_format = "0.000"
    sheet["A2"].font = openpyxl.styles.Font(bold=True)
    sheet["F9"] = "a remark beside the table"
    made.save(tmp_path / "a.xlsx")
    return tmp_path / "a.xlsx"


def test_a_sheet_is_filled_and_nothing_else_is_touched(book, tmp_path):
    data = openpyxl.load_workbook(book)
    data["Panel"]["D4"] = 7
    data.save(book)
    source = read(book)
    assert source.file.remark() == "sheet Panel of Notes, Panel"
    assert [(mode.axis.name, mode.axis.size) for mode in source.modes] == [("country", 3), ("column", 3)]
    assert source.value_name == "value"
    out = openpyxl.load_workbook(written(source, tmp_path))
    sheet = out["Panel"]
    assert [[cell.value for cell in row] for row in sheet.iter_rows(min_row=1, max_row=4, max_col=4)] == [
        ["country", 2001, 2002, 2003],
        ["NO", 1.5, number(1, 1), 3],
        ["SE", number(2, 0), 2.5, 4.25],
        ["DK", 5, 6, 7],
    ]
    assert (sheet["B2"].number_format, sheet["A2"].font.bold) == ("0.000", True)
    assert sheet["F9"].value == "a remark beside the table"
    assert out["Notes"]["A1"].value == "asked in spring"


def test_a_formula_that_was_never_computed_is_no_hole(book):
    with pytest.raises(DataError, match=r"a.xlsx cell D4 has a formula whose value is not stored"):
        read(book)


def test_which_sheet(book, tmp_path):
    with pytest.raises(
        ConfigError, match=r"has no such sheet \(got panel, allowed Notes, Panel\). Did you mean Panel\?"
    ):
        read(book, sheet="panel")
    made = openpyxl.Workbook()
    made.save(tmp_path / "empty.xlsx")
    with pytest.raises(DataError, match="has no entries"):
        read(tmp_path / "empty.xlsx")


def test_a_long_sheet_with_dates_and_bounds(tmp_path):
    made = openpyxl.Workbook()
    days = [datetime.datetime(2024, 1, day) for day in (1, 2)]
    for row in (["city", "day", "v"], ["Oslo", days[0], 1.5], ["Oslo", days[1], None], ["Rome", days[0], 2]):
        made.active.append(row)
    made.save(tmp_path / "a.xlsx")
    source = read(tmp_path / "a.xlsx")
    assert source.axes[1].labels == ("2024-01-01", "2024-01-02")
    assert source.modes[1].coordinates is not None
    table = Table.of(source)
    target = tmp_path / "out.xlsx"
    table.write(str(target), numbers, table.entries(), further=True, bounds=lambda i: (numbers(i) - 1, numbers(i) + 1))
    found = [[cell.value for cell in row] for row in openpyxl.load_workbook(target).active.iter_rows()]
    first, second = number(0, 1), number(1, 1)
    assert found == [
        ["city", "day", "v", "lower", "upper"],
        ["Oslo", days[0], 1.5, None, None],
        ["Oslo", days[1], first, first - 1, first + 1],
        ["Rome", days[0], 2, None, None],
        ["Rome", days[1], second, second - 1, second + 1],
    ]


# --- JSON Lines ------------------------------------------------------------------------------------------------------------

LINES = '{"x": "a", "y": 1, "v": 1.50}\n{"x": "Zü", "y": 2, "v": null, "note": "1.250"}\n\n{"y": 1, "x": "Zü", "w": 1.10}\n{"x":"a","y":2,"v":7}'


def test_json_lines(tmp_path):
    (tmp_path / "a.jsonl").write_text(LINES)
    source = read(tmp_path / "a.jsonl", index=["x", "y"], value="v")
    assert [mode.axis.labels for mode in source.modes] == [("Zü", "a"), ("1", "2")]
    assert [source.file.line_of(row) for row in range(4)] == [1, 2, 4, 5]
    lines = written(source, tmp_path).read_text().splitlines()
    assert lines[0] == '{"x": "a", "y": 1, "v": 1.50}'
    assert lines[1] == f'{{"x": "Zü", "y": 2, "v": {number(0, 1)}, "note": "1.250"}}'
    assert lines[2] == f'{{"y": 1, "x": "Zü", "w": 1.10, "v": {number(0, 0)}}}'
    assert lines[3] == '{"x":"a","y":2,"v":7}'


def test_rows_that_json_lacks(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"x":"a","y":true,"v":1}\n{"x":"b","y":false,"v":2}\n')
    lines = written(read(tmp_path / "a.jsonl"), tmp_path, further=True).read_text().splitlines()
    assert [json.loads(line) for line in lines[2:]] == [
        {"x": "a", "y": False, "v": number(0, 0)},
        {"x": "b", "y": True, "v": number(1, 1)},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"x": 1}\n[1]\n', r"a.jsonl line 2 is not a JSON object \(got '\[1\]'\)"),
        ("\n\n", "a.jsonl has no entries"),
        ('{"x": "a", "y": 1, "v": "five"}\n', r"a.jsonl line 1 has a value that is not a number \(got 'five'\)"),
        ('{"x": "a", "y": 1, "v": 1e999}\n', r"a.jsonl line 1 has no finite value"),
    ],
)
def test_json_that_cannot_be_read(tmp_path, text, message):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.jsonl")


def test_gaps_in_json_are_holes(tmp_path):
    (tmp_path / "a.ndjson").write_text('{"x": "a", "2001": 1.5, "2002": 2}\n{"x": "b", "2002": 3.5}\n')
    source = read(tmp_path / "a.ndjson")
    assert np.isnan(source.value).tolist() == [False, False, True, False]
    assert json.loads(written(source, tmp_path).read_text().splitlines()[1])["2001"] == number(1, 0)
