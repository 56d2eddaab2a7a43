"""Files and processes of a run of a sweep; the processes are short scripts in place of `htf`."""

from __future__ import annotations

import os
import sys
import time

import pytest
import yaml

from htfcli.config.plan import PlanConfig
from htfcli.errors import ConfigError
from htfcli.experiments.sweeps import job as jobs
from htfcli.experiments.sweeps.job import Job, Outcome, error_in, execute, locked
from htfcli.experiments.sweeps.plan import planned_runs
from htfcli.files.own.run_folder import RunFolder


@pytest.fixture
def job(tmp_path):
    plan = PlanConfig.checked({"data": str(tmp_path / "x.npy"), "base": {"width": 2}})
    for name in ("jobs", "runs", "data"):
        (tmp_path / name).mkdir()
    return Job(planned_runs(plan)[0], tmp_path)


def script(monkeypatch, tmp_path, text):
    """Run this Python text in place of `htf ARGUMENTS`."""
    (tmp_path / "script.py").write_text(text)
    popen = jobs.subprocess.Popen
    start = lambda command, **options: popen([sys.executable, tmp_path / "script.py", *command[3:]], **options)  # noqa: E731
    monkeypatch.setattr(jobs.subprocess, "Popen", start)


FINISH = """
import sys
from pathlib import Path
folder = Path(sys.argv[sys.argv.index("-o") + 1])
folder.mkdir(exist_ok=True)
(folder / "summary.json").write_text("{}")
"""


def test_settings_file(job, tmp_path):
    assert not job.changed
    job.write_settings()
    first, *rest = job.settings_file.read_text().splitlines()
    assert first == f"# htf fit {tmp_path}/x.npy --config jobs/seed=0.yaml -o runs/seed=0".replace(f"{tmp_path}/x", "x")
    assert yaml.safe_load("\n".join(rest)) == {"width": 2, "seed": 0}
    job.folder.mkdir()
    assert not job.changed
    job.settings_file.write_text("other")
    assert job.changed


def test_arguments_by_what_the_folder_holds(job):
    assert job.arguments[-1] == str(job.folder)
    job.folder.mkdir()
    assert (job.begun, job.resumable, job.arguments[-1]) == (True, False, "--force")
    (job.folder / "checkpoint.safetensors").write_text("")
    assert (job.begun, job.resumable, job.arguments[-1]) == (False, True, "--resume")
    assert not job.finished
    (job.folder / "summary.json").write_text("{}")
    assert job.finished


def test_completions_write_a_file_too(tmp_path):
    plan = PlanConfig.checked({"command": "complete", "data": "x.csv"})
    job = Job(planned_runs(plan)[0], tmp_path)
    assert job.completed == tmp_path / "completed/seed=0.csv"
    job.folder.mkdir(parents=True)
    (job.folder / "summary.json").write_text("{}")
    (job.folder / "checkpoint.safetensors").write_text("")
    assert (job.finished, job.resumable, job.begun) == (False, False, True)
    assert job.arguments[-5:] == ["-o", str(job.completed), "--run", str(job.folder), "--force"]


def test_discarding(job):
    RunFolder(str(job.folder)).close()
    job.write_settings()
    job.log.write_text("x")
    with RunFolder(str(job.folder)), pytest.raises(ConfigError, match="another process is using"):
        job.discard()
    job.discard()
    assert not any(path.exists() for path in (job.folder, job.log, job.settings_file))


def test_a_process_that_succeeds(job, monkeypatch, tmp_path):
    script(monkeypatch, tmp_path, FINISH)
    assert execute([job], {}, lambda: False) == [Outcome("finished")]
    script(monkeypatch, tmp_path, "raise SystemExit(1)")  # is not started again
    assert execute([job], {}, lambda: False) == [Outcome("finished")]


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("import sys; sys.exit('Error: no such data.')", Outcome("failed", "no such data.")),
        (
            "import sys; print('Error: wrong.', file=sys.stderr); sys.exit(2)",
            Outcome("failed", "wrong.", hopeless=True),
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", Outcome("failed", "killed by SIGKILL")),
        ("raise SystemExit(3)", Outcome("failed", "exit code 3")),
    ],
    ids=["error", "hopeless", "killed", "silent"],
)
def test_a_process_that_fails(job, monkeypatch, tmp_path, text, outcome):
    script(monkeypatch, tmp_path, text)
    assert execute([job], {}, lambda: False) == [outcome]


def test_success_without_a_summary_is_a_failure(job, monkeypatch, tmp_path):
    script(monkeypatch, tmp_path, "")
    (outcome,) = execute([job], {}, lambda: False)
    assert (outcome.status, outcome.hopeless) == ("failed", False)
    assert outcome.error == f"{job.folder} has no summary although its process succeeded"


def test_stopping(job, monkeypatch, tmp_path):
    script(monkeypatch, tmp_path, "import time; open('begun', 'w').close(); time.sleep(600)")
    monkeypatch.chdir(tmp_path)
    assert execute([job], {}, (tmp_path / "begun").exists) == [Outcome("interrupted")]


def test_a_process_knows_its_parent_and_environment(job, monkeypatch, tmp_path):
    text = (
        "import os, sys; print('Error:', os.environ['HTF_PARENT_PIPE'], os.environ['X'], file=sys.stderr); sys.exit(1)"
    )
    script(monkeypatch, tmp_path, text)
    assert execute([job], {"X": "given"}, lambda: False)[0].error == "1 given"


def test_a_run_that_another_process_works_on_is_waited_for(job):
    asked = []

    def stopped():
        asked.append(time.monotonic())
        return len(asked) == 3

    with RunFolder(str(job.folder)):
        assert execute([job], {}, stopped) == [Outcome("interrupted")]


def test_locked_data(tmp_path):
    data = tmp_path / "a.safetensors"
    with locked(data) as exists:
        assert not exists
        data.write_text("")
    with locked(data) as exists:
        assert exists


def test_errors_in_logs(tmp_path):
    log = tmp_path / "log"
    assert error_in(log) == ""
    log.write_text("htf of 4 x 4\nError: diverged; the state of iteration 3 is saved, continue with: htf fit\n\n")
    assert error_in(log) == "diverged"
    log.write_text("Traceback\nValueError: x\n")
    assert error_in(log) == "ValueError: x"


def test_this_code_comes_first(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    first, *rest = jobs._this_code().split(os.pathsep)
    assert (os.path.isdir(f"{first}/htfcli"), rest) == (True, ["elsewhere"])
