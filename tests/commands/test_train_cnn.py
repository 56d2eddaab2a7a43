from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from htfcli.engine.vision.training import Training
from htfcli.files.own.container import read

ROOT = Path(__file__).parents[2]
DATA = ("--task", "is-same-class", "--source", "digits", "--distance", 4, "--height", 8, "--width", 24,
        "--train", 90, "--test", 60)  # fmt: skip
NET = ("--model", "resnet-mini", "--widths", "4,8", "--blocks", "1,1", "--batch-size", 20, "--lr", 0.05, "--epochs", 3)
QUICK = (*DATA, *NET)
REG = ("--reg", "non-local", "--reg-coeff", 0.5)
NETWORKS_MODULE = (ROOT / "tests/engine/vision/networks.py").read_text()


def without_speed(records):
    return [{k: v for k, v in r.items() if k != "images_per_second"} for r in records]


def records_of(folder):
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def same_weights(a, b, tolerance=0.0):
    a, b = (read(path / "model.safetensors").tensors() for path in (a, b))
    assert a.keys() == b.keys()
    return all(float((a[k].double() - b[k].double()).abs().max()) <= tolerance for k in a)


def test_run_folder(htf, tmp_path):
    done = htf("train-cnn", *QUICK, *REG, "-o", "runs/a")
    assert done.code == 0, done.err
    assert [r["epoch"] for r in done.records] == [1, 2, 3]
    assert list(done.records[0]) == [
        "kind", "epoch", "task_loss", "regularizer", "train_accuracy", "test_loss", "test_accuracy", "images_per_second",
    ]  # fmt: skip
    assert all(0 < r["regularizer"] <= 1 for r in done.records)
    first, last, *table = done.err.splitlines()
    assert first == (
        "resnet-mini, 1,301 parameters, receptive field 23; is-same-class, 90 train and 60 test images of 1 x 8 x 24; "
        "regularizer non-local x 0.5; float32 on cpu (1 thread)"
    )
    assert last.startswith("all epochs done at epoch 3 after ")
    folder = tmp_path / "runs" / "a"
    names = {"config.yaml", "records.jsonl", "checkpoint.safetensors", "model.safetensors", "summary.json"}
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == names
    summary = json.loads((folder / "summary.json").read_text())
    confusion = np.array(summary["confusion"])
    assert confusion.sum() == 60
    assert summary["precision"] == "float32"
    assert summary["test_accuracy"] == np.trace(confusion) / 60 == done.records[-1]["test_accuracy"]
    assert [line.split()[-2:] for line in table] == [["different", "same"], *(map(list, confusion.astype(str)))]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert "# precision: float32" in (folder / "config.yaml").read_text()
    assert (config["model"], config["lr"], config["reg_coeff"]) == ("resnet-mini", 0.05, 0.5)
    again = htf("train-cnn", "--config", folder / "config.yaml", "-o", "runs/b")
    assert without_speed(again.records) == without_speed(done.records)
    assert same_weights(folder, tmp_path / "runs/b")


@pytest.mark.parametrize(
    "options",
    [
        ("--optimizer", "adam", "--weight-decay", 0.01, "--dropout", 0.2),
        (*REG, "--patch-size", 3, "--patch-distance", 5, "--reg-every", 2),
        (*REG, "--formulation", "tangent", "--accumulate", 2, "--channels-last"),
        ("--dtype", "float64", "--stem-kernel", 5, "--stem-stride", 1, "--max-pool"),
        ("--momentum", 0),
        (*REG, "--precision", "bf16"),
        (*REG, "--precision", "fp16", "--formulation", "tangent"),
    ],
)
def test_options(htf, options):
    done = htf("train-cnn", *QUICK, "--epochs", 1, *options, "-o", "r", "-q")
    assert (done.code, done.err) == (0, "")


def test_regularizer_changes_training_and_formulations_do_not(htf, tmp_path):
    for name, options in (("plain", ()), ("double", REG), ("tangent", (*REG, "--formulation", "tangent"))):
        done = htf("train-cnn", *QUICK, *options, "--dropout", 0.1, "--dtype", "float64", "-o", name, "-q")
        assert done.code == 0
    assert same_weights(tmp_path / "double", tmp_path / "tangent", 1e-10)
    assert not same_weights(tmp_path / "double", tmp_path / "plain", 1e-4)


