"""The intra-step kernel: within a slice, how alike the units respond, as compressed rows.

A_ij = exp(-(|z_i - z_j| / s_i)^decay) with s_i the distance from unit i to its ``knn``-th nearest unit of the slice;
entries under 1e-4 are 0; K = (A + Aᵀ) / 2 with unit diagonal (MM-PHATE, section 3.1, on the alpha-decay kernel of
PHATE, Moon et al. 2019). Work O(N · units · features), memory O(N · neighbors), since the cut-off leaves few of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hiddenscope.embeddings.compiled import compiled
from hiddenscope.embeddings.distances import FAR
from hiddenscope.embeddings.threads import ranges, run_blocks
from hiddenscope.embeddings.unit_rows import Float32Array, IntArray, UnitRows

CUTOFF = 1e-4
_ENTRIES_PER_BLOCK = 2**20


@dataclass(frozen=True)
class IntraKernel:
    """Symmetric affinities between units of one slice; the unit diagonal is not stored.

    Attributes:
        starts: shape (row + 1,): row r owns entries starts[r] to starts[r + 1].
        neighbors: shape (entry,): the row on the other side.
        weights: shape (entry,): the affinity, in (0, 1].
    """

    starts: npt.NDArray[np.int64]
    neighbors: IntArray
    weights: Float32Array


def intra_kernel(rows: UnitRows, *, knn: int = 2, decay: float = 5.0) -> IntraKernel:
    """Affinities between the units of each slice.

    Args:
        rows: nodes sorted by unit.
        knn: which neighbor's distance is the width, capped at two less than the number of present units.
        decay: exponent of the kernel.
    """
    n_slices, units = rows.index.shape
    size = max(1, _ENTRIES_PER_BLOCK // units**2)
    limit = np.float32((-np.log(CUTOFF)) ** (2.0 / decay))

    def compute(block: tuple[int, int]) -> tuple[IntArray, IntArray, Float32Array]:
        index = rows.index[slice(*block)]
        capacity = len(index) * units * (units - 1)
        sources, targets = np.empty(capacity, np.int32), np.empty(capacity, np.int32)
        weights = np.empty(capacity, np.float32)
        columns, squares = np.empty((rows.values.shape[1], units), np.float32), np.empty((units, units), np.float32)
        widths = np.empty((2, max(units, knn)), np.float32)
        count = _slices(
            rows.values, index, knn, np.float32(decay / 2), limit, columns, squares, widths, sources, targets, weights
        )
        return sources[:count].copy(), targets[:count].copy(), weights[:count].copy()

    parts = run_blocks(compute, ranges(n_slices, size))
    counts = np.zeros(len(rows.values), np.int64)
    for sources, _, _ in parts:
        counts += np.bincount(sources, minlength=len(counts))
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    neighbors = np.empty(int(starts[-1]), np.int32)
    weights = np.empty(int(starts[-1]), np.float32)
    cursor = starts[:-1].copy()
    for sources, targets, values in parts:
        _scatter(sources, targets, values, cursor, neighbors, weights)
    return IntraKernel(starts, neighbors, weights)


@compiled
def _slices(values, index, knn, half, limit, columns, squares, buffers, sources, targets, weights):  # type: ignore[no-untyped-def]
    """Fill in the entries of some slices, and return how many; ``half`` is half of the decay."""
    units, features = index.shape[1], values.shape[1]
    widths, present = buffers[0], np.empty(units, np.int32)
    floor = np.float32(np.finfo(np.float64).eps)
    count = 0
    for position in range(len(index)):
        size = 0
        for unit in range(units):
            row = index[position, unit]
            if row >= 0:
                present[size] = row
                for feature in range(features):
                    columns[feature, size] = values[row, feature]
                size += 1
        rank = max(0, min(knn, size - 2))
        for i in range(size):
            distances = squares[i]
            for j in range(size):
                distances[j] = np.float32(0.0)
            for feature in range(features):
                value, others = columns[feature, i], columns[feature]
                for j in range(size):
                    difference = others[j] - value
                    distances[j] += difference * difference
            widths[i] = max(np.sqrt(_ranked(distances, i, size, rank, buffers[1])), floor)
        for i in range(size):
            for j in range(i + 1, size):
                distance = np.sqrt(squares[i, j])
                one, other = distance / widths[i], distance / widths[j]
                weight = _decayed(one * one, half, limit) + _decayed(other * other, half, limit)
                if weight > 0:
                    sources[count], targets[count], weights[count] = present[i], present[j], weight
                    sources[count + 1], targets[count + 1], weights[count + 1] = present[j], present[i], weight
                    count += 2
    return count


@compiled
def _decayed(squared_ratio, half, limit):  # type: ignore[no-untyped-def]
    """Half of exp(-ratio**decay), 0 under the cut-off."""
    if squared_ratio > limit:
        return np.float32(0.0)
    return np.float32(0.5) * np.exp(-(squared_ratio**half))


@compiled
def _ranked(distances, itself, size, rank, smallest):  # type: ignore[no-untyped-def]
    """The ``rank``-th smallest of the other entries, by insertion."""
    if rank == 0:
        return np.float32(0.0)
    for place in range(rank):
        smallest[place] = FAR
    for j in range(size):
        if j != itself and distances[j] < smallest[rank - 1]:
            place = rank - 1
            while place > 0 and smallest[place - 1] > distances[j]:
                smallest[place] = smallest[place - 1]
                place -= 1
            smallest[place] = distances[j]
    return smallest[rank - 1]


@compiled
def _scatter(sources, targets, values, cursor, neighbors, weights):  # type: ignore[no-untyped-def]
    for entry in range(len(sources)):
        place = cursor[sources[entry]]
        neighbors[place] = targets[entry]
        weights[place] = values[entry]
        cursor[sources[entry]] = place + 1
