"""Arrays of .mat files, read by scipy in a separate process, as damaged files can crash it.

That process runs this file as a script, so its top level imports nothing of the package.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def mat_arrays(path: Path) -> Iterator[dict[str, Any]]:
    """Yield arrays by name, mapped from temporary files within the block; texts in place of other data than numbers.

    Raises:
        ValueError: if the file cannot be read, with the reason.
    """
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="htf-") as folder:
        # -P: import no modules from the working folder or the folder of this file
        reader = [sys.executable, "-P", str(Path(__file__).resolve()), str(path.resolve()), folder]
        done = subprocess.run(reader, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
        if done.returncode:
            raise ValueError(done.stderr.strip() if done.returncode == 1 else f"scipy crashed ({done.returncode})")
        names = json.loads((Path(folder) / "names.json").read_text(encoding="utf-8"))
        yield {name: np.load(Path(folder) / f"{n}.npy", mmap_mode="r") for n, name in enumerate(names)}


def _extract(path: str, folder: str) -> None:
    """Write the arrays of a .mat file as numbered .npy files, and a list of their names."""
    import numpy as np
    from scipy.io import loadmat

    loaded = {name: value for name, value in loadmat(path).items() if not name.startswith("__")}
    for number, value in enumerate(loaded.values()):
        numbers = isinstance(value, np.ndarray) and value.dtype.kind in "biufc"
        kept = value if numbers else np.array([[type(value).__name__]])
        np.save(Path(folder) / f"{number}.npy", kept, allow_pickle=False)
    (Path(folder) / "names.json").write_text(json.dumps(list(loaded)), encoding="utf-8")


if __name__ == "__main__":
    try:
        _extract(*sys.argv[1:])
    except Exception as error:  # scipy raises many kinds of errors for damaged files
        print((str(error) or type(error).__name__).splitlines()[0][:200], file=sys.stderr)
        sys.exit(1)
