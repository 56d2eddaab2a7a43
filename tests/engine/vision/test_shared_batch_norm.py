"""Batch normalization over processes; with one process it must be torch's."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn

from htfcli.engine.vision.shared_batch_norm import sum_over_processes, with_shared_batch_norms


@pytest.fixture
def group(tmp_path):
    """A process group of one process."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def network(seed=0):
    torch.manual_seed(seed)
    shared = nn.BatchNorm2d(3, momentum=0.3)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), shared, nn.ReLU(), nn.Sequential(nn.Conv2d(3, 3, 1), shared), nn.Flatten(),
        nn.Linear(48, 4), nn.BatchNorm1d(4, affine=False, track_running_stats=False),
    ).double()  # fmt: skip


def test_replaced_modules_keep_their_tensors_and_names():
    model = network()
    before = model.state_dict(keep_vars=True)
    parameters = list(model.parameters())
    assert with_shared_batch_norms(model) is model
    assert {type(m) for m in model.modules()}.isdisjoint({nn.BatchNorm1d, nn.BatchNorm2d})
    assert model[1] is model[3][1]  # one module in two places stays one module
    assert isinstance(model[1], nn.BatchNorm2d)
    after = model.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert (model[1].eps, model[1].momentum) == (1e-5, 0.3)


def test_a_network_that_is_itself_a_batch_normalization():
    norm = nn.BatchNorm1d(3).eval()
    shared = with_shared_batch_norms(norm)
    assert shared is not norm and not shared.training
    assert shared.weight is norm.weight and shared.running_var is norm.running_var


def test_subclasses_stay_as_they_are():
    class Own(nn.BatchNorm1d):
        pass

    own = Own(3)
    assert with_shared_batch_norms(nn.Sequential(own))[0] is own


@pytest.mark.parametrize("momentum", [0.3, None])
def test_values_gradients_and_statistics_are_those_of_torch(group, momentum):
    plain, shared = network(), with_shared_batch_norms(network())
    for model in (plain, shared):
        model[1].momentum = momentum
    x = torch.randn(6, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for _ in range(2):
        outputs = [model(x) for model in (plain, shared)]
        torch.testing.assert_close(*outputs)
        for model, output in zip((plain, shared), outputs, strict=True):
            model.zero_grad()
            output.pow(3).sum().backward()
    for a, b in zip(plain.parameters(), shared.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(tensor, shared.state_dict()[name])
    torch.testing.assert_close(plain.eval()(x), shared.eval()(x))


def test_gradients_of_gradients(group):
    norm = with_shared_batch_norms(nn.BatchNorm1d(2).double())
    x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda t: norm(t).pow(2).sin(), x)
    assert torch.autograd.gradgradcheck(lambda t: sum_over_processes(t.exp()), x)
