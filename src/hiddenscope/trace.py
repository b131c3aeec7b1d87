"""What was recorded: hidden states with named dimensions.

A *trace* holds the activation T(epoch, step, unit, sample) of every hidden unit at every time step of every probe
sequence, after every recorded training epoch (MM-PHATE, Xie et al. 2024, section 3). An *embedding* has the same
dimensions, with ``component`` in the place of ``sample``.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import numpy.typing as npt
import xarray as xr

TRACE_DIMS = ("epoch", "step", "unit", "sample")
EMBEDDING_DIMS = ("epoch", "step", "unit", "component")

FloatArray = npt.NDArray[np.floating]


def as_trace(values: xr.DataArray | npt.ArrayLike) -> xr.DataArray:
    """Hidden states with named dims, whatever the caller had.

    Args:
        values: a DataArray with dims epoch, step, unit and sample in any order, or a plain array in that order.

    Returns:
        A DataArray of dims ``TRACE_DIMS`` and floating type. Missing coordinates are numbered from 0. The values are
        shared with the caller where no conversion was needed, so treat them as read-only.

    Raises:
        ValueError: dims or shape do not match, or the values are not real numbers.

    >>> as_trace(np.zeros((2, 3, 4, 5))).sizes["unit"]
    4
    """
    return _with_dims(values, TRACE_DIMS, "a trace")


def as_embedding(values: xr.DataArray | npt.ArrayLike) -> xr.DataArray:
    """An embedding with dims ``EMBEDDING_DIMS``, whatever the caller had; see `as_trace`."""
    return _with_dims(values, EMBEDDING_DIMS, "an embedding")


def like(original: object, result: xr.DataArray) -> xr.DataArray | FloatArray:
    """``result`` in the kind its maker was given: a DataArray for a DataArray, else a plain array."""
    return result if isinstance(original, xr.DataArray) else np.asarray(result.values)


def _with_dims(values: xr.DataArray | npt.ArrayLike, dims: tuple[str, ...], what: str) -> xr.DataArray:
    if isinstance(values, xr.DataArray):
        if set(values.dims) != set(dims):
            raise ValueError(f"{what} needs dims {dims}, got {values.dims}")
        named = values.transpose(*dims)
    else:
        array = np.asarray(values)
        if array.ndim != len(dims):
            raise ValueError(f"{what} needs dims {dims}, got an array of shape {array.shape}")
        named = xr.DataArray(array, dims=dims)
    if not np.issubdtype(named.dtype, np.floating):
        if not (np.issubdtype(named.dtype, np.integer) or named.dtype == np.bool_):
            raise ValueError(f"{what} needs real numbers, got dtype {named.dtype}")
        named = named.astype(np.float32)
    missing: dict[Hashable, npt.NDArray[np.int64]] = {
        dim: np.arange(named.sizes[dim]) for dim in dims if dim not in named.coords
    }
    return named.assign_coords(missing) if missing else named
