"""CIFAR-10 from its binary distribution: an archive, a folder of its batches, or a checked download.

A batch is a sequence of records, a label byte and 3 x 32 x 32 bytes of pixels each. Nothing is unpacked to disk, and
the distribution for Python, which holds pickles, is not read.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from htfcli.engine.vision.datasets.labelled import Labelled
from htfcli.errors import ConfigError, DataError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, STD = (0.491, 0.482, 0.446), (0.247, 0.243, 0.261)
ARCHIVE = "cifar-10-binary.tar.gz"
URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"

_BATCHES = (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin")
_RECORD = 1 + 3 * 32 * 32
_MOST_BYTES = 10_000 * _RECORD  # of a batch, as in the real ones
_MOST_MEMBERS = 32  # of an archive; the real one has 9


def read_cifar10(path: Path) -> tuple[Labelled, Labelled]:
    """Train and test images of an archive, or of a folder of extracted batches.

    Raises:
        DataError: if something is missing, malformed, cut off or too large.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist", next_step="--download fetches CIFAR-10 (162 MiB).")
    batches = _batches_of_folder(path) if path.is_dir() else _batches_of_archive(path)
    if missing := [name for name in _BATCHES if name not in batches]:
        allowed = f"{ARCHIVE}, or a folder of its files"
        raise DataError(f"{path} is not CIFAR-10 in binary form: it has no {missing[0]}", allowed=allowed)
    return _images(batches, _BATCHES[:-1]), _images(batches, _BATCHES[-1:])


def download() -> Path:
    """The archive from its authors' site, or where an earlier download left it, its checksum verified.

    Raises:
        DataError: if it cannot be fetched or is not what it should be.
    """
    try:
        import pooch
    except ImportError:
        raise ConfigError("--download needs pooch", next_step="pip install 'htf[vision]'.") from None
    pooch.get_logger().setLevel("WARNING")  # it tells of every download
    advice = f"Fetch {ARCHIVE} by other means and name it with --data-dir."
    try:
        return Path(pooch.retrieve(URL, known_hash=f"md5:{MD5}", fname=ARCHIVE, path=pooch.os_cache("htf")))
    except ValueError:  # the only one it raises for what it has fetched
        raise DataError(f"what {URL} sent is not CIFAR-10: its MD5 is wrong", allowed=MD5, next_step=advice) from None
    except OSError as error:
        reason = str(error).partition("\n")[0][:200].rstrip(".")
        raise DataError(f"cannot download {URL}: {reason}", next_step=advice) from None


def _batches_of_folder(path: Path) -> dict[str, bytes]:
    inner = path / "cifar-10-batches-bin"
    files = [(inner if inner.is_dir() else path) / name for name in _BATCHES]
    return {file.name: _bounded(file.name, file.stat().st_size, file.read_bytes) for file in files if file.is_file()}


def _batches_of_archive(path: Path) -> dict[str, bytes]:
    """Batches wherever they are in an archive; read in memory, one after another."""
    batches = {}
    try:
        with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for number, member in enumerate(archive):
                if number >= _MOST_MEMBERS:
                    raise DataError(f"{path} has too many members for CIFAR-10", allowed=_MOST_MEMBERS)
                name = PurePosixPath(member.name).name
                file = archive.extractfile(member) if member.isreg() else None
                if file is not None:  # also what is no batch must be small: to step over it is to decompress it
                    batches[name] = _bounded(name, member.size, file.read)
            stream.read(_MOST_BYTES)  # on to the end, where the checksum of all is verified
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        reason = (str(error) or type(error).__name__).partition("\n")[0]
        raise DataError(f"{path} is not a whole .tar.gz archive: {reason}", next_step="Fetch it again.") from None
    return batches


def _bounded(name: str, size: int, read: Callable[[], bytes]) -> bytes:
    if size > _MOST_BYTES:
        raise DataError(f"{name} is too large for CIFAR-10", got=f"{size} bytes", allowed=f"at most {_MOST_BYTES}")
    return read()


def _images(batches: dict[str, bytes], names: tuple[str, ...]) -> Labelled:
    records = []
    for name in names:
        data = np.frombuffer(batches[name], np.uint8)
        if len(data) == 0 or len(data) % _RECORD:
            raise DataError(f"{name} is cut off", got=f"{len(data)} bytes", allowed=f"a multiple of {_RECORD}")
        records.append(data.reshape(-1, _RECORD))
    found = np.concatenate(records)
    labels = found[:, 0].astype(np.int64)
    if labels.max() >= len(CLASSES):
        raise DataError(f"{names[0]} and its like have a label out of range", got=labels.max(), allowed="0 to 9")
    if len(absent := np.setdiff1d(np.arange(len(CLASSES)), labels)):
        raise DataError(f"{names[0]} and its like have no image of a class", got=CLASSES[absent[0]])
    return Labelled(torch.from_numpy(found[:, 1:].reshape(-1, 3, 32, 32).copy()), torch.from_numpy(labels))
