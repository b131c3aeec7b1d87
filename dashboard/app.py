"""The live page: one callback that brings what is new, and functions in the browser for all that needs no server."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dash import Dash, Input, Output, State, ctx, no_update

from hiddenscope.dashboard import cloud, compare, layout
from hiddenscope.dashboard.cloud import look_of, with_method
from hiddenscope.dashboard.library import Library
from hiddenscope.dashboard.news import Newsroom, wish_of
from hiddenscope.dashboard.panels import Panel, all_panels, strip
from hiddenscope.dashboard.panels.panel import number_of
from hiddenscope.dashboard.safety import protect
from hiddenscope.dashboard.supervisor import Supervisor
from hiddenscope.dashboard.wiring import connect_browser
from hiddenscope.errors import HiddenscopeError

HERE = Path(__file__).parent


def create_app(
    logdir: str | os.PathLike[str],
    *,
    supervisor: Supervisor | None = None,
    token: str | None = None,
    panels: Sequence[Panel] | None = None,
) -> Dash:
    """The page for the runs below ``logdir``; ``app.server`` is its WSGI application.

    Args:
        logdir: where runs are, or will be, recorded; it need not exist yet.
        supervisor: of the worker that makes the pictures; without one the page only reads.
        token: what viewers must give once, as ``?token=…``; None lets everybody in who reaches the server.
        panels: of the lower part of the page; None for all there are.
    """
    panels = all_panels() if panels is None else panels
    library = Library(Path(logdir))
    app = Dash(
        __name__,
        assets_folder=str(HERE / "assets"),
        title="hiddenscope",
        update_title="",
        index_string=layout.INDEX,
        suppress_callback_exceptions=True,  # what a panel draws comes and goes
    )
    app.layout = layout.page(icon=app.get_asset_url("icon.svg"), panels=panels)
    _bring_news(app, Newsroom(library, supervisor))
    _bring_frames(app, library)
    connect_browser(app)
    strip.connect(app, library, panels)
    compare.connect(app, library, supervisor)
    protect(app, token=token)
    return app


def _bring_news(app: Dash, newsroom: Newsroom) -> None:
    @app.callback(
        output={
            "picture": Output("picture-data", "data"),
            "curves": Output("curves-data", "data"),
            "seen": Output("seen", "data"),
            "epochs": Output("epochs", "data"),
            "runs": Output("run", "data"),
            "run": Output("run", "value"),
            "layers": Output("layer", "data"),
            "layer": Output("layer", "value"),
            "status": Output("status", "children"),
            "notice": Output("notice", "children"),
            "note": Output("picture-note", "children"),
            "extent": Output("extent", "data"),
            "units": Output("unit-table", "rowData"),
            "unit_columns": Output("unit-table", "columnDefs"),
            "runs_rows": Output("runs-table", "rowData"),
            "runs_columns": Output("runs-table", "columnDefs"),
            "runs_room": Output("runs-table", "style"),
            "lower_style": Output("lower", "style"),
            "empty": Output("empty", "children"),
            "empty_style": Output("empty", "style"),
            "views_style": Output("views", "style"),
            "transport_style": Output("transport", "style"),
        },
        inputs={
            "_tick": Input("tick", "n_intervals"),
            "run": Input("run", "value"),
            "layer": Input("layer", "value"),
            "look": {
                "method": Input("method", "value"),
                "color": Input("color", "value"),
                "dimensions": Input("dimensions", "value"),
                "range": Input("range", "data"),
                "zoom": Input("zoom", "data"),
            },
            "log": Input("log", "checked"),
            "smooth": Input("smooth", "value"),
            "dark": Input("dark", "data"),
            "panel": Input("panel", "value"),
        },
        # What is compared follows from the run, so it is no input: the next tick sees it.
        state={"others": State("compare", "value"), "seen": State("seen", "data"), "search": State("url", "search")},
        # A tick during a slow answer would make the browser throw that answer away, and so on for ever.
        running=[(Output("tick", "disabled"), True, False)],
    )
    def bring_news(_tick: object, **told: object) -> dict[str, Any]:
        return dict.fromkeys(ctx.outputs_grouping, no_update) | newsroom.since(wish_of(**told))


def _bring_frames(app: Dash, library: Library) -> None:
    @app.callback(
        output=Output("frame", "data"),
        inputs={"wanted": Input("frame-wanted", "data")},
        state={
            "run": State("run", "value"),
            "layer": State("layer", "value"),
            "dark": State("dark", "data"),
            "look": {
                "method": State("method", "value"),
                "color": State("color", "value"),
                "dimensions": State("dimensions", "value"),
                "range": State("range", "data"),
            },
        },
        prevent_initial_call=True,
    )
    def bring_frame(wanted: object, run: object, layer: object, dark: object, look: object) -> Any:
        """One epoch in full, for a cursor in a picture that is drawn with gaps."""
        epoch = number_of(wanted)
        if epoch is None or not isinstance(run, str) or run not in library.runs():
            return {"epoch": None}
        chosen = look_of(look, dark=bool(dark))
        try:
            view = library.view(run, layer if isinstance(layer, str) else None)
            view, _, _ = with_method(library, run, view, chosen.method, None)
            clusters = library.unit_clusters(run, view.layer) if chosen.color == "cluster" else None
        except (HiddenscopeError, OSError, KeyError):
            return {"epoch": None}
        return {"epoch": wanted, "look": chosen.mark(), "trace": cloud.frame(view, chosen, epoch, clusters)}
