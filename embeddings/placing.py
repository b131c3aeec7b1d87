"""New nodes in an existing picture: other epochs, checkpoints or runs, without moving anything that is there.

A new node is joined to the landmarks of its unit, and through its slice mates to theirs, and takes their weighted mean,
as the fitted nodes did; then it is shifted as refinement shifted the fitted slices of its unit that are nearest to it.
A node that was in the fit therefore lands where the fit put it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hiddenscope.embeddings.intra import intra_kernel
from hiddenscope.embeddings.landmarks import Landmarks, nearest_centers
from hiddenscope.embeddings.neighbors import nearest_rows
from hiddenscope.embeddings.streaming import StreamingSolution
from hiddenscope.embeddings.threads import one_blas_thread, run_blocks
from hiddenscope.embeddings.transitions import LandmarkGraph, interpolate
from hiddenscope.embeddings.unit_rows import Float32Array, IntArray, UnitRows, unit_rows
from hiddenscope.trace import FloatArray

GUIDES = 3
"""How many of the nearest fitted slices show a new node where to go from the mean of the landmarks."""


@dataclass(frozen=True)
class Placer:
    """What has to be kept of a fit in order to place other nodes in its picture.

    Attributes:
        rows: the fitted nodes.
        landmarks: of the fit.
        landmark_positions: shape (landmark, component).
        bandwidth: of the inter-step kernel.
        intra_knn: of the intra-step kernel.
        decay: of the intra-step kernel.
        shifts: shape (row, component): from the mean of the landmarks to where the fit put the node.
    """

    rows: UnitRows
    landmarks: Landmarks
    landmark_positions: Float32Array
    bandwidth: float
    intra_knn: int
    decay: float
    shifts: Float32Array


def placer(solution: StreamingSolution, *, intra_knn: int = 2, decay: float = 5.0) -> Placer:
    """Prepare to place nodes in the picture of a fit made with the same ``intra_knn`` and ``decay``."""
    graph = solution.graph
    return placer_of(
        graph.rows,
        graph.landmarks,
        solution.placement.positions,
        solution.refined,
        bandwidth=graph.bandwidth,
        intra_knn=intra_knn,
        decay=decay,
    )


def placer_of(
    rows: UnitRows,
    landmarks: Landmarks,
    landmark_positions: Float32Array,
    positions: Float32Array,
    *,
    bandwidth: float,
    intra_knn: int,
    decay: float,
) -> Placer:
    """Prepare to place nodes among given ``positions`` of rows, shape (row, component)."""
    without = Placer(rows, landmarks, landmark_positions, bandwidth, intra_knn, decay, np.zeros_like(positions))
    with one_blas_thread():
        shifts = positions - _landmark_means(without, rows)
    return Placer(rows, landmarks, landmark_positions, bandwidth, intra_knn, decay, shifts)


def place(placer: Placer, nodes: FloatArray) -> Float32Array:
    """Positions of normalized nodes in the picture of the fit.

    Args:
        placer: from `placer`.
        nodes: shape (slice, unit, feature), units in the order of the fit, features as in the fit; NaN rows excluded.

    Returns:
        Shape (slice, unit, component), NaN for excluded nodes and for units that had no node in the fit.

    Raises:
        ValueError: another number of units or features than the fit had, or no complete node.
    """
    units, features = placer.rows.n_units, placer.rows.values.shape[1]
    if nodes.shape[1] != units:
        raise ValueError(f"the picture was made of {units} units, got {nodes.shape[1]}; units are matched by index")
    if nodes.shape[2] != features:
        raise ValueError(
            f"the picture was made from {features} features per node, got {nodes.shape[2]}; "
            "record the same probe samples, in the same order"
        )
    known = nodes
    missing = np.diff(placer.rows.offsets) == 0
    if missing.any():
        known = np.where(missing[:, None], np.nan, nodes)
    with one_blas_thread():
        rows = unit_rows(known)
        positions = _landmark_means(placer, rows) + _guided_shifts(placer, rows)
    return rows.to_nodes(positions)


def landmark_means(
    rows: UnitRows,
    landmarks: Landmarks,
    labels: IntArray,
    positions: Float32Array,
    *,
    bandwidth: float,
    intra_knn: int,
    decay: float,
) -> Float32Array:
    """Affinity-weighted means of the landmarks, a node counted as one more member of the nearest of them.

    Args:
        rows: the nodes, which need not be those the landmarks were chosen from.
        landmarks: of some nodes of the same units.
        labels: shape (row,): which landmark each node is counted to (`nearest_landmarks`).
        positions: shape (landmark, component).
        bandwidth: of the inter-step kernel.
        intra_knn: of the intra-step kernel.
        decay: of the intra-step kernel.
    """
    joined = Landmarks(landmarks.centers, landmarks.offsets, landmarks.sizes, labels)
    intra = intra_kernel(rows, knn=intra_knn, decay=decay)
    return interpolate(LandmarkGraph(rows, intra, joined, bandwidth, "placed", None), positions)


def _landmark_means(placer: Placer, rows: UnitRows) -> Float32Array:
    return landmark_means(
        rows, placer.landmarks, nearest_landmarks(rows, placer.landmarks), placer.landmark_positions,
        bandwidth=placer.bandwidth, intra_knn=placer.intra_knn, decay=placer.decay,
    )  # fmt: skip


def nearest_landmarks(rows: UnitRows, landmarks: Landmarks) -> IntArray:
    """The landmark of the same unit that is nearest to each node; -1 where the unit has none."""
    labels, squared = np.full(len(rows.values), -1, np.int32), np.empty(len(rows.values), np.float32)

    def label(unit: int) -> None:
        here, own = rows.of(unit), landmarks.of(unit)
        if here.stop > here.start and own.stop > own.start:
            nearest_centers(rows.values[here], landmarks.centers[own], labels[here], squared[here])
            labels[here] += own.start

    run_blocks(label, range(rows.n_units))
    return labels


def _guided_shifts(placer: Placer, rows: UnitRows) -> Float32Array:
    """Mean shift of the nearest fitted slices of the same unit, weighted by the inverse square of their distance."""
    found, distances = nearest_rows(rows, placer.rows, GUIDES)
    weights = 1.0 / (distances.astype(np.float64) ** 2 + 1e-9)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.asarray(np.einsum("rg,rgc->rc", weights, placer.shifts[found]), np.float32)
