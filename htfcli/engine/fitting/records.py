"""Records of a fit: losses and errors, and per node its local components and the spectrum of its matricization."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from htfcli.config.records import Record
from htfcli.config.tensors import FitConfig
from htfcli.engine.factorizations.evaluation import Evaluation
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.fitting.losses import Loss
from htfcli.engine.observations.observations import Observations
from htfcli.engine.ranks.distance import log_distance
from htfcli.engine.ranks.hierarchical_rank import FactoredSpectra, spectra_at
from htfcli.engine.ranks.local_components import Components, local_components
from htfcli.engine.ranks.matricization import Spectrum, checked_modes, times_exp
from htfcli.engine.runtime.distributed import Workers
from htfcli.engine.samples import Sample

_DENSE_TARGET = 2**22  # entries up to which the reconstruction error is computed from the dense tensors (32 MiB)


def derivative_error(record: Record) -> float | None:
    """Distance of the measured derivatives of component norms from the predicted ones, relative to the latter.

    None where a record has no derivatives, or one that is not finite (None in records read from a file).
    """
    pairs = [
        (measured, predicted)
        for place in record.get("nodes", [])
        for measured, predicted in zip(
            place.get("measured_derivative", []), place.get("predicted_derivative", []), strict=False
        )
    ]
    if any(None in pair for pair in pairs):
        return None
    size = math.hypot(*(predicted for _, predicted in pairs))
    return math.hypot(*(m - p for m, p in pairs)) / size if size else None


class SampleLoss:
    """Loss and relative error of a factorization at a sample, as its weights change in place.

    Args:
        model: the factorization. sample: what it is compared with, or this process's part of it. loss: the loss.
        gradient: (p,) where to write the gradient of the loss with respect to the parameters, or None.
        workers: the processes that hold the other parts. total: observations in the whole sample, over which loss and
            error are taken.
    """

    def __init__(
        self,
        model: Factorization,
        sample: Sample,
        loss: Loss,
        gradient: Tensor | None = None,
        workers: Workers | None = None,
        total: int | None = None,
    ) -> None:
        self._workers = workers or Workers()
        self._share = len(sample) / (total or len(sample))
        views = None if gradient is None else model.views(gradient)
        self._evaluation = model.evaluation(sample, views)
        values = sample.value.to(model.parameters)
        order = self._evaluation.order
        self._value = values if order is None else values.index_select(0, order)
        self._norm: Tensor | None = None  # computed when needed, as all processes take part
        self._loss = loss
        self._residual = torch.empty_like(self._value)
        self._upstream = torch.empty_like(self._value)
        self._mean = values.new_empty(())

    def forward(self) -> None:
        """Compute the residuals at the current weights."""
        torch.sub(self._evaluation.forward(), self._value, out=self._residual)

    def forward_backward(self) -> None:
        """Compute residuals and this part's gradient; does not wait for the device or for other processes."""
        self.forward()
        self._loss.gradient(self._residual, out=self._upstream)
        if self._share != 1:
            self._upstream.mul_(self._share)
        self._evaluation.backward(self._upstream)

    def loss(self) -> float:
        """Mean loss at the last forward pass."""
        return float(self._workers.sum(self._loss.mean(self._residual) * self._share))

    def error(self) -> float:
        """Norm of the residual over the norm of the observed values; NaN if those are all zero."""
        if self._norm is None:
            self._norm = self._over_parts(torch.linalg.vector_norm(self._value))
        return float(self._over_parts(torch.linalg.vector_norm(self._residual)) / self._norm)

    def _over_parts(self, norm: Tensor) -> Tensor:
        """The norm of a vector from the norms of its parts in the processes."""
        return norm if self._workers.count == 1 else self._workers.sum(norm.square()).sqrt()


@dataclass
class _Tracked:
    """Components of a node in the latest record, which are measured again after the step."""

    node: int
    entry: Record
    components: Tensor
    norms: Tensor


