"""The directional derivative of a function of a network's outputs, which can be differentiated again.

torch's forward-mode rules of batch, layer, group and instance normalization treat mean and deviation as constants when
they are differentiated once more, so the gradient of a directional derivative is silently wrong by tens of per cent
(pytorch issue 196699). Here normalization is therefore written out in sums, products and one root while a network runs;
so is the gated linear unit, whose rule has no derivative. Convolutions and products of layers are applied to value and
tangent apart: torch's rule also convolves the value with a tangent of the weights, which is zero. What comes out holds
nothing but ordinary differentiable operations: it compiles, and one backward pass of the derivative gives the parameter
gradient of <dx, grad_x f>.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 -- its name everywhere
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, jvp
from torch.overrides import TorchFunctionMode

with warnings.catch_warnings():  # torch warns of its own use of torch.jit when forward mode is first used
    warnings.simplefilter("ignore", DeprecationWarning)
    importlib.import_module("torch._decomp.decompositions_for_jvp")


def directional_derivative(
    model: nn.Module,
    buffers: dict[str, Tensor],
    logit: Callable[[Any, Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    dx: Tensor,
) -> tuple[Any, Tensor]:
    """Outputs of a network, and the derivative of a function of them along a direction of the input.

    Parameters are shared, so both can be differentiated with respect to them.

    Args:
        buffers: used in the place of the network's; both stay as they are. logit: (outputs, y) -> (b,).
        x: (b, c, ...). y: labels. dx: (b, c, ...), the direction.
    Returns: f(x), and d/dt logit(f(x + t dx), y) at t = 0, (b,).
    """

    def run(images: Tensor) -> tuple[Tensor, Any]:
        state = {**dict(model.named_parameters()), **{name: buffer.clone() for name, buffer in buffers.items()}}
        outputs = functional_call(model, state, (images,))
        return logit(outputs, y), outputs

    with _Rules():
        found: tuple[Any, ...] = jvp(run, (x,), (dx,), has_aux=True)
    _, derivative, outputs = found
    return outputs, derivative


class _Rules(TorchFunctionMode):
    """Calls of torch's normalizations and linear functions are replaced while it is active."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        if func not in _LINEAR and func not in _WRITTEN_OUT:
            return func(*args, **options)
        first = () if args else (options.pop("input"),)
        if func in _LINEAR:
            return _apart(func, *first, *args, **options)
        return _WRITTEN_OUT[func](*first, *args, **options)


def _unpacked(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Value and tangent; no tangent for what does not depend on the input."""
    value, tangent = forward_ad.unpack_dual(x)  # type: ignore[no-untyped-call]
    return value, tangent


def _dual(value: Tensor, tangent: Tensor) -> Tensor:
    packed: Tensor = forward_ad.make_dual(value, tangent)  # type: ignore[no-untyped-call]
    return packed


def _apart(func: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **options: Any) -> Any:
    """A function linear in its input: of the value, with the bias, and of the tangent, without; weights have none."""
    value, tangent = _unpacked(x)
    if tangent is None or any(t is not None and _unpacked(t)[1] is not None for t in (weight, bias)):
        return func(x, weight, bias, *args, **options)
    return _dual(func(value, weight, bias, *args, **options), func(tangent, weight, None, *args, **options))


def _normalized(
    x: Tensor, axes: list[int], eps: float, weight: Tensor | None, bias: Tensor | None, shape: tuple[int, ...]
) -> Tensor:
    """g (x - E x) + bias over some axes, g = weight / sqrt(Var x + eps); in float32 at least, as torch's own does under
    autocast. Its tangent is g (d - (x - E x) E((x - E x) d) / (Var x + eps)), d = dx - E dx.

    Args:
        shape: in which weight and bias broadcast against x.
    """
    value, tangent = _unpacked(x)
    value = value.to(torch.promote_types(x.dtype, torch.float32))
    centred = value - value.mean(axes, keepdim=True)
    inverse = (centred.square().mean(axes, keepdim=True) + eps).rsqrt()
    gain = inverse if weight is None else inverse * weight.view(shape)
    normal = centred * gain
    normal = (normal if bias is None else normal + bias.view(shape)).to(x.dtype)
    if tangent is None:
        return normal
    tangent = tangent.to(value.dtype)
    moved = tangent - tangent.mean(axes, keepdim=True)
    along = (centred * moved).mean(axes, keepdim=True) * inverse.square()
    return _dual(normal, ((moved - centred * along) * gain).to(x.dtype))


def _channels(x: Tensor) -> tuple[int, ...]:
    """The shape in which one number per channel broadcasts against x (b, c, ...)."""
    return (1, -1, *[1] * (x.dim() - 2))


def _batch_norm(
    x: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    shape = _channels(x)
    if training or running_mean is None or running_var is None:
        return _normalized(x, [0, *range(2, x.dim())], eps, weight, bias, shape)
    gain = (running_var + eps).rsqrt() if weight is None else (running_var + eps).rsqrt() * weight
    shift = -running_mean * gain if bias is None else bias - running_mean * gain
    return (x * gain.view(shape) + shift.view(shape)).to(x.dtype)


def _instance_norm(
    x: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None, weight: Tensor | None = None,
    bias: Tensor | None = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    if not use_input_stats:
        return _batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    return _normalized(x, list(range(2, x.dim())), eps, weight, bias, _channels(x))


def _group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    grouped = x.reshape(x.shape[0], num_groups, x.shape[1] // num_groups, -1)
    return _normalized(grouped, [2, 3], eps, weight, bias, (1, num_groups, -1, 1)).view(x.shape)


def _layer_norm(
    x: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    shape = tuple(normalized_shape)
    return _normalized(x, list(range(-len(shape), 0)), eps, weight, bias, shape)


def _glu(x: Tensor, dim: int = -1) -> Tensor:
    value, gate = x.chunk(2, dim)
    return value * gate.sigmoid()


_LINEAR = {
    F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d,
    torch.conv1d, torch.conv2d, torch.conv3d, torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d,
}  # fmt: skip

# torch's own functions take a flag more than those of torch.nn.functional, which is about kernels
_WRITTEN_OUT: dict[Any, Callable[..., Tensor]] = {
    F.batch_norm: _batch_norm,
    F.instance_norm: _instance_norm,
    F.group_norm: _group_norm,
    F.layer_norm: _layer_norm,
    F.glu: _glu,
    torch.batch_norm: lambda x, weight, bias, mean, var, training, momentum, eps, cudnn_enabled: _batch_norm(
        x, mean, var, weight, bias, training, momentum, eps
    ),
    torch.instance_norm: lambda x, weight, bias, mean, var, use_input_stats, momentum, eps, cudnn_enabled: (
        _instance_norm(x, mean, var, weight, bias, use_input_stats, momentum, eps)
    ),
    torch.group_norm: lambda *args, cudnn_enabled=True, **options: _group_norm(*args[:5], **options),
    torch.layer_norm: lambda *args, cudnn_enable=True, **options: _layer_norm(*args[:5], **options),
}
