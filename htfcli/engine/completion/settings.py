"""Every number that decides how a tensor is filled, with its reason and the case that moves with it."""

from __future__ import annotations

from dataclasses import dataclass, replace

BLOCK = 2**22  # numbers in the largest temporaries, 32 MB


@dataclass(frozen=True)
class Settings:
    """Numbers of the completion engine.

    Cases are those of tests/benchmarks: complete_real (gapminder, weather, ratings, photo, flights, Titanic),
    complete_accuracy (A to G, il2, kinetic) and complete_scale (10^5, 10^6, 10^7).
    """

    # Sizes
    # observations under which the mean is all that can be said, and held-out ones of a kind of holes under which they
    # say nothing of it (cases 07)
    fewest: int = 8
    most_cells: int = 2**25  # of a tensor whose cells are kept in a table, 128 MB, for kinds of holes (10^6 has more)
    most_selected: int = 1_000_000  # observations that members are chosen on; more go into the last fit only (10^7)
    # observations from which float32 will do, and nothing is tried that takes longer than a factorization: effects of
    # pairs, outliers, exact solutions, links, other trees and widths; and held-out entries at most (10^5, 10^6)
    many: int = 100_000
    few: int = 3_000  # under which there are several splits, and restarts: a second each (flights; B, E)
    # Kinds of holes
    least_kind: float = 0.04  # share of the wanted entries that makes a kind of holes (gapminder: the year is .05)
    # Units
    # of variables' deviations in tensors and counts: beyond, squares of the smaller are nothing (il2 has 17)
    least_ratio: float = 30.0
    # Wide factorizations
    least_effects: float = 0.98  # error of effects over that of zeros, from which they are tried below members (10^6)
    width: int = 12  # far above the ranks of most tables, cheap enough for five seconds (gapminder, weather)
    first_ridge: float = 0.5  # enough to keep a start from swamps, too little to kill its components (weather)
    ridge_step: float = 2.0  # fine enough that the best ridge is hardly missed (gapminder)
    least_ridge: float = 1e-3  # below, the way is that to an exact solution (flights end at .01)
    first_sweeps: int = 12  # from a random start, which needs more than a warm one (weather)
    sweeps: int = 5  # at a further ridge, from the last one, which is near (gapminder)
    # gain of a sweep, over the objective, under which a ridge is left: half of it takes a third longer for the same
    # error (weather), half as much again has more (flights)
    slow: float = 2e-3
    near: float = 1.3  # error of a tree after its first sweeps, over the best tree's, up to which it goes on (flights)
    most_members: int = 3  # trees that go on: a fourth takes a sixth of the time for half a percent (weather)
    widenings: int = 1  # times that the best tree gets half as many components again, where they are used up (flights)
    smooth: float = 3.0  # penalty along ordered modes over the ridge, where held-out entries ask for it (gapminder)
    # Interpolation
    ordered: float = 0.75  # squared difference of neighbours over that of a fibre, under which a mode may be ordered
    neighbours: int = 16  # of a query; half as many again where the indices of a further mode err alike (photo)
    queries: int = 500  # held-out entries that choose a kernel: enough to tell lengths apart (weather)
    # Averages
    power: float = 6.0  # how fast a worse member loses its part of equal weights: twice the error leaves 1/64
    # Exact solutions
    noisy: float = 0.025  # relative error from which that is noise; under it more is tried (C: .02; kinetic: .03)
    restarts: int = 2  # from other weights, where a model is nearly exact and no exact one is near it (B, G)
    # relative error on train and held-out entries from which an exact solution is looked for: that of small tables
    # after a few sweeps (12 x 4 of rank 1)
    nearly: float = 0.15

    def for_effort(self, effort: str) -> Settings:
        """quick: two trees; thorough: all trees, wider, finer."""
        if effort == "quick":
            return replace(self, most_members=2, sweeps=4, queries=300)
        if effort == "thorough":
            return replace(
                self,
                most_members=8,
                widenings=3,
                first_sweeps=30,
                sweeps=12,
                width=20,
                near=2.0,
                slow=1e-4,
                queries=2000,
            )
        return self


SETTINGS = Settings()
