from __future__ import annotations

import pytest

from htfcli.files.own.axes import Axis, as_number, axis_of, plain_axes


@pytest.mark.parametrize(
    ("labels", "ordered", "positions"),
    [
        (["10", "9", "100"], ["9", "10", "100"], [1, 0, 2]),
        (["0.5", "1e-3", "84"], ["1e-3", "0.5", "84"], [1, 0, 2]),
        (["2024-02-01", "2023-12-31", "2024-01-15"], ["2023-12-31", "2024-01-15", "2024-02-01"], [2, 0, 1]),
        (["Treg", "NK", "CD8+"], ["CD8+", "NK", "Treg"], [2, 1, 0]),
        (["10", "9", "x"], ["10", "9", "x"], [0, 1, 2]),  # one that is no number makes all of them text
        (["1.0", "2", "1"], ["1.0", "2"], [0, 1, 0]),  # numbers are told apart by value
        ([f"{2**60 + 1}", f"{2**60}"], [f"{2**60}", f"{2**60 + 1}"], [1, 0]),  # beyond the integers of a double
        (["1_0", "2"], ["1_0", "2"], [0, 1]),
        (["-1", "0"], ["-1", "0"], [0, 1]),
    ],
)
def test_order(labels, ordered, positions):
    axis, found = axis_of("dose", labels)
    assert [axis.label(i) for i in range(axis.size)] == ordered
    assert found == positions
    assert [axis.find(label) for label in labels] == positions


def test_plain_numbers_need_no_labels():
    axis, found = axis_of("i", ["2", "0", "1"])
    assert axis == Axis("i", 3)
    assert found == [2, 0, 1]
    assert axis_of("i", ["1", "2"])[0].labels == ("1", "2")


def test_find():
    dose = Axis("dose", 2, ("0.5", "10"))
    assert [dose.find(text) for text in ("0.50", "1e1", "10.0", "11", "x", "")] == [0, 1, 1, None, None, None]
    plain = Axis("i", 3, None, first=1)
    assert [plain.find(text) for text in ("1", "3", "3.0", "0", "4", "1.5", "x", "inf")] == [
        0,
        2,
        2,
        None,
        None,
        None,
        None,
        None,
    ]
    assert [plain.label(i) for i in range(3)] == ["1", "2", "3"]
    cell = Axis("cell", 2, ("NK", "7"))
    assert [cell.find(text) for text in ("NK", "7", "7.0")] == [0, 1, None]


def test_places():
    assert Axis("cell", 1, ("Treg",)).place(0) == "column cell, value 'Treg'"
    assert plain_axes((2, 3))[1].place(2) == "mode 1, index 2"
    assert Axis("user", 9).place(2) == "column user, value '2'"


def test_numbers():
    assert [as_number(text) for text in ("7", " 7 ", "7.5", "1_0", "x", "")] == [7, 7, 7.5, None, None, None]
