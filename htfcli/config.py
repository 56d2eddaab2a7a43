"""Configuration classes: what a command can be told, checked before any work starts.

The command line, `--set key=value`, YAML files and the Python API fill the same fields. Unknown keys are refused and
all problems are reported at once.
"""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from htfcli.errors import ConfigError, did_you_mean

_MAX_CONFIG_BYTES = 1_000_000
_MAX_SEED = 2**63 - 1
DEFAULT_TOLERANCE = 1e-3  # singular values above this times the largest count towards a rank


def _plain(value: object) -> object:
    """What text stands for: `"8"` a number, `"8,4"` a list, `"[[0, 1], 2]"` YAML; anything else as it is."""
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
    raise _not("a width", "32, or 8,16 by level, or by node as {'{0,1}': 8, default: 4}")


def _tree(value: object) -> object:
    value = _plain(value)
    if isinstance(value, str | list):
        return value
    raise _not("a mode tree", "a name, or nested lists as [[0, 1], [2, 3]]")


def _dims(value: object) -> object:
    value = _plain(value)
    dims: list[Any] = value if isinstance(value, list) else [value]
    if len(dims) > 1 and all(_is_number(d) and d >= 1 for d in dims):
        return dims
    raise _not("dimensions", "two positive numbers or more, as 13,4,12,8")


def _mode_sets(value: object) -> object:
    sets = parse_mode_sets(value)
    if sets is None:
        raise _not("sets of modes", "e.g. 0,2, or in YAML [[0, 2], [1]]")
    return sets


def _device(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
        return value
    raise _not("a device", "auto, cpu, cuda or cuda:N")


def _not(what: str, allowed: str) -> PydanticCustomError:
    return PydanticCustomError("not_allowed", "not {what}", {"what": what, "allowed": allowed})


Widths = Annotated[int | list[int] | dict[str, int], PlainValidator(_widths)]
Tree = Annotated[str | list[Any], PlainValidator(_tree)]
Dims = Annotated[list[int], PlainValidator(_dims)]
Device = Annotated[str, PlainValidator(_device)]
ModeSets = Annotated[list[list[int]], PlainValidator(_mode_sets)]


class Config(BaseModel):
    """Base of the configuration classes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def resolve(cls, flags: dict[str, Any], assignments: list[str] | None = None, path: str | None = None) -> Self:
        """Merge the sources; earlier ones win: flags, `key=value` assignments, a YAML file, defaults.

        Raises:
            ConfigError: naming every problem found.
        """
        values: dict[str, Any] = {} if path is None else read_yaml_mapping(path)
        for assignment in assignments or []:
            key, equals, text = assignment.partition("=")
            if not equals:
                raise ConfigError("--set wants key=value", got=repr(assignment), allowed="e.g. --set lr=0.01")
            values[key.strip().replace("-", "_")] = parse_yaml(text, f"--set {key.strip()}")
        values.update(flags)
        return cls.checked(values)

    @classmethod
    def checked(cls, values: dict[str, Any]) -> Self:
        """Validate `values`; all problems in one ConfigError."""
        try:
            return cls(**values)
        except ValidationError as error:
            problems = [cls._problem(dict(e)) for e in error.errors(include_url=False)]
        head = "" if len(problems) == 1 else f"{len(problems)} problems: "
        raise ConfigError(head + "; ".join(dict.fromkeys(problems)))

    @classmethod
    def _problem(cls, error: dict[str, Any]) -> str:
        name = ".".join(str(part) for part in error["loc"][:1]).replace("_", "-")
        message = str(error["msg"]).removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            guess = did_you_mean(name, [key.replace("_", "-") for key in cls.model_fields])
            return f"unknown setting {name}" + (f" ({guess.strip()})" if guess else "")
        if not name:
            return message
        allowed = error.get("ctx", {}).get("allowed") if error["type"] == "not_allowed" else None
        got = f"{error['input']!r:.60}" + (f", allowed {allowed}" if allowed else "")
        return f"{name}: {message[0].lower()}{message[1:]} (got {got})"

    def to_yaml(self) -> str:
        """The resolved configuration as YAML that `--config` reads back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def changed(self, *names: str) -> list[str]:
        """Those of the fields `names` that differ from their default."""
        return [n.replace("_", "-") for n in names if getattr(self, n) != type(self).model_fields[n].get_default()]


def parse_yaml(text: str, what: str) -> Any:
    """Plain YAML data (no tags that build objects); ConfigError with the place of the first mistake."""
    try:
        return yaml.safe_load(text)
    except RecursionError:
        raise ConfigError(f"{what} is nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{what} is not valid YAML{place}: {problem}") from None


def read_yaml_mapping(path: str) -> dict[str, Any]:
    """A YAML file of settings, dashes in keys allowed."""
    try:
        data = Path(path).read_bytes()
        if len(data) > _MAX_CONFIG_BYTES:
            raise ConfigError(f"{path} is too large for a configuration", got=f"{len(data)} bytes", allowed="1 MB")
        text = data.decode()
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the configuration {path} is not UTF-8 text") from None
    values = parse_yaml(text, path)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} does not hold settings", got=type(values).__name__, allowed="key: value lines")
    return {str(key).replace("-", "_"): value for key, value in values.items()}


