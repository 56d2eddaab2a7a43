"""Tables in .parquet and .feather files, and folders of the former. Types, metadata and all other columns are kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from htfcli.errors import DataError
from htfcli.files.foreign.column_layout import Head
from htfcli.files.foreign.number_types import clipped
from htfcli.files.foreign.readers import missing_library, parsing, refuse_rows
from htfcli.files.own.container import binary_destination
from htfcli.files.tables.numbers import Floats
from htfcli.files.tables.table_file import BLOCK, SAMPLE, Booleans, Filled, format_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ArrowFile:
    """A table of typed columns.

    Args:
        path: the file, or the first of several. name: in messages. table: of pyarrow. head: its columns: levels of a
            pandas index first, row numbers that pandas saved as padding at the end. places: where they are in `table`.
    """

    path: Path
    name: str
    table: Any
    head: Head
    places: tuple[int, ...]

    @property
    def suffix(self) -> str:
        return format_of(self.path)

    def remark(self) -> str:
        return ""

    def sample(self) -> pd.DataFrame:
        import pandas as pd
        import pyarrow as pa

        found: dict[int, Any] = {}
        with parsing(self.name, f"{self.suffix} file"):
            for at, place in enumerate(self.places):
                column = self.table.column(place)[:SAMPLE]
                if _is_number(column.type) and not pa.types.is_boolean(column.type):
                    found[at] = _floats(column)
                else:
                    texts = [None if cell is None else str(cell) for cell in column.to_pylist()]
                    found[at] = pd.Series(texts, dtype=object)
        return pd.DataFrame(found)

    def read(self, labels: Sequence[int], numbers: Sequence[int]) -> pd.DataFrame:
        import pandas as pd

        found: dict[int, Any] = {}
        with parsing(self.name, f"{self.suffix} file"):
            for at in labels:
                found[at] = self.table.column(self.places[at]).to_pandas()
            for at in numbers:
                column = self.table.column(self.places[at])
                if not _is_number(column.type):
                    what = f"{self.name}: column {self.head.names[at]} does not hold numbers"
                    advice = "Is the value in another column? --value."
                    raise DataError(what, got=str(column.type), allowed="integers or floats", next_step=advice)
                found[at] = _floats(column)
                infinite = np.flatnonzero(np.isinf(found[at]))
                if len(infinite):
                    where = f"{self.name} line {int(infinite[0]) + 1}"
                    raise DataError(f"{where} has no finite value", got=float(found[at][infinite[0]]))
        if self.table.num_rows == 0:
            raise DataError(f"{self.name} has no entries")
        return pd.DataFrame(found)

    def line_of(self, row: int) -> int:
        return row + 1

    def write(self, destination: str, new: Filled) -> None:
        with binary_destination(destination) as path:
            table = self.filled(new)
            if self.suffix == ".feather":
                from pyarrow import feather

                feather.write_feather(table, path)
            else:
                import pyarrow.parquet as pq

                with pq.ParquetWriter(path, table.schema) as writer:
                    writer.write_table(table)
                    for more in self._added(table.schema, new):
                        writer.write_table(more)
                return

    def filled(self, new: Filled) -> Any:
        """The table with its cells filled in; of a .feather file, with the rows that are added."""
        import pyarrow as pa

        rows = self.table.num_rows
        blocks = [new.fill(start, start + BLOCK) for start in range(0, rows, BLOCK)]
        replaced, values, beside = (
            np.concatenate([getattr(block, part) for block in blocks]) for part in ("replaced", "values", "beside")
        )
        table = self.table
        for number, at in enumerate(new.values_at):
            place, own = self.places[at], self.table.column(self.places[at])
            column = _filled(own, replaced[:, number], values[:, number], new.own_type)
            table = table.set_column(place, table.schema.field(place).with_type(column.type), column)
        if not new.values_at:
            table = table.append_column(new.value_name, pa.array(values[:, 0]))
        for number, name in enumerate(new.beside):
            table = table.append_column(name, pa.array(beside[:, number], from_pandas=True))
        if self.suffix == ".feather":
            return pa.concat_tables([table, *self._added(table.schema, new)])
        return table

    def _added(self, schema: Any, new: Filled) -> Iterator[Any]:
        import pyarrow as pa

        last = {place: self._last(place) for place in self.places[len(self.head.used) :]}
        for block in new.added:
            count = len(block.values)
            columns = [pa.nulls(count, field.type) for field in schema]
            for place, number in last.items():  # of rows, which pandas saved as its index
                columns[place] = pa.array(range(number + 1, number + 1 + count)).cast(schema.field(place).type)
                last[place] = number + count
            for number, at in enumerate(new.labels_at):
                place = self.places[at]
                taken = self.table.column(place).take(pa.array(new.like[number][block.index[:, number]]))
                columns[place] = taken
            places = [self.places[at] for at in new.values_at] or [len(self.places)]
            for number, place in enumerate(places):
                blank = pa.nulls(count, schema.field(place).type)
                columns[place] = _filled(blank, np.ones(count, dtype=bool), block.values[:, number], True)
            for number in range(len(new.beside)):
                at = len(columns) - len(new.beside) + number
                columns[at] = pa.array(block.beside[:, number], from_pandas=True)
            yield pa.table(columns, schema=schema)

    def _last(self, place: int) -> int:
        import pyarrow.compute as pc

        return int(pc.max(self.table.column(place)).as_py())


def open_arrow_table(paths: Sequence[Path], name: str) -> ArrowFile:
    """Open a .parquet or .feather file, or several .parquet files that continue each other.

    Raises:
        DataError: if it cannot be read.
    """
    suffix = format_of(paths[0])
    try:
        import pyarrow as pa
    except ImportError:
        raise missing_library(suffix, "pyarrow") from None
    with parsing(name, f"{suffix} file"):
        if suffix == ".feather":
            from pyarrow import feather

            table = pa.concat_tables([feather.read_table(path) for path in paths])
        else:
            import pyarrow.parquet as pq

            for path in paths:
                refuse_rows(path, name)
            folder = _partitioned(paths[0]) if len(paths) > 1 else None
            table = _joined(paths) if folder is None else pq.read_table(folder)
    head, places = _head(table)
    if len(set(head.names)) < len(head.names):
        twice = next(one for one in head.names if head.names.count(one) > 1)
        raise DataError(f"{name} has two columns of the same name", got=twice)
    return ArrowFile(paths[0], name, table, head, places)


def _partitioned(path: Path) -> Path | None:
    """The folder above partitions named as year=2020, which are a column; None if there are none."""
    folder = path.parent
    if "=" not in folder.name:
        return None
    while "=" in folder.name:
        folder = folder.parent
    return folder


def _joined(paths: Sequence[Path]) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for path in paths:
        with pq.ParquetFile(path) as file:
            tables.append(file.read())
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables)


def _head(table: Any) -> tuple[Head, tuple[int, ...]]:
    """The columns of a table in the order in which they are understood, and their places in it."""
    import pyarrow as pa

    names = list(table.column_names)
    saved = [one for one in (table.schema.pandas_metadata or {}).get("index_columns", []) if isinstance(one, str)]
    levels = [names.index(one) for one in saved if one in names]
    unnamed = [at for at in levels if names[at].startswith("__index_level_")]
    padding = [at for at in unnamed if pa.types.is_integer(table.schema.field(at).type)]
    first = [at for at in levels if at not in padding]
    places = [*first, *(at for at in range(len(names)) if at not in levels), *padding]
    return Head([names[at] for at in places], True, len(padding)), tuple(places)


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_boolean(kind))


def _floats(column: Any) -> Floats:
    """A column of numbers as float64, NaN for nulls."""
    import pyarrow as pa

    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if pa.types.is_float16(column.type):
        column = column.cast(pa.float32())
    found = column.cast(pa.float64(), safe=False).to_numpy()
    return np.array(found, dtype=np.float64)


def _filled(column: Any, replaced: Booleans, values: Floats, own_type: bool) -> Any:
    """A column with predictions in some of its cells, in its own type or as float64."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if not own_type:
        column, kind = column.cast(pa.float64(), safe=False), pa.float64()
    if not replaced.any():
        return column
    if pa.types.is_decimal(kind):
        new = _decimals(values, replaced, kind)
    else:
        new = pa.array(clipped(np.where(replaced, values, 0.0), np.dtype(kind.to_pandas_dtype())), kind)
    return pc.if_else(pa.array(replaced), new, column)


def _decimals(values: Floats, replaced: Booleans, kind: Any) -> Any:
    """Predictions with the digits of a decimal type, held inside it."""
    import pyarrow as pa

    step = Decimal(1).scaleb(-kind.scale)
    with localcontext() as context:
        context.prec = 80  # digits: more than the largest decimal type has
        most = Decimal(10) ** (kind.precision - kind.scale) - step
        numbers = [
            min(max(Decimal(repr(float(value))), -most), most).quantize(step, ROUND_HALF_EVEN) if wanted else None
            for value, wanted in zip(values, replaced, strict=True)
        ]
    return pa.array(numbers, kind)
