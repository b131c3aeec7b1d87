"""Nearest neighbors that two spaces share, along each of the two ways in which nodes are related."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hiddenscope.embeddings.compiled import compiled
from hiddenscope.embeddings.neighbors import nearest_rows, nearest_slices
from hiddenscope.embeddings.threads import ranges, run_blocks
from hiddenscope.embeddings.unit_rows import Float32Array, UnitRows, unit_rows

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def inter_shares(
    nodes: Float32Array, positions: Float32Array, k: int, n_queries: int | None, rng: np.random.Generator
) -> tuple[Floats, int]:
    """Shares of kept neighbors among the slices of the same unit, per asked node; and how many could be asked."""
    rows = unit_rows(nodes)
    shown = replace(rows, values=rows.from_nodes(positions))
    counts = np.diff(rows.offsets)
    askable = np.flatnonzero(np.repeat(counts > k, counts))
    chosen = askable[draw(len(askable), n_queries, rng)]
    if len(chosen) == len(rows.values):
        found = [nearest_slices(space, None, k, candidates=None)[0] for space in (rows, shown)]
    else:
        found = [_nearest_of(space, chosen, k) for space in (rows, shown)]
    return _shares(*found), len(askable)


def intra_shares(
    nodes: Float32Array, positions: Float32Array, k: int, n_queries: int | None, rng: np.random.Generator
) -> tuple[Floats, int]:
    """Mean share of kept neighbors among the units of each asked slice; and how many slices could be asked."""
    present = np.isfinite(nodes[..., 0])
    askable = np.flatnonzero(present.sum(axis=1) > k)
    wanted = None if n_queries is None else max(2, n_queries // nodes.shape[1])
    chosen = askable[draw(len(askable), wanted, rng)]
    shares = np.empty(len(chosen))

    def measure(block: tuple[int, int]) -> None:
        for place in range(*block):
            here = present[chosen[place]]
            data, shown = nodes[chosen[place], here], positions[chosen[place], here]
            shares[place] = _shared_neighbors(data, shown, k)

    run_blocks(measure, ranges(len(chosen), 512))
    return shares, len(askable)


def draw(count: int, wanted: int | None, rng: np.random.Generator) -> Ints:
    """Some of so many positions, in their order; all of them for None."""
    if wanted is None or wanted >= count:
        return np.arange(count)
    return np.sort(rng.choice(count, wanted, replace=False))


def _nearest_of(rows: UnitRows, chosen: Ints, k: int) -> npt.NDArray[np.int32]:
    """The k nearest other rows of the same unit, for chosen rows."""
    offsets = np.searchsorted(chosen, rows.offsets).astype(np.int64)
    queries = replace(rows, values=rows.values[chosen], offsets=offsets, slices=rows.slices[chosen])
    found, _ = nearest_rows(queries, rows, k + 1)
    itself = found == chosen[:, None]
    itself[~itself.any(axis=1), -1] = True  # nearer ones coincide with it, and it is not among them
    return np.asarray(found[~itself].reshape(len(chosen), k))


def _shares(one: npt.NDArray[np.int32], other: npt.NDArray[np.int32]) -> Floats:
    shares = np.empty(len(one))

    def count(block: tuple[int, int]) -> None:
        part = slice(*block)
        _count_common(one[part], other[part], shares[part])

    run_blocks(count, ranges(len(one), 4096))
    return np.asarray(shares / one.shape[1])


@compiled
def _count_common(one, other, counts):  # type: ignore[no-untyped-def]
    for i in range(len(one)):
        common = 0
        for a in one[i]:
            for b in other[i]:
                if a == b:
                    common += 1
                    break
        counts[i] = common


@compiled
def nearest_others(points, k, distances, found):  # type: ignore[no-untyped-def]
    """The k nearest others of every point, nearest first, the lower index first where two are equally near."""
    n, dims = points.shape
    for i in range(n):
        for place in range(k):
            distances[place] = np.float32(3.0e38)
        for j in range(n):
            if j == i:
                continue
            squared = np.float32(0.0)
            for c in range(dims):
                difference = points[i, c] - points[j, c]
                squared += difference * difference
            if squared < distances[k - 1]:
                place = k - 1
                while place > 0 and distances[place - 1] > squared:
                    distances[place], found[i, place] = distances[place - 1], found[i, place - 1]
                    place -= 1
                distances[place], found[i, place] = squared, j


@compiled
def _shared_neighbors(data, shown, k):  # type: ignore[no-untyped-def]
    n = len(data)
    distances = np.empty(k, np.float32)
    in_data, in_picture = np.empty((n, k), np.int32), np.empty((n, k), np.int32)
    nearest_others(data, k, distances, in_data)
    nearest_others(shown, k, distances, in_picture)
    counts = np.empty(n)
    _count_common(in_data, in_picture, counts)
    return counts.sum() / (n * k)
