"""Plans of `htf sweep`: a command, settings that all runs share, and settings that vary between runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from htfcli.config.base import Config, Seed, parse_assignments
from htfcli.config.completion_run import CompletionRunConfig
from htfcli.config.recovery import RecoveryConfig
from htfcli.config.tensors import FitRunConfig
from htfcli.config.vision import TrainCnnConfig

COMMANDS: dict[str, type[Config]] = {
    "fit": FitRunConfig,
    "complete": CompletionRunConfig,
    "train-cnn": TrainCnnConfig,
    "measure-recovery": RecoveryConfig,
}
# what these commands generate themselves, and the setting that says which
_WITHOUT_DATA = {"train-cnn": ("images", "task"), "measure-recovery": ("tensors", "target")}
_MOST_SEEDS = 100_000
TARGET = "generate."  # prefix of settings of the generated data in grid and zip


def _seeds(value: object) -> object:
    """A number of seeds stands for the seeds from 0 on."""
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if value > _MOST_SEEDS:
        raise ValueError(f"at most {_MOST_SEEDS:,} seeds")
    return list(range(value))


def _keys(value: object) -> object:
    """Keys of settings with underscores for the dashes of the command line."""
    return {str(k).replace("-", "_"): v for k, v in value.items()} if isinstance(value, dict) else value


Settings = Annotated[dict[str, Any], BeforeValidator(_keys)]
Lists = Annotated[dict[str, list[Any]], BeforeValidator(_keys)]


class PlanConfig(Config):
    """A grid of runs: every combination of the lists of `grid`, each with every row of `zip` and every seed.

    Keys of `grid` and `zip` are settings of the command or, as `generate.width`, of the generated data. The value null
    leaves a setting at its default.
    """

    command: Literal["fit", "complete", "train-cnn", "measure-recovery"] = Field(
        "fit", description="Command of each run."
    )
    data: str | None = Field(None, description="Data file of all runs.")
    generate: Settings | None = Field(
        None, description="Settings of `htf generate tensor`, for data generated with the seed of each run."
    )
    base: Settings = Field({}, description="Settings that all runs share.")
    grid: Lists = Field({}, description="Lists of values; every combination is run.")
    zip: Lists = Field({}, description="Lists of equal length; their values are combined row by row.")
    seeds: Annotated[list[Seed], BeforeValidator(_seeds)] = Field(
        [0], description="Seeds, or their number, counted from 0."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = [*self._data_problems(), *self._list_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _data_problems(self) -> list[str]:
        problems = []
        if self.data is not None and self.generate is not None:
            problems.append("data and generate exclude each other: give one of them")
        if self.command in _WITHOUT_DATA:
            if self.generate is not None:
                own, key = _WITHOUT_DATA[self.command]
                problems.append(f"generate is not for {self.command}, which generates its own {own}: set {key} in base")
        elif self.data is None and self.generate is None:
            problems.append("no data: give data (a file) or generate (settings of htf generate tensor)")
        varied = [key for key in (*self.grid, *self.zip) if key.startswith(TARGET)]
        if varied and self.generate is None:
            problems.append(f"{varied[0]} needs generated data: give generate")
        return problems

    def _list_problems(self) -> list[str]:
        problems = []
        for where, lists in (("grid", self.grid), ("zip", self.zip)):
            problems += [f"{where}.{key} is empty" for key, values in lists.items() if not values]
        if not self.seeds:
            problems.append("seeds is empty")
        lengths = {key: len(values) for key, values in self.zip.items()}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{key} {length}" for key, length in lengths.items())
            problems.append(f"the lists of zip must have the same length (got {shown})")
        fixed = {*self.base, *(f"{TARGET}{key}" for key in self.generate or {})}
        twice = sorted((self.grid.keys() & self.zip.keys()) | (fixed & {*self.grid, *self.zip}))
        if twice:
            problems.append(f"set twice: {', '.join(twice)}")
        if {"seed", f"{TARGET}seed"} & {*fixed, *self.grid, *self.zip}:
            problems.append("set seeds instead of seed; they apply to data and runs")
        return problems

    def with_base(self, assignments: Sequence[str]) -> Self:
        """The plan with further settings `key=value` for all runs; settings that vary cannot be set."""
        values = self.model_dump(exclude_unset=True)
        base = {**self.base, **parse_assignments(assignments)}
        return type(self).checked({**values, "base": base})
