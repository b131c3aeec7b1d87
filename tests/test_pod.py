"""Proper orthogonal decomposition: circles and ellipses have known modes, and every identity holds."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.decomposition import PCA

from hiddenscope.embeddings.pod import POD
from hiddenscope.embeddings.spectrum import (
    Gram,
    decompose,
    effective_dimension,
    energy_fractions,
    participation_ratio,
)
from hiddenscope.embeddings.subspaces import alignment, subspace_angles

T, PERIODS = 400, 4
ANGLE = 2 * np.pi * PERIODS * np.arange(T) / T


def planes(units, seed=0):
    """Orthonormal directions, as columns."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(units, units)))[0]


def curve(*, units=6, a=1.0, b=1.0, offset=0.0):
    """Snapshots (step, unit) of an ellipse with semi-axes a and b, moved along a third direction."""
    q = planes(units)
    return a * np.outer(np.cos(ANGLE), q[:, 0]) + b * np.outer(np.sin(ANGLE), q[:, 1]) + offset * q[:, 2]


def as_one_trace(snapshots):
    """(step, unit) as a trace of one epoch and one sample."""
    return np.asarray(snapshots)[None, :, :, None]


def random_trace(epochs=4, steps=5, units=6, samples=7, seed=0):
    values = np.random.default_rng(seed).normal(size=(epochs, steps, units, samples))
    coords = {"epoch": np.arange(epochs) - 1.0, "unit": np.arange(units) * 10}
    return xr.DataArray(values, dims=("epoch", "step", "unit", "sample"), coords=coords, name="lstm")


def test_a_circle_has_two_equal_modes_and_no_third():
    pod = POD(center=False).fit(as_one_trace(curve()))
    assert_allclose(pod.singular_values_[0], [14.142135623730951, 14.142135623730951, 0, 0, 0, 0], atol=1e-10)
    assert pod.dimensions_.tolist() == [[2, 2, 2]]
    assert_allclose(pod.participation_ratio_, 2)
    for energy in (0.51, 0.6, 0.9, 0.999, 1.0):
        assert effective_dimension(pod.singular_values_, energy=energy).tolist() == [2]


@pytest.mark.parametrize("radius", [0.5, 3.0])
def test_the_singular_values_of_a_circle_grow_with_its_radius(radius):
    found = decompose(curve(a=radius, b=radius)).singular_values
    assert_allclose(found[:2], radius * np.sqrt(T / 2))


def test_an_ellipse_shares_its_energy_as_the_squares_of_its_axes():
    trace = as_one_trace(curve(a=2, b=1))
    pod = POD(energy=0.8).fit(trace)
    assert_allclose(pod.singular_values_[0, :2], [28.284271247461902, 14.142135623730951])
    assert_allclose(pod.energy_[0, :2], [0.8, 0.2])
    assert_allclose(pod.participation_ratio_, 25 / 17)
    assert pod.dimension_.tolist() == [1]  # 0.8 is reached up to rounding, which the tolerance forgives
    assert POD(energy=0.9).fit(trace).dimension_.tolist() == [2]
    assert_allclose(pod.percent_used_, 100 / 6)


def test_an_offset_circle_has_a_third_mode_unless_it_is_centered():
    trace = as_one_trace(curve(offset=3))
    assert_allclose(
        POD().fit(trace).singular_values_[0, :4], [60, 14.142135623730951, 14.142135623730951, 0], atol=1e-9
    )
    centered = POD(center=True).fit(trace)
    assert_allclose(centered.singular_values_[0, :3], [14.142135623730951, 14.142135623730951, 0], atol=1e-9)
    assert centered.dimensions_.tolist() == [[2, 2, 2]]


@pytest.mark.parametrize("k", [1, 2, 5])
def test_k_frequencies_in_orthogonal_planes_have_2k_modes(k):
    q = planes(12)
    base = ANGLE / PERIODS
    snapshots = sum(
        np.outer(np.cos((j + 1) * base), q[:, 2 * j]) + np.outer(np.sin((j + 1) * base), q[:, 2 * j + 1])
        for j in range(k)
    )
    found = decompose(snapshots).singular_values
    assert_allclose(found[: 2 * k], np.sqrt(T / 2))
    assert_allclose(found[2 * k :], 0, atol=1e-10)
    assert_allclose(participation_ratio(found), 2 * k)


