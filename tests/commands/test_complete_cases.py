"""`htf complete` with the real engine, on small inputs whose right answers are known."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest


def low_rank(dims, rank, seed, positive=False):
    generator = np.random.default_rng(seed)
    factors = [generator.random((d, rank)) if positive else generator.standard_normal((d, rank)) for d in dims]
    total = np.zeros(dims)
    for k in range(rank):
        term = factors[0][:, k]
        for factor in factors[1:]:
            term = np.multiply.outer(term, factor[:, k])
        total += term
    return total


def holed(values, share, seed):
    """The values with a share of them shown."""
    return np.where(np.random.default_rng(seed).random(values.shape) < share, values, np.nan)


def off(filled, truth, holes):
    return np.linalg.norm((filled - truth)[holes]) / np.linalg.norm(truth[holes])


def run(htf, tmp_path, shown, *options, name="in"):
    """Completes an array; the filled one, and the summary."""
    np.save(tmp_path / f"{name}.npy", shown)
    done = htf("complete", f"{name}.npy", "-o", f"{name}.out.npy", "-q", "--force", *options)
    assert done.code == 0, done.err
    return np.load(tmp_path / f"{name}.out.npy"), done.records[0]


# --- right values -----------------------------------------------------------------------------------------------------------


def test_variables_in_their_own_units(htf, tmp_path):
    """Pa, m/s and mm: each is filled to a few times its noise of 2 %, and the error of each is said."""
    unit = np.array([1e5, 5.0, 0.5])
    truth = low_rank((10, 3, 24), 2, 7, positive=True)
    truth *= unit[:, None] / np.sqrt(np.square(truth).mean((0, 2)))[:, None]
    noise = 0.02 * unit[:, None] * np.random.default_rng(1).standard_normal(truth.shape)
    shown = holed(truth + noise, 0.6, 2)
    filled, summary = run(htf, tmp_path, shown)
    holes = np.isnan(shown)
    for variable in range(3):
        assert off(filled[:, variable], truth[:, variable], holes[:, variable]) < 0.06
    assert summary["units"]["mode"] == "1"
    assert [one["label"] for one in summary["per_index"]] == ["0", "1", "2"]
    assert all(one["error"] < 0.5 * one["baseline"] for one in summary["per_index"])


@pytest.fixture
def spikes():
    """Rank 2, 2 % noise, 2 % of the entries thirty deviations too large: truth, and what is shown."""
    truth = low_rank((14, 12, 10), 2, 6)
    generator = np.random.default_rng(10)
    noisy = truth + 0.02 * truth.std() * generator.standard_normal(truth.shape)
    noisy = np.where(generator.random(truth.shape) < 0.02, noisy + 30 * truth.std(), noisy)
    return truth, holed(noisy, 0.5, 11)


def test_spikes_are_found(htf, tmp_path, spikes):
    truth, shown = spikes
    filled, summary = run(htf, tmp_path, shown)
    assert off(filled, truth, np.isnan(shown)) < 0.01 or any("outlier" in text for text in summary["warnings"])


def test_a_robust_loss_that_is_asked_for(htf, tmp_path, spikes):
    truth, shown = spikes
    filled, _ = run(htf, tmp_path, shown, "--loss", "huber", "--width", 2)
    assert off(filled, truth, np.isnan(shown)) < 0.02


def test_structure_is_no_outlier(htf, tmp_path):
    """Two large countries among fifty: their values are far from all others, but not from each other."""
    generator = np.random.default_rng(3)
    size = np.exp(generator.standard_normal(50))
    size[:2] *= 200
    truth = size[:, None] * (1 + 0.02 * np.arange(12)) * np.exp(0.02 * generator.standard_normal((50, 12)))
    shown = holed(truth, 0.7, 4)
    filled, _ = run(htf, tmp_path, shown)
    assert off(filled, truth, np.isnan(shown)) < 0.1


def test_deviations_and_intervals_hold_what_they_say(htf, tmp_path):
    """Of entries that were hidden, with their noise: about 95 % within two deviations, 90 % inside the interval."""
    truth = low_rank((15, 6, 20), 2, 4, positive=True)
    noisy = truth + 0.1 * truth.std() * np.random.default_rng(0).standard_normal(truth.shape)
    shown = holed(noisy, 0.5, 3)
    holes = np.isnan(shown)
    filled, summary = run(htf, tmp_path, shown, "--uncertainty", "std.npy", "--interval", 0.9)
    residual, std = np.abs(filled - noisy)[holes], np.load(tmp_path / "std.npy")[holes]
    assert 0.88 < np.mean(residual < 2 * std) < 0.995
    lower, upper = (np.load(tmp_path / f"in.out.{end}.npy")[holes] for end in ("lower", "upper"))
    assert 0.82 < np.mean((lower <= noisy[holes]) & (noisy[holes] <= upper)) < 0.97
    assert 0.7 < summary["held_out_error"] / off(filled, noisy, holes) < 1.4


def test_noise_has_nothing_to_learn(htf, tmp_path):
    truth = 1 + 4 * np.random.default_rng(1).random((9, 9, 9))
    shown = holed(truth, 0.15, 2)
    filled, summary = run(htf, tmp_path, shown, "--uncertainty", "std.npy")
    holes = np.isnan(shown)
    assert off(filled, truth, holes) < 1.08 * off(np.full_like(truth, np.nanmean(shown)), truth, holes)
    assert summary["r2"] is None or summary["r2"] < 0.2
    assert any("mean" in text for text in summary["warnings"])
    assert np.mean(np.abs(filled - truth)[holes] < 2 * np.load(tmp_path / "std.npy")[holes]) > 0.9


def test_ratings_are_no_worse_than_by_effects_of_users_and_items(htf, tmp_path):
    generator = np.random.default_rng(5)
    user, item = 0.6 * generator.standard_normal(40), 0.6 * generator.standard_normal(30)
    score = (
        3.4 + user[:, None] + item + 0.5 * generator.standard_normal((40, 2)) @ generator.standard_normal((2, 30)) / 2
    )
    rated = np.clip(np.round(score + 0.6 * generator.standard_normal(score.shape)), 1, 5)
    shown, truth = holed(rated, 0.25, 6), np.clip(score, 1, 5)
    filled, _ = run(htf, tmp_path, shown)
    holes = np.isnan(shown)
    of_user, of_item, mean = np.zeros(40), np.zeros(30), np.nanmean(shown)
    for _ in range(30):
        of_user = np.nansum(shown - mean - of_item, 1) / ((~holes).sum(1) + 2)
        of_item = np.nansum(shown - mean - of_user[:, None], 0) / ((~holes).sum(0) + 2)
    effects = mean + of_user[:, None] + of_item
    assert np.linalg.norm((filled - truth)[holes]) < 1.03 * np.linalg.norm((effects - truth)[holes])
    assert filled.min() >= 1 and filled.max() <= 5


def test_nearly_constant_ratings_stay_on_their_scale(htf, tmp_path):
    shown = np.full((8, 8, 3), np.nan)
    place = np.random.default_rng(0).permutation(192)[:70]
    shown.flat[place] = 4.0
    shown.flat[place[:3]] = [1, 2, 5]
    filled, summary = run(htf, tmp_path, shown)
    assert filled.min() >= 1 and filled.max() <= 5
    assert np.abs(filled[np.isnan(shown)] - 4).mean() < 0.5
    assert summary["r2"] is None or summary["r2"] < 0.5


def test_effects_alone_are_found(htf, tmp_path):
    generator = np.random.default_rng(0)
    parts = [2 * generator.standard_normal(20), generator.standard_normal(15), generator.standard_normal(8)]
    truth = 10 + parts[0][:, None, None] + parts[1][:, None] + parts[2]
    shown = holed(truth + 0.5 * generator.standard_normal(truth.shape), 0.08, 3)
    holes = np.isnan(shown)
    filled, _ = run(htf, tmp_path, shown)
    at = np.argwhere(~holes)
    design = np.zeros((len(at), 44))
    design[:, 0] = 1
    for row, (i, j, k) in enumerate(at):
        design[row, [1 + i, 21 + j, 36 + k]] = 1
    w = np.linalg.lstsq(design, shown[~holes], rcond=None)[0]
    least_squares = w[0] + w[1:21][:, None, None] + w[21:36][:, None] + w[36:]
    assert off(filled, truth, holes) < 1.2 * off(least_squares, truth, holes)


def test_an_index_without_observations_is_filled_from_its_neighbours(htf, tmp_path):
    """A year that is missing everywhere, of curves that are smooth in time: a table whose years are numbers."""
    generator = np.random.default_rng(2)
    years = np.arange(1990, 2014)
    waves = np.stack([np.sin(years / 5), np.cos(years / 5), np.ones(len(years))])
    truth = generator.standard_normal((12, 3)) @ waves + 3
    with open(tmp_path / "panel.csv", "w", newline="") as file:
        rows = [["country", "year", "value"]]
        for c, t in np.ndindex(truth.shape):
            rows.append([f"c{c}", years[t], "" if t == 11 or generator.random() < 0.1 else f"{truth[c, t]:.6f}"])
        csv.writer(file).writerows(rows)
    done = htf("complete", "panel.csv", "-o", "out.csv", "-q")
    assert done.code == 0, done.err
    filled = {
        (r["country"], r["year"]): float(r["value"])
        for r in csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text()))
    }
    missing = np.array([filled[f"c{c}", "2001"] for c in range(12)])
    own = truth[:, [t for t in range(len(years)) if t != 11]].mean(1)
    assert np.linalg.norm(missing - truth[:, 11]) < 0.3 * np.linalg.norm(own - truth[:, 11])
    assert [one["mode"] for one in done.records[0]["ordered"]] == ["year"]
    assert any("from its neighbours" in text for text in done.records[0]["warnings"])


def test_a_large_and_nearly_empty_tensor(htf, tmp_path):
    """Too few observations for anything to be found: predictions near the mean, and it says so."""
    generator = np.random.default_rng(0)
    index = np.unique(generator.integers(1, 401, (1500, 3)), axis=0)
    np.savetxt(tmp_path / "sparse.tns", np.c_[index, generator.standard_normal(len(index))], fmt=["%d"] * 3 + ["%.6g"])
    np.savetxt(tmp_path / "asked.tns", generator.integers(1, 401, (30, 3)), fmt="%d")
    done = htf("complete", "sparse.tns", "--predict", "asked.tns", "-o", "out.tns", "-q")
    assert done.code == 0, done.err
    predicted = np.loadtxt(tmp_path / "out.tns")[:, 3]
    assert np.isfinite(predicted).all()
    assert np.abs(predicted).max() < 1
    assert done.records[0]["held_out_error"] < 1.1
    assert done.records[0]["warnings"]


def test_known_errors_are_weights(htf, tmp_path):
    """Half of the values are ten times as noisy, and said to be: they count less than when nothing is said."""
    truth = low_rank((20, 18), 1, 3)  # 37 numbers, from about 126 values that are exact to 5 % and as many poor ones
    generator = np.random.default_rng(4)
    std = np.where(generator.random(truth.shape) < 0.5, 0.05, 1.0)
    shown = holed(truth + std * generator.standard_normal(truth.shape), 0.7, 5)
    np.save(tmp_path / "std.npy", std)
    with_std, _ = run(htf, tmp_path, shown, "--std", "std.npy")
    without, _ = run(htf, tmp_path, shown)
    holes = np.isnan(shown)
    assert off(with_std, truth, holes) < 0.8 * off(without, truth, holes)


# --- what was asked for ---------------------------------------------------------------------------------------------------


def test_predictions_respect_bounds_and_are_whole(htf, tmp_path):
    values = np.random.default_rng(0).poisson(np.exp(low_rank((9, 8, 4), 1, 1))).astype(float)
    shown = holed(values, 0.6, 1)
    holes = np.isnan(shown)
    filled, _ = run(htf, tmp_path, shown, "--integers", "--max", values.max() + 1, "--imputations", 2)
    assert (filled == np.round(filled)).all()
    assert filled.min() >= 0 and filled.max() <= values.max() + 1
    drawn = np.load(tmp_path / "in.out.1.npy")
    assert (drawn == np.round(drawn)).all() and drawn.min() >= 0
    assert (drawn[~holes] == shown[~holes]).all()
    done = htf("complete", "in.npy", "-o", "x.npy", "--min", 1, "-q")
    assert (done.code, done.error) == (1, "an observed value is below --min (got 0.0, allowed 1.0 or more).")
    assert not (tmp_path / "x.npy").exists()
    assert not (tmp_path / "x.npy.run").exists()


@pytest.mark.parametrize(("loss", "link"), [("poisson", np.exp), ("logistic", lambda x: 1 / (1 + np.exp(-2 * x)))])
def test_losses_of_counts_and_two_values(htf, tmp_path, loss, link):
    chance = link(low_rank((24, 20), 1, 1))
    generator = np.random.default_rng(2)
    values = (generator.poisson(chance) if loss == "poisson" else generator.random(chance.shape) < chance).astype(float)
    shown = holed(values, 0.6, 3)
    filled, summary = run(htf, tmp_path, shown, "--loss", loss)
    holes = np.isnan(shown)
    assert summary["loss"] == loss
    assert filled.min() >= 0 and (loss == "poisson" or filled.max() <= 1)
    mean = np.full_like(values, np.nanmean(shown))
    assert np.linalg.norm((filled - chance)[holes]) < 1.02 * np.linalg.norm((mean - chance)[holes])


def test_imputations_spread_as_the_deviations_say(htf, tmp_path):
    truth = low_rank((12, 10), 2, 8)
    shown = holed(truth + 0.3 * np.random.default_rng(1).standard_normal(truth.shape), 0.7, 2)
    filled, _ = run(htf, tmp_path, shown, "--imputations", 40, "--uncertainty", "std.npy")
    holes = np.isnan(shown)
    drawn = np.stack([np.load(tmp_path / f"in.out.{n}.npy")[holes] for n in range(1, 41)])
    std = np.load(tmp_path / "std.npy")[holes]
    assert np.abs((drawn.mean(0) - filled[holes]) / std).mean() < 4 / np.sqrt(40)
    assert 0.8 < np.sqrt((drawn.var(0, ddof=1) / std**2).mean()) < 1.2


# --- the same again ---------------------------------------------------------------------------------------------------------

MATRIX = low_rank((9, 8), 1, 0, positive=True) + 1


def write_ratings(path, order):
    cells = [(i, j) for i in range(9) for j in range(8) if (i * j) % 3 != 2]
    lines = [f"u{i},i{j},{MATRIX[i, j]:.3f}\n" for i, j in cells]
    path.write_text("user,item,rating\n" + "".join(lines[k] for k in order(len(lines))))


def test_the_order_of_rows_means_nothing(htf, tmp_path):
    write_ratings(tmp_path / "a.csv", range)
    write_ratings(tmp_path / "b.csv", lambda n: np.random.default_rng(3).permutation(n))
    asked = "user,item\n" + "".join(f"u{i},i{j}\n" for i in range(9) for j in range(8))
    (tmp_path / "asked.csv").write_text(asked)
    for name in ("a", "b"):
        options = ("--predict", "asked.csv", "-o", f"{name}.out.csv", "--uncertainty", f"{name}.std.csv", "-q")
        assert htf("complete", f"{name}.csv", *options).code == 0
    assert (tmp_path / "a.out.csv").read_text() == (tmp_path / "b.out.csv").read_text()
    assert (tmp_path / "a.std.csv").read_text() == (tmp_path / "b.std.csv").read_text()


def test_the_same_seed_gives_the_same_bytes_and_a_run_predicts_as_it_did(htf, tmp_path):
    write_ratings(tmp_path / "a.csv", range)
    (tmp_path / "asked.csv").write_text("user,item\nu1,i2\nu99,i1\nu2,i1\n")
    outputs = []
    for name in ("one", "two"):
        options = (
            "--predict",
            "asked.csv",
            "-o",
            f"{name}.csv",
            "--interval",
            0.8,
            "--imputations",
            2,
            "--seed",
            5,
            "-q",
        )
        done = htf("complete", "a.csv", *options)
        assert done.code == 0, done.err
        outputs.append([(tmp_path / f"{name}{part}.csv").read_text() for part in ("", ".1", ".2")])
    assert outputs[0] == outputs[1]
    again = ("--predict", "asked.csv", "-o", "three.csv", "--interval", 0.8, "--imputations", 2, "--seed", 5, "-q")
    assert htf("complete", "one.csv.run", *again).code == 0
    assert [(tmp_path / f"three{part}.csv").read_text() for part in ("", ".1", ".2")] == outputs[0]
    model = (tmp_path / "one.csv.run/model.safetensors").read_bytes()
    assert model == (tmp_path / "two.csv.run/model.safetensors").read_bytes()


def test_a_label_never_seen_is_predicted_beside_known_ones(htf, tmp_path):
    write_ratings(tmp_path / "a.csv", range)
    (tmp_path / "asked.csv").write_text("user,item\nu1,i2\nu99,i1\nu2,i1\n")
    done = htf("complete", "a.csv", "--predict", "asked.csv", "-o", "out.csv", "-q")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert [row["user"] for row in rows] == ["u1", "u99", "u2"]
    known = MATRIX[[1, 2], [2, 1]]
    assert [float(rows[0]["rating"]), float(rows[2]["rating"])] == pytest.approx(known, rel=0.15)
    of_item = MATRIX[:, 1]
    assert of_item.min() < float(rows[1]["rating"]) < of_item.max()
    assert any("'u99'" in text and "defaults" in text for text in done.records[0]["warnings"])


def test_records_in_every_format(htf, tmp_path):
    write_ratings(tmp_path / "a.csv", range)
    options = ("--effort", "quick", "--force", "-o", "out.csv", "-q")
    (record,) = htf("complete", "a.csv", *options, "--format", "jsonl").records
    (row,) = csv.DictReader(io.StringIO(htf("complete", "a.csv", *options, "--format", "csv").out))
    assert float(row["held_out_error"]) == pytest.approx(record["held_out_error"])
    shown = htf("complete", "a.csv", *options, "--format", "table").out
    assert "held-out error, random" in shown and "effort" in shown and "quick" in shown
    stored = json.loads((tmp_path / "out.csv.run/summary.json").read_text())
    assert {"scatter", "calibration", "steps"} <= stored.keys()
    assert stored["held_out"] == record["held_out"]
    assert sum(member["weights"]["random"] for member in record["members"]) == pytest.approx(1, abs=0.05)


def test_ranks_of_the_strongest_factorization(htf, tmp_path):
    shown = holed(low_rank((8, 7, 6), 2, 1), 0.7, 2)
    _, summary = run(htf, tmp_path, shown)
    ranks = htf("measure-rank", "in.out.npy.run", "--tolerance", "1e-3")
    assert ranks.code == 0
    assert "the strongest factorization" in ranks.err
    assert {r["node"]: r["rank"] for r in ranks.records if r["node"] in ("{0}", "{1}", "{2}")} == {
        "{0}": 2,
        "{1}": 2,
        "{2}": 2,
    }
    assert summary["held_out_error"] < 1e-6
    assert htf("plot", "in.out.npy.run", "-o", "why.png").code == 0
