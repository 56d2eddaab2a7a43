"""Optimizers of a factorization's parameter vector: group RMSprop, and torch's own SGD and Adam."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from htfcli.errors import ConfigError


class Optimizer(Protocol):
    """Takes steps along -parameter.grad, in place."""

    def step(self) -> None: ...

    @property
    def state(self) -> dict[str, Tensor]:
        """Everything but the parameter that a step changes, by name."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state`: vectors (p,) and scalars."""

    @property
    def flow_time(self) -> float:
        """Time by which the last step advanced gradient flow: its length over that of the gradient.

        For SGD with momentum and Adam, whose steps do not follow the gradient, the learning rate.
        """


class GroupRMSprop:
    """RMSprop with one second moment for all parameters, so that a step keeps the direction of the gradient.

        s <- alpha s + (1 - alpha) * (sum of squared gradients over all parameters)
        w <- w - lr * gradient / (sqrt(s / (1 - alpha^t)) + eps)

    A step is therefore one of gradient descent whose length adapts.
    Source: Razin, Maman and Cohen (ICML 2021 and 2022), the optimizer of the published dynamics.

    Args:
        parameter: (p,), its `grad` already set. lr: learning rate. alpha: decay of the second moment. eps: added to
        its root.
    """

    def __init__(self, parameter: Tensor, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-6) -> None:
        self._parameter, self._lr, self._alpha, self._eps = parameter, lr, alpha, eps
        # on the parameter's device and never read by the host, so that an iteration can be captured as a CUDA graph
        zero = torch.zeros((), dtype=torch.float64, device=parameter.device)
        self._second_moment, self._decay, self._step_length = zero.clone(), zero + 1.0, zero.clone()

    @torch.no_grad()
    def step(self) -> None:
        gradient = self._parameter.grad
        assert gradient is not None
        self._second_moment.mul_(self._alpha).add_(torch.dot(gradient, gradient), alpha=1 - self._alpha)
        self._decay.mul_(self._alpha)
        torch.div(self._second_moment, 1 - self._decay, out=self._step_length)
        self._step_length.sqrt_().add_(self._eps).reciprocal_().mul_(self._lr)
        self._parameter.addcmul_(gradient, self._step_length.to(gradient.dtype), value=-1)

    @property
    def state(self) -> dict[str, Tensor]:
        return {"second_moment": self._second_moment, "decay": self._decay, "step_length": self._step_length}

    def load_state(self, state: dict[str, Tensor]) -> None:
        for name, tensor in self.state.items():
            tensor.copy_(state[name])

    @property
    def flow_time(self) -> float:
        return float(self._step_length)


class TorchOptimizer:
    """One of torch's optimizers, of one parameter vector: the state has scalars and vectors (p,)."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._parameter: Tensor = optimizer.param_groups[0]["params"][0]

    def step(self) -> None:
        self._optimizer.step()

    @property
    def state(self) -> dict[str, Tensor]:
        return {k: v for k, v in self._optimizer.state[self._parameter].items() if isinstance(v, Tensor)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        own = self._optimizer.state[self._parameter]
        for name, value in state.items():
            if name in own:
                own[name].copy_(value)
            else:  # torch makes its state at the first step
                own[name] = value.to(self._parameter.device, copy=True)

    @property
    def flow_time(self) -> float:
        return float(self._optimizer.param_groups[0]["lr"])


def make_optimizer(name: str, parameter: Tensor, lr: float, momentum: float = 0.0) -> Optimizer:
    """An optimizer of one parameter vector.

    Args:
        name: key of `OPTIMIZERS`. parameter: (p,), its `grad` already set. lr, momentum: as torch has them.
    Raises:
        ConfigError: on an unknown name.
    """
    if name not in OPTIMIZERS:
        raise ConfigError("unknown optimizer", got=name, allowed=", ".join(OPTIMIZERS))
    return OPTIMIZERS[name](parameter, lr, momentum)


def _sgd(parameter: Tensor, lr: float, momentum: float) -> Optimizer:
    return TorchOptimizer(torch.optim.SGD([parameter], lr=lr, momentum=momentum))


def _adam(parameter: Tensor, lr: float, momentum: float) -> Optimizer:
    on_cuda = parameter.device.type == "cuda"
    return TorchOptimizer(torch.optim.Adam([parameter], lr=lr, fused=True, capturable=on_cuda))


OPTIMIZERS: dict[str, Callable[[Tensor, float, float], Optimizer]] = {
    "group-rmsprop": lambda parameter, lr, momentum: GroupRMSprop(parameter, lr),
    "sgd": _sgd,
    "adam": _adam,
}
