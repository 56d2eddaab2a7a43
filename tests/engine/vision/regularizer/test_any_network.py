"""The regularizer on networks of other kinds, against a double backward pass that shares no code with it."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from htfcli.engine.vision.datasets.image_set import Block, Patch
from htfcli.engine.vision.regularizer import non_local
from htfcli.engine.vision.regularizer.logits import dense_logit, output_of, true_logit, weighted_logit
from htfcli.engine.vision.regularizer.non_local import NonLocalRegularizer
from htfcli.engine.vision.regularizer.patches import DifferentPatches
from htfcli.engine.vision.regularizer.second_derivative import SecondDerivatives
from htfcli.engine.vision.resnet import ResNet, ResNetShape
from htfcli.errors import ConfigError
from tests.engine.vision.networks import ViT
from tests.problems import generator

FORMULATIONS = ("double-backward", "tangent")


class ConvNeXt(nn.Module):
    """A stem of patches, a depthwise block with layer normalization, GELU, layer scale and a skip."""

    def __init__(self, outputs: int = 3, width: int = 6) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(2, width, 2, 2), nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale, self.head = nn.Parameter(torch.full((width,), 0.5)), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.down(functional.gelu(self.up(y), approximate="tanh")) * self.scale
        return self.head((x + y.permute(0, 3, 1, 2)).mean((2, 3)))


class UNet(nn.Module):
    """Down, up, and a skip across; a class for every pixel."""

    def __init__(self, classes: int = 3, width: int = 4) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(2, width, 3, padding=1), nn.InstanceNorm2d(width, affine=True), nn.ELU())
        self.inner = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.Hardswish())
        self.up = nn.ConvTranspose2d(width, width, 2, 2)
        self.leave = nn.Conv2d(2 * width, classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        across = self.enter(x)
        inner = self.up(self.inner(functional.max_pool2d(across, 2)))
        return self.leave(torch.cat([across, functional.interpolate(inner, scale_factor=1)], 1))


class Several(nn.Module):
    """Outputs by name, with operations that change their input in place and whose result is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.more = nn.Conv2d(2, 4, 3, 2), nn.Linear(84, 3), nn.Linear(84, 2)
        self.scale = nn.PReLU()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.body(x)
        functional.silu(h, inplace=True)
        h.mul_(1.5)
        h = torch.add(self.scale(h), torch.tanh(h), alpha=0.3).flatten(1)
        return {
            "classes": self.head(h) * torch.sigmoid(h).mean(1, keepdim=True),
            "more": self.more(torch.softmax(h, 1) / (1 + h.square())),
        }


def signals() -> nn.Module:
    return nn.Sequential(nn.Conv1d(2, 6, 5, 2), nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.Conv1d(6, 4, 3), nn.SELU(),
                         nn.AdaptiveAvgPool1d(3), nn.Flatten(), nn.Linear(12, 1))  # fmt: skip


def volumes() -> nn.Module:
    return nn.Sequential(nn.Conv3d(2, 6, 3, 2), nn.GroupNorm(2, 6), nn.Mish(), nn.BatchNorm3d(6), nn.MaxPool3d(2),
                         nn.Flatten(), nn.Linear(6, 3))  # fmt: skip


def gated() -> nn.Module:
    """Buffers that the network changes and uses (spectral normalization), and a rule of torch's without derivative."""
    conv = nn.utils.spectral_norm(nn.Conv2d(2, 8, 3, 2, 1))
    return nn.Sequential(conv, nn.GLU(1), nn.RMSNorm(6), nn.Flatten(), nn.Linear(96, 5), nn.Tanh(), nn.Linear(5, 3))


def normed(norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1), norm, nn.Softplus(), nn.Flatten(), nn.Linear(96, 3))


