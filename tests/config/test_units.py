"""Times and sizes as people say them."""

from __future__ import annotations

import pytest

from htfcli.config.units import duration, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.0, "0 s"), (0.042, "0.042 s"), (0.61, "0.61 s"), (5.31, "5.3 s"), (59.94, "59.9 s"), (59.96, "1 min"),
        (60, "1 min"), (132.7, "2 min 13 s"), (3599.4, "59 min 59 s"), (3600, "1 h"), (12_000, "3 h 20 min"),
        (86_400, "1 d"), (86_400 + 7200, "1 d 2 h"), (20, "20 s"),
    ],
)  # fmt: skip
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1 KiB"), (2**20 - 1, "1 MiB"), (1_536_000, "1.46 MiB"), (2**50, "1.02e+03 TiB")],
)  # fmt: skip
def test_size(count, text):
    assert size(count) == text
