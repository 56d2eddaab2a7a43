"""What the command `htf complete` can be told beside how a tensor is completed: how data are read and written."""

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
        "not_allowed", "not columns", {"what": "columns", "allowed": "two names or more, as ligand,dose,cell"}
    )


Column = Annotated[str, BeforeValidator(str)]  # YAML has a number where a table without header has column 3
Columns = Annotated[list[str], PlainValidator(_columns)]


class CompletionRunConfig(CompleteConfig):
    """`htf complete`: what is read as an index, a value and a hole, and what is written."""

    value: Column | None = Field(None, description="Column of a table that holds the values (the last one).")
    index: Columns | None = Field(None, description="Columns of a table that are the modes, a,b,c (all others).")
    missing_value: float | None = Field(None, description="A number that means missing, as NaN does, e.g. -999.")
    mask: str | None = Field(None, description="Boolean .npy file that says which entries of a tensor are observed.")
    duplicates: Literal["refuse", "mean"] = Field(
        "refuse", description="Rows of a table that disagree about an entry (those that agree are one)."
    )
    smooth: bool = Field(False, description="Replace observed entries by the model too.")
    all: bool = Field(False, description="Write every combination that a table lacks, however many.")

    @model_validator(mode="after")
    def _columns_differ(self) -> Self:
        names = [*(self.index or []), *([] if self.value is None else [self.value])]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"a column can be one mode, or the value (got {', '.join(twice)} twice)")
        return self
