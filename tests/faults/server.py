"""A process that has imported everything and forks a real process per command line, which can then be killed.

Importing torch takes longer than most commands of these tests run. Reads one JSON object per line from stdin and writes one
back: {"start": ...} gives the process id, {"wait": pid} its status once it has ended (null if it has not in time).
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import resource
import signal
import sys
import time

import torch

WRITING = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "shutil.rmtree"}


def die_at(count: int, folder: str) -> None:
    """SIGKILL to this process right before its `count`-th change to files under `folder`."""
    left = count

    def hook(event: str, args: tuple) -> None:
        nonlocal left
        if event not in WRITING or not os.path.abspath(
            os.fsdecode(args[0]) if not isinstance(args[0], int) else "/"
        ).startswith(folder):
            return
        if event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR):
            return
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def data_bytes() -> int:
    """Of this process: what RLIMIT_DATA counts."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmData")) * 1024


def child(command: dict) -> None:
    os.setsid()
    os.chdir(command["cwd"])
    for fd, path, flags in (
        (0, command.get("stdin") or os.devnull, os.O_RDONLY),
        (1, command["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, command["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        opened = os.open(path, flags, 0o666)
        os.dup2(opened, fd)
        os.close(opened)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)
    os.environ.update(command.get("env", {}))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if command.get("file_bytes") is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (command["file_bytes"], resource.RLIM_INFINITY))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python itself does at its start
    if command.get("more_memory") is not None:
        limit = data_bytes() + command["more_memory"]
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    if command.get("die_at"):
        die_at(command["die_at"], command["cwd"])
    from htfcli.app import main

    code = 70
    try:
        code = main(command["argv"])
        sys.stdout.flush()
    finally:
        os._exit(code)


def wait(pid: int, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.002)


def serve() -> None:
    import htfcli

    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(htfcli.__path__, "htfcli."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("rich.progress", "rich.table", "scipy.io", "pyarrow.parquet", "torch._dynamo", "matplotlib.figure"):
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    print("ready", file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            print(json.dumps(wait(request["wait"], request["seconds"])), file=answers)
            continue
        pid = os.fork()
        if pid == 0:
            answers.close()
            child(request["start"])
        print(pid, file=answers)


if __name__ == "__main__":
    serve()
