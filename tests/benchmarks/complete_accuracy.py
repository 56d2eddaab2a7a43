"""How accurate `complete` is and what it takes: synthetic targets of known rank, and two real tensors of tensorly's.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.complete_accuracy A B C --seeds 0-9

Relative Frobenius error over the unobserved entries; tree, widths and everything else are found by the search. CPU
seconds of the whole call on one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from htfcli.config.completion import CompleteConfig
from htfcli.engine.completion.complete import complete
from htfcli.engine.factorizations.cp import CPFactorization
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.observations.observations import sample_entries
from htfcli.engine.samples import Entries, unravel
from tests.benchmarks.completion_peers import peer_errors
from tests.benchmarks.timing import machine, table


@dataclass
class Problem:
    """Observed entries, and where the error is taken against which values."""

    dims: tuple[int, ...]
    observed: Entries
    index: Tensor
    value: Tensor


def gaussian(model: Factorization, generator: torch.Generator) -> Factorization:
    return model.init_gaussian(1.0, generator)


def around_one(model: Factorization, generator: torch.Generator) -> Factorization:
    """Leaves 1 + 0.3 N, inner matrices identity + 0.3 N, root 1 + 0.3 N."""
    model.init_gaussian(0.3, generator)
    for node, weight in enumerate(model.node_weights):
        assert weight is not None
        inner = model.order <= node < model.tree.root
        weight.add_(torch.eye(*weight.shape, dtype=weight.dtype) if inner else 1.0)
    return model


def synthetic(model: Factorization, count: int, generator: torch.Generator, noise: float = 0.0) -> Problem:
    """`count` entries of a target scaled to root mean square one; judged on the others (20,000 of them if many)."""
    whole = model.entries <= 10**6
    if whole:
        model.scale(1 / float(model.dense().square().mean().sqrt()))
    index = sample_entries(model.dims, count, generator)
    if whole:
        seen = torch.zeros(model.dims, dtype=torch.bool)
        seen[index.unbind(1)] = True
        rest = torch.nonzero(~seen)
    else:
        rest = sample_entries(model.dims, 20_000, generator, exclude=index)
        model.scale(1 / float(model.values(index).square().mean().sqrt()))
    value = model.values(index)
    value += noise * torch.randn(count, generator=generator, dtype=torch.float64)
    return Problem(model.dims, Entries(index, value), rest, model.values(rest))


def real(name: str, share: float) -> Problem:
    """A share of the known entries of a tensor that tensorly bundles, drawn by numpy's default_rng(0)."""
    from tensorly.datasets import data_imports

    load = {"kinetic": data_imports.load_kinetic, "il2": data_imports.load_IL2data}[name]
    tensor = np.asarray(load().tensor, dtype=float)
    known = np.flatnonzero(~np.isnan(tensor))
    order = np.random.default_rng(0).permutation(len(known))
    count = round(share * len(known))
    flat = torch.from_numpy(tensor.reshape(-1))
    first, rest = (torch.from_numpy(known[part]) for part in (order[:count], order[count:]))
    return Problem(
        tensor.shape, Entries(unravel(first, tensor.shape), flat[first]), unravel(rest, tensor.shape), flat[rest]
    )


def htf(order: int, dim: int, width: int) -> HierarchicalTensorFactorization:
    return HierarchicalTensorFactorization((dim,) * order, width)


TASKS: dict[str, tuple[Callable[[torch.Generator], Problem], str]] = {
    "A": (lambda g: synthetic(gaussian(htf(4, 8, 5), g), 2048, g), "< 1e-9 on 10 of 10, 5 s"),
    "B": (lambda g: synthetic(gaussian(htf(4, 8, 5), g), 800, g), "< 1e-9 on 9 of 10, 10 s"),
    "C": (lambda g: synthetic(gaussian(htf(8, 4, 3), g), 6000, g), "< 1e-9 on 8 of 10, 30 s"),
    "D": (lambda g: synthetic(gaussian(CPFactorization((30,) * 3, 4), g), 2700, g), "< 1e-9 on 10 of 10, 10 s"),
    "E": (lambda g: synthetic(gaussian(CPFactorization((30,) * 3, 4), g), 2700, g, 0.05), "< 2.3e-2 on 10 of 10, 20 s"),
    "G": (lambda g: synthetic(around_one(htf(16, 4, 2), g), 20_000, g), "< 1e-9 on 8 of 10, 60 s"),
    "kinetic2": (lambda g: real("kinetic", 0.02), "< 4.4e-2, 60 s"),
    "kinetic10": (lambda g: real("kinetic", 0.10), "< 3.8e-2, 60 s"),
    "il2": (lambda g: real("il2", 0.50), "< 0.191, 60 s"),
}


def measured(problem: Problem, seed: int) -> tuple[float, float, str]:
    """Error, CPU seconds, and what was found."""
    started = time.process_time()
    completion = complete(problem.observed, problem.dims, CompleteConfig(seed=seed, threads=1))
    seconds = time.process_time() - started
    predicted = completion.values(problem.index)
    error = float((predicted - problem.value).norm() / problem.value.norm())
    report = completion.report
    found = f"held out {report['held_out_error']:.1e}, {report['tree']}, widths {list(report['widths'].values())}"
    members = ", ".join(f"{m['name']} {max(m['weights'].values()):.2f}" for m in report["members"])
    return error, seconds, f"{found}; {members}; {report['warnings']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--seeds", default="0-9")
    parser.add_argument("-v", "--verbose", action="store_true")
    parser.add_argument("--peers", action="store_true", help="measure tensorly, pyttb and teneva beside, if installed")
    args = parser.parse_args()
    torch.set_num_threads(1)
    low, _, high = args.seeds.partition("-")
    rows: list[tuple[object, ...]] = []
    for name in args.tasks:
        make, goal = TASKS[name]
        seeds = range(int(low), int(high or low) + 1) if len(name) == 1 else range(1)
        results, others = [], dict[str, list[float]]()
        for seed in seeds:
            problem = make(torch.Generator().manual_seed(seed))
            error, seconds, found = measured(problem, seed)
            results.append((error, seconds))
            if args.peers:
                for peer, off in peer_errors(problem.observed, problem.dims, problem.index, problem.value).items():
                    others.setdefault(peer, []).append(off)
            if args.verbose:
                print(f"{name} seed {seed}: error {error:.2e}, {seconds:.1f} CPU s, {found}", flush=True)
        limit = float(goal.split()[1].rstrip(","))
        errors, times = zip(*results, strict=True)
        reached = sum(e < limit for e in errors)
        median, worst = statistics.median(errors), max(errors)
        beside = ", ".join(f"{peer} {statistics.median(off):.1e} / {max(off):.1e}" for peer, off in others.items())
        ours = (f"{reached} of {len(errors)}", f"{median:.1e} / {worst:.1e}", f"{max(times):.1f}")
        rows.append((name, goal, *ours, beside))
        print(f"{name}: {rows[-1][2:]}", flush=True)
    print(machine())
    print(table(("task", "to reach", "reached", "error, median / worst", "CPU s, worst", "peers"), rows))


if __name__ == "__main__":
    main()
