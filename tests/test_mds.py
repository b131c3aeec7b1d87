"""Metric MDS: closed forms, scikit-learn's SMACOF as an oracle, anchors."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import pdist, squareform
from sklearn.manifold import smacof

from engine_examples import correlation
from hiddenscope.embeddings.mds import classic_mds, metric_mds


def cloud(count: int = 80, dims: int = 3, seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(seed).normal(size=(count, dims)) * np.array([3.0, 2.0, 1.0, 0.7, 0.5])[:dims]


def distances_of(points: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    return squareform(pdist(points)).astype(np.float32)


def test_classic_mds_recovers_points_from_their_distances() -> None:
    points = cloud()
    assert correlation(classic_mds(distances_of(points), 3), points) > 1 - 1e-6


def test_points_that_fit_stay_and_their_stress_is_zero() -> None:
    points = cloud()
    found = metric_mds(distances_of(points), classic_mds(distances_of(points), 3))
    assert found.stress < 1e-8
    np.testing.assert_allclose(distances_of(found.positions), distances_of(points), atol=1e-3)


def test_the_stress_in_two_dimensions_is_as_low_as_that_of_scikit_learn() -> None:
    distances = distances_of(cloud(dims=5))
    start = classic_mds(distances, 2)
    found = metric_mds(distances, start, rounds=2000, tolerance=1e-7)
    _, raw = smacof(distances.astype(float), n_components=2, init=start.astype(float), n_init=1, max_iter=3000, eps=1e-9, normalized_stress=False)[:2]  # fmt: skip  # noqa: E501
    assert found.stress <= 1.002 * raw / (np.sum(distances.astype(float) ** 2) / 2)
    assert found.stress < metric_mds(distances, start, rounds=1).stress


def test_the_picture_is_centered_and_of_the_size_of_the_distances() -> None:
    distances = distances_of(cloud())
    positions = metric_mds(distances, classic_mds(distances, 2)).positions
    np.testing.assert_allclose(positions.mean(axis=0), 0, atol=1e-4)
    assert 0.7 < distances_of(positions).mean() / distances.mean() < 1.1


def test_an_anchored_point_hardly_moves() -> None:
    distances = distances_of(cloud(dims=5))
    start = np.random.default_rng(1).normal(size=(80, 2)).astype(np.float32)
    anchor = np.zeros(80, np.float32)
    anchor[:40] = 1e4
    moved = np.linalg.norm(metric_mds(distances, start, anchor=anchor, rounds=50).positions - start, axis=1)
    assert moved[:40].max() < 0.01
    assert moved[40:].mean() > 1


def test_equal_points_and_single_points_are_at_the_origin() -> None:
    for count in (1, 4):
        zero = np.zeros((count, count), np.float32)
        assert not metric_mds(zero, classic_mds(zero, 2)).positions.any()