def test_lazy_regularizer_is_evaluated_every_kth_step(htf, monkeypatch):
    from htfcli.engine.vision.regularizer.non_local import NonLocalRegularizer

    calls = []
    before = NonLocalRegularizer.with_outputs
    monkeypatch.setattr(NonLocalRegularizer, "with_outputs", lambda *a, **k: calls.append(1) or before(*a, **k))
    assert htf("train-cnn", *QUICK, *REG, "--reg-every", 2, "-o", "r", "-q").code == 0
    assert len(calls) == 8  # of 3 x 5 steps


def test_perfect_train_accuracy_stops(htf, tmp_path):
    done = htf("train-cnn", *DATA, "--model", "resnet-mini", "--optimizer", "adam", "--lr", 0.01, "--epochs", 80,
               "--batch-size", 16, "--patience", 2, "-o", "r")  # fmt: skip
    accuracies = [r["train_accuracy"] for r in done.records]
    assert accuracies[-2:] == [1, 1]
    assert len(accuracies) < 80
    assert "train accuracy 1 for 2 epochs at epoch" in done.err
    assert json.loads((tmp_path / "r/summary.json").read_text())["stop_reason"] == "perfect"


# --- input ------------------------------------------------------------------------------------------------------------


def test_data_from_a_file_and_a_pipe(htf, shell):
    pairs = "is-same-class --source digits --distance 4 --height 8 --width 24 --train 60 --test 40"
    options = " ".join(map(str, NET))
    htf("generate", *pairs.split(), "-o", "p.safetensors")
    done = htf("train-cnn", "p.safetensors", *NET, "-o", "a", "-q")
    assert done.code == 0, done.err
    piped = shell(f"htf generate {pairs} -q -o - | htf train-cnn - {options} -o b -q && htf measure-locality b")
    assert (piped.code, piped.error) == (2, "b was trained on images from a pipe. Name them with --data.")
    assert without_speed(piped.records) == without_speed(done.records)
    onward = shell(f"htf train-cnn --task {pairs} {options} --epochs 1 -q -o - | htf inspect - | jq -r .kind")
    assert onward.out == "cnn\n"


