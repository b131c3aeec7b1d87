"""Linear probes and mutual information where the truth is known."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.special import digamma
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_selection import mutual_info_classif

from hiddenscope.analyses import information, probes
from hiddenscope.analyses.information import label_information
from hiddenscope.analyses.probes import probe_accuracy

DIMS = ("epoch", "step", "unit", "sample")


def labeled(values, labels):
    return xr.DataArray(values, dims=DIMS, coords={"label": ("sample", labels), "epoch": np.arange(len(values)) - 1.0})


def test_separable_states_are_told_apart_at_every_step_and_from_the_epoch_they_separate():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 10)
    centers = 10 * rng.normal(size=(4, 6))
    values = rng.normal(size=(3, 5, 6, 40))
    values[1:] += centers[labels].T
    found = probe_accuracy(labeled(values, labels))
    assert found.accuracy.dims == ("epoch", "step")
    assert (found.accuracy.sel(epoch=[0.0, 1.0]) == 1.0).all()
    assert found.accuracy.sel(epoch=-1.0).mean() < 0.5


def test_three_classes_on_one_line_are_separable_too():
    labels = np.repeat(np.arange(3), 12)
    line = labels + np.random.default_rng(1).uniform(-0.3, 0.3, 36)  # regression on indicators would miss the middle
    assert probe_accuracy(labeled(line[None, None, None], labels)).accuracy.item() == 1.0


def test_shuffled_labels_are_told_at_chance():
    rng = np.random.default_rng(2)
    labels = rng.permutation(np.repeat(np.arange(6), 10))
    values = rng.normal(size=(12, 16, 30, 60)).astype(np.float32)
    found = probe_accuracy(labeled(values, labels))
    assert abs(float(found.accuracy.mean()) - 1 / 6) < 0.02
    assert abs(found.attrs["chance"] - 1 / 6) < 0.02
    inside = (found.accuracy >= found.attrs["chance_low"]) & (found.accuracy <= found.attrs["chance_high"])
    assert inside.mean() > 0.85


def test_probe_agrees_with_discriminant_analysis_of_scikit_learn(monkeypatch):
    monkeypatch.setattr(probes, "SHRINKAGE", 0.0)
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(3), 20)
    points = rng.normal(size=(60, 4)) + 1.2 * np.eye(3, 4)[labels]
    train = rng.permutation(60)[:45]
    held = np.setdiff1d(np.arange(60), train)
    standard = probes._standardized(points[None])
    ours = probes._classify(standard[:, train], labels[train], standard[:, held])[0]
    theirs = LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / 3] * 3).fit(standard[0, train], labels[train])
    assert (ours == theirs.predict(standard[0, held])).mean() > 0.99


def test_more_units_than_samples_are_reduced_without_loss():
    rng = np.random.default_rng(4)
    labels = np.repeat(np.arange(2), 10)
    wide = rng.normal(size=(1, 20, 50)) + labels[:, None] * rng.normal(size=50)
    points = probes._standardized(wide)
    reduced = probes._reduced(points)
    assert reduced.shape == (1, 20, 20)
    assert_allclose(reduced @ reduced.transpose(0, 2, 1), points @ points.transpose(0, 2, 1), atol=1e-9)


def test_folds_are_stratified_and_hold_each_sample_once():
    labels = np.repeat(np.arange(3), [5, 11, 24])
    folds = probes._folds(labels, 5, np.random.default_rng(0))
    for label in range(3):
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert np.ptp(np.bincount(folds)) <= 1


def test_samples_that_have_ended_are_left_out_and_too_few_give_nan():
    labels = np.repeat([0, 1], 8)
    values = np.tile(10.0 * labels, (2, 3, 2, 1)) + np.random.default_rng(0).normal(size=(2, 3, 2, 16))
    values[:, 1, :, :4] = np.nan
    values[:, 2, :, :8] = np.nan  # only one class goes on
    found = probe_accuracy(labeled(values, labels)).accuracy
    assert (found.isel(step=[0, 1]) == 1.0).all()
    assert found.isel(step=2).isnull().all()
    told = label_information(labeled(values, labels)).information
    assert (told.isel(step=[0, 1]) > 0.5).all()
    assert told.isel(step=2).isnull().all()


def test_dead_states_are_at_chance_and_tell_nothing():
    labels = np.repeat(np.arange(3), 10)
    trace = labeled(np.full((1, 2, 4, 30), 0.25), labels)
    assert_allclose(probe_accuracy(trace).accuracy, 1 / 3)
    told = label_information(trace)
    assert_allclose(told.information, 1 / 29 - 1 / 9)  # psi(30) - psi(29) + psi(9) - psi(10)
    assert_allclose(told.information, told.shuffled)


def test_labels_must_be_there_and_fit():
    trace = xr.DataArray(np.zeros((1, 1, 1, 4)), dims=DIMS)
    for study in (probe_accuracy, label_information):
        with pytest.raises(ValueError, match="no coordinate 'label'"):
            study(trace)
        with pytest.raises(ValueError, match="a label for each of 4 samples"):
            study(trace, [0, 1])
    with pytest.raises(ValueError, match="at least 2 folds, got 1"):
        probe_accuracy(trace, [0, 1, 0, 1], n_folds=1)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        label_information(trace, [0, 1, 0, 1], n_neighbors=0)


@pytest.mark.parametrize("flip", [0.0, 0.05, 0.11, 0.25, 0.5])
def test_a_binary_symmetric_channel_is_measured_to_three_hundredths_of_a_nat(flip, monkeypatch):
    monkeypatch.setattr(information, "MOST_SAMPLES", 4000)
    rng = np.random.default_rng(5)
    labels = np.repeat([0, 1], 2000)
    received = np.where(rng.random(4000) < flip, 1 - labels, labels).astype(float)
    share = np.mean(received != labels)
    truth = np.log(2) + sum(p * np.log(p) for p in (share, 1 - share) if p > 0)
    found = label_information(labeled(received[None, None, None], labels), n_shuffles=2)
    assert abs(found.information.item() - truth) < 0.03
    assert abs(found.shuffled.item()) < 0.03
    assert found.attrs["label_entropy"] == pytest.approx(np.log(2))


def test_overlapping_gaussians_are_measured_as_by_quadrature(monkeypatch):
    monkeypatch.setattr(information, "MOST_SAMPLES", 3000)
    rng = np.random.default_rng(6)
    labels = np.repeat([0, 1], 1500)
    values = rng.normal(size=3000) + 2.0 * labels
    x = np.linspace(-8, 10, 20001)
    densities = [np.exp(-((x - mean) ** 2) / 2) / np.sqrt(2 * np.pi) for mean in (0, 2)]
    mixture = sum(densities) / 2
    truth = sum(np.trapezoid(0.5 * p * np.log(np.maximum(p, 1e-300) / mixture), x) for p in densities)
    found = label_information(labeled(values[None, None, None], labels), n_shuffles=0).information.item()
    assert abs(found - truth) < 0.03


def test_without_ties_the_estimate_is_that_of_scikit_learn():
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 3, 90)
    values = rng.normal(size=90) + labels
    ours = label_information(labeled(values[None, None, None], labels), n_shuffles=0).information.item()
    theirs = mutual_info_classif(values[:, None], labels, n_neighbors=3, random_state=0)[0]
    assert max(0.0, ours) == pytest.approx(theirs, abs=1e-6)


def slow_twin(points, labels, k):
    """Ross 2014 and Gao et al. 2017, sample by sample."""
    n, total = len(points), 0.0
    for i in range(n):
        distance = [np.linalg.norm(points[i] - points[j]) for j in range(n)]
        same = sorted(distance[j] for j in range(n) if j != i and labels[j] == labels[i])
        reach = same[min(k, len(same)) - 1]
        k_i = sum(value <= reach for value in same)
        m_i = sum(distance[j] <= reach for j in range(n) if j != i)
        total += digamma(k_i) - digamma(np.sum(labels == labels[i])) - digamma(m_i)
    return digamma(n) + total / n


@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 4))
@settings(max_examples=25)
def test_the_compiled_estimate_is_the_slow_one_with_ties_and_without(seed, k, units):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.repeat([0, 1, 2], 2), rng.integers(0, 3, 14)])
    points = rng.normal(size=(20, units))
    points[rng.random(20) < 0.4] = 0.0
    found = label_information(labeled(points.T[None, None], labels), n_neighbors=k, n_shuffles=0).information.item()
    assert found == pytest.approx(slow_twin(points, labels, k), abs=1e-9)


def test_with_dozens_of_units_the_shuffled_estimate_shows_the_bias():
    rng = np.random.default_rng(8)
    labels = np.repeat(np.arange(6), 10)
    values = rng.normal(size=(4, 4, 30, 60))
    found = label_information(labeled(values, labels))
    assert abs(float(found.information.mean() - found.shuffled.mean())) < 0.03


def test_many_samples_are_thinned_within_each_class(monkeypatch):
    monkeypatch.setattr(information, "MOST_SAMPLES", 30)
    labels = np.tile([0, 1, 2], 40)
    kept = information._thinned(labels)
    assert np.bincount(labels[kept]).tolist() == [10, 10, 10]
