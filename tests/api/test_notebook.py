"""The view of a result in a notebook: valid, safe HTML with the numbers of the report."""

from __future__ import annotations

import copy
from xml.etree import ElementTree

import pytest

from htfcli.api.notebook import to_html
from htfcli.experiments.runs.completion_summary import named
from htfcli.files.own.axes import Axis
from tests.numbering import REPORT

AXES = (Axis("ligand & <dose>", 2, ("a", "b")), Axis("cell", 2, ("c", "d")))


@pytest.fixture
def report():
    found = named(copy.deepcopy(REPORT), AXES)
    found |= {"modes": [axis.name for axis in AXES], "dims": [2, 2], "observed": 3, "predicted": 1, "seconds": 1.5}
    return found | {"tree": "(ligand, cell)", "mode_tree": [0, 1], "coverage_90": {"random": 0.91}}


def parsed(report):
    """The elements; XHTML, so that a parser says whether all is closed and escaped."""
    return ElementTree.fromstring(to_html(report))


def test_table_tree_and_scatter(report):
    page = parsed(report)
    cells = {row.find("th").text: row.find("td").text for row in page.iter("tr")}
    assert cells["tensor"] == "2 x 2 (ligand & <dose>, cell)"
    assert cells["held-out error, random"].startswith("0.2 (baseline 0.9")
    tree, scatter = page.iter("{http://www.w3.org/2000/svg}svg")
    texts = [text.text for text in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["2", "2", None, "ligand & <…", "cell"]
    points = [c for c in scatter.iter("{http://www.w3.org/2000/svg}circle") if c.get("fill-opacity")]
    assert len(points) == 3
    assert len({point.get("fill") for point in points}) == 2


def test_where_no_factorization_counts(report):
    report |= {"mode_tree": None, "tree": None, "hierarchical_rank": {}}
    assert len(list(parsed(report).iter("{http://www.w3.org/2000/svg}svg"))) == 1


def test_points_lie_where_their_values_are(report):
    report["scatter"] = {"observed": [0.0, 10.0], "predicted": [0.0, 5.0], "kind": ["random"] * 2}
    scatter = list(parsed(report).iter("{http://www.w3.org/2000/svg}svg"))[1]
    (x1, y1), (x2, y2) = (
        (float(c.get("cx")), float(c.get("cy")))
        for c in scatter.iter("{http://www.w3.org/2000/svg}circle")
        if c.get("fill-opacity")
    )
    assert (x1, y1) == (8, 232)
    assert (x2, y2) == (232, 120)


@pytest.mark.parametrize("without", ["scatter", "observed", "predicted", "seconds"])
def test_what_a_report_lacks_is_left_out(report, without):
    del report[without]
    assert "held-out error" in to_html(report)
    parsed(report)


def test_a_notebook_stays_small(report):
    many = 10_000
    report["scatter"] = {
        "observed": [float(i) for i in range(many)],
        "predicted": [0.5] * many,
        "kind": ["random"] * many,
    }
    report["modes"] = [str(mode) for mode in range(40)]
    report["mode_tree"] = list(range(40))
    assert len(to_html(report)) < 100_000
