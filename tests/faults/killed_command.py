"""Commands that are killed. Then files are whole or absent, and continuing leads to the uninterrupted result."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.processes import Server, content, whole


@dataclass(frozen=True)
class Case:
    """A command and how it is continued after a kill.

    Args:
        argv: the command line. again: options that continue it, given its folder. prepare: writes its input beside the folder.
    """

    argv: str
    again: Callable[[Path], str]
    prepare: str = ""


def resumed(folder: Path) -> str:
    """Options that continue a run folder from its checkpoint, or start again where there is none yet."""
    return "--resume" if (folder / "run" / "checkpoint.safetensors").exists() else "--force"


def part(folder: Path) -> str:
    """Options that continue an unfinished data set, or start again where there is none yet."""
    return "--resume --force" if (folder / "paths.safetensors.part").exists() else "--force"


CASES = {
    "generate": Case(
        "generate tensor --order 4 --dim 24 --rank 3 --observed 200000 -o data.safetensors", lambda folder: "--force"
    ),
    "generate-pathfinder": Case(
        "generate pathfinder --size 32 --path-length 3 --distractors 2 --train 16 --test 8 --workers 1 "
        "--preview sheet.png -o paths.safetensors",
        part,
    ),
    "fit": Case(
        "fit ../data.safetensors --width 24 --iterations 80 --record-every 4 --checkpoint-every 0 -o run",
        resumed,
        "generate tensor --order 4 --dim 6 --rank 2 --observed 600 -o data.safetensors",
    ),
    "fit-batches": Case(
        "fit ../data.safetensors --width 8 --iterations 40 --record-every 4 --checkpoint-every 0 --batch-size 50 "
        "--optimizer adam --dtype float64 -o run",
        resumed,
        "generate tensor --order 3 --dim 6 --rank 2 --observed 100 -o data.safetensors",
    ),
    "train-cnn": Case(
        "train-cnn ../pairs.safetensors --model resnet-mini --widths 8,16 --blocks 1,1 --batch-size 8 --epochs 4 "
        "--reg non-local --dropout 0.1 -o run",
        resumed,
        "generate is-same-class --images 120 --height 32 --width 80 --distance 8 --train 24 --test 8 "
        "-o pairs.safetensors",
    ),
    "complete": Case(
        "complete ../table.csv -o filled.csv --uncertainty spread.csv --all --width 3", lambda folder: "--force"
    ),
}


class KilledCommand:
    """A command that tests kill: its uninterrupted result, and folders (with paths of one length) for further tries."""

    def __init__(self, name: str, server: Server, folder: Path) -> None:
        self.case, self.server, self.folder, self.count = CASES[name], server, folder, 0
        if name == "complete":
            rows = [f"{a},{b},{(a + 1) * (b + 2)}" for a in range(9) for b in range(9) if (a * 5 + b * 3) % 7]
            (folder / "table.csv").write_text("a,b,value\n" + "\n".join(rows) + "\n")
        if self.case.prepare:
            assert server.run(*self.case.prepare.split(), cwd=folder).code == 0
        started = time.monotonic()
        first = self.fresh()
        assert server.run(*self.case.argv.split(), cwd=first).code == 0
        self.seconds = time.monotonic() - started
        self.wanted = content(first)

    def fresh(self) -> Path:
        self.count += 1
        path = self.folder / f"try{self.count:05d}"
        path.mkdir()
        return path

    def argv(self, folder: Path, begun: bool) -> list[str]:
        return [*self.case.argv.split(), *(self.case.again(folder).split() if begun else [])]

    def finish(self, folder: Path) -> None:
        """Continue after a kill; the end must be that of the uninterrupted command."""
        whole(folder)
        ended = self.server.run(*self.argv(folder, begun=True), cwd=folder)
        assert ended.code == 0, ended
        self.check(folder)

    def check(self, folder: Path) -> None:
        """Assert that a folder holds the uninterrupted result and nothing else, then remove it."""
        found = content(folder)
        assert sorted(found) == sorted(self.wanted)
        for name, value in found.items():
            assert value == self.wanted[name], name
        assert list(folder.rglob(".*.tmp")) == []
        shutil.rmtree(folder)

    def kill_at_random(self, kills: int, seed: int) -> int:
        """Kill runs at random moments, each of them several times; return the number of kills."""
        generator = random.Random(seed)
        done = 0
        while done < kills:
            folder, begun = self.fresh(), False
            while True:
                running = self.server.start(*self.argv(folder, begun), cwd=folder)
                killed = running.kill_after(generator.uniform(0.0, self.seconds))
                whole(folder)
                if not killed:
                    self.check(folder)
                    break
                done, begun = done + 1, True
                if done >= kills:
                    self.finish(folder)
                    break
        return done

    def kill_before_change(self, number: int) -> bool:
        """Kill before the `number`-th change of a file, then finish; False if the command makes fewer changes."""
        folder = self.fresh()
        ended = self.server.run(*self.argv(folder, begun=False), cwd=folder, die_at=number)
        if ended.code == 0:
            self.check(folder)
            return False
        assert ended.code == -signal.SIGKILL, ended
        self.finish(folder)
        return True
