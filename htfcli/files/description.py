"""Descriptions of files: records of what they contain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from htfcli.config.records import Record
from htfcli.config.tables import TableConfig
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.observations.observations import Observations
from htfcli.engine.vision.datasets.image_set import ImageData
from htfcli.files.foreign.datasets import DatasetTensor
from htfcli.files.foreign.readers import Dense
from htfcli.files.image_files import image_facts, is_image_folder, load_image_folder, to_image_data
from htfcli.files.inputs import open_input
from htfcli.files.own.artefacts import task_of, to_factorization, to_observations
from htfcli.files.own.completion import SavedCompletion, to_completion
from htfcli.files.own.container import Artefact
from htfcli.files.own.records import KINDS, Records, load_records
from htfcli.files.tables.table import Table


def describe_input(
    argument: str, config: TableConfig | None = None, on_remark: Callable[[str], None] = lambda text: None
) -> Record:
    """A record that describes any input: a file, a run folder or stdin (`-`).

    Args:
        argument: the input. config: how tables are read. on_remark: called with what was found out about a table.
    Raises:
        DataError: if it cannot be read.
    """
    path = Path(argument)
    if path.is_dir() and not (path / "model.safetensors").exists() and is_image_folder(argument):
        return _images(load_image_folder(argument))
    if path.is_dir() and (path / "records.jsonl").exists() and not (path / "model.safetensors").exists():
        return _records(load_records(argument))
    opened = open_input(argument, config, None, on_remark)
    if isinstance(opened, Records):
        return _records(opened)
    if isinstance(opened, Dense):
        return {"kind": "dense tensor", "dims": list(opened.array.shape), **_entries(opened.values)}
    if isinstance(opened, DatasetTensor):
        names = [axis.name for axis in opened.axes]
        return {"kind": "data set", "dims": list(opened.dims), "modes": names, **_entries(opened.values)}
    if isinstance(opened, Table):
        return _table(opened, config)
    facts = _artefact(opened)
    facts |= {"written_by": f"htf {opened.version}", "config": _short(opened.config)} if opened.config else {}
    if path.is_dir():
        facts |= {f"run_{key}": value for key, value in _records(load_records(argument)).items() if key != "kind"}
    return facts


def _table(table: Table, config: TableConfig | None) -> Record:
    entries = table.entries(average=config is not None and config.duplicates == "mean")
    return {
        "kind": "table",
        "layout": "one column per index" if table.is_wide else "one row per entry",
        "dims": list(table.dims),
        "modes": [axis.name for axis in table.axes],
        "labels": [f"{axis.label(0)} ... {axis.label(axis.size - 1)}" for axis in table.axes],
        "value": table.value_name,
        "observed": len(entries),
        "missing": int(torch.isnan(table.value).sum()),
        **_values(entries.value),
    }


def _entries(values: Tensor) -> Record:
    missing = torch.isnan(values)
    return {"missing": int(missing.sum()), **_values(values[~missing])}


def _artefact(artefact: Artefact) -> Record:
    if artefact.kind == "observations":
        return _observations(to_observations(artefact))
    if artefact.kind == "factorization":
        return _factorization(to_factorization(artefact))
    if artefact.kind == "images":
        return _images(to_image_data(artefact))
    if artefact.kind == "completion":
        return _completion(to_completion(artefact))
    shapes = {name: list(shape) for name, (_, shape) in artefact.shapes().items()}
    if artefact.kind == "checkpoint":
        counter = "epoch" if "epochs" in artefact.config else "iteration"
        return {"kind": "checkpoint", counter: int(artefact.tensors()["counters"][0]), "tensors": shapes}
    if artefact.kind == "cnn":
        numbers = {"model": artefact.config.get("model"), **artefact.content}
        return {"kind": "cnn", **numbers, "tensors": shapes}
    return {"kind": artefact.kind, "tensors": shapes}


def _observations(observations: Observations) -> Record:
    train, test, target = observations.train, observations.test, observations.target
    facts: Record = {
        "kind": "observations",
        "task": task_of(train),
        "dims": list(observations.dims),
        "train": len(train),
        "test": 0 if test is None else len(test),
        **_values(train.value),
    }
    if target is not None:
        facts["target"] = target.kind
        facts["target_ranks"] = [target.widths[v] for v in target.sized(target.tree)]
        facts["nodes"] = _nodes(target)
    return facts


def _factorization(model: Factorization) -> Record:
    return {
        "kind": "factorization",
        "model": model.kind,
        "dims": list(model.dims),
        "parameters": len(model.parameters),
        "dtype": str(model.parameters.dtype).removeprefix("torch."),
        "nodes": _nodes(model),
    }


def _images(data: ImageData) -> Record:
    facts = image_facts(data)
    for part, images in (("train", data.train), ("test", data.test)):
        facts[f"{part}_labels"] = torch.bincount(images.labels, minlength=len(data.classes)).tolist()
    if data.train.patches is not None:
        facts["patches"] = [[p.top, p.left, p.height, p.width] for p in data.train.patches]
    return facts


def _completion(saved: SavedCompletion) -> Record:
    completion = saved.completion
    return {
        **({} if completion.model is None else _factorization(completion.model)),  # the strongest of those averaged
        "kind": "completion",
        "dims": list(completion.dims),
        "modes": [axis.name for axis in saved.axes],
        "value": saved.value_name,
        "members": len(completion.members),
    }


def _nodes(model: Factorization) -> list[Record]:
    """The nodes of the mode tree, children before parents, the root last."""
    tree = model.tree
    nodes: list[Record] = []
    for node, matrix in enumerate(model.node_weights):
        fact: Record = {"node": tree.labels[node], "children": [tree.labels[c] for c in tree.children[node]]}
        fact |= {"dimension": model.dims[node]} if node < tree.order else {}
        fact |= {"width": model.widths[node]} if node in model.widths else {}
        weight = model.weights[tree.labels[node]] if model.dense_cores else matrix  # a core with its axes
        nodes.append(fact | {"weights": None if weight is None else list(weight.shape)})
    return nodes


def _values(values: Tensor) -> Record:
    return {"min": float(values.min()), "max": float(values.max()), "rms": float(values.square().mean().sqrt())}


def _records(run: Records) -> Record:
    last = run.records[-1]
    numbers = {k: v for k, v in last.items() if isinstance(v, int | float)}
    return {"kind": KINDS[run.kind], "records": len(run.records), **numbers}


def _short(config: dict[str, Any]) -> str:
    """The settings that have a value, as `key=value` texts."""
    given = {key: value for key, value in config.items() if value is not None and value is not False and value != []}
    return " ".join(f"{key.replace('_', '-')}={value}" for key, value in given.items())
