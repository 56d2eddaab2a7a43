from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings

from htfcli.config.tensors import TargetConfig
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.observations.synthetic import make_observations
from htfcli.errors import DataError
from htfcli.files.own import container
from htfcli.files.own.artefacts import save_factorization, save_observations, to_factorization, to_observations
from tests.files.own.tampering import tamper
from tests.problems import factorizations, generator


def model():
    return HierarchicalTensorFactorization((3, 4, 5), [2, 3]).init_gaussian(1.0, generator())


@settings(max_examples=40, deadline=None)
@given(model=factorizations())
def test_factorizations_there_and_back(tmp_path_factory, model):
    path = tmp_path_factory.mktemp("there") / "m.safetensors"
    for saved in (model, model.to(torch.float32)):
        save_factorization(path, saved, {"seed": 1})
        artefact = container.read(path)
        back = to_factorization(artefact)
        assert artefact.config == {"seed": 1}
        assert type(back) is type(saved)
        assert (back.dims, back.tree, back.widths) == (saved.dims, saved.tree, saved.widths)
        assert torch.equal(back.parameters, saved.parameters)
        assert back.parameters.dtype == saved.parameters.dtype


@pytest.mark.parametrize("tree", ["chain", "balanced", "star"])
def test_a_factorization_of_order_1000(tmp_path, tree):
    model = HierarchicalTensorFactorization((2,) * 1000, 2, ModeTree.named(tree, 1000)).init_gaussian(1.0, generator())
    save_factorization(tmp_path / "m.safetensors", model)
    assert torch.equal(to_factorization(container.read(tmp_path / "m.safetensors")).parameters, model.parameters)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"target": "cp", "dims": [3, 4, 2], "rank": 2, "task": "sensing", "observed": "9"},
        {"target": "matrix", "dims": [3, 4], "rank": 2, "task": "sensing", "observed": "9"},
        {"test": "0"},
    ],
)
def test_observations_there_and_back(tmp_path, settings):
    observations = make_observations(TargetConfig.checked(settings))
    save_observations(tmp_path / "o.safetensors", observations)
    back = to_observations(container.read(tmp_path / "o.safetensors"))
    assert back.dims == observations.dims
    assert torch.equal(back.target.parameters, observations.target.parameters)
    for got, wanted in ((back.train, observations.train), (back.test, observations.test)):
        assert type(got) is type(wanted)
        if wanted is not None:
            assert torch.equal(got.value, wanted.value)
    if settings in ({}, {"test": "0"}):
        assert torch.equal(back.train.index, observations.train.index)
    assert (back.test is None) == (settings == {"test": "0"})


# --- what is damaged -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "other"},
        {"dims": [3, 4]},
        {"dims": [3, 4, "5"]},
        {"dims": [3, 4, -5]},
        {"dims": [10**9, 10**9, 10**9]},
        {"widths": [2]},
        {"widths": [2, 10**12]},
        {"widths": [0, 3]},
        {"children": [[0, 1], [0, 3]]},
        {"children": [[0, 1], [3, 9]]},
        {"children": [[0, 1], [-1, 2]]},
        {"children": []},
        {"extra": 1},
    ],
)
def test_descriptions_that_lie(tmp_path, change):
    """None is believed, and none makes us allocate what it claims."""
    path = tmp_path / "x.safetensors"
    save_factorization(path, model())
    content = {**container.read(path).content, **change}
    tamper(path, content=json.dumps(content))
    with pytest.raises(DataError, match=r"x is damaged"):
        to_factorization(container.read(path, "x"))


def test_weights_that_do_not_belong(tmp_path):
    path = tmp_path / "x.safetensors"
    save_factorization(path, model())
    weights = container.read(path).tensors()
    for changed, message in (
        (
            {**weights, "{0}": weights["{0}"].t().contiguous()},
            r"weight {0} has the wrong shape \(got \(2, 3\), allowed \(3, 2\)\)",
        ),
        ({**weights, "{0}": weights["{0}"] * torch.nan}, "weight {0} has NaN or infinite values"),
        (
            {("w" if k == "{0}" else k): v for k, v in weights.items()},
            "weight w does not belong to|weight {0} is missing",
        ),
        ({**weights, "{0}": weights["{0}"].long()}, "its weights do not fit"),
        ({}, "its weights do not fit"),
    ):
        tamper(path, tensors=changed)
        with pytest.raises(DataError, match=message.replace("{0}", r"\{0\}")):
            to_factorization(container.read(path, "x"))
        save_factorization(path, model())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train/index", lambda t: t + 100, "train observation 0 has an index out of range"),
        ("train/index", lambda t: t * 0, "train observation 1 repeats the index of 0"),
        ("train/index", lambda t: t[:, :2].contiguous(), "have the wrong shapes"),
        ("train/value", lambda t: t * torch.nan, "train observation 0 has no finite value"),
        ("train/value", lambda t: t[:0], "have the wrong shapes"),
        ("test/value", lambda t: t[:5], "have the wrong shapes"),
    ],
)
def test_observations_that_cannot_be_used(tmp_path, name, change, message):
    path = tmp_path / "x.safetensors"
    save_observations(path, make_observations(TargetConfig()))
    tensors = container.read(path).tensors()
    tamper(path, tensors={**tensors, name: change(tensors[name])})
    with pytest.raises(DataError, match=message):
        to_observations(container.read(path, "x"))


def test_observations_described_wrongly(tmp_path):
    path = tmp_path / "x.safetensors"
    for content in ({"dims": [8]}, {"dims": [8, 0, 8, 8]}, {"task": "divination"}, {"target": {"kind": "htf"}}):
        save_observations(path, make_observations(TargetConfig()))
        tamper(path, content=json.dumps({**container.read(path).content, **content}))
        with pytest.raises(DataError, match="x is damaged"):
            to_observations(container.read(path, "x"))
