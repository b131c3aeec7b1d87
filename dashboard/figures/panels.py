"""Panels: what is drawn over epochs, each ready to stand alone or above the others on one shared epoch axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import plotly.graph_objects as go

from hiddenscope.dashboard.figures.template import SMALL, message, paper_text, template, theme


@dataclass(frozen=True)
class Panel:
    """One strip of the figure: traces over epoch, and their vertical axis."""

    title: str
    traces: Sequence[Any]
    axis: dict[str, Any]
    right: frozenset[int] = frozenset()
    """Positions in ``traces`` of those that are read on a second axis at the right."""
    right_axis: dict[str, Any] = field(default_factory=dict)
    key: Sequence[tuple[str, str, str]] = ()
    """Name, color and dash of the curves that the caption names, instead of a legend."""
    waiting: str = ""
    """Said in the middle of the strip when there is nothing to draw yet."""
    weight: float = 1.0


GAP = 0.075
KEY_LENGTH = 78
"""Most characters of a caption with its key: what fits at the least width of the page."""
_STROKES = {"solid": "\u2501", "dash": "\u254d", "dot": "\u2505", "dashdot": "\u2504"}


def stack(panels: Sequence[Panel], *, untrained: bool = False, dark: bool = False) -> go.Figure:
    """Panels from top to bottom on one epoch axis, so that the same epoch is at the same place in each.

    Args:
        panels: at least one.
        untrained: whether epoch -1, the network before training, is among the epochs; the axis title explains it.

    Raises:
        ValueError: no panel was given.
    """
    if not panels:
        raise ValueError("a stack needs at least one panel, got none")
    if len(panels) == 1 and not panels[0].traces:
        return message(panels[0].waiting, dark=dark)
    look = theme(dark=dark)
    traces: list[Any] = []
    domains = _domains([panel.weight for panel in panels])
    layout: dict[str, Any] = {
        "margin": {"l": 54, "r": 62, "t": 24, "b": 36},
        "hovermode": "closest",
        "uirevision": "curves",
        "xaxis": {
            "title": {"text": "epoch (\u22121: before training)" if untrained else "epoch"},
            "anchor": "y" if len(panels) == 1 else f"y{2 * len(panels) - 1}",
            "showspikes": True,
            "spikemode": "across",
            "spikesnap": "cursor",
            "spikethickness": 1,
            "spikedash": "solid",
            "spikecolor": look.muted,
            "showgrid": True,
        },
        "annotations": [],
    }
    for i, (panel, (low, high)) in enumerate(zip(panels, domains, strict=True)):
        left = "y" if i == 0 else f"y{2 * i + 1}"
        layout[_axis_key(left)] = {"domain": [low, high], "anchor": "x", "nticks": 5, **panel.axis}
        right = f"y{2 * i + 2}"
        if panel.right:
            layout[_axis_key(right)] = {
                "overlaying": left,
                "side": "right",
                "anchor": "x",
                "nticks": 5,
                "tickmode": "auto",
                "showgrid": False,
                **panel.right_axis,
            }
        legend = "legend" if i == 0 else f"legend{i + 1}"
        layout[legend] = {
            "orientation": "h",
            "x": 1,
            "xanchor": "right",
            "y": high,
            "yanchor": "bottom",
            "itemwidth": 30,
            "font": {"size": SMALL, "color": look.muted},
        }
        for k, trace in enumerate(panel.traces):
            placed = {"xaxis": "x", "yaxis": right if k in panel.right else left}
            if not isinstance(trace, go.Heatmap):
                placed["legend"] = legend
            elif trace.showscale is not False:
                trace.colorbar.update(y=(low + high) / 2, len=high - low)
            trace.update(placed)
            traces.append(trace)
        title = paper_text(_titled(panel), 0, high, xanchor="left", color=look.text, size=SMALL + 1)
        layout["annotations"].append(title)
        if not panel.traces:
            waiting = paper_text(panel.waiting, 0.5, (low + high) / 2, color=look.muted, size=SMALL + 1)
            layout["annotations"].append(waiting | {"yanchor": "middle"})
    return go.Figure(traces, {"template": template(dark=dark), **layout})


def _titled(panel: Panel) -> str:
    """The title, and after it the key, as far as it fits."""
    length, parts = len(panel.title), []
    for i, (name, color, dash) in enumerate(panel.key):
        length += len(name) + 4
        if length > KEY_LENGTH and i:
            parts.append(f"+{len(panel.key) - i} more")
            break
        parts.append(f'<span style="color:{color}">{_STROKES.get(dash, _STROKES["solid"])}\u2009{escape(name)}</span>')
    return "  ".join([panel.title, *parts])


def _axis_key(axis: str) -> str:
    return "yaxis" + axis[1:]


def _domains(weights: Sequence[float]) -> list[tuple[float, float]]:
    """The vertical share of each panel, from the top down, with room for a caption above each."""
    free = 1.0 - GAP * (len(weights) - 1)
    domains, top = [], 1.0
    for weight in weights:
        height = free * weight / sum(weights)
        domains.append((max(0.0, top - height), top))
        top -= height + GAP
    return domains
