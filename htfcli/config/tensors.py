"""Settings of the commands on tensors: `generate tensor`, `fit`, `measure-rank`."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from htfcli.config.base import Config, Device, Dims, ModeSets, Seed, Tree, Widths
from htfcli.config.tables import TableConfig
from htfcli.errors import ConfigError

Model = Literal["htf", "cp", "matrix", "tucker", "tensor-train", "hierarchical-tucker"]
ON_ANY_TREE = ("htf", "hierarchical-tucker")  # models that take a mode tree

DEFAULT_WIDTH = 32  # local components per node of a model, or columns of a node above a dense core
_DEPTH = {"matrix": 3, "htf": 3, "cp": 3}  # 3 as published; models that take no depth have kept it in saved settings
DEFAULT_TOLERANCE = 1e-3  # a rank counts the singular values above this times the largest


def size_of(text: str, total: int) -> int:
    """A number of observations: a count such as `2048`, or a fraction of `total` such as `0.5` or `50%`.

    Raises:
        ConfigError: if the text is neither, or the fraction is outside 0..1.
    """
    try:
        if text.endswith("%"):
            fraction = float(text[:-1]) / 100
        elif "." in text or "e-" in text:
            fraction = float(text)
        else:
            return int(text)
    except ValueError:
        raise ConfigError(
            "not a number of observations", got=text, allowed="a count such as 2048, or a fraction such as 0.5"
        ) from None
    if not 0 <= fraction <= 1:
        raise ConfigError("a fraction of observations is out of range", got=text, allowed="0.0 to 1.0")
    return round(Fraction(fraction) * total)  # exact even if total is beyond the range of a double


class TargetConfig(Config):
    """`htf generate tensor`: a low-rank tensor, and observations of it."""

    aliases: ClassVar[dict[str, str]] = {"rank": "width"}

    target: Model = Field("htf", description="Factorization that generates the tensor.")
    order: int | None = Field(None, ge=2, le=100_000, description="Number of modes (4; 2 for target matrix).")
    dim: int = Field(8, ge=1, description="Dimension of every mode.")
    dims: Dims | None = Field(None, description="Dimensions of the modes one by one, e.g. 13,4,12,8.")
    width: Widths = Field(
        5, description="Local components per node: one number, one per level from the leaves up, or per node in YAML."
    )
    tree: Tree = Field(
        "balanced", description="Mode tree of an htf or hierarchical-tucker target: a name, or nested lists."
    )
    arity: int | None = Field(None, description="Children per node of the mode tree.")
    task: Literal["completion", "sensing"] = Field(
        "completion",
        description="Observe entries, or inner products with random rank-one tensors (Gaussian matrices for matrix).",
    )
    observed: str = Field("0.5", description="Observations: a count (2048), or a fraction of the entries (0.5).")
    test: str | None = Field(
        None,
        description="Test observations: a count, or a fraction of the unobserved entries; sensing: of the observations "
        "(all, at most 10000).",
    )
    mask: str | None = Field(None, description="Boolean .npy file, True where an entry is observed.")
    norm: float | None = Field(
        None, gt=0, description="Frobenius norm of the tensor (square root of its number of entries)."
    )
    noise: float = Field(
        0.0, ge=0, description="Noise on observed values: standard deviation relative to the rms of the entries."
    )
    seed: Seed = Field(0, description="Seed of all random numbers.")

    @model_validator(mode="before")
    @classmethod
    def _sizes_are_text(cls, values: Any) -> Any:
        """Accept numbers from YAML where the command line gives text."""
        if isinstance(values, dict):
            for key in ("observed", "test"):
                if isinstance(values.get(key), int | float) and not isinstance(values[key], bool):
                    values = {**values, key: str(values[key])}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.dims is not None and self.order not in (None, len(self.dims)):
            raise ValueError(f"order and dims disagree (got {self.order} and {len(self.dims)} dimensions)")
        if self.target not in ON_ANY_TREE and (wrong := self.changed("tree", "arity")):
            raise ValueError(
                f"{', '.join(wrong)}: only for target {' or '.join(ON_ANY_TREE)} (got target {self.target})"
            )
        if self.target == "matrix" and len(self.resolved_dims) != 2:
            raise ValueError(f"target matrix has two modes (got {len(self.resolved_dims)})")
        if self.task == "sensing" and self.mask is not None:
            raise ValueError("mask: only for task completion (got task sensing)")
        if self.mask is not None and self.changed("observed"):
            raise ValueError(f"mask and observed exclude each other: give one (got observed {self.observed})")
        return self

    @property
    def resolved_dims(self) -> tuple[int, ...]:
        """The mode dimensions, from `dims` or from `order` and `dim`."""
        if self.dims is not None:
            return tuple(self.dims)
        return (self.dim,) * (self.order or (2 if self.target == "matrix" else 4))


def _by_solver(gradient: Any, second_order: Any) -> Callable[[dict[str, Any]], Any]:
    """A default that depends on the solver, which must be an earlier field."""
    return lambda settings: second_order if settings.get("solver") == "second-order" else gradient


class FitConfig(Config):
    """`htf fit`: the factorization, how it is fitted, and what is recorded."""

    model: Model = Field("htf", description="Factorization to fit.")
    tree: Tree = Field(
        "balanced", description="Mode tree of an htf or hierarchical-tucker model: a name, or nested lists."
    )
    arity: int | None = Field(None, description="Children per node of the mode tree.")
    width: Widths | None = Field(
        None,
        description="Local components per node: one number, one per level from the leaves up, or per node in YAML "
        "(32; for model matrix the smaller dimension). Dense cores: columns per node but the root, at most its "
        "largest rank.",
    )
    depth: int = Field(
        default_factory=lambda settings: _DEPTH.get(settings.get("model", ""), 1),
        ge=1,
        description="Number of factors of model matrix (3), or of matrices per mode of model tucker (1).",
    )
    init: Literal["gaussian", "balanced"] = Field(
        "gaussian", description="Initial weights: Gaussian, or balanced (Gaussian with unbalancedness zero)."
    )
    init_std: float | None = Field(
        None,
        gt=0,
        description="Standard deviation of the initial weights (entries start with rms 1e-4; second-order: 1).",
    )
    loss: Literal["l2", "l1", "huber"] = Field(
        "l2", description="Mean loss over the observations (huber: quadratic up to 1)."
    )
    solver: Literal["gradient", "second-order"] = Field(
        "gradient",
        description="Gradient descent; or Levenberg-Marquardt, which takes few long steps and needs observed entries.",
    )
    ridge: float = Field(
        0.0, ge=0, description="Add RIDGE times the sum of squared weights to the mean loss (second-order)."
    )
    optimizer: Literal["group-rmsprop", "sgd", "adam"] = Field("group-rmsprop", description="Optimizer.")
    lr: float = Field(0.01, gt=0, description="Learning rate.")
    momentum: float = Field(0.0, ge=0, lt=1, description="Momentum of optimizer sgd.")
    batch_size: int | None = Field(None, ge=1, description="Observations per iteration (all).")
    iterations: int = Field(
        default_factory=_by_solver(100_000, 1000),
        ge=0,
        description="Stop after this many iterations (100000; second-order: 1000).",
    )
    seconds: float | None = Field(None, gt=0, description="Stop after this many seconds.")
    until_loss: float | None = Field(5e-5, ge=0, description="Stop when the train loss stays below this value.")
    patience: int = Field(100, ge=1, description="Stop after this many consecutive records below --until-loss.")
    dtype: Literal["float32", "float64"] = Field(
        default_factory=_by_solver("float32", "float64"),
        description="Floating-point precision (float32; second-order: float64).",
    )
    device: Device = Field("auto", description="Device: auto, cpu, cuda or cuda:N.")
    threads: int | None = Field(None, ge=1, description="CPU threads (chosen by torch).")
    seed: Seed = Field(0, description="Seed of all random numbers.")
    test_fraction: float | None = Field(None, gt=0, lt=1, description="Hold out this fraction of the observations.")
    dims: Dims | None = Field(None, description="Dimensions of a table of numbered indices. Default: its labels.")
    scale: Literal["auto", "none"] = Field(
        "auto", description="Divide data files by their rms for the fit, and scale the result back (none: do not)."
    )
    record_every: int = Field(
        default_factory=_by_solver(100, 1), ge=1, description="Iterations between records (100; second-order: 1)."
    )
    top: int = Field(10, ge=1, description="Record this many components and singular values per node.")
    matricization: ModeSets = Field([], description="Also record this matricization, e.g. 0,2 (repeatable).")
    weight_norms: bool = Field(False, description="Also record the norms of weight vectors.")
    checkpoint_every: float = Field(30.0, ge=0, description="Seconds between checkpoints.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.model not in ON_ANY_TREE and (wrong := self.changed("tree", "arity")):
            raise ValueError(f"{', '.join(wrong)}: only for model {' or '.join(ON_ANY_TREE)} (got model {self.model})")
        if self.model not in ("matrix", "tucker") and self.depth != _DEPTH.get(self.model, 1):
            raise ValueError(f"depth: only for model matrix or tucker (got model {self.model})")
        if self.model == "matrix" and self.depth < 2:
            raise ValueError(f"depth: model matrix has two factors or more (got {self.depth})")
        for choice, value, fields in (
            ("solver", "gradient", ("optimizer", "lr", "momentum", "batch_size")),
            ("solver", "second-order", ("ridge",)),
            ("optimizer", "sgd", ("momentum",)),
        ):
            chosen = getattr(self, choice)
            if chosen != value and (wrong := self.changed(*fields)):
                raise ValueError(f"{', '.join(wrong)}: only for {choice} {value} (got {choice} {chosen})")
        if self.model == "cp" and isinstance(self.width, list | dict):
            raise ValueError("width: model cp has one width (got several)")
        if self.model == "matrix" and isinstance(self.width, dict):
            raise ValueError("width: model matrix takes one width or a list (got a mapping)")
        if self.solver == "second-order" and self.dtype != "float64":
            raise ValueError(f"dtype: solver second-order computes in float64 (got {self.dtype})")
        return self

    @property
    def widths(self) -> Widths:
        """What `width` asks for, or the usual number per node."""
        return DEFAULT_WIDTH if self.width is None else self.width


class FitRunConfig(TableConfig, FitConfig):
    """Settings of `htf fit`: those of the fit, and how a table is read."""


class _RankConfig(Config):
    """Which matricizations to measure, and what to report."""

    tree: Tree | None = Field(
        None, description="Mode tree: a name, or nested lists (that of the factorization; balanced for a dense tensor)."
    )
    arity: int | None = Field(None, description="Children per node of a named tree, balanced if --tree is not given.")
    matricization: ModeSets = Field([], description="Also measure this matricization, e.g. 0,2 (repeatable).")
    tolerance: float = Field(
        DEFAULT_TOLERANCE, ge=0, lt=1, description="Count singular values larger than this times the largest one."
    )
    top: int = Field(10, ge=1, description="Report this many singular values.")
    dims: Dims | None = Field(None, description="Dimensions of a table of numbered indices. Default: its labels.")


class MeasureRankConfig(TableConfig, _RankConfig):
    """Settings of `htf measure-rank`: which matricizations to measure, and how a table is read."""
