"""Agreement with the authors' published implementation, through the exact values in tests/golden."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from htfcli.config.tensors import FitConfig
from htfcli.engine.fitting.gradient_descent import GradientFit
from htfcli.engine.fitting.losses import LOSSES
from htfcli.engine.fitting.records import SampleLoss
from htfcli.engine.observations.observations import Observations
from htfcli.engine.ranks.hierarchical_rank import FactoredSpectra, factored_spectrum
from htfcli.engine.ranks.local_components import local_components
from htfcli.engine.ranks.matricization import dense_spectrum
from tests.problems import GOLDEN, golden_cp, golden_entries, golden_htf, golden_matrix

HTF = sorted(path.name for path in GOLDEN.glob("htf_*.npz"))
MOMENTS = ("init", "final")


def load(name):
    return np.load(GOLDEN / name)


def model_of(name, moment):
    return (
        {"cp": golden_cp, "mf": golden_matrix}[name[:2]](moment)
        if name[:2] in ("cp", "mf")
        else golden_htf(name, moment)
    )


def close(got, wanted, tolerance):
    wanted = torch.as_tensor(wanted, dtype=torch.float64)
    got = torch.as_tensor(got, dtype=torch.float64)
    assert got.shape == wanted.shape
    assert float((got - wanted).abs().max()) <= tolerance * float(wanted.abs().max())


def test_there_are_golden_files():
    assert len(HTF) == 4


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", HTF)
def test_tensor_and_values(name, moment):
    model, data = golden_htf(name, moment), load(name)
    close(model.dense(), data[f"{moment}/tensor"], 1e-9)
    index = golden_entries(name).index
    close(model.values(index), torch.from_numpy(data[f"{moment}/tensor"])[index.unbind(1)], 1e-9)


@pytest.mark.parametrize("name", HTF)
def test_gradient(name):
    model, data = golden_htf(name, "init"), load(name)
    gradient = torch.zeros_like(model.parameters)
    SampleLoss(model, golden_entries(name), LOSSES[str(data["loss"])], gradient).forward_backward()
    close(gradient, golden_htf(name, "grad0").parameters, 1e-9)


@pytest.mark.parametrize("name", [*HTF, "cp_order3.npz", "mf_depth3.npz"])
def test_loss_trajectory_and_final_weights(name):
    data = load(name)
    model = model_of(name, "init")
    wanted = data["loss_per_iteration"]
    config = FitConfig(
        optimizer=str(data["optimizer"]).replace("_", "-"),
        loss=str(data["loss"]) if "loss" in data else "l2",
        lr=float(data["lr"]),
        iterations=len(wanted),
        record_every=1,
        until_loss=None,
    )
    run = GradientFit(model, Observations(model.dims, golden_entries(name)), config)
    losses = [record["train_loss"] for record in run.run()]
    close(losses[:-1], wanted, 1e-8)
    close(model.parameters, model_of(name, "final").parameters, 1e-8)
    final = {"cp": "final/tensor", "mf": "final/matrix"}.get(name[:2], "final/tensor")
    close(model.dense(), data[final], 1e-8)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", HTF)
def test_published_metrics(name, moment):
    """Every metric of the file: local component norms, weight vector norms, singular values, effective ranks."""
    model = golden_htf(name, moment)
    tree = model.tree
    metrics = json.loads(str(load(name)[f"{moment}/metrics_json"]))
    components = local_components(model)
    found: dict[str, float] = {}
    for node in tree.interior:
        level = tree.height[node] - 1
        children = "_".join(str(tree.modes[c][0]) for c in tree.children[node])
        if level:  # factors of a level are numbered from the left
            peers = [v for v in range(tree.root) if tree.height[v] == level]
            children = "_".join(str(peers.index(c)) for c in tree.children[node])
        for k, norm in enumerate(components.norms(node).sort(descending=True).values):
            found[f"l_{level}_f_{children}_top_{k}_local_comp_norm"] = float(norm)
    for node in range(tree.root):
        peers = [v for v in range(tree.root) if tree.height[v] == tree.height[node]]
        norms = torch.linalg.vector_norm(model.node_weights[node], dim=0).sort(descending=True).values
        for k, norm in enumerate(norms):
            found[f"l_{tree.height[node]}_f_{peers.index(node)}_top_{k}_wv_norm"] = float(norm)
    checked = 0
    for key, value in metrics.items():
        if key.startswith("mat_"):
            modes = [int(m) for m in key.split("_sing")[0].split("_eff")[0].removeprefix("mat_").split("_")]
            spectrum = factored_spectrum(model, modes)
            largest = spectrum.scaled()[0]
            if key.endswith("eff_rank"):
                assert spectrum.effective_rank == pytest.approx(value, rel=1e-9)
            else:
                k = int(key.rsplit("_", 1)[1])
                got = spectrum.scaled()[k] if k < len(spectrum.singular_values) else 0.0
                assert abs(got - value) <= 1e-12 * largest
            checked += 1
        elif key in found:
            assert found[key] == pytest.approx(value, rel=1e-9)
            checked += 1
    assert checked == len(metrics), (
        f"metrics without a counterpart: {[k for k in metrics if k not in found and 'mat_' not in k]}"
    )


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", [*HTF, "cp_order3.npz", "mf_depth3.npz"])
def test_factored_singular_values_are_as_good_as_dense_ones(name, moment):
    model = model_of(name, moment)
    tensor = model.dense()
    for spectrum in FactoredSpectra(model).spectra():
        wanted = dense_spectrum(tensor, spectrum.modes).singular_values
        got = torch.tensor(spectrum.scaled(), dtype=torch.float64)
        assert len(got) <= len(wanted)
        padded = torch.nn.functional.pad(got, (0, len(wanted) - len(got)))
        assert float((padded - wanted).abs().max()) <= 1e-12 * float(wanted[0])


def test_cp_component_norms():
    model = golden_cp("final")
    got = local_components(model).norms(model.tree.root).sort(descending=True).values
    close(got, np.sort(load("cp_order3.npz")["final/component_norms"])[::-1].copy(), 1e-9)


def test_matrix_singular_values():
    model = golden_matrix("final")
    close(local_components(model).norms(model.tree.root), load("mf_depth3.npz")["final/singular_values"], 1e-9)