def test_a_saturated_circle_keeps_its_energy_in_two_modes_though_its_rank_is_higher():
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.normal(size=(64, 2)))[0]
    states = np.tanh(3 * (np.outer(np.cos(ANGLE), q[:, 0]) + np.outer(np.sin(ANGLE), q[:, 1])))
    pod = POD().fit(as_one_trace(states))
    assert pod.energy_[0, :2].sum() == pytest.approx(0.9986, abs=1.5e-3)
    assert pod.dimension_.tolist() == [2]
    assert (pod.singular_values_[0] > 1e-6 * pod.singular_values_[0, 0]).sum() > 2


@given(st.integers(0, 2**31), st.integers(0, 6))
@settings(max_examples=40, deadline=None)
def test_what_d_modes_leave_out_is_the_energy_of_the_others(seed, d):
    X = np.random.default_rng(seed).normal(size=(20, 6))
    found = decompose(X)
    U = found.modes[:, :d]
    assert_allclose(((X - X @ U @ U.T) ** 2).sum(), (found.singular_values[d:] ** 2).sum(), atol=1e-9)


@given(st.integers(0, 2**31), st.permutations(range(6)))
@settings(max_examples=40, deadline=None)
def test_turning_or_reordering_the_units_leaves_the_spectrum(seed, order):
    X = np.random.default_rng(seed).normal(size=(20, 6))
    values = decompose(X).singular_values
    assert_allclose(decompose(X @ planes(6, seed)).singular_values, values)
    assert_allclose(decompose(X[:, order]).singular_values, values)


def test_a_centered_decomposition_is_scikit_learns_principal_component_analysis():
    X = np.random.default_rng(1).normal(size=(50, 6)) + 2
    found, pca = decompose(X, center=True), PCA().fit(X)
    assert_allclose(found.singular_values, pca.singular_values_)
    assert_allclose(np.abs(found.modes.T @ pca.components_.T), np.eye(6), atol=1e-9)


@pytest.mark.parametrize("center", [False, True])
def test_sums_over_batches_have_the_modes_of_all_snapshots(center):
    rng = np.random.default_rng(2)
    X, weights = rng.normal(size=(90, 6)) * [5, 4, 3, 2, 1, 0.5] + 1, rng.uniform(0.5, 2, size=90)
    sums = Gram(6)
    for rows in np.array_split(np.arange(90), 7):
        sums.add(X[rows], weights=weights[rows])
    slow, fast = decompose(X, center=center, weights=weights), sums.decompose(center=center)
    assert_allclose(fast.singular_values, slow.singular_values, rtol=1e-10)
    assert_allclose(np.abs(np.einsum("uk,uk->k", fast.modes, slow.modes)), 1, rtol=1e-10)
    assert_allclose(fast.mean, slow.mean, atol=1e-12)


def test_a_matrix_too_large_for_its_own_decomposition_gives_the_same_by_its_sums(monkeypatch):
    X = np.random.default_rng(3).normal(size=(300, 5))
    exact = decompose(X).singular_values
    monkeypatch.setattr("hiddenscope.embeddings.spectrum.SVD_ENTRIES", 10)
    assert_allclose(decompose(X).singular_values, exact, rtol=1e-10)


def test_coordinates_and_modes_give_back_the_states():
    trace = random_trace()
    pod = POD(n_components=6)
    coordinates = pod.fit_transform(trace)
    assert coordinates.dims == ("epoch", "step", "sample", "component")
    assert coordinates.name == "lstm"
    back = pod.inverse_transform(coordinates)
    assert_allclose(back, trace)
    assert back.dims == trace.dims
    assert back["unit"].equals(trace["unit"])
    plain = POD(n_components=6)
    assert isinstance(plain.fit_transform(trace.values), np.ndarray)
    assert_allclose(plain.inverse_transform(plain.transform(trace.values)), trace.values)


def test_fewer_modes_lose_exactly_what_captured_says():
    trace = random_trace() + 1
    for center in (False, True):
        pod = POD(n_components=2, center=center).fit(trace)
        lost = trace - pod.inverse_transform(pod.transform(trace))
        spread = trace - pod.mean_[:, None, :, None]
        missing = (lost**2).sum(["step", "unit", "sample"]) / (spread**2).sum(["step", "unit", "sample"])
        assert_allclose(pod.captured(trace), 1 - missing.values)
        assert_allclose(pod.captured(trace), pod.energy_[:, :2].sum(axis=1))


def test_an_encoder_and_a_decoder_of_other_lengths_share_one_basis():
    encoder, decoder = random_trace(steps=3, seed=1), random_trace(steps=9, samples=4, seed=2)
    pod = POD(n_components=2)
    found = pod.fit_transform((encoder, decoder))
    assert [part.sizes["step"] for part in found] == [3, 9]
    both = np.concatenate(
        [part.isel(epoch=0).transpose("step", "sample", "unit").values.reshape(-1, 6) for part in (encoder, decoder)]
    )
    assert_allclose(pod.singular_values_[0], np.linalg.svd(both, compute_uv=False))
    back = POD(n_components=6)
    returned = back.inverse_transform(back.fit_transform((encoder, decoder)))
    for given_part, part in zip((encoder, decoder), returned, strict=True):
        assert_allclose(part, given_part)
        assert part.dims == given_part.dims


