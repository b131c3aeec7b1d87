"""Bases of one epoch against those of the next: how far they have turned, and how to lay one onto the other.

Singular vectors have no sign, and where two singular values are nearly equal (a circle: exactly) any rotation of their
plane is as good a basis. A picture that follows them from epoch to epoch would flip and spin without an alignment.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.linalg

Float64 = npt.NDArray[np.float64]


def aligned_signs(modes: npt.ArrayLike, reference: npt.ArrayLike) -> Float64:
    """The same modes, each with the sign that makes its product with the reference's mode positive.

    Args:
        modes: shape (unit, mode), orthonormal columns.
        reference: shape (unit, mode); where it has fewer columns, the rest of ``modes`` keeps the sign it has.

    >>> aligned_signs([[-1.0], [0.0]], [[1.0], [0.0]]).ravel().tolist()
    [1.0, 0.0]
    """
    found, before = np.array(modes, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    shared = min(found.shape[1], before.shape[1])
    products = np.einsum("uk,uk->k", found[:, :shared], before[:, :shared])
    found[:, :shared] *= np.where(products < 0, -1.0, 1.0)
    return found + 0.0  # no negative zeros


def standard_signs(modes: npt.ArrayLike) -> Float64:
    """The same modes, each with its largest entry positive: for a first epoch, which has nothing to be aligned with."""
    found = np.array(modes, dtype=np.float64)
    if found.size:
        largest = found[np.abs(found).argmax(axis=0), np.arange(found.shape[1])]
        found *= np.where(largest < 0, -1.0, 1.0)
    return found + 0.0


def alignment(modes: npt.ArrayLike, reference: npt.ArrayLike) -> Float64:
    """The rotation R that brings ``modes @ R`` closest to the reference (orthogonal Procrustes, reflections allowed).

    Args:
        modes: shape (unit, mode), orthonormal columns.
        reference: shape (unit, mode), orthonormal columns. Where it has more columns, the first ones count; where it
            has fewer, R completes them: the first columns of ``modes @ R`` are aligned, and all span what they did.

    Returns:
        Orthogonal matrix of shape (mode, mode).

    Source: Schönemann 1966.

    >>> turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    >>> bool(np.allclose(turn @ alignment(turn, np.eye(2)), np.eye(2)))
    True
    """
    found, before = np.asarray(modes, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    size = found.shape[1]
    before = before[:, :size]
    if size == 0:
        return np.zeros((0, 0))
    left, _, right = scipy.linalg.svd(found.T @ before, full_matrices=True)
    inner = np.eye(size)
    inner[: before.shape[1], : before.shape[1]] = right
    return np.asarray(left @ inner)


def subspace_angles(first: npt.ArrayLike, second: npt.ArrayLike) -> Float64:
    """Principal angles between the spans of two bases, in degrees, the largest first; 0 where they coincide.

    Their cosines are the singular values of ``first.T @ second``; small ones are computed from the sines, which keeps
    their digits (Knyazev & Argentati 2002, as SciPy does).

    Args:
        first: shape (unit, mode), orthonormal columns.
        second: the same; as many angles are given as the smaller of the two has modes.

    >>> subspace_angles(np.eye(3)[:, :2], np.eye(3)[:, 1:]).round(6).tolist()
    [90.0, 0.0]
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if 0 in one.shape or 0 in other.shape:
        return np.zeros(0)
    return np.asarray(np.degrees(scipy.linalg.subspace_angles(one, other)))
