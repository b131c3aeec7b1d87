"""Which landmarks go and which nodes of a new epoch take their place, so that landmarks follow a training.

A landmark is cheap to lose when it stands for few nodes and another of its unit is near: its cost is its size times the
squared distance to that other, as in online k-means. A node of the new epoch is worth a landmark when it is far from
all of them. While every node can be its own landmark, all new nodes become one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hiddenscope.embeddings.landmarks import Landmarks, nearest_centers
from hiddenscope.embeddings.threads import run_blocks
from hiddenscope.embeddings.unit_rows import Float32Array, IntArray, UnitRows


@dataclass(frozen=True)
class Succession:
    """Landmarks after a step, and what became of those before.

    Attributes:
        landmarks: now.
        positions: shape (landmark, component): where each was, or would have been.
        ancestors: shape (landmark,): its number before, -1 for a new one.
        heirs: shape (former landmark,): the landmark that stands for its nodes now.
    """

    landmarks: Landmarks
    positions: Float32Array
    ancestors: npt.NDArray[np.int64]
    heirs: IntArray


def renew_landmarks(
    rows: UnitRows,
    row_positions: Float32Array,
    is_new: npt.NDArray[np.bool_],
    former: Landmarks,
    positions: Float32Array,
    *,
    n_landmark: int,
    renewal: float,
) -> Succession:
    """Choose the landmarks of the next step.

    Args:
        rows: nodes that take part in the next step.
        row_positions: shape (row, component): where they were; NaN for new ones.
        is_new: shape (slice,): which slices are new.
        former: landmarks so far.
        positions: shape (former landmark, component).
        n_landmark: how many there may be.
        renewal: share of a unit's landmarks that may be exchanged.
    """
    capacity = max(1, n_landmark // rows.n_units)
    fresh = is_new[rows.slices]
    on_nodes = len(rows.values) <= n_landmark

    def renew(unit: int) -> tuple[Float32Array, IntArray, Float32Array, npt.NDArray[np.int64], IntArray]:
        here, own = rows.of(unit), former.of(unit)
        old, points = former.centers[own], rows.values[here]
        if on_nodes:
            return _one_per_node(points, row_positions[here], old, positions[own], own.start)
        kept = np.sort(_dearest(old, former.sizes[own], capacity - int(renewal * capacity)))
        centers = np.concatenate([old[kept], _farthest(points[fresh[here]], old[kept], capacity - len(kept))])
        ancestors = np.concatenate([kept + own.start, np.full(len(centers) - len(kept), -1)])
        labels, _ = _assigned(points, centers)
        used = np.bincount(labels, minlength=len(centers)) > 0
        if not used.all():
            centers, ancestors = centers[used], ancestors[used]
            labels = (np.cumsum(used) - 1).astype(np.int32)[labels]
        return (
            centers,
            labels,
            _inherited(centers, ancestors, old, positions, own.start),
            ancestors,
            _heirs(old, centers),
        )

    parts = run_blocks(renew, range(rows.n_units))
    offsets = np.concatenate([[0], np.cumsum([len(part[0]) for part in parts])]).astype(np.int64)
    labels = np.concatenate([part[1] + start for part, start in zip(parts, offsets[:-1], strict=True)]).astype(np.int32)
    heirs = np.concatenate([part[4] + start for part, start in zip(parts, offsets[:-1], strict=True)]).astype(np.int32)
    landmarks = Landmarks(
        np.concatenate([part[0] for part in parts]), offsets, np.bincount(labels, minlength=int(offsets[-1])), labels
    )
    return Succession(
        landmarks, np.concatenate([part[2] for part in parts]), np.concatenate([part[3] for part in parts]), heirs
    )


def _one_per_node(
    points: Float32Array, row_positions: Float32Array, old: Float32Array, positions: Float32Array, first: int
) -> tuple[Float32Array, IntArray, Float32Array, npt.NDArray[np.int64], IntArray]:
    """Every node its own landmark; an old node descends from its former landmark, where it was."""
    labels = np.arange(len(points), dtype=np.int32)
    known = np.isfinite(row_positions[:, 0])
    ancestors = np.full(len(points), -1, np.int64)
    places = row_positions.copy()
    if len(old):
        nearest, _ = _assigned(points, old)
        ancestors[known] = first + nearest[known]
        places[~known] = positions[nearest[~known]]
    else:
        places[~known] = 0.0
    return points, labels, places, ancestors, _heirs(old, points)


def _dearest(centers: Float32Array, sizes: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Numbers of the ``count`` centers whose loss would cost most."""
    if len(centers) <= count:
        return np.arange(len(centers))
    squares = np.sum((centers[:, None] - centers[None]) ** 2, axis=2)
    np.fill_diagonal(squares, np.inf)
    cost = sizes * squares.min(axis=1)
    return np.argsort(-cost, kind="stable")[:count]


def _farthest(points: Float32Array, centers: Float32Array, count: int) -> Float32Array:
    """Up to ``count`` of the points, each the farthest from the centers and from those taken before."""
    if len(points) == 0 or count <= 0:
        return points[:0]
    squared = np.full(len(points), np.inf) if len(centers) == 0 else _assigned(points, centers)[1].astype(float)
    chosen: list[int] = []
    while len(chosen) < min(count, len(points)) and squared.max() > 0:
        chosen.append(int(squared.argmax()))
        squared = np.minimum(squared, np.sum((points - points[chosen[-1]]) ** 2, axis=1))
    return points[chosen]


def _inherited(
    centers: Float32Array,
    ancestors: npt.NDArray[np.int64],
    old: Float32Array,
    positions: Float32Array,
    first: int,
) -> Float32Array:
    """Former positions; a new landmark starts at the mean of the former landmarks nearest to it."""
    result = np.zeros((len(centers), positions.shape[1]), np.float32)
    alive = ancestors >= 0
    result[alive] = positions[ancestors[alive]]
    for number in np.flatnonzero(~alive):
        if len(old):
            squares = np.sum((old - centers[number]) ** 2, axis=1).astype(np.float64)
            near = np.argsort(squares, kind="stable")[:3]
            weights = 1 / (squares[near] + 1e-9)
            result[number] = weights @ positions[first + near] / weights.sum()
    return result


def _heirs(old: Float32Array, centers: Float32Array) -> IntArray:
    if len(old) == 0 or len(centers) == 0:
        return np.zeros(len(old), np.int32)
    return _assigned(old, centers)[0]


def _assigned(points: Float32Array, centers: Float32Array) -> tuple[IntArray, Float32Array]:
    labels, squared = np.empty(len(points), np.int32), np.empty(len(points), np.float32)
    nearest_centers(np.ascontiguousarray(points), centers, labels, squared)
    return labels, squared
