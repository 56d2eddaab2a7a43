"""Figures of fits, from records that are written here."""

from __future__ import annotations

import math

import pytest

from htfcli.commands.plot import QUANTITY_NAMES
from htfcli.errors import ConfigError, DataError
from htfcli.experiments.figures.fits import DEFAULT, QUANTITIES, plot_runs, ranked_curves
from htfcli.files.own.records import Records


def place(label, values, **more):
    return {"node": label, "modes": [int(m) for m in label.strip("{}").split(",")], "singular_values": values, **more}


def fit(name="a", extra=True):
    """Three records of a balanced tree of order 4; the second lacks a number."""
    records = []
    for k, loss in enumerate((1.0, None, 0.25)):
        nodes = [place(f"{{{m}}}", [2.0], effective_rank=1.0) for m in range(4)]
        nodes += [
            place(n, [3.0 + k, 1.0][: k + 1], effective_rank=1.0 + k, component_norms=[4.0 + k, 2.0])
            for n in ("{0,1}", "{2,3}")
        ]
        nodes.append({"node": "{0,1,2,3}", "modes": [0, 1, 2, 3], "component_norms": [9.0]})
        record = {"kind": "iteration", "iteration": 5 * k, "train_loss": loss, "nodes": nodes}
        records.append(record | ({"matricizations": [place("{0,2}", [7.0, 6.0])]} if extra else {}))
    return Records(name, records)


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def test_default_panels():
    figure = plot_runs([fit()])
    assert titles(figure) == [
        "local components at {1, 2, 3, 4}",
        "local components at {1, 2}",
        "local components at {3, 4}",
        "matricization {1, 2}",  # {3, 4} has the same singular values
        "matricization {1, 3}",
        "effective ranks",
        "loss",
    ]
    assert [axes.get_yscale() for axes in figure.axes] == ["linear"] * 6 + ["log"]


def test_curves_are_the_records():
    (axes,) = plot_runs([fit()], ["singular-values"], [[1, 0]]).axes
    first, second = (list(line.get_ydata()) for line in axes.lines)
    assert list(axes.lines[0].get_xdata()) == [0, 5, 10]
    assert first == [3.0, 4.0, 5.0]
    assert math.isnan(second[0]) and second[1:] == [1.0, 1.0]  # one value at first
    assert len(plot_runs([fit()], ["singular-values"], [[0, 1]], top=1).axes[0].lines) == 1
    assert ranked_curves("{0,2}", "singular_values")(fit()) == [("1", [7.0] * 3), ("2", [6.0] * 3)]


def test_a_number_that_is_missing_leaves_a_gap():
    values = list(plot_runs([fit()], ["loss"]).axes[0].lines[0].get_ydata())
    assert values[0] == 1.0 and math.isnan(values[1])


def test_runs_side_by_side():
    figure = plot_runs([fit("a"), fit("b", extra=False)], ["singular-values", "loss"], [[0, 2]], log_x=True, log_y=True)
    assert titles(figure) == ["a\nmatricization {1, 3}", "b\nmatricization {1, 3}", "a\nloss", "b\nloss"]
    assert [len(axes.lines) for axes in figure.axes] == [2, 0, 1, 1]  # only a recorded the matricization
    assert all((axes.get_xscale(), axes.get_yscale()) == ("symlog", "log") for axes in figure.axes)


def test_what_cannot_be_drawn():
    with pytest.raises(ConfigError, match="unknown quantity to plot"):
        plot_runs([fit()], ["norm"])
    with pytest.raises(DataError) as error:
        plot_runs([fit()], ["norms"], [[0, 3]])
    nodes = "{0}, {1}, {2}, {3}, {0,1}, {0,2}, {2,3}, {0,1,2,3}"
    assert str(error.value) == f"the records have no norms to plot (got {{0,3}}, allowed {nodes})."


def test_help_names_the_quantities():
    assert tuple(QUANTITIES) == QUANTITY_NAMES
    assert set(QUANTITIES) - set(DEFAULT) == {"error"}
