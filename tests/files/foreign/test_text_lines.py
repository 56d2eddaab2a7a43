from __future__ import annotations

import gzip

import pytest

from htfcli.errors import DataError
from htfcli.files.foreign import text_lines
from htfcli.files.foreign.text_lines import not_utf8, open_text


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_lines_with_and_without_compression(tmp_path, name):
    content = "\ufeffKöln,1\r\nBonn,2".encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with open_text(tmp_path / name, name) as lines:
        assert list(lines) == ["Köln,1\r\n", "Bonn,2"]  # without the byte order mark, line ends as they are


def test_a_compressed_line_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(text_lines, "_LONGEST", 100)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"1,2\n" + b"0" * 1000))
    with (
        open_text(tmp_path / "a.csv.gz", "a") as lines,
        pytest.raises(DataError, match=r"^a line 2 is too long \(allowed fewer than 100 characters\)\.$"),
    ):
        list(lines)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("city,v\nBonn,1\nKöln,2\n".encode("latin1"), "a line 3 is not UTF-8 text. Convert it, e.g. from Latin-1: iconv -f latin1 -t utf-8."),
        ("city,v\n".encode("utf-16"), "a is UTF-16 text (allowed UTF-8). Convert it: iconv -f utf-16 -t utf-8."),
        (b"\x89PNG\n\x00\xff\x00\x01", "a is not a text file."),
        (b"city\nBonn\n\x00\xff\x00", "a is not a text file."),
    ],
)  # fmt: skip
def test_other_encodings(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert str(not_utf8(tmp_path / name, "a")) == message
