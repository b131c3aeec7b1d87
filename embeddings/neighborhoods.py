"""Who is near whom among all slices of a training, kept up to date as slices arrive instead of being searched anew.

Every node lists slices of its unit in which it responded most alike: the nearest ones, and a few of higher rank that
hold the wider neighborhood together, as refinement wants them. A new slice is compared with those before it, once: it
finds its own neighbors and enters the lists of those it is nearer to than their farthest near one. The near part of a
list therefore is exact however long the history, as long as no more than `CANDIDATES` slices are there to be compared
with; beyond that they are a regular sample, and the neighbors of the neighbors found are looked at as well, as in
nearest-neighbor descent (Dong et al. 2011). The slices
of higher rank stay those of the day a slice arrived.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hiddenscope.embeddings.compiled import compiled
from hiddenscope.embeddings.distances import FAR, squared_distances
from hiddenscope.embeddings.nodes import present_nodes
from hiddenscope.embeddings.refinement import RANKS, Edges, Surroundings
from hiddenscope.embeddings.threads import run_blocks
from hiddenscope.embeddings.unit_rows import Float32Array, IntArray, UnitRows

CANDIDATES = 20_000
NEAR = sum(rank == place for place, rank in enumerate(RANKS, 1))
"""How many of a list's first entries are the nearest slices without a gap."""

HOPS = 8
"""How often at most the neighbors of the neighbors found are looked at, where only a sample was compared with."""

_TILE = 1024


@dataclass(frozen=True)
class Neighborhoods:
    """The neighbors of every node among the slices of its unit.

    Attributes:
        slices: shape (unit, slice, entry): numbers of slices, of the ranks `RANKS`; a node without so many neighbors,
            or excluded, lists itself.
        reach: shape (unit, slice): squared distance to the farthest of the first `NEAR`.
    """

    slices: IntArray
    reach: Float32Array


def neighborhoods(rows: UnitRows, found: IntArray, distances: Float32Array) -> Neighborhoods:
    """Those of a fit, from the rows nearest to each row as `hiddenscope.embeddings.neighbors.nearest_slices` has them.

    Args:
        rows: nodes sorted by unit.
        found: shape (row, neighbor): rows, nearest first, as many as the highest of `RANKS`.
        distances: shape (row, neighbor).
    """
    slices, reach = _blank(rows.n_units, 0, len(rows.index))
    units = np.repeat(np.arange(rows.n_units), np.diff(rows.offsets))
    slices[units, rows.slices] = rows.slices[found[:, np.array(RANKS) - 1]]
    full = found[:, NEAR - 1] != np.arange(len(found))
    reach[units, rows.slices] = np.where(full, distances[:, NEAR - 1] ** 2, FAR)
    return Neighborhoods(slices, reach)


