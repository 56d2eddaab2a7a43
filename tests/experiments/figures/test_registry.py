from __future__ import annotations

import pytest

from htfcli.errors import ConfigError, DataError
from htfcli.experiments.figures.registry import FIGURES, PlotOptions, draw
from htfcli.files.own.records import KINDS, Records


def run(kind, **more):
    return Records("r", [{"kind": kind, **more}])


def test_every_kind_of_record_has_a_figure():
    assert FIGURES.keys() == KINDS.keys()


def test_one_kind_at_a_time():
    with pytest.raises(ConfigError) as error:
        draw([run("epoch"), run("iteration"), run("epoch")], PlotOptions())
    assert str(error.value) == "runs of different kinds cannot share a figure (got epoch and iteration)."


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("epoch", PlotOptions(top=3), "--what, --node, --top, --log-x and --log-y are for other records (got epoch)."),
        (
            "locality",
            PlotOptions(["loss"]),
            "--what, --node, --top, --log-x and --log-y are for other records (got locality).",
        ),
        (
            "complete",
            PlotOptions(log_y=True),
            "--node, --top, --log-x and --log-y are for records of fits (allowed --what).",
        ),
    ],
)
def test_options_of_other_kinds(kind, options, message):
    with pytest.raises(ConfigError) as error:
        draw([run(kind)], options)
    assert str(error.value) == message


def test_records_that_lack_something():
    with pytest.raises(DataError, match=r"the records of r are not as htf writes them \(got KeyError\('iteration'\)\)"):
        draw([run("iteration", train_loss=1.0)], PlotOptions())
