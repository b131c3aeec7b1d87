"""Fewer points without a lie: whole time steps are left out, then whole epochs, never a unit; and the page says so."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

LIMIT_3D = 5_000
LIMIT_2D = 20_000


def evenly(count: int, keep: int) -> npt.NDArray[np.intp]:
    """``keep`` positions out of ``count``, evenly spread, the first and the last among them.

    >>> evenly(10, 4)
    array([0, 3, 6, 9])
    """
    return np.unique(np.linspace(0, count - 1, max(1, min(keep, count))).round().astype(np.intp))


def decimate(embedding: xr.DataArray, limit: int) -> tuple[xr.DataArray, str]:
    """At most about ``limit`` points of an embedding, and a sentence on what is shown (empty when all are).

    Args:
        embedding: dims (epoch, step, unit, component).
        limit: the number of points the renderer draws smoothly.

    Steps are thinned first; only when one step of every epoch and unit is still too much are epochs thinned too.

    >>> dense = xr.DataArray(np.zeros((4, 10, 5, 3)), dims=("epoch", "step", "unit", "component"))
    >>> few, note = decimate(dense, 100)
    >>> dict(few.sizes)["step"], note
    (5, 'showing 100 of 200 points: 5 of 10 steps')
    """
    epochs, steps, units = (embedding.sizes[dim] for dim in ("epoch", "step", "unit"))
    total = epochs * steps * units
    if total <= limit:
        return embedding, ""
    keep_steps = max(1, limit // (epochs * units))
    keep_epochs = max(2, limit // (keep_steps * units))
    chosen = embedding.isel(step=evenly(steps, keep_steps))
    parts = [f"{chosen.sizes['step']:,} of {steps:,} steps"]
    if keep_epochs < epochs:
        chosen = chosen.isel(epoch=evenly(epochs, keep_epochs))
        parts.append(f"{chosen.sizes['epoch']:,} of {epochs:,} epochs")
    shown = chosen.sizes["epoch"] * chosen.sizes["step"] * units
    return chosen, f"showing {shown:,} of {total:,} points: {', '.join(parts)}"
