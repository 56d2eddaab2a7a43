"""Real processes of `htf`, forked from a warm server; and what must hold after one is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from htfcli.files.description import describe_input
from htfcli.files.own import container
from htfcli.files.own.records import read_lines

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "HTF_DEBUG": "0",
}
PATIENCE = 300.0  # seconds a process may take, on a machine that others use too
TEMPORARY = re.compile(r"\.(.+)\.\d+\.tmp")


@dataclass
class Ended:
    """How a process ended: its exit code (-9 for SIGKILL), stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that begins with Error; there must be no traceback beside it."""
        assert "Traceback" not in self.err, self.err
        errors = [line for line in self.err.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1, self.err
        return errors[0].removeprefix("Error: ")


class Server:
    """The fork server of `server.py`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        assert self._answer() == "ready"

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, request: dict) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def start(self, *argv: object, cwd: Path, **faults: object) -> Running:
        """Start `htf ARGV`; `faults` are die_at (a change of files), file_bytes, more_memory, env, stdin."""
        self.count += 1
        out, err = (str(self.folder / f"{self.count}.{name}") for name in ("out", "err"))
        for path in (out, err):  # it may be killed before it has opened them
            Path(path).touch()
        command = {"argv": [str(a) for a in argv], "cwd": str(cwd), "out": out, "err": err, **faults}
        return Running(self, int(self.ask({"start": command})), Path(out), Path(err))

    def run(self, *argv: object, cwd: Path, **faults: object) -> Ended:
        return self.start(*argv, cwd=cwd, **faults).wait()

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


@dataclass
class Running:
    """A process that the server has started."""

    server: Server
    pid: int
    out: Path
    err: Path
    ended: Ended | None = field(default=None)

    def send(self, number: int) -> None:
        os.kill(self.pid, number)  # it is not reaped before `wait`, so the id is still its own

    def poll(self, seconds: float = 0.0) -> Ended | None:
        if self.ended is None:
            code = json.loads(self.server.ask({"wait": self.pid, "seconds": seconds}))
            if code is not None:
                self.ended = Ended(code, *(p.read_text(errors="replace") for p in (self.out, self.err)))
        return self.ended

    def wait(self, seconds: float = PATIENCE) -> Ended:
        ended = self.poll(seconds)
        if ended is None:
            self.send(signal.SIGKILL)
            raise AssertionError(f"still running after {seconds} s: {self.err.read_text(errors='replace')}")
        return ended

    def kill_after(self, seconds: float) -> bool:
        """SIGKILL once it has run so long; False if it had ended by itself, which must be well."""
        ended = self.poll(seconds)
        if ended is None:
            self.send(signal.SIGKILL)
            ended = self.wait()
        assert ended.code in (0, -signal.SIGKILL), ended
        return ended.code != 0


def whole(path: Path) -> None:
    """Assert that every file under a folder can be read from end to end, or is a temporary file."""
    for file in sorted(path.rglob("*")):
        if any(TEMPORARY.fullmatch(part.name) for part in (file, *file.parents)):
            continue  # of a process that was killed or still writes
        if file.is_dir() or file.name == ".lock" or file.suffix in (".lock", ".log"):
            continue
        assert not file.name.startswith("."), file
        if file.suffix == ".safetensors" or file.name.endswith(".part"):
            container.read(file).tensors()
        elif file.suffix == ".json":
            json.loads(file.read_text())
        elif file.suffix == ".jsonl":
            list(read_lines(file))
        elif file.suffix == ".yaml":
            assert isinstance(yaml.safe_load(file.read_text()), dict | None)
        elif file.suffix == ".png":
            Image.open(file).load()
        elif file.suffix == ".csv" and file.name.startswith("summary"):
            assert file.read_text().endswith("\n")
        else:
            describe_input(str(file))


TIMES = {"seconds", "iterations_per_second", "images_per_second", "seconds_left"}


def content(path: Path) -> dict[str, object]:
    """The files of a folder by name, without measured times: equal for equal runs, bit for bit."""

    def timeless(value: object) -> object:
        if isinstance(value, dict):
            return {k: timeless(v) for k, v in value.items() if k not in TIMES}
        return [timeless(v) for v in value] if isinstance(value, list) else value

    found: dict[str, object] = {}
    for file in sorted(path.rglob("*")):
        if file.is_dir() or file.name == ".lock" or file.suffix in (".lock", ".log"):
            continue
        name = str(file.relative_to(path))
        if file.suffix == ".json":
            found[name] = timeless(json.loads(file.read_text()))
        elif file.suffix == ".jsonl":
            found[name] = [timeless(json.loads(line)) for line in file.read_text().splitlines()]
        elif file.suffix == ".npy":
            found[name] = np.load(file).tobytes()
        else:
            found[name] = file.read_bytes()
    return found