IMAGES, SQUARES = (8, 16), (Patch(0, 0, 4, 4), Patch(2, 9, 4, 5))
CLASSES = torch.tensor([0, 2, 1, 2])
DENSE = torch.randint(3, (4, 8, 16), generator=generator(9)).masked_fill(torch.rand(4, 8, 16) < 0.2, -100)
CASES = {
    "resnet18": (lambda: ResNet(ResNetShape((4, 4, 8, 8)), 2, 1), (32, 40), (Patch(3, 2, 9, 9), Patch(20, 25, 9, 9)), CLASSES, true_logit),
    "resnet50": (lambda: ResNet(ResNetShape((2, 2, 4, 4), bottleneck=True), 2, 3), (32, 40), (Patch(3, 2, 9, 9), Patch(20, 25, 9, 9)), CLASSES, true_logit),
    "convnext": (ConvNeXt, IMAGES, SQUARES, CLASSES, true_logit),
    "vit": (lambda: ViT(True), IMAGES, SQUARES, CLASSES, true_logit),
    "vit, own attention": (lambda: ViT(False), IMAGES, SQUARES, CLASSES, true_logit),
    "unet, dense labels": (UNet, IMAGES, SQUARES, DENSE, true_logit),
    "several outputs": (Several, IMAGES, SQUARES, CLASSES, output_of("classes")),
    "several outputs, soft": (Several, IMAGES, SQUARES, torch.rand(4, 2, generator=generator(3)).double(), output_of("more")),
    "signals": (signals, (20,), (Block((1,), (5,)), Block((12,), (6,))), CLASSES, true_logit),
    "volumes": (volumes, (5, 6, 7), (Block((0, 1, 0), (3, 3, 3)), Block((1, 1, 4), (3, 3, 3))), CLASSES, true_logit),
    "group norm": (lambda: normed(nn.GroupNorm(2, 4)), (8, 12), (Patch(0, 0, 4, 4), Patch(2, 7, 4, 5)), CLASSES, true_logit),
    "layer norm": (lambda: normed(nn.LayerNorm((4, 4, 6))), (8, 12), (Patch(0, 0, 4, 4), Patch(2, 7, 4, 5)), CLASSES, true_logit),
    "instance norm": (lambda: normed(nn.InstanceNorm2d(4, affine=True)), (8, 12), (Patch(0, 0, 4, 4), Patch(2, 7, 4, 5)), CLASSES, true_logit),
    "gated, spectral norm": (gated, (8, 12), (Patch(0, 0, 4, 4), Patch(2, 7, 4, 5)), CLASSES, true_logit),
    "squared logit": (ConvNeXt, IMAGES, SQUARES, CLASSES, lambda outputs, y: true_logit(outputs, y).square() + outputs.sum(1)),
}  # fmt: skip


