"""Which patches a training's regularizer looks at, and whether it can do anything with them."""

from __future__ import annotations

import torch
from torch import nn

from htfcli.config.vision import TrainCnnConfig
from htfcli.engine.vision.datasets.image_set import ImageData, Patch
from htfcli.engine.vision.regularizer.patches import (
    DifferentPatches,
    FixedPatches,
    PatchSampler,
    RandomPatches,
    gap,
)
from htfcli.engine.vision.resnet import ResNet
from htfcli.errors import ConfigError

DEFAULT_PATCH = 2  # side of random patches, as published
_LOOKED_AT = 512  # train images among which two patches are compared
_ROUNDING = 1e-6  # of a mean of cosines in float32


def patches_of(config: TrainCnnConfig, data: ImageData) -> PatchSampler:
    """The two patches of a configuration, those of the data set, or a sampler of random ones.

    Raises:
        ConfigError: if they do not fit the images.
    """
    patches: PatchSampler
    if config.patches is not None:
        patches = FixedPatches(*(Patch(*numbers) for numbers in config.patches))
    elif data.train.patches is not None and config.patch_size is None:
        for name in config.changed("patch_distance", "patch_sampler"):
            raise ConfigError(
                f"--{name} is for randomly drawn patches, these are the two images",
                got=getattr(config, name.replace("-", "_")),
                next_step="Give --patch-size too.",
            )
        patches = FixedPatches(*data.train.patches)
    else:
        kind = DifferentPatches if config.patch_sampler == "different" else RandomPatches
        patches = kind(config.patch_size or DEFAULT_PATCH, config.patch_distance)
    patches(*data.train.shape[1:], torch.Generator().manual_seed(0))  # complains now rather than at the first step
    return patches


def without_effect(patches: PatchSampler, coefficient: float, model: nn.Module, data: ImageData) -> str:
    """Why the regularizer cannot change the weights, as far as that can be seen before training; empty if it may.

    Args:
        patches: of the regularizer. coefficient: of R in the loss. model: the network. data: what it is trained on.
    """
    if coefficient == 0:
        return "the regularizer has no effect, as its coefficient is 0; raise --reg-coeff"
    apart = patches.distance if isinstance(patches, RandomPatches) else None
    if isinstance(patches, FixedPatches):
        if not _differ(patches, data):
            return (
                "the regularizer has no effect, as neither of the two patches differs between images: R is 1 whatever "
                "the weights are, and its gradient is zero"
            )
        apart = gap(patches.first, patches.second)
    if isinstance(model, ResNet) and apart is not None and apart + 2 > model.shape.receptive_field:
        return (
            f"the regularizer has no effect, as the receptive field is {model.shape.receptive_field} and the patches "
            f"are {apart} pixels apart: no unit sees both, R stays at 1 whatever the weights are, and its gradient is "
            "zero"
        )
    return ""


def _differ(patches: FixedPatches, data: ImageData) -> bool:
    """Whether one of two patches is not the same in all train images, of which some are looked at."""
    images = data.train.images(torch.arange(min(_LOOKED_AT, len(data.train))))
    return any(bool((p.of(images) != p.of(images[:1])).any()) for p in (patches.first, patches.second))


def without_effect_in(epoch: int, value: float | None) -> str:
    """Why a regularizer with this mean value over an epoch did nothing in it; empty if it did something, or is none."""
    if value is None or _ROUNDING < value < 1 - _ROUNDING:
        return ""
    if value <= _ROUNDING:
        return f"the regularizer had no effect in epoch {epoch}: R was 0, as the gradients are zero"
    return (
        f"the regularizer had no effect in epoch {epoch}: R was 1 in every batch, so its gradient is zero. Either the "
        "patches do not differ between images, or the network cannot relate them"
    )
