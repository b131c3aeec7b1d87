"""Highly active periods as a panel: what excites a unit, where, how often that was met, and which inputs it rests on.

Only the course over the epochs is stored (see `hiddenscope.analyses.excitation`); periods, patterns and relevance of
the unit, sequence and step that are looked at are computed when they are, from one epoch of the recording.
"""

from __future__ import annotations

from typing import Any, cast

import pandas as pd
from dash import MATCH, Dash, Input, Output, State, ctx, dcc, html, no_update, set_props

from hiddenscope.analyses.activations import activation_thresholds, active_periods
from hiddenscope.dashboard.figures.activations import (
    activation_map,
    cluster_name,
    course,
    gallery,
    sequence,
)
from hiddenscope.dashboard.figures.sequences import Marks
from hiddenscope.dashboard.figures.template import epoch_text, message
from hiddenscope.dashboard.focus import NOTHING, Focus, focus_of, place_of_word, words_of
from hiddenscope.dashboard.library import Library
from hiddenscope.dashboard.panels.activation_look import (
    CLUSTERS,
    EPSILONS,
    SIGNS,
    WINDOWS,
    Look,
    explained,
    look_at,
    perturbation_view,
    position_of,
    top_periods,
)
from hiddenscope.dashboard.panels.asked import scene_asked, told
from hiddenscope.dashboard.panels.graph import graph
from hiddenscope.dashboard.panels.panel import Panel, Scene
from hiddenscope.dashboard.panels.samples import sample_choice, sample_name, sample_names
from hiddenscope.errors import HiddenscopeError

NAME = "activations"
CONTROLS = {
    "sign": ("active", tuple(SIGNS)),
    "clusters": ("patterns by", tuple(CLUSTERS)),
    "window": ("window", WINDOWS),
    "epsilon": ("relevance \u03b5", EPSILONS),
}
MOST_ROWS = 60
HINTS = {
    "value": "the unit's state at the peak",
    "mean": "the unit's mean state over the period",
    "pattern": "the cluster of what the network saw before the peak; A is the largest",
    "typicality": "share of the pattern's members that are nearer to its mean: 0 is the most typical, 100 the least",
    "doubt": "0: it is clear which pattern this is; 1: the next one is as near",
    "seen often": "within the 90 % nearest of its pattern, and the pattern itself is not rare",
}
"""What stands over the table of periods, at length."""


def draw(scene: Scene) -> list[Any]:
    """The sequence with the strongest period first; patterns, their course and the table of periods below."""
    look = look_at(scene.run, scene.view.layer, scene.epoch, scene.units, scene.options, dark=scene.dark)
    if look is None:
        return [graph("activations-none", message("no unit of this layer varies yet", dark=scene.dark), 300)]
    strongest = top_periods(look.found.periods)
    place, step = first_look(look, strongest, scene.focus)
    kept = told(scene, look.epoch, CONTROLS) | {"unit": str(look.found.unit)}
    names = scene.view.class_names
    shape = f"{len(look.found.periods)} periods above {look.found.threshold:.3g}"
    head = (
        f"unit {look.found.unit} at epoch {epoch_text(look.epoch)}: {shape}"
        + (f", windows of {look.found.width} steps" if look.found.width else "")
        + ("" if scene.units else " \u00b7 the unit that varies most; pick another in the table of units or in the map")
    )
    select = sample_choice({"type": "activations-sample", "name": NAME}, sample_names(look.states, names), place)
    return [
        dcc.Store(id={"type": "activations-scene", "name": NAME}, data=kept),
        html.Div(
            [html.Span(head), select],
            className="card-foot",
            style={"display": "flex", "gap": "18px", "alignItems": "center", "flexWrap": "wrap"},
        ),
        html.Div(sequence_view(look, place, step, scene.focus), id={"type": "activations-view", "name": NAME}),
        _tiles(
            [
                graph(
                    "activations-gallery", gallery(look.found.patterns, reason=look.found.reason, dark=look.dark), 420
                ),
                graph(
                    {"type": "panel-epochs", "name": "activations-course"},
                    course(scene.results.get(NAME), picked=[str(look.found.unit)], dark=look.dark),
                    420,
                ),
            ]
        ),
        _tiles(
            [
                graph("activations-kept", perturbation_view(look), 340),
                period_table(look, strongest, names),
            ],
            "minmax(0, 2fr) minmax(0, 3fr)",
        ),
    ]


