"""The list of runs: what became of each, how far it came, where its metrics stand; tick some to compare them."""

from __future__ import annotations

import json
import time
from typing import Any

from dash import Dash, Input, Output, State
from dash_ag_grid import AgGrid

from hiddenscope.dashboard import words
from hiddenscope.dashboard.clientside import browser_of
from hiddenscope.dashboard.library import Library
from hiddenscope.run import RunInfo

RUNS = "runs"
ABOUT = "Every run below the folder. Click a name to open it; tick up to three others to see them beside the open one."
_OPEN = "params.data.open ? 'run-name run-open' : 'run-name'"
_MOST_METRICS = 6
_MOST_READ = 200
"""Runs whose metrics are read; the others are listed without."""


def table() -> AgGrid:
    """The table, empty."""
    return AgGrid(
        id="runs-table",
        columnDefs=columns([]),
        rowData=[],
        getRowId="params.data.run",
        defaultColDef={
            "sortable": True,
            "resizable": True,
            "flex": 1,
            "minWidth": 96,
            "wrapHeaderText": True,
            "autoHeaderHeight": True,
        },
        dashGridOptions={
            "rowSelection": {
                "mode": "multiRow",
                "checkboxes": True,
                "headerCheckbox": False,
                "enableClickSelection": False,
                "isRowSelectable": {"function": "!params.data.open && params.data.epochs > 0"},
            },
            "rowHeight": 30,
            "localeText": {"noRowsToShow": "No run is found below the folder."},
        },
        style=room(0),
    )


def room(count: int) -> dict[str, Any]:
    """How much of the page a table of so many runs takes."""
    return {"height": min(420, 90 + 30 * max(count, 3)), "width": "100%"}


def columns(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The columns of these rows."""
    number = {"type": "rightAligned", "suppressHeaderFilterButton": True, "filter": "agNumberColumnFilter"}
    fixed: list[dict[str, Any]] = [
        {"field": "run", "minWidth": 190, "flex": 2, "filter": True, "cellClass": {"function": _OPEN}},
        {
            "field": "status",
            "minWidth": 190,
            "flex": 2,
            "filter": True,
            "cellClass": {"function": "'dotted ' + params.data.state"},
        },
        {"field": "epochs", **number},
        {"field": "last", "headerName": "last epoch", **number},
        {"field": "recorded", "minWidth": 150},
        {"field": "layers", "minWidth": 120},
    ]
    names = list(dict.fromkeys(name for row in rows for name in row["metrics"]))[:_MOST_METRICS]
    return fixed + [
        {
            "colId": f"metric {name}",
            "headerName": name,
            "valueGetter": {"function": f"params.data.metrics[{json.dumps(name)}]"},
            "valueFormatter": {"function": "params.value == null ? '' : d3.format('.4~g')(params.value)"},
            **number,
        }
        for name in names
    ]


def rows(library: Library, shown: str | None) -> list[dict[str, Any]]:
    """A row for each run, the newest first; ``shown`` is the open one."""
    found = []
    for position, (name, info) in enumerate(library.runs().items()):
        found.append(
            {
                "run": name,
                "open": name == shown,
                "state": info.status,
                "status": status(info),
                "epochs": info.epoch_count,
                "last": info.last_epoch,
                "recorded": time.strftime("%Y-%m-%d %H:%M", time.localtime(info.updated_at)) if info.updated_at else "",
                "layers": ", ".join(info.layers),
                "metrics": library.final_metrics(name) if position < _MOST_READ else {},
            }
        )
    return found


def status(info: RunInfo) -> str:
    """What became of a run, in words.

    >>> status(RunInfo("p", "version_0", "finished", (), 3, 2.0, 0.0, "", None, (1.0,)))
    'finished, resumed after epoch 1'
    """
    said = info.problem if info.problem is not None else words.STATUS.get(info.status, info.status)
    if info.resumed_after:
        said += f", resumed after {' and '.join(f'epoch {epoch:g}' for epoch in info.resumed_after[-3:])}"
    return said


def connect(app: Dash) -> None:
    """Register what the browser does when a run is ticked, or its name is clicked."""
    browser = browser_of(app)
    browser(
        "runClicked",
        Output("run", "value", allow_duplicate=True),
        Input("runs-table", "cellClicked"),
        prevent_initial_call=True,
    )
    browser(
        "runsTicked",
        Output("compare", "value", allow_duplicate=True),
        Input("runs-table", "selectedRows"),
        State("compare", "value"),
        State("runs-table", "rowData"),
        prevent_initial_call=True,
    )
    browser(
        "runsCompared",
        Output("runs-table", "selectedRows"),
        Input("compare", "value"),
        Input("runs-table", "rowData"),
    )
