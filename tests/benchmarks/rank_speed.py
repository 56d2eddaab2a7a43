"""Time of hierarchical singular values from the factors, one thread, float64: the computation alone and the command.

python -m tests.benchmarks.rank_speed
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.engine.ranks.hierarchical_rank import FactoredSpectra
from htfcli.files.own.artefacts import save_factorization
from tests.benchmarks.timing import interleaved, machine, table

CASES = [(64, 32, "balanced"), (64, 32, "chain"), (1000, 16, "balanced"), (1000, 16, "chain")]


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for order, width, name in CASES:
            model = HierarchicalTensorFactorization((4,) * order, width, ModeTree.named(name, order))
            model.init_gaussian(model.gaussian_std(1.0), torch.Generator().manual_seed(0))
            path = Path(folder) / "m.safetensors"
            save_factorization(path, model)

            def compute(model: HierarchicalTensorFactorization = model) -> None:
                FactoredSpectra(model).spectra()

            def command(path: Path = path) -> None:
                subprocess.run([sys.executable, "-m", "htfcli", "measure-rank", path], check=True, capture_output=True)

            def torch_only() -> None:
                subprocess.run([sys.executable, "-c", "import torch"], check=True)

            times = interleaved({"compute": compute, "command": command, "import": torch_only}, rounds=3)
            rows.append((order, width, name, *(f"{times[key]:.2f}" for key in ("compute", "command", "import"))))
    head = ("order", "width", "tree", "computation, s", "whole command, s", "import of torch alone, s")
    print(f"{machine()}, one thread, float64, medians of 3 interleaved rounds\n\n{table(head, rows)}")


if __name__ == "__main__":
    main()