def test_a_folder_of_images_of_several_classes(htf, tmp_path):
    shades = {"dark": 40, "grey": 120, "light": 220}
    for name, shade in shades.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for k in range(12):
            pixels = np.random.default_rng(k).integers(shade - 30, shade + 30, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{k}.png")
    done = htf("train-cnn", "photos", "--model", "resnet-mini", "--batch-size", 6, "--optimizer", "adam", "--lr", 0.01,
               "--epochs", 12, *REG, "--patch-size", 4, "-o", "r")  # fmt: skip
    assert done.code == 0, done.err
    assert done.records[-1]["test_accuracy"] > 0.8
    summary = json.loads((tmp_path / "r/summary.json").read_text())
    assert summary["classes"] == ["dark", "grey", "light"]
    assert read(tmp_path / "r/model.safetensors").tensors()["fc.weight"].shape[0] == 3


def test_weights_of_another_training(htf, tmp_path):
    """With nothing left to train the run is measured as it was saved; another head is said."""
    before = htf("train-cnn", *QUICK, "-o", "before", "-q")
    assert before.code == 0
    same = htf("train-cnn", *QUICK, "--seed", 9, "--epochs", 0, "--weights", "before", "-o", "same")
    assert same.code == 0, same.err
    assert "receptive field 23, weights of before; is-same-class" in same.err
    assert same_weights(tmp_path / "same", tmp_path / "before")
    for shade, name in ((40, "dark"), (120, "grey"), (220, "light")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for k in range(8):
            Image.new("L", (16, 16), shade + k).save(tmp_path / "photos" / name / f"{k}.png")
    other = htf("train-cnn", "photos", *NET[:6], "--batch-size", 4, "--epochs", 1, "--weights", "before/model.safetensors", "-o", "other")  # fmt: skip
    assert other.code == 0, other.err
    assert "weights of before/model.safetensors but for a new fc; images" in other.err
    (tmp_path / "before/model.safetensors").unlink()
    resumed = htf("train-cnn", "--resume", "-o", "other", "--epochs", 2)
    assert resumed.code == 0, resumed.err
    done = htf("train-cnn", *QUICK, "--weights", "before", "-o", "x")
    assert (done.code, done.error) == (1, "before has no model.safetensors.")
    assert not (tmp_path / "x").exists()


def test_two_patches_of_ones_choice(htf, tmp_path):
    """As those of the data set, where they are the two images."""
    one = htf("train-cnn", *QUICK, *REG, "--epochs", 1, "-o", "one", "-q")
    two = htf(
        "train-cnn", *QUICK, *REG, "--epochs", 1, "--patches", "0,2,8,8", "--patches", "0,14,8,8", "-o", "two", "-q"
    )
    assert two.code == 0, two.err
    assert without_speed(two.records) == without_speed(one.records)
    config = yaml.safe_load((tmp_path / "two/config.yaml").read_text())
    assert config["patches"] == [[0, 2, 8, 8], [0, 14, 8, 8]]
    again = htf("train-cnn", "--config", "two/config.yaml", "-o", "three", "-q")
    assert without_speed(again.records) == without_speed(one.records)


def test_patches_that_differ(htf):
    task = ("--task", "pathfinder", "--path-length", 3, "--size", 64, "--train", 12, "--test", 4, "--model", "resnet-mini",
            "--batch-size", 6, "--epochs", 1, *REG)  # fmt: skip
    plain, other = (htf("train-cnn", *task, *options, "-o", name, "-q") for name, options in (
        ("a", ()), ("b", ("--patch-sampler", "different"))))  # fmt: skip
    assert (other.code, other.err) == (0, "")
    assert other.records[0]["regularizer"] < plain.records[0]["regularizer"]


def test_pathfinder(htf):
    done = htf("train-cnn", "--task", "pathfinder", "--path-length", 3, "--size", 64, "--train", 12, "--test", 4,
               "--model", "resnet-mini", "--batch-size", 6, "--epochs", 1, *REG, "-o", "r", "-q")  # fmt: skip
    assert (done.code, done.err) == (0, "")


def test_a_network_of_ones_own(htf, tmp_path):
    (tmp_path / "own_networks.py").write_text(NETWORKS_MODULE)
    done = htf("train-cnn", *DATA, "--model", "own_networks:mine", "--epochs", 2, *REG, "-o", "r")
    assert done.code == 0, done.err
    assert done.err.startswith("own_networks:mine, 53 parameters; is-same-class")
    done = htf("train-cnn", "--resume", "-o", "r")
    assert (done.code, done.error) == (
        2,
        "the run's network is one that only your own code can build (got no --model, allowed --model own_networks:mine).",
    )
    assert htf("train-cnn", "--resume", "-o", "r", "--model", "own_networks:mine", "--epochs", 3).code == 0


# --- regularizers that can do nothing ---------------------------------------------------------------------------------

FAR = ("train-cnn", "--task", "is-same-class", "--source", "digits", "--height", 8, "--width", 48, "--train", 40,
       "--test", 30, *NET, "--epochs", 1, *REG)  # fmt: skip


def warnings_in(done):
    return [line for line in done.err.splitlines() if line.startswith("Warning: ")]


def test_patches_beyond_the_receptive_field_warn(htf, tmp_path):
    far, near = (htf(*FAR, "--distance", distance, "-o", str(distance)) for distance in (22, 16))
    message = (
        "the regularizer has no effect, as the receptive field is 23 and the patches are 22 pixels apart: no unit sees "
        "both, R stays at 1 whatever the weights are, and its gradient is zero"
    )
    assert warnings_in(far) == [f"Warning: {message}."]
    assert far.records[0]["regularizer"] == pytest.approx(1, abs=1e-6)
    assert json.loads((tmp_path / "22/summary.json").read_text())["warnings"] == [message]
    assert warnings_in(near) == []
    assert near.records[0]["regularizer"] < 1 - 1e-6
    quiet = htf(*FAR, "--distance", 24, "-o", "quiet", "-q")
    assert (quiet.code, quiet.err) == (0, "")


def test_a_network_that_cannot_relate_the_patches_warns(htf, tmp_path):
    (tmp_path / "near_networks.py").write_text(NETWORKS_MODULE)
    done = htf(*FAR[:FAR.index("--model")], "--distance", 24, "--model", "near_networks:mine", "--epochs", 2, *REG, "-o", "r")  # fmt: skip
    sys.modules.pop("near_networks")
    assert warnings_in(done) == [
        "Warning: the regularizer had no effect in epoch 1: R was 1 in every batch, so its gradient is zero. Either the "
        "patches do not differ between images, or the network cannot relate them."
    ]


def test_patches_that_never_differ_and_a_coefficient_of_zero_warn(htf):
    empty = htf("train-cnn", *QUICK, *REG, "--epochs", 1, "--patches", "0,0,8,2", "--patches", "0,22,8,2", "-o", "a")
    assert warnings_in(empty) == [
        "Warning: the regularizer has no effect, as neither of the two patches differs between images: R is 1 whatever the "
        "weights are, and its gradient is zero."
    ]
    zero = htf("train-cnn", *QUICK, "--reg", "non-local", "--reg-coeff", 0, "--epochs", 1, "-o", "b")
    assert warnings_in(zero) == ["Warning: the regularizer has no effect, as its coefficient is 0; raise --reg-coeff."]
    assert warnings_in(htf("train-cnn", *QUICK, *REG, "--epochs", 1, "-o", "c")) == []


# --- interruption -----------------------------------------------------------------------------------------------------


def interrupt_at(monkeypatch, epoch, step):
    """As if Ctrl-C came before this step."""
    before = Training.run
    monkeypatch.setattr(Training, "run", lambda self, stop: before(self, lambda e, s: (e, s) == (epoch, step)))


@pytest.mark.parametrize("options", [(*REG, "--dropout", 0.2), ("--optimizer", "adam")])
def test_resume_is_bit_for_bit(htf, tmp_path, monkeypatch, options):
    whole = htf("train-cnn", *QUICK, *options, "-o", "whole")
    with monkeypatch.context() as context:
        interrupt_at(context, 1, 3)
        done = htf("train-cnn", *QUICK, *options, "-o", "part", "-q")
    assert done.code == 130
    assert done.error == (
        "interrupted in epoch 2 at step 3; the state is saved, continue with: htf train-cnn --resume -o part."
    )
    resumed = htf("train-cnn", "--resume", "-o", "part")
    assert resumed.code == 0, resumed.err
    assert without_speed(records_of(tmp_path / "part")) == without_speed(whole.records)
    assert same_weights(tmp_path / "part", tmp_path / "whole")


def test_more_epochs_after_the_end(htf, tmp_path):
    whole = htf("train-cnn", *QUICK, *REG, "-o", "whole")
    htf("train-cnn", *QUICK, *REG, "--epochs", 2, "-o", "part")
    assert htf("train-cnn", "--resume", "-o", "part", "--epochs", 3).code == 0
    assert without_speed(records_of(tmp_path / "part")) == without_speed(whole.records)
    assert same_weights(tmp_path / "part", tmp_path / "whole")


def test_resume_what_cannot_be(htf, tmp_path):
    htf("train-cnn", *QUICK, "-o", "a")
    done = htf("train-cnn", "--resume", "-o", "b")
    assert (done.code, done.error) == (2, "b has no checkpoint to resume from. Start the run without --resume.")
    done = htf("train-cnn", "--resume", "-o", "a", "--seed", 5)
    assert (done.code, done.error) == (
        2,
        "--seed cannot change when a run is resumed (got 5, allowed 0). Leave it out.",
    )
    htf("generate", "is-same-class", "--source", "digits", "--train", 20, "--test", 20, "-o", "p.safetensors")
    htf("train-cnn", "p.safetensors", *NET, "-o", "c")
    htf(
        "generate",
        "is-same-class",
        "--source",
        "digits",
        "--train",
        20,
        "--test",
        20,
        "--seed",
        1,
        "-o",
        "q.safetensors",
    )
    done = htf("train-cnn", "q.safetensors", "--resume", "-o", "c")
    assert (done.code, done.error) == (2, "the run was started on other data. Resume with the data it was started on.")


def test_sigterm_saves_the_state(shell):
    command = [sys.executable, "-m", "htfcli", "train-cnn", *map(str, QUICK), "--epochs", "100000", "-o", "r", "-q"]
    process = subprocess.Popen(command, cwd=shell.folder, env=shell.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
    records = shell.folder / "r" / "records.jsonl"
    while process.poll() is None and not (records.exists() and records.stat().st_size):  # however slow the machine is
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    error = process.communicate(timeout=300)[1].decode()
    assert process.returncode == 130
    assert "the state is saved, continue with: htf train-cnn --resume -o r" in error
    assert read(shell.folder / "r/checkpoint.safetensors").tensors()["counters"][0] > 0


def test_divergence_keeps_the_last_good_checkpoint(htf, tmp_path, monkeypatch):
    before = Training._learn
    monkeypatch.setattr(Training, "_learn", lambda self, rows: (before(self, rows), self.epoch == 2 and self._sums.fill_(float("inf"))))  # fmt: skip
    done = htf("train-cnn", *QUICK, "--epochs", 4, "-o", "r", "-q")
    assert (done.code, done.error) == (
        1,
        "training diverged in epoch 3 (got task loss inf). Lower --lr (now 0.05); the state is saved, continue with: "
        "htf train-cnn --resume -o r.",
    )
    assert read(tmp_path / "r/checkpoint.safetensors").tensors()["counters"].tolist()[:2] == [2, 0]
    assert not (tmp_path / "r/model.safetensors").exists()


def test_a_learning_rate_that_diverges(htf):
    done = htf("train-cnn", *QUICK, "--lr", 1e30, "-o", "r", "-q")
    assert done.code == 1
    assert done.error.startswith("training diverged in epoch 1 (got task loss ")
    assert done.error.endswith("Lower --lr (now 1e+30).")


def test_a_last_step_that_breaks_the_weights_is_not_saved(htf, tmp_path):
    """One step an epoch: its loss is sound, the weights after it are not."""
    done = htf("train-cnn", *QUICK, "--batch-size", 90, "--lr", 1e20, "--weight-decay", 1e30, "-o", "r", "-q")
    assert done.code == 1
    assert done.error.startswith("training diverged in epoch 1 (got weights that are not finite, task loss ")
    assert not (tmp_path / "r/checkpoint.safetensors").exists()


def test_out_of_memory_says_what_to_lower(htf, monkeypatch):
    def exhausted(self, rows):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(Training, "_learn", exhausted)
    done = htf("train-cnn", *QUICK, "-o", "r", "-q")
    assert (done.code, done.error) == (
        1,
        "out of memory on cpu; lower --batch-size (now 20) or raise --accumulate (now 1).",
    )


@pytest.mark.long
def test_a_compiled_training_is_the_same(shell):
    """By torch's default compiler, which takes a minute or two; the regularizer in its tangent formulation."""
    options = " ".join(map(str, (*QUICK, *REG, "--dtype", "float64", "--epochs", 2)))
    for name, flag in (("eager", ""), ("compiled", "--compile")):
        done = shell(f"htf train-cnn {options} {flag} -o {name} -q", timeout=600)
        assert done.code == 0, done.err
    assert same_weights(shell.folder / "eager", shell.folder / "compiled", 1e-10)


# --- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        pytest.param((*DATA, *REG, "--train", 101), marks=pytest.mark.long),
        pytest.param(
            (*DATA, *REG, "--formulation", "tangent", "--accumulate", 2, "--train", 101), marks=pytest.mark.long
        ),
        # the swapped patch is often the same in all of a shard
        ("--task", "pathfinder", "--path-length", 3, "--size", 64, "--train", 60, "--test", 4, *REG),
    ],
    ids=["double", "tangent", "same patches"],
)
def test_two_processes_do_what_one_does(htf, shell, tmp_path, options):
    """Uneven shards, synchronized batch statistics, patches that come from the next process's first sample."""
    args = [*map(str, (*NET, *options, "--dtype", "float64"))]
    args[args.index("--batch-size") + 1] = "20" if "is-same-class" in options else "6"
    one = htf("train-cnn", *args, "-o", tmp_path / "one")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "htfcli"]
    done = subprocess.run(
        [*command, "train-cnn", *args, "-o", "two"],
        cwd=shell.folder, env=shell.environment, capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(records) == 3  # of process 0
    for mine, wanted in zip(without_speed(records), without_speed(one.records), strict=True):
        assert mine.pop("kind") == wanted.pop("kind")
        assert mine == pytest.approx(wanted, rel=1e-9)
    assert same_weights(shell.folder / "two", tmp_path / "one", 1e-12)
    assert "2 processes" in done.stderr


def test_processes_that_are_stopped_save_one_state(shell):
    """SIGTERM to torchrun reaches all of them at different moments; they agree on a step, and none breaks the others."""
    args = [*map(str, (*QUICK, *REG, "--epochs", 100000))]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "htfcli"]
    process = subprocess.Popen([*command, "train-cnn", *args, "-o", "r"], cwd=shell.folder, env=shell.environment,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
    records = shell.folder / "r" / "records.jsonl"
    for _ in range(600):
        time.sleep(0.1)
        if records.exists() and records.stat().st_size:
            break
    process.send_signal(signal.SIGTERM)
    said = [line for line in process.communicate(timeout=90)[1].decode().splitlines() if line.startswith("Error")]
    assert len(said) == 1, said
    assert said[0].startswith("Error: interrupted in epoch ")
    assert said[0].endswith("; the state is saved, continue with: htf train-cnn --resume -o r.")
    counters = read(shell.folder / "r/checkpoint.safetensors").tensors()["counters"]
    done = shell(f"htf train-cnn --resume -o r --epochs {int(counters[0]) + 1} -q")
    assert done.code == 0, done.err


# --- bad usage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ("", 2, "no images to train on. Shortest useful call: htf train-cnn --task is-same-class (see htf train-cnn --help)."),
        ("nothing.safetensors", 1, "nothing.safetensors does not exist."),
        ("{data} --distance 9", 2, "the distance does not fit two images 8 wide on a canvas 24 wide (got 9, allowed 0 to 8)."),
        ("{data} --reg non-local --patch-size 9", 2, "two patches of 9 x 9 do not fit the images (got images of 8 x 24). Lower --patch-size or --patch-distance."),
        ("{data} --reg non-local --patch-size 30", 2, "two patches of 30 x 30 do not fit the images (got images of 8 x 24). Lower --patch-size or --patch-distance."),
        ("{data} --reg non-local --patch-size 4 --patch-distance 17", 2, "two patches of 4 x 4, 17 pixels apart do not fit the images (got images of 8 x 24). Lower --patch-size or --patch-distance."),
        ("{data} --reg non-local --patch-distance 4", 2, "--patch-distance is for randomly drawn patches, these are the two images (got 4). Give --patch-size too."),
        ("{data} --reg non-local --patch-sampler different", 2, "--patch-sampler is for randomly drawn patches, these are the two images (got different). Give --patch-size too."),
        ("{data} --reg non-local --patches 0,0,8,8", 2, "patches: not two patches (got ['0,0,8,8'], allowed TOP,LEFT,HEIGHT,WIDTH twice, e.g. 0,0,8,8 and 0,24,8,8)."),
        ("{data} --reg non-local --patches 0,0,8,8 --patches 0,9,8,-1", 2, "patches: not two patches (got ['0,0,8,8', '0,9,8,-1'], allowed TOP,LEFT,HEIGHT,WIDTH twice, e.g. 0,0,8,8 and 0,24,8,8)."),
        ("{data} --reg non-local --patches 0,0,8,8 --patches 0,7,8,8", 2, "the two patches overlap (got Patch(top=0, left=0, height=8, width=8) and Patch(top=0, left=7, height=8, width=8))."),
        ("{data} --reg non-local --patches 0,0,8,8 --patches 0,17,8,8", 2, "a patch does not fit the image (got Patch(top=0, left=17, height=8, width=8), allowed inside 8 x 24)."),
        ("{data} --reg non-local --patches 0,0,8,8 --patches 0,9,8,0", 2, "a patch does not fit the image (got Patch(top=0, left=9, height=8, width=0), allowed inside 8 x 24)."),
        ("{data} --reg non-local --patches 0,0,8,8 --patches 0,9,8,8 --patch-size 3", 2, "patch-size: only for randomly drawn patches (got patches)."),
        ("{data} --reg non-local --patch-size 3 --patch-sampler different --accumulate 2", 2, "patch-sampler: different looks at a whole batch (got accumulate 2)."),
        ("{data} --patches 0,0,8,8 --patches 0,9,8,8", 2, "patches: only for reg non-local (got reg none)."),
        ("{data} --batch-size 1", 2, "batch-size: input should be greater than or equal to 2 (got '1')."),
        ("{data} --batch-size 4 --accumulate 3", 2, "accumulate: leaves parts of less than two images (got 3)."),
        ("{data} --reg-coeff 2", 2, "reg-coeff: only for reg non-local (got reg none)."),
        ("{data} --path-length 7", 2, "path-length: only for task pathfinder (got task is-same-class)."),
        ("--task pathfinder --image-size 9", 2, "image-size: only for a folder of images (got task pathfinder)."),
        ("--distance 4", 2, "distance: only for task is-same-class (got task unset)."),
        ("{data} --widths 4,8", 2, "widths: only for model resnet-mini (got model resnet18)."),
        ("{data} --model resnet-mini --widths 4,8", 2, "a residual network needs one width and one number of blocks a stage (got 2 widths, 3 numbers of blocks)."),
        ("{data} --model resnet19", 2, "model: unknown network (got 'resnet19', allowed resnet18, resnet34, resnet50, resnet-mini, module:function). Did you mean resnet18?"),
        ("{data} --model nowhere:net", 2, "cannot import nowhere:net: ModuleNotFoundError: No module named 'nowhere'."),
        ("{data} --model json:net", 2, "cannot import json:net: AttributeError: module 'json' has no attribute 'net'."),
        ("{data} --model json:dumps", 2, "json:dumps does not build a network for these images: TypeError: dumps() takes 1 positional argument but 2 were given."),
        ("{data} --model operator:add", 2, "operator:add does not build a network for these images: TypeError: it returned a int, not a torch.nn.Module."),
        ("{data} --model torch.nn:Linear", 2, "torch.nn:Linear does not build a network for these images: "),
        ("{data} --compile --reg non-local --formulation double-backward", 2, "compile: gradients of gradients cannot be compiled (got formulation double-backward)."),
        ("{data} --compile --reg non-local --dropout 0.1", 2, "compile: a compiled regularizer would draw two different dropout masks (got dropout)."),
        ("{data} --precision tf32", 2, "--precision tf32 is for CUDA (got cpu, allowed float32, bf16, fp16)."),
        ("{data} --precision fp32", 2, "precision: input should be 'float32', 'tf32', 'bf16' or 'fp16' (got 'fp32') (Did you mean tf32?)."),
        ("{data} --precision bf16 --dtype float64", 2, "precision: float64 is not rounded (got bf16, dtype float64)."),
        ("{data} --lr 0 --epochs -1", 2, "2 problems: lr: input should be greater than 0 (got '0'); epochs: input should be greater than or equal to 0 (got '-1')."),
        ("{data} -o /proc/nowhere", 1, "cannot write the run folder /proc/nowhere: No such file or directory."),
    ],
)  # fmt: skip
def test_bad_usage(htf, tmp_path, args, code, message):
    done = htf("train-cnn", *args.replace("{data}", " ".join(map(str, DATA))).split(), "-q")
    assert done.code == code
    assert done.error == message or (message.endswith(": ") and done.error.startswith(message))
    assert done.out == ""
    assert list(tmp_path.iterdir()) == []


def test_data_and_a_task(htf):
    htf("generate", "is-same-class", "--source", "digits", "--train", 20, "--test", 20, "-o", "p.safetensors")
    done = htf("train-cnn", "p.safetensors", *DATA, "-q")
    assert (done.code, done.error) == (
        2,
        "DATA is there and --task asks for other images (got p.safetensors). Leave one out.",
    )
    htf("generate", "tensor", "--dim", 3, "-o", "t.safetensors")
    done = htf("train-cnn", "t.safetensors", "-q")
    assert (done.code, done.error) == (1, "t.safetensors holds something else (got observations, allowed images).")


# --- the result -------------------------------------------------------------------------------------------------------
