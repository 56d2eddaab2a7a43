from __future__ import annotations

import pytest
import torch

from htfcli.errors import DataError
from htfcli.files.own import container
from htfcli.files.own.axes import Axis
from htfcli.files.own.completion import SavedCompletion, Slices, save_completion, strongest_in, to_completion
from tests.numbering import Numbering, stand_in

AXES = (Axis("ligand", 2, ("IL2, ü", 'N"K')), Axis("1", 3, None, 1), Axis("day", 2, ("a", "b")))


@pytest.fixture(autouse=True)
def _numbering(monkeypatch):
    stand_in(monkeypatch)


def saved(slices=None):
    report = {"members": [{"weights": {"random": 0.25}}], "strongest": 0}
    return SavedCompletion(Numbering((2, 3, 2), report), AXES, "response", slices)


def test_round_trip(tmp_path):
    slices = Slices(1, [0, 2], [1, 1], torch.tensor([[[1.0, torch.nan], [3, 4]]] * 2, dtype=torch.float64))
    save_completion(tmp_path / "m.safetensors", saved(slices), {"seed": 3})
    after = to_completion(container.read(tmp_path / "m.safetensors"))
    assert (after.axes, after.value_name) == (AXES, "response")
    assert after.completion.dims == (2, 3, 2)
    assert after.completion.report["strongest"] == 0
    assert after.slices is not None
    assert after.slices.observed.nan_to_num(7).tolist() == slices.observed.nan_to_num(7).tolist()


def test_the_strongest_factorization(tmp_path, monkeypatch):
    save_completion(tmp_path / "m", saved(), {})
    model, remark = strongest_in(container.read(tmp_path / "m"))
    assert model.dims == (2, 3, 2)
    assert "the strongest factorization (weight 0.25) of the average" in remark
    monkeypatch.setattr(Numbering, "model", property(lambda self: None, lambda self, value: None), raising=False)
    with pytest.raises(DataError, match="has no factorization: the mean and effects of the modes predicted best"):
        strongest_in(container.read(tmp_path / "m"))


def test_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save_completion(tmp_path / name, saved(), {})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content, tensors: content.pop("value"), "its description of the completion is malformed"),
        (lambda content, tensors: content["axes"][0].update(size=5), "its labels are malformed"),
        (lambda content, tensors: content["axes"][1].update(size=5), "its modes do not fit its members"),
        (lambda content, tensors: tensors.pop("labels/0"), None),
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


def test_a_completion_of_an_earlier_version(tmp_path):
    """Before formats had a number, a completion was one factorization and an ensemble."""
    content = {"value": "v", "axes": [], "members": [{}, {}], "slices": None}
    container.save(tmp_path / "n", "completion", {"0/weights/0": torch.zeros(2)}, content)
    with pytest.raises(DataError) as caught:
        to_completion(container.read(tmp_path / "n"))
    assert str(caught.value).startswith(f"{tmp_path}/n holds a completion of another version of htf (got version ")
    assert str(caught.value).endswith(", format 1, allowed format 3). Fit it again with htf complete.")


def test_another_kind(tmp_path):
    container.save(tmp_path / "n", "tensor", {"x": torch.zeros(2)}, {})
    with pytest.raises(DataError, match="holds something else"):
        to_completion(container.read(tmp_path / "n"))
