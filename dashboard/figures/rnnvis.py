"""The main picture of RNNVis: memory chips, word clouds, and signed edges between them.

Source: Ming et al. 2017. Orange is a positive response, blue a negative one, as there; the layout is that of
`hiddenscope.dashboard.figures.rnnvis_layout`.
"""

from __future__ import annotations

import html
import string
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import xarray as xr

from hiddenscope.analyses.cocluster import FILTER, CoClusters, edges, shown, word_links
from hiddenscope.analyses.expected_response import RARE
from hiddenscope.dashboard.figures.rnnvis_layout import Box, Drawing, curve, draw_all, shortened
from hiddenscope.dashboard.figures.template import SMALL, Colorscale, class_colors, message, template, theme

POSITIVE, NEGATIVE = "#ff5b09", "#09adff"
"""The colors of RNNVis."""
WIDEST = 12.0
"""Width of the strongest edge, in pixels."""
GAP = 2.0
"""Between two units' squares."""
LEGEND_HEIGHT = 26.0
NO_EVENTS = (
    "Units can be told by what they answer to where the probe consists of tokens or numbers, or has labels;<br>"
    "this run has none of these, or too few of its steps were recorded."
)


def cluster_name(label: int) -> str:
    """The name of a cluster: A, B, …, Z, A2, B2, …

    >>> cluster_name(0), cluster_name(27), cluster_name(-1)
    ('A', 'B2', 'none')
    """
    if label < 0:
        return "none"
    rounds, letter = divmod(label, 26)
    return string.ascii_uppercase[letter] + (str(rounds + 1) if rounds else "")


def cluster_color(label: int, *, dark: bool) -> str:
    """The color of a cluster, the same in all pictures and at all epochs."""
    return class_colors(label + 1, dark=dark)[label] if label >= 0 else theme(dark=dark).muted


def pointer_colors(*, dark: bool) -> dict[str, str]:
    """What the page draws with when it answers to the pointer."""
    look = theme(dark=dark)
    return {
        "text": look.text,
        "muted": look.muted,
        "accent": look.accent,
        "positive": POSITIVE,
        "negative": NEGATIVE,
    }


def signed_scale(*, dark: bool) -> Colorscale:
    """Blue for negative, orange for positive, and the panel's gray for nothing."""
    return [(0.0, NEGATIVE), (0.5, "#4a5361" if dark else "#ccd4dc"), (1.0, POSITIVE)]