def parse_mode_sets(value: object) -> list[list[int]] | None:
    """`["0,2", "{1}"]` and `[[0, 2], 1]` to `[[0, 2], [1]]`, `"0,2"` to `[[0, 2]]`; None for anything else."""
    plain = [
        _plain(v.strip("{} ")) if isinstance(v, str) else v for v in (value if isinstance(value, list) else [value])
    ]
    sets: list[list[Any]] = [v if isinstance(v, list) else [v] for v in plain]
    return sets if all(s and all(map(_is_number, s)) for s in sets) else None


def size_of(text: str, total: int) -> int:
    """A number of observations: `2048` counts; `0.5` or `50%` are a share of `total`.

    Raises:
        ConfigError: if it is neither, or the share is outside 0..1.
    """
    try:
        if text.endswith("%"):
            share = float(text[:-1]) / 100
        elif "." in text or "e-" in text:
            share = float(text)
        else:
            return int(text)
    except ValueError:
        raise ConfigError(
            "not a number of observations", got=text, allowed="a count as 2048, or a share as 0.5"
        ) from None
    if not 0 <= share <= 1:
        raise ConfigError("a share of observations is out of range", got=text, allowed="0.0 to 1.0")
    return round(Fraction(share) * total)  # exact, also where total is beyond the range of a double


class TargetConfig(Config):
    """`htf generate tensor`: a low-rank tensor and what is observed of it."""

    target: Literal["htf", "cp", "matrix"] = Field("htf", description="What the tensor is made by.")
    order: int | None = Field(None, ge=2, description="Number of modes (4 unless --dims says).")
    dim: int = Field(8, ge=1, description="Dimension of every mode.")
    dims: Dims | None = Field(None, description="Dimensions of the modes one by one, e.g. 13,4,12,8.")
    rank: Widths = Field(5, description="Rank: one number, one a level from the leaves up, or by node in YAML.")
    tree: Tree = Field("balanced", description="Mode tree of an htf target: a name, or nested lists.")
    arity: int | None = Field(None, description="Children per node of the mode tree.")
    task: Literal["completion", "sensing"] = Field(
        "completion",
        description="Observe entries, or inner products with random rank-one tensors (matrices: Gaussian).",
    )
    observed: str = Field("0.5", description="Observations: a count (2048), or a share of the entries (0.5).")
    test: str | None = Field(
        None,
        description="Held-out ones: a count, or a share of the rest (all, or as many measurements; at most 10000).",
    )
    mask: str | None = Field(None, description="Boolean .npy file that says which entries are observed.")
    norm: float | None = Field(None, gt=0, description="Frobenius norm of the tensor (square root of its entries).")
    noise: float = Field(0.0, ge=0, description="Noise on observed values: standard deviation over the entries' rms.")
    seed: int = Field(0, ge=0, le=_MAX_SEED, description="Seed of everything random.")

    @model_validator(mode="before")
    @classmethod
    def _sizes_are_text(cls, values: Any) -> Any:
        """YAML has numbers where the command line has text: 2048 and 0.5 both mean what they say."""
        if isinstance(values, dict):
            for key in ("observed", "test"):
                if isinstance(values.get(key), int | float) and not isinstance(values[key], bool):
                    values = {**values, key: str(values[key])}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.dims is not None and self.order not in (None, len(self.dims)):
            raise ValueError(f"order and dims disagree (got {self.order} and {len(self.dims)} dimensions)")
        if self.target != "htf" and (wrong := self.changed("tree", "arity")):
            raise ValueError(f"{', '.join(wrong)}: only for target htf (got target {self.target})")
        if self.target == "matrix" and len(self.resolved_dims) != 2:
            raise ValueError(f"target matrix has two modes (got {len(self.resolved_dims)})")
        if self.task == "sensing" and self.mask is not None:
            raise ValueError("mask: only for task completion (got task sensing)")
        if self.mask is not None and self.changed("observed"):
            raise ValueError(f"mask says what is observed, observed says how much: give one (got {self.observed})")
        return self

    @property
    def resolved_dims(self) -> tuple[int, ...]:
        if self.dims is not None:
            return tuple(self.dims)
        return (self.dim,) * (self.order or (2 if self.target == "matrix" else 4))


