"""Metric MDS: points whose distances come as near as can be to the potential distances.

Classic MDS (the leading directions of the doubly centered squared distances, by subspace iteration) starts SMACOF
(de Leeuw 1977): every point moves to the mean of where its distances to the others would put it. Each round is one
fused pass over the upper triangle, so the fit is symmetric by construction and holds no matrix but the distances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hiddenscope.embeddings.compiled import compiled
from hiddenscope.embeddings.threads import run_blocks
from hiddenscope.embeddings.unit_rows import Float32Array

ROUNDS = 300
TOLERANCE = 1e-4
_BANDS = 4  # rows are dealt out to a fixed number of partial sums, whatever the number of threads


@dataclass(frozen=True)
class Placement:
    """Where MDS put the points.

    Attributes:
        positions: shape (point, component), centered.
        stress: sum over pairs of (target distance - distance)², relative to that of the squared targets.
        rounds: of SMACOF that were needed.
    """

    positions: Float32Array
    stress: float
    rounds: int


def classic_mds(distances: Float32Array, n_components: int, *, seed: int = 0, rounds: int = 12) -> Float32Array:
    """Leading principal coordinates of a distance matrix, by randomized subspace iteration.

    Args:
        distances: symmetric, shape (point, point).
        n_components: dimensions; where the points have fewer, the rest are 0.
        seed: of the start.
        rounds: of the iteration.

    Source: Torgerson 1952; Halko, Martinsson and Tropp 2011 for the iteration.
    """
    squares = distances * distances
    means = squares.mean(axis=0)
    total = means.mean()
    width = min(len(distances), n_components + 5)
    basis = np.random.default_rng(seed).standard_normal((len(distances), width)).astype(np.float32)

    def centered(block: Float32Array) -> Float32Array:
        product = squares @ block - means[:, None] * block.sum(axis=0) - means @ block + total * block.sum(axis=0)
        return np.asarray(-0.5 * product, np.float32)

    for _ in range(rounds):
        basis, _ = np.linalg.qr(centered(basis))
    values, turn = np.linalg.eigh(basis.T @ centered(basis))
    leading = np.argsort(values)[::-1][:n_components]
    positions = np.zeros((len(distances), n_components), np.float32)
    positions[:, : len(leading)] = basis @ (turn[:, leading] * np.sqrt(np.maximum(values[leading], 0.0)))
    largest = np.abs(positions).argmax(axis=0)
    return positions * np.where(positions[largest, np.arange(n_components)] < 0, -1, 1).astype(np.float32)


def metric_mds(
    distances: Float32Array,
    start: Float32Array,
    *,
    rounds: int = ROUNDS,
    tolerance: float = TOLERANCE,
    anchor: Float32Array | None = None,
) -> Placement:
    """Improve a start until the stress no longer falls.

    Args:
        distances: symmetric, shape (point, point).
        start: shape (point, component).
        rounds: at most.
        tolerance: stop when a round lowers the stress by less than this share of it.
        anchor: shape (point,): how strongly each point is drawn to its place in ``start``, as a share of the pull of
            all other points together; None for a free fit.

    Source: SMACOF, de Leeuw 1977, with the doubled step of de Leeuw and Heiser 1980, which needs about half the
    rounds; the last steps are plain ones.
    """
    count = len(start)
    targets = np.ascontiguousarray(distances, np.float32)
    positions: Float32Array = np.ascontiguousarray(
        (start - (start.mean(axis=0) if anchor is None else 0)).T, np.float32
    )
    home = positions.copy()
    scale = float(np.sum(targets * targets, dtype=np.float64)) / 2
    if scale == 0.0 or count < 2:
        return Placement(np.zeros_like(start), 0.0, 0)
    weight = np.zeros(count, np.float32) if anchor is None else np.asarray(anchor, np.float32)
    previous, stress = float("inf"), 0.0
    done, stride = 0, np.float32(2.0)
    for done in range(1, rounds + 1):
        moved, stress = _guttman(targets, positions)
        moved = np.asarray((moved + weight * home) / (1 + weight), np.float32)
        if previous - stress < tolerance * stress:
            if stride == 1:
                positions = moved
                break
            stride = np.float32(1.0)  # doubled steps may overshoot at the end: finish with plain ones
        previous = stress
        positions = positions + (stride if done < rounds else np.float32(1.0)) * (moved - positions)
    final = np.ascontiguousarray(positions.T)
    return Placement(final - final.mean(axis=0) if anchor is None else final, stress / scale, done)


def _guttman(targets: Float32Array, positions: Float32Array) -> tuple[Float32Array, float]:
    """Guttman transform of the positions, shape (component, point), and their stress before it."""
    count = positions.shape[1]
    sums = np.zeros((_BANDS, *positions.shape), np.float32)
    stress = np.zeros(_BANDS)

    def band(number: int) -> None:
        stress[number] = _pull(targets, positions, number, _BANDS, sums[number])

    run_blocks(band, range(_BANDS))
    return sums.sum(axis=0) / np.float32(count), float(stress.sum())


@compiled
def _pull(targets, positions, first, step, sums):  # type: ignore[no-untyped-def]
    components, count = positions.shape
    squares = np.empty(count, np.float32)
    tiny = np.float32(1e-12)
    stress = 0.0
    for i in range(first, count, step):
        row = targets[i, i + 1 :]
        length = len(row)
        for j in range(length):
            squares[j] = np.float32(0.0)
        for component in range(components):
            value, others = positions[component, i], positions[component, i + 1 :]
            for j in range(length):
                difference = value - others[j]
                squares[j] += difference * difference
        missed = tiny
        for j in range(length):
            distance = np.sqrt(squares[j])
            gap = row[j] - distance
            missed += gap * gap
            squares[j] = row[j] / max(distance, tiny)
        stress += float(missed)
        for component in range(components):
            value, others = positions[component, i], positions[component, i + 1 :]
            toward = sums[component, i + 1 :]
            own = tiny
            for j in range(length):
                pull = squares[j] * (value - others[j])
                own += pull
                toward[j] -= pull
            sums[component, i] += own
    return stress
