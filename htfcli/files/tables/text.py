"""Tables in text files of any dialect: .csv, .tsv, .txt, .tns and these compressed by gzip.

A line that begins with `#` is a comment. Large plain files are read by pyarrow, all others row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from htfcli.config.tables import TableConfig
from htfcli.errors import DataError
from htfcli.files.tables.dialect import Dialect, find_delimiter, find_notation, is_no_row, records
from htfcli.files.tables.encoding import Scan, open_text, readable, scan
from htfcli.files.tables.header import find_head
from htfcli.files.tables.numbers import MISSING, Floats, NotANumberError, Notation
from htfcli.files.tables.table_file import SAMPLE, Filled, format_of
from htfcli.files.tables.text_output import write_text_table
from htfcli.files.tables.text_rows import TextSource, raw_rows

if TYPE_CHECKING:
    import pandas as pd

# what separates fields; spaces for None. A .csv file may as well have semicolons: this is what is not worth a remark
USUAL = {".csv": ",", ".csv.gz": ",", ".tsv": "\t", ".tsv.gz": "\t", ".txt": "\t", ".txt.gz": "\t"}
FIXED: dict[str, str | None] = {".tns": None, ".tns.gz": None}
_PARSED = 2**12  # rows parsed at a time: few enough not to start the garbage collector
_ARROW_BLOCK = 2**22  # bytes that pyarrow parses at a time: a tenth faster than its own 2**20
_LARGE = 2**20  # bytes from which on pyarrow is worth its start


@dataclass(frozen=True)
class TextFile(TextSource):
    """A text file of rows, or several that continue each other.

    Args:
        first: fields of the first rows.
    """

    first: list[list[str]]

    def remark(self) -> str:
        usual = FIXED.get(self.suffix, USUAL.get(self.suffix, ","))
        return self.dialect.words(usual)

    def sample(self) -> pd.DataFrame:
        import pandas as pd

        rows = [row for row in self.first[int(self.head.named) :] if len(row) == len(self.head.names)]
        columns: dict[int, Any] = {}
        for at in range(len(self.head.names)):
            fields = [row[at] for row in rows]
            try:
                columns[at] = self.dialect.notation.values(fields)
            except NotANumberError:
                columns[at] = pd.Series([field or None for field in fields], dtype=object)
        return pd.DataFrame(columns)

    def read(self, labels: Sequence[int], numbers: Sequence[int]) -> pd.DataFrame:
        import pandas as pd

        columns: dict[int, list[Any]] = {at: [] for at in (*labels, *numbers)}
        before = 0
        for path, scanned in zip(self.paths, self.scans, strict=True):
            part = self._by_arrow(path, scanned, labels, numbers)
            part = part or self._by_rows(path, scanned, labels, numbers, before)
            before += len(next(iter(part.values())))
            for at, column in part.items():
                columns[at].append(column)
        if before == 0:
            raise DataError(f"{self.name} has no entries")
        found: dict[int, Any] = {}
        for at, parts in columns.items():
            if len(parts) == 1:
                found[at] = parts[0]
            else:
                found[at] = np.concatenate(parts) if at in numbers else pd.api.types.union_categoricals(parts)
            parts.clear()
        return pd.DataFrame(found, copy=False)

    def _by_arrow(
        self, path: Path, scanned: Scan, labels: Sequence[int], numbers: Sequence[int]
    ) -> dict[int, Any] | None:
        """Columns read by pyarrow; None for files that are small or not plain, or that it does not understand."""
        notation, delimiter = self.dialect.notation, self.dialect.delimiter
        plain = delimiter is not None and not scanned.comments and not notation.thousands
        if not plain or scanned.encoding.codec != "utf-8" or path.stat().st_size < _LARGE:
            return None
        import pyarrow as pa

        table = self._arrow_table(path, scanned, labels, numbers)
        if table is None:
            return None
        found: dict[int, Any] = {}
        for at in numbers:
            values = table.column(str(at)).to_numpy()
            if np.isinf(values).any():
                return None
            found[at] = values
        for at in labels:
            column = table.column(str(at)).unify_dictionaries().combine_chunks()
            if isinstance(column, pa.ChunkedArray):
                column = column.chunk(0)
            found[at] = categories(column.dictionary.to_pylist(), column.indices.to_numpy(), notation)
            table = table.drop_columns([str(at)])
        return found

    def _arrow_table(self, path: Path, scanned: Scan, labels: Sequence[int], numbers: Sequence[int]) -> Any:
        import pyarrow as pa
        from pyarrow import csv as arrow_csv

        names = [str(at) for at in range(len(self.head.names))]
        kinds = {str(at): pa.dictionary(pa.int32(), pa.string()) for at in labels}
        kinds |= {str(at): pa.float64() for at in numbers}
        missing = MISSING | self.dialect.notation.missing
        # every spelling that is looked for takes time; the first rows have those that matter, nearly always
        cells = (row[at] for row in self.first for at in numbers if at < len(row))
        usual = {"", *(cell for cell in cells if cell.strip().lower() in missing)}
        every = {kind(text) for text in missing for kind in (str, str.upper, str.title)} | {"NaN", "-NaN"}
        for spelled in (usual, every):
            try:
                return arrow_csv.read_csv(
                    path if path.suffix.lower() != ".gz" else pa.input_stream(path, compression="gzip"),
                    read_options=arrow_csv.ReadOptions(
                        column_names=names,
                        skip_rows=scanned.skipped,
                        skip_rows_after_names=int(self.head.named),
                        block_size=_ARROW_BLOCK,
                    ),
                    parse_options=arrow_csv.ParseOptions(
                        delimiter=self.dialect.delimiter, newlines_in_values=scanned.quotes
                    ),
                    convert_options=arrow_csv.ConvertOptions(
                        column_types=kinds,
                        include_columns=list(kinds),
                        null_values=sorted(spelled),
                        strings_can_be_null=False,
                        quoted_strings_can_be_null=True,
                        decimal_point=self.dialect.notation.decimal,
                    ),
                )
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError):
                continue
        return None  # the other reader says what is wrong, and where

    def _by_rows(
        self, path: Path, scanned: Scan, labels: Sequence[int], numbers: Sequence[int], before: int
    ) -> dict[int, Any]:
        codes = {at: _Codes() for at in labels}
        parts: dict[int, list[Any]] = {at: [] for at in (*labels, *numbers)}
        width, start = len(self.head.names), 0
        with open_text(path, self.name, scanned.encoding) as file:
            rows = islice(records(file, self.dialect.delimiter), int(self.head.named), None)
            while block := list(islice(rows, _PARSED)):
                if set(map(len, block)) != {width}:
                    wrong = next(row for row, fields in enumerate(block) if len(fields) != width)
                    where, got = self._where(before + start + wrong), len(block[wrong])
                    raise DataError(f"{where} has the wrong number of columns", got=got, allowed=width)
                columns = list(zip(*block, strict=True))
                for at in labels:
                    parts[at].append(np.fromiter(map(codes[at].__getitem__, columns[at]), np.int32, len(block)))
                for at in numbers:
                    parts[at].append(self._numbers(columns[at], at, before + start))
                start += len(block)
        if start == 0:
            return {at: np.empty(0) for at in (*labels, *numbers)}
        found = {at: np.concatenate(column) for at, column in parts.items()}
        notation = self.dialect.notation
        return found | {at: categories(list(codes[at]), found[at], notation) for at in labels}

    def _numbers(self, fields: Sequence[str], at: int, row: int) -> Floats:
        try:
            return self.dialect.notation.values(fields)
        except NotANumberError as error:
            problem = error.problem
            raise DataError(f"{self._where(row + error.row)} {problem}", next_step=self._advice(at, problem)) from None

    def _advice(self, at: int, problem: str) -> str:
        if not self.head.named or "finite" in problem:
            return ""
        return f"Is the value in another column than {self.head.names[at]}? --value. Does that mean missing? --na."

    def _where(self, row: int) -> str:
        return f"{self.name} line {self.line_of(row)}"

    def line_of(self, row: int) -> int:
        for path, scanned in zip(self.paths, self.scans, strict=True):
            with open_text(path, self.name, scanned.encoding) as file:
                rows = raw_rows(file, self.dialect.delimiter, scanned.quotes)
                for raw in islice((raw for raw in rows if raw.text), int(self.head.named), None):
                    if row == 0:
                        return raw.line
                    row -= 1
        raise IndexError(row)

    def write(self, destination: str, new: Filled) -> None:
        write_text_table(self, destination, new)


class _Codes(dict[str, int]):
    """Numbers of texts, in the order in which they appear."""

    def __missing__(self, text: str) -> int:
        self[text] = code = len(self)
        return code


def open_text_table(paths: Sequence[Path], name: str, config: TableConfig) -> TextFile:
    """Open a text table, whose dialect is found from its first rows where the configuration does not say it.

    Raises:
        DataError: if it has no rows or is not text. ConfigError: if something cannot be decided.
    """
    suffix = format_of(paths[0])
    with readable(name):
        scans = tuple(scan(path, name, config.encoding) for path in paths)
    lines, whole = _first_lines(paths[0], name, scans[0])
    usual = FIXED[suffix] if suffix in FIXED else USUAL.get(suffix, ",")
    if config.delimiter is not None:
        delimiter = None if config.delimiter == " " else config.delimiter
    elif suffix in FIXED:
        delimiter = usual
    else:
        delimiter = find_delimiter(lines, name, usual)
    with readable(name):
        rows = list(records(iter(lines), delimiter))
    if not whole and len(rows) > 1:
        rows.pop()  # it may go on
    if not rows:
        raise DataError(f"{name} has no entries")
    known = Notation(
        config.decimal or ".", config.thousands or "", frozenset(t.strip().lower() for t in config.na or ())
    )
    notation = known
    if suffix not in FIXED and not (config.decimal and config.thousands):
        notation = find_notation(rows, name, delimiter, known, config.decimal is not None)
    head = find_head(rows, name, notation, False if suffix in FIXED and config.header is None else config.header)
    dialect = Dialect(scans[0].encoding, delimiter, notation)
    for path, scanned in zip(paths[1:], scans[1:], strict=True):
        with readable(name):
            others = next(records(iter(_first_lines(path, name, scanned)[0]), delimiter), [])
        if len(others) != len(rows[0]) or (head.named and others != rows[0]):
            raise DataError(
                f"{path} is no continuation of {paths[0]}", got=", ".join(others), allowed=", ".join(rows[0])
            )
    return TextFile(tuple(paths), name, scans, dialect, head, rows)


def _first_lines(path: Path, name: str, scanned: Scan) -> tuple[list[str], bool]:
    """Lines from which the dialect is found, and whether these are all."""
    with open_text(path, name, scanned.encoding) as file:
        lines, count = [], 0
        for line in file:
            lines.append(line)
            count += not is_no_row(line)
            if count > SAMPLE:
                return lines, False
        return lines, True


def categories(texts: Sequence[str], codes: Any, notation: Notation) -> Any:
    """A pandas categorical of labels: spaces around them are ignored, numbers are in Python's notation."""
    import pandas as pd

    labels = [text.strip() for text in texts]
    if not notation.plain:
        numbers = [notation.standard(label) for label in labels]
        if all(notation.number(label) is not None or notation.is_missing(label) for label in labels):
            labels = numbers
    places: dict[str, int] = {}
    moved = [places.setdefault(label, len(places)) for label in labels]
    if len(places) < len(labels):
        codes = np.array(moved, dtype=np.int32)[codes]
    return pd.Categorical.from_codes(codes, categories=pd.Index(list(places), dtype=object))
