"""What the browser does by itself: which of the functions in ``assets/scope.js`` answers to what."""

from __future__ import annotations

from typing import Any

from dash import Dash, Input, Output, State

from hiddenscope.dashboard.clientside import browser_of


def connect_browser(app: Dash) -> None:
    """Register the callbacks that need no server."""
    browser = browser_of(app)
    browser(
        "picture",
        Output("picture", "figure"),
        Input("picture-data", "data"),
        Input("cursor", "data"),
        Input("units", "data"),
        Input("frame", "data"),
        Input("focus-nodes", "data"),
    )
    browser(
        "zoomed",
        Output("zoom", "data"),
        Input("picture", "relayoutData"),
        Input("dimensions", "value"),
        Input("run", "value"),
        Input("layer", "value"),
        Input("method", "value"),
    )
    browser(
        "rangeBounds",
        *(
            Output(f"{axis}-range", prop)
            for axis in ("steps", "epochs")
            for prop in ("min", "max", "value", "disabled")
        ),
        Input("extent", "data"),
        State("range", "data"),
    )
    browser(
        "rangeChosen",
        Output("range", "data"),
        Output("part", "variant"),
        Input("steps-range", "value"),
        Input("epochs-range", "value"),
        State("extent", "data"),
        State("steps-range", "max"),
        State("epochs-range", "max"),
        prevent_initial_call=True,
    )
    browser(
        "rangeReset",
        Output("steps-range", "value", allow_duplicate=True),
        Output("epochs-range", "value", allow_duplicate=True),
        Input("part-reset", "n_clicks"),
        State("extent", "data"),
        prevent_initial_call=True,
    )
    browser(
        "curves",
        Output("curves", "figure"),
        Input("curves-data", "data"),
        Input("units", "data"),
        Input("focus-nodes", "data"),
    )
    browser(
        "transport",
        Output("scrub", "max"),
        Output("scrub", "value"),
        Output("epoch-label", "children"),
        Input("cursor", "data"),
        Input("epochs", "data"),
    )
    first_call_too: dict[str, Any] = {"prevent_initial_call": True}
    browser("scrubbed", Output("cursor", "data"), Input("scrub", "value"), **first_call_too)
    again: dict[str, Any] = {"allow_duplicate": True}
    browser("all", Output("cursor", "data", **again), Input("all-epochs", "n_clicks"), prevent_initial_call=True)
    browser("play", Output("play", "variant"), Input("play", "n_clicks"), prevent_initial_call=True)
    browser(
        "clickCurves",
        Output("cursor", "data", **again),
        Output("units", "data", **again),
        Input("curves", "clickData"),
        State("units", "data"),
        prevent_initial_call=True,
    )
    browser(
        "clickPicture",
        Output("units", "data"),
        Input("picture", "clickData"),
        State("units", "data"),
        prevent_initial_call=True,
    )
    browser(
        "tableToUnits",
        Output("units", "data", **again),
        Input("unit-table", "selectedRows"),
        State("units", "data"),
        prevent_initial_call=True,
    )
    browser(
        "focusTold",
        Output("focus-label", "children"),
        Output("focus-label", "hidden"),
        Input("focus-nodes", "data"),
    )
    browser("focusForgotten", Output("focus", "data"), Input("focus-label", "n_clicks"), prevent_initial_call=True)
    browser("unitsToTable", Output("unit-table", "selectedRows"), Input("units", "data"), prevent_initial_call=True)
    browser(
        "theme",
        Output("dark", "data"),
        Output("provider", "forceColorScheme"),
        Input("theme", "n_clicks"),
        State("dark", "data"),
    )
    browser(
        "restore",
        Output("method", "value"),
        Output("color", "value"),
        Output("dimensions", "value"),
        Output("cursor", "data", **again),
        Output("units", "data", **again),
        Output("log", "checked"),
        Output("range", "data", **again),
        Output("smooth", "value"),
        Output("focus", "data", **again),
        Input("url", "search"),
        prevent_initial_call="initial_duplicate",
    )
    browser(
        "remember",
        Input("run", "value"),
        Input("layer", "value"),
        Input("method", "value"),
        Input("color", "value"),
        Input("dimensions", "value"),
        Input("cursor", "data"),
        Input("units", "data"),
        Input("log", "checked"),
        Input("range", "data"),
        Input("smooth", "value"),
        Input("focus", "data"),
    )