class PlainAttention(torch.overrides.TorchFunctionMode):
    """Attention from its definition."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is functional.scaled_dot_product_attention:
            q, k, v = args[:3]
            return torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1) @ v
        if func is functional.multi_head_attention_forward:
            return func(*args, **{**kwargs, "need_weights": True})  # torch's own way in products and a softmax
        return func(*args, **(kwargs or {}))


def reference(model, x, y, patches, logit):
    """R by its definition."""
    region, other = patches
    swapped = x.clone()
    other.of(swapped)[:] = other.of(torch.cat([x[1:], x[:1]]))
    found = []
    with PlainAttention():
        for images in (x, swapped):
            images = images.clone().requires_grad_()
            outputs = model(images)
            (gradient,) = torch.autograd.grad(logit(outputs, y).sum(), images, create_graph=True)
            found.append(region.of(gradient).flatten(1))
    cosine = (found[0] * found[1]).sum(1) / (found[0].norm(dim=1) * found[1].norm(dim=1))
    return cosine.abs().mean()


def eager(program):
    return torch.compile(program, backend="aot_eager", fullgraph=True)


COMPILED = [pytest.param(name, eager, marks=pytest.mark.long) for name in CASES if name != "gated, spectral norm"]


@pytest.mark.parametrize(("name", "compiler"), [*((name, None) for name in CASES), *COMPILED])
def test_against_an_independent_double_backward(name, compiler, monkeypatch):
    make, sizes, patches, y, logit = CASES[name]
    if compiler is not None:
        torch.compiler.reset()  # torch keeps the programs of a few networks only
    torch.manual_seed(1)
    model = make().double()
    x = torch.randn(4, 2, *sizes, generator=generator(2), dtype=torch.float64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wanted = reference(model, x, y, patches, logit)
    assert 0.01 < wanted < 0.9999  # or there would be nothing to compare
    gradients = torch.autograd.grad(wanted, list(model.parameters()), allow_unused=True)
    size = max(float(g.abs().max()) for g in gradients if g is not None)
    rules = {"double-backward": (nullcontext, SecondDerivatives), "tangent": (nullcontext,)}
    ways = [(f, rule) for f in rules for rule in rules[f]] if compiler is None else [("tangent", nullcontext)]
    for formulation, rule in ways:
        monkeypatch.setattr(non_local, "second_derivatives", lambda device, rule=rule: rule())
        model.load_state_dict(before)
        model.zero_grad()
        regularizer = NonLocalRegularizer(lambda *_: patches, formulation=formulation, logit=logit, compile=compiler)
        value = regularizer(model, x, y)
        value.backward()
        assert value.item() == pytest.approx(wanted.item(), rel=1e-12)
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            none = torch.zeros_like(parameter)
            found, true = (none if g is None else g for g in (parameter.grad, gradient))
            assert float((found - true).abs().max()) <= 1e-10 * size


# --- logits -----------------------------------------------------------------------------------------------------------


def test_logits_by_shape():
    outputs = torch.tensor([[1.0, 2.0, 4.0], [3.0, 5.0, 9.0]])
    assert true_logit(outputs[:, :1], torch.tensor([0, 1])).tolist() == [1, 3]
    assert true_logit(outputs[:, 0], torch.tensor([0, 1])).tolist() == [1, 3]
    assert true_logit(outputs, torch.tensor([2, 1])).tolist() == [4, 5]
    assert true_logit(outputs, torch.tensor([[0, 0.5, 0.5], [1, 0, 0]])).tolist() == [3, 3]
    assert weighted_logit(outputs, torch.tensor([[1, 1, 0], [0, 0, 0]])).tolist() == [1.5, 0]
    dense = torch.stack([outputs, 10 * outputs], 2)  # two positions
    assert dense_logit(dense, torch.tensor([[0, 2], [-100, 1]])).tolist() == [20.5, 50]
    assert true_logit(dense, torch.tensor([[-100, -100], [0, 0]])).tolist() == [0, 16.5]
    single = torch.tensor([[[1.0, 3.0, 8.0]], [[2.0, 4.0, 6.0]]])  # one logit at each of three positions
    assert true_logit(single, torch.tensor([[0, 1, -100], [1, 1, 0]])).tolist() == [2, 4]
    assert output_of(1)((None, outputs), torch.tensor([2, 1])).tolist() == [4, 5]
    assert dense_logit(dense, torch.tensor([[0, 255], [255, 1]]), ignored=255).tolist() == [1, 50]


@pytest.mark.parametrize(
    ("logit", "outputs", "y", "message"),
    [
        (true_logit, (torch.zeros(2, 3),), torch.zeros(2), "the network has several outputs (got tuple). Give logit=output_of(key), or a function (outputs, y) -> (b,)."),
        (true_logit, torch.zeros(2, 3), torch.zeros(2), "labels and outputs do not fit each other (got labels (2,) of float32, outputs (2, 3)). Give logit=, a function (outputs, y) -> (b,)."),
        (true_logit, torch.zeros(2, 3), torch.tensor([0, 3]), "a label is no class of the network (got 0 to 3, allowed 0 to 2). Of dense labels, name another ignored one by logit=partial(dense_logit, ignored=...)."),
        (true_logit, torch.zeros(2, 3, 4), torch.full((2, 4), 255), "a label is no class of the network (got 255 to 255, allowed 0 to 2). Of dense labels, name another ignored one by logit=partial(dense_logit, ignored=...)."),
        (output_of("b"), {"a": torch.zeros(2, 3)}, torch.zeros(2), "the network has no output 'b' (got a)."),
        (output_of(2), (torch.zeros(2, 3),), torch.zeros(2), "the network has no output 2 (got a tuple)."),
    ],
)  # fmt: skip
def test_logits_that_do_not_fit(logit, outputs, y, message):
    with pytest.raises(ConfigError) as error:
        logit(outputs, y)
    assert str(error.value) == message


# --- what has no derivative -------------------------------------------------------------------------------------------


class Sampled(nn.Module):
    """An operation without a forward-mode rule."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 4, 3, 2, 1), nn.Sequential(nn.Linear(128, 5), nn.Tanh(), nn.Linear(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        grid = torch.tanh(x[:, :2]).permute(0, 2, 3, 1)
        return self.head(functional.grid_sample(x, grid, align_corners=False).flatten(1))


