"""Spectral coordinates of the nodes, by products with the kernel that is never held.

M-PHATE clusters nodes by where one step of diffusion takes them in the leading eigenvectors of the kernel (Gigante et
al. 2019; PHATE, Moon et al. 2019, methods), not by their responses. With K = K_intra + K_inter, D its row sums and V
the leading eigenvectors of D^(-1/2) K D^(-1/2), the coordinates are D⁻¹ K V. A product with K costs O(slices²) per
unit, as much as exact sums do, and a dozen are needed: for traces where that is affordable.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse

from hiddenscope.embeddings.compiled import compiled
from hiddenscope.embeddings.distances import exponential, squared_distances
from hiddenscope.embeddings.intra import CUTOFF, IntraKernel
from hiddenscope.embeddings.threads import ranges, run_blocks
from hiddenscope.embeddings.unit_rows import Float32Array, UnitRows

COMPONENTS = 100
_SPARE = 8
_ROUNDS = 8
_ROWS_PER_TILE = 256
_LIMIT = np.float32(-np.log(CUTOFF))


def spectral_coordinates(
    rows: UnitRows, intra: IntraKernel, *, bandwidth: float, n_components: int = COMPONENTS, seed: int = 0
) -> Float32Array:
    """Where diffusion takes each node in the leading eigenvectors of the kernel.

    Args:
        rows: nodes sorted by unit.
        intra: affinities within slices.
        bandwidth: of the inter-step kernel.
        n_components: eigenvectors; fewer where there are fewer nodes.
        seed: of the start of the subspace iteration (Halko, Martinsson and Tropp 2011).

    Returns:
        Shape (row, component).
    """
    count = len(rows.values)
    width = min(count, n_components + _SPARE)
    within = scipy.sparse.csr_array((intra.weights, intra.neighbors, intra.starts), shape=(count, count))

    def kernel_times(block: Float32Array) -> Float32Array:
        return np.asarray(_inter_product(rows, bandwidth, block) + within @ block, np.float32)

    degrees = kernel_times(np.ones((count, 1), np.float32))
    root = np.sqrt(degrees)

    def similar(block: Float32Array) -> Float32Array:
        return np.asarray(kernel_times(np.asarray(block / root, np.float32)) / root, np.float32)

    basis: Float32Array = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    for _ in range(_ROUNDS):
        basis = np.linalg.qr(similar(basis))[0]
    _, turn = np.linalg.eigh(basis.T @ similar(basis))
    vectors = basis @ turn[:, ::-1][:, : min(width, n_components)]
    return np.asarray(kernel_times(np.ascontiguousarray(vectors)) / degrees, np.float32)


def _inter_product(rows: UnitRows, bandwidth: float, block: Float32Array) -> Float32Array:
    """K_inter, the diagonal of the whole kernel included, times a block of columns."""
    product = np.empty_like(block)
    columns = [np.ascontiguousarray(rows.values[rows.of(unit)].T) for unit in range(rows.n_units)]
    counts = np.diff(rows.offsets)

    def multiply(part: tuple[int, int, int]) -> None:
        unit, start, stop = part
        first, last = int(rows.offsets[unit]), int(rows.offsets[unit + 1])
        affinities = np.empty((stop - start, last - first), np.float32)
        points = rows.values[first + start : first + stop]
        _affinities(points, columns[unit], np.float32(-1.0 / bandwidth**2), affinities)
        affinities[np.arange(stop - start), np.arange(start, stop)] = 1.0
        np.matmul(affinities, block[first:last], out=product[first + start : first + stop])

    parts = [(unit, *part) for unit in range(rows.n_units) for part in ranges(int(counts[unit]), _ROWS_PER_TILE)]
    run_blocks(multiply, parts)
    return product


@compiled
def _affinities(points, columns, scale, affinities):  # type: ignore[no-untyped-def]
    count = columns.shape[1]
    for i in range(len(points)):
        row = affinities[i]
        squared_distances(points[i], columns, np.int64(0), count, row)
        for j in range(count):
            exponent = row[j] * scale
            value = exponential(max(exponent, -_LIMIT))
            row[j] = value if exponent >= -_LIMIT else np.float32(0.0)
