"""`htf inspect`: what is in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from htfcli.cli.options import FormatOption

if TYPE_CHECKING:
    from rich.tree import Tree

app = typer.Typer(rich_markup_mode=None, add_completion=False)

EXAMPLES = """\b
Examples:
  htf inspect runs/dynamics
  htf generate tensor --target cp --dims 16,16,16 -o - | htf inspect - | jq .train"""

_MOST_NODES = 200  # of a tree that is drawn


@app.command(epilog=EXAMPLES)
def inspect(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Any file htf reads, or a run folder; - for stdin.")],
    format: FormatOption = None,
) -> None:
    """Say what is in a file.

    Its kind, dimensions, how much is observed, the mode tree, what it was made with.
    """
    from htfcli.cli.console import RecordWriter, cell
    from htfcli.files.description import describe_input

    record = describe_input(file)
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


def _drawn(nodes: list[dict[str, Any]]) -> Tree:
    """The mode tree, its root on top; nodes beyond `_MOST_NODES` are counted, not drawn."""
    from rich.tree import Tree

    by_label = {node["node"]: node for node in nodes}

    def line(node: dict[str, Any]) -> str:
        shape = " x ".join(map(str, node["weights"])) if node["weights"] else "ones"
        size = f"width {node['width']}" if "width" in node else f"dimension {node['dimension']}"
        return f"{node['node']}  [dim]{size}, weights {shape}[/]"

    root = nodes[-1]
    tree = Tree(line(root))
    todo = [(tree, root)]  # breadth first, so that the top is shown
    drawn = 1
    for branch, node in todo:
        for child in node["children"]:
            drawn += 1
            if drawn <= _MOST_NODES:
                todo.append((branch.add(line(by_label[child])), by_label[child]))
    if drawn <= len(nodes) - 1 or drawn > _MOST_NODES:
        tree.add(f"... {len(nodes) - min(drawn, _MOST_NODES)} more nodes")
    return tree
