"""A completion with a known answer: entry (i, j, k, ...) is (i + 1) + 10 (j + 1) + 100 (k + 1) + ..., give or take 0.5.

It stands in for the engine where a test is about reading and writing: what is predicted says for which entry.
"""

from __future__ import annotations

import copy

import torch

from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization

STD = 0.5
STEPS = [
    {"stage": "factorization", "tree": "[0, 1]", "width": 2, "ridge": 0.5, "train_error": 0.5, "held_out_error": 0.6},
    {"stage": "factorization", "tree": "[0, 1]", "width": 2, "ridge": 0.1, "train_error": 0.1, "held_out_error": 0.2},
    {"stage": "factorization", "tree": "[1, 0]", "width": 2, "ridge": 0.5, "train_error": 0.4, "held_out_error": 0.7},
]
FIBRE = "fibre of mode 1"
REPORT = {
    "held_out_error": 0.2,
    "held_out": {
        "random": {"error": 0.2, "baseline": 0.9, "count": 30, "share": 0.75},
        FIBRE: {"error": 0.4, "baseline": 1.0, "count": 12, "share": 0.25},
    },
    "r2": 0.9,
    "train_error": 0.1,
    "loss": "l2",
    "members": [
        {
            "name": "mean",
            "kind": "mean",
            "tree": None,
            "width": None,
            "ridge": None,
            "interpolated": False,
            "weights": {"random": 0.0, FIBRE: 0.3},
            "held_out_error": {"random": 0.9, FIBRE: 1.0},
        },
        {
            "name": "(0, 1), width 2",
            "kind": "factorization",
            "tree": [0, 1],
            "width": 2,
            "ridge": 0.1,
            "interpolated": True,
            "weights": {"random": 1.0, FIBRE: 0.7},
            "held_out_error": {"random": 0.2, FIBRE: 0.4},
        },
    ],
    "strongest": 1,
    "hierarchical_rank": {"{0}": 2, "{1}": 2},
    "effective_rank": {"{0}": 1.5, "{1}": 1.6},
    "rank_tolerance": 0.2,
    "ordered": [{"mode": 1, "smoothing": 3.0, "length": 2.0, "nugget": 0.05}],
    "units": {"mode": 0, "scale": [1.0, 1e5]},
    "per_index": [
        {"mode": 0, "index": 0, "error": 0.1, "baseline": 1.0},
        {"mode": 0, "index": 1, "error": 0.3, "baseline": 0.9},
    ],
    "calibration": {
        "random": {"stated": [0.5, 0.9, 0.95], "observed": [0.52, 0.91, 0.96]},
        FIBRE: {"stated": [0.5, 0.9, 0.95], "observed": [0.4, 0.85, 0.9]},
    },
    "scatter": {
        "observed": [1.0, 2.0, 3.0],
        "predicted": [1.1, 1.9, 3.2],
        "std": [STD] * 3,
        "kind": ["random", "random", FIBRE],
    },
    "outliers": 0,
    "effort": "normal",
    "still_falling": True,
    "warnings": [f"{FIBRE}: the engine has its doubts"],
    "steps": STEPS,
}


def number(*index: int) -> float:
    return float(sum((i + 1) * 10**mode for mode, i in enumerate(index)))


class Numbering:
    """What the engine's `Completion` offers; an index that was never seen, -1, counts as 0."""

    calls: list[dict] = []  # noqa: RUF012 -- keywords of every call of `complete`

    def __init__(self, dims, report=None):
        self.dims, self.report = tuple(dims), report or {}
        self.members = (object(),) * 2
        self.model = HierarchicalTensorFactorization(self.dims, 1)

    def values(self, index):
        return ((index + 1) * 10.0 ** torch.arange(len(self.dims))).sum(1).double()

    def std(self, index):
        return torch.full((len(index),), STD, dtype=torch.float64)

    def interval(self, index, level):
        values = self.values(index)
        return values - level, values + level

    def imputations(self, index, m, generator):
        return self.values(index) + STD * torch.randn(m, len(index), generator=generator, dtype=torch.float64)

    def state(self):
        return {"dims": torch.tensor(self.dims)}, {"dims": list(self.dims), "report": self.report}

    @classmethod
    def from_state(cls, tensors, content):
        assert tensors["dims"].tolist() == content["dims"]
        return cls(content["dims"], content["report"])


def complete(
    entries,
    dims,
    config=None,
    on_progress=lambda step: None,
    should_stop=lambda: False,
    *,
    coordinates=None,
    std=None,
    wanted=None,
    unordered=(),
):
    for step in STEPS:
        on_progress(step)
    given = {"entries": entries, "coordinates": coordinates, "std": std, "wanted": wanted, "unordered": unordered}
    Numbering.calls.append(given)
    return Numbering(dims, copy.deepcopy(REPORT))


def stand_in(monkeypatch):
    """Let it stand in for the engine, in what is fitted and in what is read from a file."""
    monkeypatch.setattr(Numbering, "calls", [])
    monkeypatch.setattr("htfcli.experiments.runs.complete.complete", complete)
    monkeypatch.setattr("htfcli.files.own.completion.Completion", Numbering)
