"""The frame of the command line: help, version, completion, errors, exit codes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from htfcli import __version__
from htfcli.app import COMMANDS

HEAVY = ("torch", "numpy", "matplotlib", "pyarrow", "scipy")


def test_help_lists_the_commands_in_pipeline_order(htf):
    done = htf("--help")
    assert done.code == 0
    positions = [done.out.index(f"\n  {name} ") for name in COMMANDS]
    assert positions == sorted(positions)
    assert done.err == ""


def test_summaries_are_what_the_commands_say(htf):
    """The list is kept apart from the commands so that it needs no import; it must not drift."""
    for name, (_, summary) in COMMANDS.items():
        assert htf(name, "--help").out.splitlines()[2] == f"  {summary}"


def test_no_command_is_a_usage_error_with_help(htf):
    done = htf()
    assert done.code == 2
    assert "Commands:" in done.out


def test_version(htf):
    done = htf("--version")
    assert (done.code, done.out) == (0, f"htf {__version__}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_two_examples(htf, name):
    args = (name, "tensor") if name == "generate" else (name,)
    done = htf(*args, "--help")
    assert done.code == 0
    examples = done.out.split("Examples:")[1].strip().splitlines()
    assert sum(line.strip().startswith("htf ") for line in examples) >= 2
    assert any("|" in line for line in examples) or name in ("plot",)
    assert "Undefined" not in done.out


def imported(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["--version"],
        ["fit", "--help"],
        ["generate", "tensor", "--help"],
        ["generate", "pathfinder", "--help"],
        ["complete", "--help"],
        ["plot", "--help"],
        ["fit", "--bad"],
    ],
)
def test_help_does_not_import_torch(args):
    assert imported(f"from htfcli.app import main\nmain({args!r})") == set()


def test_completion_does_not_import_torch_and_completes():
    environment = {"_HTF_COMPLETE": "complete_bash", "COMP_WORDS": "htf ", "COMP_CWORD": "1"}
    code = f"import os\nos.environ.update({environment!r})\nfrom htfcli.app import main\ntry:\n main([])\nexcept SystemExit: pass\nprint()"
    assert imported(code) == set()
    done = subprocess.run(
        [sys.executable, "-m", "htfcli"], capture_output=True, text=True, env={**environment}, check=False
    )
    assert done.stdout.split() == list(COMMANDS)
    environment |= {"COMP_WORDS": "htf fit --mod", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-m", "htfcli"], capture_output=True, text=True, env={**environment}, check=False
    )
    assert done.stdout.split() == ["--model"]


def test_the_probe_above_can_fail():
    assert imported("import numpy") == {"numpy"}


def test_importing_the_package_does_not_import_torch():
    assert imported("import htfcli") == set()


def test_public_names():
    import htfcli

    for name in htfcli.__all__:
        assert getattr(htfcli, name) is not None
    with pytest.raises(AttributeError, match="module 'htfcli' has no attribute 'nothing'"):
        htfcli.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["measure"],
            "no such command (got measure, allowed generate, fit, complete, train-cnn, measure-rank, measure-locality, rearrange, plot, sweep, reproduce, report, export, inspect). Did you mean measure-rank?",
        ),
        (["--bad"], "No such option: --bad. See 'htf --help'."),
        (["fit", "--widht", "3"], "No such option: --widht. Did you mean --width? See 'htf fit --help'."),
        (["fit", "a", "b"], "Got unexpected extra argument(s) (b). See 'htf fit --help'."),
        (["fit", "--lr"], "Option '--lr' requires an argument. See 'htf fit --help'."),
    ],
)
def test_usage_errors(htf, args, message):
    done = htf(*args)
    assert (done.code, done.error) == (2, message)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (MemoryError(), 1, "out of memory (2 GiB free). Reduce --width, --batch-size or the number of entries."),
        (OSError(28, "No space left on device", "x"), 1, "x: No space left on device. Free some space and try again."),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 12884901888 bytes."), 1,
         "out of memory (got 12 GiB more, 2 GiB free). Reduce --width, --batch-size or the number of entries."),
        (MemoryError("Unable to allocate 2.18 TiB for an array with shape (9,) and data type float64"), 1,
         "out of memory (got 2.18 TiB more, 2 GiB free). Reduce --width, --batch-size or the number of entries."),
        (ValueError("odd\nthing"), 1, "internal error: ValueError: odd. HTF_DEBUG=1 shows where; please report it."),
        (KeyboardInterrupt(), 130, "interrupted."),
    ],
)  # fmt: skip
def test_errors_nobody_planned_for(htf, monkeypatch, error, code, message):
    def broken(*arguments):
        raise error

    monkeypatch.setattr("htfcli.engine.runtime.memory.available_memory", lambda: 2 << 30)
    monkeypatch.setattr("htfcli.files.description.describe_input", broken)
    done = htf("inspect", "x")
    assert (done.code, done.error) == (code, message)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["fit"], "no data to fit. Shortest useful call: htf fit data.npy (see htf fit --help)."),
        (["complete"], "no data to complete. Shortest useful call: htf complete data.csv (see htf complete --help)."),
        (["train-cnn"], "no images to train on. Shortest useful call: htf train-cnn --task is-same-class (see htf train-cnn --help)."),
        (["plot"], "Missing argument 'RUN...'. Shortest useful call: htf plot runs/dynamics -o dynamics.png. See 'htf plot --help'."),
        (["plot", "x"], "Missing option '--output' / '-o'. Shortest useful call: htf plot runs/dynamics -o dynamics.png. See 'htf plot --help'."),
        (["measure-rank"], "Missing argument 'THING'. Shortest useful call: htf measure-rank runs/dynamics --tolerance 1e-2. See 'htf measure-rank --help'."),
        (["generate"], "no kind of problem given (got none, allowed tensor, is-same-class, pathfinder). Shortest useful call: htf generate tensor -o data.safetensors (see htf generate --help)."),
    ],
)  # fmt: skip
def test_nothing_given_explains_the_shortest_useful_call(htf, args, message):
    done = htf(*args)
    assert (done.code, done.error, done.out) == (2, message, "")


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "generate"])
def test_no_command_is_at_a_loss_without_arguments(htf, name):
    done = htf(name)
    assert done.code == 2
    assert f"Shortest useful call: htf {name} " in done.error


@pytest.mark.parametrize(
    ("line", "guess"),
    [
        ("generate tensr", "tensor"), ("inspct", "inspect"), ("fit --optimiser adam", "--optimizer"),
        ("fit x.npy --model hft", "htf"), ("fit x.npy --optimizer group_rmsprop", "group-rmsprop"),
        ("fit x.npy --set lr_rate=0.1", "lr"), ("fit x.npy --set learning_rate=0.1", "lr"), ("fit x.npy --set widht=3", "width"),
        ("fit full.npy --tree balancd", "balanced"), ("train-cnn --task pathfnder", "pathfinder"),
        ("train-cnn --task pathfinder --model resnet81", "resnet18"), ("train-cnn --task pathfinder --reg nonlocal", "non-local"),
        ("generate is-same-class --source digit -o x", "digits"), ("reproduce dynamic", "dynamics"),
        ("measure-rank full.npy --tree half_", "half"),
        ("sweep key.yaml", "seeds"), ("sweep base.yaml", "iterations"), ("sweep grid.yaml", "record-every"), ("sweep generate.yaml", "order"),
        ("sweep command.yaml", "fit"),
    ],
)  # fmt: skip
def test_did_you_mean(htf, tmp_path, line, guess):
    np.save(tmp_path / "full.npy", np.ones((3, 3, 3)))
    plans = {
        "key": "sedes: 3\ngenerate: {order: 3}",
        "base": "generate: {order: 3}\nbase: {itreations: 4}",
        "grid": "generate: {order: 3}\ngrid: {recordevery: [4]}",
        "generate": "generate: {ordr: 3}",
        "command": "command: fitt\ngenerate: {order: 3}",
    }
    for name, text in plans.items():
        (tmp_path / f"{name}.yaml").write_text(text + "\n")
    done = htf(*line.split())
    assert done.code == 2
    assert f"Did you mean {guess}?" in done.error
