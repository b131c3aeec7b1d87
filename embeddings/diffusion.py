"""Diffusion among landmarks: how long, and what it leaves to tell them apart.

The operator P = D^(-1/2) S D^(1/2) is similar to a symmetric S, so one symmetric eigendecomposition gives its spectrum,
hence the diffusion time, and every power of it at the price of one matrix product. (PHATE, Moon et al. 2019, methods:
von Neumann entropy, informational distance; M-PHATE, Gigante et al. 2019, section 3.3.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg

from hiddenscope.embeddings.compiled import compiled
from hiddenscope.embeddings.threads import ranges, run_blocks
from hiddenscope.embeddings.unit_rows import Float32Array

LONGEST_TIME = 100
NEGLIGIBLE = 1e-9  # of the leading eigenvalue's power, 1
_ROWS_PER_BLOCK = 256


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues, ascending, and eigenvectors, in columns, of the symmetric operator; all, or the leading ones."""

    values: Float32Array
    vectors: Float32Array


def spectrum(symmetric: Float32Array) -> Spectrum:
    """Eigendecomposition of the symmetric form of a diffusion operator, shape (landmark, landmark)."""
    values, vectors = scipy.linalg.eigh(symmetric, driver="evd", check_finite=False)
    return Spectrum(values, vectors)


def leading_spectrum(symmetric: Float32Array, guess: Float32Array, *, rounds: int = 2) -> Spectrum:
    """Leading eigenvectors near a guess, by subspace iteration: a few products instead of a decomposition.

    Args:
        symmetric: shape (landmark, landmark).
        guess: shape (landmark, vector): columns that nearly span the leading eigenvectors.
        rounds: of the iteration.
    """
    basis, _ = np.linalg.qr(symmetric @ guess)
    for _ in range(rounds - 1):
        basis, _ = np.linalg.qr(symmetric @ basis)
    values, turn = scipy.linalg.eigh(basis.T @ (symmetric @ basis), driver="evd", check_finite=False)
    return Spectrum(values, basis @ turn)


def von_neumann_entropy(values: npt.NDArray[np.floating], *, longest: int = LONGEST_TIME) -> npt.NDArray[np.float64]:
    """Entropy, in nats, of the normalized spectrum after 1 to ``longest`` steps of diffusion.

    Source: PHATE, Moon et al. 2019; it falls fast while noise is filtered out, then slowly.

    >>> von_neumann_entropy(np.array([1.0, 1.0, 0.0]), longest=2).round(6).tolist()
    [0.693147, 0.693147]
    """
    magnitudes = np.abs(np.asarray(values, np.float64))
    magnitudes = magnitudes[magnitudes > 0]
    powers = np.cumprod(np.broadcast_to(magnitudes, (longest, len(magnitudes))), axis=0)
    totals = powers.sum(axis=1)
    # -sum (p / total) ln (p / total) with p = s**q, whose logarithm is q ln s
    return np.asarray(np.log(totals) - np.arange(1, longest + 1) * (powers @ np.log(magnitudes)) / totals)


def knee_point(heights: npt.NDArray[np.floating]) -> int:
    """Index of the point where two straight lines, one up to it and one from it on, fit the heights best.

    Both lines are least-squares fits; the knee has the smallest sum of absolute residuals. As in PHATE, whose times we
    want, the right line is fitted from one point before the knee on.

    Raises:
        ValueError: fewer than 3 heights.

    >>> knee_point(np.array([8.0, 6.0, 4.0, 2.0, 1.9, 1.8, 1.7]))
    3
    """
    heights = np.asarray(heights, np.float64)
    if len(heights) < 3:
        raise ValueError(f"a knee needs at least 3 heights, got {len(heights)}")
    places = np.arange(len(heights), dtype=np.float64)

    def residuals(part: slice) -> npt.NDArray[np.float64]:
        x, y = places[part] - places[part].mean(), heights[part]
        slope = x @ y / (x @ x)
        return np.asarray(np.abs(y - y.mean() - slope * x))

    def misfit(knee: int) -> float:
        return float(residuals(slice(0, knee + 1)).sum() + residuals(slice(knee - 1, None))[1:].sum())

    return min(range(1, len(heights) - 1), key=misfit)


def diffusion_time(values: npt.NDArray[np.floating]) -> int:
    """M-PHATE's automatic diffusion time: the knee of the von Neumann entropy, counted from 0, at least 1."""
    return max(1, knee_point(von_neumann_entropy(values)))


def potential_distances(decomposition: Spectrum, degrees: Float32Array, *, t: int, gamma: float = 0.0) -> Float32Array:
    """Euclidean distances between the landmarks' diffusion potentials.

    Args:
        decomposition: of the symmetric operator.
        degrees: D, shape (landmark,).
        t: diffusion time.
        gamma: 0 for the potential 2 sqrt(P^t), 1 for -ln(P^t + 1e-7), in general 2 / (1 - gamma) P^t^((1 - gamma) / 2).

    Returns:
        Shape (landmark, landmark), symmetric to the bit, zero diagonal.
    Source: PHATE, Moon et al. 2019, informational distances.
    """
    potential = diffusion_potential(decomposition, degrees, t=t, gamma=gamma)
    potential -= potential.mean(axis=0)  # leaves distances alone and keeps float32 for what differs
    products = scipy.linalg.blas.ssyrk(1.0, potential.T, trans=True, lower=False)
    distances = np.empty((len(products), len(products)), np.float32)
    _to_distances(products.T, np.diagonal(products).copy(), distances)
    return distances


def diffusion_potential(decomposition: Spectrum, degrees: Float32Array, *, t: int, gamma: float = 0.0) -> Float32Array:
    """The potential of each landmark, shape (landmark, landmark); see `potential_distances`."""
    powers = decomposition.values.astype(np.float64) ** t
    kept = np.abs(powers) > NEGLIGIBLE
    root = np.sqrt(degrees, dtype=np.float32)
    right = decomposition.vectors[:, kept]
    left = right * powers[kept].astype(np.float32) / root[:, None]
    potential = np.empty((len(root), len(root)), np.float32)

    def fill(block: tuple[int, int]) -> None:
        part = potential[slice(*block)]
        np.matmul(left[slice(*block)], right.T, out=part)
        part *= root
        np.maximum(part, 0.0, out=part)
        if gamma == 1:
            part += np.float32(1e-7)
            np.log(part, out=part)
            np.negative(part, out=part)
        else:
            if gamma == 0:
                np.sqrt(part, out=part)
            else:
                np.power(part, np.float32((1 - gamma) / 2), out=part)
            part *= np.float32(2 / (1 - gamma))

    run_blocks(fill, ranges(len(root), _ROWS_PER_BLOCK))
    return potential


@compiled
def _to_distances(products, squares, distances):  # type: ignore[no-untyped-def]
    """From inner products, of which ``products[i, j]`` with j <= i are given, to distances in both triangles."""
    for i in range(len(squares)):
        row, given, square = distances[i], products[i], squares[i]
        for j in range(i):
            row[j] = np.sqrt(max(square + squares[j] - np.float32(2.0) * given[j], np.float32(0.0)))
        row[i] = np.float32(0.0)
        for j in range(i):
            distances[j, i] = row[j]
