"""Batch normalization over the shards of several processes, twice differentiable.

Statistics are sums over processes whose gradients are sums too, so that losses, gradients and gradients of gradients
are those of one process with the whole batch. torch's SyncBatchNorm runs on CUDA only and is not twice differentiable.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _Sum(torch.autograd.Function):
    """The sum over processes; its gradient is the sum of the gradients over processes."""

    @staticmethod
    def forward(tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass  # a sum is linear: its derivatives need nothing of it

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return sum_over_processes(gradient.contiguous())

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return sum_over_processes(tangent.contiguous())


def sum_over_processes(tensor: Tensor) -> Tensor:
    """The sum over processes of a tensor of any shape, differentiable any number of times."""
    total: Tensor = _Sum.apply(tensor)  # type: ignore[no-untyped-call]
    return total


class _Shared(nn.modules.batchnorm._BatchNorm):
    """Batch normalization whose batch is the union of the shards of all processes."""

    def mean_over_batch(self, x: Tensor) -> Tensor:
        """Mean over samples and positions of all processes, (1, c, 1, ...) for x (b, c, ...)."""
        return self._mean_and_count(x)[0]

    def _mean_and_count(self, x: Tensor) -> tuple[Tensor, Tensor]:
        sums = x.sum([0, *range(2, x.dim())])
        total = sum_over_processes(torch.cat([sums, sums.new_full((1,), x.numel() / x.shape[1])]))
        return (total[:-1] / total[-1]).view(1, -1, *[1] * (x.dim() - 2)), total[-1]

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and self.running_mean is not None:
            return super().forward(x)
        precise = x.to(torch.promote_types(x.dtype, torch.float32))  # under autocast too
        mean, count = self._mean_and_count(precise)
        centred = precise - mean
        variance = self.mean_over_batch(centred.square())
        if self.training and self.track_running_stats:
            self._update(mean.flatten(), (variance * count / (count - 1)).flatten())
        value = centred * (variance + self.eps).rsqrt()
        if self.affine:
            value = value * self.weight.view_as(mean) + self.bias.view_as(mean)
        return value.to(x.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), rate)
        self.running_var.lerp_(variance.to(self.running_var), rate)


class _Shared1d(_Shared, nn.BatchNorm1d):
    pass


class _Shared2d(_Shared, nn.BatchNorm2d):
    pass


class _Shared3d(_Shared, nn.BatchNorm3d):
    pass


_SHARED: dict[type[nn.Module], type[_Shared]] = {
    nn.BatchNorm1d: _Shared1d,
    nn.BatchNorm2d: _Shared2d,
    nn.BatchNorm3d: _Shared3d,
}


def with_shared_batch_norms(model: nn.Module) -> nn.Module:
    """A network with every batch normalization replaced by one over all processes.

    Like torch's `convert_sync_batchnorm`, the network is changed in place unless it is itself a batch normalization.
    Parameters and buffers stay the same tensors under the same names. Subclasses of torch's batch normalizations are
    left as they are.
    """
    replaced: dict[nn.Module, nn.Module] = {}  # a module that stands in several places stays one module
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if type(module) not in _SHARED:
            continue
        assert isinstance(module, nn.modules.batchnorm._BatchNorm)
        shared = replaced.setdefault(module, _shared(module))
        parent, _, name = path.rpartition(".")
        if not path:
            return shared
        setattr(model.get_submodule(parent), name, shared)
    return model


def _shared(module: nn.modules.batchnorm._BatchNorm) -> _Shared:
    """The same batch normalization over all processes, on the same parameters and buffers."""
    kind = _SHARED[type(module)]
    shared = kind(module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats)
    shared.weight, shared.bias = module.weight, module.bias
    shared.running_mean, shared.running_var = module.running_mean, module.running_var
    shared.num_batches_tracked = module.num_batches_tracked
    return shared.train(module.training)
