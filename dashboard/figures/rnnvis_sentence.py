"""A sentence as glyphs: what each memory chip holds at each word, gains, loses and keeps, with links to the chips.

Source of the glyph: RNNVis (Ming et al. 2017). There a sentence runs downward with all chips in one box; here it runs
to the right, and each chip has a row that ends at its units, so that the bars of one chip stand side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import xarray as xr

from hiddenscope.analyses.glyphs import glyph_scale, sentence_glyphs
from hiddenscope.dashboard.figures.rnnvis import (
    NEGATIVE,
    POSITIVE,
    cluster_color,
    cluster_name,
    counted,
    pixel_canvas,
    pointer_colors,
    signed_scale,
    written,
)
from hiddenscope.dashboard.figures.rnnvis_layout import chip_order, curve
from hiddenscope.dashboard.figures.template import SMALL, message, template, theme

ROW = 52.0
"""Height of a chip's row."""
REACH = 21.0
"""Height of the longest bar."""
LEFT, TOP = 66.0, 58.0
STEPS_WIDTH = 900.0
COLUMN_LEAST, COLUMN_MOST = 20.0, 64.0
CHIP_WIDTH = 210.0
LINK_WIDTH = 70.0
MOST_STEPS = 60
"""Longer sequences are cut, and the figure says so."""

LEGEND = (
    f"<span style='color:{POSITIVE}'>increase</span> \u00b7 <span style='color:{NEGATIVE}'>decrease</span> \u00b7 "
    "rulers: share of the state kept from the word before"
)

Corners = tuple[float, float, float, float]
Floats = npt.NDArray[np.floating[Any]]


def sentence_figure(
    states: xr.DataArray | None,
    words: Sequence[str],
    unit_clusters: npt.ArrayLike,
    *,
    scale: float | None = None,
    title: str = "",
    note: str = "",
    selected: int | None = None,
    clip: float | None = None,
    sample: int | None = None,
    picked: Sequence[str] = (),
    dark: bool = False,
) -> go.Figure:
    """The glyphs of one sentence.

    Args:
        states: dims (step, unit), with unit labels; or None.
        words: what stands at each step.
        unit_clusters: the chip of each unit, -1 for none.
        scale: where the bars' axis ends; None for `glyph_scale` of this sentence. Give two sentences the same one.
        title: above the picture.
        note: why there is no sentence, or what to know about it.
        selected: the step whose links and states are drawn; None for the last.
        clip: the state that is drawn in full color; None for the largest.
        sample: position of the probe sequence that this is; None for a typed sentence.
        picked: labels of the units to outline.
        dark: for a dark page.

    The layout's ``meta`` has the states of every step in 127ths of ``scale``, and the links, for a page that answers
    to the pointer.
    """
    labels = np.asarray(unit_clusters)
    order = chip_order(labels)
    if states is None or not states.sizes["step"] or not order:
        return message(note or "Type a sentence to see what the network makes of it.", dark=dark)
    values = states.values[:MOST_STEPS]
    shown_words = [str(word) for word in words[:MOST_STEPS]]
    glyphs = sentence_glyphs(values, labels)
    limit = scale if scale is not None else glyph_scale(glyphs)
    largest = float(np.abs(values).max()) or 1.0
    full = clip if clip is not None else largest
    at = len(values) - 1 if selected is None else min(max(selected, 0), len(values) - 1)
    pitch = min(COLUMN_MOST, max(COLUMN_LEAST, STEPS_WIDTH / len(values)))
    columns = LEFT + (np.arange(len(values)) + 0.5) * pitch
    rows = {label: TOP + (i + 0.5) * ROW for i, label in enumerate(order)}
    chips_left = LEFT + len(values) * pitch + LINK_WIDTH
    width, height = chips_left + CHIP_WIDTH + 12, TOP + len(order) * ROW + 30
    look = theme(dark=dark)
    figure = go.Figure(layout={"template": template(dark=dark)})
    figure.add_traces(_glyph_traces(glyphs, order, rows, columns, pitch, limit, dark=dark))
    figure.add_trace(_cells(glyphs, order, rows, columns, shown_words))
    squares = _squares(labels, order, rows, chips_left)
    figure.add_trace(_chip_units(states, labels, squares, values[at], full, picked=picked, dark=dark))
    strengths = glyphs["link"].sel(cluster=order).values
    strongest = float(np.abs(strengths).max()) or 1.0
    cut = f" \u00b7 the first {MOST_STEPS} of {states.sizes['step']} steps" if states.sizes["step"] > MOST_STEPS else ""
    said = " \u00b7 ".join(part for part in (title, note) if part) + cut
    figure.update_layout(
        shapes=[
            *_grid(rows, columns, pitch, chips_left, dark=dark),
            *link_shapes(
                strengths[at] / strongest,
                [rows[label] for label in order],
                float(columns[at] + pitch * 0.36),
                chips_left - 6,
            ),
        ],
        annotations=[
            *_row_labels(labels, rows, dark=dark),
            *_word_labels(shown_words, columns, pitch, at, dark=dark),
            *(
                [{"x": 4, "y": 12, "xanchor": "left", "text": said, "showarrow": False, "font": {"color": look.text}}]
                if said
                else []
            ),
            {
                "x": LEFT,
                "y": height - 8,
                "xanchor": "left",
                "showarrow": False,
                "font": {"size": SMALL, "color": look.muted},
                "text": f"bars: mean state of a chip, to \u00b1{limit:.2g} \u00b7 {LEGEND}",
            },
        ],
    )
    pixel_canvas(
        figure,
        width,
        height,
        reach=30,
        meta={
            "kind": "sentence",
            "states": np.round(values / largest * 127).astype(np.int8),
            "scale": largest / 127,
            "words": shown_words,
            "links": np.round(strengths / strongest, 3).tolist(),
            "rows": [rows[label] for label in order],
            "columns": np.round(columns + pitch * 0.36, 1).tolist(),
            "chips_left": chips_left - 6,
            "traces": {"cells": len(figure.data) - 2, "units": len(figure.data) - 1},
            "shapes": len(figure.layout.shapes) - len(order),
            "selected": at,
            "sample": sample,
            "steps": states["step"].values[: len(values)].tolist()
            if "step" in states.coords
            else list(range(len(values))),
            "middles": np.round(columns, 1).tolist(),
            "pitch": round(pitch, 1),
            "top": TOP - 22,
            "bottom": TOP + len(order) * ROW,
            "word_annotations": len(order),
            "colors": pointer_colors(dark=dark),
        },
    )
    return figure


