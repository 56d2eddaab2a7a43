"""Broken and hostile files: valid ones of every format, mutations of them, and what reading one may do.

Reading may end well or with an `HtfError`. It may not take long or much memory, start a process, look up a name for an
unpickler, or write a file outside its folder.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.font_manager  # noqa: F401 -- makes its cache

from htfcli.app import main
from htfcli.errors import HtfError

CPU_SECONDS = 20.0  # a case may compute: hundreds of times what any takes
SECONDS = 300.0  # a case may take, other processes and waiting included
MORE_MEMORY = 1 << 30  # bytes a case may allocate

_FORBIDDEN = {
    "pickle.find_class",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "socket.connect",
    "webbrowser.open",
    "os.symlink",
    "os.link",
    "os.chown",
}
_WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
_watch: list[tuple[str, list[str]]] = []  # the folder that may be written to, and violations


def _hook(event: str, args: tuple[object, ...]) -> None:
    if not _watch or sys.is_finalizing():
        return
    allowed, seen = _watch[-1]
    # MATLAB files are read by a process of their own
    ours = event == "subprocess.Popen" and any(str(word).endswith("mat_arrays.py") for word in args[1])  # type: ignore[attr-defined]
    if event in _FORBIDDEN and not ours:
        seen.append(f"{event} {args}")
    writes = event in _WRITES or (event == "open" and int(args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))  # type: ignore[call-overload]
    if writes and isinstance(args[0], str | bytes | os.PathLike):
        place = args[1] if event in ("os.remove", "os.rmdir") else -1  # the folder that a name is relative to
        base = os.readlink(f"/proc/self/fd/{place}") if isinstance(place, int) and place >= 0 else ""
        path = os.path.realpath(os.path.join(base, os.fsdecode(args[0])))
        temporary = [os.path.join(tempfile.gettempdir(), name) for name in ("htf-", "torchinductor_")]
        if not path.startswith((allowed, "/dev/null", *temporary)) and "__pycache__" not in path:
            seen.append(f"{event} {path}")


sys.addaudithook(_hook)


class Hang(BaseException):
    """A case took longer than `CPU_SECONDS` or `SECONDS`."""


def _data_bytes() -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmData")) * 1024


@contextlib.contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Within the block: bounded time and memory, and nothing done that reading a file need not do."""

    def late(number: int, frame: object) -> None:
        raise Hang

    before = resource.getrlimit(resource.RLIMIT_DATA)
    timers = ((signal.ITIMER_REAL, signal.SIGALRM, SECONDS), (signal.ITIMER_PROF, signal.SIGPROF, CPU_SECONDS))
    handlers = [(number, signal.signal(number, late)) for _, number, _ in timers]
    seen: list[str] = []
    _watch.append((os.path.realpath(folder), seen))
    resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + MORE_MEMORY, before[1]))
    for timer, _, seconds in timers:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer, _, _ in timers:
            signal.setitimer(timer, 0)
        for number, handler in handlers:
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_DATA, before)
        _watch.pop()
    assert seen == []


def survives(folder: Path, read: Callable[[], object]) -> bool:
    """Whether a reader accepts a file; any end but a result or a one-line error is an AssertionError."""
    with guarded(folder):
        try:
            read()
        except HtfError as error:
            said = str(error)
        else:
            return True
    assert said.strip() and "\n" not in said, said
    return False


def command(folder: Path, *argv: object) -> tuple[int, str]:
    """Exit code and stderr of `htf ARGV` in this process: an error must be one line on what is wrong."""
    out, err = io.StringIO(), io.StringIO()
    with guarded(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(a) for a in argv])
    said = err.getvalue()
    assert code in (0, 1, 2), (code, said)
    if code:
        lines = [line for line in said.splitlines() if line.startswith("Error: ")]
        assert len(lines) == 1 and said.endswith(lines[0] + "\n"), said
        for bad in ("internal error", "Traceback", "out of memory"):
            assert bad not in said, said
    return code, said


# --- mutations --------------------------------------------------------------------------------------------------------

