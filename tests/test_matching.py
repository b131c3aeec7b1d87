"""Units of two networks are paired by what they do: exact where they are the same, at chance where they are not."""

import itertools

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import hiddenscope as hs
from hiddenscope.analyses.matching import begin_alike, unit_correlations
from hiddenscope.embeddings.nodes import normalize

EPOCHS, STEPS, UNITS, SAMPLES = 3, 4, 5, 24


def trace(seed=0, *, epochs=EPOCHS, steps=STEPS, units=UNITS, samples=SAMPLES):
    return np.random.default_rng(seed).normal(size=(epochs, steps, units, samples))


def by_hand(first, second):
    """The mean over steps of the correlation of each two units, over what both have, one number at a time."""
    table = np.full((first.shape[1], second.shape[1]), np.nan)
    for i, j in itertools.product(range(first.shape[1]), range(second.shape[1])):
        found = []
        for step in range(len(first)):
            x, y = first[step, i], second[step, j]
            both = np.isfinite(x) & np.isfinite(y)
            if both.sum() < max(2, len(x) / 2):
                continue
            x, y = x[both], y[both]
            flat = np.ptp(x) == 0, np.ptp(y) == 0
            if all(flat):
                continue
            found.append(0.0 if any(flat) else np.corrcoef(x, y)[0, 1])
        if found:
            table[i, j] = np.mean(found)
    return table


