"""How units answer a step and sines: traces, frequency responses, numbers per unit, and their change over epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from hiddenscope.analyses.response_metrics import unwrapped
from hiddenscope.dashboard.figures.metrics import metrics_panel
from hiddenscope.dashboard.figures.panels import Panel, stack
from hiddenscope.dashboard.figures.template import SMALL, colorbar, colorscale, message, template, theme

NAMES = {
    "settling_time": "settling time (steps)",
    "delay_time": "delay (steps)",
    "rise_time": "rise time (steps)",
    "overshoot": "overshoot (share of the change)",
    "change": "change (state)",
    "gain": "gain (state per input)",
    "phase": "phase (degrees)",
    "lag": "lag (steps)",
    "distortion": "distortion (ratio)",
    "correlation": "correlation with the input",
}
"""What each number is called on an axis, with its unit."""

_COLUMNS = 160  # of the heat map
_CLICKABLE = 40_000  # cells that carry the name of their unit
_BINS = 24


def step_map(answers: xr.DataArray, settling: xr.DataArray, *, dark: bool = False) -> go.Figure:
    """The step response of every unit as a row of a heat map, the fastest on top; a dot where each has settled.

    Args:
        answers: dims (unit, step), step 0 being the state at rest.
        settling: the settling times, dims (unit,), NaN where a unit never settles or does not answer; these come last.

    >>> answers = xr.DataArray([[0.0, 0.5, 1.0], [0.0, 1.0, 1.0]], dims=("unit", "step"))
    >>> figure = step_map(answers, xr.DataArray([2.0, 1.0], dims="unit"))
    >>> list(figure.data[0].y), figure.data[0].z[0].tolist()
    (['1', '0'], [0.0, 1.0, 1.0])
    """
    answers = answers.transpose("unit", "step")
    moved = answers.values - answers.values[:, :1]
    if not moved.size or not np.isfinite(moved).any():
        return message("no unit gives a finite answer to the step", dark=dark)
    look = theme(dark=dark)
    times = settling.values.astype(float)
    order = np.lexsort((-np.abs(np.nan_to_num(moved)).max(axis=1), np.nan_to_num(times, nan=np.inf)))
    labels = _labels(answers)[order]
    horizon = _horizon(times, moved.shape[1])
    columns = np.unique(np.linspace(0, horizon, min(horizon + 1, _COLUMNS)).round().astype(int))
    shown = moved[order][:, columns].astype(np.float32)
    largest = float(np.nanpercentile(np.abs(shown[np.isfinite(shown)]), 99.5)) or 1.0
    rows = np.array([str(label) for label in labels])
    custom = None
    if shown.size <= _CLICKABLE:
        custom = np.broadcast_to(rows[:, None], shown.shape)
    figure = go.Figure(layout={"template": template(dark=dark)})
    figure.add_trace(
        go.Heatmap(
            x=columns,
            y=rows,
            z=shown,
            zmin=-largest,
            zmax=largest,
            colorscale=_diverging(dark=dark),
            colorbar=colorbar(title="change", dark=dark),
            customdata=custom,
            hovertemplate="unit %{y}, step %{x}: %{z:.3f} from rest<extra></extra>",
        )
    )
    settled = np.isfinite(times[order]) & (times[order] <= horizon)
    figure.add_trace(
        go.Scatter(
            x=times[order][settled],
            y=rows[settled],
            customdata=rows[settled],
            mode="markers",
            marker={"size": 4, "color": look.text},
            hovertemplate="unit %{y} has settled after %{x:.0f} steps<extra></extra>",
            showlegend=False,
        )
    )
    never = int(np.isnan(times).sum())
    figure.update_layout(
        title=_title(
            "step responses, by settling time (dots)" + (f"; {never} of {len(times)} have none" if never else ""),
            dark=dark,
        ),
        margin={"l": 58, "r": 20, "t": 40, "b": 40},
    )
    figure.update_xaxes(title_text="steps since the input changed", showgrid=False)
    figure.update_yaxes(
        title_text="unit", autorange="reversed", showgrid=False, type="category", showticklabels=len(rows) <= 40
    )
    return figure


def bode(
    gain: xr.DataArray,
    phase: xr.DataArray,
    *,
    change: xr.DataArray | None = None,
    isolated: tuple[xr.DataArray, xr.DataArray] | None = None,
    selected: Sequence[str] = (),
    title: str = "frequency response",
    dark: bool = False,
) -> go.Figure:
    """Gain and phase over the period of the input: the median of the units, the band from 10 to 90 %, picked units.

    Half of the units of a network answer upside down, half a turn away from the others, and a median of both kinds
    would be of neither. So the phases are those of the unit or of its mirror image, see `upright`.

    Args:
        gain: dims (unit, period), periods in steps.
        phase: the same, in degrees, NaN where a unit does not answer.
        change: dims (unit,), where the step response goes, as far as it is known; its sign tells what is upside down.
        isolated: gain and phase of the units with their own past alone, whose median is drawn dashed.
        selected: labels of the units that are drawn one by one.
        title: of the figure.
    """
    if not np.isfinite(gain.values).any():
        return message("no unit answers the sines", dark=dark)
    look = theme(dark=dark)
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    figure.update_layout(template=template(dark=dark))
    periods = gain["period"].values
    phase = upright(phase, change)
    if isolated is not None:
        isolated = isolated[0], upright(isolated[1])
    for row, (values, unit) in enumerate(((gain, ""), (phase, "°")), start=1):
        by_unit = values.transpose("unit", "period").values.astype(float)
        low, middle, high = _quantiles(by_unit)
        band: dict[str, Any] = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
        traces = [
            go.Scatter(x=periods, y=low, **band),
            go.Scatter(x=periods, y=high, fill="tonexty", fillcolor=look.faint, **band),
            go.Scatter(
                x=periods,
                y=middle,
                name="median",
                mode="lines+markers",
                line={"color": look.accent, "width": 2},
                showlegend=row == 1,
                hovertemplate=f"median %{{y:.3g}}{unit}<br>period %{{x}} steps<extra></extra>",
            ),
        ]
        if isolated is not None:
            alone = _quantiles(isolated[row - 1].transpose("unit", "period").values.astype(float))[1]
            traces.append(
                go.Scatter(
                    x=periods,
                    y=alone,
                    name="median, isolated",
                    mode="lines",
                    line={"color": look.muted, "width": 1.6, "dash": "dash"},
                    showlegend=row == 1,
                    hovertemplate=f"median of isolated units %{{y:.3g}}{unit}<br>period %{{x}} steps<extra></extra>",
                )
            )
        for i, label in enumerate(_labels(values)):
            if str(label) in selected:
                color = look.classes[list(selected).index(str(label)) % len(look.classes)]
                traces.append(
                    go.Scatter(
                        x=periods,
                        y=by_unit[i],
                        name=f"unit {label}",
                        customdata=[str(label)] * len(periods),
                        mode="lines",
                        line={"color": color, "width": 1.6},
                        showlegend=row == 1,
                        hovertemplate=f"unit {label}: %{{y:.3g}}{unit}<br>period %{{x}} steps<extra></extra>",
                    )
                )
        for trace in traces:
            figure.add_trace(trace, row=row, col=1)
    figure.update_xaxes(type="log", tickvals=periods.tolist(), ticktext=[str(period) for period in periods])
    figure.update_xaxes(title_text="period of the sine (steps)", row=2, col=1)
    positive = gain.values[np.isfinite(gain.values) & (gain.values > 0)]
    figure.update_yaxes(title_text="gain", row=1, col=1)
    if positive.size and positive.min() < positive.max():
        low, high = np.log10(np.percentile(positive, [2, 100]))
        ticks = _log_ticks(10 ** (float(low) - 0.1), 10 ** (float(high) + 0.1))
        figure.update_yaxes(type="log", range=[float(low) - 0.1, float(high) + 0.1], row=1, col=1, **ticks)
    figure.update_yaxes(title_text="phase (degrees), upright", row=2, col=1)
    figure.update_layout(
        title=_title(title + ": median of the units, band 10\u201390 %", dark=dark),
        margin={"l": 58, "r": 16, "t": 52, "b": 40},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"},
    )
    return figure


def upright(phase: xr.DataArray, change: xr.DataArray | None = None) -> xr.DataArray:
    """Phases of units, those that answer upside down turned by half a turn, continued from the longest period down.

    Args:
        phase: dims (unit, period), in degrees, periods growing.
        change: dims (unit,): a unit is upside down where this is negative. Where it is not known, the phase at the
            longest period decides: within a quarter turn of the input, the unit is upright.

    >>> phases = xr.DataArray([[-60.0, -20.0], [110.0, 160.0]], dims=("unit", "period"))
    >>> upright(phases).values.tolist()
    [[-60.0, -20.0], [-70.0, -20.0]]
    """
    degrees = phase.transpose("unit", "period").values.astype(float)
    known = np.isfinite(degrees)
    last = degrees.shape[1] - 1 - np.argmax(known[:, ::-1], axis=1)
    down = np.abs(degrees[np.arange(len(degrees)), last]) > 90
    if change is not None:
        told = change.values.astype(float)
        down = np.where(np.isnan(told) | (told == 0), down, told < 0)
    turned = unwrapped(np.where(down[:, None], degrees - 180, degrees))
    newest = turned[np.arange(len(turned)), last]
    turned = turned - 360 * np.nan_to_num(np.round(newest / 360))[:, None]
    return phase.transpose("unit", "period").copy(data=turned)


def extremes(
    answers: xr.DataArray, settling: xr.DataArray, overshoot: xr.DataArray, *, count: int = 4, dark: bool = False
) -> go.Figure:
    """The units that settle first, those that settle last, and those that overshoot most, side by side.

    Each is drawn as a share of its own change, from 0 at rest to 1 where it ends, so that shapes can be compared.

    Args:
        answers: dims (unit, step), step 0 being the state at rest.
        settling: dims (unit,), NaN where a unit never settles.
        overshoot: dims (unit,), share of the change.
        count: how many units of each kind.
    """
    times, beyond = settling.values.astype(float), overshoot.values.astype(float)
    settled = np.flatnonzero(np.isfinite(times))
    if not settled.size:
        return message("no unit has a settling time, so none is the fastest or the slowest", dark=dark)
    by_time = settled[np.argsort(times[settled], kind="stable")]
    over = np.flatnonzero(np.nan_to_num(beyond) > 0.01)
    chosen = {
        "fastest": by_time[:count],
        "slowest": by_time[::-1][:count],
        "most overshoot": over[np.argsort(-beyond[over], kind="stable")][:count],
    }
    look = theme(dark=dark)
    states = answers.transpose("unit", "step").values.astype(float)
    ends = states[:, -max(1, states.shape[1] // 10) :].mean(axis=1)
    changes = np.where(ends == states[:, 0], np.nan, ends - states[:, 0])
    values = (states - states[:, :1]) / changes[:, None]
    labels = _labels(answers)
    figure = make_subplots(rows=1, cols=3, subplot_titles=list(chosen), horizontal_spacing=0.05)
    figure.update_layout(template=template(dark=dark))
    for column, units in enumerate(chosen.values(), start=1):
        horizon = _horizon(times[units], values.shape[1]) + 1 if units.size else 2
        for i, unit in enumerate(units):
            told = (
                f"changes by {changes[unit]:.3f}, settled after {times[unit]:.0f} steps, overshoot {beyond[unit]:.0%}"
            )
            figure.add_trace(
                go.Scatter(
                    x=np.arange(horizon),
                    y=values[unit, :horizon].astype(np.float32),
                    customdata=[str(labels[unit])] * horizon,
                    name=f"unit {labels[unit]}",
                    mode="lines",
                    line={"color": look.classes[i % len(look.classes)], "width": 1.8},
                    hovertemplate=f"unit {labels[unit]}: %{{y:.0%}} at step %{{x}}<br>{told}<extra></extra>",
                ),
                row=1,
                col=column,
            )
        if not units.size:
            figure.add_annotation(text="none", showarrow=False, x=0.5, y=0.5, row=1, col=column)
        figure.update_xaxes(title_text="step", row=1, col=column)
    figure.update_yaxes(tickformat=".0%")
    figure.update_yaxes(title_text="share of the change", row=1, col=1)
    figure.update_annotations(font={"size": SMALL + 1, "color": look.text})
    figure.update_layout(margin={"l": 58, "r": 16, "t": 32, "b": 40}, showlegend=False)
    return figure


def unit_bars(numbers: xr.Dataset, ranks: xr.Dataset, *, selected: Sequence[str] = (), dark: bool = False) -> go.Figure:
    """A row of bars per metric, one bar per unit, in the order of the combined rank; the color is the rank in that row.

    Metrics that no unit has a number for are named in the title instead.

    Args:
        numbers: one variable (unit,) per metric.
        ranks: ``rank`` (metric, unit) and ``combined`` (unit), as `rank_units` gives them.
        selected: labels of the units that are outlined.
    """
    every = [str(name) for name in ranks["metric"].values]
    metrics = [name for name in every if np.isfinite(numbers[name].values.astype(float)).any()]
    if not metrics or not ranks.sizes["unit"]:
        return message("no unit has been ranked", dark=dark)
    look = theme(dark=dark)
    order = np.argsort(ranks["combined"].values, kind="stable")
    labels = [str(label) for label in _labels(ranks["combined"])[order]]
    edges = [look.text if label in selected else "rgba(0, 0, 0, 0)" for label in labels]
    figure = make_subplots(rows=len(metrics), cols=1, shared_xaxes=True, vertical_spacing=0.035)
    figure.update_layout(template=template(dark=dark))
    for row, metric in enumerate(metrics, start=1):
        values = numbers[metric].values.astype(float)[order]
        rank = ranks["rank"].sel(metric=metric).values[order]
        figure.add_trace(
            go.Bar(
                x=labels,
                y=values,
                customdata=labels,
                marker={
                    "color": rank,
                    "cmin": 1,
                    "cmax": max(len(labels), 2),
                    "colorscale": colorscale("value", dark=dark),
                    "reversescale": True,
                    "showscale": row == 1,
                    "colorbar": colorbar(title="rank", dark=dark),
                    "line": {"color": edges, "width": 1.6},
                },
                meta=metric,
                hovertemplate=f"unit %{{x}}: {NAMES.get(metric, metric)} %{{y:.3g}}<br>"
                "rank %{marker.color:.1f}<extra></extra>",
                showlegend=False,
            ),
            row=row,
            col=1,
        )
        figure.update_yaxes(title_text=NAMES.get(metric, metric).split(" (")[0], nticks=4, row=row, col=1)
    figure.update_xaxes(type="category", showgrid=False, showticklabels=False)
    figure.update_xaxes(
        title_text="unit, in the order of the mean rank", showticklabels=len(labels) <= 64, row=len(metrics), col=1
    )
    figure.update_layout(margin={"l": 70, "r": 20, "t": 32, "b": 44}, bargap=0.15)
    if absent := [NAMES.get(name, name).split(" (")[0] for name in every if name not in metrics]:
        figure.update_layout(title=_title(f"no unit has a number for: {', '.join(absent)}", dark=dark))
    return figure


def over_epochs(
    values: xr.Dataset, metrics: pd.DataFrame, *, period: int | None = None, dark: bool = False
) -> go.Figure:
    """How settling time, gain and phase are distributed over the units, epoch by epoch, below the loss.

    Args:
        values: ``settling_time`` (epoch, unit), ``reference_gain`` and ``reference_phase`` (epoch, unit).
        metrics: one column per metric, indexed by epoch.
        period: of the sine that gain and phase belong to, for the captions.
    """
    at = "" if period is None else f" at a period of {period} steps"
    panels = [
        metrics_panel(metrics, dark=dark),
        _histogram(values["settling_time"], "settling time (steps), share of the units", log=True, dark=dark),
        _histogram(values["reference_gain"], f"gain{at}", log=True, dark=dark),
        _histogram(values["reference_phase"], f"phase{at} (degrees)", bounds=(-180.0, 180.0), dark=dark),
    ]
    return stack(panels, untrained=bool((metrics.index == -1).any()), dark=dark)


def _histogram(
    values: xr.DataArray, title: str, *, log: bool = False, bounds: tuple[float, float] | None = None, dark: bool
) -> Panel:
    """Share of the units in each bin, epoch by epoch; units without a number are in none."""
    table = values.transpose("epoch", "unit").values.astype(float)
    usable = table[np.isfinite(table) & ((table > 0) | (not log))]
    if not usable.size:
        return Panel(title, [], {}, waiting="no unit has this number yet")
    low, high = bounds or np.percentile(usable, [0.5, 99.5])
    if log:
        edges = np.geomspace(low, max(high, low * 1.5), _BINS + 1)
    else:
        edges = np.linspace(low, max(high, low + 1e-9), _BINS + 1)
    counts = np.array([np.histogram(np.clip(row, edges[0], edges[-1]), bins=edges)[0] for row in table])
    share = 100 * counts.T / table.shape[1]
    middle = np.sqrt(edges[1:] * edges[:-1]) if log else (edges[1:] + edges[:-1]) / 2
    heat = go.Heatmap(
        x=values["epoch"].values.astype(np.float32),
        y=middle.astype(np.float32),
        z=np.where(share > 0, share, np.nan).astype(np.float32),
        zmin=0,
        zmax=float(max(share.max(), 1e-9)),
        colorscale=colorscale("value", dark=dark),
        colorbar=colorbar(title="%", dark=dark) | {"x": 1.01, "xanchor": "left", "nticks": 3, "thickness": 8},
        name=title,
        hoverongaps=False,
        hovertemplate="%{z:.0f} % of the units near %{y:.3g}<br>epoch %{x}<extra></extra>",
    )
    missing = 100 * np.mean(~np.isfinite(table), axis=1)
    line = go.Scatter(
        x=values["epoch"].values.astype(np.float32),
        y=missing.astype(np.float32),
        name="units without a number (%)",
        mode="lines+markers" if len(missing) == 1 else "lines",
        line={"color": theme(dark=dark).classes[3], "width": 1.4, "dash": "dot"},
        showlegend=False,
        hovertemplate="%{y:.0f} % of the units have no such number<br>epoch %{x}<extra></extra>",
    )
    axis: dict[str, Any] = {"showgrid": False, "range": [float(edges[0]), float(edges[-1])]}
    if log:
        axis |= {"type": "log", "range": np.log10(edges[[0, -1]]).tolist(), **_log_ticks(edges[0], edges[-1])}
    if not missing.any():
        return Panel(title, [heat], axis)
    heat.showscale = False  # its place is taken by the second axis
    right = {"title": {"text": "none (%)"}, "range": [0, 105], "nticks": 3}
    return Panel(title + "; dotted: no number", [heat, line], axis, right=frozenset([1]), right_axis=right)


def _log_ticks(low: float, high: float) -> dict[str, Any]:
    """A few round numbers on a logarithmic axis: powers of ten, or between them 2 and 5 where the axis is short."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [step * 10.0**decade for decade in decades for step in steps]
        found = [value for value in found if low <= value <= high]
        if len(found) <= 4:
            break
    found = found if len(found) > 1 else [low, high]
    return {"tickvals": found, "ticktext": [f"{value:.2g}" if value < 10 else f"{value:.0f}" for value in found]}