def with_arrivals(known: Neighborhoods, nodes: Float32Array) -> Neighborhoods:
    """The neighborhoods after slices have arrived; those before stay as they were.

    Args:
        known: of the slices before.
        nodes: of all slices, the new ones last, normalized, shape (slice, unit, feature).
    """
    before, total, n_units = known.reach.shape[1], len(nodes), nodes.shape[1]
    unknown = _blank(n_units, before, total)
    slices = np.concatenate([known.slices, unknown[0]], axis=1)
    reach = np.concatenate([known.reach, unknown[1]], axis=1)
    present = present_nodes(nodes)
    compared = np.union1d(np.arange(0, total, max(1, -(-total // CANDIDATES))), np.arange(before, total))
    ranks = np.array(RANKS) - 1

    def enter(unit: int) -> None:
        new = before + np.flatnonzero(present[before:, unit]).astype(np.int32)
        if len(new) == 0:
            return
        names = compared[present[compared, unit]].astype(np.int32)
        columns = np.ascontiguousarray(nodes[names, unit].T)
        _enter(nodes[:, unit], columns, names, new.astype(np.int32), before, NEAR, ranks, slices[unit], reach[unit])

    run_blocks(enter, range(n_units))
    return Neighborhoods(slices, reach)


def surroundings(
    known: Neighborhoods, rows: UnitRows, slices: npt.NDArray[np.int64], positions: Float32Array
) -> tuple[Edges, Surroundings]:
    """What some slices are refined among: every edge that one of them has a part in, and all other slices.

    Args:
        known: of all slices.
        rows: the nodes of some slices.
        slices: which slices those are.
        positions: of all slices, shape (slice, unit, component), NaN for excluded nodes.
    """
    n_units, n_slices = known.reach.shape
    count = len(rows.values)
    place = np.arange(count, count + n_units * n_slices, dtype=np.int32).reshape(n_units, n_slices)
    inside = rows.index.T
    place[:, slices] = np.where(inside >= 0, inside, place[:, slices])
    counts = np.zeros(count + 1, np.int64)
    run_blocks(lambda unit: _count(known.slices[unit], place[unit], counts), range(n_units))
    starts = np.cumsum(counts)
    cursor, neighbors = starts[:-1].copy(), np.empty(int(starts[-1]), np.int32)
    run_blocks(lambda unit: _join(known.slices[unit], place[unit], cursor, neighbors), range(n_units))
    by_unit = np.ascontiguousarray(positions.swapaxes(0, 1))
    repelling = tuple(place[unit, np.isfinite(by_unit[unit, :, 0])] for unit in range(n_units))
    return Edges(starts, neighbors), Surroundings(by_unit.reshape(-1, positions.shape[2]), repelling)


def carried(known: Neighborhoods, labels: IntArray, moves: Float32Array) -> Float32Array:
    """How every node moves if its landmark and those of its neighbors take it along: the mean of their moves.

    Neighbors on two sides of a border between landmarks thus stay neighbors.

    Args:
        known: of all slices.
        labels: shape (slice, unit): landmark of each node, -1 for excluded nodes.
        moves: shape (landmark, component).

    Returns:
        Shape (slice, unit, component), 0 for excluded nodes.
    """
    n_units, n_slices = known.reach.shape
    result = np.zeros((n_units, n_slices, moves.shape[1]), np.float32)
    by_unit = np.ascontiguousarray(labels.T)
    run_blocks(lambda unit: _carry(known.slices[unit], by_unit[unit], moves, result[unit]), range(n_units))
    return result.swapaxes(0, 1)


def _blank(n_units: int, start: int, stop: int) -> tuple[IntArray, Float32Array]:
    """Lists of the slices ``start`` to ``stop``, each of which lists itself."""
    itself = np.arange(start, stop, dtype=np.int32)[None, :, None]
    shape = (n_units, stop - start, len(RANKS))
    return np.broadcast_to(itself, shape).copy(), np.full(shape[:2], FAR, np.float32)


@compiled
def _enter(points, columns, names, new, before, near, ranks, slices, reach):  # type: ignore[no-untyped-def]
    """Find the neighbors of a unit's ``new`` slices among the columns ``names``, and let them enter those' lists."""
    count, most = len(names), ranks[-1] + 1
    squared, who = np.empty(most, np.float32), np.empty(most, np.int32)
    distances = np.empty(_TILE, np.float32)
    for query in new:
        for place in range(most):
            squared[place], who[place] = FAR, query
        for start in range(0, count, _TILE):
            stop = min(start + _TILE, count)
            squared_distances(points[query], columns, np.int64(start), np.int64(stop), distances)
            for j in range(stop - start):
                name, distance = names[start + j], distances[j]
                if name == query:
                    continue
                if distance < squared[most - 1]:
                    _insert(squared, who, most, distance, name)
                if name < before and distance < reach[name]:
                    _offer(points, slices[name], reach, name, near, distance, query)
        for _ in range(HOPS if count < before else 0):
            farthest = squared[near - 1]
            for found in who.copy():
                for name in slices[found].copy():
                    if name == query or _holds(who, name):
                        continue
                    distance = _squared_distance(points, query, name)
                    if distance < squared[most - 1]:
                        _insert(squared, who, most, distance, name)
                    if name < before and distance < reach[name] and not _holds(slices[name, :near], query):
                        _offer(points, slices[name], reach, name, near, distance, query)
            if squared[near - 1] == farthest:
                break
        for entry in range(len(ranks)):
            slices[query, entry] = who[ranks[entry]]
        reach[query] = squared[near - 1]


@compiled
def _insert(squared, who, count, distance, name):  # type: ignore[no-untyped-def]
    place = count - 1
    while place > 0 and squared[place - 1] > distance:
        squared[place], who[place] = squared[place - 1], who[place - 1]
        place -= 1
    squared[place], who[place] = distance, name


@compiled
def _offer(points, listed, reach, name, near, distance, query):  # type: ignore[no-untyped-def]
    """Put ``query`` into the sorted near part of the list of ``name``, whose distances are computed anew."""
    squared, who = np.empty(near, np.float32), np.empty(near, np.int32)
    for entry in range(near):
        other = listed[entry]
        squared[entry], who[entry] = FAR if other == name else _squared_distance(points, other, name), other
    if squared[near - 1] > distance:
        _insert(squared, who, near, distance, query)
    for entry in range(near):
        listed[entry] = who[entry]
    reach[name] = squared[near - 1]


@compiled
def _squared_distance(points, one, other):  # type: ignore[no-untyped-def]
    total = np.float32(0.0)
    for feature in range(points.shape[1]):
        difference = points[one, feature] - points[other, feature]
        total += difference * difference
    return total


@compiled
def _holds(names, name):  # type: ignore[no-untyped-def]
    return (names == name).any()


@compiled
def _count(slices, place, counts):  # type: ignore[no-untyped-def]
    rows = len(counts) - 1
    for number in range(len(slices)):
        own = place[number]
        for entry in range(slices.shape[1]):
            other = slices[number, entry]
            if other != number:
                if own < rows:
                    counts[own + 1] += 1
                if place[other] < rows:
                    counts[place[other] + 1] += 1


@compiled
def _join(slices, place, cursor, neighbors):  # type: ignore[no-untyped-def]
    rows = len(cursor)
    for number in range(len(slices)):
        own = place[number]
        for entry in range(slices.shape[1]):
            other = slices[number, entry]
            if other == number:
                continue
            if own < rows:
                neighbors[cursor[own]] = place[other]
                cursor[own] += 1
            if place[other] < rows:
                neighbors[cursor[place[other]]] = own
                cursor[place[other]] += 1


@compiled
def _carry(slices, labels, moves, result):  # type: ignore[no-untyped-def]
    for number in range(len(slices)):
        if labels[number] < 0:
            continue
        own, total = result[number], np.float32(1.0)
        for component in range(moves.shape[1]):
            own[component] = moves[labels[number], component]
        for entry in range(slices.shape[1]):
            other = labels[slices[number, entry]]
            if other >= 0:
                total += np.float32(1.0)
                for component in range(moves.shape[1]):
                    own[component] += moves[other, component]
        for component in range(moves.shape[1]):
            own[component] /= total
