"""The number per sample whose gradient the regularizer looks at: the network's logit of what is true.

A logit is a function (outputs, y) -> (b,), differentiable in the outputs. Axes: `b` batch, `...` positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from htfcli.errors import ConfigError

Logit = Callable[[Any, Tensor], Tensor]

IGNORED = -100  # the label that torch's cross entropy leaves out


def true_logit(outputs: Any, y: Tensor) -> Tensor:
    """The logit of what is true, by the shapes of outputs and labels.

    - outputs (b,) or (b, 1), of any y: the single logit;
    - outputs (b, classes), y (b,) int64: the logit of the class;
    - outputs (b, classes) or (b, labels), y of the same shape: the mean of the logits weighted by y: soft labels, or
      several labels that hold at once;
    - outputs (b, classes, ...), y (b, ...) int64: the mean logit of the class over positions, `IGNORED` ones left out;
      of outputs (b, 1, ...) the mean of the single logit over the same positions.

    Raises:
        ConfigError: if the outputs are not one tensor, the shapes are none of these, or a label is no class.
    """
    if not isinstance(outputs, Tensor):
        advice = "Give logit=output_of(key), or a function (outputs, y) -> (b,)."
        raise ConfigError("the network has several outputs", got=type(outputs).__name__, next_step=advice)
    if outputs.dim() == 1 or outputs.shape[1:] == (1,):
        return outputs.flatten()
    if y.shape == outputs.shape:
        return weighted_logit(outputs, y)
    if y.shape == (len(outputs), *outputs.shape[2:]) and not y.is_floating_point():
        return _of_class(outputs, y) if outputs.dim() == 2 else dense_logit(outputs, y)
    raise ConfigError(
        "labels and outputs do not fit each other",
        got=f"labels {tuple(y.shape)} of {str(y.dtype).removeprefix('torch.')}, outputs {tuple(outputs.shape)}",
        next_step="Give logit=, a function (outputs, y) -> (b,).",
    )


def weighted_logit(outputs: Tensor, y: Tensor) -> Tensor:
    """Mean of the logits weighted by y, both (b, ...): soft labels, or 0 and 1 for each of several labels; (b,)."""
    weight = y.to(outputs).flatten(1)
    total = weight.sum(1)
    return (outputs.flatten(1) * weight).sum(1) / torch.where(total == 0, 1, total)


def dense_logit(outputs: Tensor, y: Tensor, ignored: int = IGNORED) -> Tensor:
    """Mean over positions of the logit of the class there.

    Args:
        outputs: (b, classes, ...), or (b, 1, ...) of a single logit whatever y is. y: (b, ...) int64; positions of
            label `ignored` do not count.
    Returns: (b,); 0 where no position counts.
    """
    counted = y != ignored
    logits = outputs.squeeze(1) if outputs.shape[1] == 1 else _of_class(outputs, torch.where(counted, y, 0))
    return torch.where(counted, logits, 0).flatten(1).sum(1) / counted.flatten(1).sum(1).clamp(min=1)


def _of_class(outputs: Tensor, y: Tensor) -> Tensor:
    """The logit of the class y (b, ...) in outputs (b, classes, ...)."""
    looked_at = y.device.type == "cpu" and not torch.compiler.is_compiling()  # elsewhere to look is to wait
    if looked_at and y.numel() and not 0 <= int(y.min()) <= int(y.max()) < outputs.shape[1]:
        got, allowed = f"{int(y.min())} to {int(y.max())}", f"0 to {outputs.shape[1] - 1}"
        advice = "Of dense labels, name another ignored one by logit=partial(dense_logit, ignored=...)."
        raise ConfigError("a label is no class of the network", got=got, allowed=allowed, next_step=advice)
    return outputs.gather(1, y.long()[:, None]).squeeze(1)


def output_of(key: Any, logit: Logit = true_logit) -> Logit:
    """The logit of one of several outputs: of a dictionary by its key, of a tuple by its number.

    Raises:
        ConfigError: when called, if there is no such output.
    """

    def of_output(outputs: Any, y: Tensor) -> Tensor:
        try:
            output = outputs[key]
        except (KeyError, IndexError, TypeError):
            got = ", ".join(map(str, outputs)) if isinstance(outputs, Mapping) else f"a {type(outputs).__name__}"
            raise ConfigError(f"the network has no output {key!r}", got=got) from None
        return logit(output, y)

    return of_output