@given(st.permutations(range(UNITS)), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_a_copy_with_its_units_in_another_order_is_matched_back(order, seed):
    states = trace(seed)
    match = hs.match_units(states, states[:, :, order], permutations=0)
    assert_array_equal(np.asarray(order)[match.second], match.first)
    assert_allclose(match.correlation, 1.0)
    assert np.isnan(match.chance)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_no_other_pairing_is_better_than_the_one_found(ours, theirs, seed):
    first, second = trace(seed, units=ours), trace(seed + 100, units=theirs)
    match = hs.match_units(first, second, permutations=0)
    table = match.correlations.values
    few, many = sorted((ours, theirs))
    best = max(
        sum((table if ours <= theirs else table.T)[k, chosen[k]] for k in range(few))
        for chosen in itertools.permutations(range(many), few)
    )
    assert_allclose(match.correlation.sum(), best)
    assert len(match.pairs) == few
    assert all(len(set(column)) == few for column in match.pairs.T.tolist())


def test_the_correlation_is_that_of_the_responses_step_by_step_at_the_last_epoch():
    first, second = trace(1), trace(2, epochs=2, units=7)
    assert_allclose(unit_correlations(first, second), by_hand(first[-1], second[-1]))


@given(st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_missing_values_are_left_out_pair_by_pair(seed):
    rng = np.random.default_rng(seed)
    first, second = trace(seed), trace(seed + 1)
    first[:, 1, 2] = 3.0  # answers to all samples alike
    second[:, 1, 0] = -1.0
    for states in (first, second):
        states[rng.random(states.shape) < 0.2] = np.nan
    first[:, 2, 1] = second[:, 3] = np.nan
    assert_allclose(unit_correlations(first, second), by_hand(first[-1], second[-1]), atol=1e-12)


def test_steps_beyond_the_end_of_sequences_are_left_out_as_by_hand():
    first, second = trace(3), trace(4)
    for states in (first, second):
        states[:, 2, :, 10:] = np.nan  # too few
        states[:, 3, :, 15:] = np.nan
    first[:, 0, 1] = second[:, 0, 2] = 0.3
    assert_allclose(unit_correlations(first, second), by_hand(first[-1], second[-1]), atol=1e-12)


def test_the_most_correlated_units_are_those_whose_nodes_lie_closest():
    first, second = trace(5, epochs=1), trace(6, epochs=1)
    ours, theirs = normalize(first), normalize(second)  # (step, unit, sample)
    squares = ((ours[:, :, None] - theirs[:, None]) ** 2).sum(axis=-1).mean(axis=0)
    assert_allclose(squares, 2 * SAMPLES * (1 - unit_correlations(first, second).values))


def test_a_unit_is_not_matched_with_its_negative():
    states = trace(7, units=2)
    other = np.stack([-states[:, :, 0], states[:, :, 0]], axis=2)
    assert hs.match_units(states, other, permutations=0).second[0] == 1


@pytest.mark.parametrize(("ours", "theirs"), [(5, 8), (8, 5)])
def test_units_of_the_smaller_network_are_found_again_in_the_larger_and_the_others_are_alone(ours, theirs):
    states = trace(8, units=8)
    order = np.array([6, 1, 4, 0, 7])
    first, second = (states if count == 8 else states[:, :, order] for count in (ours, theirs))
    match = hs.match_units(first, second)
    found = match.second if ours == 5 else match.first
    assert_array_equal(found[np.argsort(match.first if ours == 5 else match.second)], order)
    rows = match.rows
    assert len(rows) == 8
    for column, count in zip(rows.T, (ours, theirs), strict=True):
        assert sorted(column[column >= 0]) == list(range(count))
    assert_array_equal(rows[:ours, 0], np.arange(ours))


def test_noise_is_matched_no_better_than_chance_and_kin_far_better():
    first, second = trace(9, units=30), trace(10, units=30)
    match = hs.match_units(first, second)
    # The medians of shuffles scatter by about 0.01 here; chance is well above 0, for the best of many pairs are taken.
    assert match.chance > 0.1
    assert match.median == pytest.approx(match.chance, abs=0.05)
    kin = hs.match_units(first, first[:, :, ::-1] + second)  # half of the variance is shared
    assert kin.median > 0.6 > kin.chance + 0.3
    assert hs.match_units(first, second).chance == match.chance, "the same seed, the same chance"


def test_by_number_pairs_namesakes_and_chance_is_near_zero():
    states = trace(11, units=20)
    match = hs.match_units(states, states[:, :, ::-1], by="number")
    assert_array_equal(match.first, match.second)
    assert abs(match.median) < 0.2
    assert abs(match.chance) < 0.1
    assert match.correlation[0] == match.correlations[0, 0]


def test_only_steps_that_both_have_are_compared_and_labels_are_kept():
    states = xr.DataArray(trace(12), dims=("epoch", "step", "unit", "sample"))
    first = states.assign_coords(step=[0, 2, 4, 6], unit=[10, 11, 12, 13, 14])
    second = states.isel(unit=slice(None, None, -1)).assign_coords(step=[4, 6, 8, 9], unit=list("abcde"))
    expected = by_hand(first.values[-1, 2:], second.values[-1, :2])
    assert_allclose(unit_correlations(first, second), expected)
    match = hs.match_units(first, second)
    assert match.first.tolist() == [10, 11, 12, 13, 14]
    assert set(match.second) == set("abcde")


def test_the_last_epoch_with_a_value_speaks_for_a_training_that_diverged():
    states = trace(13)
    diverged = states[:, :, ::-1].copy()
    diverged[-1] = np.inf
    assert_allclose(unit_correlations(states[:2], diverged), unit_correlations(states[:2], states[:2, :, ::-1]))


def test_what_cannot_be_compared_is_matched_all_the_same_and_says_so():
    dead = np.zeros((1, STEPS, 3, SAMPLES))
    match = hs.match_units(dead, dead)
    assert sorted(match.second) == [0, 1, 2]
    assert np.isnan(match.correlation).all()
    assert np.isnan(match.median)
    assert np.isnan(match.chance)


def test_a_common_beginning_is_seen_at_the_first_common_epoch_alone():
    names = ("epoch", "step", "unit", "sample")
    first = xr.DataArray(trace(14), dims=names, coords={"epoch": [-1, 0, 1]})
    apart = xr.DataArray(trace(15), dims=names, coords={"epoch": [-1, 0, 1]})
    apart[0] = first[0] + 1e-3  # other rounding
    assert begin_alike(first, apart)
    assert not begin_alike(first, apart.isel(epoch=[1, 2])), "without the untrained network nothing is alike any more"
    assert not begin_alike(first, apart.assign_coords(epoch=[7, 8, 9])), "no epoch is common"
    assert not begin_alike(first, first.isel(unit=[1, 0, 2, 3, 4]).assign_coords(unit=range(5)))
    assert not begin_alike(first, first.isel(unit=[0, 1, 2]))
    assert not begin_alike(xr.zeros_like(first), xr.zeros_like(first)), "dead units tell nothing"
    dead = first.copy()
    dead[:, :, 1:3] = 0
    assert begin_alike(dead, dead), "but neither do they hide what the others tell"


def test_units_that_all_do_the_same_are_no_common_beginning():
    shared = np.random.default_rng(0).normal(size=(1, STEPS, 1, SAMPLES))
    first = shared + 0.02 * trace(16, epochs=1)
    second = first[:, :, [1, 2, 3, 4, 0]]
    assert unit_correlations(first, second).values.min() > 0.99
    assert not begin_alike(first, second)


@pytest.mark.parametrize(
    ("second", "options", "said"),
    [
        (trace(samples=9), {}, "24 and 9 samples"),
        (trace(units=4), {"by": "number"}, "5 and 4 units"),
        (trace(), {"by": "magic"}, "'magic'"),
        (trace(), {"permutations": -1}, "-1 times"),
    ],
)
def test_what_cannot_be_matched_is_refused_with_the_reason(second, options, said):
    with pytest.raises(ValueError, match=said):
        hs.match_units(trace(), second, **options)


def test_other_samples_and_other_steps_are_refused():
    states = xr.DataArray(trace(), dims=("epoch", "step", "unit", "sample"), coords={"sample": range(SAMPLES)})
    with pytest.raises(ValueError, match="not the same, in the same order"):
        hs.match_units(states, states.assign_coords(sample=range(1, SAMPLES + 1)))
    with pytest.raises(ValueError, match="no step is common: steps 0 to 3 and steps 9 to 12"):
        hs.match_units(states, states.assign_coords(step=range(9, 9 + STEPS)))
