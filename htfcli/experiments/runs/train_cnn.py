"""A training of a network from images to run folder: train, record, checkpoint, save; interruptible, resumable."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from htfcli.config.vision import NETWORKS, TrainCnnConfig
from htfcli.engine.runtime.memory import is_out_of_memory, requested_bytes
from htfcli.engine.runtime.device import choose_device, describe_device
from htfcli.engine.runtime.distributed import Workers
from htfcli.engine.vision.training import Record, Training
from htfcli.engine.vision.resnet import ResNet
from htfcli.errors import ConfigError, Interrupted, RunError
from htfcli.experiments.runs.image_input import fingerprint, image_data
from htfcli.experiments.runs.resuming import absolute, merged, open_folder
from htfcli.files.own.container import Artefact
from htfcli.files.networks import build_network, outputs_of, save_network
from htfcli.files.own.run_folder import CHECKPOINT, versions
from htfcli.config.units import duration

MAY_CHANGE = {"epochs", "patience", "lr", "accumulate", "threads", "device", "compile", "formulation"}


class CnnRun:
    """One training, ready to go.

    Args:
        config: settings. On resuming, those of the checkpoint hold and only `MAY_CHANGE` may be given differently.
        data: image file, folder or `-`; None to generate what the configuration says.
        output: run folder, or `-` to keep nothing but the result. resume, force: see `RunFolder`.
        workers: the processes that share the work; only the first one writes.
        on_progress: called with the number of images generated so far.

    Attributes:
        settings: what is in force. training: the training itself. summary: final numbers, once `run` has ended.
    """

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
        self.workers = workers or Workers()
        self.summary: dict[str, Any] = {}
        self.folder = open_folder(
            output,
            data,
            self.workers,
            lambda saved: self._prepare(config, data, saved, on_progress),
            resume=resume,
            force=force,
        )

    def _prepare(
        self,
        config: TrainCnnConfig,
        data: str | None,
        saved: Artefact | None,
        on_progress: Callable[[int], None] | None,
    ) -> None:
        """Everything that can be wrong with settings and images shows here, before a folder is made."""
        self.settings = config if saved is None else merged(config, saved.config, MAY_CHANGE)
        if saved is not None and self.settings.model not in NETWORKS and "model" not in config.model_fields_set:
            raise ConfigError(
                "the run's network is one of yours, which only your code can build",
                got="no --model",
                allowed=f"--model {self.settings.model}",
            )
        self._source = data if saved is None or data is not None else saved.content.get("input")
        self.device = choose_device(self.settings.device, self.settings.threads)
        images = image_data(self.settings, self._source, on_progress)
        self._digest = fingerprint(images)
        if saved is not None and saved.content.get("data") != self._digest:
            raise ConfigError("the run was trained on other images", next_step="Resume with those of the first run.")
        model = build_network(self.settings, images.train.shape, outputs_of(images))
        self.training = Training(model, images, self.settings, self.device, self.workers)
        if saved is not None:
            self.training.load_state(saved.tensors())

    def describe(self) -> str:
        """What is about to happen, in a line."""
        s, data, model = self.settings, self.training.data, self.training.model
        parameters = sum(p.numel() for p in model.parameters())
        field = f", receptive field {model.shape.receptive_field}" if isinstance(model, ResNet) else ""
        reg = f"regularizer {s.reg} x {s.reg_coeff:g}" if s.reg != "none" else "no regularizer"
        count = f", {self.workers.count} processes" if self.workers.count > 1 else ""
        return (
            f"{s.model}, {parameters:,} parameters{field}; {data.task}, {len(data.train):,} train and "
            f"{len(data.test):,} test images of {' x '.join(map(str, data.train.shape))}; {reg}; "
            f"{describe_device(self.device)}{count}"
        )

    def ending(self) -> str:
        """How it ended, in a line."""
        why = {"epochs": "all epochs done", "perfect": f"train accuracy 1 for {self.settings.patience} epochs"}
        return (
            f"{why[self.training.stop_reason]} at epoch {self.training.epoch} "
            f"after {duration(self.summary['seconds'])}, test accuracy {self.summary['test_accuracy']:.4f}"
        )

    def run(self, on_record: Callable[[Record], None], should_stop: Callable[[int, int], bool]) -> None:
        """Train to the end and save everything.

        Args:
            on_record: called with each record, in the first process. should_stop: called before each step.
        Raises:
            RunError: if the run diverged or memory ran out; the last good state has been saved.
            Interrupted: if `should_stop` said so; the state has been saved.
        """
        started = time.monotonic()
        if self.folder is None:
            self._train(on_record, should_stop, started, {})
            return
        with self.folder:
            facts = {"data": self._source, "device": describe_device(self.device), "processes": self.workers.count}
            self.folder.write_config(self.settings.model_dump(mode="json"), facts | versions())
            last = self.folder.start_records(before=self.training.epoch + 1, counter="epoch")
            self._train(on_record, should_stop, started, last)
            self.save(self.folder.path / "model.safetensors")
            self.folder.write_summary(self.summary)

    def save(self, destination: str | Path) -> None:
        """Write the network to a file, or to stdout if `destination` is `-`."""
        settings, source = self.settings.model_dump(mode="json"), absolute(self._source)
        save_network(destination, self.training.model, self.training.data, source, settings)

    def _train(
        self,
        on_record: Callable[[Record], None],
        should_stop: Callable[[int, int], bool],
        started: float,
        record: Record,
    ) -> None:
        """Train; `record` is the last one of what is resumed."""
        training, saved = self.training, False
        try:
            for record in training.run(should_stop):
                if self.folder is not None:
                    self.folder.append(record)
                self._checkpoint()
                saved = True
                if self.workers.first:
                    on_record(record)
        except RunError as error:
            raise RunError(str(error).rstrip(".") + self._kept()) from None
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            asked = requested_bytes(error)
            what = f"out of memory on {self.device}{f', {asked} more asked for' if asked else ''}"
            raise RunError(f"{what}; {self._advice()}{self._kept()}") from None
        if training.stop_reason == "interrupted" or not saved:  # every epoch has been saved
            self._checkpoint()
        if training.stop_reason == "interrupted":
            raise Interrupted(f"interrupted in epoch {training.epoch + 1} at step {training.step}{self._kept()}")
        self.summary = self._summarize(record, time.monotonic() - started)

    def _advice(self) -> str:
        s = self.settings
        return f"lower --batch-size (now {s.batch_size}) or raise --accumulate (now {s.accumulate})"

    def _kept(self) -> str:
        """The end of a sentence that says where the last good state is."""
        if self.folder is None or not (self.folder.path / CHECKPOINT).exists():
            return ""
        model = "" if self.settings.model in NETWORKS else f" --model {self.settings.model}"
        return f"; the state is saved, continue with: htf train-cnn --resume -o {self.folder.path}{model}"

    def _checkpoint(self) -> None:
        state = self.training.state()  # all processes take part in this
        if self.folder is not None:
            content = {"data": self._digest, "input": absolute(self._source)}
            self.folder.save_checkpoint(state, self.settings.model_dump(mode="json"), content)

    def _summarize(self, record: Record, seconds: float) -> dict[str, Any]:
        training, confusion = self.training, self.training.confusion
        return {
            "kind": "cnn",
            "stop_reason": training.stop_reason,
            **{key: value for key, value in record.items() if key != "kind"},
            "test_accuracy": float(confusion.trace()) / max(1, int(confusion.sum())),
            "classes": list(training.data.classes),
            "confusion": confusion.tolist(),
            "parameters": sum(p.numel() for p in training.model.parameters()),
            "seconds": round(seconds, 3),
            "device": describe_device(self.device),
            "processes": self.workers.count,
            "versions": versions(),
        }
