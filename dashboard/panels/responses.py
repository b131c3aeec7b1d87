"""How the units answer a step and sines at the input of the network, now and since training began."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from dash import html

from hiddenscope.analyses.response_study import METHOD, REFERENCE, REMOVAL, newest_numbers
from hiddenscope.dashboard.figures.removal import importance_against, removal
from hiddenscope.dashboard.figures.responses import bode, extremes, over_epochs, step_map, unit_bars
from hiddenscope.dashboard.figures.template import epoch_text, message
from hiddenscope.dashboard.panels.graph import graph
from hiddenscope.dashboard.panels.panel import Panel, Scene, epoch_at

_VIEWS = ("overview", "every unit", "removal")
_READINGS = ("in-network", "isolated")
_HEIGHT = 380
_MEANS = {"not at rest": " (the network keeps moving at constant input: isolated units still answer)"}


def draw(scene: Scene) -> list[Any]:
    """The view that is asked for; the overview has four figures."""
    result = scene.results.get(METHOD)
    view = scene.options.get("view", _VIEWS[0])
    if view == "removal":
        return _removal(scene.results.get(REMOVAL), dark=scene.dark)
    if result is None:
        waiting = message("drawn as soon as the responses are computed", dark=scene.dark)
        return [graph("responses-none", waiting, _HEIGHT)]
    if view == "every unit":
        numbers = newest_numbers(result)
        ranks = xr.Dataset({"rank": result["rank"], "combined": result["combined_rank"]})
        figure = unit_bars(numbers, ranks, selected=list(scene.units), dark=scene.dark)
        about = _about(result, float(result["epoch"].values[-1]))
        return [about, graph({"type": "panel-units", "name": "responses-bars"}, figure, 820)]
    return [_overview(scene, result)]


def _overview(scene: Scene, result: xr.Dataset) -> html.Div:
    newest = float(result["epoch"].values[-1])
    epoch = epoch_at(result["epoch"].values, scene.epoch)
    reading = scene.options.get("reading", _READINGS[0])
    if reading not in result["reading"].values:
        reading = str(result["reading"].values[0])
    answers = result["step_response"].sel(reading=reading, drop=True)
    alone = reading == "isolated"
    last = result.isel(epoch=-1, drop=True)
    settling = last["isolated_settling_time" if alone else "settling_time"]
    overshoot = last["isolated_overshoot" if alone else "overshoot"]
    both = (result["isolated_gain"], result["isolated_phase"]) if "isolated_gain" in result else None
    frequency = bode(
        result["gain"].sel(epoch=epoch),
        result["phase"].sel(epoch=epoch),
        change=result["change"].sel(epoch=epoch),
        isolated=both if epoch == newest else None,
        selected=list(scene.units),
        title=f"frequency response, epoch {epoch_text(epoch)}",
        dark=scene.dark,
    )
    figures = [
        graph(
            {"type": "panel-epochs", "name": "responses-epochs"},
            over_epochs(result, scene.view.metrics, period=REFERENCE, dark=scene.dark),
            2 * _HEIGHT,
            gridRow="span 2",
        ),
        graph({"type": "panel-units", "name": "responses-map"}, step_map(answers, settling, dark=scene.dark), _HEIGHT),
        graph({"type": "panel-units", "name": "responses-bode"}, frequency, _HEIGHT),
        graph(
            {"type": "panel-units", "name": "responses-extremes"},
            extremes(answers, settling, overshoot, dark=scene.dark),
            300 if np.isfinite(settling.values).any() else 90,
            gridColumn="1 / -1",
        ),
    ]
    grid = {"display": "grid", "gridTemplateColumns": "repeat(2, minmax(0, 1fr))", "gap": "6px 14px"}
    return html.Div([_about(result, newest), html.Div(figures, style=grid)])


def _removal(result: xr.Dataset | None, *, dark: bool) -> list[Any]:
    if result is None:
        text = "Removing units takes the model itself: hiddenscope analyze RUN --model MODULE:CLASS, or hs.analyze"
        return [graph("responses-removal-none", message(text, dark=dark), _HEIGHT)]
    quantity = str(result.attrs.get("quantity", "score"))
    names = [str(name) for name in result["metric"].values if name in result]
    correlation = dict(zip(result["metric"].values.tolist(), result["correlation"].values.tolist(), strict=True))
    against = importance_against(
        {name: result[name].values for name in names},
        result["importance"].values,
        result["unit"].values,
        correlation,
        quantity=str(result.attrs.get("worth", f"fall of the {quantity}")),
        dark=dark,
    )
    return [
        graph("responses-removal", removal(result, quantity=quantity, dark=dark), 560),
        graph({"type": "panel-units", "name": "responses-importance"}, against, 440),
    ]


def _about(result: xr.Dataset, epoch: float) -> html.P:
    flags, counts = np.unique(result["step_flag"].isel(epoch=-1).values, return_counts=True)
    told = [
        f"{count} {flag}{_MEANS.get(flag, '')}"
        for flag, count in zip(flags.tolist(), counts.tolist(), strict=True)
        if flag
    ]
    unclear = f" Without a settling time in the network: {', '.join(told)}." if told else ""
    driven, state = result.attrs.get("drive", "the inputs"), result.attrs.get("state", "h")
    band = float(result.attrs.get("tolerance", 0.1))
    text = (
        f"Driven: {driven}. State {state}, epoch {epoch_text(epoch)}, settled within {band:.0%} of the change.{unclear}"
    )
    return html.P(text, className="card-foot")


_CONTROLS: Mapping[str, tuple[str, Sequence[str]]] = {
    "view": ("show", _VIEWS),
    "reading": ("step responses", _READINGS),
}

PANEL = Panel(
    name="responses",
    title="Responses",
    about="How each unit answers a step and sines at the input of the network: how fast it settles, how much of a "
    "signal it passes on, and how far behind.",
    methods=(METHOD, REMOVAL),
    draw=draw,
    controls=_CONTROLS,
    follows_cursor=True,
)
