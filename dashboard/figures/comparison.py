"""Several runs side by side on linked axes, and two runs in one picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from hiddenscope.dashboard.figures.decimate import LIMIT_2D, LIMIT_3D
from hiddenscope.dashboard.figures.embedding import embedding
from hiddenscope.dashboard.figures.metrics import losses
from hiddenscope.dashboard.figures.template import (
    SMALL,
    Colorscale,
    message,
    paper_text,
    stepped,
    template,
    theme,
    unit_colors,
)

GAP = 0.06
PICTURE = (0.47, 0.95)
ROWS = ((0.315, 0.415), (0.16, 0.26), (0.0, 0.10))
_TITLES = ("intra-step entropy: mean over steps (nats)", "inter-step entropy: median over units (nats)")


@dataclass(frozen=True)
class Column:
    """One run of a comparison.

    Attributes:
        title: what stands above it.
        metrics: one column per metric, indexed by epoch.
        result: the stored picture, None before the first.
        color: ``"epoch"``, ``"step"``, ``"unit"``, or values as `hiddenscope.dashboard.figures.embedding` takes them.
        class_names: of codes, as there.
        problem: why the picture cannot be drawn, instead of it.
    """

    title: str
    metrics: pd.DataFrame
    result: xr.Dataset | None
    color: str | xr.DataArray = "epoch"
    class_names: Sequence[str] | None = None
    problem: str = ""


def side_by_side(columns: Sequence[Column], *, dimensions: int = 2, dark: bool = False) -> go.Figure:
    """Pictures and curves of up to four runs, a column each; the curves share their axes.

    Pictures of different runs are made apart: compare their shapes, not their places or directions.
    ``figure.layout.meta["clouds"]`` holds, for each cloud, the position of its trace, its epochs, steps and units.

    Args:
        columns: 1 to 4 runs.
        dimensions: of the pictures, 2 or 3.

    Raises:
        ValueError: no run, or more than four.
    """
    if not 1 <= len(columns) <= 4:
        raise ValueError(f"1 to 4 runs stand side by side, got {len(columns)}")
    look = theme(dark=dark)
    figure = go.Figure(layout={"template": template(dark=dark)})
    layout: dict[str, Any] = {
        "margin": {"l": 54, "r": 16, "t": 8, "b": 36},
        "showlegend": False,
        "hovermode": "closest",
    }
    notes, clouds = [], []
    width = (1 - GAP * (len(columns) - 1)) / len(columns)
    for k, column in enumerate(columns):
        low = k * (width + GAP)
        domain = [low, low + width]
        layout |= _axes(k, domain)
        notes.append(_text(column.title, low, 1.0, look.text, size=SMALL + 2, anchor="top"))
        clouds += _add_cloud(figure, layout, notes, column, k, domain, len(columns), dimensions, dark=dark)
        _add_curves(figure, column, k, dark=dark)
    named = zip(losses(columns[0].metrics)[:2], look.classes, strict=False)
    key = "  ".join(f'<span style="color:{color}">\u2500 {escape(name)}</span>' for name, color in named)
    for (_, high), title in zip(ROWS, (f"loss  {key}", *_TITLES), strict=True):
        notes.append(_text(title, 0, high, look.text, size=SMALL + 1, anchor="bottom"))
    layout["meta"] = {"clouds": clouds, "columns": len(columns)}
    layout["uirevision"] = f"compare-{dimensions}-{len(columns)}"
    figure.update_layout(layout, annotations=notes)
    return figure


def joint(
    result: xr.Dataset,
    names: tuple[str, str],
    *,
    color: str = "epoch",
    dimensions: int = 3,
    picked_in: int = 0,
    dark: bool = False,
) -> go.Figure:
    """Two runs in one picture: one in blue, the other in orange, from light to dark as epochs go by.

    A point tells its unit and the unit of the other run that this is matched with. ``figure.layout.meta["clouds"]`` is
    as in `side_by_side`, and ``trace.meta["cloud"]`` a trace's place in it. There ``units`` are the labels of a run's
    units in that run, and ``picks`` those by which they are picked: the labels that they, or their matches, have in the
    run ``picked_in``, None where that has no such unit.

    Args:
        result: as `hiddenscope.dashboard.joint.joint_picture` makes it.
        names: of the two runs.
        color: ``"epoch"``, or ``"step"`` or ``"unit"``, in which the runs differ by the form of their points; matched
            units have one color.
        dimensions: 2 or 3.
        picked_in: 0 or 1, the run whose labels units are picked by.
    """
    if not result["embedding"].size:
        return message("no epoch is embedded yet", dark=dark)
    figure = go.Figure(layout={"template": template(dark=dark)})
    clouds: list[dict[str, Any]] = []
    labels = [result[name].values for name in UNIT_LABELS]
    exist = [np.array([exists(label) for label in column]) for column in labels]
    safe = [escape(name) for name in names]
    for which, name in enumerate(names):
        rows = np.flatnonzero(exist[which])
        own = result.isel(epoch=np.flatnonzero(result["run"].values == which), unit=rows)
        points = own["embedding"].assign_coords(epoch=own["epoch_of_run"].values, unit=labels[which][rows])
        limit = (LIMIT_3D if dimensions == 3 else LIMIT_2D) // 2
        part = embedding(points, color=color, dimensions=dimensions, limit=limit, dark=dark)
        trace = part.data[0]
        slices = len(trace.x) // len(rows)
        other = [f"unit {labels[1 - which][row]}" if exist[1 - which][row] else "no unit" for row in rows]
        hover = (
            f"unit %{{customdata[2]}} of {safe[which]}<br>\u2194 %{{text}} of {safe[1 - which]}"
            "<br>step %{customdata[1]}<br>epoch %{customdata[0]}<extra></extra>"
        )
        trace.update(name=name, text=other * slices, hovertemplate=hover, showlegend=True, meta={"cloud": which})
        if color == "epoch":
            trace.marker.update(colorscale=_hue(which, dark=dark), showscale=False)
        else:
            trace.marker.update(symbol=_FORMS[which][0], showscale=which == 0)
        if color == "unit":
            _color_pairs(trace, np.tile(rows, slices), labels, exist)
        meta = part.layout.meta
        by = [
            label if there else None for label, there in zip(labels[picked_in].tolist(), exist[picked_in], strict=True)
        ]
        picks = [by[row] for row in rows]
        clouds.append({"at": which, **{axis: meta[axis] for axis in ("epochs", "steps", "units")}, "picks": picks})
        figure.add_trace(trace)
        figure.update_layout(part.layout)
    look = theme(dark=dark)
    hues = look.classes if color == "epoch" else (look.text, look.text)
    forms = ("\u25cf", "\u25cf") if color == "epoch" else [form for _, form in _FORMS]
    key = [
        _text(f"{forms[which]} {name}", 0.01, 1 - 0.04 * which, hues[which], size=SMALL + 2, anchor="top")
        for which, name in enumerate(safe)
    ]
    figure.update_layout(
        meta={"clouds": clouds, "columns": 0},
        showlegend=False,
        annotations=key,
        uirevision=f"joint-{dimensions}",
    )
    return figure


UNIT_LABELS = ("unit_of_first", "unit_of_second")
"""The variables of a joint picture that hold the labels of its units in each run."""
_FORMS = (("circle", "\u25cf"), ("diamond", "\u25c6"))
"""The form of the points of each run, where their colors do not tell the runs apart."""


def exists(label: object) -> bool:
    """Whether the label of a unit is of one: -1, or no text, stands for none."""
    return label != "" if isinstance(label, str) else bool(label != -1)


def _color_pairs(
    trace: Any, rows: npt.NDArray[np.intp], labels: list[npt.NDArray[Any]], exist: list[npt.NDArray[np.bool_]]
) -> None:
    """A color for each pair of matched units, the same in both runs; the bar names both where their labels differ."""
    count = len(labels[0])
    texts = []
    for row in np.unique(np.linspace(0, count - 1, 6).astype(int)):
        both = [str(column[row]) if there[row] else "\u2013" for column, there in zip(labels, exist, strict=True)]
        texts.append((int(row), both[0] if both[0] == both[1] else " \u2194 ".join(both)))
    trace.marker.update(
        color=rows.astype(np.float32), colorscale=stepped(unit_colors(count)), cmin=-0.5, cmax=count - 0.5
    )
    trace.marker.colorbar.update(tickvals=[row for row, _ in texts], ticktext=[text for _, text in texts])
    if any("\u2194" in text for _, text in texts):
        trace.marker.colorbar.title.text = "unit of " + " \u2194 ".join(form for _, form in _FORMS)


def _axes(k: int, domain: list[float]) -> dict[str, Any]:
    """The axes of the curves of a column: one for epochs, linked to the first column's, and one for each row."""
    found: dict[str, Any] = {
        _key(_epochs(k)): {
            "domain": domain,
            "anchor": _row(len(ROWS) - 1, k),
            "title": {"text": "epoch"},
            **({"matches": "x"} if k else {}),
        }
    }
    for row, (low, high) in enumerate(ROWS):
        linked = {"matches": _row(row, 0), "showticklabels": False} if k else {}
        found[_key(_row(row, k))] = {"domain": [low, high], "anchor": _epochs(k), "nticks": 4, **linked}
    return found


