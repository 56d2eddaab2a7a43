"""Settings of the commands on networks and on their data: `train-cnn`, `measure-locality` and `rearrange`."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from htfcli.config.base import Config, Device, Dims, Distances, Levels, Patches, Seed, Widths
from htfcli.config.images import IsSameClassConfig, PathfinderConfig
from htfcli.errors import did_you_mean

NETWORKS = ("resnet18", "resnet34", "resnet50", "resnet-mini")  # of engine.vision.resnet, not imported here
USER_NETWORK = re.compile(r"[\w.]+:\w+")
_SAME_CLASS_FIELDS = ("source", "data_dir", "download", "test_images", "distance", "height", "width")
_PATHFINDER_FIELDS = ("path_length", "size")
_RANDOM_PATCH_FIELDS = ("patch_size", "patch_distance", "patch_sampler")
_REG_FIELDS = ("reg_coeff", "reg_every", *_RANDOM_PATCH_FIELDS, "patches", "formulation")
_MINI_FIELDS = ("widths", "blocks", "stem_kernel", "stem_stride", "max_pool")


def _of_task(config: type[Config], name: str, task: str) -> Any:
    """The setting `name` of a task's images, with its bounds and help; unset, the task's own default holds."""
    info = config.model_fields[name]
    default = "" if info.default is None else f". Default: {info.default}"
    text = (info.description or "").rstrip(".")
    field: Any = Field(
        None, description=f"{task}: {text[:1].lower() if text[1:2].islower() else text[:1]}{text[1:]}{default}."
    )
    field.metadata = list(info.metadata)
    return field


class TrainCnnConfig(Config):
    """`htf train-cnn`: the task, the network, the regularizer and how to train."""

    task: Literal["is-same-class", "pathfinder"] | None = Field(
        None, description="Generate the images of this task, instead of reading DATA."
    )
    source: Literal["shapes", "digits", "cifar10", "folder"] | None = _of_task(
        IsSameClassConfig, "source", "is-same-class"
    )
    data_dir: str | None = _of_task(IsSameClassConfig, "data_dir", "is-same-class")
    download: bool = Field(False, description="is-same-class: download CIFAR-10 (162 MiB) if there is no --data-dir.")
    image_size: int | None = _of_task(IsSameClassConfig, "image_size", "folders")
    test_images: int | None = _of_task(IsSameClassConfig, "test_images", "is-same-class")
    distance: int | None = _of_task(IsSameClassConfig, "distance", "is-same-class")
    height: int | None = _of_task(IsSameClassConfig, "height", "is-same-class")
    width: int | None = _of_task(IsSameClassConfig, "width", "is-same-class")
    path_length: int | None = _of_task(PathfinderConfig, "path_length", "pathfinder")
    size: int | None = _of_task(PathfinderConfig, "size", "pathfinder")
    train: int | None = Field(None, ge=2, description="Number of train images to generate. Default: that of the task.")
    test: int | None = Field(None, ge=1, description="Number of test images to generate. Default: that of the task.")

    model: str = Field(
        "resnet18",
        description=f"Network: {', '.join(NETWORKS)}, or module:function, which is called with (channels, outputs) to "
        "build a network of your own. This is the only way in which htf runs a user's code.",
    )
    widths: Widths | None = Field(None, description="resnet-mini: channels of each stage. Default: 8,16,32.")
    blocks: Widths | None = Field(None, description="resnet-mini: residual blocks of each stage. Default: 1,1,1.")
    stem_kernel: int | None = Field(
        None, ge=1, description="resnet-mini: kernel size of the first convolution. Default: 3."
    )
    stem_stride: int | None = Field(None, ge=1, description="resnet-mini: stride of the first convolution. Default: 2.")
    max_pool: bool | None = Field(
        None, description="resnet-mini: max pooling after the first convolution. Default: no."
    )
    weights: str | None = Field(
        None,
        description="Start from existing weights: a run folder, a .safetensors file, or a torch file of plain tensors. "
        "Prefixes such as module. are removed; a head of another shape is initialized anew.",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout probability after each of the first three stages.")

    reg: Literal["non-local", "none"] = Field(
        "none", description="Regularizer; non-local promotes dependence between distant patches."
    )
    reg_coeff: float = Field(1.0, ge=0, description="Coefficient c of the regularizer R: loss = task loss + c R.")
    reg_every: int = Field(
        1,
        ge=1,
        description="Add the regularizer only every k-th step, with coefficient k c. Cheaper, but a different method "
        "from the published one: k = 4 lost part of the gain in our measurements.",
    )
    patch_size: int | None = Field(
        None,
        ge=1,
        description="Side of the two patches of the regularizer, which are then drawn at random. Default: 2, or the "
        "two images of is-same-class.",
    )
    patch_distance: int | None = Field(
        None, ge=0, description="Pixels between the randomly drawn patches. Default: any number."
    )
    patch_sampler: Literal["random", "different"] = Field(
        "random",
        description="How to draw patches. different: of 16 random pairs, take the one whose swapped patch differs in "
        "the most images of the batch. This is not the published method; it is for images that are the same in most "
        "places.",
    )
    patches: Patches | None = Field(
        None, description="The two patches, in pixels from the top left corner; give the option twice."
    )
    formulation: Literal["auto", "double-backward", "tangent"] = Field(
        "auto",
        description="How to compute the gradient of the regularizer; both ways give the same numbers. auto: tangent "
        "with --compile, else double-backward.",
    )

    optimizer: Literal["sgd", "adam"] = Field("sgd", description="Optimizer.")
    lr: float = Field(0.01, gt=0, description="Learning rate.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of sgd.")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay.")
    batch_size: int = Field(64, ge=2, description="Images per step, over all processes.")
    accumulate: int = Field(
        1,
        ge=1,
        description="Process each batch in this many parts to save memory; batch normalization sees one part at a "
        "time.",
    )
    epochs: int = Field(150, ge=0, description="Maximum number of epochs.")
    patience: int = Field(20, ge=1, description="Stop after this many consecutive epochs with train accuracy 1.")
    dtype: Literal["float32", "float64"] = Field("float32", description="Number type of the weights.")
    precision: Literal["float32", "tf32", "bf16", "fp16"] | None = Field(
        None,
        description="Round products and convolutions to this; weights, statistics and the cosine of R stay float32. "
        "bf16 (7 bits) turns the gradient of R far more than tf32 and fp16 (10 bits). Default: tf32 on CUDA, float32 "
        "on a CPU.",
    )
    compile: bool = Field(
        False,
        description="Compile the network (torch.compile). Batches are then of one size: what is left over of the train "
        "images, others in each epoch, is left out.",
    )
    channels_last: bool = Field(False, description="Use the memory format channels_last.")
    device: Device = Field("auto", description="auto, cpu, cuda or cuda:N.")
    threads: int | None = Field(None, ge=1, description="CPU threads. Default: torch's choice.")
    seed: Seed = Field(0, description="Seed of everything random.")

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_files(cls, values: Any) -> Any:
        """Networks and runs of version 0.1 were saved with `amp`, which was bf16."""
        if not isinstance(values, dict) or "amp" not in values:
            return values
        kept = {key: value for key, value in values.items() if key != "amp"}
        return {"precision": "bf16", **kept} if values["amp"] else kept

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for choice, value, fields in (
            ("task", "is-same-class", _SAME_CLASS_FIELDS),
            ("task", "pathfinder", _PATHFINDER_FIELDS),
            ("model", "resnet-mini", _MINI_FIELDS),
            ("reg", "non-local", _REG_FIELDS),
            ("optimizer", "sgd", ("momentum",)),
        ):
            chosen = getattr(self, choice)
            if chosen != value and (wrong := self.changed(*fields)):
                raise ValueError(f"{', '.join(wrong)}: only for {choice} {value} (got {choice} {chosen or 'unset'})")
        if self.task is None and (wrong := self.changed("train", "test")):
            raise ValueError(f"{', '.join(wrong)}: only where --task generates images")
        if self.model not in NETWORKS and not USER_NETWORK.fullmatch(self.model):
            guess = did_you_mean(self.model, NETWORKS).strip()
            allowed = f"allowed {', '.join(NETWORKS)}, module:function"
            raise ValueError(
                f"model: unknown network (got {self.model!r}, {allowed})" + (f". {guess}" if guess else "")
            )
        if self.dropout and self.model not in NETWORKS:
            raise ValueError(f"dropout: a network of yours has its own (got model {self.model})")
        for name in ("widths", "blocks"):
            if isinstance(getattr(self, name), int | dict):
                raise ValueError(f"{name}: one number per stage (got {getattr(self, name)}, allowed e.g. 8,16,32)")
        if self.task == "pathfinder" and self.image_size is not None:
            raise ValueError("image-size: only for a folder of images (got task pathfinder)")
        if self.compile and self.reg == "non-local" and self.formulation == "double-backward":
            raise ValueError("compile: gradients of gradients cannot be compiled (got formulation double-backward)")
        if self.compile and self.reg == "non-local" and self.dropout:
            raise ValueError("compile: a compiled regularizer would draw two different dropout masks (got dropout)")
        if self.patches is not None and (wrong := self.changed(*_RANDOM_PATCH_FIELDS)):
            raise ValueError(f"{', '.join(wrong)}: only for randomly drawn patches (got patches)")
        if self.patch_sampler == "different" and self.accumulate > 1:
            raise ValueError(f"patch-sampler: different looks at a whole batch (got accumulate {self.accumulate})")
        if self.dtype == "float64" and self.precision not in (None, "float32"):
            raise ValueError(f"precision: float64 is not rounded (got {self.precision}, dtype float64)")
        if self.accumulate > self.batch_size // 2:
            raise ValueError(f"accumulate: leaves parts of less than two images (got {self.accumulate})")
        return self

    @property
    def mini_shape(self) -> dict[str, Any]:
        """Fields of the network's shape that are set."""
        values = {name: getattr(self, name) for name in _MINI_FIELDS}
        return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if v is not None}

    def generation(self) -> IsSameClassConfig | PathfinderConfig | None:
        """What to generate, if anything."""
        if self.task is None:
            return None
        fields = (*_SAME_CLASS_FIELDS, "image_size") if self.task == "is-same-class" else _PATHFINDER_FIELDS
        names = ("train", "test", "seed", *fields)
        given = {n: v for n in names if (v := getattr(self, n)) is not None and v is not False}
        return (IsSameClassConfig if self.task == "is-same-class" else PathfinderConfig).checked(given)


