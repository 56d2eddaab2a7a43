"""A completion with a known answer: entry (i, j, k, ...) is (i + 1) + 10 (j + 1) + 100 (k + 1) + ..., give or take 0.5.

It stands in for the solver where a test is about reading and writing: what is predicted says for which entry.
"""

from __future__ import annotations

import torch

from htfcli.engine.completion.predictor import Completion, Predictor
from htfcli.engine.factorizations.hierarchical import HierarchicalTensorFactorization
from htfcli.engine.observations.centring import Effects

SPREAD = 0.5
STEPS = [
    {"stage": "grow", "tree": "(0, 1)", "width": 1, "train_error": 0.5, "held_out_error": 0.6},
    {"stage": "grow", "tree": "(0, 1)", "width": 2, "train_error": 0.1, "held_out_error": 0.2},
    {"stage": "grow", "tree": "(1, 0)", "width": 1, "train_error": 0.4, "held_out_error": 0.7},
]


def number(*index: int) -> float:
    return float(sum((i + 1) * 10**mode for mode, i in enumerate(index)))


def predictor(dims, offset=0.0) -> Predictor:
    effects = tuple(10.0**mode * torch.arange(1, d + 1, dtype=torch.float64) for mode, d in enumerate(dims))
    return Predictor(HierarchicalTensorFactorization(dims, 1), Effects(offset, effects))


def complete(entries, dims, config=None, on_progress=lambda step: None, should_stop=lambda: False) -> Completion:
    for step in STEPS:
        on_progress(step)
    report = {
        "held_out_error": 0.2,
        "held_out_error_spread": 0.01,
        "r2": 0.9,
        "r2_spread": 0.02,
        "train_error": 0.1,
        "centre": "modes",
        "warnings": ["the solver has its doubts"],
        "steps": STEPS,
        "held_out": {"observed": [1.0, 2.0, 3.0], "predicted": [1.1, 1.9, 3.2]},
    }
    return Completion(predictor(dims), (predictor(dims, -SPREAD), predictor(dims, SPREAD)), report)
