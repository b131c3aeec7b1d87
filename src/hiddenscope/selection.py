"""Which epochs and steps of a run are meant, and reading no more than these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

Selection = float | Sequence[float] | npt.NDArray[Any] | slice
"""A value of a coordinate, several, or a slice from the first to the last wanted, ends included."""


def positions(coordinate: npt.NDArray[Any], wanted: Selection | None, what: str) -> npt.NDArray[np.intp]:
    """Positions of the wanted values in a coordinate."""
    if wanted is None:
        return np.arange(coordinate.size)
    if isinstance(wanted, slice):
        if wanted.step is not None:
            raise ValueError(f"a slice of {what}s has a first and a last, not a stride; got {wanted}")
        low = -np.inf if wanted.start is None else wanted.start
        high = np.inf if wanted.stop is None else wanted.stop
        return np.flatnonzero((coordinate >= low) & (coordinate <= high))
    asked = np.atleast_1d(np.asarray(wanted))
    absent = asked[~np.isin(asked, coordinate)]
    if absent.size:
        span = f"{what}s {coordinate.min():g} to {coordinate.max():g}" if coordinate.size else f"no {what}s yet"
        raise ValueError(f"got {what} {', '.join(f'{value:g}' for value in absent[:5])}; this run has {span}")
    order = np.argsort(coordinate, kind="stable")
    return order[np.searchsorted(coordinate, asked, sorter=order)]


def read_block(stored: zarr.Array[Any], rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """Rows and columns of an array (row, column, …), at once where they are evenly spaced, as they mostly are."""
    if not rows.size or not columns.size:
        return np.empty((rows.size, columns.size, *stored.shape[2:]), dtype=stored.dtype)
    even_rows, even_columns = _as_slice(rows), _as_slice(columns)
    if even_rows is not None and even_columns is not None:
        return np.asarray(stored[even_rows, even_columns])
    return np.asarray(stored.oindex[rows, columns])


def _as_slice(positions: npt.NDArray[np.intp]) -> slice | None:
    """The slice that picks the same positions, when there is one."""
    stride = int(positions[1] - positions[0]) if positions.size > 1 else 1
    if stride < 1 or not np.array_equal(positions, positions[0] + stride * np.arange(positions.size)):
        return None
    return slice(int(positions[0]), int(positions[-1]) + 1, stride)
