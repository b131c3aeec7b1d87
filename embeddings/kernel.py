"""The multislice kernel over epochs, steps and units, as a sparse matrix.

Two nodes are related in one of two ways: as different units of the same slice (intra-step), where the bandwidth adapts
to the local density, or as the same unit in different slices (inter-step), where one fixed bandwidth is shared by all.
Every other pair has affinity 0. (MM-PHATE, Xie et al. 2024, section 3, on the multislice kernel of M-PHATE, Gigante
et al. 2019, equations 1 to 3.) This is the reference: exact, in float64, and as large as the number of affinities that
are not 0. See `hiddenscope.embeddings.memory` for what that takes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import scipy.sparse
import xarray as xr
from scipy.spatial.distance import cdist

from hiddenscope.embeddings.memory import require_memory
from hiddenscope.embeddings.nodes import normalize, present_nodes, reduce_samples
from hiddenscope.trace import FloatArray

THRESHOLD = 1e-4
"""Affinities below this are 0."""

_FLOOR = float(np.finfo(np.float64).eps)
# Normalized nodes have length sqrt(features); a distance this small is what rounding makes of 0.
_ROUNDING = 1e-13
_DISTANCES_AT_A_TIME = 2**21
_BYTES_PER_AFFINITY = 48  # coordinates, values and their conversion to rows; measured


def multislice_kernel(
    trace: xr.DataArray | npt.ArrayLike,
    *,
    intra_knn: int = 2,
    inter_knn: int = 25,
    decay: float = 5,
    n_pca: int | None = 100,
) -> scipy.sparse.csr_array:
    """Affinities between all pairs of nodes (epoch, step, unit) of a trace.

    The sum of the intra-step blocks (`intra_blocks`, one per slice, diagonal 1) and the inter-step blocks
    (`inter_rows`, one per unit, diagonal 0), without a weight between them. Symmetric; entries under 1e-4 are 0.
    Nodes with a value that is not finite have no affinities at all, not even with themselves.

    Args:
        trace: hidden states, shape (epoch, step, unit, sample): at least 2 slices and 2 samples.
        intra_knn: the neighbor within the slice whose distance is a unit's bandwidth; at most unit - 2.
        inter_knn: the neighbor among the slices from which the inter-step bandwidth is taken.
        decay: exponent of the intra-step kernel.
        n_pca: principal components that stand for the samples when there are more; None keeps the samples.

    Returns:
        Shape (node, node), float64; node (epoch, step, unit) is row ((epoch * steps) + step) * units + unit.

    Raises:
        ValueError: an option out of range, fewer than 2 samples, or fewer than 2 slices.
        MemoryError: the kernel would not fit in memory; the message says how much it takes.

    Source: MM-PHATE, section 3; M-PHATE, equations 1 to 3.

    >>> trace = np.array([[[1.0, 2.0, 4.0], [3.0, 1.0, 1.0], [0.0, 5.0, 1.0]]] * 2)[:, None]
    >>> kernel = multislice_kernel(trace, inter_knn=1)
    >>> kernel.shape
    (6, 6)
    >>> kernel[[0], [3]].round(6).tolist()   # the same unit in two equal slices
    [1.0]
    """
    check_kernel_options(intra_knn=intra_knn, inter_knn=inter_knn, decay=decay)
    nodes = reduce_samples(normalize(trace), n_pca=n_pca)
    bandwidth = inter_bandwidth(nodes, inter_knn=inter_knn)
    require_memory(
        kernel_bytes(nodes, bandwidth=bandwidth),
        purpose=f"the kernel over {nodes.shape[0] * nodes.shape[1]:,} nodes",
        remedy="use MMPHATE(solver='streaming'), which never builds it, or fewer epochs or steps",
    )
    return assemble_kernel(nodes, bandwidth=bandwidth, intra_knn=intra_knn, decay=decay)


def check_kernel_options(*, intra_knn: int, inter_knn: int, decay: float) -> None:
    """Fail early on options that no trace could be embedded with."""
    for name, knn in (("intra_knn", intra_knn), ("inter_knn", inter_knn)):
        if isinstance(knn, bool) or not isinstance(knn, (int, np.integer)) or knn < 1:
            raise ValueError(f"{name} counts neighbors: it must be a whole number of at least 1, got {knn!r}")
    if not np.isfinite(decay) or decay <= 0:
        raise ValueError(f"decay is an exponent: it must be positive and finite, got {decay!r}")


def intra_blocks(nodes: FloatArray, *, intra_knn: int = 2, decay: float = 5) -> npt.NDArray[np.float64]:
    """Affinities among the units of each slice: alpha decay with a bandwidth that adapts to the density.

    Entry (i, j) averages exp(-(d_ij / s_i)**decay) with its mirror (j, i), where s_i is the distance from i to its
    ``intra_knn``-th neighbor in the slice, itself excluded. The rank is capped at the number of units in the slice
    less 2: with 2 units it is the unit itself, so that they are related only where they coincide (one neighbor says
    nothing about density). Units that coincide have affinity 1. Scaling the nodes changes nothing.

    Args:
        nodes: shape (slice, unit, feature); a row of NaN is an excluded node.
        intra_knn: rank of the neighbor.
        decay: exponent.

    Returns:
        Shape (slice, unit, unit), symmetric, diagonal 1 (0 for excluded nodes).

    Source: PHATE, Moon et al. 2019, the alpha-decay kernel; M-PHATE, equation 1.

    >>> points = np.array([0.0, 1.0, 3.0]).reshape(1, 3, 1)
    >>> bool(intra_blocks(points, intra_knn=1, decay=2)[0, 0, 1] == np.exp(-1))
    True
    """
    slices, units, _ = nodes.shape
    present = present_nodes(nodes)
    blocks = np.zeros((slices, units, units))
    for index, here in enumerate(present):
        count = int(here.sum())
        if count == 0:
            continue
        points = nodes[index, here].astype(np.float64)
        distance = _distances(points, points)
        rank = max(0, min(intra_knn, count - 2))
        scale = np.maximum(np.partition(distance, rank, axis=1)[:, rank], _FLOOR)
        # A far point beside near ones may overflow the power; its affinity is 0 all the same.
        with np.errstate(over="ignore"):
            directed = np.exp(-((distance / scale[:, None]) ** decay))
        directed[directed < THRESHOLD] = 0.0
        np.fill_diagonal(directed, 1.0)
        blocks[index][np.ix_(here, here)] = (directed + directed.T) / 2
    return blocks


def inter_bandwidth(nodes: FloatArray, *, inter_knn: int = 25) -> float:
    """The one length, in normalized activation, over which a unit counts as similar to itself in another slice.

    Per unit, the median over slices of the distance to the ``inter_knn``-th nearest slice, itself excluded; then the
    mean over units. At least machine epsilon, so that a trace of equal slices has affinities 1.

    Args:
        nodes: shape (slice, unit, feature); a row of NaN is an excluded node.
        inter_knn: rank of the neighbor; where a unit has fewer other slices it is lowered, with a warning.

    Raises:
        ValueError: no unit is present in 2 slices.
    Source: M-PHATE, equation 2 and its reference implementation.

    >>> inter_bandwidth(np.array([0.0, 1.0, 3.0]).reshape(3, 1, 1), inter_knn=1)
    1.0
    """
    slices = present_nodes(nodes).sum(axis=0)
    affordable_inter_knn(nodes, inter_knn)
    medians = [
        _median_neighbor_distance(_unit(nodes, unit), rank=min(inter_knn, int(count) - 1))
        for unit, count in enumerate(slices)
        if count >= 2
    ]
    return float(np.mean(medians))


def affordable_inter_knn(nodes: FloatArray, inter_knn: int) -> int:
    """``inter_knn``, or the other slices of the unit that has fewest, with a warning, where those are not as many.

    Raises:
        ValueError: no unit is present in 2 slices.
    """
    slices = present_nodes(nodes).sum(axis=0)
    if (slices < 2).all():
        raise ValueError(
            f"relating slices needs at least 2 (epoch, step) pairs with finite values, got {int(slices.max(initial=0))}"
        )
    fewest = int(slices[slices >= 2].min()) - 1
    if fewest < inter_knn:
        warnings.warn(
            f"inter_knn lowered from {inter_knn} to {fewest}: a unit has only {fewest} other slices", stacklevel=2
        )
    return min(inter_knn, fewest)


def inter_rows(nodes: FloatArray, unit: int, *, bandwidth: float) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
    """Affinities of one unit between slices, a few rows at a time: Gaussian, of one fixed bandwidth.

    Args:
        nodes: shape (slice, unit, feature).
        unit: which one.
        bandwidth: from `inter_bandwidth`.

    Yields:
        The rows' place, and the rows, shape (some slices, slice): exp(-(d / bandwidth)**2), diagonal 0, entries under
        1e-4 set to 0; 0 too for excluded nodes.

    Source: M-PHATE, equation 2.
    """
    points = nodes[:, unit].astype(np.float64)
    present = present_nodes(nodes)[:, unit]
    points[~present] = 0.0
    chunk = max(1, _DISTANCES_AT_A_TIME // len(points))
    for start in range(0, len(points), chunk):
        rows = slice(start, min(start + chunk, len(points)))
        with np.errstate(over="ignore"):
            affinity = np.exp(-((_distances(points[rows], points) / bandwidth) ** 2))
        affinity[affinity < THRESHOLD] = 0.0
        affinity[np.arange(rows.stop - start), np.arange(start, rows.stop)] = 0.0
        affinity *= present[rows, None] & present
        yield rows, affinity


def assemble_kernel(
    nodes: FloatArray, *, bandwidth: float, intra_knn: int = 2, decay: float = 5
) -> scipy.sparse.csr_array:
    """The intra-step and the inter-step parts of normalized nodes in one sparse matrix; see `multislice_kernel`."""
    slices, units, _ = nodes.shape
    count = slices * units
    index_type = np.int32 if count <= np.iinfo(np.int32).max else np.int64
    where, one, other = np.nonzero(blocks := intra_blocks(nodes, intra_knn=intra_knn, decay=decay))
    rows = [(where * units + one).astype(index_type)]
    columns = [(where * units + other).astype(index_type)]
    values = [blocks[where, one, other]]
    for unit in range(units):
        for place, affinity in inter_rows(nodes, unit, bandwidth=bandwidth):
            here, there = np.nonzero(affinity)
            rows.append(((here + place.start) * units + unit).astype(index_type))
            columns.append((there * units + unit).astype(index_type))
            values.append(affinity[here, there])
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    del rows, columns, values
    return scipy.sparse.csr_array(scipy.sparse.coo_array(entries, shape=(count, count)))


def kernel_bytes(nodes: FloatArray, *, bandwidth: float, sampled_slices: int = 32) -> int:
    """What assembling the kernel takes at its peak, from the share of affinities above the threshold in a few slices.

    Args:
        nodes: shape (slice, unit, feature).
        bandwidth: from `inter_bandwidth`.
        sampled_slices: how many slices, evenly spread, the share is counted in.
    """
    slices, units, _ = nodes.shape
    sampled = np.unique(np.linspace(0, slices - 1, sampled_slices).astype(int))
    reach = bandwidth * np.sqrt(-np.log(THRESHOLD))
    related = sum(
        int((_distances(_unit(nodes[sampled], unit), _unit(nodes, unit)) <= reach).sum()) for unit in range(units)
    )
    inter = related * slices / len(sampled)
    return int(_BYTES_PER_AFFINITY * (inter + slices * units**2))


def _unit(nodes: FloatArray, unit: int) -> npt.NDArray[np.float64]:
    """One unit's present nodes, shape (slices where present, feature)."""
    points = nodes[:, unit]
    return points[np.isfinite(points[:, 0])].astype(np.float64)


def _median_neighbor_distance(points: npt.NDArray[np.float64], *, rank: int) -> float:
    chunk = max(1, _DISTANCES_AT_A_TIME // len(points))
    # The point itself is among the nearest, at distance 0: rank 0.
    nearest = [
        np.partition(_distances(points[start : start + chunk], points), rank, axis=1)[:, rank]
        for start in range(0, len(points), chunk)
    ]
    return max(float(np.median(np.concatenate(nearest))), _FLOOR)


def _distances(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    distance: npt.NDArray[np.float64] = cdist(one, other)
    distance[distance <= _ROUNDING * np.sqrt(one.shape[1])] = 0.0
    return distance
