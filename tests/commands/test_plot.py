from __future__ import annotations

import pytest
from PIL import Image

from htfcli.experiments.figures.fits import plot_runs
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
    """The same records are the same bytes."""
    for kind, magic in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        for name in ("x", "y"):
            done = htf("plot", "a", "--what", "norms", "-o", f"{name}.{kind}")
            assert (done.code, done.out, done.err) == (0, "", f"wrote {name}.{kind}\n")
        content = (tmp_path / f"x.{kind}").read_bytes()
        assert content.startswith(magic)
        assert content == (tmp_path / f"y.{kind}").read_bytes()
    image = Image.open(tmp_path / "x.png").convert("L")
    assert image.size[0] > 1000
    assert image.getextrema() == (0, 255)


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
        ("a -o x.gif", 2, "unsupported picture format (got gif, allowed png, svg, pdf)."),
        ("a -o x", 2, "unsupported picture format (got no suffix, allowed png, svg, pdf)."),
        ("a -o x.png --what norm", 2, "unknown quantity to plot (got norm, allowed norms, singular-values, effective-rank, loss, error). Did you mean norms?"),
        ("a -o x.png --node x", 2, "not sets of modes (got x, allowed e.g. 0,2)."),
        ("a -o x.png --what norms --node 0,3", 1, "the records have no norms to plot (got {0,3}, allowed {0}, {1}, {2}, {3}, {0,1}, {2,3}, {0,1,2,3})."),
        ("c -o x.png", 1, "c has no records. Name a run folder or a file of records."),
        ("data.safetensors -o x.png", 1, "data.safetensors line 1 is not a record (got "),
        ("other.jsonl -o x.png", 1, "other.jsonl has no records of a run (got rank, allowed iteration, complete, epoch, locality, entanglement)."),
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
