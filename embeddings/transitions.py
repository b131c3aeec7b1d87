"""Node-to-landmark sums and what follows from them, streamed unit by unit without ever holding the kernel.

Row n of W holds the affinity of node n to each landmark: the kernel K = K_intra + K_inter summed over the nodes that
the landmark stands for. Inter-step affinities reach only landmarks of the node's own unit, so W is one dense block per
unit plus the few intra-step entries. With d_n the row sums of W and D_l its column sums (PHATE, Moon et al. 2019):

    landmark operator    D⁻¹ Wᵀ d⁻¹ W        interpolation    Y_nodes = d⁻¹ W Y_landmarks
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hiddenscope.embeddings.compiled import compiled
from hiddenscope.embeddings.distances import exponential, squared_distances
from hiddenscope.embeddings.intra import CUTOFF, IntraKernel
from hiddenscope.embeddings.landmarks import Landmarks
from hiddenscope.embeddings.threads import ranges, run_blocks
from hiddenscope.embeddings.unit_rows import Float32Array, UnitRows

Sums = Literal["exact", "centers", "auto"]

EXACT_PAIRS = 400_000_000
"""Up to this many pairs of slices of one unit, "auto" takes exact sums: a second or less."""

_ROWS_PER_BLOCK = 4096
_TILE = 512
_KEPT_ENTRIES = 2**26  # 256 MB of float32
_LIMIT = np.float32(-np.log(CUTOFF))


@dataclass(frozen=True)
class LandmarkGraph:
    """All that turns landmarks into an operator on them and back into nodes.

    Attributes:
        rows: the nodes.
        intra: affinities within slices.
        landmarks: what the sums are over.
        bandwidth: ε of the inter-step kernel.
        sums: "exact" adds the affinity of every member of a landmark; "centers" takes the affinity of its center, as
            many times as it has members; "placed" does so for nodes that the landmarks were not chosen from.
        blocks: per unit, shape (row, landmark of the unit): the dense part of W, or None where it is computed anew
            whenever it is needed.
    """

    rows: UnitRows
    intra: IntraKernel
    landmarks: Landmarks
    bandwidth: float
    sums: Literal["exact", "centers", "placed"]
    blocks: tuple[Float32Array, ...] | None

    @property
    def on_nodes(self) -> bool:
        """Whether every node is its own landmark, so that diffusion runs on the kernel itself."""
        return self.sums != "placed" and len(self.landmarks.centers) == len(self.rows.values)

    def block(self, unit: int, start: int, stop: int) -> Float32Array:
        """Affinities of the unit's rows ``start`` to ``stop`` to the unit's own landmarks, the nodes themselves in."""
        if self.blocks is not None:
            return self.blocks[unit][start:stop]
        return _center_block(self.rows, self.landmarks, self.bandwidth, unit, start, stop)


@dataclass(frozen=True)
class LandmarkOperator:
    """The symmetric form S = D^(-1/2) Wᵀ d⁻¹ W D^(-1/2) of the landmark operator.

    Attributes:
        symmetric: shape (landmark, landmark).
        degrees: shape (landmark,): D.
        node_degrees: shape (row,): d.
    """

    symmetric: Float32Array
    degrees: Float32Array
    node_degrees: Float32Array


def landmark_graph(
    rows: UnitRows,
    intra: IntraKernel,
    landmarks: Landmarks,
    *,
    bandwidth: float,
    sums: Sums = "exact",
    most_pairs: int = EXACT_PAIRS,
) -> LandmarkGraph:
    """Prepare the node-to-landmark sums.

    "exact" costs O(slices²) per unit and agrees with the materialized kernel to float32 rounding; "centers" costs
    O(slices · landmarks) and forgets the spread within a landmark. "auto" is exact up to ``most_pairs`` pairs of slices
    of one unit.
    """
    if resolved(sums, rows, most_pairs=most_pairs) == "exact":
        units = run_blocks(lambda unit: _exact_block(rows, landmarks, bandwidth, unit), range(rows.n_units))
        return LandmarkGraph(rows, intra, landmarks, bandwidth, "exact", tuple(units))
    entries = int(np.dot(np.diff(rows.offsets), np.diff(landmarks.offsets)))
    if entries > _KEPT_ENTRIES:
        return LandmarkGraph(rows, intra, landmarks, bandwidth, "centers", None)
    counts = np.diff(rows.offsets)
    blocks = run_blocks(
        lambda unit: _center_block(rows, landmarks, bandwidth, unit, 0, int(counts[unit])), range(rows.n_units)
    )
    return LandmarkGraph(rows, intra, landmarks, bandwidth, "centers", tuple(blocks))


def resolved(sums: Sums, rows: UnitRows, *, most_pairs: int = EXACT_PAIRS) -> Literal["exact", "centers"]:
    """What "auto" stands for with these rows."""
    if sums != "auto":
        return sums
    return "exact" if int(np.sum(np.diff(rows.offsets) ** 2)) <= most_pairs else "centers"


def landmark_operator(graph: LandmarkGraph) -> LandmarkOperator:
    """Assemble Wᵀ d⁻¹ W unit by unit, then scale it to the symmetric operator.

    With every node its own landmark the operator is that of the kernel itself, as in PHATE without landmarks.
    Own-unit affinities meet as one matrix product per unit; own-unit and intra-step affinities meet entry by entry of
    the intra-step kernel; intra-step entries meet in pairs. Work O(N · landmarks of a unit · (landmarks of a unit +
    intra-step neighbors)).
    """
    rows, landmarks, intra = graph.rows, graph.landmarks, graph.intra
    count = len(landmarks.centers)
    if graph.on_nodes:
        return _node_operator(graph)
    intra_degrees = _intra_degrees(intra)
    node_degrees = np.empty(len(rows.values), np.float32)

    def assemble(unit: int) -> tuple[Float32Array, Float32Array]:
        own = landmarks.of(unit)
        across = np.zeros((count, own.stop - own.start), np.float32)
        degrees = np.zeros(own.stop - own.start)
        first = int(rows.offsets[unit])
        for start, stop in ranges(int(rows.offsets[unit + 1]) - first, _ROWS_PER_BLOCK):
            block = graph.block(unit, start, stop)
            here = slice(first + start, first + stop)
            node_degrees[here] = block.sum(axis=1) + intra_degrees[here]
            degrees += block.sum(axis=0, dtype=np.float64)
            shared = block / node_degrees[here, None]
            across[own] += 0.5 * (shared.T @ block)  # the other half comes with the transpose
            _add_across(shared, intra.starts[here.start : here.stop + 1], intra.neighbors, intra.weights,
                        landmarks.labels, across)  # fmt: skip
        return across, degrees.astype(np.float32)

    parts = run_blocks(assemble, range(rows.n_units))
    gram = np.concatenate([across for across, _ in parts], axis=1)
    gram = gram + gram.T
    degrees = np.concatenate([own for _, own in parts]).astype(np.float64)
    _add_pairs(intra.starts, intra.neighbors, intra.weights, node_degrees, landmarks.labels, gram)
    degrees += np.bincount(landmarks.labels[intra.neighbors], intra.weights, minlength=count)
    root = np.sqrt(degrees).astype(np.float32)
    return LandmarkOperator(gram / root / root[:, None], degrees.astype(np.float32), node_degrees)


def interpolate(graph: LandmarkGraph, positions: Float32Array) -> Float32Array:
    """Positions of all nodes, shape (row, component): each the affinity-weighted mean of the landmarks."""
    rows, landmarks, intra = graph.rows, graph.landmarks, graph.intra
    if graph.on_nodes:
        return positions
    degrees = _intra_degrees(intra)
    result = np.empty((len(rows.values), positions.shape[1]), np.float32)

    def place(block: tuple[int, int, int]) -> None:
        unit, start, stop = block
        first = int(rows.offsets[unit])
        here = slice(first + start, first + stop)
        own = graph.block(unit, start, stop)
        sums = own @ positions[landmarks.of(unit)]
        _add_intra(intra.starts[here.start : here.stop + 1], intra.neighbors, intra.weights, landmarks.labels,
                   positions, sums)  # fmt: skip
        result[here] = sums / (own.sum(axis=1) + degrees[here])[:, None]

    counts = np.diff(rows.offsets)
    run_blocks(place, [(unit, *part) for unit in range(rows.n_units) for part in ranges(int(counts[unit]), _ROWS_PER_BLOCK)])  # fmt: skip  # noqa: E501
    return result


def _intra_degrees(intra: IntraKernel) -> Float32Array:
    """Sum of each row's affinities within its slice, itself not counted."""
    sums = np.add.reduceat(np.append(intra.weights, np.float32(0)), intra.starts[:-1])
    sums[np.diff(intra.starts) == 0] = 0.0
    return sums


