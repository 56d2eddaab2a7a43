"""The runs of a plan: name, settings and data of each, all checked before the first run starts."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from htfcli.config.base import Config, read_yaml_mapping
from htfcli.config.plan import COMMANDS, TARGET, PlanConfig
from htfcli.config.tensors import TargetConfig
from htfcli.errors import ConfigError

PLAN = "plan.yaml"  # in the folder of a sweep
_LONGEST_NAME = 150


@dataclass(frozen=True)
class PlannedRun:
    """One run of a plan.

    Args:
        name: of its folder. command: key of `COMMANDS`. varied: the settings that vary between runs, the seed last.
        settings: of the command. target: settings of the data, if they are generated. data: the data file otherwise.
    """

    name: str
    command: str
    varied: dict[str, Any]
    settings: Config
    target: TargetConfig | None
    data: str | None

    @property
    def data_name(self) -> str | None:
        """Name of the file of generated data, which runs with the same data share; None for other data."""
        if self.target is None:
            return None
        text = json.dumps(self.target.model_dump(mode="json", exclude_unset=True), sort_keys=True)
        return f"{self.target.target}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def read_plan(path: str) -> PlanConfig:
    """Read a plan from a YAML file or from the folder of a sweep.

    Raises:
        ConfigError: naming every problem found.
    """
    file = str(Path(path) / PLAN) if Path(path).is_dir() else path
    return PlanConfig.checked(read_yaml_mapping(file))


def planned_runs(plan: PlanConfig) -> list[PlannedRun]:
    """All runs of a plan, the first key of `grid` varying slowest and the seed fastest.

    Raises:
        ConfigError: if the settings of a run are wrong, or two runs would have the same name.
    """
    runs = [_planned(plan, varied, shown) for varied, shown in _combinations(plan)]
    count = Counter(run.name.lower() for run in runs)  # some file systems ignore case
    clash = next((run.name for run in runs if count[run.name.lower()] > 1), None)
    if clash is not None:
        advice = "Values must differ in letters, digits or . + -, and not be repeated."
        raise ConfigError("two runs would have the same folder", got=clash, next_step=advice)
    longest = max((run.name for run in runs), key=len)
    if len(longest) > _LONGEST_NAME:
        raise ConfigError(
            "a run's folder name is too long",
            got=f"{len(longest)} characters: {longest[:40]}...",
            allowed=_LONGEST_NAME,
            next_step="Vary less in one plan, or shorter values.",
        )
    return runs


def _combinations(plan: PlanConfig) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """The varied settings of each run, and the keys among them that form its name."""
    rows = [dict(zip(plan.zip, values, strict=True)) for values in zip(*plan.zip.values(), strict=True)] or [{}]
    naming = _naming(plan.zip)
    for values in itertools.product(*plan.grid.values()):
        chosen = dict(zip(plan.grid, values, strict=True))
        for row in rows:
            for seed in plan.seeds:
                yield {**chosen, **row, "seed": seed}, [*plan.grid, *naming, "seed"]


def _naming(lists: dict[str, list[Any]]) -> list[str]:
    """The first keys of `zip`, as many as are needed to distinguish all rows."""
    rows = list(zip(*([_safe(value) for value in values] for values in lists.values()), strict=True))
    for count in range(1, len(lists)):
        if len({row[:count] for row in rows}) == len(rows):
            return list(lists)[:count]
    return list(lists)


def _planned(plan: PlanConfig, varied: dict[str, Any], shown: list[str]) -> PlannedRun:
    name = "_".join(f"{key.replace('_', '-')}={_safe(varied[key])}" for key in shown)
    own = {key: value for key, value in varied.items() if not key.startswith(TARGET)}
    of_data = {key.removeprefix(TARGET): value for key, value in varied.items() if key.startswith(TARGET)}
    target = None
    try:
        settings = COMMANDS[plan.command].checked(_set({**plan.base, **own}))
        if plan.generate is not None:
            target = TargetConfig.checked(_set({**plan.generate, **of_data, "seed": varied["seed"]}))
    except ConfigError as error:
        raise ConfigError(f"{str(error).rstrip('.')}, in run {name}") from None
    data = None if plan.data is None else str(Path(plan.data).resolve())
    return PlannedRun(name, plan.command, varied, settings, target, data)


def _set(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings without those that are null, which a plan leaves at their default."""
    return {key: value for key, value in settings.items() if value is not None}


def _safe(value: Any) -> str:
    """A value as part of a folder name, with letters, digits and . + - only."""
    text = "default" if value is None else value if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", text).strip("-")
