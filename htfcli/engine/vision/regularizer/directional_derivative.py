"""A network's directional derivative as a program of its own: (x, dx) -> (f(x), the derivative of f at x along dx).

The network is traced once (torch.fx) and every operation is replaced by one on pairs (value, tangent). What comes out
holds nothing but ordinary differentiable operations, so it compiles, runs under DistributedDataParallel, and a single
backward pass of its tangent gives the parameter gradient of <dx, grad_x f>. Batch normalization is written out: the
derivative of torch's own forward-mode rule in training mode is silently wrong (pytorch issue 196699).

Axes: `b` batch, `c` channels, `h` rows, `w` columns.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 -- its name everywhere
from torch import Tensor, fx, nn

from htfcli.errors import ConfigError

Pair = tuple[Tensor, Tensor]
Rule = Callable[..., Any]

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def tangent_program(model: nn.Module) -> fx.GraphModule:
    """The program (x, dx) -> (f(x), df) of a network in its present mode; parameters are shared, buffers only read.

    Raises:
        ConfigError: if the network cannot be traced or holds an operation without a rule.
    """
    tracer = _Tracer()
    try:
        graph = tracer.trace(model)
    except Exception as error:  # whatever the user's forward raises when it is run on a stand-in for its input
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _unknown(f"the network cannot be traced: {reason}") from None
    program = fx.GraphModule(model, graph)
    modules, weights = dict(program.named_modules()), dict(program.named_parameters())
    paired: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder":
            if paired:
                raise _unknown("a network of several inputs")
            paired.add(node)
        elif node.op == "get_attr" and str(node.target) not in weights:
            if getattr(_attribute(program, str(node.target)), "requires_grad", False):
                raise _unknown("a weight that is computed before it is traced")  # the program would not follow it
        elif paired.isdisjoint(node.all_input_nodes) or node.op == "output":
            continue
        elif node.op == "call_module":
            # An fx graph's modules are its own hierarchy, so the network keeps its batch normalization
            parent, _, name = str(node.target).rpartition(".")
            setattr(program.get_submodule(parent), name, _BatchNormTangent(modules[str(node.target)]))
            paired.add(node)
        elif node.target in _OF_THE_VALUE or (node.target is getattr and node.args[1] == "shape"):
            with graph.inserting_before(node):
                value = graph.call_function(operator.getitem, (node.args[0], 0))
            node.args = (value, *node.args[1:])
        else:
            if "input" in node.kwargs:  # rules take the pair as their first argument
                node.args, node.kwargs = (
                    (node.kwargs["input"], *node.args),
                    {key: value for key, value in node.kwargs.items() if key != "input"},
                )
            node.op, node.target = "call_function", _rule_of(node)
            paired.add(node)
    program.recompile()
    return program


def _attribute(module: nn.Module, path: str) -> Any:
    parent, _, name = path.rpartition(".")
    return getattr(module.get_submodule(parent), name)


class _Tracer(fx.Tracer):
    """Traces into everything but batch normalization, whose forward looks at its input."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, BATCH_NORMS)


def _rule_of(node: fx.Node) -> Rule:
    rule = _RULES.get(node.target)
    if rule is None:
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        raise _unknown(f"the operation {name}")
    return rule


def _unknown(what: str) -> ConfigError:
    return ConfigError(
        "the tangent formulation does not know this network",
        got=what,
        allowed="convolutions, linear and normalization layers, pooling, common activations, sums and products",
        next_step="Use the formulation double-backward.",
    )


# --- rules ------------------------------------------------------------------------------------------------------------


def _linear(function: Rule) -> Rule:
    """An operation that is linear in its first argument."""

    def rule(pair: Pair, *args: Any, **kwargs: Any) -> Pair:
        return function(pair[0], *args, **kwargs), function(pair[1], *args, **kwargs)

    return rule


