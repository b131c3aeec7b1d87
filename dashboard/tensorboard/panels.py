"""What the lower part of the tab is told: one panel of the page, as words and figures."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from typing import Any

from hiddenscope.dashboard.focus import NOTHING, Focus, focus_of, nodes_of
from hiddenscope.dashboard.layout import unit_columns
from hiddenscope.dashboard.library import Library
from hiddenscope.dashboard.panels import Panel, all_panels
from hiddenscope.dashboard.panels.panel import epoch_at
from hiddenscope.dashboard.panels.strip import ABOUT_UNITS, UNITS
from hiddenscope.dashboard.showing import figures_of, panel_scene
from hiddenscope.dashboard.tensorboard.answers import mark, plain
from hiddenscope.dashboard.units import unit_rows
from hiddenscope.errors import HiddenscopeError

_LOG = logging.getLogger(__name__)
_MOST_UNITS = 64


def panel_json(library: Library | None, query: Mapping[str, str]) -> dict[str, Any]:
    """A panel of a layer, unless the reader has it already.

    Args:
        library: of the log folder; None where TensorBoard was started without one.
        query: ``run``, ``layer``, ``panel`` (the table of units where it is unknown), ``epoch``, ``units`` (joined by
            commas), ``dark`` (1 for yes), ``option.NAME`` for the controls of the panel, ``focus`` (JSON, as the page
            keeps it), and in ``seen`` the mark of what the reader has.

    Returns:
        ``panels`` lists what can be asked for. ``figures`` is absent when it is what was seen; ``picked`` has the nodes
        of what is picked, and what it is. The table of units comes as ``table``, with ``headers`` and ``rows``, of
        which the first column is the unit.
    """
    panels = {panel.name: panel for panel in all_panels()}
    listed = [{"value": UNITS, "label": "Units"}]
    listed += [{"value": each.name, "label": each.title} for each in panels.values()]
    answer: dict[str, Any] = {"panels": listed}
    runs = {} if library is None else library.runs()
    name = query.get("run", "")
    if library is None or name not in runs or runs[name].problem is not None:
        return answer
    panel = panels.get(query.get("panel", ""))
    if panel is None:
        return answer | _units_table(library, name, query)
    options = {key.removeprefix("option."): value for key, value in query.items() if key.startswith("option.")}
    epoch, units = _epoch(query.get("epoch", "")), _units(query.get("units", ""))
    dark, focus = query.get("dark") == "1", _focus(query.get("focus", ""), name)
    answer |= {"panel": panel.name, "about": panel.about, "controls": _controls(panel, options)}
    try:
        view, run = library.pinned(name, query.get("layer"))
        stored = library.stored(name, view.layer, panel.methods)
        follows = epoch if panel.follows_cursor else None
        answer["mark"] = mark(
            panel.name, name, view.layer, view.version, stored, follows, units, options, dark, focus.told(name)
        )
        if query.get("seen") == answer["mark"]:
            return answer
        nodes, said = nodes_of(focus, run, view.layer, epoch_at(view.epochs, epoch))
        answer["picked"] = {"nodes": nodes, "text": said}
        scene = panel_scene(panel, run, view, epoch=epoch, units=units, dark=dark, options=options, focus=focus)
        drawn = [] if scene is None else list(figures_of(panel.draw(scene), dark=dark))
    except (HiddenscopeError, OSError, KeyError) as error:
        return {**answer, "figures": [], "message": str(error)}
    except Exception as error:
        _LOG.exception("the panel %s failed", panel.name)
        return {**answer, "figures": [], "message": f"This panel failed: {type(error).__name__}: {error}"}
    if scene is None:
        answer["message"] = (
            "Nothing is stored for this panel yet. It is computed while the training goes on, once the picture is "
            "there; hiddenscope analyze computes everything."
        )
    answer["figures"] = [
        {
            "words": list(shown.words),
            "height": shown.height,
            "picks": shown.picks,
            **plain(shown.figure.to_dict()),
        }
        for shown in drawn
    ]
    return answer


def _units_table(library: Library, name: str, query: Mapping[str, str]) -> dict[str, Any]:
    """Every number that is known of each unit, unless the reader has it already."""
    answer: dict[str, Any] = {"panel": UNITS, "about": ABOUT_UNITS, "controls": []}
    try:
        view = library.view(name, query.get("layer"))
        answer["mark"] = mark(UNITS, name, view.layer, view.result_version)
        if query.get("seen") == answer["mark"]:
            return answer
        known = library.unit_columns(name, view.layer)
        rows = [] if view.result is None else unit_rows(view.result, view.class_names, known)
    except (HiddenscopeError, OSError, KeyError) as error:
        return {**answer, "figures": [], "message": str(error)}
    if not rows:
        return {**answer, "figures": [], "message": "Units are listed here as soon as the first picture is made."}
    columns = unit_columns(rows)
    headers = [str(column.get("headerName", column.get("field"))) for column in columns]
    values = [[row[str(column.get("field", column.get("colId")))] for column in columns] for row in rows]
    return {**answer, "figures": [], "table": {"headers": headers, "rows": plain(values)}}


def _controls(panel: Panel, options: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "label": label,
            "choices": list(choices),
            "value": options[name] if options.get(name) in choices else choices[0],
        }
        for name, (label, choices) in (panel.controls or {}).items()
    ]


def _focus(text: str, run: str) -> Focus:
    try:
        return focus_of(json.loads(text), run)
    except (ValueError, RecursionError):
        return NOTHING


def _epoch(text: str) -> float | None:
    try:
        epoch = float(text)
    except ValueError:
        return None
    return epoch if math.isfinite(epoch) else None


def _units(text: str) -> tuple[str, ...]:
    return tuple(unit for unit in text.split(",") if unit)[:_MOST_UNITS]
