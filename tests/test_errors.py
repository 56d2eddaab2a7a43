from __future__ import annotations

import pytest

from htfcli.errors import ConfigError, DataError, HtfError, Interrupted, RunError, did_you_mean, printable


@pytest.mark.parametrize(
    ("what", "values", "message"),
    [
        ("a is wrong", {}, "a is wrong."),
        ("which one?", {}, "which one?"),
        ("a is wrong", {"got": 0}, "a is wrong (got 0)."),
        ("a is wrong", {"got": "", "allowed": "1 to 2", "next_step": "Change it."}, "a is wrong (got , allowed 1 to 2). Change it."),
        ("a\nb is wrong", {"next_step": "\x1b[2J"}, "a\\nb is wrong. \\x1b[2J"),
    ],
)  # fmt: skip
def test_messages_are_one_line(what, values, message):
    assert str(HtfError(what, **values)) == message


def test_exit_codes():
    assert [error.exit_code for error in (ConfigError, DataError, RunError, Interrupted)] == [2, 1, 1, 130]


def test_printable():
    assert printable("Köln, 手") == "Köln, 手"
    assert printable("a\rb\u202ec") == "a\\rb\\u202ec"


@pytest.mark.parametrize(
    ("name", "known", "guess"),
    [
        ("widht", ["depth", "width"], "Did you mean width? "),
        ("lr-rate", ["width", "lr"], "Did you mean lr? "),
        ("learning-rate", ["width", "lr"], "Did you mean lr? "),
        ("xyz", ["width", "lr"], ""),
        ("xyz", [], ""),
    ],
)
def test_did_you_mean(name, known, guess):
    assert did_you_mean(name, known) == guess
