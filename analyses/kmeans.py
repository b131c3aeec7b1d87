"""k-means on pairwise distances, for the few hundred sub-sequences of a unit: all starts and steps as matrix products.

A distance to a cluster's mean needs no mean: it is the mean squared distance to the members less half the mean squared
distance among them. Lloyd's iterations on that are those of ordinary k-means, and take a tenth of the time here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def squared_distances(points: Floats) -> Floats:
    """Squared Euclidean distance between each two points, shape (point, point).

    >>> squared_distances(np.array([[0.0], [3.0]])).tolist()
    [[0.0, 9.0], [9.0, 0.0]]
    """
    centered = points - points.mean(axis=0)
    sizes = (centered**2).sum(axis=1)
    squared = np.maximum(sizes[:, None] + sizes - 2 * centered @ centered.T, 0.0)
    np.fill_diagonal(squared, 0.0)
    return np.asarray((squared + squared.T) / 2)


def kmeans(squared: Floats, k: int, *, starts: int = 4, rounds: int = 100, random_state: int = 0) -> tuple[Ints, float]:
    """The best of several starts of Lloyd's iterations, each from k-means++ (Arthur and Vassilvitskii 2007).

    Args:
        squared: squared distances, shape (point, point).
        k: how many clusters, at most as many as there are different points.
        starts: of which the one with the least inertia is kept.
        rounds: most iterations.
        random_state: seed.

    Returns:
        Cluster of each point, and the inertia: the sum of squared distances to the clusters' means.

    >>> labels, inertia = kmeans(squared_distances(np.array([[0.0], [1.0], [10.0], [11.0]])), 2)
    >>> len({*labels[:2].tolist()}), len({*labels.tolist()}), inertia
    (1, 2, 1.0)
    """
    generator = np.random.default_rng([random_state, k])
    n = len(squared)
    labels = np.stack([_start(squared, k, generator) for _ in range(starts)])
    inertia = np.full(starts, np.inf)
    for _ in range(rounds):
        to_means = _to_means(squared, labels, k)
        nearest = to_means.argmin(axis=2)
        spread = np.take_along_axis(to_means, nearest[..., None], axis=2).sum(axis=(1, 2))
        if (nearest == labels).all() or not (spread < inertia * (1 - 1e-12) - 1e-300).any():
            break
        labels, inertia = nearest, spread
    to_means = _to_means(squared, labels, k)
    inertia = np.take_along_axis(to_means, labels[..., None], axis=2).reshape(starts, n).sum(axis=1)
    best = int(inertia.argmin())
    return labels[best].astype(np.int64), float(inertia[best])


def silhouette(distances: Floats, labels: Ints) -> float:
    """Mean over points of (b - a) / max(a, b): a to the own cluster, b to the nearest other one (Rousseeuw 1987).

    0 for a point that is alone in its cluster; NaN where there are not two clusters.

    >>> round(silhouette(np.array([[0, 1, 9.0], [1, 0, 9], [9, 9, 0]]), np.array([0, 0, 1])), 3)
    0.593
    """
    members = labels[:, None] == np.unique(labels)
    if not 1 < members.shape[1] < len(labels):
        return float("nan")
    sizes = members.sum(axis=0)
    totals = distances @ members
    own = members.argmax(axis=1)
    rows = np.arange(len(labels))
    mine = totals[rows, own] / np.maximum(sizes[own] - 1, 1)
    others = np.where(members, np.inf, totals / sizes).min(axis=1)
    scale = np.maximum(mine, others)
    scores = np.divide(others - mine, scale, out=np.zeros_like(mine), where=scale > 0)
    return float(np.where(sizes[own] > 1, scores, 0.0).mean())


def _start(squared: Floats, k: int, generator: np.random.Generator) -> Ints:
    """Nearest of k points, each drawn with odds of its squared distance to those drawn before."""
    n = len(squared)
    chosen = [int(generator.integers(n))]
    nearest = squared[chosen[0]].copy()
    for _ in range(1, k):
        total = nearest.sum()
        odds = nearest / total if total > 0 else np.full(n, 1 / n)
        chosen.append(int(generator.choice(n, p=odds)))
        nearest = np.minimum(nearest, squared[chosen[-1]])
    return np.asarray(squared[:, chosen].argmin(axis=1), dtype=np.int64)


def _to_means(squared: Floats, labels: Ints, k: int) -> Floats:
    """Squared distance of each point to each cluster's mean, (start, point, cluster); infinite for empty clusters."""
    starts, n = labels.shape
    members = labels[..., None] == np.arange(k)
    sizes = members.sum(axis=1)
    flat = members.transpose(1, 0, 2).reshape(n, starts * k).astype(np.float64)
    totals = (squared @ flat).reshape(n, starts, k).transpose(1, 0, 2)
    within = np.where(members, totals, 0.0).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = totals / sizes[:, None] - (within / (2.0 * sizes**2))[:, None]
    return np.where(sizes[:, None] > 0, np.maximum(means, 0.0), np.inf)
