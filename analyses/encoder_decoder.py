"""What an encoder and a decoder each do: the one steers toward a cluster, the other stays in it.

Su & Shlizerman (2019, arXiv:1905.12176) read the encoder's path as an initializing trajectory toward the cluster of its
type of sequence, and the decoder's as an attractor embedded there. These measures, which make the two claims testable,
are ours. They work on states or on POD coordinates; a single network is split at a step of its own.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Paths = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Steering:
    """How an encoder approaches the clusters of a decoder.

    Attributes:
        ratio: shape (step, sample): distance to the own class's centroid over distance to the nearest other one. Below
            1 the state is nearer to its own class than to any other; NaN at padding.
        median: shape (step,), over the samples.
        crossing: the first step from which on the median stays below 1; None if it never does.
    """

    ratio: Float64
    median: Float64
    crossing: int | None


@dataclass(frozen=True)
class Attractor:
    """How a decoder stays in its cluster.

    Attributes:
        spread: shape (step, class): root mean square distance of the class's sequences from its centroid.
        recurrence: shape (step, class): mean distance from a sequence's state to the nearest state of any *other*
            sequence of its class, at any step. Small when all follow the same closed path.
        separation: shape (class,): distance from a class's centroid to the nearest other one, the scale to read both
            against.
    """

    spread: Float64
    recurrence: Float64
    separation: Float64


def split_at(paths: Paths, step: int) -> tuple[Paths, Paths]:
    """A single network's paths (step, sample, dimension), cut into what plays the encoder and what the decoder.

    >>> [part.shape for part in split_at(np.zeros((10, 3, 2)), 4)]
    [(4, 3, 2), (6, 3, 2)]
    """
    if not 0 <= step < len(paths):
        raise ValueError(f"the split must lie in 0..{len(paths) - 1}, so that steps are left to decode, got {step}")
    return paths[:step], paths[step:]


def centroids(decoder: Paths, labels: npt.ArrayLike) -> Float64:
    """The mean decoder state of each class over its sequences and steps, shape (class, dimension), classes sorted.

    >>> centroids(np.array([[[0.0], [4.0]], [[2.0], [6.0]]]), [0, 1]).tolist()
    [[1.0], [5.0]]
    """
    states, codes = _checked(decoder, labels)
    return np.stack([_mean(states[:, codes == label], axis=(0, 1)) for label in np.unique(codes)])


def steering(encoder: Paths, decoder: Paths, labels: npt.ArrayLike) -> Steering:
    """How near each encoder state is to the decoder's cluster of its own class.

    Args:
        encoder: shape (step, sample, dimension).
        decoder: the same samples and dimensions; its steps may be others.
        labels: the class of each sample.

    Raises:
        ValueError: there are fewer than two classes, or samples or dimensions differ.
    """
    states, codes = _checked(encoder, labels)
    centers = centroids(decoder, labels)
    if len(centers) < 2:
        raise ValueError("steering compares a class with the others: it needs at least two classes, got one")
    if centers.shape[1] != states.shape[2]:
        raise ValueError(f"encoder and decoder need the same dimensions, got {states.shape[2]} and {centers.shape[1]}")
    distances = np.linalg.norm(states[:, :, None] - centers, axis=3)
    own = np.searchsorted(np.unique(codes), codes)
    at = np.arange(len(own))
    to_own = distances[:, at, own]
    distances[:, at, own] = np.inf
    nearest = distances.min(axis=2)
    ratio = np.where(nearest > 0, to_own / np.where(nearest > 0, nearest, 1.0), np.inf)
    ratio[np.isnan(to_own)] = np.nan
    median = _quietly_median(ratio)
    below = median < 1
    lasting = np.flatnonzero(np.logical_and.accumulate(below[::-1])[::-1])
    return Steering(ratio, median, int(lasting[0]) if lasting.size else None)


def attractor(decoder: Paths, labels: npt.ArrayLike, *, most_states: int = 2000, seed: int = 0) -> Attractor:
    """Spread and recurrence of a decoder's paths (step, sample, dimension) in the clusters of their classes.

    Args:
        most_states: states of a class that recurrence is measured against; more are thinned at random.
        seed: of the thinning.
    """
    from scipy.spatial.distance import cdist

    states, codes = _checked(decoder, labels)
    classes = np.unique(codes)
    centers = centroids(decoder, labels)
    steps = len(states)
    spread = np.full((steps, len(classes)), np.nan)
    recurrence = np.full((steps, len(classes)), np.nan)
    rng = np.random.default_rng(seed)
    for k, label in enumerate(classes):
        members = states[:, codes == label]
        spread[:, k] = np.sqrt(_mean(((members - centers[k]) ** 2).sum(axis=2), axis=1))
        count = members.shape[1]
        nearest = np.full((steps, count), np.nan)
        there = np.asarray(np.isfinite(members).all(axis=2))
        kept = np.argwhere(there)
        if len(kept) > most_states:
            kept = kept[rng.choice(len(kept), most_states, replace=False)]
        known, owner = members[kept[:, 0], kept[:, 1]], kept[:, 1]
        for i in range(count):
            others = known[owner != i]
            if len(others) and there[:, i].any():
                nearest[there[:, i], i] = cdist(members[there[:, i], i], others).min(axis=1)
        recurrence[:, k] = _mean(nearest, axis=1)
    between = np.linalg.norm(centers[:, None] - centers, axis=2) + np.diag(np.full(len(centers), np.inf))
    separation = between.min(axis=1)
    return Attractor(spread, recurrence, np.where(np.isfinite(separation), separation, np.nan))


def _checked(paths: Paths, labels: npt.ArrayLike) -> tuple[Float64, npt.NDArray[np.generic]]:
    states, codes = np.asarray(paths, dtype=np.float64), np.asarray(labels)
    if states.ndim != 3:
        raise ValueError(f"paths need shape (step, sample, dimension), got {states.shape}")
    if codes.shape != (states.shape[1],):
        raise ValueError(f"labels need one value for each of {states.shape[1]} samples, got shape {codes.shape}")
    return states, codes


def _mean(values: Float64, *, axis: int | tuple[int, ...]) -> Float64:
    """The mean of what is not NaN; NaN where nothing is."""
    there = ~np.isnan(values)
    count = there.sum(axis=axis)
    total = np.where(there, values, 0.0).sum(axis=axis)
    return np.asarray(np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0))


def _quietly_median(values: Float64) -> Float64:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a step at which every sequence has ended
        return np.asarray(np.nanmedian(values, axis=1))