def _node_operator(graph: LandmarkGraph) -> LandmarkOperator:
    """Where every node is its own landmark W is the kernel itself, and diffusion runs on it without the detour."""
    rows, intra = graph.rows, graph.intra
    kernel = np.zeros((len(rows.values), len(rows.values)), np.float32)
    for unit, count in enumerate(np.diff(rows.offsets)):
        kernel[rows.of(unit), rows.of(unit)] = graph.block(unit, 0, int(count))
    kernel[np.repeat(np.arange(len(kernel)), np.diff(intra.starts)), intra.neighbors] = intra.weights
    degrees = kernel.sum(axis=1)
    root = np.sqrt(degrees)
    return LandmarkOperator(kernel / root / root[:, None], degrees, degrees)


def _exact_block(rows: UnitRows, landmarks: Landmarks, bandwidth: float, unit: int) -> Float32Array:
    here, own = rows.of(unit), landmarks.of(unit)
    labels = landmarks.labels[here] - own.start
    order = np.argsort(labels, kind="stable")
    columns = np.ascontiguousarray(rows.values[here][order].T)
    sums = np.zeros((own.stop - own.start, len(order)), np.float32)
    _member_sums(columns, labels[order], np.float32(-1.0 / bandwidth**2), sums)
    block = np.empty((len(order), len(sums)), np.float32)
    block[order] = sums.T
    return block


