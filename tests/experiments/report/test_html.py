"""The page of a report, from folders that are written here."""

from __future__ import annotations

import json
import re

import pytest

from htfcli.errors import ConfigError, DataError
from htfcli.experiments.report import html
from htfcli.experiments.report.html import build_report


def write(folder, records, summary=None, config=None):
    folder.mkdir(parents=True)
    (folder / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    if config is not None:
        (folder / "config.yaml").write_text(config)
    return str(folder)


def page(*arguments):
    """Without the code of plotly."""
    return re.sub(r"<script>.*?</script>", "", build_report(arguments), count=1, flags=re.S)


EPOCHS = [{"kind": "epoch", "epoch": k, "test_accuracy": k / 4} for k in (1, 2)]


def test_a_run_with_its_numbers(tmp_path):
    summary = {
        "kind": "cnn",
        "test_accuracy": 0.123456,
        "confusion": [[1] * 50] * 2,
        "effective_rank": {"{0}": 1.5, "x": {}},
    }
    text = page(write(tmp_path / "a<b", EPOCHS, summary, "lr: 0.1\n# torch: 2\n"))
    assert "2 records, the last one at epoch 2</p>" in text
    assert "<h2>a&lt;b</h2>" in text and "a<b" not in text
    assert "<td>test_accuracy</td><td>0.1235</td>" in text
    assert "<td>effective_rank {0}</td><td>1.5</td>" in text
    assert "<td>lr</td><td>0.1</td>" in text
    assert "confusion" not in text  # too long to read
    assert text.count("figure-0-") >= 1


def test_a_run_that_has_not_finished(tmp_path):
    text = page(write(tmp_path / "a", EPOCHS[:1]))
    assert "1 records, the last one at epoch 1; the run has not finished" in text
    assert "Final numbers" not in text


def test_a_sweep_with_failures(tmp_path):
    def row(seed, lr, status):
        return {"kind": "run", "run": f"{lr}-{seed}", "status": status, "error": "diverged" if status == "failed" else None, "command": "train-cnn",
                "varied": {"lr": lr, "seed": seed}, "settings": {"lr": lr, "seed": seed}, "generate": None,
                "final": {"epoch": 2, "test_accuracy": 0.5, "seconds": 1.0} if status == "finished" else None}  # fmt: skip

    rows = [row(0, 0.1, "finished"), row(1, 0.1, "failed"), row(0, 0.2, "failed"), row(1, 0.2, "finished")]
    write(tmp_path / "s/runs/0.1-0", EPOCHS, rows[0]["final"])
    (tmp_path / "s/summary.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "s/plan.yaml").write_text("command: train-cnn\n")
    text = page(str(tmp_path / "s/summary.jsonl"))
    assert "htf train-cnn: 4 runs, 2 finished, 2 failed" in text
    assert "<td>2</td><td>diverged</td><td>0.1-1, 0.2-0</td>" in text
    assert text.count('<tr class="failed">') == 2
    assert "<pre>command: train-cnn\n</pre>" in text
    assert re.findall(r"<h2>(.*?)</h2>", text) == ["s", "0.1-0"]  # finished runs of the first seed


def test_long_cells_are_prose():
    assert html._cell("x" * 40) == f"<td>{'x' * 40}</td>"
    assert html._cell("x" * 41) == f'<td class="prose">{"x" * 41}</td>'
    assert (html._shown(None), html._shown(0.123456), html._shown(3)) == ("", "0.1235", "3")


def test_what_cannot_be_reported(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="has no records"):
        build_report([str(tmp_path)])
    monkeypatch.setitem(__import__("sys").modules, "plotly.offline", None)
    with pytest.raises(ConfigError, match=r"a report needs plotly \(got no plotly\)\. Install it with"):
        build_report([str(tmp_path)])
