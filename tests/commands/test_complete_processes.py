"""Two processes: sums over entries and steps of solvers are those of one, and so is what `htf complete` writes."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from safetensors.torch import load_file

TEAM = f"{sys.executable} -m torch.distributed.run --standalone --nproc-per-node 2"

SUMS = """
import sys, torch
from htfcli.engine.least_squares.alternating import AlternatingLeastSquares
from htfcli.engine.factorizations.cp import CPFactorization
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.observations.observations import Entries, sample_entries
from htfcli.engine.least_squares.levenberg_marquardt import LevenbergMarquardt
from htfcli.engine.least_squares.jacobian import Sweeps
from htfcli.engine.runtime.distributed import workers

torch.set_num_threads(1)
with workers() as team:
    generator = torch.Generator().manual_seed(0)
    dims = (9, 8, 7, 6)
    index = sample_entries(dims, 501, generator)
    value, weight = torch.randn(501, generator=generator).double(), torch.rand(501, generator=generator).double()
    found = {}
    for name, model in {
        "tree": HierarchicalTensorFactorization(dims, 3, ModeTree.named("balanced", 4)),
        "cp": CPFactorization(dims, 2),
    }.items():
        # Every process draws weights of its own: those of the first count
        model.init_gaussian(1.0, torch.Generator().manual_seed(5 + team.rank))
        sweeps = Sweeps(model, Entries(index, value), weight)
        direction = torch.randn(sweeps.p, generator=torch.Generator().manual_seed(3)).double()
        point = model.parameters
        normal, (gradient, loss) = sweeps.normal(point), sweeps.gradient(point)
        found |= {
            f"{name}/hessian": normal.hessian, f"{name}/normal": normal.gradient, f"{name}/gradient": gradient,
            f"{name}/losses": torch.tensor([normal.loss, loss, sweeps.loss(point)]).double(),
            f"{name}/product": sweeps.product(point, direction), f"{name}/curvature": sweeps.curvature(point, direction),
            f"{name}/residuals": sweeps.residuals(point),
        }
        for node, block in enumerate(sweeps.diagonal_blocks(point)):
            found[f"{name}/block{node}"] = block
        for kind in (LevenbergMarquardt, AlternatingLeastSquares):
            fitted = model.to()
            kind(fitted, Entries(index, value), 0.1, "huber").run(5)
            found[f"{name}/{kind.__name__}"] = fitted.parameters
    if team.first:
        from safetensors.torch import save_file
        save_file({key: tensor.contiguous().clone() for key, tensor in found.items()}, sys.argv[1])
"""


def assert_same(one, two, tolerance):
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert float((tensor - two[name]).norm()) <= tolerance * float(tensor.norm()), name


@pytest.mark.slow
def test_sums_and_steps_of_two_processes(shell):
    """Uneven parts, weighted residuals, every product of derivatives, and steps of both solvers with a robust loss."""
    (shell.folder / "sums.py").write_text(SUMS)
    done = shell(f"{sys.executable} sums.py one.safetensors && {TEAM} sums.py two.safetensors", timeout=600)
    assert done.code == 0, done.err
    one, two = (load_file(shell.folder / f"{name}.safetensors") for name in ("one", "two"))
    assert_same(one, two, 1e-10)


@pytest.mark.slow
def test_a_completion_by_two_processes(shell):
    """Each has the whole result; the first one writes it."""
    options = "data.safetensors --width 3 --effort quick --threads 1"
    done = shell(
        "htf generate tensor --order 3 --dim 8 --rank 2 --observed 300 --noise 0.05 -o data.safetensors > /dev/null && "
        f"htf complete {options} -q -o one.npy > /dev/null && {TEAM} -m htfcli complete {options} -o two.npy",
        timeout=600,
    )
    assert done.code == 0, done.err
    assert ", 2 processes" in done.err
    assert len(done.records) == 1  # of the first process
    one, two = (np.load(shell.folder / f"{name}.npy") for name in ("one", "two"))
    assert np.allclose(one, two, rtol=1e-6)


def test_several_processes_cannot_read_one_stdin(shell):
    done = shell(f"{TEAM} -m htfcli complete - -o two.npy < /dev/null")
    assert done.code == 1  # torchrun's
    said = [line for line in done.err.splitlines() if line.startswith("Error: ")]
    assert said == ["Error: several processes cannot read one stdin. Name a file."]