def test_balanced_weights_let_a_short_encoder_count_as_much_as_a_long_decoder():
    q = planes(6)
    encoder = np.broadcast_to(q[:, 0, None], (1, 2, 6, 3))
    decoder = np.broadcast_to(q[:, 1, None], (1, 50, 6, 3))
    assert_allclose(POD().fit((encoder, decoder)).energy_[0, :2], [50 / 52, 2 / 52])
    assert_allclose(POD(weights="balanced").fit((encoder, decoder)).energy_[0, :2], [0.5, 0.5])
    assert_allclose(POD(weights=(5.0, 1.0)).fit((encoder, decoder)).energy_[0, :2], [0.5, 0.5])


def test_a_pair_must_share_units_and_epochs():
    with pytest.raises(ValueError, match="units must be the same: got 6 and 5"):
        POD().fit((random_trace(), random_trace(units=5)))
    with pytest.raises(ValueError, match="epochs must be the same"):
        POD().fit((random_trace(), random_trace(epochs=2)))


def test_signs_follow_the_epoch_before():
    rng = np.random.default_rng(5)
    scale = np.array([5, 4, 3, 2, 1, 0.5])[:, None]
    first = rng.normal(size=(5, 6, 40)) * scale
    trace = np.stack([first + 0.02 * e * rng.normal(size=first.shape) for e in range(6)])
    modes = POD(n_components=4).fit(trace).modes_
    assert (np.einsum("euk,euk->ek", modes[1:], modes[:-1]) > 0.9).all()


def test_rotation_holds_a_circle_still_where_signs_cannot():
    q = planes(6)
    phases = [0.0, 0.7, 2.0, 4.1]  # each phase makes another basis of the same plane come out of the decomposition
    noise = np.random.default_rng(6).normal(size=(len(phases), T, 6)) * 1e-3
    trace = np.stack([np.outer(np.cos(ANGLE + p), q[:, 0]) + np.outer(np.sin(ANGLE + p), q[:, 1]) for p in phases])
    trace = (trace + noise)[..., None]
    still = POD(n_components=2, align="rotation").fit(trace).modes_
    assert np.abs(np.diff(still, axis=0)).max() < 1e-3
    signs = POD(n_components=2).fit(trace).modes_
    assert np.abs(np.diff(signs, axis=0)).max() > 1e-2


def test_a_rotation_is_the_best_there_is_and_completes_a_wider_basis():
    narrow, wide = planes(6, 1)[:, :2], planes(6, 2)[:, :4]
    turn = alignment(wide, narrow)
    assert_allclose(turn.T @ turn, np.eye(4), atol=1e-12)
    best = np.linalg.norm((wide @ turn)[:, :2] - narrow)
    for seed in range(200):
        assert np.linalg.norm((wide @ planes(4, seed))[:, :2] - narrow) >= best - 1e-12


def test_angles_between_equal_spans_are_zero_and_a_known_tilt_is_found():
    tilt = np.radians(10)
    tilted = np.array([[np.cos(tilt), 0], [0, 1], [np.sin(tilt), 0]])
    assert_allclose(subspace_angles(np.eye(3)[:, :2], tilted), [10, 0], atol=1e-6)
    same = np.repeat(random_trace(epochs=1).values, 3, axis=0)
    pod = POD(n_components=3).fit(same)
    assert np.isnan(pod.angles_[0]).all()
    assert_allclose(pod.angles_[1:], 0, atol=1e-5)


@pytest.mark.parametrize("basis", ["last", "all", 0.0])
def test_a_fixed_basis_is_the_same_in_every_epoch_and_takes_other_epochs(basis):
    trace = random_trace()
    pod = POD(n_components=2, basis=basis).fit(trace)
    assert np.ptp(pod.modes_.values, axis=0).max() == 0
    chosen = {"last": trace.isel(epoch=[-1]), "all": trace, 0.0: trace.sel(epoch=[0.0])}[basis]
    rows = chosen.transpose("epoch", "step", "sample", "unit").values.reshape(-1, 6)
    expected = np.linalg.svd(rows)[2][:2].T
    assert_allclose(np.abs(np.einsum("uk,uk->k", expected, pod.modes_.values[0])), 1)
    other = random_trace(epochs=9, seed=8)
    assert pod.transform(other).sizes["epoch"] == 9
    assert pod.captured(other).shape == (9,)


