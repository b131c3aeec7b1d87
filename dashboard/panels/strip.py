"""The lower part of the page: a strip of tabs, one panel open at a time, drawn anew when it would look different."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, dcc, html, no_update
from dash_ag_grid import AgGrid

from hiddenscope.dashboard import journal, listing, words
from hiddenscope.dashboard.clientside import browser_of
from hiddenscope.dashboard.focus import focus_of, nodes_of
from hiddenscope.dashboard.library import Library
from hiddenscope.dashboard.panels.panel import Panel, Scene, epoch_at, number_of
from hiddenscope.errors import HiddenscopeError, MissingExtraError

UNITS = "units"
"""The first panel; its table stays on the page, so that sorting and filters outlive an epoch."""
ABOUT_UNITS = "Every number that is known of each unit. Pick rows to see these units everywhere."
TICK_MS = 1000
HIDDEN = {"display": "none"}
_MOST_UNITS = 64
_LOG = logging.getLogger(__name__)


def strip(panels: Sequence[Panel], table: AgGrid) -> html.Section:
    """The lower part, with the table of units open. ``table`` is that table; beside it stands the list of runs."""
    tabs = [
        dmc.TabsTab("Units", value=UNITS),
        dmc.TabsTab("Runs", value=listing.RUNS),
        *(dmc.TabsTab(panel.title, value=panel.name) for panel in panels),
    ]
    return html.Section(
        id="lower",
        className="card lower",
        style=HIDDEN,
        children=[
            dcc.Store(id="panel-seen", data=None),
            dcc.Store(id="panel-news", data=None),
            dcc.Store(id="panel-cursor", data=None),
            dcc.Store(id="panel-followers", data=[panel.name for panel in panels if panel.follows_cursor]),
            dcc.Interval(id="panel-tick", interval=TICK_MS),
            dmc.Tabs(
                dmc.TabsList(tabs, **{"aria-label": "panels"}),
                id="panel",
                value=UNITS,
                variant="default",
            ),
            _head(UNITS, ABOUT_UNITS, {}, hidden=False),
            _head(listing.RUNS, listing.ABOUT, {}),
            *(_head(panel.name, panel.about, panel.controls or {}) for panel in panels),
            html.Div(table, id="unit-card"),
            html.Div(listing.table(), id="runs-card", style=HIDDEN),
            html.Div(id="panel-body", className="panel-body", style=HIDDEN),
        ],
    )


def _head(name: str, about: str, controls: Mapping[str, tuple[str, Sequence[str]]], *, hidden: bool = True) -> html.Div:
    selects = [
        html.Label(
            [
                html.Span(label),
                dmc.Select(
                    id={"type": "panel-option", "panel": name, "option": option},
                    data=list(choices),
                    value=choices[0],
                    size="xs",
                    w=max(110, 46 + 8 * max(map(len, choices))),
                    allowDeselect=False,
                    comboboxProps={"withinPortal": True},
                    **{"aria-label": label},
                ),
            ],
            className="control",
        )
        for option, (label, choices) in controls.items()
    ]
    return html.Div(
        [html.P(about), html.Div(selects, className="controls")],
        id={"type": "panel-head", "name": name},
        className="panel-head",
        style=HIDDEN if hidden else {},
    )


def connect(app: Dash, library: Library, panels: Sequence[Panel]) -> None:
    """Register what keeps the open panel up to date, and what the panels register themselves."""
    _draw_the_open_panel(app, library, {panel.name: panel for panel in panels})
    _find_the_nodes_of_what_is_picked(app, library)
    _connect_browser(app)
    listing.connect(app)
    for panel in panels:
        if panel.connect is not None:
            panel.connect(app, library)


def _draw_the_open_panel(app: Dash, library: Library, panels: Mapping[str, Panel]) -> None:
    option: dict[str, Any] = {"type": "panel-option", "panel": ALL, "option": ALL}

    @app.callback(
        # The browser puts it on the page, with the cameras where the reader left them: graphs are always made anew.
        output=[Output("panel-news", "data"), Output("panel-seen", "data")],
        inputs={
            "_tick": Input("panel-tick", "n_intervals"),
            "name": Input("panel", "value"),
            "run": Input("run", "value"),
            "layer": Input("layer", "value"),
            "epoch": Input("panel-cursor", "data"),
            "units": Input("units", "data"),
            "values": Input(option, "value"),
            "dark": Input("dark", "data"),
        },
        state={"ids": State(option, "id"), "focus": State("focus", "data"), "seen": State("panel-seen", "data")},
        running=[
            (Output("panel-tick", "disabled"), True, False),
            (Output("panel-body", "className"), "panel-body drawing", "panel-body"),
        ],
    )
    def draw_the_open_panel(
        _tick: object,
        name: object,
        run: object,
        layer: object,
        epoch: object,
        units: object,
        values: object,
        dark: object,
        ids: object,
        focus: object,
        seen: object,
    ) -> Any:
        # What comes from a browser may be anything: unknown values become the defaults.
        panel = panels.get(name) if isinstance(name, str) else None
        if panel is None:
            return (no_update, no_update) if seen is None else ([], None)
        if not isinstance(run, str) or run not in library.runs():
            return no_update, no_update
        chosen = options_of(panel, ids, values)
        at = number_of(epoch)
        at = at if panel.follows_cursor else None
        picked = [str(unit) for unit in units[:_MOST_UNITS]] if isinstance(units, list) else []
        try:
            view, pinned = library.pinned(run, layer if isinstance(layer, str) else None)
            stored = library.stored(run, view.layer, panel.methods)
        except (HiddenscopeError, OSError, KeyError):
            return no_update, no_update  # the upper part of the page says what is wrong with this run
        told = [name, run, view.layer, view.version, list(stored.values()), at, picked, chosen, bool(dark)]
        if told == seen:
            return no_update, no_update
        try:
            results = {method: library.result(run, view.layer, method) for method in panel.methods}
        except (HiddenscopeError, OSError, KeyError) as error:
            return _trouble(panel, error), told
        if panel.waits and panel.methods and all(result is None for result in results.values()):
            return waiting(panel, pinned.path, view.layer, library.worker(run)), [*told, "waiting"]
        scene = Scene(view, pinned, results, at, picked, chosen, bool(dark), focus_of(focus, run))
        return drawn(panel, scene), told


def _find_the_nodes_of_what_is_picked(app: Dash, library: Library) -> None:
    @app.callback(
        Output("focus-nodes", "data"),
        Input("focus", "data"),
        Input("run", "value"),
        Input("layer", "value"),
        State("cursor", "data"),
    )
    def find_nodes(focus: object, run: object, layer: object, epoch: object) -> Any:
        if not isinstance(run, str) or run not in library.runs() or not (chosen := focus_of(focus, run)).by:
            return None
        try:
            view, pinned = library.pinned(run, layer if isinstance(layer, str) else None)
            nodes, said = nodes_of(chosen, pinned, view.layer, epoch_at(view.epochs, number_of(epoch)))
        except (HiddenscopeError, OSError, KeyError, IndexError):
            return None
        return {"nodes": nodes, "text": said} if said else None


def options_of(panel: Panel, ids: object, values: object) -> dict[str, str]:
    """The values of a panel's controls among those of all panels; the first choice where none, or an odd one, is given.

    >>> panel = Panel("p", "P", "", (), list, {"scale": ("scale", ("linear", "log"))})
    >>> ids = [{"type": "panel-option", "panel": "p", "option": "scale"}]
    >>> options_of(panel, ids, ["log"]), options_of(panel, ids, ["odd"]), options_of(panel, None, None)
    ({'scale': 'log'}, {'scale': 'linear'}, {'scale': 'linear'})
    """
    controls = panel.controls or {}
    chosen = {option: choices[0] for option, (_, choices) in controls.items()}
    if isinstance(ids, list) and isinstance(values, list):
        for name, value in zip(ids, values, strict=False):
            option = name.get("option") if isinstance(name, dict) and name.get("panel") == panel.name else None
            if isinstance(option, str) and isinstance(value, str) and value in controls.get(option, ("", ()))[1]:
                chosen[option] = value
    return chosen


def drawn(panel: Panel, scene: Scene) -> list[Any]:
    """What a panel draws of a scene; a card that says what went wrong where it fails, so that the page goes on."""
    try:
        return list(panel.draw(scene))
    except Exception as error:
        return _trouble(panel, error)


def _trouble(panel: Panel, error: Exception) -> list[Any]:
    if isinstance(error, MissingExtraError):
        return [_card("This panel needs a package that is not installed", [html.P(str(error))])]
    _LOG.warning("panel %s cannot be drawn", panel.name, exc_info=error)
    said = " ".join(str(error).split())[:500]
    advice = f"The rest of the page is not affected. Make its results anew with hiddenscope analyze, or report this if \
it stays: {type(error).__name__} in panel {panel.name}."
    return [_card("This panel cannot be drawn", [html.P(html.Code(said or type(error).__name__)), html.P(advice)])]


def waiting(panel: Panel, path: str, layer: str, entry: journal.Entry | None) -> list[Any]:
    """Why a panel shows nothing yet, and when, or by what, that will change."""
    from hiddenscope.analyses.studies import all_studies

    studies = [study for study in all_studies() if study.method in panel.methods]
    parts: list[Any] = [html.P(panel.about)]
    failed = words.failed_studies(entry, layer, panel.methods)
    if failed:
        parts += [html.P(["It was tried, and failed: ", html.Code(problem)]) for problem in failed]
    elif any(study.live for study in studies):
        parts.append(html.P("It appears by itself, as soon as the worker has made the picture and is free."))
    if not studies or not all(study.live for study in studies) or failed:
        parts.append(html.P("It is made on request, in a terminal:"))
    else:
        parts.append(html.P("Without a worker, it is made in a terminal:"))
    parts.append(html.Pre(f"hiddenscope analyze {shlex.quote(path)}"))
    return [_card("Not computed yet", parts)]


def _card(title: str, parts: list[Any]) -> html.Div:
    return html.Div([html.H3(title), *parts], className="panel-message", role="status")


def _connect_browser(app: Dash) -> None:
    browser = browser_of(app)
    option: dict[str, Any] = {"type": "panel-option", "panel": ALL, "option": ALL}
    heads: dict[str, Any] = {"type": "panel-head", "name": ALL}
    again: dict[str, Any] = {"allow_duplicate": True}
    browser(
        "openPanel",
        Output(heads, "style"),
        Output("unit-card", "style"),
        Output("runs-card", "style"),
        Output("panel-body", "style"),
        Input("panel", "value"),
        State(heads, "id"),
    )
    browser(
        "panelCursor",
        Output("panel-followers", "id"),
        Input("cursor", "data"),
        Input("panel", "value"),
        State("panel-followers", "data"),
    )
    browser("panelNews", Output("panel-body", "children"), Input("panel-news", "data"), prevent_initial_call=True)
    for name in ("units", "epochs"):
        graphs: dict[str, Any] = {"type": f"panel-{name}", "name": ALL}
        browser(
            f"panel{name.capitalize()}",
            Output("units" if name == "units" else "cursor", "data", **again),
            Input(graphs, "clickData"),
            State("units", "data"),
            prevent_initial_call=True,
        )
    browser(
        "restorePanel",
        Output("panel", "value"),
        Output(option, "value"),
        Input("url", "search"),
        State(heads, "id"),
        State(option, "id"),
        State(option, "data"),
    )
    browser(
        "rememberPanel", Input("panel", "value"), Input(option, "value"), State(option, "id"), State(option, "data")
    )
