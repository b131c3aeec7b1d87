"""How much a curve owes to the probe samples that happened to be chosen: a bootstrap over samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.trace import as_trace

Statistic = Callable[[xr.DataArray], xr.DataArray]


def bootstrap_over_samples(
    trace: xr.DataArray, statistic: Statistic, *, n_boot: int = 20, level: float = 0.9, seed: int = 0
) -> xr.Dataset:
    """A band around a statistic of a trace: where it lies for other draws of as many probe samples.

    Each time, samples are drawn with replacement, class by class where the trace has labels, and everything that
    ``statistic`` does is done anew, an embedding included.

    Args:
        trace: hidden states, dims (epoch, step, unit, sample), with coordinate ``label`` where classes are known.
        statistic: such as ``lambda t: hs.intra_step_entropy(hs.embed(t, method="pca")).mean("step")``.
        n_boot: draws; 20 show a band, 200 measure it.
        level: share of the draws that the band holds, between 0 and 1.
        seed: of the draws.

    Returns:
        ``value`` of the trace itself, and ``low``, ``median`` and ``high`` of the draws, each shaped as the statistic.

    Raises:
        ValueError: ``n_boot`` is below 2, or ``level`` not between 0 and 1.
    Source: Efron 1979, the percentile interval.

    >>> trace = xr.DataArray(np.arange(40.0).reshape(1, 1, 1, 40), dims=("epoch", "step", "unit", "sample"))
    >>> band = bootstrap_over_samples(trace, lambda t: t.mean("sample"))
    >>> bool((band.low < 19.5).all() and (band.high > 19.5).all()), float(band["value"].item())
    (True, 19.5)
    """
    if n_boot < 2:
        raise ValueError(f"n_boot must be at least 2, got {n_boot}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    named = as_trace(trace)
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(n_boot):
        drawn = named.isel(sample=_draw(named, rng))
        draws.append(statistic(drawn.assign_coords(sample=np.arange(named.sizes["sample"]))))
    stacked = xr.concat(draws, dim="draw", coords="minimal", compat="override", join="override")
    low, median, high = (stacked.quantile(q, dim="draw").drop_vars("quantile") for q in _edges(level))
    return xr.Dataset(
        {"value": statistic(named), "low": low, "median": median, "high": high},
        attrs={"n_boot": n_boot, "level": level, "seed": seed},
    )


def _edges(level: float) -> tuple[float, float, float]:
    return (1 - level) / 2, 0.5, (1 + level) / 2


def _draw(trace: xr.DataArray, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """As many samples as there are, with replacement, and as many of each class as there are."""
    count = trace.sizes["sample"]
    labels = trace["label"].values if "label" in trace.coords else np.zeros(count)
    drawn = np.empty(count, dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        drawn[members] = rng.choice(members, len(members))
    return drawn
