"""Runs beside each other: up to four in columns on linked axes, or two embedded together in one picture."""

from __future__ import annotations

import html as escaping
import textwrap
from typing import Any

import dash_mantine_components as dmc
import numpy as np
import plotly.graph_objects as go
import xarray as xr
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html, no_update

from hiddenscope.dashboard import cloud, words
from hiddenscope.dashboard.desk import JOINT, MATCHINGS, Request
from hiddenscope.dashboard.figures.comparison import UNIT_LABELS, Column, exists, joint, side_by_side
from hiddenscope.dashboard.figures.template import message
from hiddenscope.dashboard.joint import same_units, why_not
from hiddenscope.dashboard.library import Library, View
from hiddenscope.dashboard.supervisor import Supervisor
from hiddenscope.errors import HiddenscopeError
from hiddenscope.run import Run

MOST = 4
TICK_MS = 1000
_MATCHED = {"auto": "automatic", "number": "by number", "response": "by response"}
"""How the units of two runs in one picture are matched."""
HIDDEN = {"display": "none"}


def view(graph: Any, blank: dict[str, Any]) -> html.Section:
    """The part of the page that stands in the place of the two views while runs are compared.

    Args:
        graph: how graphs behave.
        blank: what a graph shows before anything is drawn.
    """
    colors = [{"value": value, "label": label} for value, label in cloud.COLORS.items() if value != "cluster"]
    return html.Section(
        id="compare-card",
        className="card compare",
        style=HIDDEN,
        children=[
            dcc.Store(id="compare-data"),
            dcc.Store(id="compare-seen"),
            dcc.Interval(id="compare-tick", interval=TICK_MS, max_intervals=0),
            html.Div(
                className="card-head",
                children=[
                    html.H2("Runs"),
                    dmc.SegmentedControl(
                        id="compare-mode",
                        data=[
                            {"value": "beside", "label": "side by side"},
                            {"value": "joint", "label": "in one picture"},
                        ],
                        value="beside",
                        size="xs",
                        **{"aria-label": "how the runs are compared"},
                    ),
                    html.Div(
                        id="compare-match-control",
                        className="control",
                        style=HIDDEN,
                        children=[
                            html.Span("units matched", className="crumb"),
                            dmc.Select(
                                id="compare-match",
                                data=_matchings(),
                                value="auto",
                                size="xs",
                                w=128,
                                allowDeselect=False,
                                **{"aria-label": "how the units of the two runs are matched"},
                            ),
                        ],
                    ),
                    html.Div(className="grow"),
                    html.Span("color", className="crumb"),
                    dmc.Select(
                        id="compare-color",
                        data=colors,
                        value="epoch",
                        size="xs",
                        w=152,
                        allowDeselect=False,
                        **{"aria-label": "color of the points of all runs"},
                    ),
                    dmc.SegmentedControl(
                        id="compare-dimensions",
                        data=[{"value": "3", "label": "3-D"}, {"value": "2", "label": "2-D"}],
                        value="2",
                        size="xs",
                        **{"aria-label": "dimensions of the pictures"},
                    ),
                ],
            ),
            html.Div(dcc.Graph(id="compare-graph", config=graph, figure=blank, responsive=True), className="plot"),
            html.Div(id="compare-note", className="card-foot"),
        ],
    )


def _matchings(by_number: bool = True) -> list[dict[str, Any]]:
    return [
        {"value": value, "label": label, "disabled": value == "number" and not by_number}
        for value, label in _MATCHED.items()
    ]


def picker() -> dmc.MultiSelect:
    """The choice of the runs to compare with."""
    return dmc.MultiSelect(
        id="compare",
        data=[],
        value=[],
        maxValues=MOST - 1,
        placeholder="compare with \u2026",
        size="xs",
        miw=150,
        maw=380,
        searchable=True,
        hidePickedOptions=True,
        comboboxProps={"withinPortal": True},
        className="picker",
        **{"aria-label": "runs to compare with"},
    )


