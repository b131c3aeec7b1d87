"""Pictures side by side: a row per coloring, a column per method, so that methods can be compared at a glance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from hiddenscope.dashboard.figures.decimate import evenly
from hiddenscope.dashboard.figures.embedding import embedding
from hiddenscope.dashboard.figures.template import SMALL, message, paper_text, template, theme

_GAP = 0.012
_LIMIT = 6_000
_STEPS = 20
"""With fewer steps a thread along the sequence would fall apart into islands."""
_EPOCHS = 6
"""With fewer epochs their colors would show no course; wide layers get fewer steps instead."""


def embedding_grid(
    pictures: Mapping[str, xr.DataArray],
    colors: Mapping[str, str | xr.DataArray],
    *,
    class_names: Mapping[str, Sequence[str]] | None = None,
    limit: int = _LIMIT,
    dark: bool = False,
) -> go.Figure:
    """Every picture in every coloring, each seen from where it is widest.

    A picture of three components is drawn as its projection on the two directions in which it is widest, and scaled to
    fill its place: sizes of different methods cannot be compared anyway.

    Args:
        pictures: title of a column to an embedding of dims (epoch, step, unit, component).
        colors: title of a row to a color as `hiddenscope.dashboard.figures.embedding` takes it.
        class_names: title of a row to the names of the classes that its color holds the codes of.
        limit: draw no more than about this many points in each place: steps are thinned to 20, then epochs to
            6, then steps again.
        dark: for dark backgrounds.

    >>> cloud = np.random.default_rng(0).normal(size=(2, 4, 5, 3))
    >>> cloud = xr.DataArray(cloud, dims=("epoch", "step", "unit", "component"))
    >>> len(embedding_grid({"one": cloud, "two": cloud}, {"epoch": "epoch", "step": "step"}).data)
    4
    """
    if not pictures or not colors:
        return message("no picture was made", dark=dark)
    look = theme(dark=dark)
    figure = go.Figure(layout={"template": template(dark=dark)})
    columns, rows = _places(len(pictures)), _places(len(colors))
    annotations: list[dict[str, Any]] = []
    layout: dict[str, Any] = {}
    flat = {title: widest_view(_thinned(picture, limit)) for title, picture in pictures.items()}
    number = 0
    for row, (coloring, color) in enumerate(colors.items()):
        low, high = rows[len(rows) - 1 - row]
        names = (class_names or {}).get(coloring)
        for column, picture in enumerate(flat.values()):
            number += 1
            suffix = "" if number == 1 else str(number)
            single = embedding(picture, color=color, class_names=names, dimensions=2, limit=2 * limit, dark=dark)
            for trace in single.data:
                last = column == len(flat) - 1
                trace.update(xaxis=f"x{suffix}", yaxis=f"y{suffix}", opacity=0.7)
                trace.marker.update(size=3, showscale=last)
                if last and trace.marker.colorbar is not None:
                    trace.marker.colorbar.update(
                        x=1.005, y=(low + high) / 2, len=0.9 * (high - low), title={"text": coloring}
                    )
                figure.add_trace(trace)
            empty = {"visible": False, "showgrid": False}
            layout[f"xaxis{suffix}"] = {**empty, "domain": list(columns[column]), "anchor": f"y{suffix}"}
            layout[f"yaxis{suffix}"] = {**empty, "domain": [low, high], "anchor": f"x{suffix}"}
    for column, title in enumerate(flat):
        annotations.append(paper_text(title, sum(columns[column]) / 2, 1.0, color=look.text, size=SMALL + 2))
    figure.update_layout(
        annotations=annotations,
        showlegend=False,
        hovermode="closest",
        margin={"l": 8, "r": 90, "t": 30, "b": 8},
        **layout,
    )
    return figure


def widest_view(picture: xr.DataArray) -> xr.DataArray:
    """The projection of a picture on the two directions in which it is widest; as it is with two components or fewer.

    The sign of each direction is chosen so that the last epoch lies on its positive side, on average.

    Args:
        picture: dims (epoch, step, unit, component); NaN where a node is not shown.

    >>> line = xr.DataArray(np.arange(6.0).reshape(3, 1, 1, 2) * [1, 0], dims=("epoch", "step", "unit", "component"))
    >>> widest_view(line.pad(component=(1, 0), constant_values=0.0)).sizes["component"]
    2
    """
    named = picture.transpose("epoch", "step", "unit", "component")
    if named.sizes["component"] <= 2:
        return named
    values = named.values.reshape(-1, named.sizes["component"]).astype(np.float64)
    known = np.isfinite(values).all(axis=1)
    if known.sum() < 2:
        return named.isel(component=slice(0, 2))
    centered = values - values[known].mean(axis=0)
    _, directions = np.linalg.eigh(centered[known].T @ centered[known])
    seen = centered @ directions[:, ::-1][:, :2]
    last = seen.reshape(named.sizes["epoch"], -1, 2)[-1]
    ahead = np.nansum(last, axis=0)
    shape = (*named.shape[:3], 2)
    coords = {dim: named[dim] for dim in ("epoch", "step", "unit") if dim in named.coords}
    flipped = seen * np.where(ahead < 0, -1.0, 1.0)
    return xr.DataArray(flipped.reshape(shape), dims=named.dims, coords=coords, attrs=dict(picture.attrs))


def _thinned(picture: xr.DataArray, limit: int) -> xr.DataArray:
    """About ``limit`` points: up to `_STEPS` steps evenly, fewer where `_EPOCHS` epochs have no room beside them."""
    steps, units, epochs = (picture.sizes[dim] for dim in ("step", "unit", "epoch"))
    if steps * units * epochs <= limit:
        return picture
    kept = min(steps, _STEPS, max(2, limit // (units * min(epochs, _EPOCHS))))
    return picture.isel(step=evenly(steps, kept), epoch=evenly(epochs, max(2, limit // (kept * units))))


def _places(count: int) -> list[tuple[float, float]]:
    width = (1.0 - _GAP * (count - 1)) / count
    return [(i * (width + _GAP), i * (width + _GAP) + width) for i in range(count)]
