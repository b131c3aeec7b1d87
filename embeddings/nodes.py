"""The nodes of the multislice graph: one per epoch, step and unit, described by its response to the samples.

A *slice* is one (epoch, step) pair. Folding puts the slices on one axis, epoch by epoch, so that node
``(slice * units + unit)`` is row ``((epoch * steps) + step) * units + unit`` of every matrix over nodes.
(MM-PHATE, Xie et al. 2024, section 3; M-PHATE, Gigante et al. 2019, section 3.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.trace import EMBEDDING_DIMS, FloatArray, as_trace

LEAST_PRESENT = 0.5
"""Share of the samples that a node must have a value for; with fewer it is excluded."""

_VALUES_AT_A_TIME = 2**22


def normalize(trace: xr.DataArray | npt.ArrayLike, *, dtype: npt.DTypeLike = np.float64) -> FloatArray:
    """Every node's response with mean 0 and standard deviation 1 over the samples, slices folded.

    A node that responds to all samples alike becomes a row of zeros. Values that are not finite (steps beyond the end
    of a sequence, a diverged network) are missing. With at least half of its samples (`LEAST_PRESENT`, 2 at least) a
    node is normalized over those, and the missing ones stand at its mean: units of one slice, which miss the same
    samples, then have the distances of the samples present, scaled up to all of them. With fewer samples a node is
    excluded: its whole row becomes NaN. The treatment of missing values is ours.

    Args:
        trace: shape (epoch, step, unit, sample), at least 2 samples.
        dtype: of the result; means and deviations are always taken in float64.

    Returns:
        Shape (slice, unit, sample), dimensionless.

    Raises:
        ValueError: fewer than 2 samples, or an empty axis.
    Source: M-PHATE's z-score over the samples, with ddof 0.

    >>> normalize(np.array([1.0, 3.0, 5.0, 5.0]).reshape(1, 1, 2, 2)).tolist()
    [[[-1.0, 1.0], [0.0, 0.0]]]
    >>> normalize(np.array([1.0, 3.0, np.nan, np.nan]).reshape(1, 1, 1, 4)).round(3).tolist()
    [[[-1.414, 1.414, 0.0, 0.0]]]
    """
    values = as_trace(trace).values
    if 0 in values.shape:
        raise ValueError(f"a trace needs at least one epoch, step and unit, got shape {values.shape}")
    if values.shape[-1] < 2:
        raise ValueError(f"normalizing over samples needs at least 2 samples, got {values.shape[-1]}")
    epochs, steps, units, samples = values.shape
    folded = values.reshape(epochs * steps, units, samples)
    nodes = np.empty(folded.shape, dtype)
    chunk = max(1, _VALUES_AT_A_TIME // (units * samples))
    for start in range(0, len(folded), chunk):
        nodes[start : start + chunk] = _z_scores(folded[start : start + chunk].astype(np.float64))
    return nodes


def present_nodes(nodes: FloatArray) -> npt.NDArray[np.bool_]:
    """Which nodes take part: shape (slice, unit), False where `normalize` excluded one."""
    return np.isfinite(nodes[..., 0])


@dataclass(frozen=True)
class SampleReduction:
    """Leading directions of the nodes in sample space, about their mean: a rotation that drops the smallest.

    Attributes:
        mean: shape (sample,).
        directions: shape (sample, feature), orthonormal.
    """

    mean: npt.NDArray[np.float64]
    directions: npt.NDArray[np.float64]

    def apply(self, nodes: FloatArray) -> FloatArray:
        """Nodes of shape (slice, unit, sample) on the directions: shape (slice, unit, feature), NaN rows stay NaN."""
        rows = nodes.reshape(-1, nodes.shape[-1])
        reduced = np.empty((len(rows), self.directions.shape[1]), nodes.dtype)
        chunk = max(1, _VALUES_AT_A_TIME // rows.shape[1])
        for start in range(0, len(rows), chunk):
            reduced[start : start + chunk] = (rows[start : start + chunk] - self.mean) @ self.directions
        return reduced.reshape(*nodes.shape[:2], -1)


def sample_reduction(nodes: FloatArray, *, n_pca: int | None = 100) -> SampleReduction | None:
    """The leading ``n_pca`` principal components of the nodes, or None when there are no more samples than that.

    Distances between nodes are all that the kernel sees, so dropping the smallest directions makes it cheaper at
    little loss.

    Args:
        nodes: normalized responses, shape (slice, unit, sample); NaN rows do not count.
        n_pca: number of components to keep, or None to keep the samples.

    Raises:
        ValueError: ``n_pca`` is below 1.
    Source: M-PHATE reduces to 100 components, centered over all nodes. The eigenvectors of the covariance are exact.
    """
    if n_pca is None:
        return None
    if n_pca < 1:
        raise ValueError(f"n_pca counts principal components: it must be at least 1 or None, got {n_pca}")
    samples = nodes.shape[-1]
    if samples <= n_pca:
        return None
    rows = nodes.reshape(-1, samples)
    known = present_nodes(nodes).ravel()
    count = max(1, int(known.sum()))
    total = np.zeros(samples)
    moments = np.zeros((samples, samples))
    chunk = max(1, _VALUES_AT_A_TIME // samples)
    for start in range(0, len(rows), chunk):
        block = rows[start : start + chunk][known[start : start + chunk]].astype(np.float64)
        total += block.sum(axis=0)
        moments += block.T @ block
    mean = total / count
    _, directions = np.linalg.eigh(moments / count - np.outer(mean, mean))
    return SampleReduction(mean, np.ascontiguousarray(directions[:, ::-1][:, :n_pca]))


def reduce_samples(nodes: FloatArray, *, n_pca: int | None = 100) -> FloatArray:
    """Nodes on their leading principal components when they have more samples than ``n_pca``, else as they are."""
    reduction = sample_reduction(nodes, n_pca=n_pca)
    return nodes if reduction is None else reduction.apply(nodes)


def unfold(values: npt.ArrayLike, trace: xr.DataArray) -> xr.DataArray:
    """Positions of nodes, shape (node, component), on the epochs, steps and units of the trace they came from."""
    rows = np.asarray(values)
    sizes = tuple(trace.sizes[dim] for dim in EMBEDDING_DIMS[:3])
    coords = {name: coord for name, coord in trace.coords.items() if set(coord.dims) <= set(EMBEDDING_DIMS[:3])}
    return xr.DataArray(
        rows.reshape(*sizes, rows.shape[-1]),
        dims=EMBEDDING_DIMS,
        coords={**coords, "component": np.arange(rows.shape[-1])},
        name=trace.name,
    )


def _z_scores(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    present = np.isfinite(values)
    few = present.sum(axis=-1) < max(2, LEAST_PRESENT * values.shape[-1])
    if not present.all():
        values[few], present[few] = 0.0, True
        values = _filled(values, present)
    centered = values - values.mean(axis=-1, keepdims=True)
    # Rounding leaves the mean of equal values a little off them; equality itself is exact.
    centered[values.max(axis=-1) == values.min(axis=-1)] = 0.0
    deviation = np.sqrt(np.mean(centered**2, axis=-1, keepdims=True))
    scores: npt.NDArray[np.float64] = centered / np.where(deviation == 0, 1.0, deviation)
    scores[few] = np.nan
    return scores


def _filled(values: npt.NDArray[np.float64], present: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Missing values replaced by the mean of those present; equal ones by exactly their value."""
    mean = np.sum(values, axis=-1, where=present) / present.sum(axis=-1)
    lowest = np.min(values, axis=-1, where=present, initial=np.inf)
    highest = np.max(values, axis=-1, where=present, initial=-np.inf)
    return np.where(present, values, np.clip(mean, lowest, highest)[..., None])
