"""What excites a unit: the inputs before its peaks, clustered, and each cluster's representative pattern with its band.

After Cho et al. 2020, who characterize the sub-sequences of the input that activate a unit by clustering, and ask how
far an actual input resembles what was frequent: "has the network seen this often?". Their text names the idea; a
third-party implementation uses a self-organizing map of 8 x 8 nodes and draws mean +- variance. Ours: also k-means and
Gaussian mixtures, standard deviations (in the unit of the signal), and the four measures of an actual sub-sequence.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hiddenscope.analyses.kmeans import kmeans, silhouette, squared_distances
from hiddenscope.errors import MissingExtraError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Method = Literal["kmeans", "mixture", "som"]
METHODS: tuple[Method, ...] = ("kmeans", "mixture", "som")
MOST_CLUSTERS = 8
LEAST_SILHOUETTE = 0.1
"""Below it, windows of white noise reach it too: all are one cluster."""
SOM_SIDE = 8
_MOST_PAIRED = 2000  # windows whose pairwise distances are kept


@dataclass(frozen=True)
class Patterns:
    """Clusters of sub-sequences, the largest first.

    Attributes:
        method: how they were found.
        labels: cluster of each sub-sequence, shape (window,); all -1 where there was nothing to cluster.
        means: representative patterns, shape (cluster, lag, feature).
        deviations: standard deviation of the cluster's members around it, shape (cluster, lag, feature).
        counts: members, shape (cluster,).
        score: mean silhouette (k-means, self-organizing map) or BIC (mixture; lower is better); NaN for one cluster of
            k-means.
        scores: that of each number of clusters tried, for k-means and mixtures.
        nodes: row and column of each cluster in the self-organizing map, shape (cluster, 2); None for others.
        skipped: why nothing was clustered; empty otherwise.
    """

    method: str
    labels: Ints
    means: Floats
    deviations: Floats
    counts: Ints
    score: float = float("nan")
    scores: dict[int, float] = field(default_factory=dict)
    nodes: Ints | None = None
    skipped: str = ""
    _standardize: bool = False
    _centers: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    _spreads: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    _weights: Floats = field(default_factory=lambda: np.zeros(0))
    _distances: tuple[Floats, ...] = ()

    @property
    def shares(self) -> Floats:
        """Members of each cluster over all members."""
        return np.asarray(self.counts / max(1, self.counts.sum()), dtype=np.float64)


@dataclass(frozen=True)
class Judgement:
    """How actual sub-sequences relate to the clusters, each of shape (window,).

    Attributes:
        cluster: the one it belongs to.
        membership_entropy: 0 where there is no doubt, 1 where the clusters are equally likely. For a mixture, the
            entropy of the posterior over log k; otherwise the entropy (bits) of the distances to the nearest and the
            second nearest center, as shares of their sum.
        typicality: percentage of the cluster's members that are nearer to its center; high for the unusual.
        rarity: the cluster's share of all members; low for what was rare.
        seen_often: whether it lies within the 90 % of its cluster that are nearest, and the cluster's share is at
            least half of what equal clusters would have.
    """

    cluster: Ints
    membership_entropy: Floats
    typicality: Floats
    rarity: Floats
    seen_often: npt.NDArray[np.bool_]


def cluster_patterns(
    windows: npt.ArrayLike,
    *,
    method: Method = "kmeans",
    n_clusters: int | None = None,
    most_clusters: int = MOST_CLUSTERS,
    least_silhouette: float = LEAST_SILHOUETTE,
    standardize: bool = False,
    random_state: int = 0,
) -> Patterns:
    """Cluster sub-sequences and describe each cluster.

    Args:
        windows: (window, lag, feature); NaN before the start of a sequence takes the mean of the other windows for
            clustering and counts neither in the representative pattern nor in its band.
        method: ``"kmeans"`` with k by the best silhouette of 2..``most_clusters``, ``"mixture"`` (Gaussians with
            diagonal covariance) with k of 1..``most_clusters`` by the least BIC, or ``"som"``, a self-organizing map
            (extra ``analyses``) of 8 x 8 nodes, fewer where there are fewer than two windows per node.
        n_clusters: how many, for k-means and mixtures.
        most_clusters: most to try.
        least_silhouette: k-means makes a single cluster where no silhouette reaches it.
        standardize: compare shapes: shift each window and feature to mean 0, scale it to deviation 1. Representative
            patterns are in the unit of the inputs in any case.
        random_state: seed of the start; the result is the same for the same seed.

    Returns:
        The clusters; with fewer than two windows for each of them nothing is clustered, and ``skipped`` says so.

    Raises:
        ValueError: windows of another shape or without a value, or a method that does not exist.
        MissingExtraError: ``"som"`` without MiniSom.

    >>> steps = np.linspace(0, 1, 5)
    >>> rising = steps + 0.01 * np.arange(6)[:, None]
    >>> found = cluster_patterns(np.concatenate([rising, -rising[:3]])[:, :, None])
    >>> found.counts.tolist(), found.means[0, :, 0].round(3).tolist()
    ([6, 3], [0.025, 0.275, 0.525, 0.775, 1.025])
    """
    values = np.asarray(windows, dtype=np.float64)
    if values.ndim != 3:
        raise ValueError(f"windows need dims (window, lag, feature), got shape {values.shape}")
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}, got {method!r}")
    if n_clusters is not None and n_clusters < 1:
        raise ValueError(f"n_clusters must be at least 1, got {n_clusters}")
    least = 2 * (n_clusters or (1 if method == "mixture" else 2))
    if len(values) < least:
        return _none(method, values, f"{len(values)} sub-sequences are too few, {least} are needed")
    points = _points(values, standardize=standardize)
    scores: dict[int, float] = {}
    nodes: Ints | None = None
    mixture: tuple[Floats, Floats, Floats] | None = None
    if method == "kmeans":
        labels, score, scores = _kmeans(points, n_clusters, most_clusters, least_silhouette, random_state)
    elif method == "mixture":
        labels, score, scores, mixture = _mixture(points, n_clusters, most_clusters, random_state)
    else:
        labels, nodes = _som(points, random_state)
        score = _silhouette(points, labels)
    order = _by_size(labels)
    labels = np.argsort(order)[labels]
    groups = [np.flatnonzero(labels == cluster) for cluster in range(len(order))]
    if mixture is None:
        centers = np.array([points[group].mean(axis=0) for group in groups])
        spread, weights = np.ones_like(centers), np.array([len(group) / len(points) for group in groups])
    else:
        centers, spread, weights = (part[order] for part in mixture)
    distances = tuple(
        np.sort(_distance(points[group], centers[cluster], spread[cluster])) for cluster, group in enumerate(groups)
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        warnings.filterwarnings("ignore", "Degrees of freedom", RuntimeWarning)
        means = np.array([np.nanmean(values[group], axis=0) for group in groups])
        deviations = np.array([np.nanstd(values[group], axis=0) for group in groups])
    return Patterns(
        method=method,
        labels=labels,
        means=means,
        deviations=deviations,
        counts=np.array([len(group) for group in groups], dtype=np.int64),
        score=score,
        scores=scores,
        nodes=None if nodes is None else nodes[order],
        _standardize=standardize,
        _centers=centers,
        _spreads=spread,
        _weights=weights,
        _distances=distances,
    )


def judge(patterns: Patterns, windows: npt.ArrayLike) -> Judgement:
    """Has the network seen this often? Where sub-sequences stand among the clusters of those that were clustered.

    Args:
        patterns: as `cluster_patterns` found them.
        windows: (window, lag, feature), as many lags and features as were clustered; NaN takes the cluster's value.

    Raises:
        ValueError: another shape, or patterns without a cluster.

    >>> calm = np.random.default_rng(0).normal(size=(40, 6, 1))
    >>> patterns = cluster_patterns(calm, n_clusters=1)
    >>> judge(patterns, np.zeros((1, 6, 1))).typicality.tolist(), judge(patterns, 9 + calm[:1]).typicality.tolist()
    ([0.0], [100.0])
    """
    values = np.asarray(windows, dtype=np.float64)
    if not len(patterns.counts):
        raise ValueError(f"there is no cluster to compare with: {patterns.skipped}")
    if values.ndim != 3 or values.shape[1:] != patterns.means.shape[1:]:
        raise ValueError(
            f"windows need {patterns.means.shape[1]} lags of {patterns.means.shape[2]} features, got {values.shape}"
        )
    points = _points(values, standardize=patterns._standardize, fill=patterns.means[0])
    distances = np.stack(
        [_distance(points, c, s) for c, s in zip(patterns._centers, patterns._spreads, strict=True)], axis=1
    )
    if patterns.method == "mixture":
        posterior = _posterior(patterns, distances)
        cluster = posterior.argmax(axis=1)
        entropy = _entropy(posterior) / np.log(posterior.shape[1]) if posterior.shape[1] > 1 else np.zeros(len(points))
    else:
        cluster = distances.argmin(axis=1)
        entropy = _doubt(distances)
    own = distances[np.arange(len(points)), cluster]
    typicality = np.array(
        [
            100.0 * np.searchsorted(patterns._distances[c], d * (1 - 1e-12)) / len(patterns._distances[c])
            for c, d in zip(cluster, own, strict=True)
        ]
    )
    rarity = patterns.shares[cluster]
    return Judgement(
        cluster=cluster.astype(np.int64),
        membership_entropy=entropy,
        typicality=typicality,
        rarity=rarity,
        seen_often=(typicality <= 90.0) & (rarity >= 0.5 / len(patterns.counts)),
    )


def pattern_drift(before: Patterns, now: Patterns, *, scale: npt.ArrayLike = 1.0) -> float:
    """How far the representative patterns moved: root mean square distance to the nearest former one.

    Averaged over the present clusters by their shares; NaN where one of the two has no cluster.

    Args:
        before: at the previous epoch.
        now: at this epoch, over the same lags and features.
        scale: per feature, what counts as 1, such as the standard deviation of the inputs.

    >>> windows = np.random.default_rng(0).normal(size=(8, 4, 1))
    >>> one, other = (cluster_patterns(w, n_clusters=1) for w in (windows, windows + 0.5))
    >>> round(pattern_drift(one, other), 6)
    0.5
    """
    if not len(before.counts) or not len(now.counts):
        return float("nan")
    difference = (now.means[:, None] - before.means[None]) / np.asarray(scale, dtype=np.float64)
    distance = np.sqrt(np.nanmean(difference**2, axis=(2, 3)))
    return float(now.shares @ distance.min(axis=1))


def _none(method: str, values: Floats, reason: str) -> Patterns:
    empty = np.zeros((0, *values.shape[1:]))
    labels = np.full(len(values), -1, dtype=np.int64)
    return Patterns(method, labels, empty, empty, np.zeros(0, dtype=np.int64), skipped=reason)


def _points(values: Floats, *, standardize: bool, fill: Floats | None = None) -> Floats:
    """One row per window, without gaps."""
    unknown = ~np.isfinite(values)
    if unknown.any():
        if fill is None:
            if unknown.all(axis=0).any():
                raise ValueError("some lag of the windows has no value at all; use a smaller width")
            fill = np.nanmean(np.where(unknown, np.nan, values), axis=0)
        values = np.where(unknown, np.broadcast_to(fill, values.shape), values)
    if standardize:
        deviation = values.std(axis=1, keepdims=True)
        values = (values - values.mean(axis=1, keepdims=True)) / np.where(deviation > 1e-12, deviation, 1.0)
    return values.reshape(len(values), -1)


def _kmeans(
    points: Floats, n_clusters: int | None, most: int, least_silhouette: float, seed: int
) -> tuple[Ints, float, dict[int, float]]:
    if n_clusters == 1:
        return np.zeros(len(points), dtype=np.int64), float("nan"), {}
    different = len(np.unique(points, axis=0))
    tried: Sequence[int] = [n_clusters] if n_clusters else range(2, min(most, len(points) // 2, different) + 1)
    best, score, scores = np.zeros(len(points), dtype=np.int64), float("nan"), {}
    highest = -np.inf if n_clusters else least_silhouette
    squared = squared_distances(points) if len(points) <= _MOST_PAIRED else None
    distances = None if squared is None else np.sqrt(squared)
    for k in tried:
        if squared is not None and distances is not None:
            labels, _ = kmeans(squared, min(k, different), random_state=seed)
            scores[k] = silhouette(distances, labels)
        else:
            labels = _many(points, min(k, different), seed)
            scores[k] = _silhouette(points, labels)
        if scores[k] > highest or n_clusters:
            best, score, highest = labels, scores[k], scores[k]
    return best, score, scores


def _many(points: Floats, k: int, seed: int) -> Ints:
    """k-means where the distances between all points would not fit."""
    from sklearn.cluster import KMeans

    return np.asarray(KMeans(k, n_init=4, random_state=seed).fit_predict(points), dtype=np.int64)


def _silhouette(points: Floats, labels: Ints) -> float:
    from sklearn.metrics import silhouette_score

    most = 2000 if len(points) > _MOST_PAIRED else None
    count = len(np.unique(labels))
    if not 1 < count < len(points):
        return float("nan")
    return float(silhouette_score(points, labels, sample_size=most, random_state=0))


def _mixture(
    points: Floats, n_clusters: int | None, most: int, seed: int
) -> tuple[Ints, float, dict[int, float], tuple[Floats, Floats, Floats]]:
    """Labels, BIC, the BIC of every k tried; centers, spreads and weights of the mixture."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    floor = 1e-3 * float(points.var(axis=0).mean()) + 1e-12
    tried: Sequence[int] = [n_clusters] if n_clusters else range(1, min(most, len(points) // 2) + 1)
    best: Any = None
    scores: dict[int, float] = {}
    for k in tried:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = GaussianMixture(k, covariance_type="diag", reg_covar=floor, n_init=2, random_state=seed).fit(points)
        scores[k] = float(model.bic(points))
        if best is None or scores[k] < scores[best.n_components]:
            best = model
    used, labels = np.unique(best.predict(points), return_inverse=True)
    parts = (best.means_[used], np.sqrt(best.covariances_[used]), best.weights_[used])
    return labels.astype(np.int64), scores[best.n_components], scores, parts


def _som(points: Floats, seed: int) -> tuple[Ints, Ints]:
    try:
        from minisom import MiniSom
    except ImportError:
        raise MissingExtraError("MiniSom", "analyses", "clustering by a self-organizing map") from None

    side = max(2, min(SOM_SIDE, int(np.sqrt(len(points) / 2))))
    center, scale = points.mean(axis=0), max(float(points.std()), 1e-12)
    scaled = (points - center) / scale
    som = MiniSom(side, side, points.shape[1], sigma=side / 4, learning_rate=0.5, random_seed=seed)
    som.random_weights_init(scaled)
    som.train(scaled, 20 * len(points), random_order=True)
    winners = np.array([som.winner(point) for point in scaled], dtype=np.int64)
    nodes, labels = np.unique(winners, axis=0, return_inverse=True)
    return labels.reshape(-1).astype(np.int64), nodes


def _by_size(labels: Ints) -> Ints:
    """Cluster numbers, the largest first; equals by who comes first."""
    numbers, first, counts = np.unique(labels, return_index=True, return_counts=True)
    return np.asarray(numbers[np.lexsort((first, -counts))], dtype=np.int64)


def _distance(points: Floats, center: Floats, spread: Floats) -> Floats:
    """Euclidean distance to a center, each coordinate in units of the cluster's spread (1 except for mixtures)."""
    return np.asarray(np.sqrt((((points - center) / spread) ** 2).sum(axis=1)))


def _posterior(patterns: Patterns, distances: Floats) -> Floats:
    log = np.log(patterns._weights) - 0.5 * distances**2 - np.log(patterns._spreads).sum(axis=1)
    log -= log.max(axis=1, keepdims=True)
    weights = np.exp(log)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _entropy(shares: Floats) -> Floats:
    return np.asarray(-(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=1))


def _doubt(distances: Floats) -> Floats:
    """Entropy in bits of the two nearest centers' distances, as shares: 0 at a center, 1 half way between two."""
    if distances.shape[1] < 2:
        return np.zeros(len(distances))
    nearest = np.sort(distances, axis=1)[:, :2]
    total = nearest.sum(axis=1, keepdims=True)
    shares = np.divide(nearest, total, out=np.full_like(nearest, 0.5), where=total > 0)
    return np.asarray(_entropy(shares) / np.log(2))
