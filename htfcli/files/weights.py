"""Weights of other trainings: read from safetensors or torch files, and fitted to the names of a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from htfcli.errors import DataError
from htfcli.files.foreign.readers import refuse_special

_WITHIN = ("state_dict", "model_state_dict", "model", "network", "net", "weights")  # of dictionaries of checkpoints
_PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.")  # of wrappers: parallel, compiled, regularized
_COUNTER = "num_batches_tracked"  # of batch normalization; older files lack it


def read_weights(path: str) -> dict[str, Tensor]:
    """Named weights from a run folder, a .safetensors file, or a torch file of plain tensors.

    In a torch file they may be within the dictionary of a checkpoint. Nothing is unpickled but tensors and containers.

    Raises:
        DataError: if it cannot be read as such.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "model.safetensors"
    if not file.exists():
        raise DataError(f"{path} does not exist" if file == Path(path) else f"{path} has no model.safetensors")
    refuse_special(file)
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises all kinds for damaged files, and for those with other objects
        reason = (str(error).splitlines() or [""])[0].rstrip(".")
        raise DataError(f"cannot read the weights {path}: {type(error).__name__}: {reason}") from None
    for key in _WITHIN:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise DataError(f"{path} does not contain a state dict", got=_kind(loaded), allowed="names and tensors")
    return {str(name): value for name, value in loaded.items()}


def _kind(loaded: Any) -> str:
    if not isinstance(loaded, Mapping):
        return type(loaded).__name__
    return f"a dictionary of {', '.join(map(str, list(loaded)[:5]))}" if loaded else "an empty dictionary"


def without_prefixes(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Weights by the names that a network has: prefixes of wrappers are taken off, and what lacks them is left out.

    Args:
        weights: tensors of any shape by name.
    """
    known = model.state_dict().keys()
    while True:
        tries = [{k.removeprefix(p): v for k, v in weights.items() if k.startswith(p)} for p in _PREFIXES]
        better = [
            found
            for found in tries
            if len(found.keys() & known) > len(weights.keys() & known)
            or (len(found) == len(weights) and not weights.keys() & known)
        ]
        if not better:
            return weights
        weights = better[0]


def start_from(model: nn.Module, weights: dict[str, Tensor], name: str) -> list[str]:
    """Copy weights into a network whose head, its last module with parameters, may be another one.

    Args:
        weights: tensors of the network's shapes, by name. name: of their file.
    Returns: the names in the network that keep their own values.
    Raises:
        DataError: if a tensor outside the head is missing, of another shape, or unknown to the network.
    """
    weights, own = without_prefixes(weights, model), model.state_dict()
    if not weights.keys() & own.keys():
        got = ", ".join(list(weights)[:3])
        raise DataError(f"{name} has no weights of this network", got=got, allowed=", ".join(list(own)[:3]))
    head = _module_of(next(reversed(dict(model.named_parameters()))))
    other_head = _module_of([k for k in weights if not k.endswith(_COUNTER)][-1])
    kept = [k for k in own if k not in weights or weights[k].shape != own[k].shape]
    kept = [k for k in kept if not k.endswith(_COUNTER)]
    for key in kept:
        if _module_of(key) != head:
            got = str(list(weights[key].shape)) if key in weights else "nothing"
            raise DataError(f"{name} does not fit the network at {key}", got=got, allowed=list(own[key].shape))
    for key in weights.keys() - own.keys():
        if _module_of(key) not in (head, other_head):
            raise DataError(f"{name} has weights that the network lacks", got=key)
    if kept:  # a head is kept as a whole
        kept = [k for k in own if _module_of(k) == head]
    model.load_state_dict({k: v for k, v in weights.items() if k in own and k not in kept}, strict=False)
    return kept


def _module_of(name: str) -> str:
    return name.rpartition(".")[0]
