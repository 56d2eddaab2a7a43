"""Tables in .parquet files, read and rewritten in batches; the methods are those of `TextTable`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from htfcli.errors import DataError
from htfcli.files.foreign.readers import missing_library, parsing, refuse_rows
from htfcli.files.foreign.text_table import BLOCK, Filled, Floats, Head
from htfcli.files.own.container import binary_destination


@dataclass(frozen=True)
class ParquetTable:
    """A .parquet file of rows; labels of any type are converted to text.

    Args:
        path: the file. name: its name in messages.
    """

    path: Path
    name: str

    def head(self) -> Head:
        with self._opened() as file:
            return Head(list(file.schema_arrow.names), named=True)

    def blocks(
        self, head: Head, index_at: list[int], value_at: int | None
    ) -> Iterator[tuple[list[tuple[str, ...]], Floats]]:
        with self._opened() as file:
            row = 0
            for batch in file.iter_batches(BLOCK):
                labels = [_texts(batch.column(at)) for at in index_at]
                values = np.full(len(batch), math.nan) if value_at is None else self._values(batch, head, value_at)
                infinite = np.flatnonzero(np.isinf(values))
                if len(infinite):
                    where = f"{self.name} line {row + int(infinite[0]) + 1}"
                    raise DataError(f"{where} has no finite value", got=float(values[infinite[0]]))
                row += len(batch)
                yield labels, values

    def _values(self, batch: Any, head: Head, value_at: int) -> Floats:
        import pyarrow as pa

        column = batch.column(value_at)
        kind = column.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
            what = f"{self.name}: column {head.names[value_at]} does not hold numbers"
            raise DataError(what, got=str(kind), allowed="integers or floats")
        values: Floats = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).copy()  # nulls are NaN
        return values

    def line_of(self, head: Head, row: int) -> int:
        return row + 1

    def write(self, destination: str, new: Filled) -> None:
        head, value_at = new.head, new.value_at
        import pyarrow as pa
        import pyarrow.parquet as pq

        with self._opened() as file, binary_destination(destination) as path:
            value = pa.field(new.value_name, pa.float64())
            place = len(head.names) if value_at is None else value_at
            fields = list(file.schema_arrow)
            fields[place : place + 1] = [value]
            fields += [pa.field(name, pa.float64()) for name in new.beside]
            schema = pa.schema(fields)
            with pq.ParquetWriter(path, schema) as writer:
                start = 0
                for batch in file.iter_batches(BLOCK):
                    replace, values, beside = new.fill(start, start + len(batch))
                    start += len(batch)
                    columns = list(batch.columns)
                    filled = np.asarray(values)
                    if value_at is not None:
                        filled = np.where(replace, filled, self._values(batch, head, value_at))
                    columns[place : place + 1] = [pa.array(filled)]
                    columns += [pa.array(numbers, pa.float64(), from_pandas=True) for numbers in beside]
                    writer.write_batch(pa.record_batch(columns, schema=schema))
                for labels, values, beside in new.further:
                    columns = [pa.nulls(len(values), field.type) for field in schema]
                    for at, column in zip(new.index_at, labels, strict=True):
                        columns[at] = pa.array(column).cast(schema.field(at).type)
                    columns[place] = pa.array(values, pa.float64())
                    columns[len(columns) - len(beside) :] = [pa.array(numbers, pa.float64()) for numbers in beside]
                    writer.write_batch(pa.record_batch(columns, schema=schema))

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """Open the file; errors of reading it become DataErrors."""
        try:
            import pyarrow.parquet as pq
        except ImportError:
            raise missing_library(".parquet", "pyarrow") from None
        with parsing(self.name, ".parquet file"), pq.ParquetFile(self.path) as file:
            refuse_rows(self.path, self.name)
            yield file


def _texts(column: Any) -> tuple[str, ...]:
    """A column as text, empty for nulls."""
    encoded = column.dictionary_encode()
    texts = ["" if label is None else str(label) for label in encoded.dictionary.to_pylist()]
    return tuple("" if code is None else texts[code] for code in encoded.indices.to_pylist())