_NUMBERS = [b"\x00" * 8, b"\xff" * 8, b"\xff" * 4, b"\x7f", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x01"]
_TEXTS = [b"1e999", b"nan", b"-1", b"1000000000000000000", b"99999999999999999999999", b"\xff\xfe", b"\x00", b'"', b",",
          b"\t", b"\n", b"#", b"[" * 40, b"{", b"}", b":", b"null", b"true", b"''", b"-", b"inf", b"0x10", b"1_0", b"\r",
          b"\xe2\x80\xae", b"&a", b"*a", b"!!python/object/apply:os.system ['true']", b"../../x", b"0"]  # fmt: skip


def mutate(data: bytes, generator: random.Random) -> bytes:
    """One to four changes: bytes flipped, cut out, doubled, put in, or the end cut off."""
    mutated = bytearray(data)
    for _ in range(generator.choice([1, 1, 1, 2, 4])):
        at = generator.randrange(len(mutated) + 1)
        if generator.random() < 0.3:
            at = min(at, generator.randrange(64))  # headers are where it hurts
        length = generator.choice([1, 1, 2, 4, 8, 40])
        kind = generator.randrange(7)
        if kind == 0:
            for place in range(at, min(at + generator.choice([1, 1, 4]), len(mutated))):
                mutated[place] ^= 1 << generator.randrange(8)
        elif kind == 1:
            del mutated[at : at + length]
        elif kind == 2:
            mutated[at:at] = mutated[at : at + length] * generator.choice([1, 2, 50])
        elif kind == 3:
            mutated[at : at + length] = generator.randbytes(length)
        elif kind == 4:
            number = generator.choice(_NUMBERS)
            mutated[at : at + len(number)] = number
        elif kind == 5:
            text = generator.choice(_TEXTS)
            mutated[at : at + (length if generator.random() < 0.7 else 0)] = text
        elif generator.random() < 0.4:
            del mutated[at:]
    return bytes(mutated)


_VALUES = [
    0,
    -1,
    1,
    2**31,
    2**63,
    2**64,
    1e308,
    0.5,
    True,
    None,
    "",
    "x",
    [],
    {},
    [0],
    [[]],
    {"a": 1},
    "F32",
    "htf",
    -(10**30),
]


def mutate_json(value: object, generator: random.Random) -> object:
    """A JSON value with one of its parts replaced, dropped or doubled."""
    paths: list[tuple[object, object]] = []

    def walk(node: object) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, item in items:
            paths.append((node, key))
            walk(item)

    root = [json.loads(json.dumps(value))]
    walk(root)
    for _ in range(generator.choice([1, 1, 2])):
        node, key = generator.choice(paths)
        with contextlib.suppress(KeyError, IndexError):  # gone with an earlier change
            kind = generator.randrange(4)
            if kind == 0 and node is not root:
                del node[key]  # type: ignore[attr-defined]
            elif kind == 1 and isinstance(node, list) and node is not root:
                node.append(node[key])  # type: ignore[call-overload]
            elif isinstance(node[key], int) and kind == 2:  # type: ignore[index]
                node[key] += generator.choice([-1, 1, 2**32])  # type: ignore[index]
            else:
                node[key] = generator.choice(_VALUES)  # type: ignore[index]
    return root[0]


def mutate_container(data: bytes, generator: random.Random) -> bytes:
    """A safetensors file whose header, or the JSON in its metadata, says something else."""
    (size,) = struct.unpack("<Q", data[:8])
    header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
    where = generator.randrange(6)
    if where < 3:
        name = generator.choice(["htf.content", "htf.content", "htf.config"])
        header["__metadata__"][name] = json.dumps(mutate_json(json.loads(header["__metadata__"][name]), generator))
    elif where < 5:
        header = mutate_json(header, generator)
    else:  # weights, indices and values that are anything
        places = bytearray(rest)
        for _ in range(generator.choice([1, 3])):
            at = generator.randrange(max(1, len(places) // 4)) * 4
            places[at : at + 4] = generator.choice(
                [b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f"]
            )[: len(places) - at]
        rest = bytes(places)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


def mutate_inside(
    unpack: Callable[[bytes], bytes], pack: Callable[[bytes], bytes]
) -> Callable[[bytes, random.Random], bytes]:
    """Mutations of what is compressed."""
    return lambda data, generator: pack(mutate(unpack(data), generator))


def mutate_member(data: bytes, generator: random.Random) -> bytes:
    """A zip archive with a mutation in one of its files, its checksum being right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        names = old.namelist()
        chosen = generator.choice(names)
        for name in names:
            content = old.read(name)
            new.writestr(name, mutate(content, generator) if name == chosen else content)
    return out.getvalue()


gzipped = mutate_inside(gzip.decompress, lambda data: gzip.compress(data, 1))