class Detached(nn.Module):
    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.whole, self.head = whole, nn.Linear(256, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.head(x.detach().flatten(1))
        return outputs.detach() if self.whole else outputs


def test_an_operation_without_a_rule_for_one_formulation():
    torch.manual_seed(0)
    model, x = Sampled(), torch.randn(4, 2, *IMAGES, generator=generator(2))
    assert 0 < NonLocalRegularizer(SQUARES)(model, x, CLASSES).item() < 1
    with pytest.raises(ConfigError) as error:
        NonLocalRegularizer(SQUARES, formulation="tangent")(model, x, CLASSES)
    assert str(error.value).startswith("an operation of the network lacks a derivative: ")
    assert "grid_sampler_2d" in str(error.value)
    assert str(error.value).endswith('Replace it, or use formulation="double-backward", which asks for less.')


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("whole", [True, False])
def test_a_network_that_does_not_look_at_its_input(formulation, whole):
    with pytest.raises(ConfigError) as error:
        NonLocalRegularizer(SQUARES, formulation=formulation)(Detached(whole), torch.randn(4, 2, *IMAGES), CLASSES)
    advice = "Is a part of the network detached, or run under torch.no_grad()?"
    assert str(error.value) == f"the logit does not depend on the network's input. {advice}"


def test_errors_of_the_network_itself_stay():
    model = nn.Sequential(nn.Flatten(), nn.Linear(255, 3))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as error:
        NonLocalRegularizer(SQUARES)(model, torch.randn(4, 2, *IMAGES), CLASSES)
    assert not isinstance(error.value, ConfigError)


# --- patches that do not differ ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_patches_that_are_the_same_in_the_whole_batch_cost_no_second_look(formulation, dropout):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.Tanh(), nn.Dropout(dropout), nn.Flatten(),
                          nn.Linear(128, 3)).double()  # fmt: skip
    x = torch.randn(4, 2, *IMAGES, generator=generator(2), dtype=torch.float64)
    SQUARES[1].of(x)[:] = 0.5
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    torch.manual_seed(5)
    wanted = reference(model, x, CLASSES, SQUARES, true_logit)
    gradient = torch.autograd.grad(wanted, model[0].weight)[0]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.load_state_dict(before, strict=False)
    torch.manual_seed(5)
    value = NonLocalRegularizer(lambda *_: SQUARES, formulation=formulation)(model, x, CLASSES)
    value.backward()
    assert value.item() == pytest.approx(wanted.item(), rel=1e-12)
    assert (value.item() == 1) == (dropout == 0)
    assert torch.allclose(model[0].weight.grad, gradient, atol=1e-10)
    assert all(torch.allclose(buffer, buffers[name]) for name, buffer in model.named_buffers())


def test_patches_that_differ_are_preferred():
    x = torch.zeros(3, 1, 12, 12)
    x[0, 0, 8, 3] = 1
    sampler = DifferentPatches(2, draws=200)
    for seed in range(5):
        _, other = sampler.choose(x, x.roll(-1, 0), generator(seed))
        assert other.of(x).any()
    assert sampler(12, 12, generator(0)) is not None
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 4), nn.Tanh(), nn.Linear(4, 1))
    assert NonLocalRegularizer(sampler)(model, x, torch.zeros(3)).item() < 1
