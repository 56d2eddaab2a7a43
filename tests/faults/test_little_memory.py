"""Too little memory: one line says how much was needed and which option lowers it."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.faults.processes import whole

MIB = 1 << 20
INPUTS = {
    "big.npy": lambda path: np.save(path, np.zeros((64, 64, 64, 64))),
    "half.npy": lambda path: np.save(path, np.zeros((64, 64, 64, 32)) + np.arange(32.0)),
    "mask.npy": lambda path: np.save(path, np.random.default_rng(0).random((64, 64, 64, 32)) < 0.5),
    "big.csv": lambda path: path.write_text("".join(f"{i},{i},{i},1.5\n" for i in range(2_000_000))),
}
LATER = {"marks": pytest.mark.long}


@pytest.mark.parametrize(
    ("argv", "mib", "message"),
    [
        pytest.param("fit data.safetensors --width 3000 -o run", 64, r"(the factorization does not fit in memory \(got .*MiB, allowed .*\)\. Lower the widths|out of memory \(got .*iB more, .* free\)\. .*--width)", id="weights"),
        pytest.param("fit data.safetensors --width 1500 -o run", 64, r"out of memory \(got .*iB more, .* free\)\. .*--width", id="optimizer", **LATER),
        pytest.param("measure-rank big.npy", 40, r"big.npy does not fit in memory \(got shape \[64, 64, 64, 64\]: 128 MiB, allowed .*iB\)", id="npy"),
        pytest.param("measure-rank half.npy", 170, r"matricization \{\S+\} does not fit in memory \(got \d+ x \d+: 128 MiB, allowed .*iB\)\. Ask for smaller", id="matricization", **LATER),
        pytest.param("inspect big.csv", 40, r"out of memory \(.*free\)", id="csv", **LATER),
        pytest.param("generate tensor --order 6 --dim 12 --observed 2000000 -o x.safetensors", 64, r"out of memory \(got .*iB more, .* free\)", id="entries", **LATER),
        pytest.param("train-cnn pairs.safetensors --model resnet-mini --widths 512,512 --blocks 1,1 --batch-size 24 -o run", 120, r"out of memory on cpu, .*iB more asked for; lower --batch-size \(now 24\)", id="network"),
        pytest.param("complete half.npy --mask mask.npy --width 8 -o x.npy", 60, r"(out of memory \(got .*iB more, .*free\)|does not fit in memory \(got .*allowed)", id="mask", **LATER),
    ],
)  # fmt: skip
def test_little_memory(server, place, argv, mib, message, record_property):
    for name, make in INPUTS.items():
        if name in argv:
            make(place / name)
    ended = server.run(*argv.split(), cwd=place, more_memory=mib * MIB)
    assert ended.code == 1, ended
    assert re.search(message, ended.error), ended.error
    whole(place)
    record_property("fault", ("little memory", argv.split()[0], 1))
