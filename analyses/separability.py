"""How well the classes of the probe's sequences separate in hidden-state space, epoch by epoch.

Su & Shlizerman (2019, arXiv:1905.12176) watch the clusters of decoder states form during training, and take their
separability as a sign of how far the training is. Their unsupervised agreement is reproduced from their public code:
agglomerative clustering of states, cosine distance, single linkage, as many clusters as classes. Their formula of
separability is not known to us; silhouette, Fisher ratio, nearest centroid, and the rule for plateaus, are ours.

All measures are of one point per sequence, the mean of its states over its steps, unless said otherwise; the authors
cluster the single states. Distances between states are distances between their coordinates in all POD modes, so no
basis needs to be chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.embeddings.spectrum import decompose, effective_dimension
from hiddenscope.trace import as_trace

Float64 = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

MEASURES = ("silhouette", "fisher_ratio", "nearest_centroid", "ari", "ami", "v_measure")
"""What `separability` measures, in the order in which it is shown."""

MOST_STATES = 1000
"""Single states that are looked at; more are thinned at random."""

PHASES = ("unknown", "rising", "plateau", "declining")
"""Names of the codes 0, 1, 2, 3 of `training_phase`."""


def separability(
    trace: xr.DataArray | npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
    *,
    first_step: int = 0,
    points: Literal["means", "states"] = "means",
) -> xr.Dataset:
    """Every measure of separability, for every epoch.

    Args:
        trace: hidden states (epoch, step, unit, sample), mostly of a decoder; NaN past the end of a sequence.
        labels: the class of each sample; None takes the trace's coordinate ``label``.
        first_step: the first step that counts: for a single network whose later steps play the decoder's part.
        points: ``"means"``: one point per sequence, the mean of its states. ``"states"``: the states of all steps, each
            of the class of its sequence, at most `MOST_STATES` of them; so the authors cluster, and so kinds whose
            paths differ in shape but not in place can be told apart.

    Returns:
        Variables `MEASURES` over ``epoch``, float64. NaN where the epoch has diverged, and everywhere when there are
        fewer than two classes.

    Raises:
        ValueError: there are no labels, or not one for each sample, or no step is left, or unknown ``points``.

    >>> rng = np.random.default_rng(0)
    >>> states = np.repeat([0.0, 5.0], 6) + rng.normal(size=(1, 4, 3, 12))
    >>> found = separability(states, np.repeat([0, 1], 6))
    >>> bool(found["silhouette"] > 0.8), float(found["nearest_centroid"][0])
    (True, 1.0)
    """
    named = as_trace(trace)
    if not 0 <= first_step < named.sizes["step"]:
        raise ValueError(f"first_step must lie in 0..{named.sizes['step'] - 1}, got {first_step}")
    if points not in ("means", "states"):
        raise ValueError(f"points must be 'means' or 'states', got {points!r}")
    codes = label_codes(named, labels)
    kept = named.isel(step=slice(first_step, None))
    found = single_states(kept, codes) if points == "states" else ((one, codes) for one in sequence_means(kept))
    rows = [measures(one, of) for one, of in found]
    variables = {name: ("epoch", np.array([row[name] for row in rows])) for name in MEASURES}
    return xr.Dataset(variables, coords={"epoch": named["epoch"].values})


def measures(points: npt.ArrayLike, labels: npt.ArrayLike) -> dict[str, float]:
    """Every measure of `MEASURES` for one set of points (point, dimension); NaN where it is not defined."""
    states, codes = np.asarray(points, dtype=np.float64), np.asarray(labels)
    if not np.isfinite(states).all() or len(np.unique(codes)) < 2:
        return dict.fromkeys(MEASURES, np.nan)
    return {
        "silhouette": silhouette(states, codes),
        "fisher_ratio": fisher_ratio(states, codes),
        "nearest_centroid": nearest_centroid(states, codes),
        **agreement(states, codes),
    }


def label_codes(trace: xr.DataArray, labels: npt.ArrayLike | None = None) -> Codes:
    """The class of each sample as integers, from ``labels`` or from the trace's own.

    Raises:
        ValueError: there are none, or not one for each sample.
    """
    if labels is None:
        if "label" not in trace.coords:
            raise ValueError("separability needs the class of each sample: give labels, or a probe that has them")
        labels = trace["label"].values
    codes = np.asarray(labels)
    if codes.shape != (trace.sizes["sample"],):
        raise ValueError(f"labels need one value for each of {trace.sizes['sample']} samples, got shape {codes.shape}")
    return np.unique(codes, return_inverse=True)[1].astype(np.int64)


def sequence_means(trace: xr.DataArray, *, padding: npt.NDArray[np.bool_] | None = None) -> Float64:
    """The mean state of each sequence over its steps, shape (epoch, sample, unit); NaN for epochs that have diverged.

    Args:
        trace: dims (epoch, step, unit, sample).
        padding: which (step, sample) are past the end of a sequence; None for those that are NaN in all units in the
            first epoch that is not NaN altogether. NaN anywhere else means that an epoch has diverged.
    """
    values = np.asarray(trace.values, dtype=np.float64)
    missing = np.isnan(values)
    if not missing.any():
        return np.asarray(values.mean(axis=1).transpose(0, 2, 1))
    padding = _padding(values) if padding is None else padding
    there = ~padding[None, :, None, :]
    count = np.broadcast_to(there, values.shape).sum(axis=1)
    means = np.divide(
        np.where(there, values, 0.0).sum(axis=1), count, where=count > 0, out=np.full(count.shape, np.nan)
    )
    means[(missing & there).any(axis=(1, 2, 3))] = np.nan
    return np.asarray(means.transpose(0, 2, 1))


def single_states(
    trace: xr.DataArray, codes: Codes, *, padding: npt.NDArray[np.bool_] | None = None, seed: int = 0
) -> Iterator[tuple[Float64, Codes]]:
    """The states of every epoch, (point, unit), with the class of each: at most `MOST_STATES`, the same in every epoch.

    Args:
        trace: dims (epoch, step, unit, sample).
        codes: the class of each sample.
        padding: as for `sequence_means`.
        seed: of the thinning.
    """
    values = np.asarray(trace.values, dtype=np.float64)
    padding = _padding(values) if padding is None else padding
    kept = np.argwhere(~padding)
    if len(kept) > MOST_STATES:
        kept = kept[np.sort(np.random.default_rng(seed).choice(len(kept), MOST_STATES, replace=False))]
    for epoch in values:
        lost = not np.isfinite(epoch.transpose(0, 2, 1)[~padding]).all()
        points = np.full((len(kept), epoch.shape[1]), np.nan) if lost else epoch[kept[:, 0], :, kept[:, 1]]
        yield points, codes[kept[:, 1]]


def _padding(values: Float64) -> npt.NDArray[np.bool_]:
    """Which (step, sample) are NaN in all units in the first epoch that is not NaN altogether."""
    lost = np.asarray(np.isnan(values).all(axis=2))
    known = np.flatnonzero(~lost.all(axis=(1, 2)))
    return np.asarray(lost[known[0]] if known.size else np.zeros(lost.shape[1:], dtype=bool))


def silhouette(points: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Mean of (b - a) / max(a, b): a is a point's mean distance to its own class, b to the nearest other class.

    From -1 to 1; about 0 for classes that overlap entirely. A point alone in its class counts 0; NaN for one class.

    Source: Rousseeuw 1987.

    >>> round(silhouette([[0.0], [1.0], [9.0], [10.0]], [0, 0, 1, 1]), 4)
    0.8885
    """
    from sklearn.metrics import silhouette_score

    rows, codes = np.asarray(points, dtype=np.float64), np.asarray(labels)
    classes = len(np.unique(codes))
    if classes < 2:
        return float("nan")
    return 0.0 if classes == len(rows) else float(silhouette_score(rows, codes))


