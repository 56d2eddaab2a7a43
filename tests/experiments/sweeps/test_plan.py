"""The runs of a plan: their order, names, settings and data."""

from __future__ import annotations

import pytest

from htfcli.config.plan import PlanConfig
from htfcli.config.tensors import FitConfig
from htfcli.errors import ConfigError
from htfcli.experiments.sweeps.plan import planned_runs, read_plan


def runs(**plan):
    return planned_runs(PlanConfig.checked({"data": "x.npy", **plan}))


def test_grid_varies_slowest_and_seeds_fastest():
    found = runs(grid={"lr": [0.1, 0.2]}, zip={"width": [2, 3], "top": [None, 4]}, seeds=2)
    assert [run.name for run in found[:5]] == [
        "lr=0.1_width=2_seed=0", "lr=0.1_width=2_seed=1", "lr=0.1_width=3_seed=0", "lr=0.1_width=3_seed=1",
        "lr=0.2_width=2_seed=0",
    ]  # fmt: skip
    assert found[2].varied == {"lr": 0.1, "width": 3, "top": 4, "seed": 0}
    assert (found[0].settings.top, found[2].settings.top) == (FitConfig().top, 4)  # null leaves the default


def test_names_have_the_keys_that_tell_rows_apart():
    found = runs(zip={"init_std": [0.1, 0.1], "lr": [0.1, 0.2], "top": [1, 2]})
    assert [run.name for run in found] == ["init-std=0.1_lr=0.1_seed=0", "init-std=0.1_lr=0.2_seed=0"]
    assert [run.name for run in runs(grid={"tree": ["[[0, 1], 2]", None]})] == [
        "tree=0-1-2_seed=0",
        "tree=default_seed=0",
    ]


def test_runs_with_the_same_data_share_a_file():
    generated = PlanConfig.checked(
        {"generate": {"dim": 4}, "grid": {"generate.rank": [1, 2], "lr": [0.1, 0.2]}, "seeds": 2}
    )
    found = planned_runs(generated)
    names = [run.data_name for run in found]
    assert len(set(names)) == 4
    assert all(name.startswith("htf-") for name in names)
    by_data = {(run.target.width, run.target.seed): run.data_name for run in found}
    assert [by_data[run.target.width, run.target.seed] for run in found] == names
    assert runs()[0].data_name is None
    assert runs()[0].data.endswith("/x.npy")


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"grid": {"tree": ["a b", "a-b"]}}, "two runs would have the same folder"),
        ({"base": {"lr": -1}}, "lr: input should be greater than 0 (got -1), in run seed=0."),
        ({"grid": {"tree": ["x" * 160]}}, "a run's folder name is too long (got 172 characters"),
    ],
)
def test_wrong_plans(plan, message):
    with pytest.raises(ConfigError) as error:
        runs(**plan)
    assert str(error.value).startswith(message)


def test_plans_of_files_and_folders(tmp_path):
    (tmp_path / "plan.yaml").write_text("data: x.npy\nseeds: 3\n")
    assert (
        read_plan(str(tmp_path)) == read_plan(str(tmp_path / "plan.yaml")) == PlanConfig(data="x.npy", seeds=[0, 1, 2])
    )
