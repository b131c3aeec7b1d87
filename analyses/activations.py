"""When a unit is highly active: a threshold per unit, and the periods above it.

After Cho et al. 2020 ("Interpreting deep temporal neural networks by selective visualization of internally activated
nodes"), who look at temporal convolutions: a unit is highly active where it exceeds the 95th percentile of its own
activations over all sequences and steps. Merging neighboring steps into periods is ours.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

Sign = Literal["positive", "negative", "absolute"]
SIGNS: tuple[Sign, ...] = ("positive", "negative", "absolute")
ACTIVATION_DIMS = ("step", "unit", "sample")
QUANTILE = 0.95
COLUMNS = ("unit", "sample", "start", "end", "peak", "length", "mean", "value")


def activation_thresholds(
    activations: xr.DataArray | npt.ArrayLike, *, quantile: float = QUANTILE, sign: Sign = "positive"
) -> xr.DataArray:
    """The level of each unit that ``quantile`` of its scores, over all sequences and steps, do not exceed.

    The score is the activation itself (``"positive"``), its negative or its absolute value. The quantile is linearly
    interpolated between order statistics and a step counts only when strictly above it: of 100 different values, 5
    are above their 0.95 quantile. (The rule of a third-party implementation, the value at rank ``int(0.95 n)`` of the
    sorted ones, would flag 4.)

    Args:
        activations: dims (step, unit, sample), one epoch of a trace; NaN past a sequence's end is left out.
        quantile: between 0 and 1.
        sign: which activations count as high.

    Returns:
        dims (unit,), in the unit of the score; NaN for a unit without any value.

    Raises:
        ValueError: other dims, or a quantile or sign that does not exist.

    >>> float(activation_thresholds(np.arange(101.0).reshape(101, 1, 1))[0])
    95.0
    """
    if not 0 <= quantile <= 1:
        raise ValueError(f"quantile must lie in 0..1, got {quantile}")
    named = as_activations(activations)
    pooled = score(named, sign=sign).transpose("unit", "step", "sample").values.reshape(named.sizes["unit"], -1)
    known = np.isfinite(pooled)
    levels = np.full(len(pooled), np.nan)
    if known.all() and pooled.size:
        levels[:] = np.quantile(pooled, quantile, axis=1)
    else:
        for unit in np.flatnonzero(known.any(axis=1)):
            levels[unit] = np.quantile(pooled[unit][known[unit]], quantile)
    coords = {"unit": named["unit"]} if "unit" in named.coords else {}
    return xr.DataArray(
        levels, dims="unit", coords=coords, name="threshold", attrs={"quantile": quantile, "sign": sign}
    )


def active_periods(
    activations: xr.DataArray | npt.ArrayLike,
    thresholds: xr.DataArray | npt.ArrayLike,
    *,
    sign: Sign = "positive",
    min_length: int = 1,
) -> pd.DataFrame:
    """The periods in which a unit's score stays strictly above its threshold, measured.

    Args:
        activations: dims (step, unit, sample), one epoch of a trace.
        thresholds: one per unit, of the score, as `activation_thresholds` gives them; or one number for all.
        sign: as for `activation_thresholds`.
        min_length: shorter periods, in steps, are left out.

    Returns:
        One row per period, ordered by unit, sample and start: ``unit`` and ``sample`` by their labels; ``start``,
        ``end`` (inclusive) and ``peak`` (the first step with the highest score) as positions along the step axis;
        ``length`` in recorded steps; ``mean`` activation over the period and ``value`` at the peak, with their signs.
        Empty where nothing is above, as for a dead unit.

    Raises:
        ValueError: not one threshold per unit, or ``min_length`` below 1.

    >>> wave = np.array([0.0, 1.0, 3.0, 1.0, 0.0, 2.0]).reshape(6, 1, 1)
    >>> active_periods(wave, 0.5)[["start", "end", "peak", "length", "value"]].values.tolist()
    [[1.0, 3.0, 2.0, 3.0, 3.0], [5.0, 5.0, 5.0, 1.0, 2.0]]
    """
    if min_length < 1:
        raise ValueError(f"min_length must be at least 1 step, got {min_length}")
    named = as_activations(activations)
    levels = _one_per_unit(thresholds, named)
    values = named.transpose("unit", "sample", "step").values
    scores = score(named, sign=sign).transpose("unit", "sample", "step").values
    with np.errstate(invalid="ignore"):
        above = scores > levels[:, None, None]  # NaN is never above
    unit, sample, start, end = _runs(above)
    length = end - start + 1
    long = length >= min_length
    unit, sample, start, end, length = unit[long], sample[long], start[long], end[long], length[long]
    flat, flat_scores = values.reshape(-1), scores.reshape(-1)
    begins = (unit * values.shape[1] + sample) * values.shape[2] + start
    peak = start + _argmax_within(flat_scores, begins, length)
    sums = _sums_within(flat, begins, length)
    return pd.DataFrame(
        {
            "unit": _labels(named, "unit")[unit],
            "sample": _labels(named, "sample")[sample],
            "start": start,
            "end": end,
            "peak": peak,
            "length": length,
            "mean": sums / length,
            "value": flat[begins + peak - start].astype(np.float64),
        },
        columns=list(COLUMNS),
    )


def summarize_periods(periods: pd.DataFrame, units: npt.ArrayLike) -> pd.DataFrame:
    """How many periods each unit has, and how long they are on average.

    Args:
        periods: as `active_periods` gives them.
        units: labels of all units, so that dead ones are listed too.

    Returns:
        Index ``unit``; ``count``, and ``mean_length`` in steps (NaN without a period).

    >>> wave = np.array([0.0, 1.0, 1.0, 0.0]).reshape(4, 1, 1)
    >>> summarize_periods(active_periods(wave, 0.5), [0, 1]).values.tolist()
    [[1.0, 2.0], [0.0, nan]]
    """
    grouped = periods.groupby("unit")["length"].agg(["size", "mean"])
    index = pd.Index(np.asarray(units), name="unit")
    return pd.DataFrame(
        {
            "count": grouped["size"].reindex(index).fillna(0).astype(np.int64),
            "mean_length": grouped["mean"].reindex(index),
        },
        index=index,
    )


def score(activations: xr.DataArray, *, sign: Sign) -> xr.DataArray:
    """What counts as high: the activation, its negative, or its absolute value."""
    if sign == "positive":
        return activations
    if sign == "negative":
        return -activations
    if sign == "absolute":
        return abs(activations)
    raise ValueError(f"sign must be one of {', '.join(map(repr, SIGNS))}, got {sign!r}")


def as_activations(values: xr.DataArray | npt.ArrayLike) -> xr.DataArray:
    """One epoch of hidden states with named dims, in float32 at least, whatever the caller had."""
    if isinstance(values, xr.DataArray):
        if set(values.dims) != set(ACTIVATION_DIMS):
            raise ValueError(f"activations need dims {ACTIVATION_DIMS} (one epoch of a trace), got {values.dims}")
        named = values
    else:
        array = np.asarray(values)
        if array.ndim != len(ACTIVATION_DIMS):
            raise ValueError(f"activations need dims {ACTIVATION_DIMS}, got an array of shape {array.shape}")
        named = xr.DataArray(array, dims=ACTIVATION_DIMS)
    return named if named.dtype == np.float64 else named.astype(np.float32, copy=False)


def _one_per_unit(thresholds: xr.DataArray | npt.ArrayLike, named: xr.DataArray) -> npt.NDArray[np.float64]:
    if isinstance(thresholds, xr.DataArray) and "unit" in thresholds.coords and "unit" in named.coords:
        thresholds = thresholds.reindex(unit=named["unit"])
    levels = np.asarray(thresholds, dtype=np.float64)
    if levels.ndim == 0:
        levels = np.full(named.sizes["unit"], levels)
    if levels.shape != (named.sizes["unit"],):
        raise ValueError(f"one threshold per unit: got shape {levels.shape} for {named.sizes['unit']} units")
    return levels


def _labels(named: xr.DataArray, dim: str) -> npt.NDArray[Any]:
    return np.asarray(named[dim].values) if dim in named.coords else np.arange(named.sizes[dim])


def _runs(above: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.intp], ...]:
    """Unit, sample, first and last step of every run of True along the last axis."""
    edge = np.zeros((*above.shape[:2], 1), dtype=np.int8)
    steps = np.diff(np.concatenate([edge, above.astype(np.int8), edge], axis=2), axis=2)
    unit, sample, start = np.nonzero(steps == 1)
    end = np.nonzero(steps == -1)[2] - 1
    return unit, sample, start, end


def _argmax_within(
    values: npt.NDArray[np.floating[Any]], begins: npt.NDArray[np.intp], lengths: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp]:
    """Position of the first maximum within each stretch of a flat array."""
    if not len(begins):
        return np.zeros(0, dtype=np.intp)
    owner = np.repeat(np.arange(len(begins)), lengths)
    offset = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    inside = values[begins[owner] + offset]
    highest = np.maximum.reduceat(inside, np.cumsum(lengths) - lengths)
    candidates = np.flatnonzero(inside == highest[owner])
    _, first = np.unique(owner[candidates], return_index=True)
    return np.asarray(offset[candidates[first]])


def _sums_within(
    values: npt.NDArray[np.floating[Any]], begins: npt.NDArray[np.intp], lengths: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    if not len(begins):
        return np.zeros(0)
    owner = np.repeat(np.arange(len(begins)), lengths)
    offset = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    inside = values[begins[owner] + offset].astype(np.float64)
    return np.asarray(np.add.reduceat(inside, np.cumsum(lengths) - lengths))