def _affine(function: Rule) -> Rule:
    """Convolution or linear layer: the bias has no tangent."""

    def rule(pair: Pair, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any) -> Pair:
        return function(pair[0], weight, bias, *args, **kwargs), function(pair[1], weight, None, *args, **kwargs)

    return rule


def _elementwise(function: Rule, derivative: Rule) -> Rule:
    def rule(pair: Pair, *args: Any, inplace: bool = False, **kwargs: Any) -> Pair:
        value, tangent = pair
        return function(value, *args, **kwargs), tangent * derivative(value, *args, **kwargs)

    return rule


def _relu(pair: Pair, inplace: bool = False) -> Pair:
    value, tangent = pair
    return F.relu(value), tangent * (value > 0)


def _leaky_relu(pair: Pair, negative_slope: float = 0.01, inplace: bool = False) -> Pair:
    value, tangent = pair
    return F.leaky_relu(value, negative_slope), torch.where(value > 0, tangent, negative_slope * tangent)


def _sigmoid_slope(value: Tensor) -> Tensor:
    return torch.sigmoid(value) * torch.sigmoid(-value)


def _tanh_slope(value: Tensor) -> Tensor:
    return 1 - torch.tanh(value).square()


def _silu_slope(value: Tensor) -> Tensor:
    s = torch.sigmoid(value)
    return s * (1 + value * (1 - s))


def _gelu(pair: Pair, approximate: str = "none") -> Pair:
    if approximate != "none":
        raise _unknown("gelu by tanh")
    value, tangent = pair
    density = torch.exp(-0.5 * value.square()) / math.sqrt(2 * math.pi)
    return F.gelu(value), tangent * (0.5 * (1 + torch.erf(value / math.sqrt(2))) + value * density)


