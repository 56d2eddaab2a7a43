"""The regularizer that asks a network for dependence between far-apart regions of its input.

For disjoint patches I, J of images x, with x' = x but for patch J, which comes from the next sample:

    R = mean over the batch of |cosine(g, g')|,  g = grad of the true class's logit wrt x_I at x,  g' the same at x'

R = 1 where the effect of region I does not depend on region J; adding coefficient * R to a loss makes it depend.

Source: Razin, Maman, Cohen (ICML 2022, arXiv 2201.11729), regularization promoting non-local dependence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from htfcli.engine.vision.datasets.image_set import Region
from htfcli.engine.vision.regularizer.checks import check_inputs, explained
from htfcli.engine.vision.regularizer.directional_derivative import directional_derivative
from htfcli.engine.vision.regularizer.logits import Logit, true_logit
from htfcli.engine.vision.regularizer.patches import PatchPair, PatchSampler, check_pair, sampler_of
from htfcli.engine.vision.regularizer.second_derivative import second_derivatives
from htfcli.errors import ConfigError

Formulation = Literal["double-backward", "tangent"]
Network = Callable[[Tensor], Any]


class NonLocalRegularizer:
    """R for a batch, with its gradient with respect to the parameters. Two formulations give the same numbers:

    `double-backward` differentiates the gradients g, g'. The faster one, but torch.compile takes no gradients of
    gradients.

    `tangent` holds v = dR/dg and v' = dR/dg' fixed and differentiates <v, g(x)> + <v', g(x')>, which are directional
    derivatives of the network (see `directional_derivative`): forward passes, and one ordinary backward pass. Compiles.

    Both serve any network of differentiable operations, on signals, images or volumes; attention runs in its plain
    form, as fused ones have no second derivative. For DistributedDataParallel wrap a `RegularizedModel`.

    The network is run on x, then on x': in training mode each has its own batch statistics, and running statistics are
    updated once from either, as in the published code. A sample whose gradient g or g' is zero contributes 0.

    Args:
        patches: the two patches, I and J in random order; or a sampler, (height, width, generator) -> (I, J), such as
            `RandomPatches`; called once a batch. Of inputs with other axes than two, (*sizes, generator) -> (I, J).
        logit: (outputs, y) -> (b,), the number whose gradient is taken; see `logits`.
        generator: what patches are drawn from (one of seed 0 if None).
        scale: the logit is multiplied by it while g, g' are computed, which are divided by it: with float16 their steps
            would underflow. A power of two changes nothing else.
        compile: applied to the programs of the tangent formulation, e.g. torch.compile. Dropout then draws other masks
            in the two passes unless the compiler keeps torch's random numbers.
    """

    def __init__(
        self,
        patches: PatchPair | PatchSampler,
        *,
        formulation: Formulation = "double-backward",
        logit: Logit = true_logit,
        generator: torch.Generator | None = None,
        scale: float = 1.0,
        compile: Callable[[Any], Any] | None = None,
    ) -> None:
        if formulation not in ("double-backward", "tangent"):
            raise ConfigError("unknown formulation", got=formulation, allowed="double-backward, tangent")
        if compile is not None and formulation != "tangent":
            raise ConfigError("gradients of gradients cannot be compiled", got=formulation, allowed="tangent")
        self.patches = sampler_of(patches)
        self.formulation, self.logit, self.scale = formulation, logit, scale
        self.generator = generator or torch.Generator().manual_seed(0)
        self._run = compile(_run) if compile else _run
        self._derivative = compile(directional_derivative) if compile else directional_derivative

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, partners: Tensor | None = None) -> Tensor:
        """R, a scalar; see `with_outputs`."""
        return self.with_outputs(model, x, y, partners)[1]

    def with_outputs(
        self, model: nn.Module, x: Tensor, y: Tensor, partners: Tensor | None = None, *, whole: int | None = None
    ) -> tuple[Any, Tensor]:
        """The network's outputs for the task loss, and R: f(x) is computed once for both.

        Args:
            model: (b, c, h, w) -> outputs that `logit` understands; or inputs of other numbers of axes.
            x: (b, c, h, w), floating point. y: labels, as `logit` takes them.
            partners: (b, c, h, w), images that lend patch J; x shifted by one sample if None. For a shard of a larger
                batch, the shard of the larger batch shifted by one.
            whole: size of that larger batch; R is then what the shard contributes to its mean.
        Raises:
            ConfigError: if the patches do not fit the images or each other, a batch of one has no partners, the logit
                does not fit the outputs or does not depend on x, or gradients cannot be differentiated here.
        """
        check_inputs(model, x, partners, self.formulation)
        lent = x.roll(-1, 0) if partners is None else partners
        choose = getattr(self.patches, "choose", None)  # of a sampler that looks at the images
        pair = choose(x, lent, self.generator) if choose else self.patches(*x.shape[2:], self.generator)
        check_pair(pair, x.shape[2:])
        region, other = pair
        swapped, whole = swap(x, lent, other), whole or len(x)
        with sdpa_kernel(SDPBackend.MATH), explained(self.formulation):
            # elsewhere to look is to wait, and processes that share a batch must all do the same work
            if x.device.type == "cpu" and not _several_processes() and torch.equal(x, swapped):
                return self._without_difference(model, x, y, region, whole)
            if self.formulation == "tangent":
                return self._tangent(model, x, swapped, y, region, whole)
            return self._double_backward(model, x, swapped, y, region, whole)

    def _double_backward(
        self, model: nn.Module, x: Tensor, swapped: Tensor, y: Tensor, region: Region, whole: int
    ) -> tuple[Any, Tensor]:
        create_graph = torch.is_grad_enabled()
        with second_derivatives(x.device):
            outputs, g = patch_gradient(model, x, y, region, create_graph, self.logit, self.scale)
            _, g_swapped = patch_gradient(model, swapped, y, region, create_graph, self.logit, self.scale)
        return outputs, absolute_cosine(g, g_swapped).sum() / whole

    def _tangent(
        self, model: nn.Module, x: Tensor, swapped: Tensor, y: Tensor, region: Region, whole: int
    ) -> tuple[Any, Tensor]:
        fixed = {name: parameter.detach() for name, parameter in model.named_parameters()}
        devices = [x.device] if x.device.type == "cuda" else []
        gradients, buffers = [], []  # a network may change buffers that it uses, as spectral normalization does
        with torch.random.fork_rng(devices):  # dropout draws the same masks again in the second pass
            for images in (x, swapped):
                buffers.append({name: buffer.clone() for name, buffer in model.named_buffers()})

                def network(t: Tensor) -> Any:
                    return self._run(model, fixed, t)

                _, g = patch_gradient(network, images, y, region, False, self.logit, self.scale)
                gradients.append(g.requires_grad_())
        with torch.enable_grad():
            penalty = absolute_cosine(*gradients).sum() / whole
        directions = [_embedded(d, x, region) for d in torch.autograd.grad(penalty, gradients)]
        outputs, along = self._derivative(model, buffers[0], self.logit, x, y, directions[0])
        _, along_swapped = self._derivative(model, buffers[1], self.logit, swapped, y, directions[1])
        inner = along.sum() + along_swapped.sum()
        return outputs, penalty.detach() + (inner - inner.detach())  # the value of R, the gradient of the products

    def _without_difference(
        self, model: nn.Module, x: Tensor, y: Tensor, region: Region, whole: int
    ) -> tuple[Any, Tensor]:
        """As the formulations, for x' = x: g' = g without a second look at it, and R has no gradient.

        Unless the network draws random numbers, as dropout does: then g' differs.
        """
        state = torch.get_rng_state()
        outputs, g = patch_gradient(model, x, y, region, True, self.logit, self.scale)
        if not torch.equal(state, torch.get_rng_state()):
            _, g_swapped = patch_gradient(model, x, y, region, torch.is_grad_enabled(), self.logit, self.scale)
            return outputs, absolute_cosine(g, g_swapped).sum() / whole
        if model.training:
            with torch.no_grad():
                model(x)  # running statistics are updated from x' too
        present = (g.detach() != 0).flatten(1).any(1).sum().to(torch.promote_types(g.dtype, torch.float32))
        attached = 0 * self.logit(outputs, y).sum()  # so that a loss of R alone has a gradient, of zeros
        return outputs, present / whole + (attached if torch.is_grad_enabled() else attached.detach())


def _several_processes() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _run(model: nn.Module, state: dict[str, Tensor], x: Tensor) -> Any:
    """A network with other parameters; of its own, so that it compiles."""
    return functional_call(model, state, (x,))


class RegularizedModel(nn.Module):
    """A network and its regularizer as one module: (x, y[, partners]) -> (outputs, R).

    What DistributedDataParallel can wrap, in either formulation: all of a step's work is in its forward. Each process
    passes the `partners` of its shard, and batch statistics are those of the shard.
    """

    def __init__(self, model: nn.Module, regularizer: NonLocalRegularizer) -> None:
        super().__init__()
        self.model, self.regularizer = model, regularizer

    def forward(self, x: Tensor, y: Tensor, partners: Tensor | None = None) -> tuple[Any, Tensor]:
        return self.regularizer.with_outputs(self.model, x, y, partners)


# --- the parts of R ---------------------------------------------------------------------------------------------------


def swap(x: Tensor, partners: Tensor, patch: Region) -> Tensor:
    """x with the patch of `partners`; (b, c, h, w)."""
    swapped = x.clone()
    patch.of(swapped).copy_(patch.of(partners))
    return swapped


def patch_gradient(
    network: Network,
    x: Tensor,
    y: Tensor,
    patch: Region,
    create_graph: bool = False,
    logit: Logit = true_logit,
    scale: float = 1.0,
) -> tuple[Any, Tensor]:
    """Outputs of a network, and the gradient of the true class's logit with respect to a patch, (b, c, height, width).

    Batch normalization couples samples: differentiated is the sum of all samples' logits.

    Args:
        network: (b, c, h, w) -> outputs. x: (b, c, h, w). y: labels. scale: see `NonLocalRegularizer`.
    Raises:
        ConfigError: if the logit is not one number per sample, or does not depend on x.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        outputs = network(x)
        logits = logit(outputs, y)
        if logits.shape != (len(x),):
            got = tuple(logits.shape)
            raise ConfigError("a logit must be one number per sample", got=got, allowed=f"({len(x)},)")
        gradient = None
        if logits.requires_grad:
            total = logits.to(torch.promote_types(logits.dtype, torch.float32)).sum() * scale
            (gradient,) = torch.autograd.grad(total, x, create_graph=create_graph, allow_unused=True)
        if gradient is None:
            advice = "Is a part of the network detached, or run under torch.no_grad()?"
            raise ConfigError("the logit does not depend on the network's input", next_step=advice)
    return outputs, patch.of(gradient) / scale


def absolute_cosine(a: Tensor, b: Tensor) -> Tensor:
    """|cosine| of each sample of a with that of b, (b, ...) -> (b,), in float32 at least; 0 where either is zero."""
    dtype = torch.promote_types(a.dtype, torch.float32)
    a, b = (t.flatten(1).to(dtype) for t in (a, b))
    a, b = (t / _nonzero(t.detach().abs().amax(1, keepdim=True)) for t in (a, b))  # squares do not underflow
    present = (a != 0).any(1) & (b != 0).any(1)
    squared = torch.where(present, a.square().sum(1) * b.square().sum(1), 1.0)
    return torch.where(present, (a * b).sum(1) * squared.rsqrt(), 0.0).abs()


def _nonzero(t: Tensor) -> Tensor:
    return torch.where(t == 0, 1.0, t)


def _embedded(direction: Tensor, x: Tensor, patch: Region) -> Tensor:
    """Images that are zero but for a patch."""
    images = torch.zeros_like(x)
    patch.of(images).copy_(direction)
    return images
