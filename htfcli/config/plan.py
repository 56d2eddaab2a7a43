"""What `htf sweep` is given: a plan, which is a command, settings that all runs share, and what varies between runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from htfcli.config.base import Config, Seed, parse_assignments
from htfcli.config.completion_run import CompletionRunConfig
from htfcli.config.tensors import FitConfig
from htfcli.config.vision import TrainCnnConfig

COMMANDS: dict[str, type[Config]] = {
    "fit": FitConfig,
    "complete": CompletionRunConfig,
    "train-cnn": TrainCnnConfig,
}
_MOST_SEEDS = 100_000
TARGET = "generate."  # how a plan names a setting of the generated data in grid and zip


def _seeds(value: object) -> object:
    """A number of seeds means that many from 0."""
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if value > _MOST_SEEDS:
        raise ValueError(f"at most {_MOST_SEEDS:,} seeds")
    return list(range(value))


def _keys(value: object) -> object:
    """Dashes in the keys of settings, as the command line has them."""
    return {str(k).replace("-", "_"): v for k, v in value.items()} if isinstance(value, dict) else value


Settings = Annotated[dict[str, Any], BeforeValidator(_keys)]
Lists = Annotated[dict[str, list[Any]], BeforeValidator(_keys)]


class PlanConfig(Config):
    """A grid of runs: every combination of `grid`, with every row of `zip`, with every seed.

    Keys of `grid` and `zip` are settings of the command, or of the data that are generated (`generate.width`). A value
    null leaves a setting at its default.
    """

    command: Literal["fit", "complete", "train-cnn"] = Field("fit", description="What each run does.")
    data: str | None = Field(None, description="Data of all runs.")
    generate: Settings | None = Field(None, description="Or settings of `htf generate tensor`; seeds vary it too.")
    base: Settings = Field({}, description="Settings of the command that all runs share.")
    grid: Lists = Field({}, description="Lists of values, of which every combination is run.")
    zip: Lists = Field({}, description="Lists of one length, run side by side.")
    seeds: Annotated[list[Seed], BeforeValidator(_seeds)] = Field([0], description="Seeds, or how many from 0.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = [*self._data_problems(), *self._list_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _data_problems(self) -> list[str]:
        problems = []
        if self.data is not None and self.generate is not None:
            problems.append("data names a file, generate makes one: give one of them")
        if self.command == "train-cnn":
            if self.generate is not None:
                problems.append("train-cnn generates its images by itself: say task in base instead of generate")
        elif self.data is None and self.generate is None:
            problems.append("no data: give data (a file) or generate (settings of htf generate tensor)")
        varied = [key for key in (*self.grid, *self.zip) if key.startswith(TARGET)]
        if varied and self.generate is None:
            problems.append(f"{varied[0]} varies data that are not generated: give generate")
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
            problems.append(f"zip wants lists of one length (got {shown})")
        fixed = {*self.base, *(f"{TARGET}{key}" for key in self.generate or {})}
        twice = sorted((self.grid.keys() & self.zip.keys()) | (fixed & {*self.grid, *self.zip}))
        if twice:
            problems.append(f"set twice: {', '.join(twice)}")
        if {"seed", f"{TARGET}seed"} & {*fixed, *self.grid, *self.zip}:
            problems.append("seed is set by seeds, for data and run alike")
        return problems

    def with_base(self, assignments: Sequence[str]) -> Self:
        """The plan with settings `key=value` of all runs; those that vary cannot be set."""
        values = self.model_dump(exclude_unset=True)
        base = {**self.base, **parse_assignments(assignments)}
        return type(self).checked({**values, "base": base})
