from __future__ import annotations

import io

import pytest
from PIL import Image

from htfcli.commands.plot import QUANTITY_NAMES
from htfcli.experiments.figures.fits import DEFAULT, QUANTITIES, plot_runs
from htfcli.files.own.records import load_records


@pytest.fixture
def runs(htf):
    htf("generate", "tensor", "--dim", 4, "--rank", 2, "-o", "data.safetensors")
    for name, options in (("a", ()), ("b", ("--init-std", 0.5, "--matricization", "0,2"))):
        done = htf(
            "fit", "data.safetensors", "--width", 4, "--iterations", 40, "--record-every", 5, *options, "-o", name
        )
        assert done.code == 0
    return ["a", "b"]


load = load_records


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def test_pictures(htf, runs, tmp_path):
    for kind, magic in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        done = htf("plot", "a", "-o", f"a.{kind}")
        assert (done.code, done.out, done.err) == (0, "", f"wrote a.{kind}\n")
        assert (tmp_path / f"a.{kind}").read_bytes().startswith(magic)
    image = Image.open(tmp_path / "a.png").convert("L")
    assert image.size[0] > 1000
    assert image.getextrema() == (0, 255)


def test_the_same_picture_is_the_same_bytes(htf, runs, tmp_path):
    for kind in ("png", "svg", "pdf"):
        htf("plot", "a", "-o", f"x.{kind}")
        htf("plot", "a", "-o", f"y.{kind}")
        assert (tmp_path / f"x.{kind}").read_bytes() == (tmp_path / f"y.{kind}").read_bytes()


def test_default_panels(htf, runs):
    figure = plot_runs([load("a")])
    assert titles(figure) == [
        "local components at {1, 2, 3, 4}",
        "local components at {1, 2}",
        "local components at {3, 4}",
        "matricization {1, 2}",
        "effective ranks",
        "loss",
    ]
    assert figure.axes[-1].get_yscale() == "log"
    assert figure.axes[0].get_yscale() == "linear"


def test_curves_are_the_records(htf, runs):
    run = load("a")
    figure = plot_runs([run], ["norms"], [[0, 1]], top=2)
    (axes,) = figure.axes
    assert axes.get_title() == "local components at {1, 2}"
    assert len(axes.lines) == 2
    first = axes.lines[0]
    norms = [next(n for n in r["nodes"] if n["node"] == "{0,1}")["component_norms"][0] for r in run.records]
    assert first.get_xdata().tolist() == [r["iteration"] for r in run.records]
    assert first.get_ydata().tolist() == norms


def test_runs_side_by_side(htf, runs):
    figure = plot_runs([load("a"), load("b")], ["singular-values", "error"], [[0, 2], [3]], log_x=True, log_y=True)
    assert titles(figure) == [
        "a\nmatricization {1, 3}",
        "b\nmatricization {1, 3}",
        "a\nmatricization {4}",
        "b\nmatricization {4}",
        "a\nrelative error",
        "b\nrelative error",
    ]
    assert len(figure.axes[0].lines) == 0  # only b recorded it
    assert len(figure.axes[1].lines) == 10
    assert all(axes.get_xscale() == "symlog" and axes.get_yscale() == "log" for axes in figure.axes)


def test_order_two_shows_its_only_matricization(htf):
    htf("generate", "tensor", "--target", "matrix", "--dims", "6,5", "--rank", 2, "-o", "m.safetensors")
    htf("fit", "m.safetensors", "--model", "matrix", "--iterations", 20, "-o", "m")
    assert titles(plot_runs([load("m")])) == [
        "local components at {1, 2}",
        "matricization {1}",
        "effective ranks",
        "loss",
    ]


def test_options_reach_the_figure(htf, runs, tmp_path):
    args = ("--what", "norms", "--what", "error", "--node", "{0,1}", "--top", 1, "--log-y", "-o", "x.svg")
    assert htf("plot", "a", "b", *args).code == 0
    assert htf("plot", "a", "-o", "x.svg").error.startswith("x.svg exists.")
    assert htf("plot", "a", "-o", "x.svg", "--force").code == 0


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ("a -o x.gif", 2, "pictures are not written in this format (got gif, allowed png, svg, pdf)."),
        ("a -o x", 2, "pictures are not written in this format (got no suffix, allowed png, svg, pdf)."),
        ("a -o x.png --what norm", 2, "unknown quantity to plot (got norm, allowed norms, singular-values, effective-rank, loss, error). Did you mean norms?"),
        ("a -o x.png --node x", 2, "not sets of modes (got x, allowed e.g. 0,2)."),
        ("a -o x.png --what norms --node 0,3", 1, "the records have no norms to plot (got {0,3}, allowed {0}, {1}, {2}, {3}, {0,1}, {2,3}, {0,1,2,3})."),
        ("c -o x.png", 1, "c has no records. Name a run folder or a file of records."),
        ("data.safetensors -o x.png", 1, "data.safetensors line 1 is not a record (got "),
        ("other.jsonl -o x.png", 1, "other.jsonl has no records of a run (got rank, allowed iteration, complete, epoch, locality)."),
        ("bad.jsonl -o x.png", 1, "bad.jsonl line 2 is not a record (got '[3]')."),
        ("a -o no/x.png", 1, "cannot write no/x.png: No such file or directory."),
    ],
)  # fmt: skip
def test_bad_usage(htf, runs, tmp_path, args, code, message):
    (tmp_path / "other.jsonl").write_text('{"kind": "rank"}\n')
    (tmp_path / "bad.jsonl").write_text('{"kind": "iteration", "iteration": 0}\n[3]\n')
    done = htf("plot", *args.split())
    assert done.code == code
    assert done.error.startswith(message)
    assert not any(path.name.startswith("x") for path in tmp_path.iterdir())


def test_records_cut_off_by_a_kill(htf, runs, tmp_path):
    text = (tmp_path / "a/records.jsonl").read_text()
    (tmp_path / "cut.jsonl").write_text(text[:-20])
    assert len(load(str(tmp_path / "cut.jsonl")).records) == len(load("a").records) - 1


def test_help_names_the_quantities():
    assert tuple(QUANTITIES) == QUANTITY_NAMES
    assert set(QUANTITIES) - set(DEFAULT) == {"error"}


def test_picture_in_memory(htf, runs):
    from htfcli.experiments.figures.style import render

    assert Image.open(io.BytesIO(render(plot_runs([load("a")]), "png"))).format == "PNG"
