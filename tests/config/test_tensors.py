"""Settings of the commands on tensors."""

from __future__ import annotations

import pytest

from htfcli.config.tensors import FitConfig, TargetConfig, size_of
from htfcli.errors import ConfigError


def test_settings_of_the_other_solver():
    for settings in ({"lr": 0.1}, {"optimizer": "adam"}, {"batch_size": 5}):
        with pytest.raises(ConfigError, match="only for solver gradient"):
            FitConfig.checked({"solver": "second-order"} | settings)
    with pytest.raises(ConfigError, match="ridge: only for solver second-order"):
        FitConfig.checked({"ridge": 0.1})
    with pytest.raises(ConfigError, match="dtype: solver second-order computes in float64"):
        FitConfig.checked({"solver": "second-order", "dtype": "float32"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "tucker", "tree": "chain"}, "tree: only for model htf or hierarchical-tucker .got model tucker."),
        ({"model": "tensor-train", "depth": 2}, "depth: only for model matrix or tucker .got model tensor-train."),
        ({"model": "matrix", "depth": 1}, "depth: model matrix has two factors or more .got 1."),
        ({"model": "cp", "arity": 3}, "arity: only for model htf or hierarchical-tucker .got model cp."),
    ],
)
def test_settings_of_other_models(settings, message):
    with pytest.raises(ConfigError, match=message):
        FitConfig.checked(settings)


def test_depth_depends_on_the_model():
    depths = {model: FitConfig.checked({"model": model}).depth for model in ("matrix", "tucker", "tensor-train")}
    assert depths == {"matrix": 3, "tucker": 1, "tensor-train": 1}
    assert FitConfig.checked({"model": "htf", "depth": 3}).depth == 3  # saved by versions where it had one default


def test_trees_of_targets():
    with pytest.raises(ConfigError, match=r"tree: only for target htf or hierarchical-tucker \(got target tucker\)"):
        TargetConfig.checked({"target": "tucker", "tree": "chain"})
    assert TargetConfig.checked({"target": "hierarchical-tucker", "tree": "chain"}).tree == "chain"


def test_defaults_of_the_second_order_solver():
    config = FitConfig.checked({"solver": "second-order"})
    assert (config.dtype, config.record_every, config.iterations) == ("float64", 1, 1000)
    assert config.model_fields_set == {"solver"}
    assert FitConfig.checked({"solver": "second-order", "iterations": 5}).iterations == 5
    assert FitConfig().record_every == 100


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("2048", 2048), ("0", 0), ("0.5", 500), ("50%", 500), ("1.0", 1000), ("0.0", 0), ("1e-3", 1), ("12.5%", 125)],
)
def test_numbers_of_observations(text, wanted):
    assert size_of(text, 1000) == wanted


def test_a_fraction_of_a_number_beyond_doubles_is_exact():
    assert size_of("0.5", 4**1000) == 4**1000 // 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("many", "not a number of observations (got many, allowed a count such as 2048, or a fraction such as 0.5)."),
        ("1.5", "a fraction of observations is out of range (got 1.5, allowed 0.0 to 1.0)."),
        ("101%", "a fraction of observations is out of range (got 101%, allowed 0.0 to 1.0)."),
    ],
)
def test_what_is_no_number_of_observations(text, message):
    with pytest.raises(ConfigError) as error:
        size_of(text, 1000)
    assert str(error.value) == message


def test_sizes_may_be_numbers():
    config = TargetConfig.checked({"observed": 2048, "test": 0.25})
    assert (config.observed, config.test) == ("2048", "0.25")


@pytest.mark.parametrize(
    ("settings", "dims"),
    [
        ({}, (8, 8, 8, 8)),
        ({"order": 3, "dim": 5}, (5, 5, 5)),
        ({"dims": [2, 3]}, (2, 3)),
        ({"target": "matrix", "dim": 4}, (4, 4)),
    ],
)
def test_dimensions(settings, dims):
    assert TargetConfig.checked(settings).resolved_dims == dims


def test_rank_is_an_alias_of_width():
    """In scripts and files as on the command line; not both at once."""
    assert TargetConfig(rank=3) == TargetConfig(width=3)
    assert TargetConfig.checked({"rank": [2, 3]}).width == [2, 3]
    assert TargetConfig.resolve({"width": 4}, ["rank=3"]).width == 4
    assert TargetConfig.resolve({}, ["rank=3"]).model_fields_set == {"width"}
    with pytest.raises(ConfigError, match="rank and width are the same setting"):
        TargetConfig.checked({"rank": 3, "width": 3})
    with pytest.raises(ConfigError, match="unknown setting rank"):
        FitConfig.checked({"rank": 3})


def test_printed_settings_are_read_back(tmp_path):
    for config in (
        TargetConfig(width=[2, 3], observed="7"),
        FitConfig.checked({"solver": "second-order", "ridge": 0.1}),
    ):
        path = tmp_path / "c.yaml"
        path.write_text(config.to_yaml())
        assert type(config).resolve({}, path=str(path)) == config
