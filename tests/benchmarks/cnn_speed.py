"""One training step of a ResNet18: plain, with the regularizer as published, and with ours.

    python -m tests.benchmarks.cnn_speed

"As published" is the direct double backward, written here from the definition. On a CPU: 1 x 64 x 64, batch 32, one
thread, seconds of CPU time (other processes do not count); memory is how far a step in a fresh process raises the peak.
With CUDA: 1 x 150 x 150, batch 64, with bfloat16 and compiled variants.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from htfcli.engine.vision.datasets.image_set import Patch
from htfcli.engine.vision.regularizer.non_local import NonLocalRegularizer
from htfcli.engine.vision.resnet import resnet
from tests.benchmarks.timing import machine, memory, table

Step = Callable[[], None]

CUDA = torch.cuda.is_available()
SIDE, BATCH = (150, 64) if CUDA else (64, 32)
ROUNDS = 7
REGION, OTHER = Patch(10, 4, 16, 16), Patch(20, 40, 16, 16)


def steps() -> dict[str, Step]:
    """One step each, of networks with the same weights, on the same batch."""
    device = torch.device("cuda" if CUDA else "cpu")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, 1, SIDE, SIDE, generator=generator).to(device)
    y = torch.randint(2, (BATCH,), generator=generator).to(device)

    def step(loss: Callable[[nn.Module], Tensor], amp: bool = False) -> Step:
        torch.manual_seed(0)
        model = resnet("resnet18", 1, 1).to(device)
        optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9)

        def run() -> None:
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=amp):
                total = loss(model)
            total.backward()
            optimizer.step()

        return run

    def task(outputs: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(outputs.squeeze(1).float(), y.float())

    def published(model: nn.Module) -> Tensor:
        first = x.clone().requires_grad_()
        outputs = model(first)
        (g,) = torch.autograd.grad(outputs.sum(), first, create_graph=True)
        second = x.clone()
        OTHER.of(second).copy_(OTHER.of(torch.cat([x[1:], x[:1]])))
        second.requires_grad_()
        (h,) = torch.autograd.grad(model(second).sum(), second, create_graph=True)
        a, b = REGION.of(g).flatten(1), REGION.of(h).flatten(1)
        a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
        return task(outputs) + (a * b).sum(1).abs().mean()

    def ours(**options) -> Callable[[nn.Module], Tensor]:
        regularizer = NonLocalRegularizer(lambda height, width, generator: (REGION, OTHER), **options)

        def loss(model: nn.Module) -> Tensor:
            outputs, penalty = regularizer.with_outputs(model, x, y)
            return task(outputs) + penalty

        return loss

    found = {
        "no regularizer": step(lambda model: task(model(x))),
        "as published": step(published),
        "double-backward": step(ours()),
        "tangent": step(ours(formulation="tangent")),
    }
    if CUDA:
        compiled = partial(torch.compile, fullgraph=True)
        found |= {
            "no regularizer, bfloat16": step(lambda model: task(model(x)), amp=True),
            "double-backward, bfloat16": step(ours(), amp=True),
            "tangent, bfloat16": step(ours(formulation="tangent"), amp=True),
            "tangent, compiled": step(ours(formulation="tangent", compile=compiled)),
            "tangent, bfloat16, compiled": step(ours(formulation="tangent", compile=compiled), amp=True),
        }
    return found


def seconds(candidates: dict[str, Step]) -> dict[str, list[float]]:
    """Times of every candidate in turn A B C A B C ..., after a warm-up: of the CPU, or of the GPU's clock on the wall."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    clock = time.perf_counter if CUDA else time.process_time
    for turn in range(ROUNDS + 1):
        for name, run in candidates.items():
            started = clock()
            run()
            if CUDA:
                torch.cuda.synchronize()
            if turn:
                times[name].append(clock() - started)
    return times


def growth(name: str) -> float:
    """MiB that two steps in this fresh process add to its peak."""
    run = steps()[name]
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(), run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    before = memory("VmRSS")
    run(), run()
    return memory("VmHWM") - before


def main() -> None:
    torch.set_num_threads(1)
    if len(sys.argv) == 3 and sys.argv[1] == "--memory":
        print(growth(sys.argv[2]))
        return
    times = seconds(steps())
    plain = statistics.median(times["no regularizer"])
    rows: list[tuple[object, ...]] = []
    for name, values in times.items():
        command = [sys.executable, "-m", "tests.benchmarks.cnn_speed", "--memory", name]
        peak = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        middle = statistics.median(values)
        rows.append((name, f"{middle:.3f}", f"{min(values):.3f}", f"{middle / plain:.1f}", f"{peak:.0f}"))
    print(f"{machine()}; 1 x {SIDE} x {SIDE}, batch {BATCH}, one thread, {ROUNDS} rounds")
    print(table(("step", "median s", "least s", "/ plain", "peak MiB"), rows))


if __name__ == "__main__":
    main()
