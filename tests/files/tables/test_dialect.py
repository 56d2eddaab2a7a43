"""Text tables as programs write them: read right, said in a few words, and written back in their dialect."""

from __future__ import annotations

import csv
import gzip
import io
import math
import re

import pytest

from htfcli.config.tables import TableConfig
from htfcli.errors import ConfigError, DataError
from htfcli.files.tables import encoding
from htfcli.files.tables.encoding import Encoding, open_text, scan
from htfcli.files.tables.formats import read_table
from htfcli.files.tables.table import Table
from tests.files.foreign.predictions import numbers
from tests.numbering import number

CELLS = [
    ("Köln", "2020-01-01", "1.5"),
    ("Köln", "2020-01-02", ""),
    ("Bonn", "2020-01-01", "-2.25"),
    ("Bonn", "2020-01-02", "1234.5"),
]


def read(path, content, **options):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table([path], path.name, TableConfig(**options))


def written(source, tmp_path, **options):
    target = tmp_path / f"out{source.file.suffix}"
    table = Table.of(source)
    table.write(str(target), numbers, table.entries(), **options)
    return target.read_bytes()


def text_of(delimiter=",", decimal=".", end="\n", header=True):
    rows = [("city", "day", "value")] if header else []
    rows += [(city, day, value.replace(".", decimal)) for city, day, value in CELLS]
    return "".join(delimiter.join(row) + end for row in rows)


# --- dialects that are seen by themselves -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", text_of(), ""),
        ("a.csv", text_of(";", ","), "semicolons, decimal commas"),
        ("a.csv", text_of("\t"), "tabs"),
        ("a.csv", text_of("|"), "vertical bars"),
        ("a.tsv", text_of("\t"), ""),
        ("a.tsv", text_of("\t", ","), "decimal commas"),
        ("a.txt", text_of("\t"), ""),
        ("a.csv", text_of(end="\r\n"), ""),
        ("a.csv", text_of(";", ",", header=False), "semicolons, decimal commas"),
        ("a.csv", "\ufeff" + text_of(), ""),
        ("a.csv", text_of(";", ",").encode("utf-16"), "semicolons, decimal commas, UTF-16"),
        ("a.csv", b"\xfe\xff" + text_of().encode("utf-16-be"), "UTF-16"),
        ("a.csv", text_of("\t").encode("utf-16-le"), "tabs, UTF-16"),
        ("a.csv", text_of().encode("latin-1"), "Latin-1"),
        ("a.csv", "# export\n" + text_of(";", ","), "semicolons, decimal commas"),
        ("a.csv", "# für alle\n".encode("latin-1") + text_of().replace("ö", "o").replace("Koln", "K\u00f6ln").encode("latin-1"), "Latin-1"),
        ("a.csv", b"# \x81\n" + text_of().encode("latin-1"), "Latin-1"),
        ("a.csv.gz", text_of(";", ","), "semicolons, decimal commas"),
    ],
)  # fmt: skip
def test_any_dialect_is_the_same_tensor_and_is_kept(tmp_path, name, content, said):
    raw = content if isinstance(content, bytes) else content.encode()
    source = read(tmp_path / name, gzip.compress(raw) if name.endswith("gz") else raw)
    assert source.file.remark() == said
    assert [mode.axis.labels for mode in source.modes] == [("Bonn", "Köln"), ("2020-01-01", "2020-01-02")]
    assert source.value[[0, 2, 3]].tolist() == [1.5, -2.25, 1234.5]
    assert math.isnan(source.value[1])
    out = written(source, tmp_path)
    out = gzip.decompress(out) if name.endswith("gz") else out
    decimal = "," if "commas" in said.partition("decimal")[2] else "."
    new = repr(number(1, 1)).replace(".", decimal)
    codec = source.file.dialect.encoding.codec
    lines, before = out.decode(codec).splitlines(True), raw.decode(codec).splitlines(True)
    assert [line for line in lines if new not in line] == [
        line for line in before if "Köln" not in line or "-02" not in line
    ]
    assert [line for line in lines if new in line] == [
        line.rstrip("\r\n") + new + line[len(line.rstrip("\r\n")) :]
        for line in before
        if "Köln" in line and "-02" in line
    ]