def _add_curves(figure: go.Figure, column: Column, k: int, *, dark: bool) -> None:
    look = theme(dark=dark)

    def line(row: int, x: npt.ArrayLike, y: npt.ArrayLike, name: str, color: str) -> None:
        known = np.isfinite(np.asarray(y, dtype=float))
        across, up = np.asarray(x, dtype=np.float32)[known], np.asarray(y, dtype=np.float32)[known]
        figure.add_trace(
            go.Scatter(
                x=across,
                y=up,
                name=name,
                mode="lines+markers" if len(across) == 1 else "lines",
                line={"color": color, "width": 1.8},
                xaxis=_epochs(k),
                yaxis=_row(row, k),
                hovertemplate=f"{name} %{{y:.4g}}<br>epoch %{{x}}<extra></extra>",
            )
        )

    for name, color in zip(losses(column.metrics)[:2], look.classes, strict=False):
        line(0, column.metrics.index, column.metrics[name], name, color)
    if column.result is None:
        return
    reductions: tuple[tuple[str, str, Callable[..., Any]], ...] = (
        ("intra_step_entropy", "step", xr.DataArray.mean),
        ("inter_step_entropy", "unit", xr.DataArray.median),
    )
    for row, (variable, dim, reduce) in enumerate(reductions, start=1):
        values = reduce(column.result[variable], dim, skipna=True)
        line(row, values["epoch"].values, values.values, variable.replace("_", "-", 1).replace("_", " "), look.accent)


