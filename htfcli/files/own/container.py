"""The container of our own files: safetensors with metadata, written whole or not at all.

Metadata: `htf.kind` (observations, factorization, completion, images, ...), `htf.schema`, `htf.version`, `htf.config`
(the resolved configuration as JSON) and `htf.content` (what the tensors are, as JSON). Nothing is ever unpickled.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import struct
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open

from htfcli._version import __version__
from htfcli.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor

M = TypeVar("M", bound=BaseModel)

SCHEMA = "1"


@dataclass(frozen=True)
class Artefact:
    """A container that was opened: its metadata, and access to its tensors.

    Args:
        name: for messages. kind, version: `htf.kind` and `htf.version`. content, config: the JSON metadata.
        path: the file.
    """

    name: str
    kind: str
    version: str
    content: dict[str, Any]
    config: dict[str, Any]
    path: Path

    def tensors(self, prefix: str = "", rows: tuple[int, int] | None = None) -> dict[str, Tensor]:
        """Load the tensors whose name begins with `prefix`, named by the rest of their name.

        Args:
            rows: first row and end of what is read; all rows if None.
        Raises:
            DataError: if the file is damaged.
        """
        try:
            with safe_open(self.path, framework="pt") as file:
                keys = [key for key in file.keys() if key.startswith(prefix)]
                if rows is None:
                    return {key[len(prefix) :]: file.get_tensor(key) for key in keys}
                return {key[len(prefix) :]: file.get_slice(key)[slice(*rows)] for key in keys}
        except (SafetensorError, OSError) as error:
            raise DataError(f"{self.name} is damaged: {error}") from None

    def shapes(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Type and shape of every tensor, from the header."""
        with safe_open(self.path, framework="pt") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}
            return {key: (s.get_dtype(), tuple(s.get_shape())) for key, s in slices.items()}

    def expect(self, *kinds: str) -> Artefact:
        """This artefact, if its kind is one of `kinds`.

        Raises:
            DataError: otherwise.
        """
        if self.kind not in kinds:
            raise DataError(f"{self.name} holds something else", got=self.kind, allowed=" or ".join(kinds))
        return self

    def content_as(self, schema: type[M]) -> M:
        """The content metadata, validated.

        Raises:
            DataError: if it does not fit the schema.
        """
        try:
            return schema.model_validate(self.content)
        except ValidationError:
            raise DataError(f"{self.name} is damaged: its description of the {self.kind} is malformed") from None


# --- bytes ------------------------------------------------------------------------------------------------------------


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path; after the block its file is flushed to disk and replaces `path`, unless it failed.

    It is in a folder of its own beside `path`, as safetensors makes temporary files with unpredictable names.

    Raises:
        DataError: if it cannot be written or the disk is full.
    """
    folder = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary = folder / path.name
    try:
        try:
            for left in leftovers(path):
                if not _is_running(int(left.suffixes[-2][1:])):
                    shutil.rmtree(left, ignore_errors=True)
            folder.mkdir(exist_ok=True)
            yield temporary
            with open(temporary, "rb+") as file:
                # safetensors makes files private; mkdir has applied the umask, which cannot be read without setting it
                os.fchmod(file.fileno(), folder.stat().st_mode & 0o666)
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except (OSError, SafetensorError) as error:
            raise DataError(f"cannot write {path}: {_reason(error)}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def leftovers(path: Path) -> list[Path]:
    """Temporary folders of writers of `path` that are running or were killed."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.\d+\.tmp")
    if not path.parent.is_dir():
        return []
    return [entry for entry in path.parent.iterdir() if pattern.fullmatch(entry.name)]