def fisher_ratio(points: npt.ArrayLike, labels: npt.ArrayLike, *, variance: float = 0.99) -> float:
    """trace(S_W^+ S_B): scatter between classes, in units of the scatter within them, summed over directions.

    With more dimensions than points, some direction always separates the classes perfectly, so the points are first
    projected onto the principal components that hold a share ``variance`` of their variance, and no more than points
    less classes. Infinite when the classes do not scatter at all; NaN for one class, or a class for each point.

    >>> fisher_ratio([[0.0], [2.0], [10.0], [12.0]], [0, 0, 1, 1])
    25.0
    """
    rows, codes = np.asarray(points, dtype=np.float64), np.asarray(labels)
    classes, members = np.unique(codes, return_counts=True)
    room = len(rows) - len(classes)
    if len(classes) < 2 or room < 1:
        return float("nan")
    found = decompose(rows, center=True)
    kept = min(int(effective_dimension(found.singular_values, energy=variance)), room)
    if kept == 0:
        return 0.0
    coordinates = (rows - found.mean) @ found.modes[:, :kept]
    centroids = np.stack([coordinates[codes == label].mean(axis=0) for label in classes])
    between = (centroids * members[:, None]).T @ centroids
    residual = coordinates - centroids[np.searchsorted(classes, codes)]
    within = residual.T @ residual
    if np.trace(within) <= 1e-24 * np.trace(between):
        return float("inf")
    return float(np.trace(np.linalg.pinv(within, hermitian=True) @ between))