def _add_cloud(
    figure: go.Figure,
    layout: dict[str, Any],
    notes: list[dict[str, Any]],
    column: Column,
    k: int,
    domain: list[float],
    count: int,
    dimensions: int,
    *,
    dark: bool,
) -> list[dict[str, Any]]:
    """Draw the picture of a column; its place among the clouds, or nothing where there is no picture."""
    middle = sum(domain) / 2
    problem = column.problem or ("no picture yet" if column.result is None else "")
    if problem or column.result is None:
        notes.append(_text(problem, middle, sum(PICTURE) / 2, theme(dark=dark).muted, size=13, anchor="middle"))
        return []
    limit = (LIMIT_3D if dimensions == 3 else LIMIT_2D) // count
    part = embedding(
        column.result["embedding"],
        color=column.color,
        class_names=column.class_names,
        dimensions=dimensions,
        limit=limit,
        dark=dark,
    )
    if not part.data:
        notes.append(_text("no epoch is embedded yet", middle, 0.7, theme(dark=dark).muted, size=13, anchor="middle"))
        return []
    trace = part.data[0]
    trace.marker.update(showscale=False)
    if dimensions == 3:
        scene = "scene" if k == 0 else f"scene{k + 1}"
        trace.update(scene=scene)
        layout[scene] = {
            **part.layout.scene.to_plotly_json(),
            "domain": {"x": domain, "y": list(PICTURE)},
        }
    else:
        x, y = f"x{40 + k}", f"y{40 + k}"
        trace.update(xaxis=x, yaxis=y)
        hidden = {"showticklabels": False, "showgrid": False}
        layout[_key(x)] = {"domain": domain, "anchor": y, **hidden}
        layout[_key(y)] = {"domain": list(PICTURE), "anchor": x, "scaleanchor": x, **hidden}
    figure.add_trace(trace)
    meta = part.layout.meta
    found = {"at": len(figure.data) - 1, **{axis: meta[axis] for axis in ("epochs", "steps", "units")}}
    return [found]


def _epochs(k: int) -> str:
    return "x" if k == 0 else f"x{k + 1}"


def _row(row: int, k: int) -> str:
    return "y" if (row, k) == (0, 0) else f"y{10 * row + k + 2}"


def _key(axis: str) -> str:
    return f"{axis[0]}axis{axis[1:]}"


def _hue(which: int, *, dark: bool) -> Colorscale:
    """From light to full, in the hue of the first or second class."""
    hue = theme(dark=dark).classes[which]
    full = [int(hue[i : i + 2], 16) for i in (1, 3, 5)]
    toward = 235 if not dark else 60
    start = [round(channel + 0.72 * (toward - channel)) for channel in full]
    return [(0.0, f"rgb({start[0]}, {start[1]}, {start[2]})"), (1.0, f"rgb({full[0]}, {full[1]}, {full[2]})")]


def _text(text: str, x: float, y: float, color: str, *, size: int, anchor: str) -> dict[str, Any]:
    across = "center" if anchor == "middle" else "left"
    return paper_text(text, x, y, color=color, size=size, xanchor=across, yanchor=anchor) | {"align": "left"}
