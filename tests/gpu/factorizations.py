"""Fits and completions on the GPU against the CPU: the same numbers, and which is faster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from htfcli.config.completion import CompleteConfig
from htfcli.config.tensors import FitConfig, TargetConfig
from htfcli.engine.completion.complete import complete
from htfcli.engine.fitting.fit import fit
from htfcli.engine.observations.synthetic import make_observations
from htfcli.engine.samples import Entries
from tests.gpu.setting import Row, Setting

NAME, TITLE, SHARE = "factorizations", "Fits and completion", 0.1
ABOUT = (
    "Seconds, and the largest relative difference of the losses of a fit's records, or of a completion's predictions. "
    "The CPU has the threads that torch takes."
)


def rows(setting: Setting) -> Iterator[Row]:
    dim, steps, sides = (4, 4, (6, 5, 4)) if setting.smoke else (30, 1000, (80, 70, 60))
    cases: list[tuple[str, Callable[[str], Any], Callable[[Any], Tensor]]] = []
    for dtype in ("float32", "float64"):
        common = {
            "width": 5 if setting.smoke else 16,
            "dtype": dtype,
            "iterations": steps,
            "record_every": max(1, steps // 4),
        }
        cases.append((f"gradient descent, {dtype}", _fitting(dim, common), _losses))
    common = {"width": 3 if setting.smoke else 8, "iterations": 2 if setting.smoke else 10, "record_every": 2}
    cases.append(
        ("second order, float64", _fitting(dim, common | {"solver": "second-order", "dtype": "float64"}), _losses)
    )
    for name, share in (("completion, dense", 0.5), ("completion, sparse", 0.05)):
        cases.append((name, _completing(sides, 0.9 if setting.smoke else share, setting.smoke), lambda found: found))
    for name, run, numbers in cases:
        if setting.left < 0:
            return
        here, on_cpu = setting.timed(lambda run=run: run("cpu"))
        if setting.device.type == "cuda":
            run("cuda")  # the first call loads kernels
        there, found = setting.timed(lambda run=run: run(setting.device.type))
        a, b = numbers(on_cpu), numbers(found)
        yield {
            "what": name,
            "CPU s": here,
            "GPU s": there,
            "CPU / GPU": here / there,
            "difference": float((a - b).abs().max() / a.abs().max()),
        }


def _fitting(dim: int, settings: dict[str, Any]) -> Callable[[str], Any]:
    observations = make_observations(TargetConfig(order=4, dim=dim, rank=3, observed=str(dim**4 // 4)))
    base = {"until_loss": None}
    return lambda device: fit(observations, FitConfig(**base | settings, device=device))[1]


def _losses(records: list[Row]) -> Tensor:
    return torch.tensor([r["train_loss"] for r in records if r.get("train_loss") is not None], dtype=torch.float64)


def _completing(sides: tuple[int, ...], share: float, smoke: bool) -> Callable[[str], Tensor]:
    generator = torch.Generator().manual_seed(0)
    everywhere = torch.cartesian_prod(*map(torch.arange, sides))
    factors = [torch.randn(d, 4, generator=generator, dtype=torch.float64) for d in sides]
    value = torch.stack([f[everywhere[:, m]] for m, f in enumerate(factors)]).prod(0).sum(1)
    value += 0.3 * torch.randn(len(value), generator=generator, dtype=torch.float64)
    rows = torch.randperm(len(value), generator=generator)[: int(share * len(value))]
    entries = Entries(everywhere[rows], value[rows])

    def run(device: str) -> Tensor:
        config = CompleteConfig(
            effort="quick", device=device, width=2 if smoke else None, tree="star" if smoke else "auto"
        )
        return complete(entries, sides, config).values(everywhere[:20_000])

    return run
