"""The one width of the inter-step kernel: how far a unit usually is from its k-th nearest slice.

ε = mean over units of the median over slices of the distance to the ``knn``-th nearest slice of the same unit
(M-PHATE, Gigante et al. 2019, section 3.2; MM-PHATE, Xie et al. 2024, section 3.1).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hiddenscope.embeddings.neighbors import neighbor_distances
from hiddenscope.embeddings.unit_rows import UnitRows

SAMPLED_ROWS = 256


@dataclass(frozen=True)
class Bandwidth:
    """Width of the inter-step kernel and how sure we are of it.

    Attributes:
        value: ε, in the units of the normalized responses.
        standard_error: of ``value``, from the sampling of slices; 0 when every slice was asked.
    """

    value: float
    standard_error: float


def inter_bandwidth(
    rows: UnitRows, *, knn: int = 25, sampled_rows: int | Literal["exact"] = SAMPLED_ROWS, seed: int = 0
) -> Bandwidth:
    """The fixed bandwidth of the inter-step kernel.

    Args:
        rows: nodes sorted by unit.
        knn: which neighbor's distance is the width, the slice itself not counted; lowered, with a warning, where a
            unit has fewer other slices.
        sampled_rows: slices per unit whose neighbor distance is measured, against all slices of the unit; "exact"
            measures all of them.
        seed: of the choice of slices.

    Returns:
        The bandwidth. A floor of machine epsilon keeps it positive when every slice is alike. The standard error is
        that of the median under a smooth law, 1.253 times the standard error of the mean taken from the quartiles.

    Raises:
        ValueError: no unit is present in 2 slices.
    """
    measured = []
    for unit, chosen, neighbor in sampled_slices(rows, knn=knn, sampled_rows=sampled_rows, seed=seed):
        points = rows.values[rows.of(unit)]
        measured.append((neighbor_distances(points, chosen, neighbor), len(points)))
    return summarized(measured)


def sampled_slices(
    rows: UnitRows, *, knn: int, sampled_rows: int | Literal["exact"], seed: int
) -> list[tuple[int, npt.NDArray[np.int64], int]]:
    """For every unit with at least 2 slices: which of them are measured, and to which neighbor.

    Raises:
        ValueError: there is no such unit.
    """
    generator = np.random.default_rng(seed)
    counts = np.diff(rows.offsets)
    if not (counts > 1).any():
        raise ValueError(
            f"relating slices needs at least 2 (epoch, step) pairs with finite values, got {int(counts.max())}"
        )
    fewest = int(counts[counts > 1].min(initial=knn + 1)) - 1
    if fewest < knn:
        message = f"inter_knn lowered from {knn} to {fewest}: a unit has only {fewest} other slices"
        warnings.warn(message, stacklevel=3)
    chosen = []
    for unit, count in enumerate(counts.tolist()):
        if count < 2:
            continue
        slices = np.arange(count)
        if sampled_rows != "exact" and sampled_rows < count:
            slices = np.sort(generator.choice(count, sampled_rows, replace=False))
        chosen.append((unit, slices, min(knn, count - 1)))
    return chosen


def summarized(measured: Sequence[tuple[npt.NDArray[np.floating[Any]], int]]) -> Bandwidth:
    """The bandwidth from each unit's measured distances and its number of slices."""
    medians = [float(np.median(distances)) for distances, _ in measured]
    variances = []
    for distances, count in measured:
        spread = float(np.subtract(*np.percentile(distances, [75, 25]))) / 1.349
        variances.append(0.0 if len(distances) == count else (1.253 * spread) ** 2 / len(distances))
    value = max(float(np.mean(medians)), float(np.finfo(np.float32).eps))
    return Bandwidth(value, float(np.sqrt(np.sum(variances)) / len(variances)))