def counted(number: int, what: str) -> str:
    """A number of things, in words.

    >>> counted(1, "unit"), counted(2, "unit")
    ('1 unit', '2 units')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"


def written(name: str) -> str:
    """A word as plotly may write it: short, and without markup of its own."""
    return html.escape(shortened(name), quote=False)


def rnnvis(
    responses: xr.Dataset | None,
    found: CoClusters,
    *,
    low: float = FILTER[0],
    high: float = FILTER[1],
    clip: float | None = None,
    picked: list[str] | None = None,
    dark: bool = False,
) -> go.Figure:
    """The main picture.

    Args:
        responses: as `hiddenscope.analyses.expected_response.run_responses` gives them, or None.
        found: the cluster of each of their words and units.
        low, high: which edges are drawn, as shares of the strongest.
        clip: the response that is drawn in full color; None for half of the largest.
        picked: labels of the units to outline.
        dark: for a dark page.

    The layout's ``meta`` has all that a page needs to answer to the pointer: ``responses`` in 127ths of ``scale``, one
    row for each word, the drawing of each word's links to the chips, and which trace is which.
    """
    if responses is None or not responses.sizes["word"]:
        return message(NO_EVENTS, dark=dark)
    if not len(found.labels):
        return message("No unit answers to anything yet.", dark=dark)
    values = responses["response"].values.astype(np.float64)
    if values.shape != (len(found.words), len(found.units)):
        raise ValueError(f"clusters of {len(found.words)} words and {len(found.units)} units, responses {values.shape}")
    names = [str(name) for name in responses["name"].values]
    links = word_links(values, found)
    own = np.array(
        [
            float(links.values[i, links.get_index("unit_cluster").get_loc(label)]) if label >= 0 else 0.0
            for i, label in enumerate(found.words.tolist())
        ]
    )
    drawing = draw_all(names, own, found.words, found.units)
    largest = float(np.abs(values).max())
    limit = clip if clip is not None else largest / 2 or 1.0
    look = theme(dark=dark)
    figure = go.Figure(layout={"template": template(dark=dark)})
    _draw_edges(figure, edges(values, found), drawing, low=low, high=high, dark=dark)
    figure.add_traces(
        [
            _units(responses, found, drawing, limit=limit, picked=picked or [], dark=dark),
            _words(responses, names, found, drawing, own, dark=dark),
            _legend(limit, dark=dark),
        ]
    )
    fill = "rgba(151, 163, 177, 0.12)" if dark else "rgba(93, 107, 122, 0.08)"
    figure.update_layout(
        shapes=[_rectangle(box, look.muted, fill=fill) for box in drawing.chips.values()],
        annotations=[
            *(_chip_label(label, found, box, dark=dark) for label, box in drawing.chips.items()),
            *(_cloud_label(label, box, dark=dark) for label, box in drawing.clouds.items()),
        ],
    )
    count = len(figure.data)
    meta = {
        "kind": "rnnvis",
        "responses": _in_127ths(values, largest),
        "scale": largest / 127,
        "limit": limit,
        "names": names,
        "units": [str(unit) for unit in responses["unit"].values.tolist()],
        "traces": {"units": count - 3, "words": count - 2},
        "links": np.round(links.values / max(float(np.abs(links.values).max()), 1e-12), 3).tolist(),
        "chips": [[box.right, box.y] for label, box in sorted(drawing.chips.items())],
        "chip_labels": sorted(drawing.chips),
        "link_columns": [
            int(np.flatnonzero(links["unit_cluster"].values == label)[0]) for label in sorted(drawing.chips)
        ],
        "words": np.round(np.nan_to_num(drawing.words), 1).tolist(),
        "fonts": np.round(drawing.fonts, 1).tolist(),
        "lengths": [len(shortened(name)) for name in names],
        "shapes": len(figure.layout.shapes),
        "colors": pointer_colors(dark=dark),
    }
    pixel_canvas(figure, drawing.width, drawing.height + LEGEND_HEIGHT, reach=14, meta=meta)
    return figure


def pixel_canvas(figure: go.Figure, width: float, height: float, *, reach: int, meta: dict[str, Any]) -> None:
    """One unit of both axes is one pixel, where the page has room for it; y grows downward.

    Args:
        figure: what is drawn in such pixels.
        width: of the canvas.
        height: of the canvas.
        reach: how far from a mark the pointer still points at it.
        meta: what the browser knows of the figure.
    """
    hidden: dict[str, Any] = {"visible": False, "fixedrange": True}
    figure.update_layout(
        height=height + 16,
        margin={"l": 4, "r": 4, "t": 8, "b": 8},
        xaxis={**hidden, "range": [0, width], "constrain": "range", "scaleanchor": "y", "scaleratio": 1},
        yaxis={**hidden, "range": [height, 0], "constrain": "range"},
        showlegend=False,
        hovermode="closest",
        hoverdistance=reach,
        dragmode=False,
        meta=meta,
    )


def _draw_edges(
    figure: go.Figure, strengths: xr.DataArray, drawing: Drawing, *, low: float, high: float, dark: bool
) -> None:
    visible = shown(strengths, low=low, high=high)
    strongest = float(np.abs(strengths.values).max(initial=0.0))
    for (row, column), value in np.ndenumerate(strengths.values):
        word_label, unit_label = (
            int(strengths[dim].values[at]) for dim, at in (("word_cluster", row), ("unit_cluster", column))
        )
        if not visible[row, column] or word_label not in drawing.clouds or unit_label not in drawing.chips:
            continue
        chip, cloud = drawing.chips[unit_label], drawing.clouds[word_label]
        path = curve((chip.right, chip.y), (cloud.left, cloud.y))
        words = f"words {cluster_name(word_label)} \u2192 chip {cluster_name(unit_label)}"
        figure.add_scatter(
            x=path[:, 0],
            y=path[:, 1],
            mode="lines",
            line={
                "color": POSITIVE if value > 0 else NEGATIVE,
                "width": max(1.0, WIDEST * abs(value) / strongest),
                "simplify": False,
            },
            opacity=0.34 if dark else 0.26,
            hovertemplate=f"{words}<br>mean response {value:+.3g}<extra></extra>",
            meta={"kind": "edge", "word_cluster": word_label, "unit_cluster": unit_label, "value": float(value)},
        )


def _units(
    responses: xr.Dataset, found: CoClusters, drawing: Drawing, *, limit: float, picked: list[str], dark: bool
) -> go.Scatter:
    look = theme(dark=dark)
    labels = [str(unit) for unit in responses["unit"].values.tolist()]
    chosen = np.isin(labels, picked)
    values = responses["response"].values
    names = responses["name"].values
    best = np.abs(values).argmax(axis=0)
    text = [
        f"unit {html.escape(label)} \u00b7 chip {cluster_name(int(found.units[i]))}<br>answers most to "
        f"\u201c{written(str(names[best[i]]))}\u201d: {values[best[i], i]:+.3g}"
        for i, label in enumerate(labels)
    ]
    return go.Scatter(
        x=drawing.units[:, 0],
        y=drawing.units[:, 1],
        mode="markers",
        marker={
            "symbol": "square",
            "size": drawing.pitch - GAP,
            "color": np.zeros(len(labels)),
            "colorscale": signed_scale(dark=dark),
            "cmin": -limit,
            "cmax": limit,
            "line": {"color": look.text, "width": np.where(chosen, 2.0, 0.0)},
        },
        customdata=labels,
        text=text,
        hovertemplate="%{text}<extra></extra>",
        meta={"kind": "units"},
    )


def _words(
    responses: xr.Dataset,
    names: list[str],
    found: CoClusters,
    drawing: Drawing,
    own: npt.NDArray[np.float64],
    *,
    dark: bool,
) -> go.Scatter:
    look = theme(dark=dark)
    counts = responses["count"].values
    text = [
        f"<b>{written(name)}</b> \u00b7 {counts[i]} times{' (rare)' if counts[i] < RARE else ''}<br>"
        f"mean response of chip {cluster_name(int(found.words[i]))}: {own[i]:+.3g}"
        for i, name in enumerate(names)
    ]
    return go.Scatter(
        x=drawing.words[:, 0],
        y=drawing.words[:, 1],
        mode="text",
        text=[written(name) for name in names],
        textfont={"size": drawing.fonts, "color": np.where(counts < RARE, look.muted, look.text)},
        hovertext=text,
        hovertemplate="%{hovertext}<extra></extra>",
        meta={"kind": "words"},
    )


def _legend(limit: float, *, dark: bool) -> go.Scatter:
    """A color bar, below the chips."""
    return go.Scatter(
        x=[None],
        y=[None],
        mode="markers",
        hoverinfo="skip",
        marker={
            "color": [0.0],
            "cmin": -limit,
            "cmax": limit,
            "colorscale": signed_scale(dark=dark),
            "showscale": True,
            "colorbar": {
                "orientation": "h",
                "x": 0.02,
                "xanchor": "left",
                "y": 0.0,
                "yanchor": "bottom",
                "len": 150,
                "lenmode": "pixels",
                "thickness": 7,
                "outlinewidth": 0,
                "tickvals": [-limit, 0, limit],
                "ticktext": [f"\u2264 {-limit:.2g}", "0", f"\u2265 {limit:.2g}"],
                "tickfont": {"size": SMALL - 1, "color": theme(dark=dark).muted},
                "title": {"text": "", "side": "top"},
            },
        },
    )


def _rectangle(box: Box, color: str, *, fill: str) -> dict[str, Any]:
    return {
        "type": "rect",
        "x0": box.left,
        "x1": box.right,
        "y0": box.top,
        "y1": box.bottom,
        "line": {"color": color, "width": 1},
        "fillcolor": fill,
        "layer": "below",
    }


def _chip_label(label: int, found: CoClusters, box: Box, *, dark: bool) -> dict[str, Any]:
    name = f"<b><span style='color:{cluster_color(label, dark=dark)};font-size:14px'>{cluster_name(label)}</span></b>"
    return {
        "x": box.left - 8,
        "y": box.y,
        "xanchor": "right",
        "align": "right",
        "text": f"{name}<br>{counted(int((found.units == label).sum()), 'unit')}",
        "showarrow": False,
        "font": {"size": SMALL, "color": theme(dark=dark).muted},
    }


def _cloud_label(label: int, box: Box, *, dark: bool) -> dict[str, Any]:
    return {
        "x": box.left - 2,
        "y": box.y,
        "xanchor": "right",
        "text": f"<b>{cluster_name(label)}</b>",
        "showarrow": False,
        "font": {"size": SMALL + 2, "color": cluster_color(label, dark=dark)},
    }


def _in_127ths(values: npt.NDArray[np.float64], largest: float) -> npt.NDArray[np.int8]:
    return np.round(values / largest * 127 if largest > 0 else values).astype(np.int8)
