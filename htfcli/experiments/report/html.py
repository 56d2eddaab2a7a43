"""Reports of runs and sweeps: one HTML file for the screen and for print, which needs no network.

The figures are drawn by plotly, whose code is included in the file: a well-maintained library for interactive figures
without a server.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from htfcli.errors import ConfigError
from htfcli.experiments.sweeps.summary import FINAL_SHOWN, SUMMARY_JSONL, Row, failures, load_summary, outcome
from htfcli.files.own.records import Records, load_records

if TYPE_CHECKING:
    import plotly.graph_objects as go

_PROSE = 40  # characters, above which a cell counts as prose: wrapped and left-aligned
_MOST_RUNS = 8  # runs of a sweep that are shown one by one
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.7em; } h2 { border-bottom: 1px solid #ddd; margin-top: 2em; } h3 { color: #555; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(480px, 1fr)); gap: 12px; }
.wide { grid-column: 1 / -1; }
table { border-collapse: collapse; font-size: 13px; } .scroll { overflow-x: auto; }
th, td { padding: 3px 10px; text-align: right; border-bottom: 1px solid #eee; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 2px solid #999; }
.failed { color: #b00020; } td.prose { text-align: left; white-space: normal; overflow-wrap: anywhere; }
pre { background: #f6f6f6; padding: 1em; font-size: 13px; white-space: pre-wrap; }
@media print {
  body { max-width: none; margin: 0; } .figures { display: block; } .figures > div, tr { break-inside: avoid; }
  .scroll { overflow: visible; } td, th { white-space: normal; }
}
"""


@dataclass(frozen=True)
class Section:
    """One section of a report: a run or a sweep.

    Args:
        title: its heading. facts: the line below. figures: (figure, whether it takes the whole width).
        tables: (heading, rows of cells), the first row being the header. text: (heading, preformatted text).
    """

    title: str
    facts: str
    figures: Sequence[tuple[go.Figure, bool]] = ()
    tables: Sequence[tuple[str, Sequence[Sequence[Any]]]] = ()
    text: tuple[str, str] | None = None


