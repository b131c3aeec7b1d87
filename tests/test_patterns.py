"""Clusters of sub-sequences: planted motifs are found again, and what was never seen is told from what was."""

import sys

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from hiddenscope.analyses.patterns import METHODS, cluster_patterns, judge, pattern_drift
from hiddenscope.errors import MissingExtraError

STEPS = np.linspace(-1, 1, 20)
TRIANGLE, DIP = 1 - np.abs(STEPS), -np.cos(np.pi * STEPS / 2)
NOISE = 0.1


def two_motifs(seed=0, counts=(80, 50)):
    rng = np.random.default_rng(seed)
    truth = np.repeat([0, 1], counts)
    windows = np.stack([TRIANGLE, DIP])[truth] + rng.normal(0, NOISE, size=(len(truth), 20))
    order = rng.permutation(len(truth))
    return windows[order][:, :, None], truth[order]


@pytest.mark.parametrize("method", ["kmeans", "mixture"])
def test_two_motifs_are_two_clusters_with_the_motifs_as_patterns_and_the_noise_as_band(method):
    windows, truth = two_motifs()
    found = cluster_patterns(windows, method=method)
    assert len(found.counts) == 2
    assert adjusted_rand_score(truth, found.labels) == 1.0
    assert found.counts.tolist() == [80, 50]
    np.testing.assert_allclose(found.shares, [80 / 130, 50 / 130])
    for pattern, band, motif, count in zip(found.means, found.deviations, (TRIANGLE, DIP), (80, 50), strict=True):
        assert np.abs(pattern[:, 0] - motif).max() < 4 * NOISE / np.sqrt(count)  # 20 points at 4 standard errors
        assert band.mean() == pytest.approx(NOISE, rel=0.1)
    best = max(found.scores, key=found.scores.get) if method == "kmeans" else min(found.scores, key=found.scores.get)
    assert best == 2
    assert found.score == found.scores[2]


@pytest.mark.parametrize("method", METHODS)
def test_a_motif_that_was_never_seen_is_untypical_and_a_common_one_is_not(method):
    windows, _ = two_motifs()
    found = cluster_patterns(windows, method=method)
    stranger = judge(found, np.sign(STEPS)[None, :, None] * 2)
    assert stranger.typicality[0] > 99
    assert not stranger.seen_often[0]
    members = judge(found, windows)
    np.testing.assert_allclose(members.rarity, found.shares[members.cluster])
    if method != "som":  # whose nodes are so many that a member may be nearer to the mean of the next one
        np.testing.assert_array_equal(members.cluster, found.labels)
        for cluster, count in enumerate(found.counts):  # ranks 0, 1, … of n members, in percent of n
            ranks = np.sort(members.typicality[found.labels == cluster])
            np.testing.assert_allclose(ranks, 100 * np.arange(count) / count)


def test_a_window_at_the_pattern_is_typical_and_one_between_two_is_doubtful():
    windows, _ = two_motifs()
    found = cluster_patterns(windows)
    verdict = judge(found, np.stack([found.means[0], found.means[1], found.means.mean(axis=0)]))
    np.testing.assert_allclose(verdict.membership_entropy, [0, 0, 1], atol=1e-9)
    np.testing.assert_allclose(verdict.typicality, [0, 0, 100])
    assert verdict.seen_often.tolist() == [True, True, False]


def test_the_membership_entropy_of_a_mixture_is_that_of_its_posterior():
    from sklearn.mixture import GaussianMixture

    rng = np.random.default_rng(0)
    windows = np.concatenate([rng.normal(-1, 1, size=(200, 1)), rng.normal(1, 1, size=(200, 1))])[:, :, None]
    found = cluster_patterns(windows, method="mixture", n_clusters=2, random_state=3)
    points = windows.reshape(-1, 1)
    floor = 1e-3 * points.var() + 1e-12
    model = GaussianMixture(2, covariance_type="diag", reg_covar=floor, n_init=2, random_state=3).fit(points)
    posterior = model.predict_proba(points)
    expected = -(posterior * np.log(posterior)).sum(axis=1) / np.log(2)
    np.testing.assert_allclose(judge(found, windows).membership_entropy, expected, atol=1e-6)
    assert found.score == pytest.approx(model.bic(points))


