"""Neighbor search: equal to brute force where exact, nearly so where it probes clusters."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from engine_examples import recurrent_trace
from hiddenscope.embeddings.landmarks import choose_landmarks
from hiddenscope.embeddings.neighbors import nearest_slices, neighbor_distances
from hiddenscope.embeddings.nodes import normalize
from hiddenscope.embeddings.unit_rows import UnitRows, unit_rows


def brute_force(rows: UnitRows, unit: int, count: int) -> np.ndarray:  # type: ignore[type-arg]
    points = rows.values[rows.of(unit)].astype(float)
    distances = cdist(points, points)
    np.fill_diagonal(distances, np.inf)
    return np.sort(distances, axis=1)[:, :count]


def test_exact_search_finds_what_brute_force_finds() -> None:
    rows = unit_rows(normalize(recurrent_trace(15, 11, 4, 9)))
    found, distances = nearest_slices(rows, None, 7)
    for unit in range(4):
        np.testing.assert_allclose(distances[rows.of(unit)], brute_force(rows, unit, 7), atol=2e-5)
    assert (found != np.arange(len(found))[:, None]).all()
    own = np.linalg.norm(rows.values[found[:, 3]] - rows.values, axis=1)
    np.testing.assert_allclose(own, distances[:, 3], atol=2e-5)


def test_probing_clusters_finds_nearly_all_neighbors_of_a_search_ten_times_as_wide() -> None:
    rows = unit_rows(normalize(recurrent_trace(60, 40, 2, 9)))
    landmarks = choose_landmarks(rows, 100)
    exact, _ = nearest_slices(rows, None, 12)
    probed, _ = nearest_slices(rows, landmarks, 12, candidates=240)
    recall = np.mean([len(np.intersect1d(one, other)) / 12 for one, other in zip(exact, probed, strict=True)])
    assert 0.9 < recall < 1
    narrow, _ = nearest_slices(rows, landmarks, 12, candidates=20)
    assert np.mean(narrow == exact) < np.mean(probed == exact)


def test_a_unit_with_few_slices_fills_up_with_itself() -> None:
    rows = unit_rows(normalize(recurrent_trace(1, 3, 2, 9)))
    found, distances = nearest_slices(rows, None, 5)
    np.testing.assert_array_equal(found[:, 2:], np.arange(6)[:, None].repeat(3, axis=1))
    assert not distances[:, 2:].any()


def test_equal_slices_are_neighbors_at_distance_zero() -> None:
    points = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    np.testing.assert_array_equal(neighbor_distances(points, np.arange(12), 3), 0)
    assert (neighbor_distances(points, np.arange(12), 4) > 1).all()
