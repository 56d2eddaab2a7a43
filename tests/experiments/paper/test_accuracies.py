"""Test accuracies beside the published ones, and gains in pairs, from rows that are written here."""

from __future__ import annotations

import pytest

from htfcli.experiments.paper.accuracies import compare_accuracies, draw_accuracies, paired_gains


def training_rows(distances=(0, 24), coefficients=(None, 0.3), seeds=3):
    return [
        {"kind": "run", "run": f"{d}-{c}-{seed}", "status": "finished", "command": "train-cnn", "data": None, "error": None,
         "varied": {"distance": d, "reg_coeff": c, "seed": seed}, "generate": None,
         "settings": {"reg": "none" if c is None else "non-local", "reg_coeff": c or 1.0, "weight_decay": 0.0, "dropout": 0.0, "distance": d},
         "final": {"test_accuracy": 0.9 - d / 100 + (c or 0) / 10 + seed / 100}}
        for d in distances for c in coefficients for seed in range(seeds)
    ]  # fmt: skip


def test_accuracies_beside_the_published_ones():
    rows = compare_accuracies(training_rows((0, 40), (None, 0.1)), "is-same-class", "full", "distance")
    assert [(r.case, r.quantity, r.published, r.ours, r.seeds) for r in rows] == [
        ("distance 0", "test accuracy (%), no regularizer", "61.2", "91.0 ± 0.6", 3),
        ("distance 40", "test accuracy (%), no regularizer", "59.9", "51.0 ± 0.6", 3),
        ("distance 0", "test accuracy (%), coefficient 0.1", "61.2", "92.0 ± 0.6", 3),
        ("distance 40", "test accuracy (%), coefficient 0.1", "60.4", "52.0 ± 0.6", 3),
        ("distance 0", "gain in points, paired, coefficient 0.1", "", "+1.0 ± 0.0", 3),
        ("distance 40", "gain in points, paired, coefficient 0.1", "", "+1.0 ± 0.0", 3),
    ]


def test_gains_are_differences_of_runs_of_one_seed():
    """By hand: plain .60 .70 .80 and regularized .62 .74 .80 differ by 2, 4, 0 (mean 2, deviation 2); the fourth seed of
    either method has no partner, as a run without an accuracy has none."""
    rows = training_rows((24,), (None, 0.3), seeds=5)
    accuracies = [0.60, 0.70, 0.80, None, 0.99, 0.62, 0.74, 0.80, 0.99, None]
    for row, accuracy in zip(rows, accuracies, strict=True):
        row["final"] = None if accuracy is None else {"test_accuracy": accuracy}
    ((method, (gain,)),) = paired_gains(rows, "distance").items()
    assert (method, gain.x, gain.count) == ("coefficient 0.3", 24, 3)
    assert (gain.mean, gain.error) == pytest.approx((2, 2 / 3**0.5))
    assert paired_gains(rows[5:], "distance") == {}


def test_published_numbers_of_another_setting_stand_apart():
    rows = compare_accuracies(training_rows((0, 24)), "is-same-class", "mini", "distance")
    ours = [(r.published, r.ours) for r in rows if r.case == "distance 0"]
    assert ours == [("", "91.0 ± 0.6"), ("", "94.0 ± 0.6"), ("", "+3.0 ± 0.0")]
    assert [r.case for r in rows if r.published == "58.8"] == ["published setting, distance 120"]


def test_figures_of_accuracies():
    axes = draw_accuracies(training_rows(), "is-same-class", "mini", "distance").axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["no regularizer", "coefficient 0.3"]
    axes = draw_accuracies(training_rows(), "is-same-class", "full", "distance").axes[0]
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert [list(line.get_xdata()) for line in dashed] == [[0, 40, 80, 120, 160]] * 3
    (axes,) = draw_accuracies(training_rows((24,)), "baselines", "mini", "distance").axes
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([67, 70])
