"""Tables, settings, records and command lines of any text, drawn by hypothesis: a result or a one-line error.

25 examples per test by default; `--hypothesis-profile=random` (.ci/nightly) draws others, 500 per test.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from htfcli.config.completion_run import CompletionRunConfig
from htfcli.config.plan import PlanConfig
from htfcli.config.tensors import FitConfig, TargetConfig
from htfcli.config.vision import MeasureLocalityConfig, TrainCnnConfig
from tests.faults.fuzzing import command, survives
from tests.faults.specimens import of_queries, of_table, plan, records

CONFIGS = (FitConfig, TargetConfig, CompletionRunConfig, TrainCnnConfig, MeasureLocalityConfig, PlanConfig)
EXAMPLES = settings.default.max_examples // 4


def many(share: float = 1.0):
    return settings(max_examples=round(EXAMPLES * share), suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("properties")


numbers = st.one_of(st.integers(), st.floats(), st.sampled_from([2**31, 2**62, 2**63, -1, 0, 1e308]))
fields = st.one_of(
    st.text(max_size=8), numbers.map(str), st.sampled_from(["", "nan", "NA", "1", "0", "x", '"', "#", "1e999", "1_0"])
)
scalars = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=10), st.dates(), st.binary(max_size=4))
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=12,
)
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=10)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@many()
@given(
    rows=st.lists(st.lists(fields, min_size=1, max_size=5), max_size=6),
    suffix=st.sampled_from([".csv", ".tsv", ".tns"]),
)
def test_tables(folder, rows, suffix):
    between = {".csv": ",", ".tsv": "\t", ".tns": " "}[suffix]
    path = folder / f"table{suffix}"
    path.write_text("\n".join(map(between.join, rows)), encoding="utf-8", errors="surrogatepass")
    for read in (of_table, of_queries):
        survives(folder, lambda read=read: read(str(path)))
    command(folder, "inspect", path)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.__name__)
def test_settings(folder, config):
    keys = sorted(config.model_fields)

    @many(0.6)
    @given(st.dictionaries(st.sampled_from(keys) | st.text(max_size=5), values, max_size=4))
    def check(drawn):
        path = folder / "settings.yaml"
        path.write_text(yaml.safe_dump(drawn), encoding="utf-8")
        survives(folder, lambda: config.resolve({}, [], str(path)))

    @many(0.6)
    @given(
        st.lists(st.tuples(st.sampled_from(keys), st.text(max_size=12) | numbers.map(str)).map("=".join), max_size=3)
    )
    def check_assignments(drawn):
        survives(folder, lambda: config.resolve({}, drawn, None))

    @many(0.6)
    @given(st.dictionaries(st.sampled_from(keys), st.text(max_size=12) | numbers.map(str), max_size=3))
    def check_flags(drawn):
        survives(folder, lambda: config.resolve(drawn, [], None))

    for function in (check, check_assignments, check_flags):
        function()


@many()
@given(text=st.text(max_size=80))
def test_any_text_as_settings(folder, text):
    path = folder / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    survives(folder, lambda: FitConfig.resolve({}, [], str(path)))
    survives(folder, lambda: plan(str(path)))


@many()
@given(
    grid=st.dictionaries(
        st.sampled_from(["lr", "width", "tree", "model", "seed", "x", "generate.rank"]),
        st.lists(values, max_size=3) | values,
        max_size=3,
    ),
    base=values,
    seeds=values,
)
def test_plans(folder, grid, base, seeds):
    if isinstance(seeds, int) and abs(seeds) > 1000:
        seeds = 3
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump({"data": "x.npy", "grid": grid, "base": base, "seeds": seeds}), encoding="utf-8")
    survives(folder, lambda: plan(str(path)))


@many()
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["kind", "iteration", "epoch", "nodes", "train_loss", "distance"]),
            st.sampled_from(["iteration", "epoch", "locality", "complete"]) | plain,
            max_size=6,
        ),
        max_size=4,
    )
)
def test_records(folder, drawn):
    path = folder / "drawn.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in drawn), encoding="utf-8")
    survives(folder, lambda: records(str(path)))
    command(folder, "inspect", path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # matplotlib's, of numbers that it cannot draw
@many(0.4)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["kind", "iteration", "epoch", "nodes", "train_loss", "test_error", "task_loss"]),
            st.sampled_from(["iteration", "epoch"]) | plain,
            min_size=2,
            max_size=6,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_records_that_are_plotted(folder, drawn):
    path = folder / "drawn.jsonl"
    path.write_text("".join(json.dumps({"kind": "iteration", "iteration": 0, **record}) + "\n" for record in drawn))
    command(folder, "plot", path, "-o", folder / "plot.png", "--force")


@many(0.4)
@given(
    st.lists(
        st.text(max_size=8).filter(lambda text: "\0" not in text)
        | st.sampled_from(
            [
                "inspect",
                "fit",
                "complete",
                "--help",
                "-o",
                "-",
                "--set",
                "lr=1",
                "--dims",
                "2,3",
                "generate",
                "tensor",
                "--print-config",
            ]
        ),
        max_size=5,
    )
)
def test_command_lines(folder, argv):
    argv = [word for word in argv if word not in ("-", "sweep", "reproduce", "train-cnn", "generate")]
    command(folder, "inspect", *argv)
    command(folder, "fit", "--print-config", *argv)


@many(0.3)
@given(order=numbers, dim=numbers, rank=numbers, observed=numbers.map(str) | st.text(max_size=6))
def test_targets(folder, order, dim, rank, observed):
    output = Path(folder) / "target.safetensors"
    command(
        folder,
        "generate",
        "tensor",
        f"--order={order}",
        f"--dim={dim}",
        f"--rank={rank}",
        f"--observed={observed}",
        "-o",
        output,
        "--force",
    )
    output.unlink(missing_ok=True)
