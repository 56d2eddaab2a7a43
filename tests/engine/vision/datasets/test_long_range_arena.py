from __future__ import annotations

import pytest

from htfcli.config.images import PathfinderConfig
from htfcli.engine.vision.datasets.long_range_arena import find_level, level_of, lines_of, read_lines
from htfcli.errors import DataError


def test_lines_as_the_readers_take_them_apart():
    about = PathfinderConfig(profile="lra-128").model_dump(mode="json")
    first, second = lines_of([1, 0], about, 7)
    assert first == "imgs/7 sample_0.png 0 1 1.8 14 4 5 1.5 2,3 1"
    assert second.split()[:4] == ["imgs/7", "sample_1.png", "1", "0"]
    assert level_of(14) == "curv_contour_length_14"
    assert level_of(6) == "curv_baseline"


def tree(folder, lines, images=()):
    (folder / "metadata").mkdir(parents=True)
    (folder / "imgs/0").mkdir(parents=True)
    (folder / "metadata/0.npy").write_bytes(lines)
    for name in images:
        (folder / "imgs/0" / name).write_bytes(b"x")


def test_folders_come_by_number_and_empty_files_are_left_out(tmp_path):
    tree(tmp_path, b"imgs/0 a.png 0 1\nimgs/0 b.png 1 0\n", ["a.png"])
    (tmp_path / "imgs/0/b.png").touch()
    for number in (10, 9):
        (tmp_path / f"metadata/{number}.npy").write_text(f"imgs/{number} a.png 0 {number % 2}\n")
        (tmp_path / f"imgs/{number}").mkdir()
        (tmp_path / f"imgs/{number}/a.png").write_bytes(b"x")
    files, labels = read_lines(tmp_path)
    assert [str(f.relative_to(tmp_path)) for f in files] == ["imgs/0/a.png", "imgs/9/a.png", "imgs/10/a.png"]
    assert labels == [1, 1, 0]


def test_where_the_tree_is(tmp_path):
    assert find_level(tmp_path) is None
    assert find_level(tmp_path / "nothing") is None
    tree(tmp_path / "p/curv_contour_length_9", b"")
    assert (
        find_level(tmp_path / "p")
        == find_level(tmp_path / "p/curv_contour_length_9")
        == tmp_path / "p/curv_contour_length_9"
    )
    tree(tmp_path / "p/curv_contour_length_14", b"")
    with pytest.raises(DataError) as error:
        find_level(tmp_path / "p")
    assert "has paths of several lengths (got curv_contour_length_14, curv_contour_length_9)" in str(error.value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (b"", "has no images"),
        (b"imgs/0 a.png 0\n", "is damaged (got line 1: imgs/0 a.png 0, allowed imgs/0 sample_0.png 0 1 ...)"),
        (b"imgs/0 a.png 0 1\nimgs/0 a.png 0 2\n", "is damaged (got line 2: imgs/0 a.png 0 2, allowed"),
        (b"imgs/0 b.png 0 1\n", "names a file that is missing"),
        (b"imgs/0 " + b"b" * 300 + b".png 0 1\n", "names a file that is missing (got line 1: imgs/0 bbb"),
        (b"imgs/0 b\x00.png 0 1\n", "names a file that is missing"),
        (b"../.. secret.png 0 1\n", "is damaged"),
        (b"\x93NUMPY\x01\x00", "is not text"),
    ],
)
def test_damaged_trees(tmp_path, lines, message):
    tree(tmp_path, lines, ["a.png"])
    with pytest.raises(DataError) as error:
        read_lines(tmp_path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_absolute_paths_are_refused(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"x")
    tree(tmp_path / "t", f"{tmp_path} secret.png 0 1\n".encode())
    with pytest.raises(DataError, match="is damaged"):
        read_lines(tmp_path / "t")
