"""Observations shared by several processes, each of which reads only its own rows of the file.

Axes: `n` observations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from htfcli.config.tables import TableConfig
from htfcli.engine.observations.observations import Observations
from htfcli.engine.runtime.distributed import Workers
from htfcli.engine.samples import Sample
from htfcli.errors import DataError, HtfError
from htfcli.files.inputs import load_observations
from htfcli.files.locating import locate
from htfcli.files.own import container
from htfcli.files.own.artefacts import rows_of, to_observations

_BLOCK = 2**20  # numbers hashed at a time: 8 MiB


def load_shard(
    argument: str,
    workers: Workers,
    config: TableConfig | None = None,
    on_remark: Callable[[str], None] = lambda text: None,
) -> Observations:
    """This process's rows of an observations file of ours, split as by `Workers.shard`.

    The rows are checked, for repeated entries only within the shard. Files of other formats are read whole, as is any
    file by a single process.

    Args:
        argument, config, on_remark: as for `load_observations`. workers: the processes.
    Returns: observations with `whole` set where they are a shard.
    Raises:
        DataError, ConfigError: as `load_observations`.
    """
    if workers.count == 1:
        return load_observations(argument, None, config, on_remark)
    located = locate(argument)
    if not located.is_container:
        return load_observations(argument, None, config, on_remark)
    found, problem = None, None
    try:
        found = to_observations(container.read(located.path, located.name), (workers.rank, workers.count))
    except HtfError as error:
        problem = error
    said = workers.first_message("" if problem is None else str(problem))
    if problem is not None or found is None or said:  # an error in one process stops all of them
        raise problem or DataError(said.rstrip("."))
    return found


def fingerprint(observations: Observations, workers: Workers) -> str:
    """A digest of the observed data, with which a resumed run checks that they are the same; a collective operation.

    It is a sum over all numbers of a hash of the number and its position, so that it does not depend on how many
    processes share the rows.
    """
    whole = observations.counts
    total = torch.zeros((), dtype=torch.int64)
    for part, (sample, count) in enumerate(zip((observations.train, observations.test), whole, strict=True)):
        rows = None if sample is None or len(sample) == count else rows_of(count, workers.rank, workers.count)
        if sample is not None and (rows is not None or workers.first):
            first = 0 if rows is None else rows[0]
            for place, tensor in enumerate(_tensors(sample)):
                total += _hashed(tensor, first, (1 + part) * 31 + place)
    digest = f"{observations.dims} {whole} {int(workers.sum(total))}"
    return hashlib.sha256(digest.encode()).hexdigest()


def _hashed(tensor: Tensor, first: int, purpose: int) -> Tensor:
    """Sum of the hashes of the numbers in (n, ...), whose rows are numbered from `first`, modulo 2^64."""
    columns = tensor.flatten(1) if tensor.dim() > 1 else tensor.unsqueeze(1)
    width, total = columns.shape[1], torch.zeros((), dtype=torch.int64)
    step = max(1, _BLOCK // width)
    for start in range(0, len(columns), step):
        block = columns[start : start + step]
        bits = block.double().view(torch.int64) if block.is_floating_point() else block.long()
        begin = (first + start) * width
        place = torch.arange(begin, begin + block.numel()).view(bits.shape)
        total += _mixed(bits ^ _mixed(place * 64 + purpose)).sum()
    return total


def _mixed(x: Tensor) -> Tensor:
    """A hash of each int64: the mixing function of splitmix64 (Steele, Lea and Flood, 2014)."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        x = (x ^ (x >> shift)) * factor
    return x ^ (x >> 31)


def _tensors(sample: Sample) -> list[Tensor]:
    values = list(vars(sample).values())
    return [t for v in values for t in (v if isinstance(v, tuple) else (v,))]
