"""What a person sees: tables on narrow terminals, plain ones, and in locales that know no other characters than ASCII."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from htfcli.app import COMMANDS

WIDE = {
    "model": "reg",
    "measured": "receptive",
    "distance": 24,
    "dependence": 0.4401,
    "additive residual": 0.1734,
    "effective rank": 2.002,
}
TABLE = f"from htfcli.cli.console import RecordWriter\nw = RecordWriter('table', lambda r: r)\nw.write({WIDE})\nw.write({WIDE})\nw.close()"
ASCII = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def run(*args, cwd=None, **environment):
    return subprocess.run(
        [sys.executable, *args], capture_output=True, cwd=cwd, env={**os.environ, **environment}, check=False, timeout=120
    )  # fmt: skip


@pytest.mark.parametrize("columns", [20, 60, 100])
def test_tables_lose_nothing_on_narrow_terminals(columns):
    lines = run("-c", TABLE, COLUMNS=str(columns), PYTHONIOENCODING="utf-8").stdout.decode().splitlines()
    assert "…" not in "".join(lines)
    assert max(map(len, lines)) <= max(columns, 25)
    text = "\n".join(lines)
    assert text.count("0.1734") == text.count("receptive") == 2
    assert ("model: reg" in text) == (columns <= 60)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_sixty_columns_but_for_the_examples(name):
    args = (name, "tensor") if name == "generate" else (name,)
    text = run("-m", "htfcli", *args, "--help", COLUMNS="60").stdout.decode()
    assert max(map(len, text.split("Examples:")[0].splitlines())) <= 60


def test_no_color():
    code = TABLE.replace("w.close()", "import rich.console as c\nassert c.Console(force_terminal=True).no_color")
    assert run("-c", code, NO_COLOR="1").returncode == 0
    assert run("-c", code, NO_COLOR="").returncode == 1


def test_ascii_locales(tmp_path):
    """Names and labels that ASCII has not, in a file that is UTF-8, as arguments, in records, tables and narration."""
    rows = [f"Lä{i},{j},{(i + 1) * (j + 1)}" for i in range(4) for j in range(4) if (i, j) != (2, 2)]
    (tmp_path / "ü.csv").write_text("\n".join(["löc,döse,välue", *rows, "Lä2,2,"]) + "\n", encoding="utf-8")
    for extra in (["--format", "table"], ["--format", "csv"], ["--format", "jsonl"], ["-o", "-"]):
        args = ["complete", "ü.csv", "-o", "ö.csv", "--force", "--seconds", "1", *extra]
        done = run("-m", "htfcli", *args, cwd=tmp_path, **ASCII)
        assert done.returncode == 0, done.stderr
    assert "Lä2,2," in (tmp_path / "ö.csv").read_text(encoding="utf-8")
    done = run("-m", "htfcli", "fit", "ü.npy", "--modelü", cwd=tmp_path, **ASCII)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
