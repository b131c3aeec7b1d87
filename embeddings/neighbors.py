"""Nearest slices of a unit: exact where slices are few, among the clusters around each slice where they are many.

Landmarks already partition each unit. The members of one cluster share one list of candidates, the members of the
clusters around it, nearest center first, until there are `CANDIDATES` of them; sharing keeps the distances in vector
code, and the minimum keeps small clusters from being searched too narrowly. Work O(N · candidates · features).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hiddenscope.embeddings.compiled import compiled
from hiddenscope.embeddings.distances import FAR, squared_distances
from hiddenscope.embeddings.landmarks import Landmarks
from hiddenscope.embeddings.threads import ranges, run_blocks
from hiddenscope.embeddings.unit_rows import Float32Array, IntArray, UnitRows

CANDIDATES = 1000
_TILE = 1024
_GROUP = 32
_ROWS_PER_BLOCK = 256


def nearest_slices(
    rows: UnitRows,
    landmarks: Landmarks | None,
    n_neighbors: int,
    *,
    candidates: int | None = CANDIDATES,
    within: Float32Array | None = None,
) -> tuple[IntArray, Float32Array]:
    """For every node, the rows of the nearest other slices of its unit, and their distances.

    Args:
        rows: nodes sorted by unit.
        landmarks: clusters to search by; not needed for an exact search.
        n_neighbors: how many; a unit with fewer other slices repeats itself, at distance 0 of its own row.
        candidates: least number of slices that each slice is compared with; None compares it with all of its unit.
        within: shape (row,): look no farther than this from each node, which makes an exact search several times
            faster; where fewer slices are as near, the node itself fills up the list.

    Returns:
        Row numbers and distances, both of shape (row, n_neighbors), nearest first.
    """
    found = np.empty((len(rows.values), n_neighbors), np.int32)
    squared = np.empty(found.shape, np.float32)

    def search_all(unit: int) -> None:
        here = rows.of(unit)
        everyone = np.arange(here.start, here.stop, dtype=np.int32)
        reach = None if within is None else within[here] ** 2
        _search(rows.values[here], rows.values[here], everyone, everyone, found[here], squared[here], reach)

    def search_around(unit: int) -> None:
        assert landmarks is not None
        here, own = rows.of(unit), landmarks.of(unit)
        labels = landmarks.labels[here] - own.start
        members = np.argsort(labels, kind="stable").astype(np.int32) + np.int32(here.start)
        sizes = np.bincount(labels, minlength=own.stop - own.start)
        centers = landmarks.centers[own]
        norms = np.sum(centers**2, axis=1)
        apart = norms[:, None] + norms - 2 * (centers @ centers.T)
        np.fill_diagonal(apart, -np.inf)
        order = np.argsort(apart, axis=1, kind="stable").astype(np.int32)
        least = max(candidates or 0, n_neighbors + 1)
        _nearest_around(rows.values, members, np.cumsum(sizes), order, least, int(sizes.max()), found, squared)

    counts = np.diff(rows.offsets)
    exact = landmarks is None or candidates is None
    large = [unit for unit in range(rows.n_units) if not exact and counts[unit] > 2 * (candidates or 0)]
    run_blocks(search_around, large)
    run_blocks(search_all, sorted(set(range(rows.n_units)) - set(large)))
    np.sqrt(squared, out=squared)
    return found, squared


def nearest_rows(queries: UnitRows, rows: UnitRows, n_neighbors: int) -> tuple[IntArray, Float32Array]:
    """For every query node, the nearest rows of the same unit among other nodes, and their distances, by exact search.

    Returns:
        Row numbers and distances, both of shape (query, n_neighbors), nearest first; a unit with fewer rows repeats
        its first, as if it were far away.
    """
    found = np.empty((len(queries.values), n_neighbors), np.int32)
    squared = np.empty(found.shape, np.float32)

    def search(unit: int) -> None:
        here, there = queries.of(unit), rows.of(unit)
        names = np.arange(there.start, there.stop, dtype=np.int32)
        strangers = np.full(here.stop - here.start, -1, np.int32)
        _search(queries.values[here], rows.values[there], names, strangers, found[here], squared[here])
        missing = found[here] < 0
        found[here][missing] = there.start
        squared[here][missing] = FAR

    run_blocks(search, range(queries.n_units))
    return found, np.sqrt(squared)


def neighbor_distances(points: Float32Array, chosen: npt.NDArray[np.int64], rank: int) -> Float32Array:
    """Distance from each chosen point to its ``rank``-th nearest among all points, itself not counted."""
    squared = np.empty((len(chosen), rank), np.float32)
    found = np.empty(squared.shape, np.int32)
    order = _strided(len(points))
    columns = np.ascontiguousarray(points[order].T)

    def measure(block: tuple[int, int]) -> None:
        part = slice(*block)
        own = chosen[part].astype(np.int32)
        _nearest(points[chosen[part]], columns, order, own, np.full(len(own), FAR), found[part], squared[part])

    run_blocks(measure, ranges(len(chosen), _ROWS_PER_BLOCK))
    return np.sqrt(squared[:, -1])


def _search(
    queries: Float32Array,
    points: Float32Array,
    names: IntArray,
    own: IntArray,
    found: IntArray,
    squared: Float32Array,
    reach: Float32Array | None = None,
) -> None:
    order = _strided(len(points))
    reach = np.full(len(queries), FAR) if reach is None else reach
    _nearest(queries, np.ascontiguousarray(points[order].T), names[order], own, reach, found, squared)


def _strided(count: int) -> IntArray:
    """0 to count - 1 with neighbors far apart: scanned in the order of time, a path would come ever nearer to a query
    on it, and every slice on the way would enter the list of the nearest and leave it again."""
    stride = int(np.ceil(np.sqrt(count)))
    square = np.arange(stride * stride, dtype=np.int32).reshape(stride, stride).T.ravel()
    return square[square < count]


@compiled
def _nearest(queries, columns, names, own, reach, found, squared):  # type: ignore[no-untyped-def]
    """The names of, and squared distances to, the nearest columns of each query, those named ``own`` left out."""
    count, rank = columns.shape[1], found.shape[1]
    distances = np.empty(_TILE, np.float32)
    for query in range(len(queries)):
        near, who, itself = squared[query], found[query], own[query]
        for place in range(rank):
            near[place], who[place] = reach[query], itself
        for start in range(0, count, _TILE):
            stop = min(start + _TILE, count)
            squared_distances(queries[query], columns, start, stop, distances)
            _keep_nearest(distances[: stop - start], names[start:stop], itself, near, who)
        for place in range(rank):
            if who[place] == itself:
                near[place] = 0


@compiled
def _nearest_around(values, members, ends, order, least, largest, found, squared):  # type: ignore[no-untyped-def]
    """Fill in the nearest of each node among the members of its own cluster and of the nearest clusters around it.

    ``members`` are rows sorted by cluster, cluster c ends before ``ends[c]``; ``order[c]`` are the clusters nearest to
    c, itself first, taken until they hold ``least`` members.
    """
    features, rank = values.shape[1], found.shape[1]
    names = np.empty(least + largest, np.int32)
    columns = np.empty((features, least + largest), np.float32)
    distances = np.empty(least + largest, np.float32)
    for cluster in range(len(ends)):
        first = ends[cluster - 1] if cluster else 0
        if first == ends[cluster]:
            continue
        count = 0
        for other in order[cluster]:
            for position in range(ends[other - 1] if other else 0, ends[other]):
                names[count] = members[position]
                count += 1
            if count >= least:
                break
        for j in range(count):
            for feature in range(features):
                columns[feature, j] = values[names[j], feature]
        for position in range(first, ends[cluster]):
            itself = members[position]
            near, who = squared[itself], found[itself]
            for place in range(rank):
                near[place], who[place] = FAR, itself
            squared_distances(values[itself], columns, np.int64(0), count, distances)
            _keep_nearest(distances[:count], names[:count], itself, near, who)
            for place in range(rank):
                if who[place] == itself:
                    near[place] = 0


@compiled
def _keep_nearest(distances, names, itself, near, who):  # type: ignore[no-untyped-def]
    """Take the nearer ones into the sorted list ``near`` of distances and ``who`` of names, ``itself`` left out."""
    last = len(near) - 1
    for first in range(0, len(distances), _GROUP):
        group = distances[first : min(first + _GROUP, len(distances))]
        least = FAR
        for j in range(len(group)):
            least = min(least, group[j])
        if least >= near[last]:
            continue
        labels = names[first : first + len(group)]
        for j in range(len(group)):
            distance = group[j]
            if distance < near[last] and labels[j] != itself:
                place = last
                while place > 0 and near[place - 1] > distance:
                    near[place], who[place] = near[place - 1], who[place - 1]
                    place -= 1
                near[place], who[place] = distance, labels[j]
