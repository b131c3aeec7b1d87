"""The plugin: routes below ``/data/plugin/hiddenscope``; what they answer is computed in `answers`."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorboard.plugins.base_plugin import FrontendMetadata, TBContext, TBPlugin
from werkzeug import Request, Response

if TYPE_CHECKING:
    from hiddenscope.dashboard.library import Library
    from hiddenscope.dashboard.supervisor import Supervisor

STATIC = Path(__file__).parent / "static"
ASSETS = Path(__file__).parent.parent / "assets"
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; "
    "worker-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
LOOK_SECONDS = 5.0
_LONGEST = 1000  # characters of a value in a query
_Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class HiddenscopePlugin(TBPlugin):
    """Shows the runs recorded below ``--logdir``; the first look at the tab starts the worker that embeds them."""

    plugin_name = "hiddenscope"

    def __init__(self, context: TBContext) -> None:
        self._logdir = Path(os.path.expanduser(context.logdir)) if context.logdir else None
        self._lock = threading.Lock()
        self._library: Library | None = None
        self._supervisor: Supervisor | None = None
        self._looked_at = -LOOK_SECONDS
        self._found = False

    def get_plugin_apps(self) -> dict[str, _Application]:
        """Route to application."""
        files = {
            "/index.js": (STATIC / "index.js", "text/javascript"),
            "/index.html": (STATIC / "index.html", "text/html"),
            "/tab.js": (STATIC / "tab.js", "text/javascript"),
            "/panels.js": (STATIC / "panels.js", "text/javascript"),
            "/tab.css": (STATIC / "tab.css", "text/css"),
            "/rnnvis.js": (ASSETS / "rnnvis.js", "text/javascript"),
            "/scope.js": (ASSETS / "scope.js", "text/javascript"),
            "/icon.svg": (ASSETS / "icon.svg", "image/svg+xml"),
        }
        apps: dict[str, _Application] = {route: _serving(*found) for route, found in files.items()}
        apps["/plotly.min.js"] = Request.application(_plotly)
        apps["/view"] = Request.application(self._view)
        apps["/panel"] = Request.application(self._panel)
        return apps

    def is_active(self) -> bool:
        """Whether anything is recorded below the log folder; looked up every few seconds at most."""
        if time.monotonic() - self._looked_at >= LOOK_SECONDS:
            self._found = self._logdir is not None and _has_run(self._logdir)
            self._looked_at = time.monotonic()
        return self._found

    def frontend_metadata(self) -> FrontendMetadata:
        """An ES module that opens the tab's own page."""
        return FrontendMetadata(es_module_path="/index.js", tab_name="HIDDENSCOPE", disable_reload=True)

    def _view(self, request: Request) -> Response:
        from hiddenscope.dashboard.tensorboard.answers import view_json

        return self._answer(lambda library, query: view_json(library, query, self._supervisor), request)

    def _panel(self, request: Request) -> Response:
        from hiddenscope.dashboard.tensorboard.panels import panel_json

        return self._answer(panel_json, request)

    def _answer(self, asked: Callable[[Library | None, dict[str, str]], dict[str, Any]], request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return _respond("405 this can only be read", "text/plain", cache="no-store", status=405)
        query = {name[:100]: value[:_LONGEST] for name, value in request.args.items()}
        return _respond(json.dumps(asked(self._runs(), query), allow_nan=False), "application/json", cache="no-store")

    def _runs(self) -> Library | None:
        with self._lock:
            if self._library is None and self._logdir is not None:
                from hiddenscope.dashboard.library import Library
                from hiddenscope.dashboard.supervisor import Supervisor

                self._library = Library(self._logdir)
                self._supervisor = Supervisor.of(self._logdir)
                self._supervisor.start()
            return self._library


def _has_run(logdir: Path) -> bool:
    """Whether a folder below looks like a run, as it does to `find_runs`, without opening it."""
    for parent, folders, _ in os.walk(logdir):
        here = Path(parent)
        if "snapshots" in folders and (here.name == "hiddenscope" or (here / "snapshots" / "refs").is_dir()):
            return True
        folders[:] = [name for name in folders if not name.startswith(".")]
    return False


def _serving(path: Path, kind: str) -> _Application:
    @Request.application
    def serve(request: Request) -> Response:
        return _file(path, kind)

    application: _Application = serve
    return application


def _plotly(request: Request) -> Response:
    import plotly

    found = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    return _file(found, "text/javascript", cache="public, max-age=604800")


def _file(path: Path, kind: str, *, cache: str = "no-cache") -> Response:
    return _respond(path.read_bytes(), kind, cache=cache)


def _respond(body: str | bytes, kind: str, *, cache: str, status: int = 200) -> Response:
    response = Response(body, mimetype=kind, status=status)
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = cache
    return response
