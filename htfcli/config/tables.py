"""Settings of all commands that read tables: how these are written, and which columns are modes and values."""

from __future__ import annotations

import codecs
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, model_validator

from htfcli.config.base import Config, not_allowed

_NAMED = {
    "tab": "\t",
    "\\t": "\t",
    "comma": ",",
    "semicolon": ";",
    "space": " ",
    "spaces": " ",
    "point": ".",
    "pipe": "|",
}


def _columns(value: object) -> list[str]:
    names = value.split(",") if isinstance(value, str) else value
    if isinstance(names, list) and names:
        return [str(name).strip() for name in names]
    raise not_allowed("columns", "names, as ligand,dose,cell")


def _several(value: object) -> list[str]:
    names = _columns(value)
    if len(names) > 1:
        return names
    raise not_allowed("columns", "two or more names, as gdp,pop")


def _texts(value: object) -> list[str]:
    if isinstance(value, list):
        return [str(text) for text in value]
    return [str(value)]


def _sign(what: str, allowed: str) -> PlainValidator:
    def check(value: object) -> str:
        text = str(value)
        text = _NAMED.get(text.lower(), text)
        if len(text) == 1:
            return text
        raise not_allowed(what, allowed)

    return PlainValidator(check)


def _decimal(value: object) -> str:
    text = _NAMED.get(str(value).lower(), str(value))
    if text in (".", ","):
        return text
    raise not_allowed("a decimal sign", "point or comma")


def _codec(name: str) -> str:
    try:
        codecs.lookup(name)
    except LookupError:
        raise not_allowed("an encoding", "utf-8, utf-16, latin-1, cp1252, ...") from None
    return name


Column = Annotated[str, BeforeValidator(str)]  # YAML has a number where a table without header has column 3
Columns = Annotated[list[str], PlainValidator(_columns)]
SeveralColumns = Annotated[list[str], PlainValidator(_several)]


class TableConfig(Config):
    """How a table is read; what is not set is found from the table itself."""

    value: Column | None = Field(None, description="Column of values. Default: the last one.")
    index: Columns | None = Field(None, description="Columns that are modes, e.g. a,b,c. Default: all others.")
    variables: SeveralColumns | None = Field(
        None, description="Columns that are values of several variables, e.g. gdp,pop; their names become a mode."
    )
    wide: bool | None = Field(
        None,
        description="Read a table as one column per index (years, items), or as one row per entry. Default: detected.",
    )
    delimiter: Annotated[str, _sign("a delimiter", "one character, or tab, semicolon, space")] | None = Field(
        None, description="Sign between fields: one character, or tab, semicolon, space. Default: detected."
    )
    decimal: Annotated[str, PlainValidator(_decimal)] | None = Field(
        None, description="Sign before decimals: point or comma. Default: detected."
    )
    thousands: Annotated[str, _sign("a sign between thousands", "one character")] | None = Field(
        None, description="Sign between thousands, e.g. comma. Default: detected."
    )
    encoding: Annotated[str, AfterValidator(_codec)] | None = Field(
        None, description="Encoding of text, e.g. latin-1. Default: UTF-8 or UTF-16, else Latin-1."
    )
    header: bool | None = Field(None, description="The first row names the columns, or not. Default: detected.")
    sheet: Annotated[str, BeforeValidator(str)] | None = Field(
        None, description="Sheet of an .xlsx file. Default: the first one with a table."
    )
    na: Annotated[list[str], PlainValidator(_texts)] | None = Field(
        None, description="Also read this text as a missing value (repeatable)."
    )
    missing_value: float | None = Field(None, description="Treat this number as missing, like NaN, e.g. -999.")
    duplicates: Literal["refuse", "mean"] = Field(
        "refuse", description="Refuse rows that disagree about an entry, or take their mean."
    )
    absent_is_zero: bool = Field(False, description="Combinations without a row are zero. Default: unknown.")

    @model_validator(mode="after")
    def _columns_differ(self) -> Self:
        named = [name for name in (self.value, getattr(self, "std", None)) if name is not None]
        names = [*(self.index or []), *named, *(self.variables or [])]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"a column can be one mode, the value or its error (got {', '.join(twice)} twice)")
        if self.variables is not None and (self.value is not None or self.wide):
            raise ValueError("variables, value and wide exclude each other: give one")
        if self.wide and self.value is not None:
            raise ValueError(
                f"value: a wide table has many columns of values (got {self.value}); --index names the others"
            )
        if self.delimiter is not None and self.delimiter == self.decimal:
            raise ValueError(f"delimiter and decimal are the same sign (got {self.decimal})")
        if self.thousands is not None and self.thousands == (self.decimal or "."):
            raise ValueError(f"thousands and decimal are the same sign (got {self.thousands})")
        return self
