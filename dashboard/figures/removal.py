"""What removing units costs, and how the numbers of units spread with the size of a layer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from hiddenscope.dashboard.figures.responses import NAMES
from hiddenscope.dashboard.figures.template import SMALL, message, template, theme


def removal(curves: xr.Dataset, *, quantity: str = "score", title: str = "", dark: bool = False) -> go.Figure:
    """The score as units are removed: a panel per metric, from its top, from its bottom, and the band of random orders.

    Args:
        curves: as `removal_curves` gives them.
        quantity: what the score is, with its unit.
        title: of the figure.
    """
    names = [str(name) for name in curves["metric"].values]
    if not names:
        return message("nothing has been ranked", dark=dark)
    look = theme(dark=dark)
    columns = min(len(names), 4)
    rows = -(-len(names) // columns)
    titles = [
        f"{NAMES.get(n, n).split(' (')[0]}: area {a:.3g}" for n, a in zip(names, curves["area"].values, strict=True)
    ]
    figure = make_subplots(
        rows=rows,
        cols=columns,
        shared_xaxes=True,
        shared_yaxes=True,
        subplot_titles=titles,
        horizontal_spacing=0.02,
        vertical_spacing=0.12,
    )
    figure.update_layout(template=template(dark=dark))
    removed = curves["removed"].values
    random = curves["random"].values
    mean, spread = random.mean(axis=0), random.std(axis=0)
    for at, name in enumerate(names):
        place = {"row": at // columns + 1, "col": at % columns + 1}
        band = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
        figure.add_trace(go.Scatter(x=removed, y=mean - spread, **band), **place)
        figure.add_trace(go.Scatter(x=removed, y=mean + spread, fill="tonexty", fillcolor=look.faint, **band), **place)
        lines = [("random order", mean, look.muted, "dot")]
        for order, color in zip(curves["order"].values, (look.classes[3], look.classes[0]), strict=True):
            lines.append((f"{order}", curves["score"].sel(metric=name, order=order).values, color, "solid"))
        for label, values, color, dash in lines:
            figure.add_trace(
                go.Scatter(
                    x=removed,
                    y=values,
                    name=label,
                    legendgroup=label,
                    showlegend=at == 0,
                    mode="lines",
                    line={"color": color, "width": 1.8, "dash": dash},
                    hovertemplate=f"{label}, %{{x}} units removed: %{{y:.3g}}<extra></extra>",
                ),
                **place,
            )
    figure.update_annotations(font={"size": SMALL, "color": look.text})
    figure.update_xaxes(title_text="units removed", row=rows)
    figure.update_yaxes(title_text=quantity, col=1)
    figure.update_layout(
        title={"text": title, "font": {"size": SMALL + 2}, "x": 0, "xref": "paper"},
        margin={"l": 62, "r": 16, "t": 64, "b": 44},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.06, "yanchor": "bottom"},
    )
    return figure


def importance_against(
    numbers: Mapping[str, npt.NDArray[np.float64]],
    important: npt.NDArray[np.float64],
    units: npt.ArrayLike,
    correlation: Mapping[str, float],
    *,
    quantity: str = "cost of removal",
    dark: bool = False,
) -> go.Figure:
    """What each unit is worth against the size of each of its numbers.

    Args:
        numbers: metric to an array (unit,).
        important: what the removal of each unit alone costs.
        units: their labels.
        correlation: metric to Spearman's correlation, for the captions.
        quantity: what the cost is, with its unit.
    """
    if not numbers or not np.isfinite(important).any():
        return message("no unit has been removed", dark=dark)
    look = theme(dark=dark)
    labels = [str(label) for label in np.asarray(units)]
    columns = min(len(numbers), 4)
    rows = -(-len(numbers) // columns)
    titles = [f"{NAMES.get(n, n).split(' (')[0]}: rank correlation {correlation.get(n, np.nan):.2f}" for n in numbers]
    figure = make_subplots(
        rows=rows, cols=columns, shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.03, vertical_spacing=0.2
    )
    figure.update_layout(template=template(dark=dark))
    for at, values in enumerate(numbers.values()):
        figure.add_trace(
            go.Scatter(
                x=np.abs(values),
                y=important,
                customdata=labels,
                mode="markers",
                marker={"size": 6, "color": look.accent, "opacity": 0.75},
                hovertemplate="unit %{customdata}: %{x:.3g}, costs %{y:.3g}<extra></extra>",
                showlegend=False,
            ),
            row=at // columns + 1,
            col=at % columns + 1,
        )
    figure.update_annotations(font={"size": SMALL, "color": look.text})
    figure.update_yaxes(title_text=quantity, col=1)
    figure.update_layout(margin={"l": 62, "r": 16, "t": 36, "b": 36})
    return figure


def capacity(
    spreads: Mapping[str, Mapping[int, npt.NDArray[np.float64]]], *, title: str = "", dark: bool = False
) -> go.Figure:
    """Violins of each number over the units of a layer, side by side for layers of several sizes.

    Args:
        spreads: metric to hidden size to the numbers of all units of that size; missing ones are left out.
        title: of the figure.

    >>> len(capacity({"gain": {16: np.arange(16.0), 32: np.arange(32.0)}}).data)
    2
    """
    if not spreads:
        return message("no size has been trained", dark=dark)
    look = theme(dark=dark)
    figure = make_subplots(
        rows=1,
        cols=len(spreads),
        subplot_titles=[NAMES.get(name, name) for name in spreads],
        horizontal_spacing=0.06,
    )
    figure.update_layout(template=template(dark=dark))
    for column, by_size in enumerate(spreads.values(), start=1):
        for i, (size, values) in enumerate(sorted(by_size.items())):
            known = np.asarray(values, dtype=float)
            known = known[np.isfinite(known)]
            color = look.classes[i % len(look.classes)]
            figure.add_trace(
                go.Violin(
                    x=[str(size)] * len(known),
                    y=known,
                    name=f"{size} units",
                    scalegroup=f"{size} units, {column}",  # else densities per step and per unit of state share a scale
                    box={"visible": True},
                    points=False,
                    spanmode="hard",
                    line={"color": color, "width": 1.2},
                    showlegend=False,
                ),
                row=1,
                col=column,
            )
        figure.update_xaxes(title_text="units of the layer", type="category", row=1, col=column)
    figure.update_annotations(font={"size": SMALL, "color": look.text})
    figure.update_layout(
        title={"text": title, "font": {"size": SMALL + 2}, "x": 0, "xref": "paper"},
        margin={"l": 48, "r": 16, "t": 56, "b": 44},
    )
    return figure
