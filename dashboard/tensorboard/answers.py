"""What the tab is told, apart from HTTP: a query in, plain JSON out."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from hiddenscope.dashboard import cloud, words
from hiddenscope.dashboard.cloud import picture_figure
from hiddenscope.dashboard.curves import curves_figure
from hiddenscope.dashboard.library import Library, alive
from hiddenscope.dashboard.supervisor import Supervisor
from hiddenscope.dashboard.trust import explained
from hiddenscope.errors import HiddenscopeError


def view_json(
    library: Library | None, query: Mapping[str, str], supervisor: Supervisor | None = None
) -> dict[str, Any]:
    """The runs there are, and all that the reader has not seen yet of the one that is shown.

    Args:
        library: of the log folder; None where TensorBoard was started without one.
        query: ``run``, ``layer``, ``method``, ``color``, ``dimensions``, ``log`` and ``dark`` (1 for yes), and in
            ``curves_seen`` and ``picture_seen`` the marks of the figures that the reader already has. Unknown values
            mean the default.
        supervisor: of the worker that makes the pictures of other methods; None where there is none.
    """
    choices = {"colors": _choices(cloud.COLORS), "methods": _choices(cloud.CHOICES)}
    runs = {} if library is None else library.runs()
    readable = [name for name, info in runs.items() if info.problem is None and info.epoch_count]
    if library is None or not readable:
        text = (
            "Nothing is recorded below this log folder yet: add hs.HiddenStateMonitor() to the callbacks of a Trainer."
        )
        return {"runs": list(runs), "message": text, **choices}
    name = query.get("run", "")
    name = name if name in readable else readable[0]
    listed = [
        {"value": each, "label": each if runs[each].status == "finished" else f"{each} ({runs[each].status})"}
        for each in readable
    ]
    dark = query.get("dark") == "1"
    look = cloud.look_of(dict(query), dark=dark)
    try:
        view = library.view(name, query.get("layer"))
        stored = library.stored(name, view.layer, ("mmphate", "clusters", "phases"))
        clusters, phases = library.unit_clusters(name, view.layer), library.result(name, view.layer, "phases")
        shown, waiting, beside = cloud.with_method(library, name, view, look.method, supervisor)
    except (HiddenscopeError, OSError, KeyError) as error:
        return {"runs": listed, "run": name, "message": str(error), **choices}
    log = query.get("log") == "1"
    now = time.time()
    entry = library.worker(name)
    doing = words.working(entry, view.layer, now) if entry is not None and alive(entry.pid) else ""
    newest = float(view.epochs[-1]) if len(view.epochs) else None
    attributes = None if view.result is None else view.result.attrs
    failed = entry is not None and entry.state == "failed"
    facts = [view.status, words.recorded(newest), words.freshness(attributes, newest, now), doing]
    made_at = None if shown.result is None else float(shown.result.attrs.get("computed_at", 0.0))
    measured = {} if shown.result is None else shown.result.attrs
    notes = [beside, words.left_out(shown.result, "", view.nodes), words.measured_on(measured)]
    answer: dict[str, Any] = {
        "runs": listed,
        "run": name,
        "layers": list(view.layers),
        "layer": view.layer,
        **choices,
        "epochs": view.epochs.tolist(),
        "status": " \u00b7 ".join(fact for fact in facts if fact),
        "problem": f"{entry.error}. {entry.advice}." if failed and entry is not None else "",
        "trust": [asdict(one) for one in words.measures(measured)],
        "trust_said": explained(measured),
        "note": " \u00b7 ".join(part for part in notes if part),
        "curves_mark": mark(name, view.layer, view.version, list(stored.values()), log, dark),
        "picture_mark": mark(name, view.layer, made_at, waiting, stored["clusters"], look.mark(),
                             view.version if look.color == "loss" else ""),
    }  # fmt: skip
    if query.get("curves_seen") != answer["curves_mark"]:
        answer["curves"] = plain(curves_figure(view, log=log, clusters=clusters, phases=phases, dark=dark))
    if query.get("picture_seen") != answer["picture_mark"]:
        figure = picture_figure(shown, look=look, clusters=clusters, waiting=waiting)
        answer["picture"] = plain(figure.to_dict())
    return answer


def _choices(known: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"value": value, "label": label} for value, label in known.items()]


def plain(value: Any) -> Any:
    """A figure as JSON can hold it: arrays as Plotly's typed bytes, other numbers as Python's, NaN as null.

    >>> plain({"x": np.zeros(2, dtype=np.float32), "y": (float("nan"), np.int64(3))})
    {'x': {'dtype': 'f4', 'bdata': 'AAAAAAAAAAA='}, 'y': [None, 3]}
    """
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        if value.ndim == 1 and value.dtype.kind == "f":
            little = value.astype("<f4")
            return {"dtype": "f4", "bdata": base64.b64encode(little.tobytes()).decode()}
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def mark(*parts: object) -> str:
    """A short text that differs when the parts, plain JSON, do."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
