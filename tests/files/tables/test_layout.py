"""Which columns are modes and which are values: long tables, wide ones, and several variables."""

from __future__ import annotations

import re

import numpy as np
import pytest

from htfcli.config.completion_run import CompletionRunConfig
from htfcli.errors import ConfigError, DataError
from htfcli.files.tables.formats import read_table
from htfcli.files.tables.table import Table
from tests.files.foreign.predictions import numbers
from tests.numbering import number


def read(path, content, **options):
    path.write_text(content)
    return read_table([path], path.name, CompletionRunConfig(**options))


def written(source, tmp_path, **options):
    table = Table.of(source)
    table.write(str(tmp_path / "out.csv"), numbers, table.entries(), **options)
    return (tmp_path / "out.csv").read_text()


def modes(source):
    return [(mode.axis.name, mode.axis.size) for mode in source.modes]


def rows(count, form, seed=0):
    generator = np.random.default_rng(seed)
    return "".join(form(i, generator) + "\n" for i in range(count))


def measured(generator, count):
    return ",".join(f"{value:.3f}" for value in generator.random(count) * 10)


# --- wide tables -------------------------------------------------------------------------------------------------------


def test_a_table_with_a_column_per_year(tmp_path):
    text = "station,2016,2017,2019\nS0,1.5,,3.5\nS1,,2.5,4.5\n"
    source = read(tmp_path / "a.csv", text)
    assert modes(source) == [("station", 2), ("column", 3)]
    assert source.modes[1].coordinates == (2016, 2017, 2019)
    assert source.layout.remarks == ("a wide table, with 3 columns of values: 2016, 2017, 2019 (--long if not)",)
    assert source.index.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    out = written(source, tmp_path)
    assert out == text.replace("1.5,,", f"1.5,{number(0, 1)},").replace("S1,,", f"S1,{number(1, 0)},")


def test_a_matrix_without_names(tmp_path):
    source = read(tmp_path / "a.csv", rows(12, lambda i, g: measured(g, 4)))
    assert modes(source) == [("row", 12), ("column", 4)]
    assert source.modes[0].numbered
    gaps = "1,2,\n,3,4\n2,,5\n"
    source = read(tmp_path / "a.csv", gaps)
    assert modes(source) == [("row", 3), ("column", 3)]
    assert written(source, tmp_path) == f"1,2,{number(0, 2)}\n{number(1, 0)},3,4\n2,{number(2, 1)},5\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("time,north,south,east\n" + rows(12, lambda i, g: f"{i}," + measured(g, 3)), [("time", 12), ("column", 3)]),
        ("user,item1,item2,item3\n" + rows(12, lambda i, g: f"u{i},{i % 5},{i % 4},{i % 3}"), [("user", 12), ("column", 3)]),
        ("user,Alien,Matrix,Brazil\nu1,5,,3\nu2,,4,1\nu3,2,2,\n", [("user", 3), ("column", 3)]),
        (",2001,2002\na,1.5,2.5\nb,3.5,\n", [("", 2), ("column", 2)]),
        ("country,sex,2001,2002\nNO,f,1.5,2.5\nNO,m,,2\nSE,f,2,3\n", [("country", 2), ("sex", 2), ("column", 2)]),
        ("city,2024-01,2024-02,2024-03\nOslo,1.5,,3\nRome,2,3,4\n", [("city", 2), ("column", 3)]),
        ("Unnamed: 0,x,y,v\n" + rows(12, lambda i, g: f"{i},{i % 3},{i % 4},{i}.5"), [("x", 3), ("y", 4)]),
        ("x,y,v\n" + rows(12, lambda i, g: f"{i % 3},{i % 4},{i}.5"), [("x", 3), ("y", 4)]),
        ("ligand,dose,cell,response\n" + rows(24, lambda i, g: f"L{i % 2},{0.5 * 2 ** (i % 3)},C{i // 6},{g.random():.4f}"), [("ligand", 2), ("dose", 3), ("cell", 4)]),
    ],
    ids=["sensors", "items", "ratings with gaps", "no name", "two labels", "months", "a saved index", "long numbers", "long"],
)  # fmt: skip
def test_layouts_are_recognised(tmp_path, text, found):
    assert modes(read(tmp_path / "a.csv", text)) == found


def test_wide_and_long_decide(tmp_path):
    text = "user,Alien,Matrix,Brazil\n" + rows(12, lambda i, g: f"u{i},{i % 5},{i % 4},{i % 3}")
    message = "a.csv: one row per entry, or one column per index? (got columns user, Alien, Matrix, Brazil). Say which with --long or --wide."
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        read(tmp_path / "a.csv", text)
    assert modes(read(tmp_path / "a.csv", text, wide=True)) == [("user", 12), ("column", 3)]
    assert modes(read(tmp_path / "a.csv", text, index=["user"])) == [("user", 12), ("column", 3)]
    assert modes(read(tmp_path / "a.csv", text, wide=False)) == [("Alien", 5), ("Matrix", 4)]
    assert modes(read(tmp_path / "a.csv", text, index=["user", "Alien"], value="Brazil")) == [
        ("user", 12),
        ("Alien", 5),
    ]


def test_a_column_that_names_the_rows_is_enough(tmp_path):
    """Names, codes and regions of countries: the first name is the mode, the others are carried along."""
    text = "code,country,region,2001,2002\n" + rows(
        12, lambda i, g: f"{i + 100},country {i},R{i % 3}," + measured(g, 2)
    )
    source = read(tmp_path / "a.csv", text)
    assert modes(source) == [("country", 12), ("column", 2)]
    assert source.layout.remarks[1] == "column country names the rows; code, region left out, --index decides"
    assert modes(read(tmp_path / "a.csv", text, index=["country", "region"])) == [
        ("country", 12),
        ("region", 3),
        ("column", 2),
    ]


