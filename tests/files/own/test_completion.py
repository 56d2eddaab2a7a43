from __future__ import annotations

import pytest
import torch

from htfcli.engine.completion.predictor import Completion
from htfcli.engine.factorizations.cp import CPFactorization
from htfcli.errors import DataError
from htfcli.files.own import container
from htfcli.files.own.axes import Axis
from htfcli.files.own.completion import SavedCompletion, Slices, factorization_in, save_completion, to_completion
from tests.numbering import predictor

AXES = (Axis("ligand", 2, ("IL2, ü", 'N"K')), Axis("1", 3, None, 1), Axis("day", 2, ("a", "b")))
EVERY = torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(2))


def saved(slices=None):
    first = predictor((2, 3, 2))
    first.model.init_gaussian(0.5, torch.Generator().manual_seed(0))
    cp = CPFactorization((2, 3, 2), 4).init_gaussian(1.0, torch.Generator().manual_seed(1))
    others = (type(first)(cp, predictor((2, 3, 2), 1e300).effects, -1.5), predictor((2, 3, 2)))
    return SavedCompletion(Completion(first, others, {}), AXES, "response", slices)


def test_round_trip(tmp_path):
    slices = Slices(1, [0, 2], [1, 1], torch.tensor([[[1.0, torch.nan], [3, 4]]] * 2, dtype=torch.float64))
    before = saved(slices)
    save_completion(tmp_path / "m.safetensors", before, {"seed": 3})
    artefact = container.read(tmp_path / "m.safetensors")
    after = to_completion(artefact)
    assert (after.axes, after.value_name) == (AXES, "response")
    pairs = zip(
        (before.completion.predictor, *before.completion.ensemble),
        (after.completion.predictor, *after.completion.ensemble),
        strict=True,
    )
    for one, other in pairs:
        assert torch.equal(one.values(EVERY), other.values(EVERY))
        assert one.floor == other.floor
    assert after.slices is not None
    assert after.slices.observed.nan_to_num(7).tolist() == slices.observed.nan_to_num(7).tolist()
    assert torch.equal(factorization_in(artefact).dense(), before.completion.predictor.model.dense())


def test_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save_completion(tmp_path / name, saved(), {})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content, tensors: content.pop("value"), "its description of the completion is malformed"),
        (lambda content, tensors: content["axes"][0].update(size=5), "its labels are malformed"),
        (lambda content, tensors: content["axes"][1].update(size=5), "its modes do not fit its factorization"),
        (lambda content, tensors: tensors.pop("labels/0"), None),
        (lambda content, tensors: tensors.update({"0/effects/1": torch.zeros(7)}), "its effects do not fit its factorization"),
        (lambda content, tensors: content["members"][1]["factorization"].update(dims=[2]), "its description of the factorization is malformed"),
        (lambda content, tensors: content.update(slices={"mode": 0, "at": [1], "step": [1, 1]}), "its slices are malformed"),
        (lambda content, tensors: tensors.update({"labels/0": torch.tensor([91], dtype=torch.uint8)}), "its labels are malformed"),
    ],
)  # fmt: skip
def test_damaged(tmp_path, damage, message):
    save_completion(tmp_path / "m", saved(), {})
    artefact = container.read(tmp_path / "m")
    content, tensors = artefact.content, artefact.tensors()
    damage(content, tensors)
    container.save(tmp_path / "n", "completion", tensors, content)
    if message is None:  # plain numbers then
        assert to_completion(container.read(tmp_path / "n")).axes[0].labels is None
        return
    with pytest.raises(DataError, match=f"n is damaged: {message}"):
        to_completion(container.read(tmp_path / "n"))


def test_another_kind(tmp_path):
    container.save(tmp_path / "n", "tensor", {"x": torch.zeros(2)}, {})
    with pytest.raises(DataError, match="holds something else"):
        to_completion(container.read(tmp_path / "n"))
