"""What excites the units of a recorded run: periods, patterns and their drift, over all epochs.

One unit at a time (`excitation`), and as a study that grows with the training: thresholds and periods of every unit and
epoch, patterns of the units that vary most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from hiddenscope.analyses.activations import (
    ACTIVATION_DIMS,
    QUANTILE,
    Sign,
    activation_thresholds,
    active_periods,
    as_activations,
    summarize_periods,
)
from hiddenscope.analyses.patterns import Method, Patterns, cluster_patterns, judge, pattern_drift
from hiddenscope.analyses.studies import Study
from hiddenscope.analyses.windows import WIDTH, fixed_width, windows_at_peaks
from hiddenscope.run import Run

METHOD = "activations"
MOST_UNITS = 16
"""So many units, those that vary most, get patterns."""
MOST_WINDOWS = 256
"""So many windows of a unit are clustered; all are judged."""
MOST_EPOCHS = 24
"""About so many epochs get patterns: every one, then every second, every fourth …, and the newest."""
_BLOCK = 32 * 2**20  # numbers of a trace that are read at once


@dataclass(frozen=True)
class Excitation:
    """What excites one unit at one epoch.

    Attributes:
        unit: its label.
        threshold: above which its score counts as high.
        periods: as `active_periods` gives them, with samples as positions; where there are inputs also ``cluster``,
            ``typicality`` and ``membership_entropy`` (-1 and NaN where the window would begin before the sequence) and
            ``seen_often``.
        patterns: clusters of the windows; None without inputs.
        width: steps of a window.
        reason: why there are no patterns; empty otherwise.
    """

    unit: Any
    threshold: float
    periods: pd.DataFrame
    patterns: Patterns | None
    width: int
    reason: str = ""


def excitation(
    activations: xr.DataArray,
    inputs: npt.NDArray[Any] | None,
    *,
    unit: Any,
    sign: Sign = "positive",
    quantile: float = QUANTILE,
    width: int = WIDTH,
    method: Method = "kmeans",
    random_state: int = 0,
) -> Excitation:
    """Periods of a unit, patterns of what it saw before their peaks, and where each period stands among them.

    Args:
        activations: dims (step, unit, sample), one epoch of a trace; its steps say which steps of the inputs they are.
        inputs: (sample, step, feature); None where they are not known.
        unit: label of the unit.
        sign: which activations count, see `activation_thresholds`.
        quantile: above which they count as high, see there.
        width: steps of a window, at most.
        method: of clustering, see `cluster_patterns`.
        random_state: of the clustering.
    """
    alone = as_activations(activations.sel(unit=[unit]))
    alone = alone.assign_coords(sample=np.arange(alone.sizes["sample"]))
    threshold = activation_thresholds(alone, quantile=quantile, sign=sign)
    periods = active_periods(alone, threshold, sign=sign)
    level = float(threshold[0])
    if inputs is None:
        return Excitation(unit, level, periods, None, 0, "the inputs of this layer are not recorded as plain numbers")
    width = fixed_width(inputs.shape[1], width=width)
    steps = alone["step"].values if "step" in alone.coords else np.arange(alone.sizes["step"])
    at_inputs = periods.assign(peak=steps[periods["peak"].to_numpy(np.intp)])
    windows, rows = windows_at_peaks(inputs, at_inputs, width=width)
    known = np.isfinite(windows).all(axis=(1, 2))
    windows, rows = windows[known], rows[known]
    some = np.unique(np.linspace(0, len(windows) - 1, min(MOST_WINDOWS, len(windows))).astype(int))
    patterns = cluster_patterns(windows[some], method=method, random_state=random_state)
    columns = {"cluster": -1, "typicality": np.nan, "membership_entropy": np.nan, "seen_often": False}
    periods = periods.assign(**columns)
    if len(patterns.counts):
        verdict = judge(patterns, windows)
        for name in columns:
            values = periods[name].to_numpy(copy=True)
            values[rows] = getattr(verdict, name)
            periods[name] = values
    return Excitation(unit, level, periods, patterns, width, patterns.skipped)


def network_inputs(run: Run, layer: str, epoch: float | None = None) -> npt.NDArray[Any] | None:
    """What the network saw, (sample, step, feature) with a row for every step of the probe; None where not known.

    The probe itself where it is numbers over steps; else the inputs that were recorded of the layer, put at the steps
    that are recorded.
    """
    steps = run.description.layer(layer).steps
    probe = run.probe
    if probe is not None and probe.ndim == 3 and probe.dtype.kind == "f" and probe.shape[1] > int(steps.max(initial=0)):
        return probe
    found = run.inputs(layer, epoch)
    if found is None or found.shape[1] > int(steps.max(initial=0)):
        return found
    whole = np.full((found.shape[0], int(steps.max()) + 1, found.shape[2]), np.nan, dtype=np.float32)
    whole[:, steps] = found
    return whole


def activation_study(run: Run, layer: str) -> xr.Dataset | None:
    """Thresholds and periods of all units and epochs, and patterns of the units that vary most.

    What an earlier result holds for epochs that have not changed is taken from there; so a training pays for its new
    epochs only.

    Returns:
        dims (epoch, unit): ``threshold``, ``period_count``, ``period_length`` (mean, in recorded steps; NaN without a
        period); where patterns were made also ``cluster_count`` (0 elsewhere), ``top_share`` (of the largest cluster)
        and ``drift`` (root mean square distance of the patterns from those at the epoch recorded before, in standard
        deviations of the inputs). Of the newest epoch, dims (pattern_unit, cluster, lag, feature): ``pattern_mean``
        and ``pattern_deviation``, with ``pattern_share`` (pattern_unit, cluster).
    """
    described = run.description.layer(layer)
    epochs, units = run.epochs, described.units
    sizes = (len(epochs), len(units))
    floats = {name: np.full(sizes, np.nan, dtype=np.float32) for name in ("threshold", "period_length", "top_share")}
    floats["drift"] = np.full(sizes, np.nan, dtype=np.float32)
    counts = {name: np.zeros(sizes, dtype=np.int32) for name in ("period_count", "cluster_count")}
    former = _former(run, layer)
    known = 0 if former is None else former.sizes["epoch"]
    done = np.zeros(len(epochs), dtype=bool)
    if former is not None:
        for name, values in (*floats.items(), *counts.items()):
            values[:known] = former[name].values
        done[:known] = (former["cluster_count"].values > 0).any(axis=1)
    _count_periods(run, layer, known, floats, counts)
    latest: list[Excitation] = []
    wanted = pattern_epochs(len(epochs))
    if len(units) and len(epochs):
        for row in wanted:
            if not done[row] or row == len(epochs) - 1:
                latest = _follow(run, layer, row, floats, counts)
    note = f"patterns at {len(wanted)} of {len(epochs)} epochs" if len(wanted) < len(epochs) else ""
    width = max((one.width for one in latest), default=0)
    reasons = {one.reason for one in latest if one.reason}
    return xr.Dataset(
        {name: (("epoch", "unit"), values) for name, values in {**floats, **counts}.items()} | _patterns_of(latest),
        coords={"epoch": epochs, "unit": units},
        attrs={
            "quantile": QUANTILE,
            "width": width,
            "note": note,
            "reason": "; ".join(sorted(reasons)),
            "unit_columns": {"period_count": "periods", "period_length": "mean period (steps)"},
        },
    )


def pattern_epochs(count: int) -> list[int]:
    """Which of ``count`` epochs get patterns; one that does once, does as long as the stride stays the same.

    >>> pattern_epochs(5), pattern_epochs(50)[:3], pattern_epochs(50)[-2:]
    ([0, 1, 2, 3, 4], [0, 4, 8], [48, 49])
    """
    stride = 1
    while -(-count // stride) > MOST_EPOCHS:
        stride *= 2
    return sorted({*range(0, count, stride), *([count - 1] if count else [])})


def _former(run: Run, layer: str) -> xr.Dataset | None:
    """The earlier result, if its epochs are still the first of the run."""
    stored = run.results.get(layer, METHOD, ACTIVATIONS.parameters)
    if stored is None or not 0 < stored.sizes["epoch"] <= len(run.epochs):
        return None
    same = stored.attrs.get("made_from") == run.fingerprint(layer, count=stored.sizes["epoch"])
    return stored if same and np.array_equal(stored["unit"].values, run.description.layer(layer).units) else None


def _count_periods(
    run: Run, layer: str, known: int, floats: dict[str, npt.NDArray[Any]], counts: dict[str, npt.NDArray[Any]]
) -> None:
    epochs, described = run.epochs, run.description.layer(layer)
    at_once = max(1, _BLOCK // max(1, described.steps.size * described.units.size * run.description.samples.size))
    for begin in range(known, len(epochs), at_once):
        block = run.trace(layer, epochs=epochs[begin : begin + at_once])
        for offset in range(block.sizes["epoch"]):
            here = block.isel(epoch=offset).transpose(*ACTIVATION_DIMS)
            threshold = activation_thresholds(here)
            summary = summarize_periods(active_periods(here, threshold), described.units)
            row = begin + offset
            floats["threshold"][row] = threshold.values
            floats["period_length"][row] = summary["mean_length"]
            counts["period_count"][row] = summary["count"]


def _follow(
    run: Run, layer: str, row: int, floats: dict[str, npt.NDArray[Any]], counts: dict[str, npt.NDArray[Any]]
) -> list[Excitation]:
    """Patterns at one epoch, and their distance from those at the epoch before; writes into the tables."""
    epochs = run.epochs
    trace = run.trace(layer, epochs=epochs[max(0, row - 1) : row + 1]).transpose("epoch", *ACTIVATION_DIMS)
    now, before = trace.isel(epoch=-1), trace.isel(epoch=0)
    inputs = network_inputs(run, layer, float(epochs[row]))
    earlier = inputs if row == 0 else network_inputs(run, layer, float(epochs[row - 1]))
    scale = 1.0 if inputs is None else np.nanstd(np.asarray(inputs, dtype=np.float64), axis=(0, 1))
    scale = np.where(np.asarray(scale) > 0, scale, 1.0)
    found = []
    for place in most_varying(now):
        unit = now["unit"].values[place]
        one = excitation(now, inputs, unit=unit)
        found.append(one)
        if one.patterns is None or not len(one.patterns.counts):
            continue
        counts["cluster_count"][row, place] = len(one.patterns.counts)
        floats["top_share"][row, place] = one.patterns.shares[0]
        if row:
            old = excitation(before, earlier, unit=unit).patterns
            assert old is not None
            floats["drift"][row, place] = pattern_drift(old, one.patterns, scale=scale)
    return found


def most_varying(activations: xr.DataArray, count: int = MOST_UNITS) -> npt.NDArray[np.intp]:
    """Positions of the units whose activation varies most over steps and sequences, the most first; never dead ones.

    >>> waves = np.array([0.0, 1.0, 3.0])[None, :, None] * np.sin(np.arange(8.0))[:, None, None]
    >>> most_varying(xr.DataArray(waves, dims=("step", "unit", "sample"))).tolist()
    [2, 1]
    """
    values = activations.transpose("unit", "step", "sample").values.reshape(activations.sizes["unit"], -1)
    known = np.isfinite(values)
    mean = np.where(known, values, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    spread = np.where(known, (values - mean[:, None]) ** 2, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    order = np.argsort(-spread, kind="stable")[:count]
    return np.asarray(order[spread[order] > 0])


def _patterns_of(found: list[Excitation]) -> dict[str, Any]:
    """The patterns as arrays, padded with NaN to the most clusters."""
    made = [(one.unit, one.patterns) for one in found if one.patterns is not None and len(one.patterns.counts)]
    if not made:
        return {}
    most = max(len(patterns.counts) for _, patterns in made)
    shape = (len(made), most, *made[0][1].means.shape[1:])
    means, deviations = np.full(shape, np.nan, dtype=np.float32), np.full(shape, np.nan, dtype=np.float32)
    shares = np.full(shape[:2], np.nan, dtype=np.float32)
    for row, (_, patterns) in enumerate(made):
        clusters = len(patterns.counts)
        means[row, :clusters], deviations[row, :clusters] = patterns.means, patterns.deviations
        shares[row, :clusters] = patterns.shares
    dims = ("pattern_unit", "cluster", "lag", "feature")
    return {
        "pattern_mean": (dims, means),
        "pattern_deviation": (dims, deviations),
        "pattern_share": (dims[:2], shares),
        "pattern_unit": ("pattern_unit", np.array([unit for unit, _ in made])),
        "lag": ("lag", np.arange(1 - shape[2], 1)),
    }


ACTIVATIONS = Study(
    method=METHOD,
    title="highly active periods",
    compute=activation_study,
    parameters={"quantile": QUANTILE, "width": WIDTH, "units": MOST_UNITS},
    live=True,
)