def test_rows_that_a_wide_table_lacks(tmp_path):
    source = read(tmp_path / "a.csv", "a,b,2001,2002\np,x,1,2\nq,y,3,4\n")
    table = Table.of(source)
    assert table.lacking() == 4
    assert written(source, tmp_path, further=True).splitlines()[3:] == [
        f"p,y,{number(0, 1, 0)},{number(0, 1, 1)}",
        f"q,x,{number(1, 0, 0)},{number(1, 0, 1)}",
    ]


# --- variables -----------------------------------------------------------------------------------------------------------


def panel(i, generator):
    return f"c{i % 4},{2000 + i // 4}," + measured(generator, 2)


def test_several_variables_are_a_mode(tmp_path):
    text = "country,year,gdp,pop\n" + rows(24, panel)
    source = read(tmp_path / "a.csv", text, variables=["gdp", "pop"])
    assert modes(source) == [("country", 4), ("year", 6), ("variable", 2)]
    assert source.axes[2].labels == ("gdp", "pop")
    source = read(tmp_path / "a.csv", text)
    assert modes(source) == [("country", 4), ("year", 6)]
    assert source.value_name == "pop"
    assert source.layout.remarks == (
        "column gdp holds measurements and is no mode; --index decides",
        "column pop is completed; --variables gdp,pop completes these together",
    )


# --- columns that are no modes -------------------------------------------------------------------------------------------


def test_a_column_with_another_value_in_every_row(tmp_path):
    text = "id,x,y,v\n" + rows(13, lambda i, g: f"r{i},{i % 3},{i % 4},{i}.5")
    source = read(tmp_path / "a.csv", text)
    assert modes(source) == [("x", 3), ("y", 4)]
    assert source.layout.remarks == ("column id has another value in every row and is left out; --index decides",)
    assert modes(read(tmp_path / "a.csv", text, index=["id", "x", "y"])) == [("id", 13), ("x", 3), ("y", 4)]
    few = "x,y,z,v\n1,2,3,4\n2,3,4,5\n"
    assert modes(read(tmp_path / "a.csv", few)) == [("x", 2), ("y", 2), ("z", 2)]


# --- labels --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "found", "warned"),
    [
        (["01234", "1234", "20001"], ("01234", "1234", "20001"), "column x: '01234' and '1234' are taken for two labels, as codes with leading zeros are"),
        (["00501", "10001", "20001"], ("00501", "10001", "20001"), None),
        (["7", "7.0", "8"], ("7", "8"), "column x: '7' and '7.0' are taken for one label, as others that differ so"),
        (["1e5", "100000", "2"], ("2", "1e5"), "column x: '1e5' and '100000' are taken for one label, as others that differ so"),
        (["Zu\u0308rich", "Z\u00fcrich", "Bern"], ("Bern", "Zu\u0308rich"), "column x: 'Zu\u0308rich' and 'Z\u00fcrich' are taken for one label, as others that differ so"),
        (["NA", "DE", "FR"], ("DE", "FR", "NA"), None),
        (["2", "10", "1"], ("1", "2", "10"), None),
        (["02", "10", "01"], ("01", "02", "10"), None),
        (["b", "10", "1"], ("1", "10", "b"), None),
    ],
)  # fmt: skip
def test_labels(tmp_path, labels, found, warned):
    text = "x,y,v\n" + "".join(f"{label},p{n},{n}\n" for n, label in enumerate(labels))
    source = read(tmp_path / "a.csv", text)
    axis = source.axes[0]
    import unicodedata

    assert [unicodedata.normalize("NFC", axis.label(i)) for i in range(axis.size)] == [
        unicodedata.normalize("NFC", t) for t in found
    ]
    assert source.warnings == (() if warned is None else (warned,))
    assert written(source, tmp_path) == text  # every label as it was


def test_a_row_without_a_label(tmp_path):
    for label in ("", "NA", "nan", "-"):
        with pytest.raises(DataError, match=rf"a.csv line 3 has no label in column x \(got '{label}'\)"):
            read(tmp_path / "a.csv", f"x,y,v\n1,p,1\n{label},p,2\n2,q,3\n")
    with pytest.raises(DataError, match=r"a.csv line 3 has no label in column x \(got ''\)"):
        read(tmp_path / "a.csv", "x,y,v\nDE,p,1\n,p,2\nNA,q,3\n")


@pytest.mark.parametrize("text", ["", "NA", "n/a", "N/A", "NaN", "null", "-", ".", "#N/A", "-1.#IND", "1.#QNAN", " NA ", "<NA>", "None"])  # fmt: skip
def test_missing_values_as_people_write_them(tmp_path, text):
    source = read(tmp_path / "a.csv", f"x,y,v\na,p,{text}\na,q,1.5\nb,p,2\n")
    assert np.isnan(source.value).tolist() == [True, False, False]
    assert written(source, tmp_path).splitlines()[1] == f"a,p,{number(0, 0)}"


def test_absent_rows_are_zero_if_that_is_said(tmp_path):
    source = read(tmp_path / "a.csv", "x,y,v\na,p,1.5\na,q,\nb,p,2\n")
    entries = Table.of(source, zeros=True).entries()
    found = {tuple(index): value for index, value in zip(entries.index.tolist(), entries.value.tolist(), strict=True)}
    assert found == {(0, 0): 1.5, (1, 0): 2.0, (1, 1): 0.0}  # an empty cell is unknown all the same
    assert Table.of(source, zeros=True).lacking() == 0
