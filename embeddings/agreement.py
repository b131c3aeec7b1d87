"""How far two pictures of the same nodes agree, whatever their place, turn, mirror and size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def procrustes_correlation(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """1 for pictures that differ by shift, rotation, reflection and scale alone, 0 for unrelated ones.

    The square root of the share of one picture's variance that the best such motion of the other explains. Nodes that
    are missing (NaN) in either picture do not count; NaN comes back where fewer than 2 are left or all coincide.

    Args:
        one: shape (..., component).
        other: the same nodes, in the same order and as many dimensions.

    Raises:
        ValueError: the shapes differ.

    Source: Gower 1975; the value is sqrt(1 - disparity) of `scipy.spatial.procrustes`.

    >>> square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    >>> round(procrustes_correlation(square, 5 - 2 * square[:, ::-1]), 6)
    1.0
    """
    first, second = np.asarray(one, float), np.asarray(other, float)
    if first.shape != second.shape:
        raise ValueError(f"two pictures of the same nodes have one shape, got {first.shape} and {second.shape}")
    first, second = first.reshape(-1, first.shape[-1]), second.reshape(-1, second.shape[-1])
    known = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1)
    if known.sum() < 2:
        return float("nan")
    first, second = first[known] - first[known].mean(axis=0), second[known] - second[known].mean(axis=0)
    size = np.linalg.norm(first) * np.linalg.norm(second)
    if size == 0:
        return float("nan")
    return float(min(1.0, np.linalg.svd(first.T @ second, compute_uv=False).sum() / size))
