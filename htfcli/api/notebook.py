"""A completion as HTML for notebooks: a table, the mode tree with ranks and a scatter of what was held out, as SVG.

No script, no style sheet, nothing from elsewhere; colours follow the page they stand on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from htfcli.config.records import Record
from htfcli.engine.factorizations.mode_tree import ModeTree
from htfcli.experiments.runs.completion_summary import rows

_MOST_POINTS = 400  # of the scatter: as many as can be told apart, and a notebook stays small
_MOST_MODES = 16  # of a tree that is drawn: more names do not fit beside each other
_SIDE = 240  # pixels of the scatter
_LEAF, _LEVEL = 76, 54  # pixels between leaves, and between levels of the tree
_LONGEST = 11  # characters of a name under a leaf
_COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd")  # of matplotlib, as in the figures
_ALIGN = "text-align:left;vertical-align:top;padding:1px 8px"


def to_html(report: Record) -> str:
    """HTML of a report; see `completion_summary.described`."""
    parts = [_tree(report), _scatter(report)]
    pictures = "".join(f'<div style="padding:4px 12px">{part}</div>' for part in parts if part)
    return f'<div style="display:flex;flex-wrap:wrap;align-items:flex-start">{_table(report)}{pictures}</div>'


def _table(report: Record) -> str:
    cells = "".join(
        f'<tr><th style="{_ALIGN}">{escape(row["completion"])}</th><td style="{_ALIGN}">{escape(row[""])}</td></tr>'
        for row in rows(report)
    )
    return f'<table style="max-width:46em">{cells}</table>'


def _tree(report: Record) -> str:
    """The mode tree of the strongest factorization, a rank at every node."""
    from htfcli.experiments.figures.tree_layout import node_places  # brings matplotlib

    nested, names = report.get("mode_tree"), report["modes"]
    if not nested or len(names) > _MOST_MODES:
        return ""
    tree, ranks = ModeTree.from_nested(nested), report.get("hierarchical_rank") or {}
    x, y = node_places(tree)
    top = max(y)
    at = [((a + 0.5) * _LEAF, (top - b) * _LEVEL + 26) for a, b in zip(x, y, strict=True)]
    drawn = []
    for node, parent in enumerate(tree.parent[:-1]):
        (x1, y1), (x2, y2) = at[node], at[parent]
        drawn.append(f'<line x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}" stroke="#999"/>')
    for node, (cx, cy) in enumerate(at):
        rank = "" if node == tree.root else str(ranks.get(tree.labels[node], ""))
        drawn.append(f'<circle cx="{cx:.0f}" cy="{cy:.0f}" r="{6 if node == tree.root else 14}" fill="#1f77b4"/>')
        drawn.append(f'<text x="{cx:.0f}" y="{cy + 4:.0f}" text-anchor="middle" fill="white">{rank}</text>')
    for mode, name in enumerate(names):
        cx, cy = at[mode]
        short = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
        drawn.append(
            f'<text x="{cx:.0f}" y="{cy + 30:.0f}" text-anchor="middle" fill="currentColor">{escape(short)}</text>'
        )
    height = top * _LEVEL + 70
    return _svg(len(names) * _LEAF, height, drawn, "mode tree of the strongest factorization, with ranks")


def _scatter(report: Record) -> str:
    """Predicted against observed values of held-out entries, coloured by kind of holes."""
    points = report.get("scatter") or {}
    kinds = points.get("kind") or []
    triples = [
        triple
        for triple in zip(points.get("observed") or [], points.get("predicted") or [], kinds, strict=False)
        if all(isinstance(v, int | float) and math.isfinite(v) for v in triple[:2])
    ]
    if not triples:
        return ""
    triples = triples[:: -(-len(triples) // _MOST_POINTS)]
    values = [value for triple in triples for value in triple[:2]]
    low, high = min(values), max(values)
    span = high - low or 1.0

    def place(value: float) -> float:
        return float(8 + (value - low) / span * (_SIDE - 16))

    names = list(dict.fromkeys(kind for *_, kind in triples))
    frame = f'<rect x="0.5" y="0.5" width="{_SIDE - 1}" height="{_SIDE - 1}" fill="none" stroke="#999"/>'
    drawn = [frame, f'<line x1="8" y1="{_SIDE - 8}" x2="{_SIDE - 8}" y2="8" stroke="#999"/>']
    for observed, predicted, kind in triples:
        color = _COLORS[names.index(kind) % len(_COLORS)]
        x, y = place(observed), _SIDE - place(predicted)
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="{color}" fill-opacity="0.6"/>')
    drawn += _legend(names, low, high)
    return _svg(_SIDE, _SIDE + 18 + 14 * len(names), drawn, "held-out entries: predicted against observed")


def _legend(names: Sequence[str], low: float, high: float) -> list[str]:
    span = f"held out: predicted against observed, {low:.3g} to {high:.3g}"
    drawn = [f'<text x="0" y="{_SIDE + 14}" fill="currentColor">{escape(span)}</text>']
    for number, name in enumerate(names):
        y, color = _SIDE + 28 + 14 * number, _COLORS[number % len(_COLORS)]
        drawn.append(f'<circle cx="6" cy="{y - 4}" r="4" fill="{color}"/>')
        drawn.append(f'<text x="16" y="{y}" fill="currentColor">{escape(name)}</text>')
    return drawn


def _svg(width: float, height: float, drawn: Sequence[str], title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'style="overflow:visible" font-family="sans-serif" font-size="11" role="img">'
        f"<title>{escape(title)}</title>{''.join(drawn)}</svg>"
    )
