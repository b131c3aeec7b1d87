"""The course of a training in terms of modes and classes, and the strip of a long sequence cut into pieces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from hiddenscope.dashboard.figures.metrics import metrics_panel
from hiddenscope.dashboard.figures.panels import Panel, stack
from hiddenscope.dashboard.figures.template import class_colors, message, stepped, template, theme, unit_colors


def progress(
    pod: xr.Dataset | None,
    separability: xr.Dataset | None,
    metrics: pd.DataFrame,
    *,
    epoch: float | None = None,
    dark: bool = False,
) -> go.Figure:
    """Separability, loss and dimensions in use, one above the other on one epoch axis.

    Args:
        pod: the stored study of modes, or None.
        separability: the stored study of separability, or None (there are no classes, or it is not made yet).
        metrics: what was logged, indexed by epoch.
        epoch: where a vertical line stands.
    """
    look = theme(dark=dark)
    strips = [
        _separability_strip(separability, dark=dark),
        metrics_panel(metrics, dark=dark),
        _dimension_strip(pod, dark=dark),
    ]
    untrained = bool((metrics.index == -1).any())
    figure = stack(strips, untrained=untrained, dark=dark)
    if epoch is not None:
        figure.add_shape(
            type="line", x0=epoch, x1=epoch, y0=0, y1=1, yref="paper", line={"color": look.accent, "width": 1}
        )
    if separability is not None and "phase" in separability:
        _shade(figure, separability, dark=dark)
    figure.update_layout(uirevision="pod-progress")
    return figure


def _separability_strip(found: xr.Dataset | None, *, dark: bool) -> Panel:
    look = theme(dark=dark)
    waiting = "no separability: the probe has no classes, or it is not computed yet"
    if found is None:
        return Panel("separability", [], {"title": {"text": "silhouette"}}, waiting=waiting)
    lines = []
    shown = (
        ("silhouette", "silhouette", 0, "solid"),
        ("nearest_centroid", "nearest centroid", 2, "dot"),
        ("ari", "ARI, unsupervised", 3, "dash"),
    )
    for name, title, color, dash in shown:
        lines.append(_curve(found[name], title, look.classes[color], dash=dash))
    axis = {"title": {"text": "silhouette"}}
    right = {"title": {"text": "accuracy, ARI"}, "range": [-0.05, 1.05]}
    return Panel(
        "separability of classes", lines, axis, right=frozenset({1, 2}), right_axis=right, waiting=waiting, weight=1.2
    )


def _dimension_strip(found: xr.Dataset | None, *, dark: bool) -> Panel:
    look = theme(dark=dark)
    if found is None:
        return Panel("modes in use", [], {"title": {"text": "modes"}}, waiting="not decomposed yet")
    lines = [
        _curve(
            found["dimension"].sel(threshold=threshold),
            f"{100 * threshold:.0f} %",
            look.classes[k],
            dash=dash,
            shape="hv",
        )
        for k, (threshold, dash) in enumerate(zip(found["threshold"].values, ("solid", "dash", "dot"), strict=False))
    ]
    lines.append(_curve(found["participation_ratio"], "PR", look.classes[4]))
    lines.append(_curve(found["angle"], "turn (°)", look.muted, dash="dot"))
    right = {"title": {"text": "degrees"}, "range": [0, 92]}
    axis = {"title": {"text": "modes"}, "rangemode": "tozero"}
    return Panel("modes in use", lines, axis, right=frozenset({len(lines) - 1}), right_axis=right, weight=1.2)


def _curve(values: xr.DataArray, name: str, color: str, *, dash: str = "solid", shape: str = "linear") -> go.Scatter:
    known = np.isfinite(values.values.astype(np.float64))
    return go.Scatter(
        x=values["epoch"].values.astype(np.float32),
        y=np.where(known, values.values, np.nan).astype(np.float32),
        mode="lines+markers" if known.sum() == 1 else "lines",
        name=name,
        line={"color": color, "width": 1.8, "dash": dash, "shape": shape},
        hovertemplate=f"{name} %{{y:.4g}}<br>epoch %{{x}}<extra></extra>",
    )


def _shade(figure: go.Figure, found: xr.Dataset, *, dark: bool) -> None:
    """Plateaus shaded, declines shaded in a warmer color, over the strip of separability."""
    look = theme(dark=dark)
    epochs, phase = found["epoch"].values.astype(float), found["phase"].values
    low, high = figure.layout.yaxis.domain
    edges = np.concatenate([[epochs[0]], (epochs[:-1] + epochs[1:]) / 2, [epochs[-1]]]) if len(epochs) else epochs
    for code, color in ((2, look.muted), (3, look.classes[3])):
        inside = np.flatnonzero(phase == code)
        for run in np.split(inside, np.flatnonzero(np.diff(inside) > 1) + 1) if inside.size else []:
            figure.add_shape(
                type="rect",
                x0=edges[run[0]],
                x1=edges[run[-1] + 1],
                y0=low,
                y1=high,
                yref="paper",
                fillcolor=color,
                opacity=0.14,
                line={"width": 0},
                layer="below",
            )


def segmentation_strip(
    predicted: npt.ArrayLike,
    truth: npt.ArrayLike | None = None,
    *,
    names: Sequence[str] | None = None,
    cuts: npt.ArrayLike = (),
    errors: npt.ArrayLike | None = None,
    dark: bool = False,
) -> go.Figure:
    """Two bars over the steps of a long sequence: the label that was found, and the true one, with the cuts.

    Args:
        predicted: label of each step, codes from 0.
        truth: the true codes, or None where nobody knows them.
        names: one name for each code; spare codes are unnamed.
        cuts: steps at which a new piece begins, drawn as lines.
        errors: shape (step,), error of the prediction, drawn as a curve above; NaN where there is none.

    >>> segmentation_strip([0, 0, 1], [0, 1, 1]).data[0].z.shape
    (2, 3)
    """
    found = np.asarray(predicted)
    if not found.size:
        return message("there is no step to label", dark=dark)
    look = theme(dark=dark)
    rows = [found] if truth is None else [np.asarray(truth), found]
    height = int(max(int(row.max()) for row in rows)) + 1
    colors = class_colors(height, dark=dark) if height <= 10 else unit_colors(height)
    labels = [str(names[c]) if names is not None and c < len(names) else f"cluster {c}" for c in range(height)]
    text = [[labels[int(code)] for code in row] for row in rows]
    figure = go.Figure(layout={"template": template(dark=dark)})
    figure.add_heatmap(
        z=np.stack(rows).astype(np.int16),
        y=["found"] if truth is None else ["true", "found"],
        text=text,
        colorscale=stepped(colors),
        zmin=-0.5,
        zmax=height - 0.5,
        showscale=False,
        ygap=6,
        hovertemplate="%{text}<br>step %{x}<extra></extra>",
        yaxis="y",
    )
    present = np.unique(np.concatenate(rows))
    for code in present:
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=labels[int(code)],
            marker={"color": colors[int(code)], "symbol": "square", "size": 10},
        )
    for cut in np.asarray(cuts).tolist():
        figure.add_shape(
            type="line",
            x0=cut - 0.5,
            x1=cut - 0.5,
            y0=0,
            y1=1,
            yref="paper",
            line={"color": look.text, "width": 1, "dash": "dot"},
        )
    if errors is not None:
        figure.add_scatter(
            y=np.asarray(errors, dtype=np.float32),
            mode="lines",
            line={"color": look.muted, "width": 1.2},
            yaxis="y2",
            name="error",
            showlegend=False,
            hovertemplate="error %{y:.3f}<br>step %{x}<extra></extra>",
        )
        figure.update_layout(
            yaxis2={
                "domain": [0.56, 1.0],
                "anchor": "x",
                "title": {"text": "error"},
                "rangemode": "tozero",
                "nticks": 4,
            }
        )
    figure.update_layout(
        yaxis={"domain": [0.0, 0.46 if errors is not None else 1.0], "showgrid": False},
        xaxis={"title": {"text": "step"}, "showgrid": False, "range": [-0.5, len(found) - 0.5]},
        margin={"l": 58, "r": 12, "t": 30, "b": 36},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        uirevision="pod-segments",
    )
    return figure