def first_look(look: Look, strongest: pd.DataFrame, focus: Focus) -> tuple[int, int | None]:
    """The sequence that is shown first, and the step (as a position) that is explained; None for its strongest.

    What is picked elsewhere: a period, a sequence, or where a word stands; else the unit's strongest period.
    """
    if focus.sample is not None and focus.sample < look.states.sizes["sample"]:
        own = strongest[strongest["sample"] == focus.sample]
        if focus.period is None:
            return focus.sample, None
        first, last = (position_of(look, step) for step in focus.period)
        within = own[(own["start"] <= last) & (own["end"] >= first)]
        return focus.sample, int(within.iloc[0]["peak"]) if len(within) else last
    found = place_of_word(look.run, look.layer, focus.words)
    if found is not None:
        return found[0], position_of(look, found[1])
    return (int(strongest.iloc[0]["sample"]), int(strongest.iloc[0]["peak"])) if len(strongest) else (0, None)


def sequence_view(look: Look, place: int, step: int | None, focus: Focus = NOTHING) -> list[Any]:
    """One sequence with its relevance, and all units beside it.

    Args:
        look: the unit.
        place: position of the sequence.
        step: position of the step that is explained; None for the unit's strongest in this sequence.
        focus: its words, and its period where it is one of this sequence, are marked.
    """
    unit = look.found.unit
    here = look.states.isel(sample=place)
    activation = here.sel(unit=unit)
    periods = look.found.periods[look.found.periods["sample"] == place]
    if step is None and len(periods):
        step = int(top_periods(periods).iloc[0]["peak"])
    marks = Marks(
        words=words_of(look.run, look.layer, place) or (),
        picked=focus.words,
        period=focus.period if focus.sample == place else None,
    )
    found, note = None, "no highly active period in this sequence; click on a step to explain it"
    target = None
    if step is not None and 0 <= step < here.sizes["step"]:
        target = int(here["step"].values[step])
        found, note = explained(look, place, target)
    figure = sequence(
        None if look.inputs is None else look.inputs[place],
        activation,
        periods,
        threshold=look.found.threshold,
        patterns=look.found.patterns,
        relevance=found,
        target=target,
        unit=unit,
        sign=look.sign,
        note=note,
        marks=marks,
        dark=look.dark,
    )
    one = look.states.isel(sample=[place])
    all_periods = active_periods(one, activation_thresholds(look.states, sign=look.sign), sign=look.sign)
    picture = activation_map(here, all_periods, picked=[str(unit)], marks=marks, dark=look.dark)
    rows = sum(str(key).startswith("yaxis") for key in figure.layout)
    height = 150 + 62 * max(rows, 4)
    return [
        _tiles(
            [
                graph({"type": "activations-sequence", "name": NAME}, figure, height),
                graph({"type": "panel-units", "name": "activations-map"}, picture, height),
            ],
            "minmax(0, 5fr) minmax(0, 4fr)",
        )
    ]


def period_table(look: Look, periods: pd.DataFrame, names: tuple[str, ...] | None) -> html.Div:
    """The strongest periods; a click on a row shows it above."""
    from dash_ag_grid import AgGrid

    steps = look.states["step"].values
    rows = [
        {
            "place": int(period["sample"]),
            "position": int(period["peak"]),
            "sequence": sample_name(look.states, int(period["sample"]), names),
            "start": int(steps[int(period["start"])]),
            "end": int(steps[int(period["end"])]),
            "peak": int(steps[int(period["peak"])]),
            "value": round(float(period["value"]), 3),
            "mean": round(float(period["mean"]), 3),
            **_judged(period),
        }
        for _, period in periods.head(MOST_ROWS).iterrows()
    ]
    columns = ["sequence", "start", "end", "peak", "value", "mean"]
    headers = {"value": "at peak", "mean": "mean"}
    if look.found.patterns is not None:
        columns += ["pattern", "typicality", "doubt", "seen often"]
        headers |= {"typicality": "typicality (%)"}
    defs = [
        {
            "field": name,
            "headerName": headers.get(name, name),
            "flex": 2 if name == "sequence" else 1,
            "minWidth": 46 + 8 * max(map(len, headers.get(name, name).split())),
            "headerTooltip": HINTS.get(name, ""),
        }
        for name in columns
    ]
    grid = AgGrid(
        id={"type": "activations-periods", "name": NAME},
        rowData=rows,
        columnDefs=defs,
        defaultColDef={"sortable": True, "wrapHeaderText": True},
        dashGridOptions={"rowHeight": 26, "headerHeight": 44},
        style={"height": 310, "width": "100%"},
    )
    return html.Div([html.Div(f"strongest periods ({len(rows)} of {len(periods)})", className="card-foot"), grid])


