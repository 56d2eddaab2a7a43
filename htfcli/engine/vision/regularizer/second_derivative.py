"""Convolutions and normalizations whose gradients are differentiated once more, while `SecondDerivatives` is active.

torch computes the gradient by the weights w of a convolution's input gradient g_x as one convolution whose kernel is as
large as an image, for which cuDNN has no fast program. It is the weight gradient of another one: with h the gradient by
g_x, and g_y the gradient by the output, of the convolution with input h and output gradient g_y.

Its rule for the second derivative of batch normalization takes thirty sums in turn, in the type of the input, which
overflow in float16. Here it takes five at once, in float32 at least; other normalizations are run in float32 too.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 -- its name everywhere
from torch import Tensor
from torch.autograd.function import Function, once_differentiable
from torch.overrides import TorchFunctionMode

_convolution, _convolution_backward = torch.ops.aten.convolution, torch.ops.aten.convolution_backward


def second_derivatives(device: torch.device) -> AbstractContextManager[object]:
    """`SecondDerivatives` on CUDA. On a CPU torch's own rules take about as long: 5.3 steps without R for the miniature
    network and 5.2 for a ResNet18, these 6.0 and 5.0."""
    return SecondDerivatives() if device.type == "cuda" else nullcontext()


class SecondDerivatives(TorchFunctionMode):
    """Calls of torch's convolutions and normalizations are replaced while it is active; their values stay the same.

    Gradients taken while it is active are those by the input: those by the weights are then left out, which torch
    cannot know of functions written in Python.
    """

    def __init__(self) -> None:
        super().__init__()
        self.active = False

    def __enter__(self) -> SecondDerivatives:
        self.active = True
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        self.active = False
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        if func not in _AXES and func not in _NORMALIZATIONS and func is not F.batch_norm:
            return func(*args, **options)
        first = () if args else (options.pop("input"),)
        if func in _AXES:
            return _convolved(self, func, *first, *args, **options)
        if func in _NORMALIZATIONS:
            return _in_float32(func, *first, *args, **options)
        return _batch_normalized(self, *first, *args, **options)


def _convolved(
    mode: SecondDerivatives, func: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
    padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    axes = _AXES[func]
    if isinstance(padding, str) or x.dim() != axes + 2:  # which torch turns into numbers, or a batch, itself
        return func(x, weight, bias, stride, padding, dilation, groups)  # type: ignore[no-any-return]
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    sizes = (_each(stride, axes), _each(padding, axes), _each(dilation, axes), False, [0] * axes, groups)
    found: Tensor = _Convolution.apply(x, weight, mode, *sizes)  # type: ignore[no-untyped-call]
    return found if bias is None else found + bias.view(-1, *[1] * axes)


def _each(value: Any, axes: int) -> list[int]:
    return [value] * axes if isinstance(value, int) else list(value) * (axes if len(value) == 1 else 1)


class _Convolution(Function):
    """y = w * x, of the arguments of torch.ops.aten.convolution but the bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, mode: SecondDerivatives, *sizes: Any) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.mode, ctx.sizes = mode, sizes
        return _convolution(x, w, None, *sizes)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, g_y: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        by_x, by_w = ctx.needs_input_grad[0], ctx.needs_input_grad[1] and not ctx.mode.active
        g_x = _InputGradient.apply(g_y, x.detach(), w, *ctx.sizes) if by_x else None  # type: ignore[no-untyped-call]
        g_w = _convolution_backward(g_y, x, w, None, *ctx.sizes, [False, True, False])[1] if by_w else None
        return g_x, g_w, None, *[None] * len(ctx.sizes)


class _InputGradient(Function):
    """g_x from g_y and w; x says its shape."""

    @staticmethod
    def forward(ctx: Any, g_y: Tensor, x: Tensor, w: Tensor, *sizes: Any) -> Tensor:
        ctx.save_for_backward(g_y, w)
        ctx.sizes = sizes
        return _convolution_backward(g_y, x, w, None, *sizes, [True, False, False])[0]  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, h: Tensor) -> tuple[Tensor | None, ...]:
        g_y, w = ctx.saved_tensors
        by_g_y, _, by_w = ctx.needs_input_grad[:3]
        g_g_y = _convolution(h, w, None, *ctx.sizes) if by_g_y else None
        g_w = _convolution_backward(g_y, h, w, None, *ctx.sizes, [False, True, False])[1] if by_w else None
        return g_g_y, None, g_w, *[None] * len(ctx.sizes)


