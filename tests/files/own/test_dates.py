from __future__ import annotations

import pytest

from htfcli.files.own.axes import Axis, axis_of
from htfcli.files.own.dates import as_days


@pytest.mark.parametrize(
    ("labels", "gaps"),
    [
        (["2024-01-31", "2024-03-01"], 30),
        (["2024-01-31T06:00", "2024-01-31 18:00:00"], 0.5),
        (["2024-01-31T06:00:00+02:00", "2024-01-31T06:00:00Z"], 2 / 24),
        (["2023-02", "2023-03"], 28),
        (["2024Q1", "2024-Q2"], 91),
        (["2024/01/31", "2024/02/01"], 1),
        (["31.01.2024", "01.02.2024"], 1),
        (["Jan 2024", "Mar 2024"], 60),
        (["31 Jan 2024", "1 Feb 2024"], 1),
        (["06:30", "18:30"], 0.5),
        (["31/01/2024", "01/02/2024"], 1),  # only days first fit both
        (["01/31/2024", "02/01/2024"], 1),
        (["2024-W05", "2024-W06"], 7),
    ],
)
def test_gaps_in_days(labels, gaps):
    first, second = as_days(labels)
    assert second - first == pytest.approx(gaps)


@pytest.mark.parametrize(
    "labels", [[], ["a"], ["2024-01-31", "soon"], ["2024-13-01"], ["01/02/2024", "03/04/2024"], ["Q1"], ["12-a"]]
)
def test_no_dates(labels):
    assert as_days(labels) is None


def test_dates_stand_in_the_order_of_time():
    axis, position = axis_of("day", ["01.02.2024", "31.01.2024", "15.01.2024"])
    assert axis.labels == ("15.01.2024", "31.01.2024", "01.02.2024")
    assert position == [2, 1, 0]
    days = axis.positions()
    assert [day - days[0] for day in days] == [0, 16, 17]


@pytest.mark.parametrize(
    ("labels", "positions"),
    [
        (["10", "2", "2.5"], [2, 2.5, 10]),
        (["0", "1", "2"], [0, 1, 2]),
        (["a", "b"], None),
        ([str(10**400), "1"], None),  # no double is as large
        ([str(2**60), str(2**60 + 1)], None),  # two labels at one place
        (["2024-01-01", "2024-01-01T00:00"], None),
    ],
)
def test_positions(labels, positions):
    assert axis_of("x", labels)[0].positions() == positions


def test_positions_of_plain_indices():
    assert Axis("0", 3, None, 1).positions() == [1, 2, 3]


def test_text_as_it_was_met():
    assert axis_of("level", ["low", "mid", "high"], as_met=True)[0].labels == ("low", "mid", "high")
    assert axis_of("level", ["low", "mid", "high"])[0].labels == ("high", "low", "mid")
    assert axis_of("level", ["10", "9"], as_met=True)[0].labels == ("9", "10")