@pytest.mark.parametrize(
    ("values", "decimal", "thousands", "found"),
    [
        (["1.234,56", "2,5", "-3.000"], ",", ".", [1234.56, 2.5, -3000]),
        (["1,234.56", "2.5", "3,000,000"], ".", ",", [1234.56, 2.5, 3e6]),
        (["1 234,5", "2", "7 000 000,25"], ",", " ", [1234.5, 2, 7000000.25]),
        (["1'234.5", "2", "7'000"], ".", "'", [1234.5, 2, 7000]),
        (["1\u202f234,5", "2", "3"], ",", "\u202f", [1234.5, 2, 3]),
        (["0,123", "2,456", "3,789"], ",", "", [0.123, 2.456, 3.789]),
        (["1,5e3", "2", "-,5"], ",", "", [1500, 2, -0.5]),
        (["1.5", "2.25", "1e-3"], ".", "", [1.5, 2.25, 0.001]),
    ],
)
def test_notations_of_numbers(tmp_path, values, decimal, thousands, found):
    rows = [
        f"{city};{item};{value}\n"
        for (city, item), value in zip((("a", "p"), ("a", "q"), ("b", "p")), values, strict=True)
    ]
    source = read(tmp_path / "a.csv", "city;item;value\n" + "".join(rows))
    assert (source.file.dialect.notation.decimal, source.file.dialect.notation.thousands) == (decimal, thousands)
    assert source.value.tolist() == found


def test_numbers_in_quotes_with_thousands(tmp_path):
    source = read(tmp_path / "a.csv", 'x,y,v\na,p,"1,234.5"\na,q,"2,000"\nb,p,\n')
    assert source.value[:2].tolist() == [1234.5, 2000]
    assert written(source, tmp_path).decode() == f'x,y,v\na,p,"1,234.5"\na,q,"2,000"\nb,p,{number(1, 0)}\n'


def test_a_decimal_comma_where_commas_separate_fields(tmp_path):
    source = read(tmp_path / "a.csv", 'x,y,v\na,p,"1,5"\na,q,"2,25"\nb,p,\n')
    assert source.value[:2].tolist() == [1.5, 2.25]
    assert written(source, tmp_path).decode().splitlines()[-1] == f'b,p,"{str(number(1, 0)).replace(".", ",")}"'


def test_spaces(tmp_path):
    source = read(tmp_path / "a.txt", "city  day value\na   1 2.5\nb   1 NA\n")
    assert [mode.axis.name for mode in source.modes] == ["city", "day"]
    assert source.file.remark() == "spaces"
    assert written(source, tmp_path).decode() == f"city  day value\na   1 2.5\nb   1 {number(1, 0)}\n"


# --- what cannot be decided --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x;y;v\na;p;1,234\na;q;5,678\n", "a.csv: 1,234 may be a whole number or a fraction. Say which: --thousands , or --decimal ,."),
        ("x;y;v\na;p;1.234\na;q;950\n", "a.csv: 1.234 may be a whole number or a fraction. Say which: --thousands . or --decimal .."),
        ("x;y;v\na;1,5;1.5\na;2,5;2.5\n", "a.csv: which sign separates decimals (got commas and points). Say which with --decimal , or --decimal . (and --thousands)."),
        ("S,1,2,3\nT,1,3,2\nU,2,2,3\n", "a.csv: does the first row name the columns? (got S, 1, 2, 3). Say so with --header, or --no-header."),
        ("a|b,c|d\ne|f,g|h\n", None),
    ],
)  # fmt: skip
def test_what_cannot_be_decided_is_refused_with_the_option_that_decides(tmp_path, content, message):
    with pytest.raises((ConfigError, DataError)) as error:
        read(tmp_path / "a.csv", content)
    assert message is None or str(error.value) == message