def test_noise_alone_is_one_cluster():
    windows = np.random.default_rng(0).normal(size=(150, 20, 2))
    for method in ("kmeans", "mixture"):
        found = cluster_patterns(windows, method=method)
        assert found.counts.tolist() == [150]
        assert judge(found, windows).membership_entropy.tolist() == [0.0] * 150


def test_too_few_sub_sequences_are_skipped_with_a_reason():
    found = cluster_patterns(np.zeros((3, 5, 1)))
    assert found.skipped == "3 sub-sequences are too few, 4 are needed"
    assert found.means.shape == (0, 5, 1)
    assert found.labels.tolist() == [-1, -1, -1]
    assert np.isnan(pattern_drift(found, found))
    with pytest.raises(ValueError, match="there is no cluster to compare with"):
        judge(found, np.zeros((1, 5, 1)))


def test_equal_windows_are_one_cluster_without_a_band():
    found = cluster_patterns(np.ones((30, 4, 1)))
    assert found.counts.tolist() == [30]
    assert not found.deviations.any()


def test_the_self_organizing_map_separates_motifs_and_is_the_same_for_a_seed():
    windows, truth = two_motifs(counts=(120, 120))
    found = cluster_patterns(windows, method="som", random_state=4)
    assert 2 <= len(found.counts) <= 64
    assert found.nodes is not None
    assert len(np.unique(found.nodes, axis=0)) == len(found.counts)
    for cluster in range(len(found.counts)):
        assert len(np.unique(truth[found.labels == cluster])) == 1, "a node holds both motifs"
    again = cluster_patterns(windows, method="som", random_state=4)
    np.testing.assert_array_equal(found.labels, again.labels)
    assert (np.diff(found.counts) <= 0).all()


def test_a_missing_map_library_is_named_with_its_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "minisom", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hiddenscope\[analyses\]'"):
        cluster_patterns(two_motifs()[0], method="som")


def test_shapes_alone_forget_level_and_scale():
    rng = np.random.default_rng(0)
    level, size = rng.normal(0, 5, size=(60, 1)), rng.uniform(1, 4, size=(60, 1))
    truth = np.repeat([0, 1], 30)
    windows = (level + size * np.stack([TRIANGLE, DIP])[truth] + rng.normal(0, 0.05, size=(60, 20)))[:, :, None]
    assert adjusted_rand_score(truth, cluster_patterns(windows, n_clusters=2, standardize=True).labels) == 1.0
    assert adjusted_rand_score(truth, cluster_patterns(windows, n_clusters=2).labels) < 0.5


def test_masked_lags_do_not_count_in_the_pattern():
    windows, truth = two_motifs()
    masked = windows.copy()
    masked[::3, :4] = np.nan
    found = cluster_patterns(masked)
    assert adjusted_rand_score(truth, found.labels) == 1.0
    expected = np.nanmean(masked[truth == 0], axis=0)
    np.testing.assert_allclose(found.means[0], expected)
    assert np.isfinite(judge(found, masked).typicality).all()


def test_patterns_that_do_not_move_have_no_drift_and_moved_ones_have_their_distance():
    windows, _ = two_motifs()
    before = cluster_patterns(windows)
    assert pattern_drift(before, cluster_patterns(windows)) == 0.0
    assert pattern_drift(before, cluster_patterns(windows + 0.3)) == pytest.approx(0.3, rel=1e-6)
    assert pattern_drift(before, cluster_patterns(windows + 0.3), scale=[2.0]) == pytest.approx(0.15, rel=1e-6)


def test_bad_values_are_named():
    with pytest.raises(ValueError, match="windows need dims"):
        cluster_patterns(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="method must be one of"):
        cluster_patterns(np.zeros((9, 4, 1)), method="ward")
    with pytest.raises(ValueError, match="windows need 4 lags of 1 features"):
        judge(cluster_patterns(np.random.default_rng(0).normal(size=(9, 4, 1))), np.zeros((1, 3, 1)))
