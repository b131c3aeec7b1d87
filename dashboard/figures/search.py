"""Similar states: a period of one sequence, and the inputs at the periods in which the same units are active."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from hiddenscope.dashboard.figures.sequences import UNMARKED, Marks, chosen_features, mark_steps, states_map
from hiddenscope.dashboard.figures.template import SMALL, class_colors, message, template, theme

MOST_SHOWN = 12
CONTEXT = 12
"""Steps that are shown before and after a match."""
_COLUMNS = 4


def query(
    activations: xr.DataArray,
    active: npt.NDArray[np.bool_],
    *,
    start: int,
    end: int,
    pattern: Sequence[object],
    marks: Marks = UNMARKED,
    dark: bool = False,
) -> go.Figure:
    """The sequence that is searched from: how many units are active at each step, and all of them below.

    Args:
        activations: dims (step, unit), of one sequence, with labels.
        active: (step, unit), which unit counts as active when.
        start, end: first and last step of the period, as positions; it is outlined.
        pattern: labels of the units that are active all through it; they are marked at the left.
        marks: words at the steps, and which of them are picked.
    """
    if not activations.size or not np.isfinite(activations.values).any():
        return message("no states in this sequence", dark=dark)
    look = theme(dark=dark)
    steps, units = activations["step"].values, [str(unit) for unit in activations["unit"].values]
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.2, 0.8], vertical_spacing=0.03)
    figure.update_layout(template=template(dark=dark), margin={"l": 52, "r": 16, "t": 20, "b": 38}, showlegend=False)
    counts = active.sum(axis=1)
    line = {"color": look.accent, "width": 1.6, "shape": "hv"}
    hover = "%{y} units active<br>step %{x}<extra></extra>"
    figure.add_scatter(x=steps, y=counts, mode="lines", line=line, hovertemplate=hover, row=1, col=1)
    figure.add_trace(states_map(activations, bar_at=0.4, dark=dark), row=2, col=1)
    wanted = {str(unit) for unit in pattern}
    marked = [row for row, unit in enumerate(units) if unit in wanted]
    if marked:
        figure.add_scatter(
            x=np.full(len(marked), steps[start] - 1.2),
            y=marked,
            mode="markers",
            marker={"symbol": "triangle-right", "size": 8, "color": look.accent},
            customdata=[units[row] for row in marked],
            hovertemplate="unit %{customdata} is active all through the period<extra></extra>",
            row=2,
            col=1,
        )
    edges = {"x0": steps[start] - 0.5, "x1": steps[end] + 0.5}
    figure.add_vrect(**edges, line={"color": look.accent, "width": 2}, fillcolor=look.accent, opacity=0.16)
    stride = max(1, -(-len(units) // 30))
    ticks = list(range(0, len(units), stride))
    figure.update_yaxes(title_text="active", nticks=3, rangemode="tozero", row=1, col=1)
    figure.update_yaxes(
        tickvals=ticks, ticktext=[units[i] for i in ticks], title_text="unit", showgrid=False, row=2, col=1
    )
    figure.update_yaxes(range=[-0.6, len(units) - 0.4], row=2, col=1)
    figure.update_xaxes(title_text="step", row=2, col=1)
    figure.update_xaxes(range=[steps[0] - 1.5, steps[-1] + 0.5])
    mark_steps(figure, steps, marks, rows=(1, 2), dark=dark)
    return figure


def found_inputs(
    inputs: npt.NDArray[Any] | None,
    picked: tuple[int, int, int],
    matches: pd.DataFrame,
    *,
    names: Sequence[str] = (),
    reason: str = "",
    dark: bool = False,
) -> go.Figure:
    """The inputs at the picked period and at the best matches, aligned on their first steps.

    Args:
        inputs: (sample, step, feature), or None where they are not known.
        picked: sequence, first and last step of the period, as positions along the inputs.
        matches: columns ``place``, ``start`` and ``end`` (positions along the inputs), ``intersection``, ``union``.
        names: of the sequences, by position.
        reason: said where there is nothing to show.
    """
    if inputs is None or not len(matches):
        return message(reason or "no other period shares an active unit", dark=dark)
    look = theme(dark=dark)
    shown: list[Any] = list(matches.head(MOST_SHOWN - 1).itertuples())
    spans = [picked, *((int(m.place), int(m.start), int(m.end)) for m in shown)]
    said = ["picked", *(f"{m.intersection} of {m.union} units" for m in shown)]
    called = [names[place] if place < len(names) else str(place) for place, _, _ in spans]
    rows = -(-len(spans) // _COLUMNS)
    titles = [f"<b>{called[i]}</b> {first}\u2013{last}, {said[i]}" for i, (_, first, last) in enumerate(spans)]
    figure = make_subplots(
        rows=rows,
        cols=_COLUMNS,
        shared_yaxes=True,
        subplot_titles=titles,
        vertical_spacing=0.22 / rows,
        horizontal_spacing=0.02,
    )
    figure.update_layout(
        template=template(dark=dark),
        margin={"l": 44, "r": 12, "t": 30, "b": 54},
        legend={"orientation": "h", "y": -0.03, "yanchor": "top", "x": 0},
    )
    figure.update_annotations(font={"size": SMALL, "color": look.muted})
    features = chosen_features(inputs.reshape(-1, inputs.shape[2]))
    colors = class_colors(len(features), dark=dark)
    for i, (place, first, last) in enumerate(spans):
        row, column = i // _COLUMNS + 1, i % _COLUMNS + 1
        low, high = max(0, first - CONTEXT), min(inputs.shape[1] - 1, last + CONTEXT)
        x = np.arange(low, high + 1)
        for feature, color in zip(features, colors, strict=True):
            figure.add_scatter(
                x=x,
                y=inputs[place, low : high + 1, feature],
                mode="lines",
                line={"color": color, "width": 1.3},
                name=f"input {feature}",
                legendgroup=str(feature),
                showlegend=i == 0,
                hovertemplate=f"input {feature} %{{y:.3f}}<br>step %{{x}}<extra></extra>",
                row=row,
                col=column,
            )
        figure.add_vrect(
            x0=first - 0.5,
            x1=last + 0.5,
            fillcolor=look.accent,
            opacity=0.22 if i == 0 else 0.13,
            line_width=0,
            row=row,
            col=column,
        )
    figure.update_xaxes(nticks=4)
    figure.update_yaxes(nticks=4)
    return figure