def test_options_decide(tmp_path):
    doubtful = "x;y;v\na;p;1,234\na;q;5,678\n"
    assert read(tmp_path / "a.csv", doubtful, decimal=",").value.tolist() == [1.234, 5.678]
    assert read(tmp_path / "a.csv", doubtful, thousands=",").value.tolist() == [1234, 5678]
    rows = "S,1,2,3\nT,1,3,2\nU,2,2,3\n"
    assert len(read(tmp_path / "a.csv", rows, header=False, wide=True).value) == 9
    assert len(read(tmp_path / "a.csv", rows, header=True).value) == 6
    assert read(tmp_path / "a.csv", "x,y,v\na,b;c,1\n", delimiter=",").modes[1].axis.labels == ("b;c",)
    source = read(tmp_path / "a.csv", "x,y,v\nStra\xdfe,1,5\n".encode("cp850"), encoding="cp850")
    assert source.modes[0].axis.labels == ("Stra\xdfe",)
    assert read(tmp_path / "a.csv", "x~y~v\na~1~5\n", delimiter="~").value.tolist() == [5]
    assert read(tmp_path / "a.csv", "x,y,v\na,1,?\nb,1,5\n", na=["?"]).value[1] == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"delimiter": "ab"}, "delimiter: not a delimiter (got 'ab', allowed one character, or tab, semicolon, space)"),
        ({"decimal": ";"}, "decimal: not a decimal sign (got ';', allowed point or comma)"),
        (
            {"encoding": "klingon"},
            "encoding: not an encoding (got 'klingon', allowed utf-8, utf-16, latin-1, cp1252, ...)",
        ),
        ({"delimiter": ",", "decimal": ","}, "delimiter and decimal are the same sign (got ,)"),
        ({"variables": "a,b", "value": "c"}, "variables, value and wide exclude each other: give one"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        TableConfig.checked(settings)


def test_the_wrong_encoding_is_said(tmp_path):
    with pytest.raises(DataError, match=r"a.csv is not in the encoding utf-8. Name another: --encoding."):
        read(tmp_path / "a.csv", text_of().encode("latin-1"), encoding="utf-8")
    for content in (b"\x89PNG\n\x00\xff\x00\x01", b"city\nBonn\n\x00\xff\x00"):
        with pytest.raises(DataError, match=r"a.csv is not a text file"):
            read(tmp_path / "a.csv", content)


# --- headers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "named", "names"),
    [
        ("x,y,v\na,b,1\n", True, ["x", "y", "v"]),
        ("a,b,1\n", False, ["0", "1", "2"]),
        ("a,b,NA\na,c,1\n", False, ["0", "1", "2"]),
        ("a,b,\na,c,1\n", False, ["0", "1", "2"]),
        ("x,y,v,\na,b,1,\na,c,,\n", True, ["x", "y", "v", ""]),
        ("x,y,v,,\na,b,1,, \n", True, ["x", "y", "v", "", ""]),
        ("x,y,v,\na,b,1,\na,c,,note\n", False, ["0", "1", "2", "3"]),
        ("x,y,v\na,b,1,\na,c,2,\n", True, ["x", "y", "v", ""]),  # a comma ends every line but that of the names
        ("x,y,v\n1,a,b,1\n2,a,c,2\n", True, ["", "x", "y", "v"]),  # row names without a name, as R writes them
        ("station,2016,2017\nS1,3.5,4.5\nS2,5.5,6.5\n", True, ["station", "2016", "2017"]),
        ("city,item,2020\na,p,1.5\na,q,2.5\nb,p,3.5\n", True, ["city", "item", "2020"]),
        ("city,item,7\na,p,1\na,q,9\nb,p,3\n", False, ["0", "1", "2"]),
        ("u1,i5,3\nu2,i7,4\nu2,i1,5\n", False, ["0", "1", "2"]),
        ("0,1,2\n0.5,0.25,1.5\n", True, ["0", "1", "2"]),
        ("1,2,3\n4,5,6\n", False, ["0", "1", "2"]),
    ],
)  # fmt: skip
def test_the_first_row_names_the_columns_or_not(tmp_path, text, named, names):
    from htfcli.files.tables.text import open_text_table

    (tmp_path / "a.csv").write_text(text)
    head = open_text_table([tmp_path / "a.csv"], "a.csv", TableConfig()).head
    assert (head.named, head.names) == (named, names)


# --- fields over several lines ------------------------------------------------------------------------------------------

NOTE = '"seen by A\n#2 repeated\n\n ok"'