def nearest_centroid(points: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Share of points whose own class has the nearest centroid, each point left out of its own centroid.

    A point alone in its class counts as missed. Guessing gives about 1 / classes, or less; NaN for one class.

    >>> nearest_centroid([[0.0], [1.0], [9.0], [10.0]], [0, 0, 1, 1])
    1.0
    """
    rows, codes = np.asarray(points, dtype=np.float64), np.asarray(labels)
    classes, own, members = np.unique(codes, return_inverse=True, return_counts=True)
    if len(classes) < 2:
        return float("nan")
    sums = np.stack([rows[own == label].sum(axis=0) for label in range(len(classes))])
    distances = np.linalg.norm(rows[:, None] - sums / members[:, None], axis=2)
    others = members[own] - 1
    left_out = (sums[own] - rows) / np.maximum(others, 1)[:, None]
    at = np.arange(len(rows))
    distances[at, own] = np.where(others > 0, np.linalg.norm(rows - left_out, axis=1), np.inf)
    return float(np.mean(distances.argmin(axis=1) == own))


def agreement(points: npt.ArrayLike, labels: npt.ArrayLike, *, clusters: int | None = None) -> dict[str, float]:
    """How well clusters found without the labels agree with them: ``ari``, ``ami`` and ``v_measure``.

    Agglomerative clustering, cosine distance, single linkage, ``clusters`` of them (default: as many as classes).
    A state of length zero has no direction; its distance to every other is taken as 1.

    Source: the authors' public code for Su & Shlizerman 2019; there on all decoder states in all dimensions.

    >>> agreement([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0], [0.1, 3.0]], [0, 0, 1, 1])["ari"]
    1.0
    """
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, v_measure_score

    codes = np.asarray(labels)
    count = len(np.unique(codes)) if clusters is None else clusters
    if count < 2:
        return {"ari": np.nan, "ami": np.nan, "v_measure": np.nan}
    found = cosine_clusters(points, count)
    return {
        "ari": float(adjusted_rand_score(codes, found)),
        "ami": float(adjusted_mutual_info_score(codes, found)),
        "v_measure": float(v_measure_score(codes, found)),
    }


def cosine_clusters(points: npt.ArrayLike, count: int) -> Codes:
    """Cluster of each point: agglomerative, cosine distance, single linkage (the authors' choice)."""
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.metrics.pairwise import cosine_distances

    rows = np.asarray(points, dtype=np.float64)
    if not 1 <= count <= len(rows):
        raise ValueError(f"the number of clusters must lie in 1..{len(rows)}, got {count}")
    clustering = AgglomerativeClustering(n_clusters=count, metric="precomputed", linkage="single")
    return np.asarray(clustering.fit_predict(cosine_distances(rows)), dtype=np.int64)


def training_phase(values: npt.ArrayLike, *, window: int = 5, tolerance: float = 0.01) -> Codes:
    """Whether a measure is rising (1), on a plateau (2) or declining (3) at each epoch; 0 while that is unknown.

    The rule: over the last ``window`` epochs the value has changed by c = (now - then) / |then|. It is on a plateau
    when |c| < ``tolerance``, declining when c <= -``tolerance``, rising when c >= ``tolerance``. The first ``window``
    epochs, and those with NaN at either end, are unknown. The rule is ours, and knows nothing of noise: smooth first
    what jumps from epoch to epoch.

    >>> training_phase([1, 2, 3, 3, 3, 2], window=2).tolist()
    [0, 0, 1, 1, 2, 3]
    """
    series = np.asarray(values, dtype=np.float64)
    if window < 1 or not tolerance > 0:
        raise ValueError(f"window must be at least 1 and tolerance positive, got {window} and {tolerance}")
    found = np.zeros(len(series), dtype=np.int64)
    then, now = series[:-window], series[window:]
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.where(now == then, 0.0, (now - then) / np.abs(then))
    codes = np.select([~np.isfinite(now) | ~np.isfinite(then), change >= tolerance, change <= -tolerance], [0, 1, 3], 2)
    found[window:] = codes
    return found


def overtraining(measure: npt.ArrayLike, loss: npt.ArrayLike, *, window: int = 5, tolerance: float = 0.01) -> Codes:
    """Epochs at which the loss still falls although separability does not rise: 1 where it stands, 2 where it falls.

    0 elsewhere. By the rule of `training_phase` for both. A hint, no proof: see the documentation for how well it did.

    >>> overtraining([1, 2, 2, 1], [4, 3, 2, 1], window=1).tolist()
    [0, 0, 1, 2]
    """
    options: dict[str, Any] = {"window": window, "tolerance": tolerance}
    falls = training_phase(loss, **options) == 3
    phase = training_phase(measure, **options)
    return np.where(falls & (phase == 2), 1, np.where(falls & (phase == 3), 2, 0)).astype(np.int64)
