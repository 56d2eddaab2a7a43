"""`htf inspect`: describe a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from htfcli.cli.options import FormatOption, with_config
from htfcli.config.records import Record
from htfcli.config.tables import TableConfig

if TYPE_CHECKING:
    from rich.tree import Tree

app = typer.Typer(rich_markup_mode=None, add_completion=False)

EXAMPLES = """\b
Examples:
  htf inspect runs/dynamics
  htf generate tensor --target cp --dims 16,16,16 -o - | htf inspect - | jq .train"""

_MOST_NODES = 200  # drawn of a mode tree


@app.command(epilog=EXAMPLES)
@with_config(TableConfig)
def inspect(
    config: TableConfig,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Any file that htf reads, or a run folder; - for stdin.")],
    format: FormatOption = None,
) -> None:
    """Describe a file.

    Show its kind, dimensions, observed entries, mode tree and the settings that it was made with.
    """
    from htfcli.cli.console import RecordWriter, cell, note
    from htfcli.files.description import describe_input

    record = describe_input(file, config, note)
    writer = RecordWriter(format, lambda r: r)
    if writer.format != "table":
        writer.write(record)
        return
    from rich.console import Console

    console = Console(highlight=False)
    nodes = record.pop("nodes", None)
    for key, value in record.items():
        console.print(f"[bold]{key.replace('_', ' ')}[/]  {cell(value)}")
    if nodes:
        console.print(_drawn(nodes))


def _drawn(nodes: list[Record]) -> Tree:
    """The mode tree with its root at the top; nodes beyond `_MOST_NODES` are counted, not drawn."""
    from rich.tree import Tree

    by_label = {node["node"]: node for node in nodes}

    def line(node: Record) -> str:
        shape = " x ".join(map(str, node["weights"])) if node["weights"] else "ones"
        size = f"width {node['width']}" if "width" in node else f"dimension {node['dimension']}"
        return f"{node['node']}  [dim]{size}, weights {shape}[/]"

    root = nodes[-1]
    tree = Tree(line(root))
    todo = [(tree, root)]  # breadth first: the top of the tree is drawn
    drawn = 1
    for branch, node in todo:
        for child in node["children"]:
            drawn += 1
            if drawn <= _MOST_NODES:
                todo.append((branch.add(line(by_label[child])), by_label[child]))
    if drawn <= len(nodes) - 1 or drawn > _MOST_NODES:
        tree.add(f"... {len(nodes) - min(drawn, _MOST_NODES)} more nodes")
    return tree
