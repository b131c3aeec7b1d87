"""Distances along the data: shortest paths over the edges that carry the multislice kernel."""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
import scipy.sparse
from scipy.sparse.csgraph import dijkstra

from hiddenscope.embeddings.kept_neighbors import nearest_others
from hiddenscope.embeddings.neighbors import nearest_slices
from hiddenscope.embeddings.threads import run_blocks
from hiddenscope.embeddings.unit_rows import Float32Array, UnitRows
from hiddenscope.trace import FloatArray

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def neighbor_graph(rows: UnitRows, *, intra_knn: int = 2, inter_knn: int = 25) -> scipy.sparse.csr_array:
    """The edges that carry the multislice kernel: each node to its nearest units in the slice and its nearest slices.

    Returns:
        Shape (row, row), symmetric: distances between normalized nodes (at least machine epsilon, since a sparse 0 is
        no edge), 0 where there is no edge.
    """
    size = len(rows.values)
    fewest = max(1, min(inter_knn, int(np.diff(rows.offsets).max()) - 1))
    found, _ = nearest_slices(rows, None, fewest, candidates=None)
    one, other = np.repeat(np.arange(size), fewest), found.ravel().astype(np.int64)
    intra = [_intra_edges(rows.values[here], here, intra_knn) for here in _slices_of(rows)]
    one = np.concatenate([one, *(edge[0] for edge in intra)])
    other = np.concatenate([other, *(edge[1] for edge in intra)])
    one, other = one[one != other], other[one != other]
    length = np.maximum(distances_between(rows.values, one, other), np.finfo(np.float32).eps)
    # Entries that are given twice would be added up: keep each directed edge once.
    _, once = np.unique(one * size + other, return_index=True)
    directed = scipy.sparse.coo_array((length[once], (one[once], other[once])), shape=(size, size)).tocsr()
    return scipy.sparse.csr_array(directed.maximum(directed.T))


def shortest_paths(graph: scipy.sparse.csr_array, n_pairs: int, rng: np.random.Generator) -> tuple[Ints, Ints, Floats]:
    """Shortest paths from a few starts to many ends: starts, ends and traveled, without those that never arrive."""
    size = graph.shape[0]
    ends_each = min(2_000, size)
    starts = rng.choice(size, min(size, max(1, round(n_pairs / ends_each))), replace=False)
    ends = np.stack([rng.choice(size, ends_each, replace=False) for _ in starts])
    traveled = np.empty(ends.shape)

    def walk(place: int) -> None:
        traveled[place] = dijkstra(graph, directed=False, indices=starts[place])[ends[place]]

    run_blocks(walk, range(len(starts)))
    one, other, length = np.repeat(starts, ends_each), ends.ravel(), traveled.ravel()
    arrived = np.isfinite(length) & (one != other)
    return one[arrived], other[arrived], length[arrived]


def distances_between(points: FloatArray, one: Ints, other: Ints) -> Floats:
    """Euclidean distances between pairs of points, given by their positions."""
    return cast(Floats, np.sqrt(((points[one].astype(np.float64) - points[other]) ** 2).sum(axis=1)))


def _slices_of(rows: UnitRows) -> list[Ints]:
    """The rows of every slice with at least 2 units."""
    members = [index[index >= 0].astype(np.int64) for index in rows.index]
    return [here for here in members if len(here) >= 2]


def _intra_edges(points: Float32Array, here: Ints, knn: int) -> tuple[Ints, Ints]:
    knn = min(knn, len(here) - 1)
    found = np.empty((len(here), knn), np.int32)
    nearest_others(points, knn, np.empty(knn, np.float32), found)
    return np.repeat(here, knn), here[found.ravel()]