def connect(app: Dash, library: Library, supervisor: Supervisor | None) -> None:
    """Register what draws the comparison and keeps it up to date."""

    @app.callback(
        output=[
            Output("compare-data", "data"),
            Output("compare-note", "children"),
            Output("compare-seen", "data"),
            Output("compare-match", "data"),
        ],
        inputs={
            "_tick": Input("compare-tick", "n_intervals"),
            "run": Input("run", "value"),
            "layer": Input("layer", "value"),
            "others": Input("compare", "value"),
            "mode": Input("compare-mode", "value"),
            "matching": Input("compare-match", "value"),
            "color": Input("compare-color", "value"),
            "dimensions": Input("compare-dimensions", "value"),
            "dark": Input("dark", "data"),
        },
        state={"seen": State("compare-seen", "data")},
        # A tick during a slow answer would make the browser throw that answer away.
        running=[(Output("compare-tick", "disabled"), True, False)],
        prevent_initial_call=True,
    )
    def compare(
        _tick: object,
        run: object,
        layer: object,
        others: object,
        mode: object,
        matching: object,
        color: object,
        dimensions: object,
        dark: object,
        seen: object,
    ) -> Any:
        names = chosen(library, run, others)
        if len(names) < 2:
            return no_update, no_update, no_update, no_update
        wanted = cloud.look_of({"color": color, "dimensions": dimensions}, dark=bool(dark))
        wanted_layer = layer if isinstance(layer, str) else None
        views, problems = [], []
        for name in names:
            try:
                views.append(library.view(name, wanted_layer))
            except (HiddenscopeError, OSError, KeyError) as error:
                problems.append(f"{name} cannot be read: {error}")
        how = matching if isinstance(matching, str) and matching in MATCHINGS else "auto"
        told: list[Any] = [names, mode, how, wanted.mark(), problems]
        choices: Any = no_update
        told += [[shown.layer, shown.version, shown.result_version, shown.status] for shown in views]
        if mode == "joint":
            figure, note, state = _together(library, names, views, wanted, how, supervisor)
            told.append(state)
            choices = _matchings(_have_same_units(library, names, views))
        elif told != seen and views:
            figure = side_by_side(
                [_column(shown, wanted) for shown in views], dimensions=wanted.dimensions, dark=wanted.dark
            )
            note = (
                "each run is embedded by itself: compare shapes, not places or directions; the curves share their axes"
            )
        elif not views:
            figure, note = message("None of these runs can be read.", dark=wanted.dark), ""
        if told == seen:
            return no_update, no_update, no_update, no_update
        return figure.to_dict(), " \u00b7 ".join([*problems, note]), told, choices

    def browser(function: str, *arguments: Any, **options: Any) -> None:
        clientside: Any = app.clientside_callback
        clientside(ClientsideFunction("hiddenscope", function), *arguments, **options)

    browser(
        "compareChoices",
        Output("compare", "data"),
        Output("compare", "value"),
        Input("run", "data"),
        Input("run", "value"),
        State("compare", "value"),
    )
    browser(
        "compareOpen",
        Output("views", "className"),
        Output("compare-card", "style"),
        Output("compare-tick", "max_intervals"),
        Input("compare", "value"),
    )
    browser("compareMode", Output("compare-match-control", "style"), Input("compare-mode", "value"))
    browser(
        "compareDrawn",
        Output("compare-graph", "figure"),
        Input("compare-data", "data"),
        Input("cursor", "data"),
        Input("units", "data"),
    )
    browser(
        "clickCompare",
        Output("cursor", "data", allow_duplicate=True),
        Output("units", "data", allow_duplicate=True),
        Input("compare-graph", "clickData"),
        State("units", "data"),
        prevent_initial_call=True,
    )
    browser(
        "restoreCompare",
        Output("compare-mode", "value"),
        Output("compare-match", "value"),
        Output("compare-color", "value"),
        Output("compare-dimensions", "value"),
        Input("url", "search"),
    )
    browser(
        "rememberCompare",
        Input("compare", "value"),
        Input("compare-mode", "value"),
        Input("compare-match", "value"),
        Input("compare-color", "value"),
        Input("compare-dimensions", "value"),
        Input("run", "value"),
    )


def chosen(library: Library, run: object, others: object) -> list[str]:
    """The names of the runs that are compared, the open one first; names that are no run's are left out."""
    runs = library.runs()
    asked = [run, *others] if isinstance(others, list) else [run]
    names = [name for name in asked if isinstance(name, str) and name in runs and runs[name].epoch_count]
    return list(dict.fromkeys(names))[:MOST]