class Recorder:
    """Measures a run at a point in time.

    Args:
        model: what is fitted. observations: its data, with the target if it is known. config: what to record.
        loss: the loss. gradient: (p,) buffer that holds the gradient of the loss when `measure` is called.
        workers: the processes that have the other shards, where `observations` is a shard.
    """

    def __init__(
        self,
        model: Factorization,
        observations: Observations,
        config: FitConfig,
        loss: Loss,
        gradient: Tensor,
        workers: Workers | None = None,
    ) -> None:
        self._model, self._config, self._gradient = model, config, gradient
        self._extra = [checked_modes(modes, model.order) for modes in config.matricization]
        self._target_log_norm = -math.inf
        test, count = observations.test, observations.counts[1]
        shared = workers if test is not None and len(test) != count else None
        self._test = None if test is None else SampleLoss(model, test, loss, workers=shared, total=count)
        self._target = observations.target
        self._whole: Evaluation | None = None
        self._target_dense: Tensor | None = None
        if self._target is not None and self._target.entries <= _DENSE_TARGET:
            self._target_dense = self._target.dense().to(model.parameters)
            self._target_norm = torch.linalg.vector_norm(self._target_dense)
            self._whole = model.evaluation()
        elif self._target is not None:
            self._target_log_norm = FactoredSpectra(self._target).log_norm
        self._tracked: list[_Tracked] = []

    @torch.no_grad()
    def measure(self, iteration: int, train: SampleLoss) -> Record:
        """The record of an iteration without `measured_derivative`, which `measure_step` adds."""
        record: Record = {
            "kind": "iteration",
            "iteration": iteration,
            "train_loss": train.loss(),
            "train_error": train.error(),
        }
        if self._test is not None:
            self._test.forward()
            record |= {"test_loss": self._test.loss(), "test_error": self._test.error()}
        if self._target is not None:
            record["reconstruction_error"] = self._reconstruction_error()
        components = local_components(self._model)
        record["unbalancedness"] = components.unbalancedness
        record["nodes"] = self._nodes(components)
        if self._extra:
            record["matricizations"] = [
                {"node": s.label, "modes": list(s.modes), **self._spectrum(s)}
                for s in spectra_at(self._model, self._extra)
            ]
        return record

    @torch.no_grad()
    def measure_step(self, flow_time: float) -> None:
        """Add the measured derivatives: the change of each tracked norm in the step just taken, over its flow time."""
        moved = local_components(self._model)
        for tracked in self._tracked:
            after = moved.norms(tracked.node, tracked.components)
            tracked.entry["measured_derivative"] = ((after - tracked.norms) / flow_time).tolist()

    def _reconstruction_error(self) -> float | None:
        if self._whole is not None and self._target_dense is not None:
            difference = self._whole.forward() - self._target_dense
            return float(torch.linalg.vector_norm(difference) / self._target_norm)
        assert self._target is not None
        distance = log_distance(self._model, self._target)
        return None if distance is None else times_exp(1.0, distance - self._target_log_norm)

    def _nodes(self, components: Components) -> list[Record]:
        tree = self._model.tree
        spectra = {s.modes: s for s in reversed(components.spectra())}
        self._tracked = []
        entries = []
        for node in range(len(tree.children)):
            modes = tree.modes[node]
            spectrum = spectra.pop(modes, None)  # listed once: a single-child node has its child's matricization
            weight = self._model.node_weights[node] if self._config.weight_norms else None
            if spectrum is None and node not in components.nodes and weight is None:
                continue
            entry: Record = {"node": tree.labels[node], "modes": list(modes)}
            if spectrum is not None:
                entry |= self._spectrum(spectrum)
            if node in components.nodes:
                self._track(components, node, entry)
            if weight is not None:
                norms = torch.linalg.vector_norm(weight, dim=0).sort(descending=True).values
                entry["weight_norms"] = norms[: self._config.top].tolist()
            entries.append(entry)
        return entries

    def _spectrum(self, spectrum: Spectrum) -> Record:
        effective = spectrum.effective_rank
        return {
            "singular_values": spectrum.scaled(self._config.top),
            "effective_rank": None if math.isnan(effective) else effective,
        }

    def _track(self, components: Components, node: int, entry: Record) -> None:
        norms = components.norms(node)
        top = torch.topk(norms, min(self._config.top, len(norms)))
        predicted = components.predicted_derivatives(node, self._gradient)
        entry |= {
            "components": top.indices.tolist(),
            "component_norms": top.values.tolist(),
            "predicted_derivative": predicted[top.indices].tolist(),
        }
        self._tracked.append(_Tracked(node, entry, top.indices, components.norms(node, top.indices)))
