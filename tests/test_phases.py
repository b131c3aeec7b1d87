"""Phases are found where they are planted, and nowhere else."""

import functools
import itertools

import numpy as np
import pytest
import ruptures
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.ndimage import gaussian_filter1d

from hiddenscope.analyses.broken_lines import POLES, SMALLER_POLES, fit_broken_line, noise_like, search
from hiddenscope.analyses.phases import MOST_EPOCHS, activation_curves, find_phases, phases_of_all
from hiddenscope.experiments.bifurcations import course, phase_table
from hiddenscope.experiments.datasets.bifurcations import SCENARIOS, simulate


def bent(bends, slopes, count=80, noise=0.0, seed=0):
    x = np.arange(count, dtype=float)
    line = slopes[0] * x
    for bend, before, after in zip(bends, slopes[:-1], slopes[1:], strict=True):
        line = line + (after - before) * np.maximum(x - bend, 0)
    return line + noise * np.random.default_rng(seed).normal(size=count)


def exhaustive(y, count, least):
    """The least squared error of all broken lines with so many bends, by trying them all."""
    x = np.arange(len(y), dtype=float)
    best = np.inf
    for bends in itertools.combinations(range(least, len(y) - least), count):
        if min(np.diff(bends), default=least) < least:
            continue
        design = np.stack([np.ones_like(x), x, *(np.maximum(x - bend, 0) for bend in bends)], axis=1)
        best = min(best, float(((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2).sum()))
    return best


@given(st.integers(0, 10_000))
@settings(max_examples=15)
def test_the_search_for_one_bend_is_exhaustive_and_for_two_within_a_quarter(seed):
    y = bent([8, 16], [0.0, 1.0, -0.5], count=24, noise=0.5, seed=seed)
    errors, _ = search(np.arange(24.0), y, 2, 3)
    assert errors[1] == pytest.approx(exhaustive(y, 1, 3), rel=1e-9)
    assert exhaustive(y, 2, 3) * (1 - 1e-9) <= errors[2] <= 1.25 * exhaustive(y, 2, 3)


def test_bends_are_where_another_library_finds_them():
    y = bent([30, 55], [0.0, 0.3, -0.2], noise=0.2, seed=3)
    theirs = ruptures.Dynp(custom_cost=ruptures.costs.CostCLinear(), min_size=3, jump=1).fit(y).predict(n_bkps=2)[:-1]
    ours = fit_broken_line(np.arange(80.0), y, most_bends=5, least=3).bends
    assert len(ours) == 2
    assert np.abs(ours - theirs).max() <= 2
    assert np.abs(ours - [30, 55]).max() <= 2


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_the_correlation_of_the_noise_is_recovered_around_a_broken_line(correlation):
    rng = np.random.default_rng(1)
    found = []
    for _ in range(20):
        y = bent([40, 90], [0.0, 1.0, 0.0], count=150) + noise_like(correlation, 150, rng)
        found.append(fit_broken_line(np.arange(150.0), y, most_bends=4, least=3).correlation)
    assert correlation - 0.15 < np.mean(found) < correlation + 0.1  # a line takes some of what wanders slowly


@pytest.mark.parametrize(("larger", "smaller"), [(0.0, 0.0), (0.8, 0.0), (0.9, 0.6)])
def test_noise_is_stationary_with_the_covariances_of_its_two_poles(larger, smaller):
    rng = np.random.default_rng(0)
    series = np.array([noise_like(larger, 40, rng, smaller=smaller) for _ in range(20_000)])
    lags = [1.0, (larger + smaller) / (1 + larger * smaller)]  # Yule and Walker's equations
    for _ in range(4):
        lags.append((larger + smaller) * lags[-1] - larger * smaller * lags[-2])
    for begin in (0, 20):
        covariance = np.cov(series[:, begin : begin + 6].T)
        assert_allclose(covariance[0], lags, atol=0.04)


def test_gain_and_standard_errors_are_those_of_the_full_covariance_matrix():
    larger, smaller = 0.8, 0.3
    x = np.arange(40.0)
    y = bent([15], [0.0, 0.4], count=40) + noise_like(larger, 40, np.random.default_rng(3), smaller=smaller)
    found = fit_broken_line(x, y, most_bends=2, least=3, bends=1)

    def covariance(a, b):
        """Of white noise that is driven through each pole, begun in the stationary state of that pole."""
        filters = []
        for pole in (b, a):
            whiten = np.eye(40) - pole * np.eye(40, k=-1)
            whiten[0, 0] = np.sqrt(1 - pole**2)
            filters.append(np.linalg.inv(whiten))
        both = filters[0] @ filters[1]
        return both @ both.T

    def fit(design, a, b):
        inverse = np.linalg.inv(covariance(a, b))
        spread = np.linalg.inv(design.T @ inverse @ design)
        slopes = spread @ design.T @ inverse @ y
        error = (y - design @ slopes) @ inverse @ (y - design @ slopes)
        return 40 * np.log(error) + np.linalg.slogdet(covariance(a, b))[1], slopes, spread * error / (40 - len(slopes))

    pairs = [(a, b) for a in POLES for b in SMALLER_POLES if b <= a]
    _, bends = search(x, y, 2, 3)
    lines = [np.column_stack([np.ones(40), x, *(np.maximum(x - bend, 0) for bend in bends[k, :k])]) for k in range(3)]
    scores = [min(fit(line, *pair)[0] for pair in pairs) for line in lines]
    constant = min(fit(np.ones((40, 1)), *pair)[0] for pair in pairs)
    best = min(score + (1 + 2 * k) * np.log(40) for k, score in enumerate(scores))
    assert found.gain == pytest.approx(constant - best, abs=1e-6)
    _, slopes, spread = fit(lines[1], *min(pairs, key=lambda pair: fit(lines[1], *pair)[0]))
    bend = int(found.bends[0])
    pieces = np.array([[0, bend, 0], [0, 39 - bend, 39 - bend]])
    assert_allclose(found.changes, pieces @ slopes, rtol=1e-6)
    assert_allclose(found.errors, np.sqrt(np.diag(pieces @ spread @ pieces.T)), rtol=1e-6)
    assert_allclose(found.values, lines[1] @ slopes, atol=1e-6)


def test_planted_phases_are_told_with_their_kind_and_where_they_begin():
    epochs = np.arange(-1, 79)
    y = bent([20, 50], [0.0, 0.3, -0.1], noise=0.3)
    found = find_phases(xr.DataArray(y, dims="epoch", coords={"epoch": epochs}), n_controls=99)
    assert [phase.kind for phase in found.phases] == ["steady", "processing", "compression"]
    assert_allclose(found.changes, [19, 49], atol=2)
    assert found.phases[0].first == -1
    assert found.phases[-1].last == 78
    assert found.phases[1].change == pytest.approx(9.0, abs=1.0)
    assert found.p_value == pytest.approx(0.01)
    assert all(phase.p_value >= found.p_value for phase in found.phases)


@given(st.floats(0.01, 100), st.floats(-50, 50), st.booleans())
@settings(max_examples=10)
def test_phases_do_not_depend_on_the_unit_of_the_curve_and_turn_with_it(scale, shift, flip):
    y = bent([30], [0.0, 0.2], count=60, noise=0.2)
    one = find_phases(y, n_controls=49)
    other = find_phases((-1 if flip else 1) * scale * y + shift, n_controls=49)
    turned = {"processing": "compression", "steady": "steady"}
    assert [phase.kind for phase in other.phases] == [turned[p.kind] if flip else p.kind for p in one.phases]
    assert other.changes == one.changes


@pytest.mark.parametrize("value", [0.0, 3.25, -1e6])
def test_constant_curves_have_no_phase(value):
    found = find_phases(np.full(100, value))
    assert found.phases == ()
    assert np.isnan(found.p_value)


@pytest.mark.parametrize("count", [0, 1, 5, 11])
def test_too_few_epochs_claim_nothing(count):
    assert find_phases(np.arange(count, dtype=float)).phases == ()


def test_gaps_and_long_curves_are_taken_as_they_come():
    y = bent([300], [0.0, 0.05], count=1000, noise=0.3)
    y[[5, 400, 999]] = np.nan
    found = find_phases(y, n_controls=49)
    assert len(found.epochs) <= MOST_EPOCHS
    assert len(found.changes) == 1
    assert abs(found.changes[0] - 300) <= 16
    with pytest.raises(ValueError, match="one curve"):
        find_phases(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="growing epochs"):
        find_phases(np.zeros(3), [0, 2, 1])


def test_several_curves_pay_for_having_been_looked_at():
    rng = np.random.default_rng(0)
    epochs = {"epoch": np.arange(80.0)}
    curves = {f"noise {i}": xr.DataArray(rng.normal(size=80), dims="epoch", coords=epochs) for i in range(4)}
    curves["rise"] = xr.DataArray(bent([30], [0.0, 0.3], noise=0.3), dims="epoch", coords=epochs)
    alone = find_phases(curves["rise"], n_controls=199)
    found = phases_of_all(curves, n_controls=199)
    assert float(found.p_value.sel(curve="rise")) == pytest.approx(5 * alone.p_value)
    assert found.phase_kind.sel(curve="rise").values.tolist()[:2] == ["steady", "processing"]
    assert (found.phase_kind.sel(curve=[name for name in curves if name != "rise"]) == "").all()
    assert found.value.dims == ("curve", "epoch")


@functools.cache
def curves(scenario):
    trace = simulate(scenario)
    return course(trace.isel(step=slice(0, None, 2))), trace.attrs["crossings"]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_known_change_is_found_within_two_epochs(scenario):
    found, crossings = curves(scenario)
    entropies = {key: curve for key, curve in found.items() if key[1].startswith("intra-step entropy")}
    table = phase_table(scenario, entropies, crossings)
    assert table["group"].tolist() == ["A", "B"]
    assert (table["p"] <= 0.01).all()
    assert (table["changes"] <= 3).all()  # five would meet any epoch in a quarter of all cases
    error = table["error"].abs()
    assert error[0] <= 2
    assert error[1] <= 2 or table["changes"][1] == 0  # of weaker changes, nothing is claimed rather than another epoch
    assert table["phases"][0].startswith("steady 0 to")


def entropy_of(scenario):
    return curves(scenario)[0]["A", "intra-step entropy (activations)"].values


def claims(series):
    return np.mean([bool(find_phases(curve, n_controls=49, seed=i).phases) for i, curve in enumerate(series)])


def test_no_more_than_a_few_controls_show_a_phase():
    rng = np.random.default_rng(5)
    planted = entropy_of("hopf_bif__no_warp")
    assert claims([rng.permutation(planted) for _ in range(25)]) <= 0.08
    assert claims([noise_like(0.9, 60, rng) for _ in range(25)]) <= 0.08


CONTROLS = {
    "shuffled epochs": lambda rng, i: rng.permutation(entropy_of(list(SCENARIOS)[i % len(SCENARIOS)])),
    "constant": lambda rng, i: np.full(101, rng.normal()),
    "constant and rounding": lambda rng, i: 0.1 + np.cumsum(rng.choice([1e-17, -1e-17], 101)),
    "constant and white noise": lambda rng, i: 3.0 + 0.1 * rng.normal(size=101),
    "correlation 0.5": lambda rng, i: noise_like(0.5, 101, rng),
    "correlation 0.8": lambda rng, i: noise_like(0.8, 101, rng),
    "correlation 0.95": lambda rng, i: noise_like(0.95, 101, rng),
    "mean over 10 epochs": lambda rng, i: np.convolve(rng.normal(size=110), np.ones(10) / 10, "valid"),
    "Gaussian of 2 epochs": lambda rng, i: gaussian_filter1d(rng.normal(size=201), 2)[50:151],
    "Gaussian of 4 epochs": lambda rng, i: gaussian_filter1d(rng.normal(size=201), 4)[50:151],
    "50 epochs, correlation 0.9": lambda rng, i: noise_like(0.9, 50, rng),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONTROLS)
def test_at_most_one_control_in_twenty_shows_a_phase(kind):
    rng = np.random.default_rng(7)
    series = [CONTROLS[kind](rng, i) for i in range(200)]
    found = [bool(find_phases(curve, n_controls=99, seed=i).phases) for i, curve in enumerate(series)]
    assert np.mean(found) <= 0.05


@pytest.mark.slow
def test_a_steady_trend_is_one_phase_without_a_turn():
    rng = np.random.default_rng(8)
    found = [find_phases(0.02 * np.arange(101) + 0.1 * rng.normal(size=101), n_controls=99) for _ in range(100)]
    assert np.mean([len(one.changes) > 0 for one in found]) <= 0.05
    assert np.mean([[phase.kind for phase in one.phases] == ["processing"] for one in found]) >= 0.95


def test_curves_of_activations_are_named_and_over_epochs():
    found = activation_curves(simulate("hopf_bif__no_warp").isel(step=slice(0, None, 20)))
    assert all(curve.dims == ("epoch",) for curve in found.values())
    assert list(found) == ["intra-step entropy (activations)", "spread", "change per epoch"]
