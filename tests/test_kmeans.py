"""k-means on distances is k-means: the means, the inertia and the silhouette are those of scikit-learn."""

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score

from hiddenscope.analyses.kmeans import kmeans, silhouette, squared_distances


def blobs(seed, clusters=4, n=60, features=5):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(clusters, features))[rng.integers(0, clusters, n)] * 2 + rng.normal(size=(n, features))


@pytest.mark.parametrize("k", [2, 3, 5, 8])
def test_the_result_is_a_fixed_point_with_the_inertia_of_its_means_and_no_worse_than_scikit_learn(k):
    for seed in range(4):
        points = blobs(seed)
        labels, inertia = kmeans(squared_distances(points), k, starts=16)
        means = np.array([points[labels == cluster].mean(axis=0) for cluster in range(k)])
        squared = ((points[:, None] - means) ** 2).sum(axis=2)
        np.testing.assert_array_equal(squared.argmin(axis=1), labels)
        assert inertia == pytest.approx(squared.min(axis=1).sum(), rel=1e-9)
        other = KMeans(k, n_init=16, random_state=0).fit(points).inertia_
        assert inertia == pytest.approx(other, rel=0.03)  # two searches with chance starts


def test_the_silhouette_is_that_of_scikit_learn():
    points = blobs(1)
    for k in (2, 3, 8):
        labels, _ = kmeans(squared_distances(points), k)
        found = silhouette(np.sqrt(squared_distances(points)), labels)
        assert found == pytest.approx(silhouette_score(points, labels), rel=1e-9)
    assert np.isnan(silhouette(np.sqrt(squared_distances(points)), np.zeros(60, dtype=int)))


def test_distances_far_from_the_origin_keep_their_digits():
    points = blobs(2)
    np.testing.assert_allclose(squared_distances(points + 1e4), squared_distances(points), rtol=1e-6, atol=1e-6)
    direct = ((points[:, None] - points) ** 2).sum(axis=2)
    np.testing.assert_allclose(squared_distances(points), direct, atol=1e-12)


def test_points_that_coincide_make_as_many_clusters_as_there_are_places():
    points = np.repeat(np.eye(3), 5, axis=0)
    labels, inertia = kmeans(squared_distances(points), 3, starts=8)
    assert len(np.unique(labels)) == 3
    assert inertia == pytest.approx(0, abs=1e-12)
