"""Settings of the command `htf complete` beside those of the completion itself: how data are read and written."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PlainValidator

from htfcli.config.base import not_allowed
from htfcli.config.completion import CompleteConfig
from htfcli.config.tables import Column, TableConfig

MOST_IMPUTATIONS = 1000  # a file each: more is a slip of the keyboard


def _names(value: object) -> list[str]:
    names = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    found = [str(name).strip() for name in names]
    if found and all(found):
        return found
    raise not_allowed("names of modes", "one or more names, as year,hour")


Modes = Annotated[list[str], PlainValidator(_names)]


class CompletionRunConfig(TableConfig, CompleteConfig):
    """Settings of `htf complete`: which columns are read, what counts as missing, what is written."""

    std: Column | None = Field(
        None,
        description="Column of known measurement errors (standard deviations), used as weights; for a dense tensor a "
        ".npy file of its shape.",
    )
    ordered: Modes | None = Field(
        None,
        description="Modes whose neighbouring indices are alike, e.g. year,hour. Default: numbers and dates, if "
        "held-out entries agree. Text labels are ordered by first appearance.",
    )
    mask: str | None = Field(None, description="Boolean .npy file of the observed entries of a dense tensor.")
    smooth: bool = Field(False, description="Replace observed entries by predictions too.")
    all: bool = Field(False, description="Write all combinations that a table lacks, however many.")
    interval: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Add prediction intervals of this coverage, e.g. 0.9: columns lower and upper; for .tns and dense "
        "tensors the files FILE.lower and FILE.upper (out.lower.npy).",
    )
    imputations: int | None = Field(
        None,
        ge=1,
        le=MOST_IMPUTATIONS,
        description="Also write this many completed data sets drawn from the predictive distribution, for Rubin's "
        "rules: FILE.1, FILE.2, ... (out.1.csv).",
    )