def link_shapes(
    strengths: npt.ArrayLike, rows: Sequence[float], x: float, end: float, *, widest: float = 9.0
) -> list[dict[str, Any]]:
    """One curve from a step's glyph to each chip, as wide as the chip's mean update there.

    Args:
        strengths: from -1 to 1, one for each row.
        rows: the height of each row.
        x: where the glyph ends.
        end: where the chips begin.
        widest: width of the strongest link, in pixels.
    """
    shapes = []
    for strength, y in zip(np.asarray(strengths, dtype=float).tolist(), rows, strict=True):
        path = curve((x, y), (end, y))
        middle = (path[0, 0] + path[-1, 0]) / 2
        shapes.append(
            {
                "type": "path",
                "path": f"M{x:.1f},{y:.1f} C{middle:.1f},{y - 9:.1f} {middle:.1f},{y + 9:.1f} {end:.1f},{y:.1f}",
                "line": {"color": POSITIVE if strength > 0 else NEGATIVE, "width": max(0.5, widest * abs(strength))},
                "opacity": 0.3 if strength else 0.0,
                "layer": "below",
            }
        )
    return shapes


def _glyph_traces(
    glyphs: xr.Dataset,
    order: Sequence[int],
    rows: dict[int, float],
    columns: Floats,
    pitch: float,
    limit: float,
    *,
    dark: bool,
) -> list[go.Scatter]:
    """Bars, strips and rulers: one trace for each color."""
    bars: list[Corners] = []
    more: list[Corners] = []
    less: list[Corners] = []
    ruler: list[Corners] = []
    kept_up: list[Corners] = []
    kept_down: list[Corners] = []
    half = pitch * (0.33 if len(columns) > 1 else 0.36)
    for label in order:
        own = glyphs.sel(cluster=label)
        size, y = float(own["size"]), rows[label]

        def height(sums: float, size: float = size, y: float = y) -> float:
            return y - max(-REACH, min(REACH, sums / size / limit * REACH))

        for step, x in enumerate(columns.tolist()):
            p, q, dp, dq, kept = (
                float(own[name].values[step])
                for name in ("positive", "negative", "positive_change", "negative_change", "preserved")
            )
            bars.append((x - half, x + half, height(p), height(q)))
            for now, change in ((p, dp), (q, dq)):
                if change:
                    (more if change > 0 else less).append((x - half, x + half, height(now), height(now - change)))
            if step:
                at, low = x - pitch / 2, y + REACH
                ruler.append((at - 1, at + 1, low, low - 2 * REACH))
                (kept_up if p + q > 0 else kept_down).append((at - 1, at + 1, low, low - 2 * REACH * min(kept, 1.0)))
    look = theme(dark=dark)
    gray = "rgba(151, 163, 177, 0.55)" if dark else "rgba(93, 107, 122, 0.38)"
    traces = [
        _boxes(bars, gray, "state"),
        _boxes(more, POSITIVE, "increase", opacity=0.55),
        _boxes(less, NEGATIVE, "decrease", opacity=0.55),
        _boxes(ruler, look.grid, "ruler"),
        _boxes(kept_up, POSITIVE, "kept, mostly positive", opacity=0.6),
        _boxes(kept_down, NEGATIVE, "kept, mostly negative", opacity=0.6),
    ]
    marks = [(box, POSITIVE) for box in kept_up] + [(box, NEGATIVE) for box in kept_down]
    traces.append(
        go.Scatter(
            x=[(box[0] + box[1]) / 2 for box, _ in marks],
            y=[box[3] for box, _ in marks],
            mode="markers",
            marker={"symbol": "triangle-left", "size": 5, "color": [color for _, color in marks]},
            hoverinfo="skip",
            name="preserved ratio",
        )
    )
    return traces


