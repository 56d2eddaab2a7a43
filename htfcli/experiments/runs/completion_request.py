"""What a completion is asked to do, checked before torch is imported, so that a refusal takes no time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from htfcli.config.completion_run import CompletionRunConfig
from htfcli.errors import ConfigError, DataError
from htfcli.files.foreign.readers import Dense, suffix_of
from htfcli.files.locating import Located, locate
from htfcli.files.own.container import refuse_existing
from htfcli.files.tables.formats import TABLES
from htfcli.files.tables.labelled import Labelled
from htfcli.files.understanding import understand


@dataclass(frozen=True)
class Request:
    """A completion that can be started.

    Args:
        config: settings. data: what the input is called. located: where it is. understood: what is in it, if it is a
            table or an array. output: a file, or `-`. predict: a table of the entries to predict; None for those that
            are missing in the data. uncertainty: a file for the standard deviations of the predictions.
        folder: run folder; None for `output`.run, or none for `-`. force: replace what is there.
    """

    config: CompletionRunConfig
    data: str
    located: Located
    understood: Labelled | Dense | None
    output: str
    predict: str | None = None
    uncertainty: str | None = None
    folder: str | None = None
    force: bool = False


def make_request(
    config: CompletionRunConfig,
    data: Sequence[str],
    output: str | None,
    *,
    predict: str | None = None,
    uncertainty: str | None = None,
    folder: str | None = None,
    force: bool = False,
    several: bool = False,
    first: bool = True,
) -> Request:
    """Check settings and data of a completion, see `Request`.

    Args:
        data: the input; several files continue each other. output: a file, `-`, or None for a name beside the data.
        several, first: whether several processes do this, and whether this one writes.
    Raises:
        HtfError: for what is wrong with settings and data.
    """
    if not data:
        advice = "Shortest useful call: htf complete data.csv (see htf complete --help)."
        raise ConfigError("no data to complete", next_step=advice)
    if output is None:
        output = completed_name(data[0])
    if predict is not None and config.all:
        raise ConfigError("--predict names some entries, --all means all: give one", got=predict)
    if "-" in (*data, predict) and several:
        raise ConfigError("several processes cannot read one stdin", next_step="Name a file.")
    if uncertainty in ("-", output):
        raise ConfigError("--uncertainty needs a file of its own", got=uncertainty)
    for path in (output, *([] if uncertainty is None else [uncertainty])):
        if path != "-" and first:
            refuse_existing(path, force)  # before minutes are spent on reading
    located = locate(*data)
    understood = understand(located, config, config.dims)
    if isinstance(understood, Dense):
        _refuse_full(understood, config, predict or uncertainty)
    if predict is not None and suffix_of(Path(predict)) not in TABLES and predict != "-":
        locate(predict)
        got = suffix_of(Path(predict)) or "no suffix"
        raise DataError(f"{predict} is not a table of entries", got=got, allowed=", ".join(TABLES))
    return Request(config, located.name, located, understood, output, predict, uncertainty, folder, force)


def completed_name(data: str) -> str:
    """The name of the completed file beside the data, as data.completed.csv.

    Raises:
        ConfigError: if the data are no file.
    """
    plain = data.rpartition("#")[0] if "#" in data and not Path(data).exists() else data
    path = Path(plain)
    if data == "-" or (path / "model.safetensors").exists() or any(sign in plain for sign in "*?["):
        raise ConfigError("no output file", next_step="Name one with -o, or - for stdout.")
    suffix = suffix_of(path)
    stem = plain[: len(plain) - len(suffix)] if suffix else plain
    suffix = {".safetensors": ".npy", "": ".parquet" if path.is_dir() else ""}.get(suffix, suffix)
    return f"{stem}.completed{suffix}"


def _refuse_full(dense: Dense, config: CompletionRunConfig, other: str | None) -> None:
    """Raise DataError if nothing is missing in an array, and nothing else is asked for."""
    if other or config.smooth or config.mask is not None or config.missing_value is not None or dense.missing:
        return
    raise DataError(
        f"{dense.name} has no missing entry: nothing to fill",
        next_step="Are missing entries marked (--missing-value, --mask)? Is it to be smoothed (--smooth)?",
    )
