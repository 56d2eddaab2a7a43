"""Time of an iteration of `htf fit`, against a straightforward implementation and against its own matrix products.

    python -m tests.benchmarks.fit_speed [--threads 1 2] [--device cpu|cuda] [--seconds 3]

The straightforward implementation is what the published code does: one-hot inputs, one einsum a layer over all observed
entries, pooling by `prod`, autograd; for matrices one dense measurement matrix an entry; the same optimizer. The three
cases are the published panels; `small` is order 4, dims 8, width 8. "Own products" are the matrix products of our own
iteration alone, on buffers of their sizes. "Recording" is the cost of a record every 25 iterations relative to the run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from htfcli.cli.console import to_json
from htfcli.config.tensors import FitConfig, TargetConfig
from htfcli.engine.factorizations.subtree_tables import Mix, RootGrid
from htfcli.engine.fitting.fit import build_model
from htfcli.engine.fitting.gradient_descent import GradientFit
from htfcli.engine.fitting.optimizers import GroupRMSprop
from htfcli.engine.observations.observations import Observations
from htfcli.engine.observations.synthetic import make_observations
from htfcli.engine.samples import Entries
from tests.benchmarks.timing import interleaved, machine, table

CASES = {
    "hierarchical": (
        TargetConfig(order=4, dim=8, rank=5, observed="2048", norm=64.0),
        {"width": 512, "init_std": 0.01},
    ),
    "CP": (
        TargetConfig(target="cp", dims=[16] * 3, observed="2048", norm=64.0),
        {"model": "cp", "width": 256, "init_std": 1e-3},
    ),
    "matrix": (
        TargetConfig(target="matrix", dims=[64] * 2, observed="2048", norm=64.0),
        {"model": "matrix", "init_std": 1e-3},
    ),
    "small": (TargetConfig(order=4, dim=8, rank=5, observed="2048", norm=64.0), {"width": 8, "init_std": 0.1}),
}
TARGETS = {"hierarchical": 80, "CP": 6, "matrix": 300, "small": None}
EVERY = 25


class Straightforward:
    """A fit as one would first write it."""

    def __init__(self, fit: GradientFit, observations: Observations, device: torch.device) -> None:
        assert isinstance(observations.train, Entries)
        index, value = observations.train.index.to(device), observations.train.value.to(fit.model.parameters)
        self.value = value
        model = fit.model
        weights = [w.clone().requires_grad_() for w in model.weights.values()]
        self.forward: Callable[[], Tensor]
        if model.kind == "matrix":
            measurements = torch.zeros(len(index), *model.dims, device=device)
            measurements[torch.arange(len(index)), index[:, 0], index[:, 1]] = 1.0
            self.forward = lambda: (measurements * (weights[0] @ weights[1] @ weights[2])).sum((1, 2))
        else:
            inputs = torch.nn.functional.one_hot(index, max(model.dims)).to(value)  # (n, N, d)
            levels = [weights[:4], weights[4:6]] if model.kind == "htf" else [weights]

            def values() -> Tensor:
                rows = inputs
                for level in levels:
                    rows = torch.einsum("bod,odr->bor", rows, torch.stack(level))
                    rows = rows[:, torch.arange(rows.shape[1])]  # the published code pools any order of modes
                    pool = rows.permute(0, 2, 1).reshape(len(rows), rows.shape[2], -1, 2 if model.kind == "htf" else 3)
                    rows = pool.prod(dim=-1).permute(0, 2, 1)
                rows = rows.squeeze(1)
                return (rows @ weights[6]).squeeze(1) if model.kind == "htf" else rows.sum(1)

            self.forward = values
        self.weights = weights
        flat = torch.zeros(sum(w.numel() for w in weights), device=device)
        flat.grad = torch.zeros_like(flat)
        self.flat, self.optimizer = flat, GroupRMSprop(flat)

    def step(self) -> None:
        for weight in self.weights:
            weight.grad = None
        (self.forward() - self.value).square().mean().backward()
        with torch.no_grad():
            assert self.flat.grad is not None
            torch.cat([w.grad.flatten() for w in self.weights if w.grad is not None], out=self.flat.grad)
            before = self.flat.clone()
            self.optimizer.step()
            moved = (self.flat - before).split([w.numel() for w in self.weights])  # type: ignore[no-untyped-call]
            for weight, change in zip(self.weights, moved, strict=True):
                weight.add_(change.view_as(weight))


def own_products(fit: GradientFit) -> Callable[[], None]:
    """The matrix products of an iteration and nothing else: three for each step that has one, on the step's own buffers."""
    evaluation = fit._whole._evaluation
    products: list[tuple[Tensor, Tensor, Tensor]] = []
    for step in evaluation._steps:
        if isinstance(step, Mix):
            p, w, e = step.product.value, step.weight, step.out.value
        elif isinstance(step, RootGrid):
            p, w, e = step.a.value, step.b.value.t(), step.value
        else:
            continue
        p, w, e = (torch.randn_like(x) for x in (p, w, e))
        products += [(p, w, torch.empty_like(e)), (e, w.t(), torch.empty_like(p)), (p.t(), e, torch.empty_like(w))]

    def run() -> None:
        for a, b, out in products:
            torch.mm(a, b, out=out)

    return run


def measure(name: str, device: torch.device, seconds: float) -> tuple[dict[str, float], int]:
    target, options = CASES[name]
    observations = make_observations(target)
    config = FitConfig(**options, until_loss=None, iterations=10**9, record_every=10**9, device=device.type)
    fit = GradientFit(build_model(config, observations.dims, device), observations, config)
    straight = Straightforward(fit, observations, device)

    @torch.no_grad()
    def iterate() -> None:
        fit._descend()
        fit._advance()

    @torch.no_grad()
    def record() -> None:
        written = fit._recorder.measure(0, fit._whole)
        fit._recorder.measure_step(fit._optimizer.flow_time)
        to_json(written)
        fit.state()

    candidates: dict[str, Callable[[], None]] = {
        "straightforward": straight.step,
        "ours": iterate,
        "own products": torch.no_grad()(own_products(fit)),
        "record": record,
    }
    return interleaved(candidates, seconds, synchronize=device.type == "cuda"), len(fit.model.parameters)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()
    device = torch.device(args.device)
    rows = []
    for threads in args.threads if device.type == "cpu" else [1]:
        torch.set_num_threads(threads)
        for name in CASES:
            times, parameters = measure(name, device, args.seconds)
            ours, wanted = times["ours"], TARGETS[name]
            rows.append(
                (
                    name,
                    f"{parameters:,}",
                    threads if device.type == "cpu" else device.type,
                    f"{1e3 * times['straightforward']:.2f}",
                    f"{1e3 * ours:.3f}",
                    f"{times['straightforward'] / ours:.0f}" + (f" (wanted {wanted})" if wanted else ""),
                    f"{ours / times['own products']:.2f}",
                    f"{100 * times['record'] / (EVERY * ours):.0f} %",
                )
            )
    head = (
        "case",
        "parameters",
        "threads",
        "straightforward, ms",
        "ours, ms",
        "ratio",
        "ours / own products",
        "recording",
    )
    print(f"{machine()}, float32, medians of 7 interleaved rounds\n\n{table(head, rows)}")


if __name__ == "__main__":
    main()
