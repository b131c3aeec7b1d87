"""Final stage on the nodes: restore the neighborhoods that averaging over landmarks blurs.

Every node starts where the landmarks put it (its *anchor*) and is moved by five forces: toward its nearest slices of
the same unit and away from others, toward its nearest units in the slice and away from others, lightly toward the
distances that the units of a slice have in activation space, and back to the anchor. Positions are renewed all at once
from the old ones (damped Jacobi), never in place, so the picture has the same bits whatever the number of threads.

Ours. Attraction and repulsion are those of UMAP (McInnes et al. 2018); what is drawn at random to repel is shared by
`BLOCK` neighboring nodes, which turns repulsion into vector code and makes 256 draws cheaper than 20 apart.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hiddenscope.embeddings.compiled import compiled
from hiddenscope.embeddings.distances import FAR
from hiddenscope.embeddings.landmarks import Landmarks
from hiddenscope.embeddings.neighbors import CANDIDATES, nearest_slices
from hiddenscope.embeddings.threads import ranges, run_blocks
from hiddenscope.embeddings.unit_rows import Float32Array, IntArray, UnitRows

EPOCHS = 80
RANKS = (*range(1, 11), 14, 20, 28, 40)
"""Which of its nearest slices a node is drawn to: the nearest, and a few that hold the wider neighborhood together."""

SPREAD = 10.0
"""Standard deviation the picture is scaled to while forces act: neighbors then lie about 1 apart."""

RATE = 0.2
ANCHOR = 0.1
REPULSION = 10.0  # of random slices, relative to the attraction of one neighbor
INTRA_ATTRACTION = 2.0
STRESS = 1.0
MATES = 32
NEAREST_MATES = 2
BLOCK = 128
DRAWS = (32, 32, 64, 384)
"""Slices drawn at random to repel each block of nodes, in the four quarters of the refinement: while steps are large
their noise averages out, at the end it is what keeps neighbors apart."""

DRAWS_WHEN_MANY = (16, 16, 32, 192)
MANY_NODES = 200_000
_ROWS_PER_TASK = 1024
_SLICES_PER_TASK = 512


@dataclass(frozen=True)
class Edges:
    """Whom each node is drawn to among the slices of its unit, in both directions, as compressed rows.

    Attributes:
        starts: shape (row + 1,): row r owns the entries starts[r] to starts[r + 1].
        neighbors: shape (entry,): the row at the other end; twice where both ends chose each other.
    """

    starts: npt.NDArray[np.int64]
    neighbors: IntArray


@dataclass(frozen=True)
class SliceMates:
    """The other units of each node's slice: all of them, or some where units are many, the nearest among them.

    Attributes:
        mates: shape (row, mate): their rows; the row itself where there are fewer.
        distances: shape (row, mate): in activation space, over the mean of the slice; negative for those that attract.
    """

    mates: IntArray
    distances: Float32Array


@dataclass(frozen=True)
class Surroundings:
    """Nodes that stay where they are while the rows among them are refined.

    Attributes:
        positions: shape (other, component).
        repelling: per unit, the nodes that may be drawn to repel: numbers below the number of rows are rows, higher
            ones, less the number of rows, are others.
    """

    positions: Float32Array
    repelling: tuple[IntArray, ...]


def inter_edges(
    rows: UnitRows,
    landmarks: Landmarks | None,
    *,
    ranks: tuple[int, ...] = RANKS,
    candidates: int | None = CANDIDATES,
) -> Edges:
    """Join every node to its nearest slices, of the given ranks, in both directions; see `nearest_slices`."""
    found, _ = nearest_slices(rows, landmarks, max(ranks), candidates=candidates)
    return edges_to(found, ranks)


def edges_to(found: IntArray, ranks: tuple[int, ...] = RANKS) -> Edges:
    """Join every row to those of its neighbors, shape (row, neighbor), nearest first, that have the given ranks."""
    chosen = np.ascontiguousarray(found[:, np.array(ranks) - 1])
    starts = np.zeros(len(chosen) + 1, np.int64)
    _count_ends(chosen, starts)
    np.cumsum(starts, out=starts)
    neighbors = np.empty(int(starts[-1]), np.int32)
    _join(chosen, starts[:-1].copy(), neighbors)
    return Edges(starts, neighbors)


def slice_mates(rows: UnitRows) -> SliceMates:
    """List the other units of each node's slice, and how far they are."""
    n_slices, units = rows.index.shape
    shape = (len(rows.values), min(units - 1, MATES))
    mates = np.repeat(np.arange(shape[0], dtype=np.int32)[:, None], shape[1], axis=1)
    distances = np.zeros(shape, np.float32)
    run_blocks(
        lambda block: _list_mates(rows.values, rows.index[slice(*block)], mates, distances),
        ranges(n_slices if shape[1] else 0, _SLICES_PER_TASK),
    )
    return SliceMates(mates, distances)


