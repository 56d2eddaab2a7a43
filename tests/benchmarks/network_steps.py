"""Steps of training a network whose times are compared: the task alone, and R as published, as ours, as a compiled
function. All are of networks with the same weights, on the same batch and patches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value
from torch.nn import functional

from htfcli.engine.runtime.precision import Precision
from htfcli.engine.vision.datasets.image_set import Patch
from htfcli.engine.vision.regularizer.non_local import NonLocalRegularizer, swap
from htfcli.engine.vision.resnet import resnet

Step = Callable[[], None]
Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


def patches(side: int) -> tuple[Patch, Patch]:
    """Two patches of a quarter of the side."""
    quarter = side // 4
    return Patch(side // 6, side // 16, quarter, quarter), Patch(side // 3, 5 * side // 8, quarter, quarter)


def batch(size: int, side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images (size, 1, side, side) of noise, and labels 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, 1, side, side, generator=generator).to(device)
    return x, torch.randint(2, (size,), generator=generator).to(device)


def task(outputs: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(outputs.squeeze(1).float(), y.float())


def plain(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return task(model(x), y)


def published(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The direct double backward, written from the definition."""
    region, other = patches(x.shape[-1])
    first = x.clone().requires_grad_()
    outputs = model(first)
    (g,) = torch.autograd.grad(outputs.sum(), first, create_graph=True)
    second = swap(x, torch.cat([x[1:], x[:1]]), other).requires_grad_()
    (h,) = torch.autograd.grad(model(second).sum(), second, create_graph=True)
    a, b = region.of(g).flatten(1), region.of(h).flatten(1)
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    return task(outputs, y) + (a * b).sum(1).abs().mean()


def ours(**options: Any) -> Loss:
    """The regularizer of the package with these options."""
    regularizer = NonLocalRegularizer(lambda height, width, generator: patches(height), **options)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        outputs, penalty = regularizer.with_outputs(model, x, y)
        return task(outputs, y) + penalty

    return loss


def step(loss: Loss, name: str, size: int, side: int, precision: Precision, channels_last: bool = False) -> Step:
    """One optimizer step of a network of `RESNETS` by this loss."""
    x, y = batch(size, side, precision.device)
    model, optimizer = network(name, precision.device)
    if channels_last:
        model.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)

    def run() -> None:
        optimizer.zero_grad()
        with precision.set():
            with precision.autocast():
                total = loss(model, x, y)
            total.backward()
            optimizer.step()

    return run


def network(name: str, device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = resnet(name, 1, 1).to(device)
    return model, torch.optim.SGD(model.parameters(), 0.01, 0.9)


def functional_gradient(model: nn.Module) -> Callable[..., tuple[dict[str, Tensor], Tensor]]:
    """(parameters, buffers, x, swapped, y) -> gradient by the parameters, and loss, of the task and R: a gradient of
    gradients by torch.func, which torch.compile takes where it does not take autograd's."""

    def loss(
        parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, swapped: Tensor, y: Tensor
    ) -> Tensor:
        def total(images: Tensor) -> tuple[Tensor, Tensor]:
            state = {**parameters, **{name: buffer.clone() for name, buffer in buffers.items()}}
            outputs = functional_call(model, state, (images,))
            return outputs.sum(), outputs

        region, _ = patches(x.shape[-1])
        g, outputs = grad(total, has_aux=True)(x)
        h, _ = grad(total, has_aux=True)(swapped)
        a, b = region.of(g).flatten(1), region.of(h).flatten(1)
        return task(outputs, y) + functional.cosine_similarity(a, b, dim=1).abs().mean()

    return grad_and_value(loss)


def functional_step(name: str, size: int, side: int, precision: Precision, compile: Callable[..., Any]) -> Step:
    """One optimizer step by the compiled `functional_gradient`."""
    x, y = batch(size, side, precision.device)
    model, optimizer = network(name, precision.device)
    swapped = swap(x, x.roll(-1, 0), patches(side)[1])
    gradient = compile(functional_gradient(model))

    def run() -> None:
        with precision.set(), precision.autocast():
            parameters = {name: p.detach() for name, p in model.named_parameters()}
            found, _ = gradient(parameters, dict(model.named_buffers()), x, swapped, y)
        for key, parameter in model.named_parameters():
            parameter.grad = found[key]
        optimizer.step()

    return run
