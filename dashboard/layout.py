"""The page's parts and where they stand; what they show comes from the callbacks in `app`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html
from dash_ag_grid import AgGrid

from hiddenscope.dashboard import cloud, compare
from hiddenscope.dashboard.figures.template import FONT
from hiddenscope.dashboard.panels import Panel
from hiddenscope.dashboard.panels.strip import strip
from hiddenscope.dashboard.trust import EXPLAINED

TICK_MS = 1000
COLORS = tuple({"value": value, "label": label} for value, label in cloud.COLORS.items())
_GRAPH: Any = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "resetCameraLastSave3d", "autoScale2d"],
    "toImageButtonOptions": {"format": "png", "scale": 2},
}
_READ_EMBEDDING = (
    "Each point is one hidden unit at one time step of the sequence, after one epoch. Points lie close when the units "
    "respond alike to the probe's sequences, whatever the strength of their response.",
    "By epoch: see the network leave its random start and settle. By step: see what reading a sequence does to the "
    "units. By unit: see who goes together. By class: see which class a unit answers to most.",
    "Neighborhoods can be read, distances between far islands cannot. "
    "The bars below the picture say how far it can be trusted: " + EXPLAINED,
    "Drag to turn, scroll to zoom, click a point to follow its unit through all views.",
)
_READ_CURVES = (
    "The same epochs as curves, all on one axis. Click one to go to that epoch.",
    "Intra-step entropy: how widely the units of one time step are spread in the embedding. It rises while units take "
    "on different roles (shaded green: processing) and falls while they become alike (orange: compression).",
    "Inter-step entropy: how widely one unit travels while it reads a sequence. A unit that stays low does the same "
    "from the first step to the last.",
)
INDEX = """<!DOCTYPE html>
<html lang="en">
<head>
{%metas%}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{%title%}</title>
<link rel="icon" type="image/svg+xml" href="assets/icon.svg">
{%css%}
</head>
<body>
{%app_entry%}
<footer>{%config%}{%scripts%}{%renderer%}</footer>
</body>
</html>
"""


def page(*, icon: str, panels: Sequence[Panel] = ()) -> Any:
    """The whole page, empty.

    Args:
        icon: the address of the logo.
        panels: of the lower part, after the table of units.
    """
    return dmc.MantineProvider(
        id="provider",
        forceColorScheme="light",
        theme={"fontFamily": FONT, "headings": {"fontFamily": FONT}, "primaryColor": "blue", "defaultRadius": "sm"},
        children=[
            dcc.Location(id="url", refresh=False),
            dcc.Interval(id="tick", interval=TICK_MS),
            dcc.Store(id="seen", data={}),
            dcc.Store(id="epochs", data=[]),
            dcc.Store(id="dark"),
            dcc.Store(id="cursor", data=None),
            dcc.Store(id="units", data=[]),
            dcc.Store(id="focus"),
            dcc.Store(id="focus-nodes"),
            dcc.Store(id="picture-data"),
            dcc.Store(id="curves-data"),
            dcc.Store(id="extent"),
            dcc.Store(id="range", data={}),
            dcc.Store(id="zoom", data=None),
            dcc.Store(id="frame"),
            dcc.Store(id="frame-wanted"),
            html.Main(
                className="page",
                children=[
                    html.Div(
                        className="first-view",
                        children=[
                            _header(icon),
                            html.Div(id="notice", role="status"),
                            html.Div(
                                html.Div(html.H2("Looking for runs \u2026"), className="card"),
                                id="empty",
                                className="empty",
                            ),
                            html.Div(
                                id="views",
                                className="views",
                                style={"display": "none"},
                                children=[_picture(), _curves()],
                            ),
                            compare.view(_GRAPH, _blank()),
                            _transport(),
                        ],
                    ),
                    strip(panels, _unit_table()),
                ],
            ),
        ],
    )


def _header(icon: str) -> html.Header:
    return html.Header(
        className="bar",
        children=[
            html.Div([html.Img(src=icon, alt=""), "hiddenscope"], className="brand"),
            _select("run", "run", None, searchable=True, className="run"),
            html.Span("\u25b8", className="crumb"),
            _select("layer", "layer", None, className="layer"),
            compare.picker(),
            html.Div(className="grow"),
            html.Div(id="status", className="status", role="status"),
            dmc.ActionIcon(
                "\u25d0",
                id="theme",
                variant="subtle",
                color="gray",
                size="md",
                **{"aria-label": "switch between light and dark"},
            ),
        ],
    )


def _picture() -> html.Section:
    return html.Section(
        className="card",
        children=[
            html.Div(
                className="card-head",
                children=[
                    html.H2("Embedding"),
                    _help("the embedding", *_READ_EMBEDDING),
                    _select("method", "method of the embedding", 112, data=_choices(), value="mmphate"),
                    html.Div(className="grow"),
                    html.Span("color", className="crumb"),
                    _select("color", "color of the points", 152, data=list(COLORS), value="epoch"),
                    _part(),
                    dmc.SegmentedControl(
                        id="dimensions",
                        data=[{"value": "3", "label": "3-D"}, {"value": "2", "label": "2-D"}],
                        value="3",
                        size="xs",
                        **{"aria-label": "dimensions of the picture"},
                    ),
                ],
            ),
            html.Div(dcc.Graph(id="picture", config=_GRAPH, figure=_blank(), responsive=True), className="plot"),
            html.Div(id="picture-note", className="card-foot"),
        ],
    )


def _choices() -> list[dict[str, str]]:
    return [{"value": value, "label": label} for value, label in cloud.CHOICES.items()]


def _part() -> dmc.Popover:
    """The choice of a part of the picture: some steps, some epochs."""
    sliders = [
        html.Div(
            [
                html.Span(f"{axis} shown", className="crumb"),
                dmc.RangeSlider(
                    id=f"{axis}-range",
                    min=0,
                    max=1,
                    value=[0, 1],
                    minRange=0,
                    step=1,
                    size="sm",
                    updatemode="mouseup",
                    disabled=True,
                    thumbFromLabel=f"first of the {axis} shown",
                    thumbToLabel=f"last of the {axis} shown",
                ),
            ],
            className="range",
        )
        for axis in ("steps", "epochs")
    ]
    return dmc.Popover(
        [
            dmc.PopoverTarget(dmc.Button("filter", id="part", variant="default", size="xs", fw=400, px=10)),
            dmc.PopoverDropdown(
                [
                    *sliders,
                    dmc.Button("show all steps and epochs", id="part-reset", variant="subtle", size="compact-xs"),
                ]
            ),
        ],
        width=320,
        position="bottom-end",
        withArrow=True,
        shadow="md",
        trapFocus=True,
        keepMounted=True,
    )


def _curves() -> html.Section:
    return html.Section(
        className="card",
        children=[
            html.Div(
                className="card-head",
                children=[
                    html.H2("Over epochs"),
                    _help("the curves", *_READ_CURVES),
                    html.Div(className="grow"),
                    html.Span("smooth", className="crumb"),
                    dmc.Slider(
                        id="smooth",
                        className="smooth",
                        min=0,
                        max=0.95,
                        step=0.05,
                        value=0,
                        updatemode="mouseup",
                        size="sm",
                        w=84,
                        label=None,
                        thumbLabel="smoothing of loss and metrics, 0 is off",
                    ),
                    dmc.Switch(id="log", label="log loss", size="xs", checked=False),
                ],
            ),
            html.Div(
                className="plot",
                children=[
                    dcc.Graph(id="curves", config=_GRAPH, figure=_blank(), responsive=True),
                    html.Div(html.Span(), id="curve-cursor", className="curve-cursor"),
                ],
            ),
        ],
    )


def _transport() -> html.Div:
    return html.Div(
        id="transport",
        className="card transport",
        style={"display": "none"},
        children=[
            dmc.ActionIcon(
                "\u25b6", id="play", variant="light", size="md", **{"aria-label": "play through the epochs (space)"}
            ),
            dmc.Slider(
                id="scrub",
                className="grow",
                min=0,
                max=1,
                step=1,
                value=1,
                updatemode="drag",
                label=None,
                size="sm",
                thumbLabel="epoch",
            ),
            html.Div("all epochs", id="epoch-label", className="epoch-label"),
            html.Button(id="focus-label", className="focus-label", title="forget what is picked (escape)", hidden=True),
            html.Div(id="chosen", className="chosen"),
            dmc.Button(
                "show all",
                id="all-epochs",
                variant="subtle",
                size="compact-xs",
                **{"aria-label": "all epochs (escape)"},
            ),
        ],
    )


_TWO_DIGITS = {"function": "params.value == null ? '' : d3.format('.2f')(params.value)"}
_THREE_FIGURES = {"function": "params.value == null ? '' : d3.format('.3~g')(params.value)"}
_PERCENT = {"function": "params.value == null ? '' : d3.format('.0%')(params.value)"}
_NUMBER = {"type": "rightAligned", "filter": "agNumberColumnFilter"}


def unit_columns(rows: Sequence[dict[str, Any]] = ()) -> list[dict[str, Any]]:
    """The columns of the table of units: those that every picture has, then those that other results offer."""
    fixed: list[dict[str, Any]] = [
        {
            "field": "unit",
            "filter": True,
            "maxWidth": 130,
            "comparator": {"function": "Number(valueA) - Number(valueB) || 0"},
        },
        {"field": "entropy", "headerName": "inter-step entropy (nats)", "valueFormatter": _TWO_DIGITS, **_NUMBER},
        {"field": "change", "headerName": "change since the first epoch", "valueFormatter": _TWO_DIGITS, **_NUMBER},
        {"field": "travel", "headerName": "travel over epochs", "valueFormatter": _TWO_DIGITS, **_NUMBER},
        {"field": "class", "headerName": "most active class", "filter": True},
        {"field": "share", "headerName": "at this share of steps", "valueFormatter": _PERCENT, **_NUMBER},
    ]
    known = {column["field"] for column in fixed}
    present = set(rows[0]) if rows else known
    offered = [
        {
            "colId": name,
            "headerName": name,
            "valueGetter": {"function": f"params.data[{json.dumps(name)}]"},
            **({"filter": True} if _is_text(rows, name) else {"valueFormatter": _THREE_FIGURES, **_NUMBER}),
        }
        for name in (rows[0] if rows else ())
        if name not in known
    ]
    return [column for column in fixed if column["field"] in present] + offered


def _is_text(rows: Sequence[dict[str, Any]], name: str) -> bool:
    return any(isinstance(row[name], str) for row in rows)


def _unit_table() -> AgGrid:
    return AgGrid(
        id="unit-table",
        columnDefs=unit_columns(),
        rowData=[],
        getRowId="params.data.unit",
        rowClassRules={"ringed": "ringed(params.data.unit)"},
        defaultColDef={
            "sortable": True,
            "resizable": True,
            "flex": 1,
            "minWidth": 120,
            "wrapHeaderText": True,
            "autoHeaderHeight": True,
        },
        dashGridOptions={
            "rowSelection": {"mode": "multiRow", "enableClickSelection": True},
            "rowHeight": 30,
            "localeText": {"noRowsToShow": "Units are listed here as soon as the first picture is made."},
        },
        style={"height": 420, "width": "100%"},
    )


def _select(name: str, label: str, width: int | None, **options: Any) -> dmc.Select:
    return dmc.Select(
        id=name,
        size="xs",
        allowDeselect=False,
        comboboxProps={"withinPortal": True},
        **({} if width is None else {"w": width}),
        **{"aria-label": label},
        **options,
    )


def _help(about: str, *paragraphs: str) -> dmc.Popover:
    """A question mark that explains a view to a newcomer."""
    return dmc.Popover(
        [
            dmc.PopoverTarget(
                dmc.ActionIcon(
                    "?",
                    variant="subtle",
                    color="gray",
                    size="sm",
                    radius="xl",
                    **{"aria-label": f"how to read {about}"},
                )
            ),
            dmc.PopoverDropdown([html.P(text) for text in paragraphs], className="help"),
        ],
        width=420,
        position="bottom-start",
        withArrow=True,
        shadow="md",
    )


def _blank() -> dict[str, Any]:
    hidden = {"visible": False}
    clear = "rgba(0, 0, 0, 0)"
    return {"data": [], "layout": {"xaxis": hidden, "yaxis": hidden, "paper_bgcolor": clear, "plot_bgcolor": clear}}
