from __future__ import annotations

import numpy as np
import pytest

from htfcli.files.foreign.mat_arrays import mat_arrays

scipy_io = pytest.importorskip("scipy.io")


def test_numbers_are_mapped_and_the_rest_is_named_by_its_type(tmp_path, monkeypatch):
    array = np.arange(6.0).reshape(2, 3)
    scipy_io.savemat(
        tmp_path / "a.mat", {"X": array, "n": np.int16([[1, 2]]), "text": "abc", "cell": np.array([[1, "a"]], object)}
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "numpy.py").write_text("raise SystemExit('imported from the working folder')")
    with mat_arrays(tmp_path / "a.mat") as arrays:
        assert isinstance(arrays["X"], np.memmap)
        assert arrays["X"].tolist() == array.tolist()
        assert arrays["n"].dtype == np.int16
        assert [arrays[name].dtype.kind for name in ("text", "cell")] == ["U", "U"]


@pytest.mark.parametrize("content", [b"", b"junk" * 40])
def test_damaged_files(tmp_path, content):
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(ValueError, match=r"^[^\n]+$"), mat_arrays(tmp_path / "a.mat"):
        pass