def build_report(arguments: Sequence[str]) -> str:
    """The HTML text of a report.

    Args:
        arguments: run folders, files of records, folders of sweeps.
    Raises:
        DataError: if an argument is none of these. ConfigError: if plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError:
        advice = "Install it with: pip install 'htf[report]'."
        raise ConfigError("a report needs plotly", got="no plotly", next_step=advice) from None
    sections = [section for argument in arguments for section in _sections(argument)]
    title = ", ".join(Path(argument).resolve().name for argument in arguments)
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    body = "".join(_html(section, number) for number, section in enumerate(sections))
    script = f"<script>{get_plotlyjs()}</script>"
    return (
        f"<!doctype html><html lang=en><head>{head}{script}</head><body><h1>{escape(title)}</h1>{body}</body></html>\n"
    )


def _sections(argument: str) -> Iterator[Section]:
    path = Path(argument)
    if path.name == SUMMARY_JSONL or (path / SUMMARY_JSONL).exists():
        yield from _sweep_sections(path if path.is_dir() else path.parent)
    else:
        yield _run_section(load_records(argument))


def _sweep_sections(path: Path) -> Iterator[Section]:
    from htfcli.experiments.report.interactive import sweep_figures

    rows = load_summary(str(path))
    finished = [row for row in rows if row["status"] == "finished"]
    facts = f"htf {rows[0]['command']}: {outcome(rows)}"
    plan = (path / "plan.yaml").read_text(encoding="utf-8") if (path / "plan.yaml").exists() else ""
    figures = [(figure, False) for figure in sweep_figures(rows)]
    failed = [[len(runs), error, ", ".join(runs)] for error, runs in failures(rows).items()]
    tables: list[tuple[str, list[list[Any]]]] = [("Runs", _run_table(rows))]
    if failed:
        tables.insert(0, ("Failures", [["count", "error", "runs"], *failed]))
    yield Section(path.resolve().name, facts, figures, tables, ("Plan", plan))
    first_seed = [row for row in finished if row["varied"]["seed"] == rows[0]["varied"]["seed"]]
    for row in first_seed[:_MOST_RUNS]:
        yield _run_section(load_records(str(path / "runs" / row["run"])))


def _run_table(rows: Sequence[Row]) -> list[list[Any]]:
    numbers = FINAL_SHOWN[rows[0]["command"]]
    head = [*rows[0]["varied"], "status", *numbers, "seconds"]
    cells = [
        [
            *row["varied"].values(),
            row["status"],
            *((row["final"] or {}).get(number) for number in (*numbers, "seconds")),
        ]
        for row in rows
    ]
    return [[str(name).replace("_", " ") for name in head], *cells]


def _run_section(run: Records) -> Section:
    from htfcli.experiments.report.interactive import fit_figures, training_figures, tree_figure

    figures: list[tuple[go.Figure, bool]] = []
    if run.kind == "iteration":
        tree = tree_figure(run)
        figures = [] if tree is None else [(tree, True)]
        figures += [(figure, False) for figure in fit_figures(run)]
    elif run.kind == "epoch":
        figures = [(figure, False) for figure in training_figures(run)]
    summary = _read(run.folder, "summary.json")
    config = _read(run.folder, "config.yaml")
    tables = [("Final numbers", [["number", "value"], *_pairs(json.loads(summary))])] if summary else []
    tables += [("Configuration", [["setting", "value"], *_pairs(yaml.safe_load(config))])] if config else []
    last = run.records[-1]
    counter = next((key for key in ("iteration", "epoch", "width") if key in last), "kind")
    facts = f"{len(run.records):,} records, the last one at {counter} {last[counter]}"
    return Section(run.name, facts + ("" if summary else "; the run has not finished"), figures, tables)


def _read(folder: Path | None, name: str) -> str:
    path = None if folder is None else folder / name
    return path.read_text(encoding="utf-8") if path is not None and path.exists() else ""


def _pairs(values: dict[str, Any]) -> list[list[Any]]:
    """Names and values, without those that are too long to read."""
    pairs: list[list[Any]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            pairs += [[f"{name} {key}", item] for key, item in value.items() if not isinstance(item, dict | list)]
        elif len(str(value)) <= 80:
            pairs.append([name, value])
    return pairs


# --- HTML -------------------------------------------------------------------------------------------------------------


def _html(section: Section, number: int) -> str:
    parts = [f"<section><h2>{escape(section.title)}</h2><p>{escape(section.facts)}</p>"]
    parts.append('<div class="figures">')
    for position, (figure, wide) in enumerate(section.figures):
        kind = ' class="wide"' if wide else ""
        place = f"figure-{number}-{position}"
        parts.append(f"<div{kind}>{_plot(figure, place)}</div>")
    parts.append("</div>")
    for title, rows in section.tables:
        parts.append(f'<h3>{escape(title)}</h3><div class="scroll">{_table(rows)}</div>')
    if section.text is not None and section.text[1]:
        parts.append(f"<h3>{escape(section.text[0])}</h3><pre>{escape(section.text[1])}</pre>")
    return "".join([*parts, "</section>"])


def _plot(figure: go.Figure, place: str) -> str:
    options = {"displayModeBar": False, "responsive": True}
    html: str = figure.to_html(full_html=False, include_plotlyjs=False, div_id=place, config=options)
    return html


def _table(rows: Sequence[Sequence[Any]]) -> str:
    head, *body = rows
    lines = ["<tr>" + "".join(f"<th>{escape(str(cell))}</th>" for cell in head) + "</tr>"]
    for row in body:
        failed = any(cell == "failed" for cell in row)
        cells = "".join(_cell(_shown(cell)) for cell in row)
        lines.append(f'<tr class="failed">{cells}</tr>' if failed else f"<tr>{cells}</tr>")
    return f"<table><thead>{lines[0]}</thead><tbody>{''.join(lines[1:])}</tbody></table>"


def _cell(text: str) -> str:
    kind = ' class="prose"' if len(text) > _PROSE else ""
    return f"<td{kind}>{escape(text)}</td>"


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
