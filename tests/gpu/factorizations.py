"""Fits and completions on the GPU against the CPU: the same numbers, and which is faster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from htfcli.config.completion import CompleteConfig
from htfcli.config.tensors import FitConfig, TargetConfig
from htfcli.engine.completion.complete import complete
from htfcli.engine.completion.members import Fit, Recipe
from htfcli.engine.completion.splits import Sample
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.fitting.fit import fit
from htfcli.engine.observations.synthetic import make_observations
from htfcli.engine.samples import Entries
from tests.gpu.setting import Row, Setting

NAME, TITLE, SHARE = "factorizations", "Fits and completion", 0.1
ABOUT = (
    "Seconds, and the largest difference between the two devices over the largest number: of the losses of a fit's records, "
    "or of predictions. Sweeps are what `htf complete --device cuda` computes on the GPU. The CPU has the threads that torch "
    "takes; the GPU is timed at the second call, when its kernels are loaded."
)


def rows(setting: Setting) -> Iterator[Row]:
    for name, run in _cases(setting.smoke):
        if setting.left < 0:
            return
        here, on_cpu = setting.timed(partial(run, "cpu"))
        if setting.device.type == "cuda":
            run("cuda")
        there, found = setting.timed(partial(run, setting.device.type))
        yield {
            "what": name,
            "CPU s": here,
            "GPU s": there,
            "CPU / GPU": here / there,
            "difference": float((on_cpu - found).abs().max() / on_cpu.abs().max()),
        }


def _cases(smoke: bool) -> list[tuple[str, Callable[[str], Tensor]]]:
    """By name what computes the numbers that are compared, on a device."""
    few = smoke
    dim, observed, width = (4, 60, 3) if few else (30, 200_000, 16)
    steps = {"iterations": 4 if few else 300, "record_every": 2 if few else 100}
    second = {"iterations": 2 if few else 6, "record_every": 2, "solver": "second-order"}
    cube, sparse = ((6, 5, 4), (9, 9, 9)) if few else ((60, 50, 40), (2000, 2000, 2000))
    counts = (60, 60, 60) if few else (60_000, 1_000_000, 4_500)
    return [
        ("gradient descent, 30^4, float32", _fitting(dim, observed, {"width": width, "dtype": "float32"} | steps)),
        ("gradient descent, 30^4, float64", _fitting(dim, observed, {"width": width, "dtype": "float64"} | steps)),
        ("second order, 30^4", _fitting(dim, observed // 10, {"width": width // 2, "dtype": "float64"} | second)),
        ("sweeps, 60 x 50 x 40", _sweeping(cube, counts[0], Recipe(ModeTree.named("balanced", 3), width), 5)),
        (
            "sweeps, 2000^3, a million entries",
            _sweeping(sparse, counts[1], Recipe(ModeTree.named("star", 3), width), 3),
        ),
        ("a whole completion, 30 x 25 x 20", _completing((6, 5, 4) if few else (30, 25, 20), counts[2], few)),
    ]


def _fitting(dim: int, observed: int, settings: dict[str, Any]) -> Callable[[str], Tensor]:
    observations = make_observations(TargetConfig(order=4, dim=dim, rank=3, observed=str(observed)))

    def run(device: str) -> Tensor:
        records = fit(observations, FitConfig(**settings, until_loss=None, device=device))[1]
        return torch.tensor([r["train_loss"] for r in records], dtype=torch.float64)

    return run


def _entries(sides: tuple[int, ...], count: int) -> Entries:
    """Entries of a tensor of rank 4 with noise, at random places."""
    generator = torch.Generator().manual_seed(0)
    index = torch.stack([torch.randint(d, (count,), generator=generator) for d in sides], 1).unique(dim=0)
    factors = [torch.randn(d, 4, generator=generator, dtype=torch.float64) for d in sides]
    value = torch.stack([f[index[:, m]] for m, f in enumerate(factors)]).prod(0).sum(1)
    return Entries(index, value + 0.3 * torch.randn(len(value), generator=generator, dtype=torch.float64))


def _sweeping(sides: tuple[int, ...], count: int, recipe: Recipe, sweeps: int) -> Callable[[str], Tensor]:
    entries = _entries(sides, count)

    def run(device: str) -> Tensor:
        own = Recipe(recipe.tree, recipe.width, device=device)
        swept = Fit(own, Sample(entries.index, entries.value, sides), {})
        swept.run(sweeps, 0.1, 0.0)
        return swept.member().at(entries.index[:20_000])

    return run


def _completing(sides: tuple[int, ...], count: int, smoke: bool) -> Callable[[str], Tensor]:
    entries = _entries(sides, count)
    less: dict[str, Any] = {"width": 2, "tree": "star"} if smoke else {}

    def run(device: str) -> Tensor:
        config = CompleteConfig(effort="quick", device=device, **less)
        return complete(entries, sides, config).values(torch.cartesian_prod(*map(torch.arange, sides)))

    return run