def _center_block(
    rows: UnitRows, landmarks: Landmarks, bandwidth: float, unit: int, start: int, stop: int
) -> Float32Array:
    first, own = int(rows.offsets[unit]), landmarks.of(unit)
    points = rows.values[first + start : first + stop]
    labels = landmarks.labels[first + start : first + stop] - own.start
    block = np.empty((len(points), own.stop - own.start), np.float32)
    centers = np.ascontiguousarray(landmarks.centers[own].T)
    sizes = landmarks.sizes[own].astype(np.float32)
    _center_sums(points, labels, centers, sizes, np.float32(-1.0 / bandwidth**2), block)
    return block


@compiled
def _member_sums(columns, labels, scale, sums):  # type: ignore[no-untyped-def]
    """``sums[l, j]`` = affinity of point j to the members of landmark l, itself included; points sorted by landmark.

    Every pair is computed twice: adding up the mirrored half in scalar code would take longer.
    """
    features, count = columns.shape
    affinities = np.empty(_TILE, np.float32)
    point = np.empty(features, np.float32)
    for start in range(0, count, _TILE):
        stop = min(start + _TILE, count)
        for i in range(count):
            for feature in range(features):
                point[feature] = columns[feature, i]
            squared_distances(point, columns, start, stop, affinities)
            toward = sums[labels[i], start:stop]
            for j in range(stop - start):
                exponent = affinities[j] * scale
                value = exponential(max(exponent, -_LIMIT))
                toward[j] += value if exponent >= -_LIMIT else np.float32(0.0)


@compiled
def _center_sums(points, labels, centers, sizes, scale, block):  # type: ignore[no-untyped-def]
    count = centers.shape[1]
    distances = np.empty(count, np.float32)
    for i in range(len(points)):
        squared_distances(points[i], centers, np.int64(0), count, distances)
        mine, row = labels[i], block[i]
        for j in range(count):
            exponent = distances[j] * scale
            value = exponential(max(exponent, -_LIMIT))
            row[j] = sizes[j] * (value if exponent >= -_LIMIT else np.float32(0.0))
        if sizes[mine] > 0:  # the node is one of the members, at distance 0 from itself
            row[mine] += np.float32(1.0) - row[mine] / sizes[mine]


@compiled
def _add_across(shared, starts, neighbors, weights, labels, across):  # type: ignore[no-untyped-def]
    width = shared.shape[1]
    for i in range(len(shared)):
        for entry in range(starts[i], starts[i + 1]):
            target = across[labels[neighbors[entry]]]
            weight = weights[entry]
            row = shared[i]
            for j in range(width):
                target[j] += weight * row[j]


@compiled
def _add_pairs(starts, neighbors, weights, degrees, labels, gram):  # type: ignore[no-untyped-def]
    for i in range(len(degrees)):
        for first in range(starts[i], starts[i + 1]):
            weight = weights[first] / degrees[i]
            target = gram[labels[neighbors[first]]]
            for second in range(starts[i], starts[i + 1]):
                target[labels[neighbors[second]]] += weight * weights[second]


@compiled
def _add_intra(starts, neighbors, weights, labels, positions, sums):  # type: ignore[no-untyped-def]
    for i in range(len(sums)):
        for entry in range(starts[i], starts[i + 1]):
            for component in range(sums.shape[1]):
                sums[i, component] += weights[entry] * positions[labels[neighbors[entry]], component]
