"""The embedding: one point per hidden unit, time step and epoch (the pictures of MM-PHATE, Xie et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import xarray as xr

from hiddenscope.dashboard.figures.decimate import LIMIT_2D, LIMIT_3D, decimate
from hiddenscope.dashboard.figures.raster import Window, rasterize
from hiddenscope.dashboard.figures.template import (
    Colorscale,
    class_colors,
    colorbar,
    colorscale,
    epoch_text,
    message,
    stepped,
    template,
    unit_colors,
)
from hiddenscope.trace import as_embedding

NODE_DIMS = ("epoch", "step", "unit")


@dataclass(frozen=True)
class Coloring:
    """A number per point, and how numbers become colors."""

    values: npt.NDArray[np.float32]
    scale: Colorscale
    low: float
    high: float
    title: str
    ticks: tuple[tuple[float, str], ...] = ()
    blends: bool = True
    """Whether a value between two others makes sense, as it does not for codes."""


def embedding(
    points: xr.DataArray | npt.ArrayLike,
    *,
    color: str | xr.DataArray = "epoch",
    class_names: Sequence[str] | None = None,
    dimensions: int = 3,
    limit: int | None = None,
    rasterized: bool = False,
    window: Window | None = None,
    dark: bool = False,
) -> go.Figure:
    """Every unit at every step of every epoch, as one cloud.

    The points are drawn in the order (epoch, step, unit), so that an epoch is one contiguous block;
    ``figure.layout.meta`` holds the labels of the three axes, a ``note`` on what was left out, and whether that is
    nothing, as ``complete``.

    Args:
        points: an embedding of dims (epoch, step, unit, component) with at least ``dimensions`` components.
        color: ``"epoch"``, ``"step"``, ``"unit"``, or values whose dims are among epoch, step and unit (its ``name``
            becomes the title of the color bar; points that are NaN are drawn gray).
        class_names: given when ``color`` holds integer codes of classes; code -1 means no class.
        dimensions: 3, or 2 for the first two components.
        limit: draw no more than about this many points (`decimate`); by default what software rendering draws
            smoothly, 5,000 in 3-D and 20,000 in 2-D.
        rasterized: above the limit, in 2-D, all points are drawn as an image, over which those within the limit lie
            unseen to be pointed at; where no more than ``limit`` points are in the ``window``, these are drawn as
            points, every one of them.
        window: the part of the plane in view, when the reader has zoomed in; only for images.

    Raises:
        ValueError: ``dimensions`` is neither 2 nor 3 or exceeds the components, or ``color`` is unknown.

    >>> cloud = np.random.default_rng(0).normal(size=(2, 4, 5, 3))
    >>> embedding(cloud, color="unit").data[0].x.shape
    (40,)
    """
    named = as_embedding(points)
    if dimensions not in (2, 3):
        raise ValueError(f"an embedding is drawn in 2 or 3 dimensions, got dimensions={dimensions}")
    if named.sizes["component"] < dimensions:
        raise ValueError(f"{dimensions} components are needed, this embedding has {named.sizes['component']}")
    if min(named.sizes[dim] for dim in NODE_DIMS) == 0:
        return message("no epoch is embedded yet", dark=dark)
    if limit is None:
        limit = LIMIT_3D if dimensions == 3 else LIMIT_2D
    shown, note = decimate(named, limit)
    coloring = _coloring(named, shown, color, class_names, dark=dark)
    figure = go.Figure(layout={"template": template(dark=dark)})
    figure.add_trace(_cloud(shown, coloring, dimensions=dimensions, dark=dark))
    if rasterized and note and dimensions == 2:
        every = _coloring(named, named, color, class_names, dark=dark)
        note = _add_image(figure, named, every, window, limit, dark=dark)
    figure.update_layout(
        meta={
            "epochs": [float(epoch) for epoch in shown["epoch"].values],
            "steps": shown["step"].values.tolist(),
            "units": shown["unit"].values.tolist(),
            "note": note,
            "complete": shown.sizes == named.sizes,
        },
        margin={"l": 0, "r": 0, "t": 0, "b": 0} if dimensions == 3 else {"l": 34, "r": 108, "t": 12, "b": 36},
        showlegend=False,
        hovermode="closest",
        uirevision=f"embedding-{dimensions}",
    )
    if dimensions == 3:
        camera = {"eye": {"x": 1.0, "y": 1.0, "z": 0.6}, "projection": {"type": "orthographic"}}
        figure.update_scenes(_filling(named), domain_x=[0, 0.88], camera=camera, dragmode="turntable")
    else:
        figure.update_xaxes(title_text="component 1", showticklabels=False, showgrid=False)
        figure.update_yaxes(title_text="component 2", showticklabels=False, showgrid=False, scaleanchor="x")
    return figure


def embedding_at(
    points: xr.DataArray,
    epoch: float,
    *,
    color: str | xr.DataArray = "epoch",
    class_names: Sequence[str] | None = None,
    dimensions: int = 3,
    limit: int = 2_500,
    dark: bool = False,
) -> go.Figure:
    """One epoch of `embedding` in full, in the same colors, for a cursor in a cloud that is drawn with gaps.

    Args:
        points: as for `embedding`, with named dims and coordinates.
        epoch: the newest epoch up to this one is drawn.
        color, class_names, dimensions, dark: as for `embedding`.
        limit: with more points than this, steps are left out evenly.
    """
    before = np.flatnonzero(points["epoch"].values <= epoch + 1e-9)
    at = points.isel(epoch=[before[-1] if len(before) else 0])
    shown, _ = decimate(at, limit)
    coloring = _coloring(points, shown, color, class_names, dark=dark)
    return go.Figure(_cloud(shown, coloring, dimensions=dimensions, dark=dark))


def _add_image(
    figure: go.Figure, named: xr.DataArray, coloring: Coloring, window: Window | None, limit: int, *, dark: bool
) -> str:
    """Draw all points as an image, or those in the window as points where they are few; says which."""
    plane = named.values.reshape(-1, named.sizes["component"])[:, :2]
    figure.data[0].update(opacity=0, hoverinfo="skip", hovertemplate=None)
    if window is not None:
        low_x, high_x, low_y, high_y = window
        x, y = plane[:, 0], plane[:, 1]
        seen = np.flatnonzero((x >= low_x) & (x <= high_x) & (y >= low_y) & (y <= high_y))
        if len(seen) <= limit:
            every = _cloud(named, coloring, dimensions=2, dark=dark, only=seen)
            every.update(name="in view", marker={"showscale": False, "size": 5 if len(seen) > 2_000 else 7})
            figure.add_trace(every)
            return f"zoomed in: all {len(seen):,} points here, of {len(plane):,}"
    figure.data[0].update(hoverinfo=None, hovertemplate=_HOVER)
    raster = rasterize(
        plane,
        coloring.values,
        scale=coloring.scale,
        low=coloring.low,
        high=coloring.high,
        blend=coloring.blends,
        window=window,
    )
    figure.add_layout_image(raster.image())
    return f"all {len(plane):,} points as an image; zoom in to see each, up to {limit:,}"


_HOVER = "unit %{customdata[2]}<br>step %{customdata[1]}<br>epoch %{customdata[0]}<extra></extra>"


def _cloud(
    shown: xr.DataArray,
    coloring: Coloring,
    *,
    dimensions: int,
    dark: bool,
    only: npt.NDArray[np.intp] | slice = slice(None),
) -> go.Scatter3d | go.Scattergl:
    xyz = shown.values.reshape(-1, shown.sizes["component"])[only].astype(np.float32)
    marker: dict[str, Any] = {
        "color": coloring.values[only],
        "colorscale": coloring.scale,
        "cmin": coloring.low,
        "cmax": coloring.high,
        "colorbar": _bar(coloring, dimensions=dimensions, dark=dark),
        "line": {"width": 0},
    }
    shared: dict[str, Any] = {
        "mode": "markers",
        "customdata": _labels(shown, only),
        "hovertemplate": _HOVER,
        "name": "embedding",
    }
    if dimensions == 3:
        size = 2.0 if len(xyz) > 1500 else 3.0
        return go.Scatter3d(
            x=xyz[:, 0], y=xyz[:, 1], z=xyz[:, 2], marker=marker | {"size": size}, opacity=0.9, **shared
        )
    size = 3.5 if len(xyz) > 5000 else 5
    return go.Scattergl(x=xyz[:, 0], y=xyz[:, 1], marker=marker | {"size": size}, opacity=0.8, **shared)


def _filling(named: xr.DataArray) -> dict[str, Any]:
    """Axes of equal scale, unseen since directions mean nothing; the cloud fills the view however it is turned.

    An orthographic view is about 2.6 units high; all but the farthest points in a hundred are kept within.
    """
    points = named.values.reshape(-1, named.sizes["component"])[:, :3].astype(np.float64)
    points = points[np.isfinite(points).all(axis=1)]
    hidden: dict[str, Any] = {f"{axis}axis": {"visible": False} for axis in "xyz"}
    if not len(points):
        return hidden | {"aspectmode": "cube"}
    low, high = points.min(axis=0), points.max(axis=0)
    distance = np.linalg.norm(points - (low + high) / 2, axis=1)
    scale = 1.05 / max(float(np.percentile(distance, 99)), 1e-12)
    sizes = np.clip(scale * (high - low), 1e-3, 10)
    return hidden | {"aspectmode": "manual", "aspectratio": dict(zip("xyz", sizes.tolist(), strict=True))}


def _labels(shown: xr.DataArray, only: npt.NDArray[np.intp] | slice) -> npt.NDArray[np.generic]:
    """(point, 3): epoch, step and unit of each point, in the order of the points."""
    axes = [np.asarray(shown[dim].values) for dim in NODE_DIMS]
    sizes = tuple(len(axis) for axis in axes)
    count = int(np.prod(sizes))
    at = np.unravel_index(np.arange(count)[only], sizes)
    numeric = all(np.issubdtype(axis.dtype, np.number) for axis in axes)
    kind = np.float32 if numeric else object
    return np.stack([axis[index].astype(kind) for axis, index in zip(axes, at, strict=True)], axis=1)


def _bar(coloring: Coloring, *, dimensions: int, dark: bool) -> dict[str, object]:
    bar = colorbar(title=coloring.title, dark=dark) | {
        "len": 0.62,
        "x": 0.87 if dimensions == 3 else 1.01,
        "xanchor": "left",
        "y": 0.5,
    }
    if coloring.ticks:
        bar |= {"tickvals": [at for at, _ in coloring.ticks], "ticktext": [text for _, text in coloring.ticks]}
    return bar


def _coloring(
    named: xr.DataArray,
    shown: xr.DataArray,
    color: str | xr.DataArray,
    class_names: Sequence[str] | None,
    *,
    dark: bool,
) -> Coloring:
    if isinstance(color, xr.DataArray):
        unknown = set(color.dims) - set(NODE_DIMS)
        if unknown:
            raise ValueError(f"colors have dims among {NODE_DIMS}, got {color.dims}")
        values = _per_point(color, shown)
        if class_names is not None:
            return _classes(values, color, class_names, dark=dark)
        finite = color.values[np.isfinite(color.values)]
        low, high = np.percentile(finite, [1, 99]) if len(finite) else (0.0, 1.0)
        scale = colorscale("value", dark=dark)
        return Coloring(values, scale, float(low), float(max(high, low + 1e-9)), str(color.name or "value"))
    if color not in NODE_DIMS:
        raise ValueError(f"color is 'epoch', 'step', 'unit' or a DataArray over them, got {color!r}")
    axis = named[color].values
    if color == "unit":
        codes = xr.DataArray(np.arange(len(axis)), dims="unit", coords={"unit": axis})
        ticks = tuple((float(i), str(axis[i])) for i in np.unique(np.linspace(0, len(axis) - 1, 6).astype(int)))
        hues = stepped(unit_colors(len(axis)))
        return Coloring(_per_point(codes, shown), hues, -0.5, len(axis) - 0.5, "unit", ticks, blends=False)
    values = _per_point(named[color], shown)
    low, high = float(axis.min()), float(axis.max())
    ticks = ()
    if color == "epoch" and low == -1:
        marks = [mark for mark in _round_marks(high) if mark > 0.12 * high]
        ticks = ((-1.0, epoch_text(-1)), *((float(mark), f"{mark:g}") for mark in marks))
    return Coloring(values, colorscale(color, dark=dark), low, max(high, low + 1), color, ticks)


def _classes(
    values: npt.NDArray[np.float32], color: xr.DataArray, class_names: Sequence[str], *, dark: bool
) -> Coloring:
    count = len(class_names)
    ticks = tuple((float(i), str(name)) for i, name in enumerate(class_names))
    scale = stepped(class_colors(count, dark=dark))
    values = np.where((values >= 0) & (values < count), values, np.nan).astype(np.float32)
    return Coloring(values, scale, -0.5, count - 0.5, str(color.name or "class"), ticks, blends=False)


def _per_point(values: xr.DataArray, shown: xr.DataArray) -> npt.NDArray[np.float32]:
    """The value of each shown point, whichever of its dims the values have; points without one get NaN."""
    at = values.reindex({dim: shown[dim] for dim in values.dims}) if values.dims else values
    frame = shown.isel(component=0, drop=True)
    spread = at.broadcast_like(frame).transpose(*NODE_DIMS)
    return np.asarray(spread.values, dtype=np.float32).ravel()


def _round_marks(high: float) -> list[float]:
    """About four round numbers from 0 to ``high``."""
    if high <= 0:
        return [0.0]
    magnitude = 10.0 ** np.floor(np.log10(high))
    step = next(m * magnitude for m in (0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 2.5, 5.0) if high / (m * magnitude) <= 5)
    return [float(mark) for mark in np.arange(0, high + step / 2, step) if mark <= high]
