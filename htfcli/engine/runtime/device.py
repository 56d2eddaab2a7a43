"""Devices: choosing and describing them, and CUDA graphs of a fixed sequence of operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from htfcli.errors import ConfigError


def choose_device(name: str, threads: int | None = None, processes: int = 1) -> torch.device:
    """The device with a given name; also sets the number of CPU threads of this process.

    Args:
        name: `auto` (CUDA if available), `cpu`, `cuda` or `cuda:N`. threads: CPU threads; torch's default if None.
        processes: how many share the run; each has a GPU of its own, which is its current one.
    Raises:
        ConfigError: if the device does not exist, or several processes would be on one GPU.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if count else torch.device("cpu")
    device = torch.device(name)
    if device.index is not None and processes > 1:
        what = f"--device {name} would put every process on one GPU"
        raise ConfigError(what, got=f"{processes} processes", next_step="Use --device cuda: each takes its own.")
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ConfigError(
            f"device {name} is not available",
            got=f"{count} CUDA devices",
            allowed=", ".join(["auto", "cpu", *(f"cuda:{i}" for i in range(count))]),
            next_step="Use --device cpu." if not count else "",
        )
    return device


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one CPU thread while the block runs: for matrices so small that several threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def describe_device(device: torch.device) -> str:
    """The device with the name of the GPU, or with the number of CPU threads."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    threads = torch.get_num_threads()
    return f"cpu ({threads} thread{'s' if threads > 1 else ''})"


def captured(function: Callable[[], None], device: torch.device, state: Sequence[Tensor] = ()) -> Callable[[], None]:
    """A function on fixed buffers, captured on CUDA as a graph: one kernel launch instead of dozens.

    Args:
        function: reads and writes tensors at fixed addresses, and never waits for the device.
        device: of the tensors; on a CPU the function is returned unchanged.
        state: tensors of any shape that the function changes; restored after the warm-up calls that capturing needs.
    """
    if device.type != "cuda":
        return function
    saved = [tensor.clone() for tensor in state]
    with torch.cuda.device(device):
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                function()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side):
            function()
    for tensor, value in zip(state, saved, strict=True):
        tensor.copy_(value)
    return graph.replay
