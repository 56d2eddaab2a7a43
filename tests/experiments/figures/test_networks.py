"""Figures of networks, from records that are written here."""

from __future__ import annotations

import pytest

from htfcli.errors import DataError
from htfcli.experiments.figures.networks import plot_locality, plot_training
from htfcli.files.own.records import Records


def training(name, **more):
    return Records(name, [
        {"kind": "epoch", "epoch": k, "test_accuracy": 0.5 * k, "train_accuracy": 0.4 * k, "test_loss": 2.0, "task_loss": 1.0 / k, **more}
        for k in (1, 2)
    ])  # fmt: skip


def curves(axes):
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines if len(line.get_ydata())}


def test_trainings():
    figure = plot_training([training("a"), training("a"), training("b", regularizer=None)])
    accuracy, loss = figure.axes  # without a panel of the regularizer, which none recorded
    assert (accuracy.get_title(), loss.get_title(), loss.get_yscale()) == ("accuracy", "loss", "log")
    assert {name: values for name, values in curves(accuracy).items() if not name.startswith("_")} == {
        "a (1)": [0.5, 1.0], "a (2)": [0.5, 1.0], "b": [0.5, 1.0],
    }  # fmt: skip
    assert [0.4, 0.8] in curves(accuracy).values()
    assert len(plot_training([training("a", regularizer=3.0)]).axes) == 3


def locality(model, distance, **more):
    return {"kind": "locality", "model": model, "distance": distance, "measure": "images", **more}


def test_locality_by_distance():
    records = [locality("b", 8, dependence=0.1), locality("a", 4, dependence=0.3), locality("b", 0, dependence=0.9)]
    records = [r | {"trained_distance": 8} for r in records]
    records.append(
        {"kind": "locality", "model": "a", "measure": "receptive-field", "distance": 0, "profile": [0.5, 0.25]}
    )
    figure = plot_locality([Records("x", records)])
    dependence, field = figure.axes
    assert dependence.get_xlabel() == "distance between the two images (pixels)"
    assert curves(dependence)["b"] == [0.9, 0.1]
    assert [text.get_text() for text in dependence.texts] == ["trained here"]
    assert curves(field) == {"a": [0.5, 0.75]}


def test_nothing_to_draw():
    with pytest.raises(DataError, match="no measure of locality to plot"):
        plot_locality([Records("x", [locality("a", 0)])])
