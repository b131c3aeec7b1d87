"""Similar states as a panel: pick a period of one sequence, see where else the same units are active, and on what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from dash import ALL, MATCH, Dash, Input, Output, State, dcc, html, no_update, set_props

from hiddenscope.analyses.activations import (
    ACTIVATION_DIMS,
    Sign,
    activation_thresholds,
    active_periods,
    score,
)
from hiddenscope.analyses.excitation import most_varying, network_inputs
from hiddenscope.analyses.search import Matches, Ranking, StateIndex
from hiddenscope.dashboard.figures.search import found_inputs, query
from hiddenscope.dashboard.figures.sequences import Marks
from hiddenscope.dashboard.figures.template import epoch_text, message, theme
from hiddenscope.dashboard.focus import NOTHING, Focus, focus_of, place_of_word, words_of
from hiddenscope.dashboard.library import Library
from hiddenscope.dashboard.panels.asked import scene_asked, told
from hiddenscope.dashboard.panels.graph import graph
from hiddenscope.dashboard.panels.panel import Panel, Scene
from hiddenscope.dashboard.panels.samples import sample_choice, sample_names
from hiddenscope.errors import HiddenscopeError
from hiddenscope.run import Run

NAME = "search"
THRESHOLDS: dict[str, float | None] = {"0.3": 0.3, "0.5": 0.5, "0.8": 0.8, "each unit's 75 %": None}
SIGNS: dict[str, Sign] = {"high": "positive", "low": "negative", "either": "absolute"}
RANKINGS: dict[str, Ranking] = {"most units": "intersection", "Jaccard": "jaccard", "longest": "length"}
EDGES = ("active through it", "only within it")
CONTROLS = {
    "threshold": ("active above", tuple(THRESHOLDS)),
    "sign": ("active", tuple(SIGNS)),
    "edges": ("units", EDGES),
    "rank": ("order", tuple(RANKINGS)),
}
LIMIT = 40
_LONGEST = 24


@dataclass(frozen=True)
class Place:
    """One epoch of a layer, ready to be searched.

    Attributes:
        run, layer, epoch: where it comes from.
        states: dims (step, unit, sample), samples by their labels.
        index: of these states.
        active: (sample, step, unit), what counts as active.
        inputs: (sample, step, feature), or None.
        options: of the panel.
        dark: whether the page is dark.
    """

    run: Run
    layer: str
    epoch: float
    states: xr.DataArray
    index: StateIndex
    active: npt.NDArray[np.bool_]
    inputs: npt.NDArray[Any] | None
    options: Mapping[str, str]
    dark: bool


def draw(scene: Scene) -> list[Any]:
    """A period to begin with (the strongest of the picked unit), and what is like it."""
    place = _place(scene.run, scene.view.layer, scene.epoch, scene.options, dark=scene.dark)
    period = picked_period(place, scene.focus) or first_period(place, list(scene.units))
    if period is None:
        return [graph("search-none", message("no unit of this layer varies yet", dark=scene.dark), 300)]
    sample, start, end = period
    names = scene.view.class_names
    select = sample_choice({"type": "search-sample", "name": NAME}, sample_names(place.states, names), sample)
    slider = dcc.RangeSlider(
        id={"type": "search-period", "name": NAME},
        min=0,
        max=place.states.sizes["step"] - 1,
        step=1,
        value=[start, end],
        marks=None,
        updatemode="mouseup",
        allow_direct_input=False,
        tooltip={"placement": "top", "always_visible": False},
    )
    row = {"display": "flex", "gap": "18px", "alignItems": "center", "flexWrap": "wrap"}
    return [
        dcc.Store(id={"type": "search-scene", "name": NAME}, data=told(scene, place.epoch, CONTROLS)),
        html.Div(
            [
                html.Span(f"epoch {epoch_text(place.epoch)}"),
                select,
                html.Span("period"),
                html.Div(slider, style={"flex": "1 1 360px", **_slider_colors(dark=place.dark)}),
            ],
            className="card-foot",
            style=row,
        ),
        html.Div(search_view(place, sample, start, end, names, scene.focus), id={"type": "search-view", "name": NAME}),
    ]


def _slider_colors(*, dark: bool) -> dict[str, str]:
    """The slider wears the page's colors; Dash takes them from these names."""
    look = theme(dark=dark)
    names = {
        "Interactive-Strong": look.accent,
        "Primary-Hover": look.accent,
        "Primary-Active": look.accent,
        "Disabled": look.grid,
        "Inverse-Strong": look.panel,
    }
    return {f"--Dash-Fill-{name}": color for name, color in names.items()}