class FitConfig(Config):
    """`htf fit`: a factorization, how it is trained and what is recorded."""

    model: Literal["htf", "cp", "matrix"] = Field("htf", description="Factorization to fit.")
    tree: Tree = Field("balanced", description="Mode tree of an htf model: a name, or nested lists.")
    arity: int | None = Field(None, description="Children per node of the mode tree.")
    width: Widths | None = Field(
        None,
        description="Local components per node: one number, one a level from the leaves up, or by node in YAML (32).",
    )
    depth: int = Field(3, ge=2, description="Number of factors of a matrix model.")
    init: Literal["gaussian", "balanced"] = Field(
        "gaussian", description="Initialization (balanced: unbalancedness zero)."
    )
    init_std: float | None = Field(
        None, gt=0, description="Standard deviation of the initial weights (such that entries start near 1e-4)."
    )
    loss: Literal["l2", "l1", "huber"] = Field("l2", description="Mean loss over the observations (huber: beta 1).")
    optimizer: Literal["group-rmsprop", "sgd", "adam"] = Field("group-rmsprop", description="Optimizer.")
    lr: float = Field(0.01, gt=0, description="Learning rate.")
    momentum: float = Field(0.0, ge=0, lt=1, description="Momentum of sgd.")
    batch_size: int | None = Field(
        None, ge=1, description="Observations per iteration (all of them, which is often as fast)."
    )
    iterations: int = Field(100_000, ge=0, description="Iterations at most.")
    seconds: float | None = Field(None, gt=0, description="Seconds at most.")
    until_loss: float | None = Field(5e-5, ge=0, description="Stop once the train loss stays under this.")
    patience: int = Field(100, ge=1, description="For this many records in a row.")
    dtype: Literal["float32", "float64"] = Field("float32", description="Precision.")
    device: Device = Field("auto", description="auto, cpu, cuda or cuda:N.")
    threads: int | None = Field(None, ge=1, description="CPU threads (torch's choice).")
    seed: int = Field(0, ge=0, le=_MAX_SEED, description="Seed of everything random.")
    test_fraction: float | None = Field(None, gt=0, lt=1, description="Share of the observations to hold out.")
    dims: Dims | None = Field(None, description="Dimensions of coordinate data (largest index + 1).")
    scale: Literal["auto", "none"] = Field(
        "auto", description="auto: fit data files divided by their rms, and undo it in the result; none: as they are."
    )
    record_every: int = Field(100, ge=1, description="Iterations between records.")
    top: int = Field(10, ge=1, description="Components and singular values recorded per node.")
    matricization: ModeSets = Field([], description="Also record this matricization, e.g. 0,2 (repeatable).")
    weight_norms: bool = Field(False, description="Also record the norms of weight vectors.")
    checkpoint_every: float = Field(30.0, ge=0, description="Seconds between checkpoints.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for choice, value, fields in (
            ("model", "htf", ("tree", "arity")),
            ("model", "matrix", ("depth",)),
            ("optimizer", "sgd", ("momentum",)),
        ):
            chosen = getattr(self, choice)
            if chosen != value and (wrong := self.changed(*fields)):
                raise ValueError(f"{', '.join(wrong)}: only for {choice} {value} (got {choice} {chosen})")
        if self.model == "cp" and isinstance(self.width, list | dict):
            raise ValueError("width: model cp has one width (got several)")
        if self.model == "matrix" and isinstance(self.width, dict):
            raise ValueError("width: model matrix takes one width or a list (got a mapping)")
        return self


class MeasureRankConfig(Config):
    """`htf measure-rank`: which matricizations, and how they are reported."""

    tree: Tree | None = Field(
        None, description="Mode tree: a name, or nested lists (a factorization's own, balanced for a dense tensor)."
    )
    arity: int | None = Field(None, description="Children per node of a named tree (balanced unless --tree says).")
    matricization: ModeSets = Field([], description="Measure this one too, e.g. 0,2 (repeatable).")
    tolerance: float = Field(
        DEFAULT_TOLERANCE, ge=0, lt=1, description="Singular values above this times the largest count."
    )
    top: int = Field(10, ge=1, description="Singular values to report.")
    dims: Dims | None = Field(None, description="Dimensions of coordinate data.")
