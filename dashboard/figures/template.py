"""How every figure looks: one palette, one type scale, one way to write hover text, in light and in dark.

Epoch and step are drawn with perceptually uniform scales whose order survives color blindness; classes with the
colors of Okabe and Ito (2008), extended. A scale is cut where it would drown in the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale, sequential

FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif"
FONT_SIZE = 12
SMALL = 11

Colorscale = list[tuple[float, str]]


@dataclass(frozen=True)
class Theme:
    """The colors of one appearance; the style sheet of the page holds the same values."""

    panel: str
    text: str
    muted: str
    grid: str
    accent: str
    faint: str
    classes: tuple[str, ...]
    cut: tuple[float, float]
    """The part of a sequential scale that stands out from the panel."""


LIGHT = Theme(
    panel="#ffffff",
    text="#1c2530",
    muted="#5d6b7a",
    grid="#e8ecf1",
    accent="#0b63a8",
    faint="rgba(93, 107, 122, 0.30)",
    classes=(
        "#0072b2",
        "#e08e00",
        "#009e73",
        "#d55e00",
        "#cc79a7",
        "#3fa9e0",
        "#a39200",
        "#6a51a3",
        "#8c5a32",
        "#7a8794",
    ),
    cut=(0.0, 0.92),
)
DARK = Theme(
    panel="#1a1e25",
    text="#dde3ea",
    muted="#97a3b1",
    grid="#2b323c",
    accent="#62b0f0",
    faint="rgba(151, 163, 177, 0.28)",
    classes=(
        "#3d9bdc",
        "#f0a830",
        "#1fc495",
        "#f07f3c",
        "#dd92bb",
        "#8fd0f5",
        "#f0e442",
        "#a892e0",
        "#c49a6c",
        "#a3aebb",
    ),
    cut=(0.14, 1.0),
)

_SCALES = {"epoch": sequential.Viridis, "step": sequential.Plasma, "value": sequential.Cividis}


def theme(*, dark: bool) -> Theme:
    """The colors of the light or of the dark appearance."""
    return DARK if dark else LIGHT


def colorscale(quantity: str, *, dark: bool) -> Colorscale:
    """The continuous scale of ``"epoch"``, ``"step"`` or any other ``"value"``, cut to stand out from the panel.

    >>> colorscale("epoch", dark=False)[0]
    (0.0, 'rgb(68, 1, 84)')
    """
    low, high = theme(dark=dark).cut
    positions = [i / 15 for i in range(16)]
    colors = sample_colorscale(_SCALES[quantity], [low + (high - low) * p for p in positions])
    return list(zip(positions, colors, strict=True))


def class_colors(count: int, *, dark: bool) -> tuple[str, ...]:
    """One color for each of ``count`` classes; past ten they repeat, and hover text tells them apart.

    >>> len(class_colors(12, dark=True))
    12
    """
    palette = theme(dark=dark).classes
    return tuple(palette[i % len(palette)] for i in range(count))


def unit_colors(count: int) -> tuple[str, ...]:
    """``count`` hues around a circle of equal lightness: neighbors differ little, far units much."""
    return tuple(f"hsl({360 * i / max(count, 1):.0f}, 52%, 55%)" for i in range(count))


def faded(color: str, opacity: float) -> str:
    """A color ``#rrggbb`` that lets others shine through.

    >>> faded("#0072b2", 0.35)
    'rgba(0, 114, 178, 0.35)'
    """
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {opacity:g})"


def stepped(colors: Sequence[str]) -> Colorscale:
    """A continuous scale made of flat steps, so that integer codes 0..n-1 take exactly these colors.

    Draw it with ``cmin=-0.5, cmax=n - 0.5``.

    >>> stepped(["red", "blue"])
    [(0.0, 'red'), (0.5, 'red'), (0.5, 'blue'), (1.0, 'blue')]
    """
    n = len(colors)
    return [(edge / n, color) for i, color in enumerate(colors) for edge in (i, i + 1)]


def template(*, dark: bool) -> go.layout.Template:
    """The Plotly template that every figure wears."""
    look = theme(dark=dark)
    axis = {
        "gridcolor": look.grid,
        "linecolor": look.grid,
        "zeroline": False,
        "ticks": "",
        "tickfont": {"size": SMALL, "color": look.muted},
        "title": {"font": {"size": SMALL, "color": look.muted}, "standoff": 6},
        "automargin": False,
    }
    scene_axis = {
        "showbackground": False,
        "showticklabels": False,
        "gridcolor": look.grid,
        "zeroline": False,
        "showspikes": False,
        "title": {"font": {"size": SMALL, "color": look.muted}},
    }
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": FONT_SIZE, "color": look.text},
            "paper_bgcolor": "rgba(0, 0, 0, 0)",
            "plot_bgcolor": "rgba(0, 0, 0, 0)",
            "colorway": look.classes,
            "margin": {"l": 58, "r": 16, "t": 24, "b": 36},
            "xaxis": axis,
            "yaxis": axis,
            "scene": {"xaxis": scene_axis, "yaxis": scene_axis, "zaxis": scene_axis},
            "hoverlabel": {
                "bgcolor": look.panel,
                "bordercolor": look.muted,
                "font": {"family": FONT, "size": FONT_SIZE, "color": look.text},
                "align": "left",
            },
            "legend": {"font": {"size": SMALL, "color": look.muted}, "bgcolor": "rgba(0, 0, 0, 0)"},
            "modebar": {"bgcolor": "rgba(0, 0, 0, 0)", "color": look.muted, "activecolor": look.accent},
        }
    )


def colorbar(*, title: str, dark: bool) -> dict[str, object]:
    """A slim color bar; the title stands on top of it."""
    look = theme(dark=dark)
    return {
        "title": {"text": title, "font": {"size": SMALL, "color": look.muted}, "side": "top"},
        "thickness": 10,
        "outlinewidth": 0,
        "tickfont": {"size": SMALL, "color": look.muted},
        "ticks": "",
    }


def message(text: str, *, dark: bool) -> go.Figure:
    """An empty figure that says why it is empty, and when that will change."""
    look = theme(dark=dark)
    figure = go.Figure(layout={"template": template(dark=dark)})
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.add_annotation(
        text=text,
        showarrow=False,
        xref="paper",
        yref="paper",
        x=0.5,
        y=0.5,
        font={"size": 14, "color": look.muted},
    )
    return figure


def epoch_text(epoch: float) -> str:
    """An epoch as people say it: the epoch before training is ``untrained``; whole epochs have no decimals.

    >>> epoch_text(-1.0), epoch_text(3.0), epoch_text(2.5)
    ('untrained', '3', '2.5')
    """
    return "untrained" if epoch == -1 else f"{epoch:g}"


def paper_text(
    text: str, x: float, y: float, *, color: str, size: int, xanchor: str = "center", yanchor: str = "bottom"
) -> dict[str, Any]:
    """An annotation at shares of the figure's width and height."""
    return {
        "text": text,
        "x": x,
        "y": y,
        "xref": "paper",
        "yref": "paper",
        "xanchor": xanchor,
        "yanchor": yanchor,
        "showarrow": False,
        "font": {"size": size, "color": color},
    }