class MeasureLocalityConfig(Config):
    """`htf measure-locality`: of networks, on which images and between which patches; of data, which partitions."""

    data: str | None = Field(
        None,
        description="Networks: image data set, of which the test images are used. Default: that of the run.",
    )
    model: str | None = Field(
        None,
        description="module:function that builds the networks of the runs, called with (channels, outputs). This is "
        "the only way in which htf runs a user's code.",
    )
    weights: str | None = Field(
        None,
        description="Weights for a module:function: a run folder, a .safetensors file, or a torch file of plain "
        "tensors.",
    )
    patch_size: int | None = Field(
        None,
        ge=1,
        description="Side of randomly drawn patches. Default: a twelfth of the larger side of the images; for "
        "is-same-class, the two images are the patches.",
    )
    distance: Distances | None = Field(
        None, description="Distances between patches in pixels. Default: nine, up to the largest that fits."
    )
    pairs: int = Field(16, ge=1, description="Pairs of patches per distance.")
    samples: int | None = Field(
        None, ge=2, description="Images per pair of patches (default 64), or samples of data, drawn at random (all)."
    )
    table: int = Field(12, ge=2, description="Rows and columns of each cross table.")
    label: str | None = Field(
        None,
        description="Data: column of labels of a table, or array of labels of an .npz or .pt file. Default: no labels; "
        "image data sets have their own.",
    )
    grid: Dims | None = Field(
        None, description="Data: height,width of the grid that features of a table or of rows of an array lie on."
    )
    angle: float = Field(
        0.085,
        gt=0,
        le=0.5,
        description="Data: angle theta of the feature map x -> (cos pi theta x, sin pi theta x), with x in [0, 1].",
    )
    levels: Levels | None = Field(
        None, description="Data: levels of the canonical partitions, e.g. 1,2,3. Default: 1 and 2."
    )
    exact: bool | None = Field(
        None,
        description="Data: decompose Gram matrices, or estimate, with a standard error. Default: exact with up to 2000 "
        "samples.",
    )
    device: Device = Field("auto", description="auto, cpu, cuda or cuda:N.")
    threads: int | None = Field(None, ge=1, description="CPU threads. Default: torch's choice.")
    seed: Seed = Field(0, description="Seed of everything random.")

    @property
    def of_networks(self) -> list[str]:
        """Options given that are for networks."""
        return self.changed("data", "model", "weights", "patch_size", "distance", "pairs", "table")

    @property
    def of_data(self) -> list[str]:
        """Options given that are for data."""
        return self.changed("label", "grid", "angle", "levels", "exact")


class RearrangeConfig(Config):
    """`htf rearrange`: where the features lie, and how their order is found."""

    label: str | None = Field(None, description="Column of labels of a table: it is not moved.")
    grid: Dims | None = Field(
        None, description="height,width of the grid that features of a table or of rows of an array lie on."
    )
    apply: str | None = Field(None, description="Apply the order in this file, of an earlier call, to DATA.")
    samples: int | None = Field(None, ge=2, description="Find the order from so many samples, drawn at random (all).")
    seed: Seed = Field(0, description="Seed of everything random.")
