"""A network training from images to run folder: trained, recorded, saved; resumable after an interruption."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from htfcli.config.records import Record
from htfcli.config.units import duration
from htfcli.config.vision import NETWORKS, TrainCnnConfig
from htfcli.engine.runtime.device import choose_device, describe_device
from htfcli.engine.runtime.distributed import Workers
from htfcli.engine.runtime.memory import is_out_of_memory, requested_bytes
from htfcli.engine.vision.regularized_regions import without_effect, without_effect_in
from htfcli.engine.vision.resnet import ResNet
from htfcli.engine.vision.training import Training
from htfcli.errors import ConfigError, RunError
from htfcli.experiments.runs.image_input import fingerprint, image_data
from htfcli.experiments.runs.resuming import absolute
from htfcli.experiments.runs.training_run import Resumable, TrainingRun
from htfcli.files.networks import build_network, outputs_of, save_network
from htfcli.files.weights import read_weights, start_from


class CnnRun(TrainingRun[TrainCnnConfig]):
    """One network training, checked and ready to start; see `TrainingRun`.

    Args:
        data: image file, folder or `-`; None to generate the images that the settings describe.
        on_progress: called with the number of images generated so far.

    Attributes:
        training: the training itself. warnings: what a user should know, one sentence each; grows in the first epoch.
    """

    command, counter = "train-cnn", "epoch"
    may_change: ClassVar[set[str]] = {
        "epochs",
        "patience",
        "lr",
        "accumulate",
        "threads",
        "device",
        "compile",
        "formulation",
    }

    def __init__(
        self,
        config: TrainCnnConfig,
        data: str | None,
        output: str,
        *,
        resume: bool = False,
        force: bool = False,
        workers: Workers | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        self._on_progress = on_progress
        self.warnings: list[str] = []
        self._start = ""  # where the weights are from
        super().__init__(config, data, output, resume=resume, force=force, workers=workers)

    def _load(self, config: TrainCnnConfig) -> str:
        if self.settings.model not in NETWORKS and "model" not in config.model_fields_set:
            raise ConfigError(
                "the run's network is one that only your own code can build",
                got="no --model",
                allowed=f"--model {self.settings.model}",
            )
        self.device = choose_device(self.settings.device, self.settings.threads, self.workers.count)
        self._images = image_data(self.settings, self._input, self._on_progress)
        if self.settings.patch_sampler == "different" and self.workers.count > 1:
            raise ConfigError(
                "--patch-sampler different looks at a whole batch, which several processes share",
                got=f"{self.workers.count} processes",
            )
        return fingerprint(self._images)

    def _build(self, state: dict[str, Tensor] | None) -> None:
        model = build_network(self.settings, self._images.train.shape, outputs_of(self._images))
        if self.settings.weights is not None and state is None:
            new = start_from(model, read_weights(self.settings.weights), self.settings.weights)
            self._start = f", weights of {self.settings.weights}{f' but for a new {_names(new)}' if new else ''}"
        self.training = Training(model, self._images, self.settings, self.device, self.workers)
        if state is not None:
            self.training.load_state(state)
        if (reg := self.training.regularizer) is not None:
            remark = without_effect(reg.patches, self.settings.reg_coeff, self.training.model, self._images)
            self.warnings += [remark] if remark else []

    def describe(self) -> str:
        """One line on what is about to be trained."""
        s, data, model = self.settings, self.training.data, self.training.model
        parameters = sum(p.numel() for p in model.parameters())
        field = f", receptive field {model.shape.receptive_field}" if isinstance(model, ResNet) else ""
        reg = f"regularizer {s.reg} x {s.reg_coeff:g}" if s.reg != "none" else "no regularizer"
        count = f", {self.workers.count} processes" if self.workers.count > 1 else ""
        return (
            f"{s.model}, {parameters:,} parameters{field}{self._start}; {data.task}, {len(data.train):,} train and "
            f"{len(data.test):,} test images of {' x '.join(map(str, data.train.shape))}; {reg}; "
            f"{self.training.precision.name} on {describe_device(self.device)}{count}"
        )

    def ending(self) -> str:
        """One line on how the training ended."""
        why = {"epochs": "all epochs done", "perfect": f"train accuracy 1 for {self.settings.patience} epochs"}
        return (
            f"{why[self.training.stop_reason]} at epoch {self.training.epoch} "
            f"after {duration(self.summary['seconds'])}, test accuracy {self.summary['test_accuracy']:.4f}"
        )

    def run(self, on_record: Callable[[Record], None], should_stop: Callable[[int, int], bool]) -> None:
        """Train to the end and save everything.

        Args:
            on_record: called with each record, in process 0. should_stop: called with epoch and step before each step;
                True interrupts the run.
        Raises:
            RunError: if the run diverged or memory ran out; the last good state has been saved.
            Interrupted: if `should_stop` returned True; the state has been saved.
        """
        try:
            for _ in self._run(self.training.run(should_stop), on_record):
                raise AssertionError("a network training yields records only")
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            asked, s = requested_bytes(error), self.settings
            advice = f"lower --batch-size (now {s.batch_size}) or raise --accumulate (now {s.accumulate})"
            what = f"out of memory on {self.device}{f', {asked} more asked for' if asked else ''}"
            raise RunError(f"{what}; {advice}{self._saved()}") from None

    def save(self, destination: str | Path) -> None:
        settings, source = self.settings.model_dump(mode="json"), absolute(self._input)
        save_network(destination, self.training.model, self.training.data, source, settings)

    @property
    def _training(self) -> Resumable:
        return self.training

    @property
    def _count(self) -> int:
        return self.training.epoch + 1

    @property
    def _checkpoint_every(self) -> float:
        return 0.0

    def _place(self) -> str:
        return f"in epoch {self.training.epoch + 1} at step {self.training.step}"

    def _resume_options(self) -> str:
        return "" if self.settings.model in NETWORKS else f" --model {self.settings.model}"

    def _observe(self, record: Record) -> None:
        if record and not self.warnings and (remark := without_effect_in(record["epoch"], record["regularizer"])):
            self.warnings.append(remark)

    def _facts(self) -> dict[str, Any]:
        return {**super()._facts(), "precision": self.training.precision.name}

    def _conclude(self, record: Record, seconds: float) -> Record:
        training, confusion = self.training, self.training.confusion
        return {
            "kind": "cnn",
            "stop_reason": training.stop_reason,
            **{key: value for key, value in record.items() if key != "kind"},
            "test_accuracy": float(confusion.trace()) / max(1, int(confusion.sum())),
            "classes": list(training.data.classes),
            "confusion": confusion.tolist(),
            "parameters": sum(p.numel() for p in training.model.parameters()),
            "warnings": self.warnings,
        }


def _names(parameters: Sequence[str]) -> str:
    """The module that parameters belong to."""
    return ", ".join(dict.fromkeys(name.rpartition(".")[0] or name for name in parameters))
