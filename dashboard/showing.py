"""The panels of the page where there is no page: in TensorBoard's tab and in the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
import xarray as xr
from dash.development.base_component import Component

from hiddenscope.dashboard.figures.table import table
from hiddenscope.dashboard.focus import NOTHING, Focus
from hiddenscope.dashboard.library import View, class_names
from hiddenscope.dashboard.panels import Panel, Scene
from hiddenscope.dashboard.picture import METHOD
from hiddenscope.run import Run

_QUIET = {
    "Script",
    "Style",
    "Store",
    "Interval",
    "Select",
    "Slider",
    "Input",
    "TextInput",
    "Button",
    "Label",
    "Upload",
}
_HEIGHT = 420


@dataclass(frozen=True)
class Shown:
    """One figure of a panel, with the words that stood before it.

    Attributes:
        words: plain text, one paragraph each.
        figure: what is drawn, as plain JSON types and numpy arrays.
        height: in pixels.
        picks: what a click on one of its points picks: ``"units"``, ``"epochs"`` or, as on most figures, nothing.
    """

    words: tuple[str, ...]
    figure: go.Figure
    height: int
    picks: str = ""


def panel_scene(
    panel: Panel,
    run: Run,
    view: View,
    *,
    epoch: float | None = None,
    units: tuple[str, ...] = (),
    dark: bool = False,
    options: Mapping[str, str] | None = None,
    focus: Focus = NOTHING,
) -> Scene | None:
    """What a panel is given to draw of a layer; None when nothing that it draws is stored.

    Args:
        panel: which one.
        run: the run, pinned to the commit of ``view``.
        view: the layer, as `Library.view` or `view_of` gives it.
        epoch: where the cursor stands; None for all epochs.
        units: picked units.
        dark: whether the surroundings are dark.
        options: values of the panel's controls; their first choices where they are not given, or odd.
        focus: the sequence, period or words that are picked.
    """
    results = {method: run.results.get(view.layer, method) for method in panel.methods}
    if panel.waits and panel.methods and all(result is None for result in results.values()):
        return None
    given = options or {}
    chosen = {
        name: given[name] if given.get(name) in choices else choices[0]
        for name, (_, choices) in (panel.controls or {}).items()
    }
    return Scene(view, run, results, epoch if panel.follows_cursor else None, units, chosen, dark, focus)


def figures_of(components: Any, *, dark: bool = False) -> Iterator[Shown]:
    """The figures in what a panel has drawn, in order; tables become figures, and controls are left out.

    Args:
        components: Dash components, nested in any way.
        dark: whether tables are for a dark page.
    """
    words: list[str] = []
    for kind, value in _walk(components, dark):
        if kind == "words":
            words.append(value)
            continue
        figure, height, picks = value
        yield Shown(tuple(words), figure, height, picks)
        words = []
    if words:
        yield Shown(tuple(words), go.Figure(), 0)


def view_of(run: Run, layer: str) -> View:
    """A layer of a run as the page sees it, without a library."""
    return View(
        name=run.name,
        layer=layer,
        layers=run.layers,
        status=run.status,
        epochs=run.epochs,
        updated_at=run.updated_at,
        metrics=run.metrics(),
        class_names=class_names(run),
        result=run.results.get(layer, METHOD),
        version=run.version,
        result_version=run.results.version,
    )


def clusters_and_phases(run: Run, layer: str) -> tuple[xr.DataArray | None, xr.Dataset | None]:
    """What curves are drawn with, where it is stored: the name of each unit's cluster, and the phases."""
    clusters = run.results.get(layer, "clusters")
    return None if clusters is None else clusters["unit_cluster"], run.results.get(layer, "phases")


def _walk(component: Any, dark: bool) -> Iterator[tuple[str, Any]]:
    if component is None or isinstance(component, bool):
        return
    if isinstance(component, str | int | float):
        text = " ".join(str(component).split())
        if text:
            yield "words", text
    elif isinstance(component, list | tuple):
        yield from (found for each in component for found in _walk(each, dark))
    elif isinstance(component, Component):
        name = type(component).__name__
        if name == "Graph":
            figure = getattr(component, "figure", None)
            if figure is not None:
                drawn = figure if isinstance(figure, go.Figure) else go.Figure(figure, skip_invalid=True)
                yield "figure", (drawn, _height(component, drawn), _picks(component))
        elif name == "AgGrid":
            columns = [each for each in getattr(component, "columnDefs", None) or () if "field" in each]
            rows = getattr(component, "rowData", None) or []
            titles = [(each["field"], str(each.get("headerName", each["field"]))) for each in columns]
            drawn = table(titles, rows, weights=[each.get("flex", 1) for each in columns], dark=dark)
            yield "figure", (drawn, int(drawn.layout.height), "")
        elif name not in _QUIET:
            inside = list(_walk(getattr(component, "children", None), dark))
            if inside and all(kind == "words" for kind, _ in inside):
                yield "words", " ".join(text for _, text in inside)  # one paragraph
            else:
                yield from inside


def _picks(graph: Component) -> str:
    name = getattr(graph, "id", None)
    kind = str(name.get("type", "")) if isinstance(name, dict) else ""
    return kind.removeprefix("panel-") if kind in ("panel-units", "panel-epochs") else ""


def _height(graph: Component, figure: go.Figure) -> int:
    if figure.layout.height:
        return int(figure.layout.height)
    style = getattr(graph, "style", None) or {}
    given = str(style.get("height", "")).removesuffix("px")
    return int(given) if given.isdigit() else _HEIGHT
