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

from hiddenscope.analyses.broken_lines import (
    CORRELATIONS,
    fit_broken_line,
    gain,
    noise_like,
    search,
)
from hiddenscope.analyses.phases import MOST_EPOCHS, activation_curves, find_phases, phases_of_all
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
        fitted = fit_broken_line(np.arange(150.0), y, most_bends=4, least=3)
        found.append((fitted.weights @ CORRELATIONS, fitted.deviation))
    correlations, deviations = np.mean(found, axis=0)
    assert abs(correlations - correlation) < 0.1
    assert 0.75 < deviations < 1.4


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
def intra_curve(scenario):
    return activation_curves(simulate(scenario).isel(step=slice(0, None, 2)))["intra-step entropy (activations)"]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_known_change_of_a_bifurcation_is_found_within_two_epochs(scenario):
    curve = intra_curve(scenario)
    found = find_phases(curve, n_controls=49)
    crossings = [system.crossing for system in SCENARIOS[scenario].systems]
    assert found.p_value <= 0.02
    assert min(abs(change - crossing) for change in found.changes for crossing in crossings) <= 2
    assert any(phase.kind == "compression" for phase in found.phases)


def claims(curves):
    return np.mean([bool(find_phases(curve, n_controls=49, seed=i).phases) for i, curve in enumerate(curves)])


def test_no_more_than_a_few_controls_show_a_phase():
    rng = np.random.default_rng(5)
    planted = intra_curve("hopf_bif__no_warp").values
    assert claims([rng.permutation(planted) for _ in range(25)]) <= 0.08
    assert claims([rng.normal(size=60) for _ in range(25)]) <= 0.08


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["shuffled epochs", "constant and white noise", "correlation 0.5"])
def test_at_most_one_control_in_twenty_shows_a_phase(kind):
    rng = np.random.default_rng(7)
    planted = [intra_curve(name).values for name in SCENARIOS]
    controls = {
        "shuffled epochs": lambda i: rng.permutation(planted[i % len(planted)]),
        "constant and white noise": lambda i: 3.0 + 0.1 * rng.normal(size=101),
        "correlation 0.5": lambda i: noise_like(0.5, 101, rng),
    }
    found = np.mean([bool(find_phases(controls[kind](i), n_controls=99, seed=i).phases) for i in range(200)])
    assert found <= 0.05


def test_a_line_is_better_than_a_constant_by_what_it_explains():
    x = np.arange(50.0)
    assert gain(x, np.zeros(50), np.zeros(3)) == 0.0
    errors, _ = search(x, x, 2, 3)
    assert gain(x, x, errors) > 1000