def test_notes_of_several_lines_stay_whole(tmp_path):
    """Within quotes, a line that begins with # is no comment and an empty one is not skipped."""
    text = f"# by hand\nx,y,note,v\na,p,{NOTE},\n\n# then\na,q,{NOTE},5\nb,p,plain,\n# end\n"
    source = read(tmp_path / "a.csv", text, index=["x", "y"])
    out = written(source, tmp_path).decode()
    assert out == text.replace(f"a,p,{NOTE},", f"a,p,{NOTE},{number(0, 0)}").replace("plain,", f"plain,{number(1, 0)}")
    rows = list(csv.reader(io.StringIO(out)))
    assert [row[2] for row in rows if row[:1] == ["a"]] == ["seen by A\n#2 repeated\n\n ok"] * 2
    assert [source.file.line_of(row) for row in range(3)] == [6, 12, 13]


def test_quotes_stay_where_they_are(tmp_path):
    text = '"x","y","v"\n"a","p",""\n"a","q","2.50"\nb,"p",3\n'
    source = read(tmp_path / "a.csv", text)
    expected = text.replace('"p",""', f'"p","{number(0, 0)}"') + f"b,q,{number(1, 1)}\n"
    assert written(source, tmp_path, further=True).decode() == expected
    text = text.replace('b,"p",3\n', '"b","p","3"\n')
    assert (
        written(read(tmp_path / "a.csv", text), tmp_path, further=True).decode().endswith(f'"b","q","{number(1, 1)}"\n')
    )


def test_comments_of_tns(tmp_path):
    text = "# c\n1 1 2.5 # good\n\n2 1 nan\n# end\n"
    source = read(tmp_path / "a.tns", text)
    assert written(source, tmp_path).decode() == text.replace("nan", repr(number(1, 0)))


# --- files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_lines_with_and_without_compression(tmp_path, name):
    content = "\ufeffKöln,1\r\nBonn,2".encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    found = scan(tmp_path / name, name).encoding
    assert found == Encoding("utf-8", True)
    with open_text(tmp_path / name, name, found) as lines:
        assert list(lines) == ["Köln,1\r\n", "Bonn,2"]  # without the byte order mark, line ends as they are


def test_a_compressed_line_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "_LONGEST", 100)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"1,2\n" + b"0" * 1000))
    with (
        open_text(tmp_path / "a.csv.gz", "a", Encoding()) as lines,
        pytest.raises(DataError, match=r"^a line 2 is too long \(allowed fewer than 100 characters\)\.$"),
    ):
        list(lines)


def test_several_files_are_one_table(tmp_path):
    (tmp_path / "1.csv").write_text("# first\nx;y;v\na;p;1,5\na;q;\n")
    (tmp_path / "2.csv").write_text("x;y;v\nb;p;2,5\nb;q;")
    paths = [tmp_path / "1.csv", tmp_path / "2.csv"]
    source = read_table(paths, "both")
    assert source.index.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    first, second = (str(number(i, 1)).replace(".", ",") for i in (0, 1))
    assert written(source, tmp_path).decode() == f"# first\nx;y;v\na;p;1,5\na;q;{first}\nb;p;2,5\nb;q;{second}\n"
    assert [source.file.line_of(row) for row in range(4)] == [3, 4, 2, 3]
    (tmp_path / "2.csv").write_text("x;z;v\nb;p;2,5\n")
    with pytest.raises(DataError, match=r"2.csv is no continuation of .*1.csv \(got x, z, v, allowed x, y, v\)"):
        read_table(paths, "both")


def test_the_fast_reader_reads_the_same(tmp_path, monkeypatch):
    """Large plain files are read by pyarrow; here a small one is read both ways."""
    from htfcli.files.tables import text

    lines = [f'"c{i % 7}" , {i % 5:02d},{"NA" if i % 11 == 0 else i / 8}\n' for i in range(300)]
    (tmp_path / "a.csv").write_text("city,day,v\n" + "".join(lines))
    slow = read_table([tmp_path / "a.csv"], "a")
    monkeypatch.setattr(text, "_LARGE", 0)
    monkeypatch.setattr(text.TextFile, "_by_rows", None)
    fast = read_table([tmp_path / "a.csv"], "a")
    assert (slow.index == fast.index).all()
    assert slow.value.tobytes() == fast.value.tobytes()
    assert slow.axes == fast.axes