def _place(run: Run, layer: str, epoch: float | None, options: Mapping[str, str], *, dark: bool) -> Place:
    at = float(run.epochs[-1] if epoch is None or epoch not in run.epochs else epoch)
    states = run.trace(layer, epochs=[at]).isel(epoch=0).transpose(*ACTIVATION_DIMS)
    sign = SIGNS.get(options.get("sign", ""), "positive")
    level = THRESHOLDS.get(options.get("threshold", ""), 0.3)
    levels = activation_thresholds(states, quantile=0.75, sign=sign).values if level is None else level
    with np.errstate(invalid="ignore"):
        active = (score(states, sign=sign).transpose("sample", "step", "unit") > levels).values
    index = StateIndex(states, threshold=levels, sign=sign)
    return Place(run, layer, at, states, index, active, network_inputs(run, layer, at), options, dark)


def first_period(place: Place, units: list[str]) -> tuple[int, int, int] | None:
    """Sequence, first and last step (as positions) of the strongest period of a unit, cut to what can be compared."""
    labels = place.states["unit"].values
    picked = [label for name in units for label in labels if str(label) == name]
    varying = most_varying(place.states, 1)
    if not picked and not len(varying):
        return None
    unit = picked[0] if picked else labels[varying[0]]
    sign = SIGNS.get(place.options.get("sign", ""), "positive")
    alone = place.states.sel(unit=[unit]).assign_coords(sample=np.arange(place.states.sizes["sample"]))
    periods = active_periods(alone, activation_thresholds(alone, sign=sign), sign=sign)
    if not len(periods):
        return 0, 0, min(_LONGEST, place.states.sizes["step"]) - 1
    best = periods.iloc[int(np.argmax(periods["value"].abs().to_numpy()))]
    start = max(int(best["start"]), int(best["peak"]) - _LONGEST // 2)
    return int(best["sample"]), start, min(int(best["end"]), start + _LONGEST - 1)


def picked_period(place: Place, focus: Focus) -> tuple[int, int, int] | None:
    """Sequence, first and last step (as positions) of what is picked elsewhere on the page; None for nothing."""
    steps = place.states["step"].values
    if focus.sample is None:
        found = place_of_word(place.run, place.layer, focus.words)
        return None if found is None else (found[0], *(int(np.abs(steps - found[1]).argmin()),) * 2)
    if focus.sample >= place.states.sizes["sample"]:
        return None
    if focus.period is not None:
        first, last = (int(np.abs(steps - step).argmin()) for step in focus.period)
        return focus.sample, first, last
    most = int(np.argmax(place.active[focus.sample].sum(axis=1)))  # of a whole sequence, where most units are active
    return focus.sample, max(0, most - _LONGEST // 2), min(len(steps) - 1, most + _LONGEST // 2)


def search_view(
    place: Place, sample: int, start: int, end: int, names: tuple[str, ...] | None, focus: Focus = NOTHING
) -> list[Any]:
    """The picked period, what was found, and the inputs there; words of ``focus`` are marked."""
    found = searched(place, sample, start, end)
    steps = place.states["step"].values
    positions = {label: row for row, label in enumerate(place.states["sample"].values.tolist())}
    matches = found.table.assign(place=[positions[label] for label in found.table["sample"].tolist()])
    for name in ("start", "end"):
        matches[name] = steps[matches[name].to_numpy(np.intp)]
    called = sample_names(place.states, names)
    figure = query(
        place.states.isel(sample=sample),
        place.active[sample],
        start=start,
        end=end,
        pattern=found.units.tolist(),
        marks=Marks(words=words_of(place.run, place.layer, sample) or (), picked=focus.words),
        dark=place.dark,
    )
    if not len(found.units):
        reason = "no unit is active all through this period; make it shorter, or lower the threshold"
    elif place.inputs is None:
        reason = "the inputs are not recorded as plain numbers; the table lists the places"
    else:
        reason = "no other period shares an active unit"
    span = (sample, int(steps[start]), int(steps[end]))
    inputs = found_inputs(place.inputs, span, matches, names=called, reason=reason, dark=place.dark)
    units = ", ".join(str(unit) for unit in found.units[:20]) + (" \u2026" if len(found.units) > 20 else "")
    head = f"{len(found.units)} units make the pattern" + (f": {units}" if units else "")
    columns = {"display": "grid", "gridTemplateColumns": "minmax(0, 2fr) minmax(0, 3fr)", "gap": "12px"}
    return [
        html.Div(head, className="card-foot"),
        html.Div(
            [
                graph({"type": "panel-units", "name": "search-query"}, figure, 560),
                graph("search-inputs", inputs, 560),
            ],
            style=columns,
        ),
        match_table(place, matches, called, found.units.tolist()),
    ]


def searched(place: Place, sample: int, start: int, end: int) -> Matches:
    """The best matches of a period, by the panel's options."""
    return place.index.search(
        sample=place.states["sample"].values[sample],
        start=start,
        end=end,
        alone=place.options.get("edges") == EDGES[1],
        rank=RANKINGS.get(place.options.get("rank", ""), "intersection"),
        limit=LIMIT,
    )


def match_table(place: Place, matches: pd.DataFrame, called: list[str], units: list[Any]) -> html.Div:
    """All matches; of tokens, the words there. A click on one picks it, and the units of the pattern in it."""
    from dash_ag_grid import AgGrid

    words = place.run.token_names
    tokens = place.run.probe if place.run.probe is not None and place.run.probe.ndim == 2 else None
    found: list[Any] = list(matches.itertuples())
    rows = [
        {
            "place": int(match.place),
            "units": [str(unit) for unit in units],
            "sequence": called[int(match.place)],
            "start": int(match.start),
            "end": int(match.end),
            "length": int(match.length),
            "shared": int(match.intersection),
            "in all": int(match.union),
            "Jaccard": round(float(match.jaccard), 3),
            "tokens": _words(tokens[int(match.place)], int(match.start), int(match.end), words)
            if tokens is not None
            else "",
        }
        for match in found
    ]
    names = ["sequence", "start", "end", "length", "shared", "in all", "Jaccard"]
    names += ["tokens"] if tokens is not None else []
    grid = AgGrid(
        id={"type": "search-matches", "name": NAME},
        rowData=rows,
        columnDefs=[
            {"field": name, "headerName": name, "flex": 3 if name in ("sequence", "tokens") else 1} for name in names
        ],
        defaultColDef={"sortable": True, "minWidth": 62},
        dashGridOptions={
            "rowHeight": 26,
            "headerHeight": 30,
            "rowSelection": {"mode": "singleRow", "checkboxes": False, "enableClickSelection": True},
        },
        style={"height": 260, "width": "100%"},
    )
    return html.Div([html.Div(f"{len(rows)} best matches", className="card-foot"), grid])


def _words(tokens: npt.NDArray[Any], start: int, end: int, names: tuple[str, ...] | None) -> str:
    """The tokens of a match, with two before it."""
    said = [
        names[int(token)] if names is not None and 0 <= int(token) < len(names) else str(int(token)) for token in tokens
    ]
    before, inside = said[max(0, start - 2) : start], said[start : end + 1]
    return " ".join([*before, "[", *inside, "]"])


def connect(app: Dash, library: Library) -> None:
    """Another sequence or period, without drawing the rest anew."""

    @app.callback(
        Output({"type": "search-view", "name": MATCH}, "children"),
        Input({"type": "search-sample", "name": MATCH}, "value"),
        Input({"type": "search-period", "name": MATCH}, "value"),
        State({"type": "search-scene", "name": MATCH}, "data"),
        State("focus", "data"),
        prevent_initial_call=True,
    )
    def search_elsewhere(sample: object, period: object, kept: object, before: object) -> Any:
        asked = scene_asked(library, kept, CONTROLS)
        if asked is None:
            return no_update
        try:
            position, (start, end) = int(cast(Any, sample)), (int(value) for value in cast(Any, period))
            place = _place(asked.run, asked.view.layer, asked.epoch, asked.options, dark=asked.dark)
            if not 0 <= position < place.states.sizes["sample"]:
                return no_update
            steps = place.states["step"].values
            pattern = place.index.active_units(
                sample=place.states["sample"].values[position],
                start=start,
                end=end,
                alone=place.options.get("edges") == EDGES[1],
            )
            words = focus_of(before, asked.name).words
            units = tuple(str(unit) for unit in pattern.tolist())
            chosen = Focus("sequence", position, int(steps[start]), int(steps[end]), units, words)
            shown = search_view(place, position, start, end, asked.view.class_names, chosen)
            set_props("focus", {"data": chosen.told(asked.name)})
            return shown
        except (HiddenscopeError, OSError, KeyError, ValueError, TypeError, OverflowError):
            return no_update

    @app.callback(
        Output("focus", "data", allow_duplicate=True),
        Input({"type": "search-matches", "name": ALL}, "cellClicked"),
        State({"type": "search-matches", "name": ALL}, "rowData"),
        State({"type": "search-scene", "name": ALL}, "data"),
        State("focus", "data"),
        prevent_initial_call=True,
    )
    def pick_match(cells: object, rows: object, kept: object, before: object) -> Any:
        try:
            row = cast(Any, rows)[0][int(cast(Any, cells)[0]["rowId"])]
            name = str(cast(Any, kept)[0]["run"])
            units = tuple(str(unit) for unit in row["units"])
            words = focus_of(before, name).words
            return Focus("sequence", int(row["place"]), int(row["start"]), int(row["end"]), units, words).told(name)
        except (TypeError, ValueError, KeyError, IndexError, OverflowError):
            return no_update


PANEL = Panel(
    name=NAME,
    title="Similar states",
    about=(
        "Pick a period of a sequence: the units that are active all through it are searched for in all sequences, and "
        "the inputs are shown where most of them are active again."
    ),
    methods=(),
    draw=draw,
    controls=CONTROLS,
    follows_cursor=True,
    connect=connect,
    waits=False,
)