def refine_nodes(
    rows: UnitRows, landmarks: Landmarks | None, anchors: Float32Array, *, epochs: int = EPOCHS, seed: int = 0
) -> Float32Array:
    """Find who attracts whom, then `refine`; with 0 epochs the anchors come back as they are."""
    if epochs == 0 or anchors.std() == 0:
        return anchors
    return refine(rows, anchors, inter_edges(rows, landmarks), slice_mates(rows), epochs=epochs, seed=seed)


def refine(
    rows: UnitRows,
    anchors: Float32Array,
    edges: Edges,
    mates: SliceMates,
    *,
    epochs: int = EPOCHS,
    seed: int = 0,
    start: Float32Array | None = None,
    around: Surroundings | None = None,
    rate: float = RATE,
) -> Float32Array:
    """Move the nodes until near slices and near units are near in the picture.

    Args:
        rows: nodes sorted by unit.
        anchors: shape (row, component), one to three components: positions interpolated from landmarks.
        edges: who attracts whom between slices.
        mates: who attracts and repels whom within a slice.
        epochs: rounds in which every node moves once; the step shrinks linearly to 0.
        seed: of the slices that repel.
        start: shape (row, component): where the nodes are now, if not at their anchors.
        around: nodes that stay where they are and take part in the forces; edges count them after the rows.
        rate: size of the first step.

    Returns:
        Shape (row, component), in the units of the anchors.

    Raises:
        ValueError: more than three components.
    """
    components = anchors.shape[1]
    if components > 3:
        raise ValueError(f"refinement works in up to 3 dimensions, got {components}; use refine=0")
    center, spread = anchors.mean(axis=0), float(anchors.std())
    if epochs == 0 or spread == 0:
        return anchors if start is None else start
    scale = np.float32(SPREAD / spread)
    home = _in_three((anchors - center) * scale)
    old = home.copy() if start is None else _in_three((start - center) * scale)
    repelling = np.split(np.arange(len(old), dtype=np.int32), rows.offsets[1:-1])
    if around is not None:
        old = np.concatenate([old, _in_three((around.positions - center) * scale)])
        repelling = list(around.repelling)
    new = old.copy()
    counts = np.diff(rows.offsets)
    tasks = [(unit, *part) for unit in range(rows.n_units) for part in ranges(int(counts[unit]), _ROWS_PER_TASK)]
    schedule = DRAWS if len(anchors) <= MANY_NODES else DRAWS_WHEN_MANY
    meant = np.abs(mates.distances).sum(axis=1) + np.float32(1e-6)
    by_mate = np.ascontiguousarray(mates.distances.T)

    def move(task: tuple[int, int, int], draws: int, key: np.uint64, step: np.float32) -> None:
        unit, start, stop = task
        first = int(rows.offsets[unit])
        _move(old, new, home, edges.starts, edges.neighbors, mates.mates, by_mate, meant,
              repelling[unit], first + start, first + stop, draws, key, step)  # fmt: skip

    for epoch in range(epochs):
        key = np.uint64(seed * 1_000_003 + epoch)
        step = np.float32(rate * (1 - epoch / epochs))
        draws = schedule[epoch * len(schedule) // epochs]
        run_blocks(functools.partial(move, draws=draws, key=key, step=step), tasks)
        old, new = new, old
    return np.asarray(old[: len(anchors), :components] / scale + center, np.float32)


def _in_three(positions: Float32Array) -> Float32Array:
    padded = np.zeros((len(positions), 3), np.float32)
    padded[:, : positions.shape[1]] = positions
    return padded


@compiled
def _count_ends(chosen, counts):  # type: ignore[no-untyped-def]
    for i in range(len(chosen)):
        for j in range(chosen.shape[1]):
            other = chosen[i, j]
            if other != i:
                counts[i + 1] += 1
                counts[other + 1] += 1


@compiled
def _join(chosen, cursor, neighbors):  # type: ignore[no-untyped-def]
    for i in range(len(chosen)):
        for j in range(chosen.shape[1]):
            other = chosen[i, j]
            if other != i:
                neighbors[cursor[i]] = other
                cursor[i] += 1
                neighbors[cursor[other]] = i
                cursor[other] += 1


@compiled
def _list_mates(values, index, mates, distances):  # type: ignore[no-untyped-def]
    units, capacity = index.shape[1], mates.shape[1]
    apart = np.empty((units, units), np.float32)
    near = np.empty((units, units), np.bool_)
    for position in range(len(index)):
        nodes = index[position]
        total, pairs = np.float32(0.0), 0
        for i in range(units):
            for j in range(units):
                apart[i, j], near[i, j] = FAR, False
                if i != j and nodes[i] >= 0 and nodes[j] >= 0:
                    apart[i, j] = np.sqrt(_squared_distance(values[nodes[i]], values[nodes[j]]))
                    total += apart[i, j]
                    pairs += 1
        mean = max(total / np.float32(max(pairs, 1)), np.float32(1e-12))
        for i in range(units):
            for _ in range(NEAREST_MATES):
                nearest = -1
                for j in range(units):
                    if apart[i, j] < FAR and not near[i, j] and (nearest < 0 or apart[i, j] < apart[i, nearest]):
                        nearest = j
                if nearest >= 0:
                    near[i, nearest] = True
        for i in range(units):
            place = 0
            for offset in range(2 * units):  # once around for those that attract, then for the others
                j, wanted = (i + offset) % units, offset < units
                if apart[i, j] < FAR and (near[i, j] or near[j, i]) == wanted and place < capacity:
                    distance = apart[i, j] / mean
                    mates[nodes[i], place] = nodes[j]
                    distances[nodes[i], place] = -distance - np.float32(1e-6) if wanted else distance
                    place += 1


@compiled
def _squared_distance(one, other):  # type: ignore[no-untyped-def]
    total = np.float32(0.0)
    for feature in range(len(one)):
        difference = one[feature] - other[feature]
        total += difference * difference
    return total


@compiled
def _scrambled(counter):  # type: ignore[no-untyped-def]
    """A random-looking number for every counter (splitmix64, Steele et al. 2014): no state, so no order of threads."""
    x = counter * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@compiled
def _gather(old, names, xs, ys, zs):  # type: ignore[no-untyped-def]
    """Copy the named positions side by side, where the forces of all of them are computed as vectors."""
    for k in range(len(names)):
        other = old[names[k]]
        xs[k], ys[k], zs[k] = other[0], other[1], other[2]


@compiled
def _repulsion(xs, ys, zs, x, y, z):  # type: ignore[no-untyped-def]
    """Sum over others of (other - self) / ((0.001 + q)(1 + q)), q the squared distance."""
    fx, fy, fz = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    for k in range(len(xs)):
        dx, dy, dz = xs[k] - x, ys[k] - y, zs[k] - z
        q = dx * dx + dy * dy + dz * dz
        weight = np.float32(1.0) / ((np.float32(1e-3) + q) * (np.float32(1.0) + q))
        fx += weight * dx
        fy += weight * dy
        fz += weight * dz
    return fx, fy, fz


@compiled
def _attraction(xs, ys, zs, x, y, z):  # type: ignore[no-untyped-def]
    """Sum over others of 2 (other - self) / (1 + q), and the sum of the coefficients."""
    fx, fy, fz, weight = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
    for k in range(len(xs)):
        dx, dy, dz = xs[k] - x, ys[k] - y, zs[k] - z
        pull = np.float32(2.0) / (np.float32(1.0) + dx * dx + dy * dy + dz * dz)
        fx += pull * dx
        fy += pull * dy
        fz += pull * dz
        weight += pull
    return fx, fy, fz, weight


@compiled
def _hold_slices(old, begin, end, mates, distances, meant, stress, away, force):  # type: ignore[no-untyped-def]
    """Forces between the units of a slice on rows ``begin`` to ``end``: attraction of the nearest mates, repulsion of
    the others, stress of all. Computed mate by mate for all rows together, which is vector code however few the mates.

    ``force`` (4, row) takes the force and the sum of what attracts, ``away`` (mate, 3, row) is room for differences.
    """
    one, tiny = np.float32(1.0), np.float32(1e-6)
    count, n_mates = end - begin, mates.shape[1]
    fx, fy, fz, weight = force[0, :count], force[1, :count], force[2, :count], force[3, :count]
    for i in range(count):
        fx[i], fy[i], fz[i], weight[i] = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
    for k in range(n_mates):
        dx, dy, dz = away[k, 0, :count], away[k, 1, :count], away[k, 2, :count]
        for i in range(count):
            mate, own = old[mates[begin + i, k]], old[begin + i]
            dx[i], dy[i], dz[i] = mate[0] - own[0], mate[1] - own[1], mate[2] - own[2]
        for i in range(count):
            weight[i] += np.sqrt(dx[i] * dx[i] + dy[i] * dy[i] + dz[i] * dz[i])
    # A view, not meant[begin + i]: whether that loop runs as vector code depends on where the arrays lie in memory, and
    # vector code rounds divisions differently.
    ratio, wished = force[4, :count], meant[begin:end]
    for i in range(count):
        ratio[i] = weight[i] / wished[i]
        weight[i] = np.float32(0.0)
    for k in range(n_mates):
        dx, dy, dz, wanted = away[k, 0, :count], away[k, 1, :count], away[k, 2, :count], distances[k, begin:end]
        for i in range(count):
            q = dx[i] * dx[i] + dy[i] * dy[i] + dz[i] * dz[i]
            inverse = one / np.sqrt(q + tiny)
            near = np.float32(INTRA_ATTRACTION) / (one + q)
            far = min(np.float32(2.0) / ((np.float32(1e-3) + q) * (one + q)), np.float32(4.0) * inverse)
            attracts = wanted[i] < 0
            pull = stress * (one - ratio[i] * abs(wanted[i]) * inverse) + (near if attracts else -far)
            weight[i] += stress + (near if attracts else np.float32(0.0))
            fx[i] += pull * dx[i]
            fy[i] += pull * dy[i]
            fz[i] += pull * dz[i]


@compiled
def _move(old, new, home, starts, neighbors, mates, distances, meant, repelling, begin, end, draws, key, step):  # type: ignore[no-untyped-def]
    """Move rows ``begin`` to ``end`` of a unit, of whose nodes those named ``repelling`` may be drawn to repel."""
    xs, ys, zs = np.empty(draws, np.float32), np.empty(draws, np.float32), np.empty(draws, np.float32)
    most = 0
    for i in range(begin, end):
        most = max(most, starts[i + 1] - starts[i])
    gx, gy, gz = np.empty(most, np.float32), np.empty(most, np.float32), np.empty(most, np.float32)
    n_mates = mates.shape[1]
    away, held = np.empty((n_mates, 3, BLOCK), np.float32), np.empty((5, BLOCK), np.float32)
    stress = np.float32(STRESS) / np.float32(max(n_mates, 1))
    anchor = np.float32(ANCHOR)
    for start in range(begin, end, BLOCK):
        stop = min(start + BLOCK, end)
        for draw in range(draws):
            counter = (np.uint64(start) << np.uint64(12)) + np.uint64(draw) + (key << np.uint64(44))
            drawn = old[repelling[np.int64(_scrambled(counter) % np.uint64(len(repelling)))]]
            xs[draw], ys[draw], zs[draw] = drawn[0], drawn[1], drawn[2]
        _hold_slices(old, start, stop, mates, distances, meant, stress, away, held)
        for i in range(start, stop):
            x, y, z = old[i, 0], old[i, 1], old[i, 2]
            degree = starts[i + 1] - starts[i]
            _gather(old, neighbors[starts[i] : starts[i + 1]], gx, gy, gz)
            ax, ay, az, pulls = _attraction(gx[:degree], gy[:degree], gz[:degree], x, y, z)
            push = np.float32(REPULSION) * np.float32(degree) / np.float32(draws)
            rx, ry, rz = _repulsion(xs, ys, zs, x, y, z)
            sx, sy, sz, holds = held[0, i - start], held[1, i - start], held[2, i - start], held[3, i - start]
            change = step / (np.float32(1.0) + step * (anchor + pulls + holds))
            new[i, 0] = x + change * (anchor * (home[i, 0] - x) + ax - push * rx + sx)
            new[i, 1] = y + change * (anchor * (home[i, 1] - y) + ay - push * ry + sy)
            new[i, 2] = z + change * (anchor * (home[i, 2] - z) + az - push * rz + sz)
