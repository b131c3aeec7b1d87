"""Landmarks: k-means per unit, as good as scikit-learn's, and what becomes of few or equal nodes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from engine_examples import recurrent_trace
from hiddenscope.embeddings.landmarks import choose_landmarks, k_means
from hiddenscope.embeddings.nodes import normalize
from hiddenscope.embeddings.unit_rows import unit_rows


def inertia(points: np.ndarray, centers: np.ndarray, labels: np.ndarray) -> float:  # type: ignore[type-arg]
    return float(np.sum((points - centers[labels]) ** 2))


def test_clusters_are_nearly_as_tight_as_those_of_scikit_learn() -> None:
    points = np.asarray(normalize(recurrent_trace(30, 20, 1, 8)))[:, 0].astype(np.float32)
    centers, sizes, labels = k_means(points, 40)
    oracle = KMeans(40, n_init=1, random_state=0).fit(points).inertia_
    assert inertia(points, centers, labels) < 1.5 * oracle  # which draws each start several times and keeps the best
    assert inertia(points, points[:40], labels) > 10 * oracle
    np.testing.assert_array_equal(sizes, np.bincount(labels))
    np.testing.assert_allclose(centers[3], points[labels == 3].mean(axis=0), atol=1e-5)


def test_training_on_a_sample_still_labels_every_point(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("hiddenscope.embeddings.landmarks.TRAINING_ROWS", 100)
    points = np.random.default_rng(0).normal(size=(700, 4)).astype(np.float32)
    centers, sizes, labels = k_means(points, 20)
    assert sizes.sum() == 700
    assert len(centers) == labels.max() + 1
    full = inertia(points, *k_means(points, 20)[::2])
    assert inertia(points, centers, labels) <= full


def test_equal_points_make_one_cluster() -> None:
    centers, sizes, labels = k_means(np.ones((9, 3), np.float32), 4)
    assert centers.tolist() == [[1, 1, 1]]
    assert sizes.tolist() == [9]
    assert not labels.any()


@settings(max_examples=20)
@given(st.integers(2, 6), st.integers(2, 6), st.integers(2, 40), st.integers(0, 3))
def test_every_node_has_a_landmark_of_its_own_unit_and_no_landmark_is_empty(
    slices: int, units: int, n_landmark: int, seed: int
) -> None:
    nodes = np.random.default_rng(seed).normal(size=(slices, units, 3))
    nodes[0, 0] = np.nan
    rows = unit_rows(nodes)
    found = choose_landmarks(rows, n_landmark, seed=seed)
    assert found.sizes.min() > 0
    assert found.sizes.sum() == len(rows.values)
    assert len(found.centers) <= max(n_landmark, units)
    for unit in range(units):
        own = found.of(unit)
        labels = found.labels[rows.of(unit)]
        assert ((labels >= own.start) & (labels < own.stop)).all()


def test_with_no_more_nodes_than_landmarks_every_node_is_its_own() -> None:
    rows = unit_rows(np.random.default_rng(0).normal(size=(5, 2, 3)))
    found = choose_landmarks(rows, 10)
    np.testing.assert_array_equal(found.centers, rows.values)
    np.testing.assert_array_equal(found.labels, np.arange(10))