def _softplus_slope(value: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    return torch.where(value * beta > threshold, 1.0, torch.sigmoid(value * beta))


def _max_pool(
    pair: Pair, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Pair:  # fmt: skip
    value, where = F.max_pool2d(pair[0], kernel_size, stride, padding, dilation, ceil_mode, return_indices=True)
    return value, pair[1].flatten(2).gather(2, where.flatten(2)).view_as(value)


def _dropout(pair: Pair, p: float = 0.5, training: bool = True, inplace: bool = False) -> Pair:
    if not training:
        return pair
    mask = F.dropout(torch.ones_like(pair[0]), p)  # what dropout of the value would draw
    return pair[0] * mask, pair[1] * mask


def _add(a: Any, b: Any) -> Any:
    if not isinstance(a, tuple):
        a, b = b, a
    return (a[0] + b[0], a[1] + b[1]) if isinstance(b, tuple) else (a[0] + b, a[1])


def _sub(a: Any, b: Any) -> Any:
    return _add(a, _mul(b, -1.0) if isinstance(b, tuple) else -b)


def _mul(a: Any, b: Any) -> Any:
    if not isinstance(a, tuple):
        a, b = b, a
    return (a[0] * b[0], a[0] * b[1] + a[1] * b[0]) if isinstance(b, tuple) else (a[0] * b, a[1] * b)


def _divide(a: Any, b: Any) -> Any:
    if isinstance(b, tuple):
        raise _unknown("a quotient of two values that depend on the input")
    return a[0] / b, a[1] / b


def _cat(tensors: list[Pair], dim: int = 0) -> Pair:
    return torch.cat([value for value, _ in tensors], dim), torch.cat([tangent for _, tangent in tensors], dim)


def normalized(pair: Pair, mean: Callable[[Tensor], Tensor], eps: float) -> Pair:
    """n = (x - E x) / sqrt(Var x + eps) and dn = (dx - E dx - n E[n dx]) / sqrt(Var x + eps).

    In float32 at least, as torch's own normalization does under autocast.

    Args:
        pair: x and dx, of any shape. mean: E, over the axes that share statistics; broadcasts against its argument.
    """
    value, tangent = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in pair)
    centred, tangent = value - mean(value), tangent - mean(tangent)
    scale = (mean(centred.square()) + eps).rsqrt()
    value = centred * scale
    return value, scale * (tangent - value * mean(value * tangent))


def _scaled(pair: Pair, weight: Tensor | None, bias: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype) -> Pair:
    value, tangent = pair
    if weight is not None:
        value, tangent = value * weight.view(shape), tangent * weight.view(shape)
    return (value if bias is None else value + bias.view(shape)).to(dtype), tangent.to(dtype)


def _group_norm(
    pair: Pair, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Pair:
    shape = pair[0].shape
    grouped = tuple(t.reshape(shape[0], num_groups, -1) for t in pair)  # (b, groups, the rest)
    value, tangent = normalized((grouped[0], grouped[1]), lambda t: t.mean(2, keepdim=True), eps)
    return _scaled(
        (value.view(shape), tangent.view(shape)), weight, bias, (1, shape[1], *[1] * (len(shape) - 2)), pair[0].dtype
    )


class _BatchNormTangent(nn.Module):
    """Batch normalization of pairs by this batch's statistics, or by the running ones outside training."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        assert isinstance(norm, BATCH_NORMS)
        self.norm = norm

    def forward(self, pair: Pair) -> Pair:
        norm = self.norm
        shape = (1, -1, *[1] * (pair[0].dim() - 2))
        if norm.training or norm.running_mean is None or norm.running_var is None:
            axes = [0, *range(2, pair[0].dim())]
            # Our batch normalization over processes brings its own mean
            mean = getattr(norm, "mean_over_batch", lambda t: t.mean(axes, keepdim=True))
            return _scaled(normalized(pair, mean, norm.eps), norm.weight, norm.bias, shape, pair[0].dtype)
        scale = (norm.running_var + norm.eps).rsqrt().view(shape)
        value = (pair[0] - norm.running_mean.view(shape)) * scale
        return _scaled((value, pair[1] * scale), norm.weight, norm.bias, shape, pair[0].dtype)


# By function, or by name for methods of tensors.
_LINEAR = (
    F.avg_pool2d, F.adaptive_avg_pool2d, torch.flatten, torch.mean, torch.sum, torch.reshape, torch.squeeze,
    operator.getitem, operator.neg,
)  # fmt: skip
_LINEAR_METHODS = (
    "flatten", "view", "reshape", "mean", "sum", "contiguous", "permute", "transpose", "squeeze", "unsqueeze",
)  # fmt: skip
_SAME: tuple[tuple[Rule, tuple[Any, ...]], ...] = (
    (_relu, (F.relu, torch.relu, torch.relu_, "relu", "relu_")),
    (_leaky_relu, (F.leaky_relu,)),
    (_elementwise(F.softplus, _softplus_slope), (F.softplus,)),
    (_elementwise(F.silu, _silu_slope), (F.silu,)),
    (_elementwise(torch.sigmoid, _sigmoid_slope), (torch.sigmoid, F.sigmoid, "sigmoid")),
    (_elementwise(torch.tanh, _tanh_slope), (torch.tanh, F.tanh, "tanh")),
    (_gelu, (F.gelu,)),
    (_max_pool, (F.max_pool2d,)),
    (_dropout, (F.dropout,)),
    (_group_norm, (F.group_norm,)),
    (_cat, (torch.cat,)),
    (_add, (operator.add, operator.iadd, torch.add, "add", "add_")),
    (_sub, (operator.sub, torch.sub, "sub")),
    (_mul, (operator.mul, operator.imul, torch.mul, "mul")),
    (_divide, (operator.truediv, torch.div)),
)
_RULES: dict[Any, Rule] = {
    **{function: _affine(function) for function in (F.conv1d, F.conv2d, F.conv3d, F.linear)},
    **{function: _linear(function) for function in _LINEAR},
    **{name: _linear(getattr(Tensor, name)) for name in _LINEAR_METHODS},
    **{key: rule for rule, keys in _SAME for key in keys},
}
_OF_THE_VALUE = ("size", "dim")  # methods that ask for the shape
