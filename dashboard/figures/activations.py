"""Highly active periods: a unit beside what the network saw, the patterns that excite it, and how they change.

Colors tell clusters of patterns; relevance is drawn on a scale that diverges about 0.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from plotly.colors import hex_to_rgb
from plotly.subplots import make_subplots

from hiddenscope.analyses.patterns import Patterns
from hiddenscope.dashboard.figures.panels import Panel, stack
from hiddenscope.dashboard.figures.sequences import (
    MOST_FEATURES,
    UNMARKED,
    Marks,
    chosen_features,
    diverging,
    mark_steps,
    states_map,
)
from hiddenscope.dashboard.figures.template import SMALL, class_colors, colorbar, message, template, theme

MOST_CLUSTERS = 8
_DIM = 0.28
_WAITING = "drawn as soon as the highly active periods are computed"


def cluster_name(cluster: int) -> str:
    """A letter per cluster, then letters with numbers.

    >>> cluster_name(0), cluster_name(27)
    ('A', 'B1')
    """
    round_, letter = divmod(cluster, 26)
    return string.ascii_uppercase[letter] + (str(round_) if round_ else "")


def sequence(
    inputs: npt.NDArray[Any] | None,
    activation: xr.DataArray,
    periods: pd.DataFrame,
    *,
    threshold: float,
    patterns: Patterns | None = None,
    relevance: xr.Dataset | None = None,
    target: int | None = None,
    unit: object = "",
    sign: str = "positive",
    note: str = "",
    marks: Marks = UNMARKED,
    dark: bool = False,
) -> go.Figure:
    """One sequence: the unit's activation, the inputs with the patterns where they were met, and relevance below them.

    Args:
        inputs: (step, feature), or None where they are not known.
        activation: dims (step,), of the unit, with its steps.
        periods: of this sequence, as `hiddenscope.analyses.excitation.excitation` gives them.
        threshold: of the unit's score.
        patterns: whose clusters the periods name; their bands are drawn where they end at a peak.
        relevance: of one sample, as `hiddenscope.relevance` gives it; with its spread where passes were made.
        target: the step whose activation is explained.
        unit: label of the unit.
        sign: which activations count as high.
        note: why there is no relevance.
        marks: words at the steps, and what of them is picked.
    """
    if activation.sizes["step"] == 0 or not np.isfinite(activation.values).any():
        return message("this unit has no value in this sequence", dark=dark)
    look = theme(dark=dark)
    steps = activation["step"].values if "step" in activation.coords else np.arange(activation.sizes["step"])
    weight = None if relevance is None else relevance["relevance"].values[0]
    shown = [] if inputs is None else chosen_features(inputs, weight)
    rows = 1 + len(shown) + (2 if relevance is not None else 0)
    heights = [1.5] + [1.0] * len(shown) + ([0.28 * max(3, len(shown)), 1.1] if relevance is not None else [])
    figure = make_subplots(rows=rows, cols=1, shared_xaxes=True, vertical_spacing=0.018, row_heights=heights)
    figure.update_layout(template=template(dark=dark), margin={"l": 64, "r": 70, "t": 28, "b": 38}, showlegend=False)
    line = {"color": look.accent, "width": 1.8}
    hover = f"unit {unit} %{{y:.3f}}<br>step %{{x}}<extra></extra>"
    figure.add_scatter(x=steps, y=activation.values, mode="lines", line=line, hovertemplate=hover, row=1, col=1)
    for level in {"positive": [threshold], "negative": [-threshold], "absolute": [threshold, -threshold]}[sign]:
        if np.isfinite(level):
            figure.add_hline(y=level, line={"color": look.muted, "width": 1, "dash": "dot"}, row=1, col=1)
    _title(figure, 1, f"unit {unit}")
    colors = class_colors(MOST_CLUSTERS, dark=dark)
    period: Any
    for period in periods.itertuples():
        cluster = int(getattr(period, "cluster", -1))
        color = look.muted if cluster < 0 else colors[cluster % len(colors)]
        edges = {"x0": steps[period.start] - 0.5, "x1": steps[period.end] + 0.5}
        figure.add_vrect(**edges, fillcolor=color, opacity=_DIM, line_width=0, layer="below", row=1, col=1)
        if inputs is not None and patterns is not None and cluster >= 0:
            _bands(figure, shown, patterns, cluster, int(steps[period.peak]), color)
    if inputs is not None:
        for row, feature in enumerate(shown, start=2):
            figure.add_scatter(
                x=np.arange(len(inputs)),
                y=inputs[:, feature],
                mode="lines",
                line={"color": look.text, "width": 1.1},
                hovertemplate=f"input {feature} %{{y:.3f}}<br>step %{{x}}<extra></extra>",
                row=row,
                col=1,
            )
            _title(figure, row, f"input {feature}")
    if relevance is not None:
        _relevance_rows(figure, relevance, shown, rows, dark=dark)
    if target is not None:
        figure.add_vline(x=target, line={"color": look.muted, "width": 1})
    note = _explained(relevance) if relevance is not None else note
    if note:
        place = {"xref": "paper", "yref": "paper", "x": 0, "y": 1.0, "xanchor": "left", "yanchor": "bottom"}
        figure.add_annotation(text=note, showarrow=False, font={"size": SMALL, "color": look.muted}, **place)
    figure.update_yaxes(nticks=3)
    figure.update_xaxes(range=[-0.5, max(len(steps), 0 if inputs is None else len(inputs)) - 0.5])
    figure.update_xaxes(title_text="step", row=rows, col=1)
    mark_steps(figure, steps, marks, rows=range(1, rows + 1), dark=dark)
    return figure


def activation_map(
    activations: xr.DataArray,
    periods: pd.DataFrame,
    *,
    picked: Sequence[str] = (),
    marks: Marks = UNMARKED,
    dark: bool = False,
) -> go.Figure:
    """All units (up) of one sequence over its steps (across), each highly active period outlined.

    Args:
        activations: dims (step, unit), with labels.
        periods: of this sequence, of all units, with units by their labels and steps as positions.
        picked: labels of units whose periods are outlined in the accent color.
        marks: words at the steps, and what of them is picked.
    """
    if not activations.size or not np.isfinite(activations.values).any():
        return message("no states in this sequence", dark=dark)
    look = theme(dark=dark)
    steps, units = activations["step"].values, [str(unit) for unit in activations["unit"].values]
    figure = go.Figure(layout={"template": template(dark=dark), "margin": {"l": 48, "r": 16, "t": 28, "b": 38}})
    figure.add_trace(states_map(activations, bar_at=0.75, dark=dark))
    row_of = {unit: row for row, unit in enumerate(units)}
    for own, color, width in ((False, look.text, 0.9), (True, look.accent, 2.2)):
        x: list[float | None] = []
        y: list[float | None] = []
        period: Any
        for period in periods.itertuples():
            if (str(period.unit) in set(picked)) != own or str(period.unit) not in row_of:
                continue
            left, right = float(steps[period.start]) - 0.5, float(steps[period.end]) + 0.5
            low, high = row_of[str(period.unit)] - 0.46, row_of[str(period.unit)] + 0.46
            x += [left, right, right, left, left, None]
            y += [low, low, high, high, low, None]
        figure.add_scatter(
            x=x, y=y, mode="lines", line={"color": color, "width": width}, hoverinfo="skip", showlegend=False
        )
    stride = max(1, -(-len(units) // 30))
    ticks = list(range(0, len(units), stride))
    figure.update_yaxes(tickvals=ticks, ticktext=[units[row] for row in ticks], title_text="unit", showgrid=False)
    figure.update_yaxes(range=[-0.6, len(units) - 0.4])
    figure.update_xaxes(range=[steps[0] - 0.6, steps[-1] + 0.6])
    figure.update_xaxes(title_text="step", showgrid=False)
    mark_steps(figure, steps, marks, dark=dark)
    return figure


def gallery(patterns: Patterns | None, *, reason: str = "", dark: bool = False) -> go.Figure:
    """The representative pattern of each cluster (across) in each input (down), with a band of one standard deviation.

    Args:
        patterns: as `hiddenscope.cluster_patterns` found them.
        reason: said where there is no cluster.
    """
    if patterns is None or not len(patterns.counts):
        why = reason or (patterns.skipped if patterns is not None else "") or "there is no pattern to show"
        return message(f"no patterns: {why}", dark=dark)
    look = theme(dark=dark)
    count = min(len(patterns.counts), MOST_CLUSTERS)
    shown = chosen_features(patterns.means[:count].reshape(-1, patterns.means.shape[2]))
    gap = "<br>" if count > 4 else " "
    titles = [f"<b>{cluster_name(c)}</b> {patterns.shares[c]:.0%}{gap}n = {patterns.counts[c]}" for c in range(count)]
    more = f" \u00b7 the {count} largest of {len(patterns.counts)} patterns" if len(patterns.counts) > count else ""
    figure = make_subplots(
        rows=len(shown),
        cols=count,
        shared_xaxes=True,
        shared_yaxes=True,
        column_titles=titles,
        vertical_spacing=0.02,
        horizontal_spacing=0.012,
    )
    figure.update_layout(template=template(dark=dark), margin={"l": 64, "r": 16, "t": 44, "b": 38}, showlegend=False)
    figure.update_annotations(font={"size": SMALL, "color": look.muted})
    lags = np.arange(1 - patterns.means.shape[1], 1)
    colors = class_colors(count, dark=dark)
    for row, feature in enumerate(shown, start=1):
        for cluster in range(count):
            mean = patterns.means[cluster, :, feature]
            spread = patterns.deviations[cluster, :, feature]
            for trace in _band(lags, mean, spread, colors[cluster], 2.0, f"input {feature}"):
                figure.add_trace(trace, row=row, col=cluster + 1)
        figure.update_yaxes(title_text=f"input {feature}", row=row, col=1)
    middle = (count + 1) // 2
    figure.update_xaxes(title_text="steps before the peak" + more, row=len(shown), col=middle)
    figure.update_yaxes(nticks=3)
    figure.update_xaxes(nticks=3)
    return figure


def course(found: xr.Dataset | None, *, picked: Sequence[str] = (), dark: bool = False) -> go.Figure:
    """How periods and patterns change over the epochs: median over units, and the picked units.

    Args:
        found: the stored study of `hiddenscope.analyses.excitation`.
        picked: labels of units.
    """
    if found is None:
        return message(_WAITING, dark=dark)
    who = "median of units" + (f" and unit {picked[0]}" if len(picked) == 1 else "")
    panels = [
        _course_panel(found, "drift", f"pattern drift (input sd): {who}", picked, dark=dark),
        _course_panel(found, "cluster_count", "patterns per unit", picked, dark=dark),
        _course_panel(found, "top_share", "share of the largest pattern", picked, dark=dark),
        _course_panel(found, "period_count", "periods per unit", picked, dark=dark),
        _course_panel(found, "period_length", "mean period (steps)", picked, dark=dark),
    ]
    untrained = bool((found["epoch"].values == -1).any())
    return stack(panels, untrained=untrained, dark=dark)


def perturbation(found: xr.Dataset | None, *, reason: str = "", dark: bool = False) -> go.Figure:
    """What the unit loses when only some steps of the input are kept: three choices of steps, with bands over periods.

    Args:
        found: as `hiddenscope.perturbation_curves` gives it.
        reason: said where there is none.
    """
    if found is None or not found.sizes["kept"]:
        return message(reason or "no perturbation was computed", dark=dark)
    look = theme(dark=dark)
    figure = go.Figure(layout={"template": template(dark=dark), "margin": {"l": 58, "r": 16, "t": 34, "b": 38}})
    names = {"selected": "right before the peak", "relevant": "most relevant", "random": "at random"}
    colors = dict(zip(names, (look.accent, look.classes[1], look.muted), strict=True))
    kept = found["kept"].values
    for strategy, name in names.items():
        here = found.sel(strategy=strategy)
        edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
        figure.add_scatter(x=kept, y=here["low"].values, **edge)
        figure.add_scatter(
            x=kept, y=here["high"].values, fill="tonexty", fillcolor=_faded(colors[strategy], 0.16), **edge
        )
        figure.add_scatter(
            x=kept,
            y=here["mean"].values,
            mode="lines+markers",
            name=name,
            line={"color": colors[strategy], "width": 2},
            hovertemplate=f"{name}, %{{x}} steps kept<br>loses %{{y:.3f}} (mean)<extra></extra>",
        )
    empty = float(found["empty"].mean())
    figure.add_hline(y=empty, line={"color": look.muted, "width": 1, "dash": "dot"})
    figure.add_annotation(
        text="nothing kept", x=1, xref="paper", y=empty, xanchor="right", yanchor="bottom", showarrow=False,
        font={"size": SMALL, "color": look.muted},
    )  # fmt: skip
    figure.update_xaxes(title_text="steps of the input that are kept", type="log", tickvals=kept, ticktext=kept)
    figure.update_yaxes(title_text="activation lost at the peaks", nticks=6)
    figure.update_layout(legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0})
    return figure


def _relevance_rows(figure: go.Figure, found: xr.Dataset, shown: Sequence[int], rows: int, *, dark: bool) -> None:
    """Relevance of each shown input, and of all inputs together with its spread."""
    look = theme(dark=dark)
    values = found["relevance"].values[0]
    steps = np.arange(len(values))
    spread = found["relevance_std"].values[0] if "relevance_std" in found else None
    listed = list(shown) or list(range(min(values.shape[1], MOST_FEATURES)))
    limit = float(np.percentile(np.abs(values), 99.5)) or float(np.abs(values).max()) or 1.0
    said = None if spread is None else spread[:, listed].T
    figure.add_heatmap(
        z=values[:, listed].T,
        x=steps,
        y=[f"input {feature}" for feature in listed],
        customdata=said,
        colorscale=diverging(dark=dark),
        zmin=-limit,
        zmax=limit,
        colorbar=colorbar(title="relevance", dark=dark) | {"len": 0.34, "y": 0.2},
        hovertemplate="%{y}, step %{x}<br>relevance %{z:.4f}"
        + (" \u00b1 %{customdata:.4f}" if said is not None else "")
        + "<extra></extra>",
        row=rows - 1,
        col=1,
    )
    figure.update_yaxes(autorange="reversed", row=rows - 1, col=1, showgrid=False, nticks=len(listed))
    total = values.sum(axis=1)
    bars: dict[str, Any] = {}
    if "step_std" in found:
        bars = {"error_y": {"array": found["step_std"].values[0], "color": look.muted, "thickness": 1, "width": 0}}
    colors = np.where(total < 0, look.classes[0], look.classes[3])
    figure.add_bar(
        x=steps,
        y=total,
        marker={"color": colors.tolist(), "line": {"width": 0}},
        hovertemplate="all inputs, step %{x}<br>relevance %{y:.4f}<extra></extra>",
        row=rows,
        col=1,
        **bars,
    )
    _title(figure, rows, "all inputs")


def _explained(found: xr.Dataset) -> str:
    parts = {
        "inputs": float(found["relevance"].sum()),
        "initial state": float(found["carried"][0]),
        "unexplained": float(found["unexplained"][0]),
    }
    said = f"{float(found['output'][0]):.3f} = " + " + ".join(f"{name} {value:.3f}" for name, value in parts.items())
    passes = int(found.attrs.get("passes", 0))
    spread = f" \u00b7 bars: sd of {passes} passes, dropout {float(found.attrs['dropout']):g}" if passes else ""
    return (said + spread).replace("-", "\u2212")


def _bands(figure: go.Figure, shown: Sequence[int], patterns: Patterns, cluster: int, peak: int, color: str) -> None:
    width = patterns.means.shape[1]
    steps = np.arange(peak - width + 1, peak + 1)
    for row, feature in enumerate(shown, start=2):
        mean, spread = patterns.means[cluster, :, feature], patterns.deviations[cluster, :, feature]
        for trace in _band(steps, mean, spread, color, 1.2, f"pattern {cluster_name(cluster)}"):
            figure.add_trace(trace, row=row, col=1)


def _band(x: npt.ArrayLike, mean: Any, spread: Any, color: str, width: float, name: str) -> list[go.Scatter]:
    """A line and, around it, one standard deviation."""
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    return [
        go.Scatter(x=x, y=mean - spread, **edge),
        go.Scatter(x=x, y=mean + spread, fill="tonexty", fillcolor=_faded(color, _DIM), **edge),
        go.Scatter(
            x=x,
            y=mean,
            mode="lines",
            line={"color": color, "width": width},
            customdata=spread,
            hovertemplate=f"{name} %{{y:.3f}} \u00b1 %{{customdata:.3f}}<extra></extra>",
        ),
    ]


def _faded(color: str, opacity: float) -> str:
    """A hex color as a translucent one.

    >>> _faded("#ff0000", 0.5)
    'rgba(255, 0, 0, 0.5)'
    """
    red, green, blue = hex_to_rgb(color)
    return f"rgba({red}, {green}, {blue}, {opacity})"


def _title(figure: go.Figure, row: int, text: str) -> None:
    figure.update_yaxes(title_text=text, row=row, col=1)


def _course_panel(found: xr.Dataset, name: str, title: str, picked: Sequence[str], *, dark: bool) -> Panel:
    look = theme(dark=dark)
    axis: dict[str, Any] = {"rangemode": "tozero"}
    if name not in found:
        return Panel(title, [], axis, waiting=_WAITING)
    values = found[name].transpose("epoch", "unit").values.astype(np.float64)
    if name in ("drift", "cluster_count", "top_share"):
        values = np.where(found["cluster_count"].transpose("epoch", "unit").values > 0, values, np.nan)
    known = np.isfinite(values).any(axis=1)
    if not known.any():
        why = str(found.attrs.get("reason", "")) or "no patterns, or none at an epoch before, to compare with"
        return Panel(title, [], axis, waiting=why)
    epochs = found["epoch"].values[known]
    mode = "lines+markers" if len(epochs) == 1 else "lines"
    middle = np.nanmedian(values[known], axis=1)
    hover = f"{title}<br>median over units %{{y:.3g}}<br>epoch %{{x}}<extra></extra>"
    line = {"color": look.accent, "width": 2}
    traces: list[Any] = [
        go.Scatter(x=epochs, y=middle, mode=mode, line=line, hovertemplate=hover, showlegend=False, name="median")
    ]
    labels = [str(unit) for unit in found["unit"].values]
    for unit, color in zip(picked[:5], class_colors(6, dark=dark)[1:], strict=False):
        if unit in labels and np.isfinite(values[:, labels.index(unit)]).any():
            own = values[:, labels.index(unit)]
            here = np.isfinite(own)
            traces.append(
                go.Scatter(
                    x=found["epoch"].values[here],
                    y=own[here],
                    mode="lines+markers",
                    marker={"size": 4},
                    line={"color": color, "width": 1.4},
                    hovertemplate=f"unit {unit} %{{y:.3g}}<br>epoch %{{x}}<extra></extra>",
                    name=f"unit {unit}",
                    showlegend=False,
                )
            )
    return Panel(title, traces, axis)
