from __future__ import annotations

import io

import matplotlib
import pytest
from PIL import Image

from htfcli.errors import ConfigError
from htfcli.experiments.figures.style import STYLE, kind_of, new_figure, panel_grid, refuse_unknown, render


def test_unknown_quantities():
    refuse_unknown(["loss", "norms"], ["norms", "loss"])
    with pytest.raises(ConfigError) as error:
        refuse_unknown(["loss", "norm"], {"norms": 1, "loss": 2})
    assert str(error.value) == "unknown quantity to plot (got norm, allowed norms, loss). Did you mean norms?"


@pytest.mark.parametrize(("path", "kind"), [("a.PNG", "png"), ("b/c.svg", "svg"), ("x.pdf", "pdf"), ("-", "png")])
def test_formats(path, kind):
    assert kind_of(path) == kind


@pytest.mark.parametrize(("path", "got"), [("a.gif", "gif"), ("a", "no suffix")])
def test_formats_that_are_not_written(path, got):
    with pytest.raises(ConfigError) as error:
        kind_of(path)
    assert str(error.value) == f"unsupported picture format (got {got}, allowed png, svg, pdf)."


@pytest.mark.parametrize(("kind", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_same_figure_is_the_same_bytes(kind, magic):
    def drawn():
        with new_figure(2, 1, dpi=100) as figure:
            figure.add_subplot().plot([1, 2], [3, 4])
        return render(figure, kind)

    assert drawn() == drawn()
    assert drawn().startswith(magic)


def test_size():
    with new_figure(2, 1, dpi=100) as figure:
        pass
    assert Image.open(io.BytesIO(render(figure, "png"))).size == (200, 100)


def test_a_grid_of_panels():
    with panel_grid(5, 3, 2.0, 1.5) as (figure, panels):
        assert matplotlib.rcParams["axes.titlesize"] == STYLE["axes.titlesize"]
        places = [axes.get_subplotspec() for axes in panels]
    assert [(place.rowspan.start, place.colspan.start) for place in places] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert tuple(figure.get_size_inches()) == pytest.approx((6.4, 3.2))
    assert matplotlib.rcParams["axes.titlesize"] != STYLE["axes.titlesize"]
