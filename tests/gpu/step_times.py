"""Times of one training step in every formulation.

`python -m tests.gpu.step_times NAME [--smoke]` times one of the compiled ones in a process of its own, which can be
stopped, and prints milliseconds and MiB.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from htfcli.engine.runtime.precision import Precision, PrecisionName
from tests.benchmarks.network_steps import Step, functional_step, ours, plain, published, step
from tests.gpu.setting import Row, Setting, output_of, python

NAME, TITLE, SHARE = "step_times", "Time of a step", 0.3
ABOUT = (
    "ResNet18, images of 1 x 150 x 150, batch 64, SGD: medians of rounds A B C A B C ..., and the peak of what a step "
    "adds to the memory of the GPU. Targets: ours at most 3 plain steps, and at most half of what the published "
    "formulation takes."
)
_ROUNDS = 15
_COMPILED = ("tangent, compiled", "functional double backward, compiled", "plain, compiled")


def rows(setting: Setting) -> Iterator[Row]:
    eager = _eager(setting.device, setting.smoke)
    times: dict[str, list[float]] = {name: [] for name in eager}
    memory = {name: _memory(setting, make) for name, make in eager.items()}
    steps = {name: make() for name, make in eager.items()}
    for turn in range(2 if setting.smoke else _ROUNDS + 3):
        for name, run in steps.items():
            seconds, _ = setting.timed(run)
            if turn >= (1 if setting.smoke else 3):  # cuDNN tries its algorithms first
                times[name].append(seconds)
        if setting.left < 0 and times["plain, tf32"]:
            break
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name in eager:
        yield _row(name, medians, memory[name])
    del steps
    for name in _COMPILED:
        if setting.left < 5:
            return
        flags = ["--smoke"] if setting.smoke else []
        code, said = output_of(python("-m", "tests.gpu.step_times", name, *flags), setting.left)
        if code == 0:
            found = json.loads(said.strip().splitlines()[-1])
            medians[name] = found["seconds"]
            yield _row(name, medians, found["MiB"])
        else:
            print(said)
            last = said.strip().splitlines()[-1:] or [""]
            yield {"step": name, "ms": "stopped at the time limit" if code is None else f"failed: {last[0][:200]}"}


def _row(name: str, medians: dict[str, float], mebibytes: float) -> Row:
    return {
        "step": name,
        "ms": 1000 * medians[name],
        "/ plain": medians[name] / medians["plain, tf32"],
        "/ published": medians[name] / medians["published double backward, tf32"],
        "MiB": mebibytes,
    }


def _sizes(smoke: bool) -> tuple[str, int, int]:
    return ("resnet-mini", 4, 24) if smoke else ("resnet18", 64, 150)


def _eager(device: torch.device, smoke: bool) -> dict[str, Callable[[], Step]]:
    """By name what makes the step. On the CPU, where there is no tf32, float32 stands in for it."""

    def made(loss: Any, precision: PrecisionName, channels_last: bool = False) -> Callable[[], Step]:
        name: PrecisionName = "float32" if precision == "tf32" and device.type == "cpu" else precision
        return partial(step, loss, *_sizes(smoke), Precision(name, device), channels_last)

    tangent = ours(formulation="tangent")
    return {
        "plain, tf32": made(plain, "tf32"),
        "published double backward, tf32": made(published, "tf32"),
        "ours, tf32": made(ours(), "tf32"),
        "tangent, tf32": made(tangent, "tf32"),
        "plain, tf32, channels last": made(plain, "tf32", True),
        "ours, tf32, channels last": made(ours(), "tf32", True),
        "plain, float32": made(plain, "float32"),
        "ours, float32": made(ours(), "float32"),
        "plain, bf16, channels last": made(plain, "bf16", True),
        "ours, bf16, channels last": made(ours(), "bf16", True),
    }


def _memory(setting: Setting, make: Callable[[], Step]) -> float:
    """MiB at the peak of the second step, above what the network and its optimizer hold; 0 on a CPU."""
    run = make()
    run()
    if setting.device.type != "cuda":
        return 0.0
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _compiled(name: str, device: torch.device, smoke: bool) -> Step:
    backend = {"backend": "aot_eager"} if smoke else {}
    compiler = partial(torch.compile, fullgraph=True, **backend)
    precision = Precision("tf32" if device.type == "cuda" else "float32", device)
    sizes = _sizes(smoke)
    if name.startswith("functional"):
        return functional_step(*sizes, precision, compiler)
    if name.startswith("tangent"):
        return step(ours(formulation="tangent", compile=compiler), *sizes, precision)
    compiled: dict[Any, Any] = {}  # by network, which a step makes itself

    def loss(model: Any, x: Any, y: Any) -> Any:
        if model not in compiled:
            compiled[model] = compiler(model)
        return plain(compiled[model], x, y)

    return step(loss, *sizes, precision)


def main() -> None:
    name, smoke = sys.argv[1], "--smoke" in sys.argv[2:]
    device = torch.device("cpu" if smoke else "cuda")
    torch.set_num_threads(1 if smoke else torch.get_num_threads())
    setting = Setting(device, Path(), smoke, time.monotonic())
    run = _compiled(name, device, smoke)
    for _ in range(1 if smoke else 4):
        run()
    times = [setting.timed(run)[0] for _ in range(1 if smoke else _ROUNDS)]
    print(json.dumps({"seconds": statistics.median(times), "MiB": _memory(setting, lambda: run)}))


if __name__ == "__main__":
    main()
