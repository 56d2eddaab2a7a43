"""`htf measure-rank`: hierarchical tensor ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from htfcli.cli.options import FormatOption, with_config
from htfcli.config.records import Record
from htfcli.config.tensors import MeasureRankConfig

if TYPE_CHECKING:
    from htfcli.engine.ranks.matricization import Spectrum

app = typer.Typer(rich_markup_mode=None, add_completion=False)

EXAMPLES = """\b
Examples:
  htf measure-rank runs/dynamics --tolerance 1e-2
  htf fit data.safetensors -o - | htf measure-rank - --matricization 0,2 | jq -c '{node, effective_rank}'"""

_SHOWN = 4  # singular values in a row of the table


@app.command(epilog=EXAMPLES)
@with_config(MeasureRankConfig)
def measure_rank(
    config: MeasureRankConfig,
    thing: Annotated[
        str, typer.Argument(metavar="THING", help="Run folder, factorization, or fully observed tensor; - for stdin.")
    ],
    format: FormatOption = None,
) -> None:
    """Measure hierarchical ranks of a tensor or a factorization.

    Prints one record per node: rank at the tolerance, effective rank, leading singular values, and the fraction of the
    squared norm that the rank captures. A factorization is measured from its factors, without building the tensor.
    """
    import torch

    from htfcli.cli.console import RecordWriter, note
    from htfcli.engine.factorizations.mode_tree import tree_of
    from htfcli.engine.ranks.hierarchical_rank import spectra_at, spectra_of
    from htfcli.files.inputs import load_tensor

    loaded = load_tensor(thing, None if config.dims is None else tuple(config.dims), note, config).to(torch.float64)
    order = loaded.dim() if isinstance(loaded, torch.Tensor) else loaded.order
    named = "balanced" if config.tree is None and config.arity is not None else config.tree
    tree = None if named is None else tree_of(named, order, config.arity)
    writer = RecordWriter(format, _table_row, caption=f"rank at tolerance {config.tolerance:g}")
    for spectrum in [*spectra_of(loaded, tree), *spectra_at(loaded, config.matricization)]:
        writer.write(_record(spectrum, config.tolerance, config.top))
    writer.close()


def _record(spectrum: Spectrum, tolerance: float, top: int) -> Record:
    rank = spectrum.rank(tolerance)
    return {
        "kind": "rank",
        "node": spectrum.label,
        "modes": list(spectrum.modes),
        "shape": [n if n < 2**53 else f"{n:.3e}" if n < 1e300 else f"10^{len(str(n)) - 1}" for n in spectrum.shape],
        "rank": rank,
        "tolerance": tolerance,
        "effective_rank": spectrum.effective_rank,
        "energy": spectrum.energy(rank),
        "singular_values": spectrum.scaled(top),
    }


def _table_row(record: Record) -> Record:
    return {
        "node": record["node"],
        "shape": " x ".join(map(str, record["shape"])),
        "rank": record["rank"],
        "effective": record["effective_rank"],
        "energy": record["energy"],
        "singular values": record["singular_values"][:_SHOWN],
    }
