"""What is in a wheel: the package, all of it and nothing else, under 1 MiB. `check_wheel.py WHEEL`."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

LIMIT = 2**20  # bytes
ROOT = Path(__file__).parent.parent


def problems(wheel: Path) -> list[str]:
    """What is wrong with a wheel, a line each."""
    names = zipfile.ZipFile(wheel).namelist()
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "htfcli").rglob("*.py")}
    strays = [name for name in names if name not in modules and ".dist-info/" not in name]
    found = [f"{name} does not belong in it" for name in strays]
    found += [f"{name} is missing" for name in sorted(modules - set(names))]
    if not any(name.endswith("/licenses/LICENSE") for name in names):
        found.append("the licence is missing")
    if wheel.stat().st_size >= LIMIT:
        found.append(f"it has {wheel.stat().st_size} bytes, allowed under {LIMIT}")
    return found


if __name__ == "__main__":
    wrong = problems(Path(sys.argv[1]))
    print(*(f"{sys.argv[1]}: {problem}" for problem in wrong), sep="\n", end="\n" if wrong else "")
    sys.exit(bool(wrong))
