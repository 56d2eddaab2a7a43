"""What the commands on tensors can be told: `generate tensor`, `fit`, `measure-rank`."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from htfcli.config.base import Config, Device, Dims, ModeSets, Seed, Tree, Widths
from htfcli.errors import ConfigError

DEFAULT_WIDTH = 32  # of the interior nodes of a model that is given none
DEFAULT_TOLERANCE = 1e-3  # singular values above this times the largest count towards a rank


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
    order: int | None = Field(None, ge=2, le=100_000, description="Number of modes (4 unless --dims says).")
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
    seed: Seed = Field(0, description="Seed of everything random.")

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


_SECOND_ORDER: dict[str, object] = {"dtype": "float64", "record_every": 1, "iterations": 1000}  # its own defaults


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
        None,
        gt=0,
        description="Standard deviation of the initial weights (such that entries start near 1e-4; second-order: 1).",
    )
    loss: Literal["l2", "l1", "huber"] = Field("l2", description="Mean loss over the observations (huber: beta 1).")
    solver: Literal["gradient", "second-order"] = Field(
        "gradient",
        description="Gradient descent, or Levenberg-Marquardt: few, long steps to a solution, for entries only.",
    )
    ridge: float = Field(
        0.0, ge=0, description="Weight of the sum of squared weights beside the mean loss, for solver second-order."
    )
    optimizer: Literal["group-rmsprop", "sgd", "adam"] = Field("group-rmsprop", description="Optimizer.")
    lr: float = Field(0.01, gt=0, description="Learning rate.")
    momentum: float = Field(0.0, ge=0, lt=1, description="Momentum of sgd.")
    batch_size: int | None = Field(
        None, ge=1, description="Observations per iteration (all of them, which is often as fast)."
    )
    iterations: int = Field(100_000, ge=0, description="Iterations at most (second-order: 1000).")
    seconds: float | None = Field(None, gt=0, description="Seconds at most.")
    until_loss: float | None = Field(5e-5, ge=0, description="Stop once the train loss stays under this.")
    patience: int = Field(100, ge=1, description="For this many records in a row.")
    dtype: Literal["float32", "float64"] = Field(
        "float32", description="Precision (second-order: float64); summary.json has the final loss in float64 too."
    )
    device: Device = Field("auto", description="auto, cpu, cuda or cuda:N.")
    threads: int | None = Field(None, ge=1, description="CPU threads (torch's choice).")
    seed: Seed = Field(0, description="Seed of everything random.")
    test_fraction: float | None = Field(None, gt=0, lt=1, description="Share of the observations to hold out.")
    dims: Dims | None = Field(None, description="Dimensions of coordinate data (largest index + 1).")
    scale: Literal["auto", "none"] = Field(
        "auto", description="auto: fit data files divided by their rms, and undo it in the result; none: as they are."
    )
    record_every: int = Field(100, ge=1, description="Iterations between records (second-order: 1).")
    top: int = Field(10, ge=1, description="Components and singular values recorded per node.")
    matricization: ModeSets = Field([], description="Also record this matricization, e.g. 0,2 (repeatable).")
    weight_norms: bool = Field(False, description="Also record the norms of weight vectors.")
    checkpoint_every: float = Field(30.0, ge=0, description="Seconds between checkpoints.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for choice, value, fields in (
            ("model", "htf", ("tree", "arity")),
            ("model", "matrix", ("depth",)),
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
        if self.solver == "second-order":
            if "dtype" in self.model_fields_set and self.dtype != "float64":
                raise ValueError(f"dtype: solver second-order computes in float64 (got {self.dtype})")
            # Set past pydantic, which then does not count them as given: a resumed run keeps its own.
            for name in _SECOND_ORDER.keys() - self.model_fields_set:
                object.__setattr__(self, name, _SECOND_ORDER[name])
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
