"""Settings of the command `htf complete` beside those of the completion itself: how data are read and written."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, PlainValidator, model_validator
from pydantic_core import PydanticCustomError

from htfcli.config.completion import CompleteConfig


def _columns(value: object) -> list[str]:
    names = value.split(",") if isinstance(value, str) else value
    if isinstance(names, list) and len(names) > 1:
        return [str(name).strip() for name in names]
    raise PydanticCustomError(
        "not_allowed", "not columns", {"what": "columns", "allowed": "two or more names, as ligand,dose,cell"}
    )


Column = Annotated[str, BeforeValidator(str)]  # YAML has a number where a table without header has column 3
Columns = Annotated[list[str], PlainValidator(_columns)]


class CompletionRunConfig(CompleteConfig):
    """Settings of `htf complete`, with those of reading the data and writing the result."""

    value: Column | None = Field(
        None, description="Column of a table that contains the values (default: the last one)."
    )
    index: Columns | None = Field(
        None, description="Columns of a table that are modes, as a,b,c (default: all others)."
    )
    missing_value: float | None = Field(None, description="Treat this number as missing, e.g. -999.")
    mask: str | None = Field(
        None, description="Boolean .npy file of the tensor's shape, True where an entry is observed."
    )
    duplicates: Literal["refuse", "mean"] = Field(
        "refuse", description="Refuse rows of a table that disagree about an entry, or take their mean."
    )
    smooth: bool = Field(False, description="Replace observed entries by predictions too.")
    all: bool = Field(False, description="Add a row for every combination missing from a table, however many.")

    @model_validator(mode="after")
    def _columns_differ(self) -> Self:
        names = [*(self.index or []), *([] if self.value is None else [self.value])]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"a column can be one mode or the value (got {', '.join(twice)} twice)")
        return self
