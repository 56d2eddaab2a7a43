"""What each precision does to R and to the gradients, against float64."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from htfcli.config.images import PathfinderConfig
from htfcli.engine.runtime.precision import Precision
from htfcli.engine.vision.datasets.pathfinder import make_pathfinder
from htfcli.engine.vision.regularizer.non_local import NonLocalRegularizer
from htfcli.engine.vision.regularizer.patches import RandomPatches
from tests.benchmarks.network_steps import network, task
from tests.gpu.setting import Row, Setting

NAME, TITLE, SHARE = "rounding", "Precision", 0.08
ABOUT = (
    "A ResNet18 on Pathfinder images of 75 x 75, at its random weights and after some steps of training without R: R, and "
    "cosine of the gradients of R and of the task with those of float64. Means over batches of 64 and random patches."
)
_CASES: tuple[tuple[str, float], ...] = (
    ("float32", 1.0), ("tf32", 1.0), ("bf16", 1.0), ("fp16", 1.0), ("fp16", 2.0**5), ("fp16", 2.0**10),
)  # fmt: skip


def rows(setting: Setting) -> Iterator[Row]:
    size, count, batches, steps = (32, 8, 1, 2) if setting.smoke else (75, 64, 4, 100)
    drawn = PathfinderConfig(path_length=3, size=size, draw_size=4 * size, train=batches * count, test=1)
    images = make_pathfinder(drawn, workers=1 if setting.smoke else None).train.to(setting.device)
    parts = torch.arange(len(images), device=setting.device).split(count)
    data = [(images.images(part), images.labels[part]) for part in parts]
    model, optimizer = network("resnet-mini" if setting.smoke else "resnet18", setting.device)
    for state in ("random", "trained"):
        if state == "trained":
            for number in range(steps):
                x, y = data[number % batches]
                optimizer.zero_grad()
                task(model(x), y).backward()
                optimizer.step()
        wanted = [_gradients(model.double(), x.double(), y, Precision("float64", setting.device), 1.0) for x, y in data]
        model.float()
        for name, scale in _CASES:
            if setting.left < 0:
                return
            if name == "tf32" and setting.device.type != "cuda":
                continue
            precision = Precision(name, setting.device)
            for formulation in ("double-backward", "tangent"):
                found = [_gradients(model, x, y, precision, scale, formulation) for x, y in data]
                cosines = [
                    [_cosine(a, b) for a, b in zip(f[1:], w[1:], strict=True)]
                    for f, w in zip(found, wanted, strict=True)
                ]
                of_r, of_task = torch.tensor(cosines).mean(0).tolist()
                yield {
                    "weights": state,
                    "precision": name,
                    "scale": f"{scale:g}",
                    "formulation": formulation,
                    "R": _mean(found),
                    "R in float64": _mean(wanted),
                    "cosine, R": of_r,
                    "cosine, task": of_task,
                }


def _gradients(
    model: nn.Module, x: Tensor, y: Tensor, precision: Precision, scale: float, formulation: str = "double-backward"
) -> tuple[float, Tensor, Tensor]:
    """R, and the gradients of R and of the task, in float64, of a copy of the network."""
    model = copy.deepcopy(model)
    regularizer = NonLocalRegularizer(RandomPatches(2), formulation=formulation, scale=scale)
    found = []
    value = 0.0
    for term in ("R", "task"):
        model.zero_grad()
        with precision.set():
            with precision.autocast():
                outputs, penalty = regularizer.with_outputs(model, x, y)
            loss = penalty if term == "R" else task(outputs, y)
            (loss * scale).backward()
        value = float(penalty.detach())
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
        found.append(torch.cat([g.double().flatten() for g in grads]) / scale)
        regularizer.generator.manual_seed(0)
    return value, found[0], found[1]


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def _mean(found: list[tuple[float, Tensor, Tensor]]) -> float:
    return sum(value for value, *_ in found) / len(found)
