"""The picture of the page: which result is shown, in which colors, and which part of it; and what is said below it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import plotly.graph_objects as go
import xarray as xr
from dash import html

from hiddenscope.dashboard import figures, words
from hiddenscope.dashboard.desk import METHODS, Request
from hiddenscope.dashboard.figures.embedding import embedding_at
from hiddenscope.dashboard.figures.metrics import losses
from hiddenscope.dashboard.figures.raster import Window
from hiddenscope.dashboard.figures.template import message
from hiddenscope.dashboard.library import Library, View
from hiddenscope.dashboard.panels.panel import number_of
from hiddenscope.dashboard.picture import METHOD
from hiddenscope.dashboard.supervisor import Supervisor
from hiddenscope.dashboard.trust import gauges
from hiddenscope.errors import HiddenscopeError

COLORS = {
    "epoch": "epoch",
    "step": "step",
    "unit": "unit",
    "class": "most active class",
    "cluster": "unit cluster",
    "intra": "intra-step entropy",
    "inter": "inter-step entropy",
    "loss": "loss",
}
CHOICES = {METHOD: "MM-PHATE", **METHODS}
STALE = 0.8
"""Another method's picture that covers a smaller part of a training's epochs is asked for anew."""

Range = tuple[float, float] | None


@dataclass(frozen=True)
class Look:
    """How the picture is wanted.

    Attributes:
        method: a key of `CHOICES`.
        color: a key of `COLORS`.
        dimensions: 2 or 3.
        steps: the first and the last step that are shown; None for all.
        epochs: the same for epochs.
        window: the part of the plane that the reader has zoomed into.
        dark: for dark backgrounds.
    """

    method: str = METHOD
    color: str = "epoch"
    dimensions: int = 3
    steps: Range = None
    epochs: Range = None
    window: Window | None = None
    dark: bool = False

    def mark(self) -> list[Any]:
        """Equal for looks that are drawn alike; plain JSON."""
        return [
            self.method,
            self.color,
            self.dimensions,
            list(self.steps or ()),
            list(self.epochs or ()),
            list(self.window or ()),
            self.dark,
        ]


def look_of(asked: object, *, dark: bool) -> Look:
    """A look from what a browser sends; what makes no sense becomes the default.

    >>> look_of({"color": "step", "range": {"steps": [3, 9], "epochs": "x"}, "dimensions": "2"}, dark=False).steps
    (3.0, 9.0)
    >>> look_of(None, dark=True)
    Look(method='mmphate', color='epoch', dimensions=3, steps=None, epochs=None, window=None, dark=True)
    """
    told: Mapping[str, object] = asked if isinstance(asked, dict) else {}
    method, color, part = told.get("method"), told.get("color"), told.get("range")
    ranges: Mapping[str, object] = part if isinstance(part, dict) else {}
    dimensions = 2 if told.get("dimensions") == "2" else 3
    zoom = _numbers(told.get("zoom"), 4) if dimensions == 2 else None
    if zoom is not None and not (zoom[0] < zoom[1] and zoom[2] < zoom[3]):
        zoom = None
    return Look(
        method=method if isinstance(method, str) and method in CHOICES else METHOD,
        color=color if isinstance(color, str) and color in COLORS else "epoch",
        dimensions=dimensions,
        steps=_range(ranges.get("steps")),
        epochs=_range(ranges.get("epochs")),
        window=None if zoom is None else (zoom[0], zoom[1], zoom[2], zoom[3]),
        dark=dark,
    )


def with_method(
    library: Library, name: str, view: View, method: str, supervisor: Supervisor | None
) -> tuple[View, str, str]:
    """A view whose result is the picture of a method; then what to say where there is none, and what beside it.

    What is missing, or long out of date, is asked of the worker; ask until it is there.
    """
    if method == METHOD:
        text = "The first picture is being made \u2026<br>the curves at the right are already live."
        return view, text, ""
    title = METHODS[method]
    try:
        result = library.result(name, view.layer, method)
        newest = float(view.epochs[-1])
        covered = None if result is None else float(result.attrs["covers_epoch"])
        if method == "pca" and covered != newest:
            at_once = library.at_once(name, view.layer)
            if at_once is not None:
                return replace(view, result=at_once), "", ""
    except (HiddenscopeError, OSError, KeyError, ValueError) as error:
        return replace(view, result=None), f"{title} cannot be shown:<br>{_wrapped(str(error))}", ""
    path = library.runs()[name].path
    entry = library.worker(name)
    failed = words.failed_studies(entry, view.layer, [method])
    request = Request(path, view.layer, method)
    if result is not None:
        old = covered != newest
        much = view.status != "training" or int(result.attrs.get("epoch_count", 0)) < STALE * len(view.epochs)
        if old and much and not failed and supervisor is not None:
            supervisor.ask(request.line())
        return replace(view, result=result), "", words.older(covered, newest) if old else ""
    view = replace(view, result=None)
    if failed:
        return view, f"{title} could not be computed:<br>{_wrapped(failed[0])}", ""
    if supervisor is None:
        return view, f"{title} is not stored with this run, and this page has no worker that could make it.", ""
    if not supervisor.ask(request.line()):
        return view, f"{title} is made as soon as the worker runs \u2026", ""
    return view, f"{title} is being computed \u2026<br>seconds for a small run, a minute or two for a large one.", ""


def picture_figure(
    view: View,
    *,
    color: str = "epoch",
    dimensions: int = 3,
    dark: bool = False,
    look: Look | None = None,
    clusters: xr.DataArray | None = None,
    waiting: str = "The first picture is being made \u2026<br>the curves at the right are already live.",
) -> go.Figure:
    """The embedding of a view in the coloring that was chosen, or a figure that says why there is none.

    Args:
        view: what is shown.
        color, dimensions, dark: as in `Look`, where no ``look`` is given.
        look: how it is shown.
        clusters: the name of each unit's cluster, dims (unit,).
        waiting: what to say while there is no result.
    """
    look = look or Look(color=color, dimensions=dimensions, dark=dark)
    if view.result is None:
        return message(waiting, dark=look.dark)
    coloring, names, problem = coloring_of(view, look.color, clusters)
    if problem:
        return message(problem, dark=look.dark)
    points = part_of(view.result["embedding"], look)
    if not points.size:
        return message("No step or epoch of this picture lies in the chosen range;<br>widen it.", dark=look.dark)
    figure = figures.embedding(
        points,
        color=coloring,
        class_names=names,
        dimensions=look.dimensions,
        rasterized=True,
        window=look.window,
        dark=look.dark,
    )
    if look.dimensions == 2:  # a zoom outlives new epochs and colors, not another run or method
        figure.update_layout(uirevision=f"{look.method} of {view.name}, {view.layer}")
    return figure


def frame(view: View, look: Look, epoch: float, clusters: xr.DataArray | None = None) -> dict[str, Any] | None:
    """One epoch of the picture in full, as a Plotly trace; None where there is nothing to show."""
    if view.result is None:
        return None
    coloring, names, problem = coloring_of(view, look.color, clusters)
    points = part_of(view.result["embedding"], look)
    if problem or not points.size:
        return None
    limit = 2_500 if look.dimensions == 3 else 20_000
    figure = embedding_at(
        points, epoch, color=coloring, class_names=names, dimensions=look.dimensions, limit=limit, dark=look.dark
    )
    found: dict[str, Any] = figure.to_dict()["data"][0]
    return found


def part_of(embedding: xr.DataArray, look: Look) -> xr.DataArray:
    """The steps and epochs of an embedding that are wanted."""
    for dim, wanted in (("step", look.steps), ("epoch", look.epochs)):
        if wanted is not None:
            at = embedding[dim].values
            embedding = embedding.isel({dim: (at >= wanted[0]) & (at <= wanted[1])})
    return embedding


def coloring_of(
    view: View, color: str, clusters: xr.DataArray | None = None
) -> tuple[str | xr.DataArray, tuple[str, ...] | None, str]:
    """What the points are colored by, the names of its codes if it has any, and why that cannot be done."""
    result = view.result
    assert result is not None
    if color == "class":
        if view.class_names is None:
            return color, None, "The probe has no class labels,<br>so no unit can be said to answer to a class."
        return result["most_active_class"].rename("most active class"), view.class_names, ""
    if color == "cluster":
        if clusters is None:
            return color, None, "Units are clustered after the first picture;<br>the colors appear then."
        names = tuple(sorted({str(name) for name in clusters.values if str(name)}))
        codes = [names.index(str(name)) if str(name) else -1 for name in clusters.values]
        return clusters.copy(data=codes).rename("unit cluster"), names, ""
    if color == "loss":
        found = losses(view.metrics)
        if not found:
            return color, None, "No loss is logged with this run,<br>so there is nothing to color the epochs by."
        column = view.metrics[found[0]]
        values = xr.DataArray(column.to_numpy(float), dims="epoch", coords={"epoch": column.index.to_numpy(float)})
        return values.rename(found[0]), None, ""
    if color in ("intra", "inter"):
        return result[f"{color}_step_entropy"].rename(f"{color}-step entropy (nats)"), None, ""
    return color, None, ""


def note(view: View, shown: str, beside: str) -> list[Any]:
    """What is said below the picture: how far to trust it, and what it leaves out."""
    if view.result is None:
        return []
    parts = [beside, words.left_out(view.result, shown, view.nodes), words.measured_on(view.result.attrs)]
    said = html.Div(" \u00b7 ".join(part for part in parts if part))
    measured = gauges(view.result.attrs)
    return [said] if measured is None else [measured, said]


def _range(value: object) -> Range:
    numbers = _numbers(value, 2)
    return None if numbers is None or numbers[0] > numbers[1] else (numbers[0], numbers[1])


def _numbers(value: object, count: int) -> list[float] | None:
    if not isinstance(value, list) or len(value) != count:
        return None
    numbers = [number for number in map(number_of, value) if number is not None]
    return numbers if len(numbers) == count else None


def _wrapped(text: str) -> str:
    return "<br>".join(textwrap.wrap(escape(text)[:400], 60))
