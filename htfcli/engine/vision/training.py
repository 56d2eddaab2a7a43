"""Training a classifier of images: the loop, its stop rules, its resumable state.

Everything random in a step (permutation, patches, dropout) follows from the seed and the step's number, so a resumed
run needs no generator's state, and several processes agree without a message.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 -- its name everywhere
from torch import Tensor, nn

from htfcli.config.records import Record
from htfcli.config.vision import TrainCnnConfig
from htfcli.engine.runtime.distributed import Workers
from htfcli.engine.runtime.precision import Precision
from htfcli.engine.vision.datasets.image_set import ImageData, ImageSet
from htfcli.engine.vision.regularized_regions import patches_of
from htfcli.engine.vision.regularizer.non_local import NonLocalRegularizer
from htfcli.engine.vision.shared_batch_norm import with_shared_batch_norms
from htfcli.errors import ConfigError, DataError, RunError

_CHECK_EVERY = 50  # steps between looks at loss and weights, each of which waits for the device
_EVALUATED = 512  # images at a time, without gradients
_SUMS = ("seen", "loss", "correct", "penalized", "penalty")  # what an epoch adds up over samples


def regularizer_of(config: TrainCnnConfig, data: ImageData, scale: float = 1.0) -> NonLocalRegularizer | None:
    """The regularizer a configuration asks for.

    Args:
        scale: see `NonLocalRegularizer`.
    Raises:
        ConfigError: if its patches do not fit the images.
    """
    if config.reg == "none":
        return None
    patches = patches_of(config, data)
    formulation = config.formulation
    if formulation == "auto":
        formulation = "tangent" if config.compile else "double-backward"
    compiler = partial(torch.compile, fullgraph=True) if config.compile else None
    return NonLocalRegularizer(patches, formulation=formulation, compile=compiler, scale=scale)


class Training:
    """One training run.

    Args:
        model: trained in place, and moved to the device. data: what to learn. config: how. device: where.
        workers: the processes that share the work; each calls the same methods at the same time.

    Attributes:
        precision: of its products. epoch: epochs done. step: steps done of the next one.
        stop_reason: why `run` ended: epochs, perfect or interrupted.
        confusion: (classes, classes) test images by true and predicted class, after `run`.
    """

    def __init__(
        self,
        model: nn.Module,
        data: ImageData,
        config: TrainCnnConfig,
        device: torch.device,
        workers: Workers | None = None,
    ) -> None:
        self.data, self.config, self.device, self.workers = data, config, device, workers or Workers()
        if len(data.train) < 2:
            raise DataError("too few images to train on", got=len(data.train), allowed="2 or more")
        self.steps = math.ceil(len(data.train) / config.batch_size)
        least = len(data.train) // self.steps // config.accumulate // self.workers.count
        if least < 1:
            raise ConfigError(
                "a batch has fewer images than there are parts to work through",
                got=f"batch size {config.batch_size}, {config.accumulate} parts, {self.workers.count} processes",
            )
        if config.compile and self.workers.count > 1:
            raise ConfigError("--compile is for one process", got=f"{self.workers.count} processes")
        self.dtype = torch.float64 if config.dtype == "float64" else torch.float32
        self.precision = Precision.choose(config.precision, device, self.dtype)
        self.model = model.to(device, self.dtype)
        if config.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.workers.count > 1:
            self.model = with_shared_batch_norms(self.model)
        self._network: Callable[[Tensor], Tensor] = torch.compile(self.model) if config.compile else self.model
        self.regularizer = regularizer_of(config, data, self.precision.scale)
        self.train, self.test = (settled(images, device) for images in (data.train, data.test))
        self.epoch = self.step = 0
        self.stop_reason = ""
        self.confusion = torch.zeros(len(data.classes), len(data.classes), dtype=torch.int64)
        self._perfect = 0  # epochs in a row with every train image classified correctly
        self._sums = torch.zeros(len(_SUMS), dtype=torch.float64, device=device)
        self._optimizer = self._make_optimizer()

    def _make_optimizer(self) -> torch.optim.Optimizer:
        c = self.config
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        if c.optimizer == "adam":
            return torch.optim.Adam(parameters, c.lr, weight_decay=c.weight_decay)
        return torch.optim.SGD(parameters, c.lr, c.momentum, weight_decay=c.weight_decay)

    def run(self, should_stop: Callable[[int, int], bool] = lambda epoch, step: False) -> Iterator[Record]:
        """Train until a stop rule holds; yields a record after every epoch, when `state` is that after the epoch.

        Args:
            should_stop: called with epoch and step before every step; True interrupts.
        Raises:
            RunError: if the loss or a weight is NaN or infinite.
        """
        c = self.config
        while self.epoch < c.epochs and self._perfect < c.patience:
            with self.precision.set():
                record = self._run_epoch(should_stop)
            if record is None:
                self.stop_reason = "interrupted"
                return
            yield record
        self.stop_reason = "perfect" if self._perfect >= c.patience else "epochs"
        if not self.confusion.any():  # no epoch was needed
            with self.precision.set():
                self._evaluate()

    def _run_epoch(self, should_stop: Callable[[int, int], bool]) -> Record | None:
        """The rest of an epoch; None if it was interrupted."""
        started, first = time.monotonic(), self.step
        batches = self._batches()
        while self.step < self.steps:
            if self.workers.any(should_stop(self.epoch, self.step)):
                self._check()
                return None
            self._learn(batches[self.step])
            self.step += 1
            if self.step % _CHECK_EVERY == 0 or self.step == self.steps:
                self._check()
        seconds = time.monotonic() - started
        return self._close_epoch(sum(len(batch) for batch in batches[first:]) / seconds)

    def _close_epoch(self, speed: float) -> Record:
        sums = dict(zip(_SUMS, self.workers.sum(self._sums).tolist(), strict=True))
        self._sums.zero_()
        train_accuracy = sums["correct"] / sums["seen"]
        self._perfect = self._perfect + 1 if train_accuracy == 1 else 0
        self.epoch, self.step = self.epoch + 1, 0
        test_loss, test_accuracy = self._evaluate()
        return {
            "kind": "epoch",
            "epoch": self.epoch,
            "task_loss": sums["loss"] / sums["seen"],
            "regularizer": sums["penalty"] / sums["penalized"] if sums["penalized"] else None,
            "train_accuracy": train_accuracy,
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
            "images_per_second": round(speed, 1),
        }

    # --- one step -----------------------------------------------------------------------------------------------------

    def _batches(self) -> tuple[Tensor, ...]:
        """This epoch's batches of rows, where the images are: a permutation cut as evenly as can be, so that no small
        batch is left over; into equal parts of it where the compiler would make a program for every size."""
        generator = torch.Generator().manual_seed(_seed(self.config.seed, self.epoch, "permutation"))
        rows = torch.randperm(len(self.train), generator=generator).to(self.train.labels.device)
        if self.config.compile:
            parts = self.steps * self.config.accumulate
            rows = rows[: len(rows) // parts * parts]
        return rows.tensor_split(self.steps)

    def _learn(self, rows: Tensor) -> None:
        """One optimizer step on a batch, of which this process works through its shard of each part."""
        c, workers = self.config, self.workers
        number = self.epoch * self.steps + self.step
        torch.manual_seed(_seed(c.seed, number, f"dropout of process {workers.rank}"))
        regularizer = self.regularizer if number % c.reg_every == 0 and c.reg_coeff > 0 else None
        self.model.train()
        self._optimizer.zero_grad()
        # The patch that replaces x_J comes from the next sample of the whole batch, whatever parts it is cut into; a
        # whole batch is rolled by the regularizer itself
        undivided = c.accumulate == 1 and workers.count == 1
        for part, following in zip(*(r.tensor_split(c.accumulate) for r in (rows, rows.roll(-1))), strict=True):
            mine = workers.shard(part)
            x, y = self._images(self.train, mine), self._labels(self.train, mine)
            with self.precision.autocast():
                if regularizer is None:
                    outputs, penalty = self._network(x), None
                else:
                    regularizer.generator.manual_seed(_seed(c.seed, number, "patches"))  # the same for every part
                    partners = None if undivided else self._images(self.train, workers.shard(following))
                    outputs, penalty = regularizer.with_outputs(self.model, x, y, partners, whole=len(rows))
            outputs = outputs.to(self.dtype)
            loss = task_loss(outputs, y) / len(rows)
            total = loss if penalty is None else loss + c.reg_coeff * c.reg_every * penalty
            (total * self.precision.scale).backward()  # type: ignore[no-untyped-call]
            self._add_up(len(mine), loss.detach() * len(rows), predicted(outputs) == y, penalty, len(rows))
        workers.sum_gradients(self.model.parameters())
        if self.precision.scale != 1:
            torch._foreach_div_([p.grad for p in self.model.parameters() if p.grad is not None], self.precision.scale)
        self._optimizer.step()

    @torch.no_grad()
    def _add_up(self, seen: int, loss: Tensor, correct: Tensor, penalty: Tensor | None, whole: int) -> None:
        none = torch.zeros((), device=self.device)
        values = [
            none + seen,
            loss,
            correct.sum(),
            none + (0 if penalty is None else seen),
            none if penalty is None else penalty * whole,
        ]
        self._sums += torch.stack([value.to(torch.float64) for value in values])

    def _images(self, images: ImageSet, rows: Tensor) -> Tensor:
        x = self._moved(images.images(rows)).to(self.dtype)
        return x.contiguous(memory_format=torch.channels_last) if self.config.channels_last else x

    def _labels(self, images: ImageSet, rows: Tensor) -> Tensor:
        return self._moved(images.labels[rows])

    def _moved(self, tensor: Tensor) -> Tensor:
        """A tensor (b, ...) on the device; from pinned memory, for which the host does not wait."""
        if tensor.device.type == self.device.type:
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def _check(self) -> None:
        """Raise RunError if the epoch's loss so far or a weight is NaN or infinite."""
        loss = float(self._sums[_SUMS.index("loss")])
        finite = torch.stack([p.isfinite().all() for p in self.model.parameters()])
        sound = math.isfinite(loss) and bool(finite.all())
        if self.workers.any(not sound):  # every process has to know, or the others would wait for it
            raise RunError(
                f"training diverged in epoch {self.epoch + 1}",
                got=f"weights that are not finite, task loss {loss:.3g}"
                if math.isfinite(loss)
                else f"task loss {loss}",
                next_step=f"Lower --lr (now {self.config.lr:g}).",
            )

    @torch.no_grad()
    def _evaluate(self) -> tuple[float, float]:
        """Mean loss and accuracy on the test images; fills `confusion`."""
        self.model.train(False)
        classes = len(self.data.classes)
        counts = torch.zeros(classes * classes, dtype=torch.int64, device=self.device)
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        mine = self.workers.shard(torch.arange(len(self.test), device=self.test.labels.device))
        for start in range(0, len(mine), _EVALUATED):
            rows = mine[start : start + _EVALUATED]
            y = self._labels(self.test, rows)
            network = self._network if len(rows) == _EVALUATED else self.model  # compiled for one size
            with self.precision.autocast():
                outputs = network(self._images(self.test, rows))
            loss += task_loss(outputs.to(self.dtype), y)
            counts.index_add_(0, y * classes + predicted(outputs), torch.ones_like(y))  # bincount waits for the device
        self.confusion = self.workers.sum(counts).view(classes, classes).cpu()
        return float(self.workers.sum(loss)) / len(self.test), float(self.confusion.trace()) / len(self.test)

    # --- resumable state ----------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Copies of all that changes: weights, batch statistics, optimizer, counters, sums of the running epoch.

        Every process must call it at the same time.
        """
        state = {f"model.{name}": tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        for number, values in self._optimizer.state_dict()["state"].items():
            for name, value in values.items():
                if value is not None:
                    state[f"optimizer.{number}.{name}"] = torch.as_tensor(value).detach().clone()
        state["counters"] = torch.tensor([self.epoch, self.step, self._perfect], dtype=torch.int64)
        state["sums"] = self.workers.sum(self._sums.clone())
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from `state()` of a run with the same network, data and configuration.

        Raises:
            DataError: if the state belongs to another network.
        """
        weights = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
        try:
            self.model.load_state_dict(weights)
            self.epoch, self.step, self._perfect = (int(c) for c in state["counters"])
            self._sums.copy_(state["sums"] if self.workers.first else torch.zeros_like(state["sums"]))
            moments: dict[int, dict[str, Tensor]] = {}
            for key, value in state.items():
                if key.startswith("optimizer."):
                    _, number, name = key.split(".")
                    moments.setdefault(int(number), {})[name] = value
            fresh = self._optimizer.state_dict()
            self._optimizer.load_state_dict({"state": moments, "param_groups": fresh["param_groups"]})
        except (RuntimeError, KeyError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"the checkpoint does not fit the network: {reason}") from None


# --- outputs ----------------------------------------------------------------------------------------------------------


def task_loss(outputs: Tensor, y: Tensor) -> Tensor:
    """Sum over the batch of the cross entropy; (b, 1) outputs are logits of label 1."""
    if outputs.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(outputs.squeeze(1), y.to(outputs), reduction="sum")
    return F.cross_entropy(outputs, y, reduction="sum")


def predicted(outputs: Tensor) -> Tensor:
    """(b,) classes of (b, classes) or (b, 1) logits."""
    return (outputs.squeeze(1) > 0).long() if outputs.shape[1] == 1 else outputs.argmax(1)


def settled(images: ImageSet, device: torch.device) -> ImageSet:
    """The images kept on the device, unless they would take more than half of what is free there."""
    if device.type != "cuda":
        return images
    free, _ = torch.cuda.mem_get_info(device)
    try:
        moved = images.to(device)
    except torch.OutOfMemoryError:
        return images
    return moved if torch.cuda.mem_get_info(device)[0] > free / 2 else images


def _seed(seed: int, number: int, purpose: str) -> int:
    """A seed of its own for every purpose and step."""
    digest = hashlib.sha256(f"{seed} {number} {purpose}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1
