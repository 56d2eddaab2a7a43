"""How much a network's output models dependence between regions of its input, and how that falls with their distance.

Three measures of a function f of patches x_I, x_J (the rest of the image held fixed):

- dependence = 1 - mean |cosine(grad_I f, grad_I f with x_J swapped)|: 0 for f = a(x_I) + b(x_J) and for products;
- the cross table T[a, b] = f(x_I of sample a, x_J of sample b): its rank is at most the separation rank of f with
  respect to I and J; a sum a(x_I) + b(x_J) has additive residual 0, a product a(x_I) b(x_J) rank-one residual 0;
- the profile of input gradients around the centre of the last feature map: the effective receptive field. Of networks
  without such a map, as vision transformers, the profile of the output's gradients around their centre of weight.

Axes: `b` samples, `c` channels, `h` rows, `w` columns. Networks are measured in evaluation mode.

Source of the profile: Luo, Li, Urtasun, Zemel, Understanding the effective receptive field (NeurIPS 2016).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from htfcli.config.records import Record
from htfcli.engine.factorizations.factorization import Factorization
from htfcli.engine.ranks.hierarchical_rank import spectra_of
from htfcli.engine.ranks.matricization import effective_rank
from htfcli.engine.vision.datasets.image_set import ImageSet, Region
from htfcli.engine.vision.datasets.is_same_class import PairCanvases
from htfcli.engine.vision.regularizer.logits import true_logit
from htfcli.engine.vision.regularizer.non_local import absolute_cosine, patch_gradient, swap
from htfcli.engine.vision.regularizer.patches import PatchPair, RandomPatches

SHARE = 0.9  # of the gradient, within the effective receptive field
_DISTANCES = 9
_SHOWN = 8  # singular values of a cross table in a record
_TRIES = 20  # draws of a pair of patches, for each one wanted, until J differs between samples


class LocalityMeter:
    """Measures one network on images.

    Args:
        model: (b, c, h, w) -> (b, classes), (b, 1) or (b,). images: what it is measured on.
        pairs: pairs of patches a distance. samples: images a pair. table: rows and columns of a cross table, at most as
            many as samples.
        seed: of patches and samples: the same for every network measured.
    """

    def __init__(
        self, model: nn.Module, images: ImageSet, *, pairs: int = 16, samples: int = 32, table: int = 8, seed: int = 0
    ) -> None:
        self.model, self.images = model.train(False), images
        self.pairs, self.samples = pairs, min(samples, len(images))
        self.table = min(table, self.samples)
        self.seed = seed
        parameter = next(model.parameters(), torch.zeros(()))
        self.device, self.dtype = parameter.device, parameter.dtype

    def at_distance(self, size: int, distance: int) -> Record | None:
        """Mean measures over random pairs of patches so far apart; None where no J differs between samples.

        Raises:
            ConfigError: if no such pair fits the images.
        """
        generator = torch.Generator().manual_seed(self.seed)
        draw = RandomPatches(size, distance)
        found = []
        for _ in range(_TRIES * self.pairs):
            pair = draw(*self.images.shape[1:], generator)
            found += self._pair(self.images, pair, generator)
            if len(found) == self.pairs:
                break
        return _mean_record("patches", distance, size, found)

    def at_images(self, pairs: PairCanvases) -> Record | None:
        """Mean measures at the two images of pairs, either of them being I."""
        generator = torch.Generator().manual_seed(self.seed)
        first, second = pairs.patches
        turns = [(first, second), (second, first)] * -(-self.pairs // 2)
        found = [measures for turn in turns for measures in self._pair(pairs, turn, generator)]
        return _mean_record("images", pairs.distance, max(first.height, first.width), found)

    def receptive_field(self) -> Record | None:
        """The gradient profile on some of the images; None if the network does not depend on them."""
        x, y = self._draw(self.images, torch.Generator().manual_seed(self.seed))
        unit, profile = gradient_profile(self.model, x, y)
        if profile is None:
            return None
        within = profile.cumsum(0)
        radius = int((within < SHARE).sum())
        return {
            "kind": "locality",
            "measure": "receptive-field",
            "distance": radius,
            "unit": unit,
            "effective_receptive_field": 2 * radius + 1,
            "profile": profile.tolist(),
        }

    def _pair(self, images: ImageSet, pair: PatchPair, generator: torch.Generator) -> list[Record]:
        """Measures at one pair of patches, or nothing where J is the same in all samples."""
        region, other = pair
        x, y = self._draw(images, generator)
        swapped = swap(x, x.roll(-1, 0), other)
        differs = (x != swapped).flatten(1).any(1)
        if not differs.any():
            return []
        _, g = patch_gradient(self.model, x, y, region)
        _, g_swapped = patch_gradient(self.model, swapped, y, region)
        felt = differs & (g != 0).flatten(1).any(1) & (g_swapped != 0).flatten(1).any(1)
        cosine = float(absolute_cosine(g, g_swapped)[felt].mean()) if felt.any() else None
        base, rows, columns = x[:1], x[: self.table], x[: self.table].roll(-1, 0)
        return [{"cosine": cosine, **of_table(cross_table(self.model, base, y[:1], rows, columns, region, other))}]

    def _draw(self, images: ImageSet, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = torch.randperm(len(images), generator=generator)[: self.samples]
        labels = images.labels[rows.to(images.labels.device)].to(self.device)
        return images.images(rows).to(self.device, self.dtype), labels


@torch.no_grad()
def cross_table(
    model: nn.Module, base: Tensor, y: Tensor, rows: Tensor, columns: Tensor, region: Region, other: Region
) -> Tensor:
    """T[a, b] = logit of class y for the image `base` with patch I of rows[a] and patch J of columns[b].

    Args:
        base: (1, c, h, w). y: (1,). rows: (A, c, h, w). columns: (B, c, h, w). region, other: I and J.
    Returns: (A, B).
    """
    lines = []
    for row in rows:
        images = base.repeat(len(columns), 1, 1, 1)
        region.of(images).copy_(region.of(row[None]))
        other.of(images).copy_(other.of(columns))
        lines.append(true_logit(model(images), y.expand(len(columns))))
    return torch.stack(lines)


def of_table(table: Tensor) -> Record:
    """Spectrum of a cross table (a, b), and what of it is in neither of two separable forms.

    `additive_residual`: share of its variance outside r_a + c_b (the interaction of an analysis of variance).
    `rank_one_residual`: share of its energy outside the best r_a c_b. Both 0 for a constant table.
    """
    table = table.double()
    values = torch.linalg.svdvals(table)
    centred = table - table.mean()
    interaction = centred - centred.mean(0, keepdim=True) - centred.mean(1, keepdim=True)
    return {
        "additive_residual": _share(interaction.square().sum(), centred.square().sum(), values[0] ** 2),
        "rank_one_residual": _share(values[1:].square().sum(), values.square().sum(), values[0] ** 2),
        "effective_rank": float(effective_rank(values)),
        "singular_values": values.tolist(),
    }


def _share(part: Tensor, whole: Tensor, scale: Tensor) -> float:
    """part / whole; 0 where the whole is rounding error of numbers of this (squared) scale, as of float32 outputs."""
    return float(part / whole) if float(whole) > 1e-12 * float(scale) else 0.0


def gradient_profile(model: nn.Module, x: Tensor, y: Tensor) -> tuple[str, Tensor | None]:
    """Mean |gradient| of a unit with respect to the input, by distance from where it is centred.

    The unit is the centre of the last feature map. Where no module puts out a map of several positions, or modules
    after it put out sequences, as the tokens of attention, whose units may see everything, it is the network's logit.
    The distance is the larger of rows and columns (pixels).

    Args:
        x: (b, c, h, w). y: (b,), labels.
    Returns: "feature map" or "output", and (largest distance + 1,) shares that sum to one; None for those if the unit
        does not depend on the input.
    """
    found: list[Tensor] = []  # maps and sequences, in the order in which they are computed

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) and output else output  # attention gives its weights too
        if not isinstance(first, Tensor):
            return
        if (first.dim() == 4 and first.shape[2:].numel() > 1) or (first.dim() == 3 and first.shape[1] > 1):
            found.append(first)

    handles = [module.register_forward_hook(keep) for module in model.modules()]
    try:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = true_logit(model(x), y)
            unit, target = "output", logits
            if found and found[-1].dim() == 4:
                row, column = (n // 2 for n in found[-1].shape[2:])
                unit, target = "feature map", found[-1][:, :, row, column]
            if not target.requires_grad:
                return unit, None
            (gradient,) = torch.autograd.grad(target.sum(), x, materialize_grads=True)
    finally:
        for handle in handles:
            handle.remove()
    weight = gradient.abs().sum((0, 1)).double()  # (h, w)
    if not weight.any():
        return unit, None
    offsets = [
        (torch.arange(len(line), device=x.device) - _centroid(line)).abs() for line in (weight.sum(1), weight.sum(0))
    ]
    distance = torch.maximum(offsets[0][:, None], offsets[1][None, :]).flatten()
    profile = torch.zeros(int(distance.max()) + 1, dtype=torch.float64, device=x.device)
    profile.index_add_(0, distance, weight.flatten())
    return unit, (profile / profile.sum()).cpu()


def _centroid(weight: Tensor) -> int:
    """The position about which weights (n,) balance."""
    return round(float((weight * torch.arange(len(weight), device=weight.device)).sum() / weight.sum()))


def factorization_records(model: Factorization) -> Iterator[Record]:
    """Hierarchical ranks of a factorization, nodes grouped by how far apart the modes under them are."""
    groups: dict[int, list[Any]] = {}
    for spectrum in spectra_of(model):
        groups.setdefault(max(spectrum.modes) - min(spectrum.modes), []).append(spectrum)
    for span, spectra in sorted(groups.items()):
        yield {
            "kind": "locality",
            "measure": "hierarchical-rank",
            "distance": span,
            "nodes": [s.label for s in spectra],
            "rank": sum(s.rank() for s in spectra) / len(spectra),
            "effective_rank": sum(s.effective_rank for s in spectra) / len(spectra),
        }


def spaced_distances(length: int, size: int) -> list[int]:
    """`_DISTANCES` distances from 0 to the largest at which two patches of this size fit along a length."""
    most = max(0, length - 2 * size)
    return sorted({round(most * k / (_DISTANCES - 1)) for k in range(_DISTANCES)})


def _mean_record(measure: str, distance: int, size: int, found: list[Record]) -> Record | None:
    if not found:
        return None
    cosines = [m["cosine"] for m in found if m["cosine"] is not None]
    cosine = sum(cosines) / len(cosines) if cosines else None
    record: Record = {
        "kind": "locality",
        "measure": measure,
        "distance": distance,
        "patch_size": size,
        "pairs": len(found),
        "cosine": cosine,
        "dependence": None if cosine is None else 1 - cosine,
    }
    for name in ("additive_residual", "rank_one_residual", "effective_rank"):
        record[name] = sum(m[name] for m in found) / len(found)
    values = torch.tensor([m["singular_values"] for m in found], dtype=torch.float64).mean(0)
    return record | {"singular_values": values[:_SHOWN].tolist()}
