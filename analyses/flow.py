"""How the picture moves from epoch to epoch: how far, all one way or each its own, outward or inward.

Others name "epoch-to-epoch change magnitude" and "signed flow alignment" as summaries of an MM-PHATE without formulas.
The definitions here are ours. A *flow* is the displacement x(epoch) - x(epoch before) of each node.
"""

from __future__ import annotations

from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.trace import FloatArray, as_embedding, like

Floats = npt.NDArray[np.float64]
Over = Literal["unit", "step"]


def epoch_change(embedding: xr.DataArray | npt.ArrayLike) -> xr.DataArray | FloatArray:
    """How far each node has moved since the epoch before, per epoch that has passed.

    Args:
        embedding: dims (epoch, step, unit, component), or activations with ``sample`` as last dimension.

    Returns:
        Array (epoch, step, unit), in units of the embedding per epoch; NaN at the first epoch, and where a node is
        missing in one of the two. Where epochs were skipped, the distance is divided by their number.

    >>> path = np.array([0.0, 3.0, 3.0]).reshape(3, 1, 1, 1)
    >>> epoch_change(path).ravel()
    array([nan,  3.,  0.])
    """
    named = _named(embedding)
    flow = _flow(named)
    values = np.sqrt((flow**2).sum(axis=-1))
    values[1:] /= np.diff(named["epoch"].values.astype(np.float64))[:, None, None]
    return like(embedding, _result(named, values, ("epoch", "step", "unit"), "epoch-to-epoch change"))


def flow_alignment(embedding: xr.DataArray | npt.ArrayLike, *, over: Over = "unit") -> xr.DataArray | FloatArray:
    """Whether nodes move the same way between two epochs: the mean cosine between the flows of all pairs of nodes.

    1: all in one direction (the picture drifts). 0: each its own way. Below 0: apart or towards each other, at least
    -1/(n - 1) for n nodes. Nodes that stay where they are have no direction and are left out.

    Args:
        embedding: dims (epoch, step, unit, component), or activations with ``sample`` as last dimension.
        over: ``"unit"`` compares all units at the same step; ``"step"`` all steps of the same unit.

    Returns:
        Array (epoch, step) or (epoch, unit); NaN at the first epoch, and where fewer than 2 nodes move.

    Raises:
        ValueError: ``over`` is neither.

    >>> start = np.zeros((1, 1, 2, 1))
    >>> apart = np.array([-1.0, 1.0]).reshape(1, 1, 2, 1)
    >>> flow_alignment(np.concatenate([start, apart, apart + 2])).ravel()
    array([nan, -1.,  1.])
    """
    named = _named(embedding)
    directions = _unit_vectors(_flow(named))
    axis = _axis(over)
    moving = np.isfinite(directions[..., 0])
    count = moving.sum(axis=axis)
    total = np.where(moving[..., None], directions, 0.0).sum(axis=axis)
    pairs = np.where(count > 1, count * (count - 1.0), np.nan)
    return like(embedding, _result(named, ((total**2).sum(axis=-1) - count) / pairs, _kept(over), "flow alignment"))


def flow_expansion(embedding: xr.DataArray | npt.ArrayLike, *, over: Over = "unit") -> xr.DataArray | FloatArray:
    """Whether nodes move apart or together: the mean cosine between each node's flow, less the mean flow, and its
    direction from their common center.

    1: straight outward (the cloud expands). -1: straight inward (it contracts). 0: around the center, or every way.

    Args:
        embedding: see `flow_alignment`.
        over: see `flow_alignment`.

    Returns:
        Array (epoch, step) or (epoch, unit); NaN at the first epoch, and where no node moves.

    Raises:
        ValueError: ``over`` is neither ``"unit"`` nor ``"step"``.

    >>> cloud = np.array([[-1.0, 0], [1, 0], [0, 2]]).reshape(1, 1, 3, 2)
    >>> flow_expansion(np.concatenate([cloud, 2 * cloud, cloud])).round(3).ravel()
    array([nan,  1., -1.])
    """
    named = _named(embedding)
    axis = _axis(over)
    flow = _flow(named)
    here = named.values.astype(np.float64)
    before = np.concatenate([here[:1], here[:-1]])
    before[~np.isfinite(flow).all(axis=-1)] = np.nan  # so that both centers are of the same nodes
    outward = _unit_vectors(before - _mean(before, axis))
    cosines = (outward * _unit_vectors(flow - _mean(flow, axis))).sum(axis=-1)
    return like(embedding, _result(named, _mean(cosines, axis).squeeze(axis), _kept(over), "flow expansion"))


def _named(embedding: xr.DataArray | npt.ArrayLike) -> xr.DataArray:
    if isinstance(embedding, xr.DataArray) and "sample" in embedding.dims and "component" not in embedding.dims:
        embedding = embedding.rename(sample="component")
    return as_embedding(embedding)


def _flow(named: xr.DataArray) -> Floats:
    """Displacement since the epoch before, (epoch, step, unit, component); NaN at the first."""
    values = named.values.astype(np.float64)
    return np.concatenate([np.full_like(values[:1], np.nan), np.diff(values, axis=0)])


def _unit_vectors(vectors: Floats) -> Floats:
    length = np.sqrt((vectors**2).sum(axis=-1, keepdims=True))
    # Subtracting a mean leaves rounding where there was nothing; against the longest it is nothing still.
    longest = np.nanmax(length, initial=0.0)
    moves = length > 1e-9 * longest
    return cast(Floats, np.divide(vectors, length, out=np.full_like(vectors, np.nan), where=moves))


def _mean(values: Floats, axis: int) -> Floats:
    """Mean over what is known, keeping the axis; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=axis, keepdims=True)
    total = np.where(known, values, 0.0).sum(axis=axis, keepdims=True)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def _axis(over: Over) -> int:
    if over not in ("unit", "step"):
        raise ValueError(f"over must be 'unit' or 'step', got {over!r}")
    return 2 if over == "unit" else 1


def _kept(over: Over) -> tuple[str, ...]:
    return ("epoch", "step") if over == "unit" else ("epoch", "unit")


def _result(named: xr.DataArray, values: Floats, dims: tuple[str, ...], name: str) -> xr.DataArray:
    return xr.DataArray(
        values,
        dims=dims,
        coords={key: value for key, value in named.coords.items() if set(value.dims) <= set(dims)},
        name=name.replace("-", "_").replace(" ", "_"),
        attrs={"long_name": name},
    )
