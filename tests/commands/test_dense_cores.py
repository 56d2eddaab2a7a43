"""Tucker, tensor train and hierarchical Tucker on the command line: from a target to the ranks of a fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from htfcli.engine.ranks.matricization import dense_spectrum
from htfcli.files.inputs import load_tensor


@pytest.mark.parametrize(
    ("kind", "options", "nodes"),
    [
        ("tucker", ("--depth", 2), ["{0}", "{1}", "{2}", "{0}'", "{1}'", "{2}'"]),
        ("tensor-train", (), ["{0}", "{1}", "{2}", "{0,1}"]),
        ("hierarchical-tucker", ("--tree", "[0, [1, 2]]"), ["{0}", "{1}", "{2}", "{1,2}"]),
    ],
)
def test_from_a_target_to_the_ranks_of_a_fit(htf, kind, options, nodes):
    made = htf("generate", "tensor", "--target", kind, "--dims", "4,5,3", "--width", 2, "-o", "data.safetensors")
    assert made.records[0]["target"] == kind
    described = htf("inspect", "data.safetensors").records[0]
    assert described["target"] == kind
    assert set(described["target_ranks"]) == {2}
    fitted = htf("fit", "data.safetensors", "--model", kind, *options, "--width", 3, "--iterations", 20, "-o", "run",
                 "--dtype", "float64", "--record-every", 10, "-q")  # fmt: skip
    assert fitted.code == 0, fitted.err
    for node in fitted.records[-1]["nodes"]:
        assert len(node["component_norms"]) > 0
        assert ("singular_values" in node) == (not node["node"].endswith("'"))  # once per matricization
    part = htf("fit", "data.safetensors", "--model", kind, *options, "--width", 3, "--iterations", 7, "-o", "part",
               "--dtype", "float64", "--record-every", 10, "-q")  # fmt: skip
    assert part.code == 0
    resumed = htf("fit", "--resume", "-o", "part", "--iterations", 20, "-q")
    assert resumed.records[-1]["nodes"] == fitted.records[-1]["nodes"]
    measured = htf("measure-rank", "run", "--top", 99).records
    assert [record["node"] for record in measured] == nodes
    tensor = load_tensor("run").dense()
    np.save("dense.npy", tensor.numpy())
    for record in measured:
        wanted = dense_spectrum(tensor, record["modes"]).singular_values
        got = torch.tensor(record["singular_values"], dtype=torch.float64)
        assert float((got - wanted[: len(got)]).abs().max()) <= 1e-12 * float(wanted[0])
        assert not wanted[len(got) :].gt(1e-12 * float(wanted[0])).any()
    tree = str([[0, 1], 2] if kind == "tensor-train" else [0, [1, 2]])
    assert htf("measure-rank", "dense.npy", "--tree", tree).code == 0
    inspected = htf("inspect", "run").records[0]
    assert inspected["model"] == kind
    assert inspected["nodes"][-1]["weights"] == [3] * len(inspected["nodes"][-1]["children"])
    assert htf("plot", "run", "-o", "run.png").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate", "tensor", "--target", "tucker", "--tree", "chain", "-o", "x"), "tree: only for target htf or hierarchical-tucker (got target tucker)."),
        (("fit", "x.npy", "--model", "tensor-train", "--depth", 2), "depth: only for model matrix or tucker (got model tensor-train)."),
        (("fit", "x.npy", "--model", "tucker", "--width", "2,3"), "the widths do not match the levels of the tree (got 2, allowed 1 or 1)."),
    ],
)  # fmt: skip
def test_what_cannot_be(htf, arguments, message):
    np.save("x.npy", np.arange(8.0).reshape(2, 2, 2))
    done = htf(*arguments)
    assert done.code == 2
    assert done.error == message