def _boxes(corners: Sequence[Corners], color: str, name: str, *, opacity: float = 1.0) -> go.Scatter:
    """Many filled rectangles (left, right, one height, the other) as one trace."""
    at = np.array(corners, dtype=np.float64).reshape(-1, 4)
    gap = np.full(len(at), np.nan)
    x = np.stack([at[:, 0], at[:, 1], at[:, 1], at[:, 0], at[:, 0], gap], axis=1).ravel()
    y = np.stack([at[:, 2], at[:, 2], at[:, 3], at[:, 3], at[:, 2], gap], axis=1).ravel()
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=color,
        opacity=opacity,
        hoverinfo="skip",
        name=name,
    )


def _cells(
    glyphs: xr.Dataset,
    order: Sequence[int],
    rows: dict[int, float],
    columns: Floats,
    words: Sequence[str],
) -> go.Scatter:
    """An invisible point in each cell, that tells its numbers."""
    x, y, text, places = [], [], [], []
    for label in order:
        own = glyphs.sel(cluster=label)
        size = float(own["size"])
        for step, column in enumerate(columns.tolist()):
            p, q, dp, dq, kept = (
                float(own[name].values[step])
                for name in ("positive", "negative", "positive_change", "negative_change", "preserved")
            )
            text.append(
                f"<b>{written(words[step])}</b> \u00b7 word {step + 1} \u00b7 chip {cluster_name(label)}<br>"
                f"holds {p / size:+.3f} and {q / size:+.3f} (means)<br>"
                f"moved by {dp / size:+.3f} and {dq / size:+.3f}<br>"
                + (f"kept {kept:.0%} of the word before" if step else "the first word")
            )
            x.append(column)
            y.append(rows[label])
            places.append([step, label])
    return go.Scatter(
        x=x,
        y=y,
        mode="markers",
        marker={"size": 1, "opacity": 0},
        text=text,
        customdata=places,
        hovertemplate="%{text}<extra></extra>",
        meta={"kind": "cells"},
    )


