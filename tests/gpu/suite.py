"""The tests that need a GPU."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.gpu.setting import ROOT, Row, Setting, output_of, python

NAME, TITLE, SHARE = "suite", "Tests", 0.12
ABOUT = "`pytest -m cuda`, without the warnings of other versions of torch counting as errors."


def rows(setting: Setting) -> Iterator[Row]:
    files = sorted(
        str(p.relative_to(ROOT)) for p in (ROOT / "tests").rglob("test_*.py") if "mark.cuda" in p.read_text()
    )
    options = ["-m", "cuda", "-n", "0", "-q", "-p", "no:cacheprovider", "-W", "default"]
    code, said = output_of(python("-m", "pytest", *options, *files), setting.left)
    (setting.out / "suite.txt").write_text(said)
    last = re.findall(r"(\d+) (passed|failed|skipped|errors?)", said.strip().splitlines()[-1] if said.strip() else "")
    counts = {what.rstrip("s") if what.startswith("error") else what: int(count) for count, what in last}
    ended = "stopped at the time limit" if code is None else f"exit code {code}"
    yield {"ended": ended, **{k: counts.get(k, 0) for k in ("passed", "failed", "error", "skipped")}}
