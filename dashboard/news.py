"""What is new for a viewer: all that follows from the runs, apart from how the page carries it."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs

from dash import html

from hiddenscope.dashboard import cloud, compare, empty, layout, listing, words
from hiddenscope.dashboard.cloud import Look, look_of, picture_figure, with_method
from hiddenscope.dashboard.curves import curves_figure
from hiddenscope.dashboard.journal import Entry
from hiddenscope.dashboard.library import Library, View, alive
from hiddenscope.dashboard.panels import strip
from hiddenscope.dashboard.sketchbook import Sketchbook
from hiddenscope.dashboard.supervisor import Supervisor
from hiddenscope.dashboard.units import unit_rows
from hiddenscope.errors import HiddenscopeError
from hiddenscope.run import RunInfo

News = dict[str, Any]


@dataclass(frozen=True)
class Wish:
    """What a viewer looks at, and what they have seen of it; made by `wish_of`.

    Attributes:
        run: its name, which need not exist; None for whichever is newest.
        layer: the same of the layer.
        linked_run: the run that the page's address asks for; empty without one.
        linked_layer: the same of the layer; None without one.
        look: of the picture.
        log: whether the loss has a logarithmic axis.
        smoothing: of loss and metrics, 0 to 0.99.
        panel: the name of the open panel.
        others: names of the runs that are compared.
        seen: the marks of what has been sent.
    """

    run: str | None
    layer: str | None
    linked_run: str
    linked_layer: str | None
    look: Look
    log: bool
    smoothing: float
    panel: object
    others: object
    seen: Mapping[str, Any]


def wish_of(
    *,
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
) -> Wish:
    """The wish of a browser, which may send anything: unknown values become the defaults."""
    asked = parse_qs(search.lstrip("?")) if isinstance(search, str) else {}
    return Wish(
        run=run if isinstance(run, str) else None,
        layer=layer if isinstance(layer, str) else None,
        linked_run=asked.get("run", [""])[0],
        linked_layer=asked.get("layer", [None])[0],
        look=look_of(look, dark=bool(dark)),
        log=bool(log),
        smoothing=min(max(0.0, float(smooth)), 0.99) if isinstance(smooth, int | float) and abs(smooth) <= 1 else 0.0,
        panel=panel,
        others=others,
        seen=seen if isinstance(seen, dict) else {},
    )


class Newsroom:
    """Answers what is new, for any number of viewers.

    Args:
        library: of the runs.
        supervisor: of the worker, if there is one.
    """

    def __init__(self, library: Library, supervisor: Supervisor | None) -> None:
        self.library = library
        self.supervisor = supervisor
        self._sketches = Sketchbook()

    def since(self, wish: Wish) -> News:
        """What differs from what has been seen, by the names of the page's outputs."""
        answer = _Answer(wish.seen)
        runs = self.library.runs()
        listed = _listed(runs)
        answer.part("runs", listed, lambda: {"runs": listed})
        run, layer = wish.run, wish.layer
        if run not in runs:
            run = wish.linked_run if wish.linked_run in runs else _newest_to_show(runs)
            layer = layer or wish.linked_layer
            answer.news["run"] = run
        self._list(answer, wish, runs, run)
        if run is None:
            return answer.instead(empty.nothing_yet(self.library.logdir))
        if not runs[run].epoch_count:
            return answer.instead(empty.not_ready(runs[run]))
        try:
            view = self.library.view(run, layer)
        except (HiddenscopeError, OSError, KeyError) as error:
            return answer.instead(empty.unreadable(str(error)))
        answer.part("layers", list(view.layers), lambda: {"layers": list(view.layers)})
        if wish.layer != view.layer:
            answer.news["layer"] = view.layer
        answer.news |= self._status(view)
        self._tabulate(answer, wish, view)
        self._draw_curves(answer, wish, view)
        self._count_epochs(answer, wish, run)
        self._draw_picture(answer, wish, view)
        return answer.complete()

    def _list(self, answer: _Answer, wish: Wish, runs: Mapping[str, RunInfo], run: str | None) -> None:
        """The list of runs, while it is looked at."""

        def table() -> News:
            rows = listing.rows(self.library, run)
            return {"runs_rows": rows, "runs_columns": listing.columns(rows), "runs_room": listing.room(len(rows))}

        if wish.panel == listing.RUNS:
            answer.part("listing", _mark_of(runs, run), table)
        else:
            answer.leave("listing")

    def _status(self, view: View) -> News:
        entry = self.library.worker(view.name)
        at_work = entry is not None and alive(entry.pid)  # else it was killed in the middle, and its word stayed
        working = words.working(entry, view.layer, time.time()) if at_work else ""
        return {"status": _status(view, working), "notice": _notice(entry, self.supervisor)}

    def _tabulate(self, answer: _Answer, wish: Wish, view: View) -> None:
        """The table of units, while it is looked at."""
        answer.leave("unit_columns")

        def table() -> News:
            known = self.library.unit_columns(view.name, view.layer)
            rows = [] if view.result is None else unit_rows(view.result, view.class_names, known)
            headers = list(rows[0]) if rows else []
            answer.part("unit_columns", headers, lambda: {"unit_columns": layout.unit_columns(rows)})
            return {"units": rows}

        if wish.panel == strip.UNITS:
            answer.part("units", [view.name, view.layer, view.result_version], table)
        else:
            answer.leave("units")

    def _draw_curves(self, answer: _Answer, wish: Wish, view: View) -> None:
        name, layer, dark = view.name, view.layer, wish.look.dark
        beside = list(self.library.stored(name, layer, ("mmphate", "clusters", "phases")).values())
        mark = [name, layer, view.version, beside, wish.log, wish.smoothing, dark]

        def draw() -> dict[str, Any]:
            clusters, phases = self.library.unit_clusters(name, layer), self.library.result(name, layer, "phases")
            return curves_figure(
                view, log=wish.log, smoothing=wish.smoothing, clusters=clusters, phases=phases, dark=dark
            )

        answer.part("curves", mark, lambda: {"curves": self._sketches.drawn(["curves", *mark], draw)})

    def _count_epochs(self, answer: _Answer, wish: Wish, run: str) -> None:
        """The epochs that the slider passes through: those of all runs that are compared."""
        compared = compare.chosen(self.library, run, wish.others)
        epochs = sorted({float(epoch) for name in compared for epoch in self._epochs(name)})
        mark = [len(epochs), epochs[-1] if epochs else None, compared]
        answer.part("epochs", mark, lambda: {"epochs": epochs})

    def _epochs(self, name: str) -> list[float]:
        try:
            return [float(epoch) for epoch in self.library.view(name).epochs]
        except (HiddenscopeError, OSError, KeyError):
            return []

    def _draw_picture(self, answer: _Answer, wish: Wish, view: View) -> None:
        library, look, name = self.library, wish.look, view.name
        shown, waiting, beside = with_method(library, name, view, look.method, self.supervisor)
        made_at = None if shown.result is None else float(shown.result.attrs.get("computed_at", 0.0))
        clusters_at = library.stored(name, view.layer, ("clusters",))["clusters"]
        colored_by = {"loss": view.version, "cluster": clusters_at}.get(look.color)
        mark = [name, view.layer, made_at, waiting, colored_by, *look.mark()]

        def draw() -> tuple[dict[str, Any], str]:
            clusters = library.unit_clusters(name, view.layer) if look.color == "cluster" else None
            figure = picture_figure(shown, look=look, clusters=clusters, waiting=waiting)
            note = str((figure.layout.meta or {}).get("note", ""))
            figure.layout.meta = {**(figure.layout.meta or {}), "look": replace(look, window=None).mark()}
            return figure.to_dict(), note

        def drawn() -> tuple[dict[str, Any], str]:
            return self._sketches.drawn(["picture", *mark], draw)

        answer.part("picture", mark, lambda: {"picture": drawn()[0], "extent": _extent(shown)})
        # An old picture is told to be older with each epoch.
        answer.part("note", [*mark, beside], lambda: {"note": cloud.note(shown, drawn()[1], beside)})


class _Answer:
    """News in the making: a part is made only where its mark, all that it depends on, is not the one that was seen."""

    def __init__(self, seen: Mapping[str, Any]) -> None:
        self.news: News = {}
        self._seen = seen
        self._told: dict[str, Any] = {}

    def part(self, name: str, mark: object, make: Callable[[], News]) -> None:
        """Tell a part if it is new."""
        self._told[name] = mark
        if self._seen.get(name) != mark:
            self.news |= make()

    def leave(self, name: str) -> None:
        """Say nothing of a part, which stays as it was seen."""
        self._told[name] = self._seen.get(name)

    def instead(self, nothing: News) -> News:
        """The answer where there is nothing to show."""
        return self.news | nothing | {"seen": {"runs": self._told["runs"]}}

    def complete(self) -> News:
        """The answer where all is shown."""
        return self.news if self._told == self._seen else self.news | empty.NOT_EMPTY | {"seen": self._told}


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


def _notice(entry: Entry | None, supervisor: Supervisor | None) -> list[Any]:
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
