"""What the page says while there is nothing to show, and what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dash import html

from hiddenscope.dashboard import words
from hiddenscope.run import RunInfo

SNIPPET = """import hiddenscope as hs

monitor = hs.HiddenStateMonitor()
pl.Trainer(callbacks=[monitor]).fit(model, data)"""
_SHOWN, _GRID, _HIDDEN = {"display": "flex"}, {"display": "grid"}, {"display": "none"}
NOT_EMPTY = {"empty_style": _HIDDEN, "views_style": _GRID, "transport_style": _SHOWN, "lower_style": _SHOWN}
"""What of the page is seen when there is something to show."""


def _empty(children: list[Any]) -> dict[str, Any]:
    return {
        "empty": html.Div(children, className="card"),
        "empty_style": _SHOWN,
        "views_style": _HIDDEN,
        "transport_style": _HIDDEN,
        "lower_style": _HIDDEN,
        "status": "",
        "notice": [],
    }


def nothing_yet(logdir: Path) -> dict[str, Any]:
    found = "Nothing is recorded below" if logdir.is_dir() else "There is no folder yet at"
    return _empty(
        [
            html.H2("Waiting for the first run"),
            html.P([f"{found} ", html.Code(str(logdir)), "."]),
            html.P("Add the monitor to your training, and start it:"),
            html.Pre(SNIPPET),
            html.P("This page looks again every second; leave it open."),
        ]
    )


def not_ready(info: RunInfo) -> dict[str, Any]:
    if info.problem is not None:
        return unreadable(info.problem)
    if info.status != "training":
        ended = words.STATUS.get(info.status, info.status)
        return _empty(
            [
                html.H2(f"{info.name} ended before its first epoch"),
                html.P(f"It holds nothing to show ({ended}). Other runs can be chosen at the top of the page."),
            ]
        )
    return _empty(
        [
            html.H2(f"{info.name} has begun"),
            html.P("Its first epoch, the network before training, appears here as soon as it is recorded."),
        ]
    )


def unreadable(problem: str) -> dict[str, Any]:
    return _empty(
        [
            html.H2("This run cannot be read"),
            html.P(problem),
            html.P("Other runs are not affected: choose one at the top of the page."),
        ]
    )
