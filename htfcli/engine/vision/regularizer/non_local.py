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
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parallel import DistributedDataParallel

from htfcli.engine.vision.datasets.image_set import Patch
from htfcli.engine.vision.regularizer.directional_derivative import tangent_program
from htfcli.engine.vision.regularizer.patches import FixedPatches, PatchPair, PatchSampler
from htfcli.errors import ConfigError

Formulation = Literal["double-backward", "tangent"]
Network = Callable[[Tensor], Tensor]


class NonLocalRegularizer:
    """R for a batch, with its gradient with respect to the parameters. Two formulations give the same numbers:

    `double-backward` differentiates the gradients g, g'. The faster one on a CPU (4.8 plain steps of a
    ResNet18, the other 6.1, or 5.5 compiled), but neither DistributedDataParallel nor torch.compile takes gradients of
    gradients.

    `tangent` holds v = dR/dg and v' = dR/dg' fixed and differentiates <v, g(x)> + <v', g(x')>, which are directional
    derivatives of the network: forward passes, and one ordinary backward pass. Compiles, and works under
    DistributedDataParallel (wrap a `RegularizedModel`). Needs a network of known operations, see `tangent_program`.

    The network is run on x, then on x': in training mode each has its own batch statistics, and running statistics are
    updated once from either, as in the published code. A sample whose gradient g or g' is zero contributes 0.

    Args:
        patches: the two patches, I and J in random order; or a sampler, (height, width, generator) -> (I, J), such as
            `RandomPatches`; called once a batch.
        generator: what patches are drawn from (one of seed 0 if None).
        compile: applied to the programs of the tangent formulation, e.g. torch.compile. Dropout then draws other masks
            in the two passes unless the compiler keeps torch's random numbers.
    """

    def __init__(
        self,
        patches: PatchPair | PatchSampler,
        *,
        formulation: Formulation = "double-backward",
        generator: torch.Generator | None = None,
        compile: Callable[[Any], Any] | None = None,
    ) -> None:
        if formulation not in ("double-backward", "tangent"):
            raise ConfigError("unknown formulation", got=formulation, allowed="double-backward, tangent")
        if compile is not None and formulation != "tangent":
            raise ConfigError("gradients of gradients cannot be compiled", got=formulation, allowed="tangent")
        self.patches: PatchSampler = FixedPatches(*patches) if isinstance(patches, tuple) else patches
        self.formulation = formulation
        self.generator = generator or torch.Generator().manual_seed(0)
        self._compile: Callable[[Any], Any] = compile or (lambda program: program)
        self._known: tuple[nn.Module, list[bool], Network, Callable[..., Any]] | None = None

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, partners: Tensor | None = None) -> Tensor:
        """R, a scalar; see `with_outputs`."""
        return self.with_outputs(model, x, y, partners)[1]

    def with_outputs(
        self, model: nn.Module, x: Tensor, y: Tensor, partners: Tensor | None = None, *, whole: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """The network's outputs for the task loss, and R: f(x) is computed once for both.

        Args:
            model: (b, c, h, w) -> (b, classes), or (b, 1) or (b,) for one logit. x: (b, c, h, w). y: (b,) int64.
            partners: (b, c, h, w), images that lend patch J; x shifted by one sample if None. For a shard of a larger
                batch, the shard of the larger batch shifted by one.
            whole: size of that larger batch; R is then what the shard contributes to its mean.
        Raises:
            ConfigError: if a patch does not fit the images, a batch of one has no partners, or the formulation cannot
                serve the network.
        """
        if isinstance(model, DistributedDataParallel):
            raise ConfigError(
                "DistributedDataParallel must wrap the regularized network, not the network",
                next_step="Use DistributedDataParallel(RegularizedModel(model, regularizer)).",
            )
        if hasattr(model, "_orig_mod"):
            raise ConfigError(
                "gradients of a compiled network cannot be differentiated",
                next_step='Give the network itself, and formulation="tangent", compile=torch.compile.',
            )
        if partners is None and len(x) < 2:
            raise ConfigError(
                "a batch of one has no other sample to take a patch from", got=len(x), allowed="2 or more"
            )
        region, other = self.patches(x.shape[-2], x.shape[-1], self.generator)
        swapped = swap(x, x.roll(-1, 0) if partners is None else partners, other)
        form = self._tangent if self.formulation == "tangent" else self._double_backward
        return form(model, x, swapped, y, region, whole or len(x))

    def _double_backward(
        self, model: nn.Module, x: Tensor, swapped: Tensor, y: Tensor, region: Patch, whole: int
    ) -> tuple[Tensor, Tensor]:
        create_graph = torch.is_grad_enabled()
        outputs, g = patch_gradient(model, x, y, region, create_graph)
        _, g_swapped = patch_gradient(model, swapped, y, region, create_graph)
        return outputs, absolute_cosine(g, g_swapped).sum() / whole

    def _tangent(
        self, model: nn.Module, x: Tensor, swapped: Tensor, y: Tensor, region: Patch, whole: int
    ) -> tuple[Tensor, Tensor]:
        value, tangent = self._programs_of(model)
        devices = [x.device] if x.device.type == "cuda" else []
        with torch.random.fork_rng(devices):  # dropout draws the same masks again in the second pass
            gradients = [patch_gradient(value, images, y, region)[1].requires_grad_() for images in (x, swapped)]
        with torch.enable_grad():
            penalty = absolute_cosine(*gradients).sum() / whole
        directions = torch.autograd.grad(penalty, gradients)
        outputs, along = tangent((x, _embedded(directions[0], x, region)))
        _, along_swapped = tangent((swapped, _embedded(directions[1], x, region)))
        inner = true_logit(along, y).sum() + true_logit(along_swapped, y).sum()
        return outputs, penalty.detach() + (inner - inner.detach())  # the value of R, the gradient of the products

    def _programs_of(self, model: nn.Module) -> tuple[Network, Callable[..., Any]]:
        """The network with fixed parameters, and its directional derivative; kept until network or mode change."""
        mode = [module.training for module in model.modules()]
        if self._known is None or self._known[0] is not model or self._known[1] != mode:
            run = self._compile(lambda fixed, images: functional_call(model, fixed, (images,)))

            def value(images: Tensor) -> Tensor:
                fixed = {name: parameter.detach() for name, parameter in model.named_parameters()}
                outputs: Tensor = run(fixed, images)
                return outputs

            self._known = (model, mode, value, self._compile(tangent_program(model)))
        return self._known[2:]


class RegularizedModel(nn.Module):
    """A network and its regularizer as one module: (x, y[, partners]) -> (outputs, R).

    What DistributedDataParallel can wrap (tangent formulation): all of a step's work is in its forward.
    """

    def __init__(self, model: nn.Module, regularizer: NonLocalRegularizer) -> None:
        super().__init__()
        self.model, self.regularizer = model, regularizer

    def forward(self, x: Tensor, y: Tensor, partners: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.regularizer.with_outputs(self.model, x, y, partners)


# --- the parts of R ---------------------------------------------------------------------------------------------------


def swap(x: Tensor, partners: Tensor, patch: Patch) -> Tensor:
    """x with the patch of `partners`; (b, c, h, w)."""
    swapped = x.clone()
    patch.of(swapped).copy_(patch.of(partners))
    return swapped


def true_logit(outputs: Tensor, y: Tensor) -> Tensor:
    """(b,) logits of the classes y; of outputs (b,) or (b, 1), the single logit."""
    if outputs.dim() == 1 or outputs.shape[1] == 1:
        return outputs.flatten()
    return outputs.gather(1, y[:, None]).squeeze(1)


def patch_gradient(
    network: Network, x: Tensor, y: Tensor, patch: Patch, create_graph: bool = False
) -> tuple[Tensor, Tensor]:
    """Outputs of a network, and the gradient of the true class's logit with respect to a patch, (b, c, height, width).

    Batch normalization couples samples: differentiated is the sum of all samples' logits.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        outputs = network(x)
        (gradient,) = torch.autograd.grad(true_logit(outputs, y).sum(), x, create_graph=create_graph)
    return outputs, patch.of(gradient)


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


def _embedded(direction: Tensor, x: Tensor, patch: Patch) -> Tensor:
    """Images that are zero but for a patch."""
    images = torch.zeros_like(x)
    patch.of(images).copy_(direction)
    return images
