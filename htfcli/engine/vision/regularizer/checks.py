"""What the regularizer refuses, in one line: inputs without a gradient, operations without a second derivative."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from htfcli.errors import ConfigError

# of torch's messages where an operation lacks a rule; other errors are the network's own
_NO_RULE = (
    "does not support it because it has not been implemented",  # forward mode
    "is not implemented",  # "the derivative for 'X' is not implemented"
    "functorch transforms",  # an autograd.Function without setup_context
)


def check_inputs(model: nn.Module, x: Tensor, partners: Tensor | None, formulation: str) -> None:
    """Raise ConfigError where R or its gradient cannot be had.

    Args:
        x: (b, c, ...). partners: like x, or None.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError("the network is not a torch.nn.Module", got=type(model).__name__)
    if isinstance(model, DistributedDataParallel):
        raise ConfigError(
            "DistributedDataParallel must wrap the regularized network, not the network",
            next_step="Use DistributedDataParallel(RegularizedModel(model, regularizer)).",
        )
    if any(hasattr(m, "_orig_mod") or getattr(m, "_compiled_call_impl", None) for m in model.modules()):
        raise ConfigError(
            "gradients of a compiled network cannot be differentiated",
            next_step='Give the network itself, and formulation="tangent", compile=torch.compile.',
        )
    if formulation == "tangent" and any(isinstance(m, torch.jit.ScriptModule) for m in model.modules()):
        advice = 'Give the network itself, or formulation="double-backward".'
        raise ConfigError("a scripted network has no forward-mode derivatives", next_step=advice)
    if not x.is_floating_point():
        got = str(x.dtype).removeprefix("torch.")
        raise ConfigError("images must be floating point", got=got, next_step="Convert them, as by x.float() / 255.")
    if torch.is_inference_mode_enabled() or x.is_inference():
        raise ConfigError("there are no gradients in inference mode", next_step="Use torch.no_grad() for R alone.")
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise ConfigError("the network was made in inference mode", next_step="Make it outside of it.")
    if x.dim() < 3:
        raise ConfigError("inputs have no positions", got=tuple(x.shape), allowed="batch, channels, one axis or more")
    if partners is None and len(x) < 2:
        raise ConfigError("a batch of one has no other sample to take a patch from", got=len(x), allowed="2 or more")
    if partners is not None and (partners.shape, partners.dtype) != (x.shape, x.dtype):
        got, allowed = (f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in (partners, x))
        raise ConfigError("partners are not like the images", got=got, allowed=allowed)


@contextmanager
def explained(formulation: str) -> Iterator[None]:
    """Turn torch's error about an operation without the derivative that a formulation needs into a ConfigError."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        if not any(part in str(error) for part in _NO_RULE):
            raise
        advice = "Replace it."
        if formulation == "tangent":
            advice = 'Replace it, or use formulation="double-backward", which asks for less.'
        raise ConfigError(f"an operation of the network lacks a derivative: {reason}", next_step=advice) from None