def _judged(period: pd.Series) -> dict[str, Any]:
    cluster = int(period.get("cluster", -1))
    if cluster < 0:
        return {"pattern": "\u2013", "typicality": None, "doubt": None, "seen often": "\u2013"}
    return {
        "pattern": cluster_name(cluster),
        "typicality": round(float(period["typicality"])),
        "doubt": round(float(period["membership_entropy"]), 2),
        "seen often": "yes" if bool(period["seen_often"]) else "no",
    }


def connect(app: Dash, library: Library) -> None:
    """Another sequence, period or step, without drawing the rest anew."""

    @app.callback(
        Output({"type": "activations-view", "name": MATCH}, "children"),
        Output({"type": "activations-sample", "name": MATCH}, "value"),
        Input({"type": "activations-sample", "name": MATCH}, "value"),
        Input({"type": "activations-periods", "name": MATCH}, "cellClicked"),
        Input({"type": "activations-sequence", "name": MATCH}, "clickData"),
        State({"type": "activations-periods", "name": MATCH}, "rowData"),
        State({"type": "activations-scene", "name": MATCH}, "data"),
        State("focus", "data"),
        prevent_initial_call=True,
    )
    def look_elsewhere(sample: object, cell: object, click: object, rows: object, kept: object, before: object) -> Any:
        triggered = ctx.triggered_id
        source = triggered.get("type") if isinstance(triggered, dict) else None
        wanted, asked = _wanted(cast(str, source), sample, cell, click, rows), scene_asked(library, kept, CONTROLS)
        if wanted is None or asked is None:
            return no_update, no_update
        units = [str(cast(Any, kept).get("unit"))]
        try:
            look = look_at(asked.run, asked.view.layer, asked.epoch, units, asked.options, dark=asked.dark)
        except (HiddenscopeError, OSError, KeyError, ValueError):
            return no_update, no_update
        place, step = wanted
        if look is None or not 0 <= place < look.states.sizes["sample"]:
            return no_update, no_update
        if source == "activations-sequence" and step is not None:  # a step of the inputs, not a position
            step = position_of(look, step)
        shown = no_update if source == "activations-sample" else str(place)
        chosen = _picked(look, place, step, focus_of(before, asked.name))
        set_props("focus", {"data": chosen.told(asked.name)})  # not an output: those of a MATCH all have one
        return sequence_view(look, place, step, chosen), shown


def _picked(look: Look, place: int, step: int | None, before: Focus) -> Focus:
    """A sequence, the period of the unit that a step of it lies in, or that step alone; words stay picked."""
    if step is None:
        return Focus("sequence", place, words=before.words)
    steps = look.states["step"].values
    own = look.found.periods[look.found.periods["sample"] == place]
    around = own[(own["start"] <= step) & (own["end"] >= step)]
    first, last = (int(around.iloc[0][name]) for name in ("start", "end")) if len(around) else (step, step)
    return Focus("sequence", place, int(steps[first]), int(steps[last]), (str(look.found.unit),), before.words)


def _wanted(source: str, sample: object, cell: object, click: object, rows: object) -> tuple[int, int | None] | None:
    """The sequence and the step that a browser asks for; None for what cannot be."""
    try:
        if source == "activations-periods":
            row = cast(Any, rows)[int(cast(Any, cell)["rowId"])]
            return int(row["place"]), int(row["position"])
        if source == "activations-sequence":
            return int(cast(Any, sample)), round(float(cast(Any, click)["points"][0]["x"]))
        if source == "activations-sample":
            return int(cast(Any, sample)), None
    except (TypeError, ValueError, KeyError, IndexError, OverflowError):
        pass
    return None


def _tiles(children: list[Any], columns: str = "repeat(auto-fit, minmax(min(520px, 100%), 1fr))") -> html.Div:
    style = {"display": "grid", "gridTemplateColumns": columns, "gap": "12px"}
    return html.Div(children, style=style)


PANEL = Panel(
    name=NAME,
    title="Activations",
    about=(
        "When a unit is highly active (its highest 5 %), what the network saw just before, how often that was met, and "
        "which inputs the activation rests on. Click on a period in the table, or on any step of the sequence."
    ),
    methods=(NAME,),
    draw=draw,
    controls=CONTROLS,
    follows_cursor=True,
    connect=connect,
    waits=False,
)
