"""Base of the configuration classes: it merges sources, reads types from text and reports all problems at once.

The command line, `--set key=value`, YAML files and the Python API set the same fields.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from htfcli.config.units import format_bytes
from htfcli.errors import ConfigError, did_you_mean

_MAX_CONFIG_BYTES = 2**20  # far more than any settings; a device or a data file named by mistake has more
_MAX_VALUES = 200_000  # far more than any settings; aliases within aliases make billions of values out of a few lines


def _plain(value: object) -> object:
    """The value of a text: `"8"` is a number, `"8,4"` a list, `"[[0, 1], 2]"` YAML; anything else stays as it is."""
    if not isinstance(value, str):
        return value
    if re.fullmatch(r"\s*[-+]?\d+\s*(,\s*[-+]?\d+\s*)*", value):
        numbers = [int(part) for part in value.split(",")]
        return numbers if len(numbers) > 1 else numbers[0]
    return parse_yaml(value, "the value") if value.lstrip()[:1] in ("[", "{") else value


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _widths(value: object) -> object:
    value = _plain(value)
    items = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else [value]
    if items and all(map(_is_number, items)):
        return {str(k): v for k, v in value.items()} if isinstance(value, dict) else value
    raise not_allowed("a width", "32, or 8,16 per level, or per node as {'{0,1}': 8, default: 4}")


def _tree(value: object) -> object:
    value = _plain(value)
    if isinstance(value, str | list):
        return value
    raise not_allowed("a mode tree", "a name, or nested lists as [[0, 1], [2, 3]]")


def _dims(value: object) -> object:
    value = _plain(value)
    dims: list[Any] = value if isinstance(value, list) else [value]
    if len(dims) > 1 and all(_is_number(d) and d >= 1 for d in dims):
        return dims
    raise not_allowed("dimensions", "two or more positive numbers, as 13,4,12,8")


def _distances(value: object) -> object:
    value = _plain(value)
    distances: list[Any] = value if isinstance(value, list) else [value]
    if distances and all(_is_number(d) and d >= 0 for d in distances):
        return distances
    raise not_allowed("distances", "e.g. 0,8,16")


def _levels(value: object) -> object:
    value = _plain(value)
    levels: list[Any] = value if isinstance(value, list) else [value]
    if levels and all(_is_number(level) and level >= 1 for level in levels):
        return sorted(set(levels))
    raise not_allowed("levels", "e.g. 1,2,3")


def _patches(value: object) -> object:
    patches = [_plain(item) for item in value] if isinstance(value, list) else None
    if patches is None or len(patches) != 2 or not all(map(_is_patch, patches)):
        raise not_allowed("two patches", "TOP,LEFT,HEIGHT,WIDTH twice, e.g. 0,0,8,8 and 0,24,8,8")
    return patches


def _is_patch(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value)) and min(value) >= 0


def _mode_sets(value: object) -> object:
    sets = parse_mode_sets(value)
    if sets is None:
        raise not_allowed("sets of modes", "e.g. 0,2, or in YAML [[0, 2], [1]]")
    return sets


def _device(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
        return value
    raise not_allowed("a device", "auto, cpu, cuda or cuda:N")


def not_allowed(what: str, allowed: str) -> PydanticCustomError:
    """The error of a validator: what a value is not, and what it may be."""
    return PydanticCustomError("not_allowed", "not {what}", {"what": what, "allowed": allowed})


Widths = Annotated[int | list[int] | dict[str, int], PlainValidator(_widths)]
Tree = Annotated[str | list[Any], PlainValidator(_tree)]
Dims = Annotated[list[int], PlainValidator(_dims)]
Distances = Annotated[list[int], PlainValidator(_distances)]
Levels = Annotated[list[int], PlainValidator(_levels)]
Patches = Annotated[list[list[int]], PlainValidator(_patches)]
Device = Annotated[str, PlainValidator(_device)]
ModeSets = Annotated[list[list[int]], PlainValidator(_mode_sets)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]


class Config(BaseModel):
    """Base class of configurations: frozen, without unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    aliases: ClassVar[dict[str, str]] = {}  # other names of fields that options, files and scripts may use

    @classmethod
    def resolve(cls, flags: dict[str, Any], assignments: list[str] | None = None, path: str | None = None) -> Self:
        """The configuration from several sources; a value from an earlier one overrides later ones.

        Args:
            flags: values of options. assignments: `key=value` texts. path: of a YAML file. Defaults come last.
        Raises:
            ConfigError: with all problems found.
        """
        values: dict[str, Any] = {} if path is None else cls._named(read_yaml_mapping(path))
        values.update(cls._named(parse_assignments(assignments or [])))
        values.update(flags)
        return cls.checked(values)

    @model_validator(mode="before")
    @classmethod
    def _accept_aliases(cls, values: Any) -> Any:
        return cls._named(values) if isinstance(values, dict) else values

    @classmethod
    def _named(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Settings by the names of the fields instead of their aliases."""
        for alias, name in cls.aliases.items():
            if alias in values and name in values:
                raise ConfigError(f"{alias} and {name} are the same setting", next_step="Give one of them.")
        return {cls.aliases.get(key, key): value for key, value in values.items()}

    @classmethod
    def checked(cls, values: dict[str, Any]) -> Self:
        """The configuration with the given values.

        Raises:
            ConfigError: with all problems found.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            problems = [
                cls._problem(dict(e))
                for e in error.errors(include_url=False)
                if e["type"] != "default_factory_not_called"  # a consequence of the other problems
            ]
        head = "" if len(problems) == 1 else f"{len(problems)} problems: "
        raise ConfigError(head + "; ".join(dict.fromkeys(problems)))

    @classmethod
    def _problem(cls, error: dict[str, Any]) -> str:
        name = ".".join(str(part) for part in error["loc"][:1]).replace("_", "-")
        message = str(error["msg"]).removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            guess = did_you_mean(name, [key.replace("_", "-") for key in (*cls.model_fields, *cls.aliases)])
            return f"unknown setting {name}" + (f" ({guess.strip()})" if guess else "")
        if not name:
            return message
        allowed = error.get("ctx", {}).get("allowed") if error["type"] == "not_allowed" else None
        got = f"{error['input']!r:.60}" + (f", allowed {allowed}" if allowed else "")
        known = re.findall(r"'([^']*)'", message) if error["type"] == "literal_error" else []
        guess = did_you_mean(str(error["input"]), known).strip()
        return f"{name}: {message[0].lower()}{message[1:]} (got {got})" + (f" ({guess})" if guess else "")

    def to_yaml(self) -> str:
        """The configuration as YAML text that `--config` can read."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def changed(self, *names: str) -> list[str]:
        """The fields among `names` that differ from their default, as option names."""
        fields, given = type(self).model_fields, self.__dict__
        defaults = {n: fields[n].get_default(call_default_factory=True, validated_data=given) for n in names}
        return [n.replace("_", "-") for n in names if getattr(self, n) != defaults[n]]


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Parse `["lr=0.01"]` to `{"lr": 0.01}`."""
    values = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError("--set takes key=value", got=repr(assignment), allowed="e.g. --set lr=0.01")
        values[key.strip().replace("-", "_")] = parse_yaml(text, f"--set {key.strip()}")
    return values


def parse_yaml(text: str, what: str) -> Any:
    """Parse plain YAML, without tags that build objects.

    Args:
        text: the YAML. what: its name in messages.
    Raises:
        ConfigError: with the position of the first error.
    """
    try:
        value = yaml.safe_load(text)
    except RecursionError:
        raise ConfigError(f"{what} is nested too deeply") from None
    except ValueError as error:  # a number with thousands of digits, or an impossible date
        raise ConfigError(f"{what} is not valid YAML: {str(error).splitlines()[0]}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{what} is not valid YAML{place}: {problem}") from None
    count = _expanded(value, {})
    if count > _MAX_VALUES:
        got = f"{count} values" if count < math.inf else "an alias inside itself"
        raise ConfigError(f"{what} has too many values", got=got, allowed=f"{_MAX_VALUES} values")
    return value


def _expanded(value: Any, known: dict[int, float]) -> float:
    """Number of values in YAML data with all aliases written out, infinity if one contains itself."""
    if not isinstance(value, list | dict | set):
        return 1
    if id(value) not in known:
        known[id(value)] = math.inf  # until it is known, so that an alias inside itself counts as infinite
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_expanded(part, known) for part in parts)
    return known[id(value)]