def _horizon(times: npt.NDArray[np.float64], steps: int) -> int:
    """How many steps are worth drawing: past the slowest unit that settles, and 20 at least."""
    finite = times[np.isfinite(times)]
    wanted = 1.25 * float(finite.max()) if finite.size else steps - 1
    return int(min(steps - 1, max(20, np.ceil(wanted))))


def _quantiles(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """10, 50 and 90 % of each column, NaN where nothing is known."""
    found = np.full((3, values.shape[1]), np.nan)
    known = np.isfinite(values).any(axis=0)
    found[:, known] = np.nanpercentile(values[:, known], [10, 50, 90], axis=0)
    return found


def _labels(values: xr.DataArray) -> npt.NDArray[Any]:
    labels = values["unit"].values if "unit" in values.coords else np.arange(values.sizes["unit"])
    return np.asarray(labels)


def _diverging(*, dark: bool) -> list[tuple[float, str]]:
    """Down, rest, up: told apart with any color vision, rest melting into the panel."""
    look = theme(dark=dark)
    return [(0.0, look.classes[3]), (0.5, look.panel), (1.0, look.classes[0])]


def _title(text: str, *, dark: bool) -> dict[str, Any]:
    font = {"size": SMALL + 1, "color": theme(dark=dark).text}
    return {"text": text, "font": font, "x": 0, "xref": "paper", "y": 0.99, "yanchor": "top"}