def test_own_bases_refuse_epochs_that_they_do_not_have():
    pod = POD().fit(random_trace())
    with pytest.raises(ValueError, match=r"have no modes of their own"):
        pod.transform(random_trace(epochs=5))


@pytest.mark.parametrize("options", [{}, {"align": "rotation"}, {"basis": "all"}, {"basis": "last"}, {"center": True}])
def test_taking_in_epochs_one_by_one_equals_one_fit(options):
    trace = random_trace(epochs=6)
    whole, grown = POD(**options).fit(trace), POD(**options)
    for epoch in trace["epoch"].values:
        grown.partial_fit(trace.sel(epoch=[epoch]))
    xr.testing.assert_allclose(grown.modes_, whole.modes_)
    assert_allclose(grown.singular_values_, whole.singular_values_)
    assert_allclose(grown.angles_, whole.angles_)
    with pytest.raises(ValueError, match="are fitted already"):
        grown.partial_fit(trace.isel(epoch=[0]))
    with pytest.raises(ValueError, match=r"are fitted, got"):
        grown.partial_fit(random_trace(epochs=1, units=5).assign_coords(epoch=[99.0]))


def test_padding_takes_no_part():
    trace = random_trace(steps=6)
    padded = trace.copy()
    padded[:, 4:, :, 2] = np.nan
    pod = POD(n_components=2).fit(padded)
    rows = padded.isel(epoch=1).transpose("step", "sample", "unit").values.reshape(-1, 6)
    rows = rows[~np.isnan(rows).any(axis=1)]
    assert_allclose(pod.singular_values_[1], np.linalg.svd(rows, compute_uv=False))
    coordinates = pod.transform(padded)
    assert np.isnan(coordinates.values[:, 4:, 2]).all()
    assert np.isfinite(pod.captured(padded)).all()
    assert not pod.skipped_.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_epoch_that_has_diverged_is_skipped_with_a_mark(bad):
    trace = random_trace()
    trace[2, 1, 3, 0] = bad
    pod = POD(n_components=2).fit(trace)
    assert pod.skipped_.tolist() == [False, False, True, False]
    assert np.isnan(pod.singular_values_[2]).all()
    assert pod.dimension_[2] == 0
    assert np.isnan(pod.transform(trace).values[2]).all()
    alone = POD(n_components=2).fit(trace.isel(epoch=[0, 1, 3]))
    assert_allclose(pod.modes_.values[3], alone.modes_.values[2])


def test_an_epoch_lost_to_nan_altogether_is_no_padding():
    trace = random_trace()
    trace[1:3] = np.nan
    assert POD().fit(trace).skipped_.tolist() == [False, True, True, False]
    trace[0] = np.nan
    assert POD().fit(trace).skipped_.tolist() == [True, True, True, False]


def test_a_dead_layer_has_no_dimension_and_nothing_is_divided_by_zero():
    pod = POD().fit(np.zeros((2, 3, 4, 5)))
    assert pod.dimension_.tolist() == [0, 0]
    assert pod.dimensions_.tolist() == [[0, 0, 0]] * 2
    assert pod.participation_ratio_.tolist() == [0, 0]
    assert pod.percent_used_.tolist() == [0, 0]
    assert energy_fractions(np.zeros(3)).tolist() == [0, 0, 0]
    assert pod.transform(np.zeros((2, 3, 4, 5))).shape == (2, 3, 5, 0)


def test_the_estimator_is_scikit_learns_kind():
    pod = POD(3, energy=0.8, center=True)
    assert clone(pod).get_params() == pod.get_params()
    assert pod.get_params()["n_components"] == 3
    first = pod.fit(random_trace(seed=1)).singular_values_
    pod.fit(random_trace(seed=2))
    assert_allclose(pod.fit(random_trace(seed=1)).singular_values_, first)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"energy": 0.0}, "energy is a share"),
        ({"energy": 1.2}, "energy is a share"),
        ({"n_components": 0}, "n_components must be at least 1"),
        ({"basis": "first"}, "basis is 'epoch'"),
        ({"basis": 77.0}, "no such epoch"),
        ({"align": "best"}, "align is"),
        ({"weights": "even"}, "weights are 'balanced'"),
        ({"weights": (1.0, 2.0)}, "weights need 1 positive"),
    ],
)
def test_wrong_options_say_what_is_right(options, message):
    with pytest.raises(ValueError, match=message):
        POD(**options).fit(random_trace())