def read_yaml_mapping(path: str) -> dict[str, Any]:
    """Read a YAML file of settings; keys may contain dashes in place of underscores.

    Raises:
        ConfigError: if it cannot be read, is too large or does not contain settings.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_CONFIG_BYTES + 1)  # reading from a device may never end
        if len(data) > _MAX_CONFIG_BYTES:
            allowed = f"at most {format_bytes(_MAX_CONFIG_BYTES)}"
            raise ConfigError(f"{path} is too large for a configuration", allowed=allowed)
        text = data.decode()
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the configuration {path} is not UTF-8 text") from None
    values = parse_yaml(text, path)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} does not contain settings", got=type(values).__name__, allowed="key: value lines")
    return {str(key).replace("-", "_"): value for key, value in values.items()}


def parse_mode_sets(value: object) -> list[list[int]] | None:
    """Parse `["0,2", "{1}"]` and `[[0, 2], 1]` to `[[0, 2], [1]]`, `"0,2"` to `[[0, 2]]`; None for anything else."""
    plain = [
        _plain(v.strip("{} ")) if isinstance(v, str) else v for v in (value if isinstance(value, list) else [value])
    ]
    sets: list[list[Any]] = [v if isinstance(v, list) else [v] for v in plain]
    return sets if all(s and all(map(_is_number, s)) for s in sets) else None
