"""The base of the runs that train, with a training that counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from htfcli.config.base import Config
from htfcli.engine.runtime.distributed import Workers
from htfcli.errors import ConfigError, Interrupted, RunError
from htfcli.experiments.runs.training_run import TrainingRun
from htfcli.files.own import container


class CountConfig(Config):
    end: int = 5
    every: float = 0.0
    seed: int = 0


class Counting:
    """Yields a record per count; the state is the count."""

    def __init__(self):
        self.count, self.stop_reason, self.states = 0, "", 0

    def run(self, end, stop_at, fail_at):
        while self.count < end:
            if self.count == stop_at:
                self.stop_reason = "interrupted"
                return
            if self.count == fail_at:
                raise RunError("it diverged")
            self.count += 1
            yield None
            yield {"kind": "count", "count": self.count}
        self.stop_reason = "end"

    def state(self):
        self.states += 1
        return {"count": torch.tensor(self.count)}


class CountRun(TrainingRun[CountConfig]):
    command, counter, may_change = "count", "count", {"end", "every"}
    good = None

    def _load(self, config):
        return f"digest of {Path(self._input).name}"

    def _build(self, state):
        self.device, self.training, self.seen = torch.device("cpu"), Counting(), []
        if state is not None:
            self.training.count = int(state["count"])

    @property
    def _training(self):
        return self.training

    @property
    def _count(self):
        return self.training.count + 1

    @property
    def _checkpoint_every(self):
        return self.settings.every

    def _place(self):
        return f"at count {self.training.count}"

    def _good_state(self):
        return self.good

    def _observe(self, record):
        self.seen.append(record.get("count"))

    def _conclude(self, record, seconds):
        return {"kind": "counts", "last": record.get("count"), "took": seconds >= 0}

    def save(self, destination):
        container.save(destination, "counts", self.training.state(), {}, {})

    def go(self, on_record=lambda record: None, stop_at=None, fail_at=None):
        return sum(1 for _ in self._run(self.training.run(self.settings.end, stop_at, fail_at), on_record))


@pytest.fixture
def make(tmp_path):
    def make(output="r", data="x", workers=None, resume=False, force=False, **settings):
        path = output if output == "-" else str(tmp_path / output)
        return CountRun(CountConfig(**settings), data, path, workers=workers, resume=resume, force=force)

    return make


def records(folder):
    return [json.loads(line)["count"] for line in (folder / "records.jsonl").read_text().splitlines()]


def saved(folder):
    return int(container.read(folder / "checkpoint.safetensors").tensors()["count"])


def test_a_run_from_start_to_end(make, tmp_path):
    run, given = make(), []
    assert run.go(given.append) == 5  # what is None is passed on
    assert [record["count"] for record in given] == [1, 2, 3, 4, 5]
    assert records(tmp_path / "r") == [1, 2, 3, 4, 5]
    assert saved(tmp_path / "r") == 5
    summary = json.loads((tmp_path / "r/summary.json").read_text())
    assert summary == run.summary
    assert (summary["kind"], summary["last"], summary["processes"], summary["took"]) == ("counts", 5, 1, True)
    text = (tmp_path / "r/config.yaml").read_text()
    assert "end: 5\n" in text and "# data: x\n" in text and "# processes: 1\n" in text and "# torch: " in text
    assert container.read(tmp_path / "r/model.safetensors").kind == "counts"
    assert run.seen == [None, 1, 2, 3, 4, 5]


def test_without_a_folder_nothing_is_kept(make, tmp_path):
    run = make("-")
    run.go()
    assert run.summary["last"] == 5
    assert run.training.states == 0
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Interrupted) as error:
        make("-").go(stop_at=2)
    assert str(error.value) == "interrupted at count 2."


def test_interrupted_and_resumed(make, tmp_path):
    with pytest.raises(Interrupted) as error:
        make(every=1e9).go(stop_at=2)
    folder = tmp_path / "r"
    assert str(error.value) == (
        f"interrupted at count 2; the state is saved, continue with: htf count --resume -o {folder}."
    )
    assert (saved(folder), (folder / "summary.json").exists()) == (2, False)
    with open(folder / "records.jsonl", "a") as file:
        file.write('{"kind": "count", "count": 3}\n')  # a kill leaves records beyond the checkpoint
    run = make(data=None, resume=True, end=4)
    assert (run.settings.every, run.settings.end) == (1e9, 4)
    run.go()
    assert run.seen == [2, 3, 4]  # first the last record before
    assert records(folder) == [1, 2, 3, 4]
    again = make(data=None, resume=True)
    again.go()
    assert again.summary["last"] == 4  # nothing was left to do


def test_a_run_resumes_on_its_own_data_and_settings(make):
    with pytest.raises(Interrupted):
        make().go(stop_at=1)
    with pytest.raises(ConfigError) as error:
        make(data="y", resume=True)
    assert str(error.value) == "the run was started on other data. Resume with the data it was started on."
    with pytest.raises(ConfigError, match=r"--seed cannot change when a run is resumed \(got 1, allowed 0\)"):
        make(resume=True, seed=1)
    make(resume=True).go()  # the folder has been released each time


@pytest.mark.parametrize(("good", "kept"), [(None, 3), (1, 1)])
def test_a_failure_keeps_the_last_good_state(make, tmp_path, good, kept):
    run = make()
    run.good = None if good is None else {"count": torch.tensor(good)}
    with pytest.raises(RunError, match=r"^it diverged; the state is saved, continue with: htf count --resume -o "):
        run.go(fail_at=3)
    assert saved(tmp_path / "r") == kept


def test_a_failure_before_there_is_a_state(make):
    with pytest.raises(RunError) as error:
        make().go(fail_at=0)
    assert str(error.value) == "it diverged."


@pytest.mark.parametrize(("every", "states"), [(0.0, 2), (1e9, 1)])
def test_a_reader_that_has_gone(make, tmp_path, every, states):
    def on_record(record):
        if record["count"] == 2:
            raise BrokenPipeError

    run = make(every=every)
    with pytest.raises(BrokenPipeError):
        run.go(on_record)
    assert saved(tmp_path / "r") == 2
    assert run.training.states == states  # no more often than needed


def test_other_processes_contribute_to_the_state_and_write_nothing(make, tmp_path):
    run = make(workers=Workers(1, 2))
    run.go(lambda record: pytest.fail("a record"))
    assert run.training.states == 5
    assert run.summary["processes"] == 2
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_the_settings_leaves_no_folder(make, tmp_path):
    with pytest.raises(ConfigError, match=r"several processes cannot read one stdin"):
        make(data="-", workers=Workers(0, 2))
    assert list(tmp_path.iterdir()) == []
