"""Landmarks: a few hundred prototypes that stand for all nodes in the diffusion (PHATE, Moon et al. 2019, methods).

Because inter-step affinities join a unit only to itself, landmarks are chosen per unit: k-means on that unit's
responses, with k-means++ starts on at most 20,000 slices. M-PHATE clusters all nodes at once, by spectral coordinates;
with those of `hiddenscope.embeddings.spectral`, the same k-means runs on them instead, still per unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hiddenscope.embeddings.compiled import compiled
from hiddenscope.embeddings.distances import FAR, squared_distances
from hiddenscope.embeddings.threads import run_blocks
from hiddenscope.embeddings.unit_rows import Float32Array, IntArray, UnitRows

TRAINING_ROWS = 20_000
LLOYD_ROUNDS = 10


@dataclass(frozen=True)
class Landmarks:
    """Clusters of each unit's nodes.

    Attributes:
        centers: shape (landmark, feature): cluster means, unit by unit.
        offsets: shape (unit + 1,): unit u owns the landmarks offsets[u] to offsets[u + 1].
        sizes: shape (landmark,): how many nodes each stands for.
        labels: shape (row,): the landmark of each node.
    """

    centers: Float32Array
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    labels: IntArray

    def of(self, unit: int) -> slice:
        """The landmarks of a unit."""
        return slice(int(self.offsets[unit]), int(self.offsets[unit + 1]))


def choose_landmarks(
    rows: UnitRows, n_landmark: int = 1000, *, coordinates: Float32Array | None = None, seed: int = 0
) -> Landmarks:
    """Cluster every unit's nodes by k-means, the landmarks shared out in proportion to the nodes.

    Args:
        rows: nodes sorted by unit.
        n_landmark: how many at most, at least one for each unit that has a node. With no more nodes than that, every
            node is its own landmark.
        coordinates: shape (row, component): what to cluster by; None for the responses themselves. A landmark's center
            is the mean response of its nodes either way.
        seed: of the k-means++ starts.

    Raises:
        ValueError: ``n_landmark`` is below 2.
    """
    if n_landmark < 2:
        raise ValueError(f"n_landmark must be at least 2, got {n_landmark}")
    counts = np.diff(rows.offsets)
    if counts.sum() <= n_landmark:
        every = np.arange(len(rows.values), dtype=np.int32)
        return Landmarks(rows.values, rows.offsets, np.ones(len(every), np.int64), every)
    shares = _shares(counts, n_landmark)
    seeds = np.random.default_rng(seed).integers(0, 2**31 - 1, size=rows.n_units)

    def cluster(unit: int) -> tuple[Float32Array, npt.NDArray[np.int64], IntArray]:
        points, share = rows.values[rows.of(unit)], int(shares[unit])
        if coordinates is None:
            return k_means(points, share, seed=int(seeds[unit]))
        _, _, labels = k_means(coordinates[rows.of(unit)], share, seed=int(seeds[unit]))
        count = int(labels.max(initial=-1)) + 1
        return *_means(points, labels, np.zeros((count, points.shape[1]), np.float32)), labels

    clusters = run_blocks(cluster, range(rows.n_units))
    offsets = np.concatenate([[0], np.cumsum([len(centers) for centers, _, _ in clusters])]).astype(np.int64)
    labels = [(label + offset).astype(np.int32) for (_, _, label), offset in zip(clusters, offsets[:-1], strict=True)]
    return Landmarks(
        np.concatenate([centers for centers, _, _ in clusters]),
        offsets,
        np.concatenate([sizes for _, sizes, _ in clusters]),
        np.concatenate(labels),
    )


def k_means(
    points: Float32Array, n_clusters: int, *, seed: int = 0
) -> tuple[Float32Array, npt.NDArray[np.int64], IntArray]:
    """Cluster means, sizes and labels of points, by Lloyd's rounds from a k-means++ start.

    Fewer clusters come back where the points have fewer distinct values. The means and sizes are those of all points,
    the rounds use at most `TRAINING_ROWS` of them.
    """
    if len(points) == 0 or n_clusters == 0:
        empty = np.empty((0, points.shape[1]), np.float32)
        return empty, np.zeros(0, np.int64), np.zeros(len(points), np.int32)
    generator = np.random.default_rng(seed)
    training = points
    if len(points) > TRAINING_ROWS:
        training = points[np.sort(generator.choice(len(points), TRAINING_ROWS, replace=False))]
    centers = _scattered_start(training, min(n_clusters, len(points)), generator.random(n_clusters))
    labels, nearest = np.empty(len(training), np.int32), np.empty(len(training), np.float32)
    for _ in range(LLOYD_ROUNDS):
        nearest_centers(training, centers, labels, nearest)
        centers, _ = _means(training, labels, centers)
    if len(training) < len(points):
        labels, nearest = np.empty(len(points), np.int32), np.empty(len(points), np.float32)
    nearest_centers(points, centers, labels, nearest)
    centers, sizes = _means(points, labels, centers)
    kept = sizes > 0
    return centers[kept], sizes[kept], (np.cumsum(kept) - 1).astype(np.int32)[labels]


def nearest_centers(points: Float32Array, centers: Float32Array, labels: IntArray, squared: Float32Array) -> None:
    """Fill in, for every point, the number of its nearest center and the squared distance to it."""
    _nearest_centers(points, np.ascontiguousarray(centers.T), np.empty(len(centers), np.float32), labels, squared)


def _shares(counts: npt.NDArray[np.int64], total: int) -> npt.NDArray[np.int64]:
    """``total`` landmarks in proportion to the nodes of each unit, rounded down, one at least, no more than nodes."""
    return np.asarray(np.minimum(counts, np.maximum(counts > 0, total * counts // counts.sum())))


def _scattered_start(points: Float32Array, n_clusters: int, draws: npt.NDArray[np.float64]) -> Float32Array:
    """k-means++: each next center is a point drawn with probability proportional to its squared distance so far."""
    chosen = np.empty(n_clusters, np.int32)
    nearest, distances = np.full(len(points), FAR, np.float32), np.empty(len(points), np.float32)
    count = _draw_apart(points, np.ascontiguousarray(points.T), draws, nearest, distances, chosen)
    return points[chosen[:count]]


def _means(points: Float32Array, labels: IntArray, centers: Float32Array) -> tuple[Float32Array, npt.NDArray[np.int64]]:
    """Mean of the points of each label; a center that has none stays."""
    sums = np.zeros(centers.shape, np.float64)
    _add_up(points, labels, sums)
    sizes = np.bincount(labels, minlength=len(centers))
    means = sums / np.maximum(sizes, 1)[:, None]
    return np.where(sizes[:, None] > 0, means, centers).astype(np.float32), sizes


@compiled
def _draw_apart(points, columns, draws, nearest, distances, chosen):  # type: ignore[no-untyped-def]
    count = len(points)
    chosen[0] = min(int(draws[0] * count), count - 1)
    for cluster in range(1, len(chosen)):
        squared_distances(points[chosen[cluster - 1]], columns, np.int64(0), count, distances)
        total = 0.0
        for j in range(count):
            nearest[j] = min(nearest[j], distances[j])
            total += nearest[j]
        if total <= 0.0:
            return cluster
        target, sofar, winner = draws[cluster] * total, 0.0, -1
        for j in range(count):
            sofar += nearest[j]
            if nearest[j] > 0:
                winner = j
                if sofar > target:
                    break
        chosen[cluster] = winner
    return len(chosen)


@compiled
def _nearest_centers(points, columns, distances, labels, squared):  # type: ignore[no-untyped-def]
    count = columns.shape[1]
    for i in range(len(points)):
        squared_distances(points[i], columns, np.int64(0), count, distances)
        smallest = FAR
        for j in range(count):
            smallest = min(smallest, distances[j])
        winner = 0
        while winner < count - 1 and distances[winner] != smallest:
            winner += 1
        labels[i] = winner
        squared[i] = smallest


@compiled
def _add_up(points, labels, sums):  # type: ignore[no-untyped-def]
    for i in range(len(points)):
        total, point = sums[labels[i]], points[i]
        for feature in range(len(point)):
            total[feature] += point[feature]
