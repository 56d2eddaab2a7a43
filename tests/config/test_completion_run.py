from __future__ import annotations

import re

import pytest

from htfcli.config.completion_run import CompletionRunConfig
from htfcli.errors import ConfigError


def test_columns():
    config = CompletionRunConfig.resolve({"index": "ligand, dose ,3", "value": "response"}, ["missing-value=-999"])
    assert (config.index, config.value, config.missing_value) == (["ligand", "dose", "3"], "response", -999)
    assert CompletionRunConfig.checked({"index": [0, 1], "value": 3}).value == "3"  # as YAML has them


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"index": []}, "index: not columns (got [], allowed names, as ligand,dose,cell)."),
        ({"variables": "gdp"}, "variables: not columns (got 'gdp', allowed two or more names, as gdp,pop)."),
        ({"index": "a,b", "value": "b"}, "a column can be one mode, the value or its error (got b twice)."),
        ({"index": "a,b,a"}, "a column can be one mode, the value or its error (got a twice)."),
        ({"duplicates": "first"}, "duplicates: input should be 'refuse' or 'mean' (got 'first')."),
    ],
)
def test_problems(values, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        CompletionRunConfig.checked(values)
