"""CUDA pretended: arithmetic on the CPU, storages marked as being on one device or the other.

As on a GPU, operations that mix devices raise. What makes the host wait for the device, or copies from pageable memory
to it, which is a wait too, is listed with the line of the package that it is on. Capturing as a CUDA graph, where either
is an error, is pretended too.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda", 0)
_FREE = "free"  # made by torch itself, as zeros in a backward pass: of whatever device is needed

# Operations whose output has a size, or a number on the host, that only the device knows
_WAITING = {
    "_local_scalar_dense", "nonzero", "_unique2", "unique_dim", "unique_consecutive", "equal", "is_nonzero",
    "masked_select", "bincount", "repeat_interleave", "_linalg_check_errors", "_linalg_eigh", "_linalg_svd",
}  # fmt: skip
_READING = {"tolist", "numpy", "__array__"}  # methods that read the storage on the host


class MixedDevicesError(RuntimeError):
    """What CUDA would refuse."""


@dataclass
class Log:
    """What the host waited for: operation and line of the package."""

    waits: list[str] = field(default_factory=list)
    capturing: bool = False

    def add(self, what: str) -> None:
        frames = [f for f in traceback.extract_stack() if "/htfcli/" in f.filename]
        where = f"{frames[-1].filename.split('/htfcli/')[1]}:{frames[-1].lineno}" if frames else "elsewhere"
        if self.capturing:
            raise MixedDevicesError(f"{what} while a graph is captured, at {where}")
        self.waits.append(f"{what} at {where}")


class _Places:
    """On which device each storage is: cpu unless it is marked."""

    def __init__(self) -> None:
        self._of: dict[int, str] = {}
        self._pinned: set[int] = set()
        self._kept: dict[int, torch.UntypedStorage] = {}  # so that no other storage comes to a marked address

    @staticmethod
    def _storage(tensor: Tensor) -> torch.UntypedStorage:
        while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            tensor = torch._C._functorch.get_unwrapped(tensor)
        if tensor.layout == torch.sparse_csr:
            tensor = tensor.values()
        return tensor.untyped_storage()

    def _key(self, tensor: Tensor) -> int:
        return self._storage(tensor)._cdata

    def __call__(self, tensor: Tensor) -> str:
        return self._of.get(self._key(tensor), "cpu")

    def mark(self, tensor: Tensor, place: str, pinned: bool = False) -> Tensor:
        storage = self._storage(tensor)
        key = storage._cdata
        self._kept[key] = storage
        self._of[key] = place
        (self._pinned.add if pinned else self._pinned.discard)(key)
        return tensor

    def pinned(self, tensor: Tensor) -> bool:
        return self._key(tensor) in self._pinned

    def share(self, tensor: Tensor, others: Sequence[Tensor]) -> bool:
        return self._key(tensor) in {self._key(other) for other in others}


class _Operations(TorchDispatchMode):
    """Every operation as torch carries it out: mixing, waiting, and where its results are."""

    def __init__(self, places: _Places, log: Log) -> None:
        super().__init__()
        self._places, self._log = places, log

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.name().removeprefix("aten::").split(".")[0]
        inputs = [a for a in tree_leaves((args, kwargs)) if isinstance(a, Tensor)]
        places = [self._places(t) for t in inputs]
        on_gpu = "cuda" in places
        # A number of the host may go into any operation; indices of the host may go into a tensor of the device
        bound = {p for t, p in zip(inputs, places, strict=True) if p != _FREE and (t.dim() or p == "cuda")}
        if name in ("index", "index_put", "index_put_", "_index_put_impl_") and places[0] == "cuda":
            self._index(name, args)
        elif len(bound) > 1 and name != "copy_":
            raise MixedDevicesError(f"{name} of tensors on {' and '.join(sorted(bound))}")
        elif name == "copy_" and len(bound) > 1:
            source = inputs[1]
            if not (places[0] == "cuda" and self._places.pinned(source) and args[2:3] == (True,)):
                self._log.add(f"copy from {places[1]} to {places[0]}")
        elif on_gpu and name in _WAITING:
            self._log.add(name)
        found = func(*args, **kwargs)
        for output in tree_leaves(found):
            if isinstance(output, Tensor) and not self._places.share(output, inputs):
                self._places.mark(output, "cuda" if on_gpu else "cpu" if "cpu" in places else _FREE)
        return found

    def _index(self, name: str, args: tuple) -> None:
        for index in (i for i in args[1] if i is not None):
            if index.dtype in (torch.bool, torch.uint8):
                self._log.add(f"{name} by a mask")
            elif self._places(index) == "cpu":
                self._log.add(f"{name} by an index of the CPU")
        if name != "index" and args[2].dim() and self._places(args[2]) == "cpu":
            raise MixedDevicesError(f"{name} of values on cpu")


class _Calls(TorchFunctionMode):
    """Every call as Python writes it: devices that are asked for or asked about."""

    def __init__(self, places: _Places, log: Log) -> None:
        super().__init__()
        self._places, self._log = places, log

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if func == Tensor.is_cuda.__get__:
            return self._places(args[0]) == "cuda"
        if func == Tensor.device.__get__:
            return GPU if self._places(args[0]) == "cuda" else torch.device("cpu")
        if func is Tensor.to:
            return self._to(*args, **kwargs)
        if func in (Tensor.cpu, Tensor.cuda):
            return self._to(args[0], name)
        if func is Tensor.pin_memory:
            return self._places.mark(args[0].clone(), "cpu", pinned=True)
        inputs = [a for a in tree_leaves((args, kwargs)) if isinstance(a, Tensor)]
        if name in _READING and self._places(args[0]) == "cuda":
            self._log.add(name)
            if name != "tolist":
                raise MixedDevicesError(f"{name} of a tensor on cuda")
        device = kwargs.pop("device", None)
        place = None if device is None else torch.device(device).type
        generator = kwargs.get("generator")
        if place == "cuda" and generator is not None and generator.device.type == "cpu":
            raise MixedDevicesError(f"{name} on cuda by a generator on cpu")
        if name == "new_tensor" or (name in ("tensor", "as_tensor") and not inputs):
            place = place or (self._places(args[0]) if name == "new_tensor" else "cpu")
            if place == "cuda":
                self._log.add(f"{name} from the host")
        found = func(*args, **kwargs)
        for output in tree_leaves(found):
            if isinstance(output, Tensor) and (place is not None or not inputs):
                self._places.mark(output, place or "cpu")
        return found

    def _to(self, source: Tensor, *args, copy: bool = False, **kwargs) -> Tensor:
        like = next((a for a in (*args, kwargs.get("other")) if isinstance(a, Tensor)), None)
        if like is None:
            device, dtype, non_blocking, layout = torch._C._nn._parse_to(*args, **kwargs)
            place = self._places(source) if device is None else device.type
        else:
            place, dtype, non_blocking, layout = self._places(like), like.dtype, kwargs.get("non_blocking", False), None
        before = self._places(source)
        moves = place != before
        found = source.to(
            dtype=dtype or source.dtype, copy=copy or moves, memory_format=layout or torch.preserve_format
        )
        if not moves:
            return found
        if place == "cpu" or not (non_blocking and self._places.pinned(source)):
            self._log.add(f"copy from {before} to {place}")
        return self._places.mark(found, place)


def _captured(log: Log) -> Callable[..., Callable[[], None]]:
    """In place of `htfcli.engine.runtime.device.captured`: the same calls, in which the host may not wait."""

    def captured(
        function: Callable[[], None], device: torch.device, state: Sequence[Tensor] = ()
    ) -> Callable[[], None]:
        if device.type != "cuda":
            return function

        def replay() -> None:
            log.capturing = True
            try:
                function()
            finally:
                log.capturing = False

        saved = [tensor.clone() for tensor in state]
        for _ in range(3):
            function()
        replay()
        for tensor, value in zip(state, saved, strict=True):
            tensor.copy_(value)
        return replay

    return captured


@contextmanager
def pretended_cuda() -> Iterator[Log]:
    """One pretended GPU while the block runs; yields the list of waits."""
    log, places = Log(), _Places()
    gpu = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda device=None: "pretended",
        "mem_get_info": lambda device=None: (2**36, 2**36),
        "get_rng_state": lambda device=None: torch.random.get_rng_state(),
        "set_rng_state": lambda state, device=None: torch.random.set_rng_state(state),
    }
    with ExitStack() as stack:
        for name, function in gpu.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, function))
        for module in ("gradient_descent", "batched"):
            stack.enter_context(mock.patch(f"htfcli.engine.fitting.{module}.captured", _captured(log)))
        stack.enter_context(_Calls(places, log))
        stack.enter_context(_Operations(places, log))
        yield log
