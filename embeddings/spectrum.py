"""Singular values of hidden states, and what they say about the number of dimensions in use.

Hidden states are *snapshots* of a network's dynamics, one column of N units for each step of each sequence. The
singular value decomposition of the matrix of snapshots yields orthogonal modes, ordered by the energy that they carry
(proper orthogonal decomposition; Su & Shlizerman 2019, arXiv:1905.12176, apply it to encoder and decoder states).
The threshold of 90 %, the tolerance and the participation ratio are our choices.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import scipy.linalg

Float64 = npt.NDArray[np.float64]

THRESHOLDS = (0.90, 0.95, 0.99)
TOLERANCE = 1e-9
"""A share of energy that falls short of a threshold by no more than this has reached it."""

SVD_ENTRIES = 2_000_000
"""Entries of a matrix of snapshots up to which it is decomposed itself; larger ones go through their Gram matrix."""


@dataclass(frozen=True)
class Decomposition:
    """Modes of a set of snapshots.

    Attributes:
        singular_values: shape (mode,), falling; square roots of the energies.
        modes: shape (unit, mode), orthonormal columns.
        mean: shape (unit,), what was subtracted from every snapshot; zeros when nothing was.
        count: snapshots that took part.
    """

    singular_values: Float64
    modes: Float64
    mean: Float64
    count: int


def decompose(snapshots: npt.ArrayLike, *, center: bool = False, weights: npt.ArrayLike | None = None) -> Decomposition:
    """Modes of a matrix of snapshots, by its singular value decomposition in float64.

    Args:
        snapshots: shape (snapshot, unit), finite.
        center: subtract the mean snapshot first, which makes this a principal component analysis. The method in the
            strict sense does not, and the two give different numbers wherever the mean is not zero.
        weights: factors of the snapshots, shape (snapshot,); the mean is then weighted by their squares.

    Raises:
        ValueError: the matrix is not two-dimensional, or not finite.

    >>> decompose([[3.0, 0.0], [0.0, 4.0]]).singular_values.tolist()
    [4.0, 3.0]
    """
    rows = np.asarray(snapshots, dtype=np.float64)
    if rows.ndim != 2:
        raise ValueError(f"snapshots need shape (snapshot, unit), got {rows.shape}")
    if not np.isfinite(rows).all():
        raise ValueError("snapshots must be finite; leave out padding, and epochs that have diverged")
    if rows.size > SVD_ENTRIES and rows.shape[0] > rows.shape[1]:
        return Gram(rows.shape[1]).add(rows, weights=weights).decompose(center=center)
    factors = np.ones(len(rows)) if weights is None else np.asarray(weights, dtype=np.float64)
    mean = np.zeros(rows.shape[1])
    if center and len(rows):
        mean = np.average(rows, axis=0, weights=factors**2)
    scaled = (rows - mean) * factors[:, None]
    if not scaled.size:
        return Decomposition(np.zeros(0), np.zeros((rows.shape[1], 0)), mean, len(rows))
    if len(scaled) > 2 * scaled.shape[1]:  # the left singular vectors are not wanted, so the triangle alone will do
        scaled = scipy.linalg.qr(scaled, mode="r", overwrite_a=True, check_finite=False)[0][: scaled.shape[1]]
    _, values, modes = scipy.linalg.svd(scaled, full_matrices=False, check_finite=False, lapack_driver="gesdd")
    return Decomposition(values, modes.T, mean, len(rows))


@dataclass
class Gram:
    """Sums over snapshots from which their modes follow, for more snapshots than fit into memory.

    The sums are kept in float64. Squaring loses half of the digits: singular values below about 1e-8 of the largest
    are noise, where `decompose` on the snapshots themselves knows them to 1e-16.

    >>> sums = Gram(2).add([[3.0, 0.0]]).add([[0.0, 4.0]])
    >>> sums.decompose().singular_values.tolist()
    [4.0, 3.0]
    """

    units: int
    count: int = 0
    weight: float = 0.0
    total: Float64 = field(init=False)
    products: Float64 = field(init=False)

    def __post_init__(self) -> None:
        self.total = np.zeros(self.units)
        self.products = np.zeros((self.units, self.units))

    def add(self, snapshots: npt.ArrayLike, *, weights: npt.ArrayLike | None = None) -> Gram:
        """Take in more snapshots, shape (snapshot, unit), with a factor for each in ``weights``; returns itself."""
        rows = np.asarray(snapshots, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.units:
            raise ValueError(f"snapshots of {self.units} units are being summed, got shape {rows.shape}")
        squares = np.ones(len(rows)) if weights is None else np.asarray(weights, dtype=np.float64) ** 2
        weighted = rows if weights is None else rows * squares[:, None]
        self.products += weighted.T @ rows
        self.total += weighted.sum(axis=0)
        self.weight += float(squares.sum())
        self.count += len(rows)
        return self

    def decompose(self, *, center: bool = False) -> Decomposition:
        """The modes of all snapshots so far."""
        mean = self.total / self.weight if center and self.weight > 0 else np.zeros(self.units)
        products = self.products - self.weight * np.outer(mean, mean) if center else self.products
        values, modes = scipy.linalg.eigh((products + products.T) / 2)
        kept = slice(None, None, -1)
        energies = np.clip(values[kept], 0.0, None)
        rank = min(self.units, self.count)
        return Decomposition(np.sqrt(energies)[:rank], modes[:, kept][:, :rank], mean, self.count)


def energy_fractions(singular_values: npt.ArrayLike) -> Float64:
    """Each mode's share of the energy, s_k**2 / sum_j s_j**2, along the last axis; zeros where there is no energy.

    >>> energy_fractions([2.0, 1.0]).tolist()
    [0.8, 0.2]
    """
    squares = np.asarray(singular_values, dtype=np.float64) ** 2
    total = squares.sum(axis=-1, keepdims=True)
    return np.asarray(np.divide(squares, total, out=squares * 0.0, where=~(total <= 0)))


def effective_dimension(
    singular_values: npt.ArrayLike, *, energy: float = 0.9, tolerance: float = TOLERANCE
) -> npt.NDArray[np.int64]:
    """The fewest modes that together carry at least a share ``energy`` of the energy, along the last axis.

    0 where there is no energy at all (a dead layer), and where a value is NaN.

    Raises:
        ValueError: ``energy`` is not above 0 and at most 1.

    >>> int(effective_dimension([2.0, 1.0], energy=0.8)), int(effective_dimension([2.0, 1.0], energy=0.9))
    (1, 2)
    """
    check_energy(energy)
    shares = energy_fractions(singular_values)
    reached = np.cumsum(shares, axis=-1) >= energy - tolerance
    count = np.argmax(reached, axis=-1) + 1
    return np.asarray(np.where(reached.any(axis=-1), count, 0), dtype=np.int64)


def participation_ratio(singular_values: npt.ArrayLike) -> Float64:
    """(sum s**2)**2 / sum s**4 along the last axis: how many modes carry the energy, without a threshold.

    k when k modes carry equal shares; 0 where there is no energy.

    >>> float(participation_ratio([1.0, 1.0, 0.0]))
    2.0
    """
    squares = np.asarray((energy_fractions(singular_values) ** 2).sum(axis=-1))
    return np.asarray(np.divide(1.0, squares, out=np.zeros_like(squares), where=~(squares <= 0)))


def check_energy(energy: float) -> None:
    """Raise ``ValueError`` unless ``energy`` is a share of a whole."""
    if not 0 < energy <= 1:
        raise ValueError(f"energy is a share, above 0 and at most 1, got {energy}")