def remove_leftovers(path: Path) -> None:
    """Remove the temporary folders of killed writers of `path`; no writer may be running."""
    for left in leftovers(path):
        shutil.rmtree(left, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def _reason(error: Exception) -> str:
    """The message of the operating system, which safetensors wraps in its own."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    wrapped = re.search(r"I/O error: (.+?) \(os error", str(error))
    return wrapped[1] if wrapped else str(error)


def write_text(path: Path, text: str) -> None:
    """Write a small text file whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(destination: str, data: bytes) -> None:
    """Write a small file whole or not at all, or to stdout if `destination` is `-`."""
    if destination == "-":
        copy_to_stdout(io.BytesIO(data))
        return
    with atomic_write(Path(destination)) as temporary:
        temporary.write_bytes(data)


@contextmanager
def text_destination(destination: str, compressed: bool = False, encoding: str = "utf-8") -> Iterator[IO[str]]:
    """Yield a text file that replaces `destination` after the block, or for `-` stdout, which is written directly."""
    if destination == "-":
        stream = io.TextIOWrapper(sys.stdout.buffer, encoding=encoding, newline="")
        try:
            yield stream
        finally:
            stream.detach()  # flushes it; stdout stays open
        return
    opened: Any = gzip.open if compressed else open
    with (
        atomic_write(Path(destination)) as temporary,
        opened(temporary, "wt", encoding=encoding, newline="") as file,
    ):
        yield file


@contextmanager
def binary_destination(destination: str) -> Iterator[Path]:
    """Yield a path to write; after the block the file replaces `destination`, or is copied to stdout for `-`."""
    if destination != "-":
        with atomic_write(Path(destination)) as temporary:
            yield temporary
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "out"
        with open(Path(folder) / "out", "rb") as file:
            copy_to_stdout(file)


def save(
    destination: str | Path,
    kind: str,
    tensors: Mapping[str, Tensor],
    content: Mapping[str, Any],
    config: Mapping[str, Any] | None = None,
) -> None:
    """Write a container to a file, or to stdout if `destination` is `-`; equal content gives equal bytes.

    Args:
        kind: of artefact. content: what the tensors are. config: the configuration that they were made with.
    Raises:
        DataError: if it cannot be written. ConfigError: if stdout is a terminal.
    """
    import torch

    metadata = {
        "htf.kind": kind,
        "htf.schema": SCHEMA,
        "htf.version": __version__,
        "htf.config": json.dumps(config or {}),
        "htf.content": json.dumps(content),
    }
    # safetensors refuses tensors that share memory, such as weights that are views of one vector
    own = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    with binary_destination(str(destination)) as path:
        _save_file(path, own, metadata)


def _save_file(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """`save_file` with the metadata in alphabetical order; safetensors writes it in a random order."""
    from safetensors.torch import save_file

    save_file(tensors, path, metadata=metadata)
    with open(path, "rb+") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(ordered) <= size
        file.seek(8)
        file.write(ordered.ljust(size))


def refuse_existing(destination: str, force: bool) -> None:
    """Check before the work that an output can be written: nothing may be replaced unless `force` is set.

    Raises:
        ConfigError: if the file exists or is a folder, or stdout is a terminal. DataError: if its folder is missing.
    """
    if destination == "-":
        refuse_terminal()
    elif Path(destination).is_dir() and Path(destination).suffix != ".zarr":  # which is a folder
        raise ConfigError(f"{destination} is a folder", allowed="a file")
    elif not Path(destination).parent.is_dir():  # reported now, not after an hour of work
        raise DataError(f"cannot write {destination}: No such file or directory")
    elif Path(destination).exists() and not force:
        raise ConfigError(f"{destination} exists", next_step="Choose another name, or replace it with --force.")


def refuse_terminal() -> None:
    """Raise ConfigError if stdout is a terminal, as artefacts are binary."""
    if sys.stdout.isatty():
        raise ConfigError("-o - writes binary data, and stdout is a terminal", next_step="Redirect it, or name a file.")


def copy_to_stdout(file: IO[bytes]) -> None:
    """Copy an open file to stdout; ConfigError if that is a terminal."""
    refuse_terminal()
    while chunk := file.read(1 << 20):
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def looks_like_one(path: Path) -> bool:
    """Whether a file begins like safetensors: eight bytes of length, then JSON."""
    with open(path, "rb") as file:
        return file.read(9)[8:] == b"{"


def read(path: Path, name: str | None = None) -> Artefact:
    """Open a container.

    Args:
        path: the file. name: its name in messages (its path if None).
    Raises:
        DataError: if it is not a container of ours, is damaged, or has an unknown schema.
    """
    name = name or str(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise DataError(f"cannot read {name}: {_reason(error)}") from None
    if "htf.kind" not in metadata:
        raise DataError(f"{name} was not written by htf: its metadata lacks htf.kind")
    if metadata.get("htf.schema") != SCHEMA:
        raise DataError(f"{name} has an unknown schema", got=metadata.get("htf.schema"), allowed=SCHEMA)
    try:
        content = json.loads(metadata.get("htf.content", "{}"))
        config = json.loads(metadata.get("htf.config", "{}"))
    except (ValueError, RecursionError):
        raise DataError(f"{name} is damaged: its metadata is not JSON") from None
    if not isinstance(content, dict) or not isinstance(config, dict):
        raise DataError(f"{name} is damaged: its metadata is not a JSON object")
    return Artefact(name, metadata["htf.kind"], metadata.get("htf.version", ""), content, config, path)
