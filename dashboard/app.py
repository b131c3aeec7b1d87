"""The live page: one callback that brings what is new, and functions in the browser for all that needs no server."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs

import xarray as xr
from dash import Dash, Input, Output, State, ctx, html, no_update

from hiddenscope.dashboard import cloud, compare, figures, layout, listing, words
from hiddenscope.dashboard.cloud import look_of, picture_figure, with_method
from hiddenscope.dashboard.library import Library, View, alive
from hiddenscope.dashboard.panels import Panel, all_panels, strip
from hiddenscope.dashboard.panels.panel import number_of
from hiddenscope.dashboard.safety import protect
from hiddenscope.dashboard.sketchbook import Sketchbook
from hiddenscope.dashboard.supervisor import Supervisor
from hiddenscope.dashboard.units import unit_table
from hiddenscope.dashboard.wiring import connect_browser
from hiddenscope.errors import HiddenscopeError
from hiddenscope.run import RunInfo

HERE = Path(__file__).parent
SHOWN = {"display": "flex"}
GRID = {"display": "grid"}
HIDDEN = {"display": "none"}

SNIPPET = """import hiddenscope as hs

monitor = hs.HiddenStateMonitor()
pl.Trainer(callbacks=[monitor]).fit(model, data)"""


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
    _bring_news(app, library, supervisor)
    _bring_frames(app, library)
    connect_browser(app)
    strip.connect(app, library, panels)
    compare.connect(app, library, supervisor)
    protect(app, token=token)
    return app


def _bring_news(app: Dash, library: Library, supervisor: Supervisor | None) -> None:
    sketches = Sketchbook()

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
    def bring_news(
        _tick: int | None,
        run: object,
        layer: object,
        look: object,
        log: object,
        smooth: object,
        dark: object,
        panel: object,
        others: object,
        seen: object,
        search: object,
    ) -> dict[str, Any]:
        # What comes from a browser may be anything: unknown values become the defaults.
        news: dict[str, Any] = dict.fromkeys(ctx.outputs_grouping, no_update)
        seen = seen if isinstance(seen, dict) else {}
        run, layer = (value if isinstance(value, str) else None for value in (run, layer))
        log, dark = bool(log), bool(dark)
        wanted = look_of(look, dark=dark)
        runs = library.runs()
        if seen.get("runs") != (listed := _listed(runs)):
            news["runs"] = listed
        asked = parse_qs(search.lstrip("?")) if isinstance(search, str) else {}
        asked_layer = layer
        if run not in runs:
            linked = asked.get("run", [""])[0]
            run = linked if linked in runs else _newest_to_show(runs)
            asked_layer = layer or asked.get("layer", [None])[0]
            news["run"] = run
        listing_at = seen.get("listing")
        if panel == listing.RUNS and listing_at != (listing_now := _mark_of(runs, run)):
            listing_at, rows = listing_now, listing.rows(library, run)
            news |= {"runs_rows": rows, "runs_columns": listing.columns(rows), "runs_room": listing.room(len(rows))}
        if run is None:
            return news | _nothing_yet(library.logdir) | {"seen": {"runs": listed}}
        info = runs[run]
        if not info.epoch_count:
            return news | _not_ready(info) | {"seen": {"runs": listed}}
        try:
            view = library.view(run, asked_layer)
        except (HiddenscopeError, OSError, KeyError) as error:
            return news | _unreadable(str(error)) | {"seen": {"runs": listed}}
        if seen.get("layers") != list(view.layers):
            news["layers"] = list(view.layers)
        if layer != view.layer:
            news["layer"] = view.layer
        entry = library.worker(run)
        at_work = entry is not None and alive(entry.pid)  # else it was killed in the middle, and its word stayed
        news["status"] = _status(view, words.working(entry, view.layer, time.time()) if at_work else "")
        news["notice"] = _notice(view, entry, supervisor)
        smoothing = min(max(0.0, float(smooth)), 0.99) if isinstance(smooth, int | float) and abs(smooth) <= 1 else 0.0
        stored = library.stored(run, view.layer, ("mmphate", "clusters", "phases"))
        beside_at = list(stored.values())
        curves_at = [run, view.layer, view.version, beside_at, log, smoothing, dark]
        units_at: Any = [run, view.layer, view.result_version]
        columns_told = seen.get("unit_columns")
        if panel != strip.UNITS:
            units_at = seen.get("units")  # nobody looks at the table
        elif seen.get("units") != units_at:
            rows = [] if view.result is None else unit_rows(view, library.unit_columns(run, view.layer))
            news["units"] = rows
            if seen.get("unit_columns") != (columns := list(rows[0]) if rows else []):
                news["unit_columns"] = layout.unit_columns(rows)
            columns_told = columns
        shown, waiting, beside = with_method(library, run, view, wanted.method, supervisor)
        clusters = library.unit_clusters(run, view.layer) if wanted.color == "cluster" else None
        made_at = None if shown.result is None else float(shown.result.attrs.get("computed_at", 0.0))
        by = {"loss": view.version, "cluster": stored["clusters"]}.get(wanted.color)
        picture_at = [run, view.layer, made_at, waiting, by, *wanted.mark()]
        if seen.get("curves") != curves_at:
            groups = library.unit_clusters(run, view.layer)
            phases = library.result(run, view.layer, "phases")
            news["curves"] = sketches.drawn(
                ["curves", *curves_at],
                lambda: curves_figure(view, log=log, smoothing=smoothing, clusters=groups, phases=phases, dark=dark),
            )
        compared = compare.chosen(library, run, others)
        epochs = sorted({float(epoch) for name in compared for epoch in _epochs(library, name)})
        if seen.get("epochs") != (epochs_at := [len(epochs), epochs[-1] if epochs else None, compared]):
            news["epochs"] = epochs

        def draw_picture() -> tuple[dict[str, Any], str]:
            figure = picture_figure(shown, look=wanted, clusters=clusters, waiting=waiting)
            note = str((figure.layout.meta or {}).get("note", ""))
            figure.layout.meta = {**(figure.layout.meta or {}), "look": replace(wanted, window=None).mark()}
            return figure.to_dict(), note

        if seen.get("picture") != picture_at:
            news["picture"], _ = sketches.drawn(["picture", *picture_at], draw_picture)
            news["extent"] = _extent(shown)
        if seen.get("note") != (note_at := [*picture_at, beside]):  # an old picture is told to be older with each epoch
            news["note"] = cloud.note(shown, sketches.drawn(["picture", *picture_at], draw_picture)[1], beside)
        told = {"runs": listed, "layers": list(view.layers), "curves": curves_at, "picture": picture_at}
        told["note"] = note_at
        told |= {"units": units_at, "unit_columns": columns_told, "epochs": epochs_at, "listing": listing_at}
        if told != seen:
            news["seen"] = told
            news |= {"empty_style": HIDDEN, "views_style": GRID, "transport_style": SHOWN, "lower_style": SHOWN}
        return news


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


def curves_figure(
    view: View,
    *,
    log: bool,
    smoothing: float = 0.0,
    clusters: xr.DataArray | None = None,
    phases: xr.Dataset | None = None,
    dark: bool,
) -> dict[str, Any]:
    """Loss, metrics and entropies of a view."""
    intra = inter = None
    if view.result is not None:
        intra, inter = view.result["intra_step_entropy"], view.result["inter_step_entropy"]
    figure: dict[str, Any] = figures.curves(
        view.metrics, intra, inter, log=log, smoothing=smoothing, clusters=clusters, phases=phases, dark=dark
    ).to_dict()
    figure["layout"]["uirevision"] = f"curves of {view.name}, {view.layer}"
    return figure


def unit_rows(view: View, columns: Mapping[str, xr.DataArray] = MappingProxyType({})) -> list[dict[str, Any]]:
    """The rows of the table of units; numbers that are not known are None."""
    assert view.result is not None
    table = unit_table(view.result, view.class_names, columns)
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _epochs(library: Library, name: str) -> list[float]:
    try:
        return [float(epoch) for epoch in library.view(name).epochs]
    except (HiddenscopeError, OSError, KeyError):
        return []


def _newest_to_show(runs: Mapping[str, RunInfo]) -> str | None:
    """The newest run that has an epoch, or will have one soon; whatever there is where there is none."""
    shown = (name for name, info in runs.items() if info.epoch_count or info.status == "training")
    return next(shown, next(iter(runs), None))


def _listed(runs: dict[str, RunInfo]) -> list[dict[str, str]]:
    return [
        {"value": name, "label": name if info.status == "finished" else f"{name} ({info.status})"}
        for name, info in runs.items()
    ]


def _mark_of(runs: Mapping[str, RunInfo], shown: str | None) -> str:
    """Differs when the list of runs does."""
    told = [shown, *((name, info.version, info.status) for name, info in runs.items())]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _status(view: View, working: str) -> list[Any]:
    now = time.time()
    newest = float(view.epochs[-1]) if len(view.epochs) else None
    attributes = None if view.result is None else view.result.attrs
    said: list[Any] = [html.B(words.STATUS.get(view.status, view.status)), f" \u00b7 {words.recorded(newest)}"]
    fresh = words.freshness(attributes, newest, now)
    beside = f"{fresh} \u00b7 {working}" if working else fresh
    return [
        html.Span(className=f"dot {view.status}"),
        html.Div([html.Div(said), html.Div(beside, title=beside)], className="said"),
    ]


def _extent(view: View) -> dict[str, Any] | None:
    """The first and last step and epoch of the picture, for the choice of a part."""
    if view.result is None or not view.result["embedding"].size:
        return None
    found = {}
    for dim in ("step", "epoch"):
        at = view.result[dim].values
        found[f"{dim}s"] = [float(at[0]), float(at[-1])] if at.dtype.kind in "iuf" else [0.0, float(len(at) - 1)]
    return found


def _notice(view: View, entry: Any, supervisor: Supervisor | None) -> list[Any]:
    found = []
    if supervisor is not None and supervisor.problem:
        found.append(_warning(supervisor.problem, "Curves go on; the message above is in the terminal too."))
    if entry is not None and entry.state == "failed":
        layer = f" of layer {entry.layer}" if entry.layer else ""
        found.append(_warning(f"No new picture{layer}: {entry.error}.", f"What to do: {entry.advice}."))
    here = supervisor is not None and entry is not None and entry.dashboard == os.getpid()
    if entry is not None and not here and supervisor is not None and alive(entry.dashboard):
        text = f"The dashboard with process id {entry.dashboard} makes the pictures of this run; this page reads them."
        found.append(html.Div(text, className="notice calm"))
    return found


def _warning(what: str, advice: str) -> html.Div:
    return html.Div([html.B(what), advice], className="notice")


def _empty(children: list[Any]) -> dict[str, Any]:
    return {
        "empty": html.Div(children, className="card"),
        "empty_style": SHOWN,
        "views_style": HIDDEN,
        "transport_style": HIDDEN,
        "lower_style": HIDDEN,
        "status": "",
        "notice": [],
    }


def _nothing_yet(logdir: Path) -> dict[str, Any]:
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


def _not_ready(info: RunInfo) -> dict[str, Any]:
    if info.problem is not None:
        return _unreadable(info.problem)
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


def _unreadable(problem: str) -> dict[str, Any]:
    return _empty(
        [
            html.H2("This run cannot be read"),
            html.P(problem),
            html.P("Other runs are not affected: choose one at the top of the page."),
        ]
    )


__all__ = ["create_app", "curves_figure", "picture_figure"]
