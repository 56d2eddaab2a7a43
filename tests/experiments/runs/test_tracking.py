from __future__ import annotations

import sys

import pytest

from htfcli.errors import ConfigError
from htfcli.experiments.runs import tracking as module
from htfcli.experiments.runs.tracking import tracking


def test_nothing_is_sent_without_a_tracker(tmp_path):
    with tracking(None, "-", "epoch") as send:
        send({"epoch": 1})
    assert list(tmp_path.iterdir()) == []


def test_the_tracker_gets_the_folder_and_the_counter(tmp_path, monkeypatch):
    seen = []

    def tracker(folder, step):
        seen.append((folder, step))
        return module.tracking(None, "", "")

    monkeypatch.setitem(module.TRACKERS, "own", tracker)
    with tracking("own", str(tmp_path), "iteration") as send:
        send({})
    assert seen == [(tmp_path, "iteration")]


def test_there_must_be_a_folder():
    with pytest.raises(ConfigError, match=r"--track writes into the run folder"), tracking("tensorboard", "-", "epoch"):
        pass


def test_a_tracker_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with (
        pytest.raises(ConfigError, match=r"got no tensorboard\)\. Install it with: pip install 'htf\[track\]'\.$"),
        tracking("tensorboard", str(tmp_path), "epoch"),
    ):
        pass


def test_scalars_without_the_modes(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with tracking("tensorboard", str(tmp_path), "epoch") as send:
        for epoch in (1, 2):
            send(
                {
                    "kind": "epoch",
                    "epoch": epoch,
                    "loss": 0.5 / epoch,
                    "nodes": [{"node": "{0}", "modes": [0], "rank": 3}],
                }
            )
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["loss", "nodes/{0}/rank"]
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 0.5), (2, 0.25)]