def _column(shown: View, look: cloud.Look) -> Column:
    newest = words.recorded(float(shown.epochs[-1]) if len(shown.epochs) else None)
    title = (
        f"<b>{escaping.escape(shown.name)}</b>  {escaping.escape(shown.layer)} \u00b7 {shown.status} \u00b7 {newest}"
    )
    if shown.result is None:
        return Column(title, shown.metrics, None)
    color, names, problem = cloud.coloring_of(shown, look.color)
    return Column(title, shown.metrics, shown.result, color, names, problem)


def _have_same_units(library: Library, names: list[str], views: list[View]) -> bool:
    """Whether matching by number can be offered."""
    if len(names) != 2 or len(views) != 2:
        return True
    try:
        one, two = (library.pinned(name, views[0].layer)[1] for name in names)
        return views[0].layer not in two.layers or same_units(one, two, views[0].layer)
    except (HiddenscopeError, OSError, KeyError):
        return True


def _together(
    library: Library,
    names: list[str],
    views: list[View],
    look: cloud.Look,
    matching: str,
    supervisor: Supervisor | None,
) -> tuple[go.Figure, str, str]:
    """The picture of two runs embedded together, what is said below it, and a word for the state this is in."""

    def instead(text: str) -> tuple[go.Figure, str, str]:
        wrapped = "<br>".join(textwrap.wrap(escaping.escape(text)[:500], 80))
        return message(wrapped, dark=look.dark), "", text

    if len(names) != 2 or len(views) != 2:
        return instead("One picture holds two runs: compare the open run with exactly one other.")
    layer = views[0].layer
    try:
        pinned: list[tuple[str, Run]] = [(name, library.pinned(name, layer)[1]) for name in names]
        (first, one), (second, two) = sorted(pinned, key=lambda pair: pair[1].path)
        problem = why_not(one, two, layer, matching)
        if problem:
            return instead(f"These runs cannot be in one picture: {problem}.")
        request = Request(one.path, layer, JOINT, two.path, matching)
        result = library.result(first, layer, JOINT, request.parameters())
        current = result is not None and result.attrs.get("made_from") == [
            one.fingerprint(layer),
            two.fingerprint(layer),
        ]
    except (HiddenscopeError, OSError, KeyError) as error:
        return instead(str(error))
    entry = library.worker(first)
    failed = "" if entry is None else entry.studies.get(request.name, "")
    if not current and supervisor is not None and not failed:
        supervisor.ask(request.line())
    if result is None:
        if failed:
            return instead(f"The picture of both could not be computed: {failed}.")
        if supervisor is None:
            return instead("The picture of both is not stored, and this page has no worker that could make it.")
        return instead(
            "The two runs are being embedded together \u2026 seconds for small runs, minutes for large ones."
        )
    color = look.color if look.color in _SAID else "epoch"
    figure = joint(
        result,
        (first, second),
        color=color,
        dimensions=look.dimensions,
        picked_in=[first, second].index(names[0]),
        dark=look.dark,
    )
    trust = words.fidelity(result.attrs)
    parts = [
        "both runs embedded together; matched units are tied, and lie close for that reason too",
        "" if color == look.color else "colored by epoch, for want of such a color in both runs",
        _SAID[color],
        "units " + words.matched(result.attrs, _alone(result, (first, second))),
        f"trust: {trust}" if trust else "",
        "" if current else f"newer epochs could not be added: {failed}" if failed else "newer epochs are being added",
    ]
    return figure, " \u00b7 ".join(part for part in parts if part), f"{result.attrs['computed_at']} {current} {failed}"


_SAID = {"epoch": "stronger colors are later", "step": "", "unit": "matched units have one color"}
"""What is said of the colors that one picture of two runs can have."""


def _alone(result: xr.Dataset, names: tuple[str, str]) -> list[str]:
    """How many units of a run have no match in the other."""
    exist = [np.array([exists(label) for label in result[name].values]) for name in UNIT_LABELS]
    found = [(int((ours & ~theirs).sum()), name) for ours, theirs, name in zip(exist, exist[::-1], names, strict=True)]
    return [f"{count} unit{'s' if count > 1 else ''} of {name} without a match" for count, name in found if count]