def _squares(labels: npt.NDArray[Any], order: Sequence[int], rows: dict[int, float], left: float) -> Floats:
    """Center of each unit's square and its size, shape (unit, 3); NaN for units in no chip."""
    found = np.full((len(labels), 3), np.nan)
    for label in order:
        count = int((labels == label).sum())
        lines = next(
            n
            for n in range(1, count + 1)
            if math.ceil(count / n) * min(9.0, (ROW - 10) / n) <= CHIP_WIDTH or n == count
        )
        pitch = min(9.0, (ROW - 10) / lines)
        across = math.ceil(count / lines)
        rank = np.arange(count)
        found[labels == label, 0] = left + (rank % across + 0.5) * pitch
        found[labels == label, 1] = rows[label] + (rank // across - (lines - 1) / 2) * pitch
        found[labels == label, 2] = max(pitch - 1.5, 1.5)
    return found


def _chip_units(
    states: xr.DataArray,
    labels: npt.NDArray[Any],
    squares: Floats,
    now: Floats,
    full: float,
    *,
    picked: Sequence[str],
    dark: bool,
) -> go.Scatter:
    names = [str(unit) for unit in states["unit"].values.tolist()]
    return go.Scatter(
        x=squares[:, 0],
        y=squares[:, 1],
        mode="markers",
        marker={
            "symbol": "square",
            "size": np.nan_to_num(squares[:, 2], nan=1.0),
            "color": now,
            "colorscale": signed_scale(dark=dark),
            "cmin": -full,
            "cmax": full,
            "line": {"color": theme(dark=dark).text, "width": np.where(np.isin(names, list(picked)), 2.0, 0.0)},
        },
        customdata=names,
        text=[f"unit {name} \u00b7 chip {cluster_name(int(labels[i]))}" for i, name in enumerate(names)],
        hovertemplate="%{text}<br>state %{marker.color:+.3f}<extra></extra>",
        meta={"kind": "units"},
    )


def _grid(
    rows: dict[int, float], columns: Floats, pitch: float, chips_left: float, *, dark: bool
) -> list[dict[str, Any]]:
    look = theme(dark=dark)
    end = float(columns[-1] + pitch / 2)
    zero = [
        {
            "type": "line",
            "x0": LEFT,
            "x1": end,
            "y0": y,
            "y1": y,
            "line": {"color": look.grid, "width": 1},
            "layer": "below",
        }
        for y in rows.values()
    ]
    boxes = [
        {
            "type": "rect",
            "x0": chips_left - 5,
            "x1": chips_left + CHIP_WIDTH + 5,
            "y0": y - ROW / 2 + 3,
            "y1": y + ROW / 2 - 3,
            "line": {"color": look.grid, "width": 1},
            "layer": "below",
        }
        for y in rows.values()
    ]
    return zero + boxes


def _row_labels(labels: npt.NDArray[Any], rows: dict[int, float], *, dark: bool) -> list[dict[str, Any]]:
    found = []
    for label, y in rows.items():
        name = (
            f"<b><span style='color:{cluster_color(label, dark=dark)};font-size:14px'>{cluster_name(label)}</span></b>"
        )
        found.append(
            {
                "x": LEFT - 8,
                "y": y,
                "xanchor": "right",
                "align": "right",
                "text": f"{name}<br>{counted(int((labels == label).sum()), 'unit')}",
                "showarrow": False,
                "font": {"size": SMALL - 1, "color": theme(dark=dark).muted},
            }
        )
    return found


def _word_labels(
    words: Sequence[str], columns: Floats, pitch: float, selected: int, *, dark: bool
) -> list[dict[str, Any]]:
    look = theme(dark=dark)
    steep = any(len(word) * 6.5 > pitch for word in words)
    return [
        {
            "x": x,
            "y": TOP - 4,
            "xanchor": "left" if steep else "center",
            "yanchor": "bottom",
            "text": written(word),
            "textangle": -32 if steep else 0,
            "showarrow": False,
            "font": {"size": 12, "color": look.accent if step == selected else look.text},
        }
        for step, (word, x) in enumerate(zip(words, columns.tolist(), strict=True))
    ]