def _in_float32(func: Any, x: Tensor, *args: Any, **options: Any) -> Tensor:
    if x.dtype not in (torch.float16, torch.bfloat16):
        return func(x, *args, **options)  # type: ignore[no-any-return]
    with torch.autocast(x.device.type, enabled=False):
        found: Tensor = func(x.float(), *args, **options)
    return found.to(x.dtype)


def _batch_normalized(
    mode: SecondDerivatives, x: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
    weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False, momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    if not training:
        return _in_float32(F.batch_norm, x, running_mean, running_var, weight, bias, False, momentum, eps)
    precise = x.to(torch.promote_types(x.dtype, torch.float32))
    found: Tensor = _BatchNorm.apply(  # type: ignore[no-untyped-call]
        precise, weight, bias, mode, running_mean, running_var, momentum, eps
    )
    return found.to(x.dtype)


class _BatchNorm(Function):
    """y = weight n + bias, n = (x - E x) / sqrt(Var x + eps) over samples and positions."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, mode: SecondDerivatives,
        running_mean: Tensor | None, running_var: Tensor | None, momentum: float, eps: float,
    ) -> Tensor:  # fmt: skip
        y, mean, inverse = torch.native_batch_norm(x, weight, bias, running_mean, running_var, True, momentum, eps)
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.mode, ctx.eps = mode, eps
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        if ctx.mode.active:
            by_x = _BatchNormGradient.apply(g, x, weight, mean, inverse, ctx.eps)  # type: ignore[no-untyped-call]
            return by_x, *[None] * 7
        return *_batch_norm_backward(g, x, weight, mean, inverse, ctx.eps, ctx.needs_input_grad[:3]), *[None] * 5


class _BatchNormGradient(Function):
    """g_x = weight s P(g), s = 1 / sqrt(Var x + eps), P(u) = u - E u - n E(n u)."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, inverse: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(g, x, weight, mean, inverse)
        found = _batch_norm_backward(g, x, weight, mean, inverse, eps, (True, False, False))[0]
        assert found is not None
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, h: Tensor) -> tuple[Tensor | None, ...]:
        """Of the sum of h g_x: P is its own adjoint, and along dx, dn = s P(dx) and ds = -s^2 E(n dx)."""
        g, x, weight, mean, inverse = ctx.saved_tensors
        shape, axes = (1, -1, *[1] * (x.dim() - 2)), [0, *range(2, x.dim())]
        s = inverse.view(shape)
        gain = s if weight is None else s * weight.view(shape)
        n = (x - mean.view(shape)) * s
        count = x.numel() // x.shape[1]
        means = torch.stack([t.sum(axes) for t in (g, n * g, h, n * h, h * g)]).view(5, *shape) / count
        mean_g, along_g, mean_h, along_h, both = means.unbind()
        projected_g, projected_h = g - mean_g - n * along_g, h - mean_h - n * along_h
        product = both - mean_h * mean_g - along_h * along_g  # E(h P(g))
        by_x = -gain * s * (n * product + projected_h * along_g + projected_g * along_h)
        by_weight = (s * product * count).view(-1) if weight is not None else None
        return gain * projected_h, by_x, by_weight, None, None, None


def _batch_norm_backward(
    g: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, inverse: Tensor, eps: float, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    backward = torch.ops.aten.native_batch_norm_backward
    return backward(g, x, weight, None, None, mean, inverse, True, eps, list(wanted))  # type: ignore[no-any-return]


_AXES = {F.conv1d: 1, F.conv2d: 2, F.conv3d: 3, torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
_NORMALIZATIONS = {
    F.instance_norm, F.group_norm, F.layer_norm, torch.instance_norm, torch.group_norm, torch.layer_norm,
}  # fmt: skip
