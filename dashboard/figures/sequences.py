"""What figures of one sequence share: the features that are drawn, the words at its steps, and what is marked."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import xarray as xr

from hiddenscope.dashboard.figures.template import colorbar, theme

MOST_FEATURES = 6
MOST_LABELS, MOST_LETTERS = 64, 14
"""Words that are written along an axis, and letters of each."""


@dataclass(frozen=True)
class Marks:
    """What is picked elsewhere, of the sequence that is drawn.

    Attributes:
        words: what stands at each recorded step; empty where inputs are no words.
        picked: names of the words whose steps are marked.
        period: first and last step of the period that is outlined.
    """

    words: Sequence[str] = ()
    picked: Sequence[str] = ()
    period: tuple[int, int] | None = None


UNMARKED = Marks()


def chosen_features(inputs: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> list[int]:
    """At most `MOST_FEATURES` features: those with the most relevance if that is known, else with the most variance.

    >>> chosen_features(np.arange(20.0).reshape(10, 2) * [1, 3])
    [0, 1]
    """
    values = np.asarray(inputs, dtype=np.float64)
    if values.shape[1] <= MOST_FEATURES:
        return list(range(values.shape[1]))
    size = np.nanvar(values, axis=0) if weight is None else np.abs(np.asarray(weight)).sum(axis=0)
    return sorted(np.argsort(-size, kind="stable")[:MOST_FEATURES].tolist())


def mark_steps(
    figure: go.Figure, steps: npt.NDArray[Any], marks: Marks, *, rows: Sequence[int] = (), dark: bool = False
) -> None:
    """Write the words of a sequence at its steps, mark those that are picked, and outline the picked period.

    Args:
        figure: whose x axis is steps.
        steps: the recorded steps.
        marks: what to mark.
        rows: of subplots that have this x axis, the last with the labels; none for a figure without subplots.
    """
    look = theme(dark=dark)
    last: dict[str, Any] = {"row": rows[-1], "col": 1} if rows else {}
    everywhere: dict[str, Any] = {"row": "all", "col": 1} if rows else {}
    if marks.words and len(steps) <= MOST_LABELS:
        said = [html.escape(word[:MOST_LETTERS], quote=False) for word in marks.words]
        bold = [
            f"<b>{text}</b>" if word in marks.picked else text for word, text in zip(marks.words, said, strict=True)
        ]
        figure.update_xaxes(tickvals=steps, ticktext=bold, tickangle=-60, title_text="", automargin=True, **last)
    for step, word in zip(steps, marks.words, strict=False):
        if word in marks.picked:
            edges = {"x0": step - 0.5, "x1": step + 0.5}
            figure.add_vrect(**edges, fillcolor=look.text, opacity=0.12, line_width=0, layer="below", **everywhere)
    if marks.period is not None:
        edges = {"x0": marks.period[0] - 0.5, "x1": marks.period[1] + 0.5}
        figure.add_vrect(**edges, fillcolor="rgba(0, 0, 0, 0)", line={"color": look.text, "width": 1.4}, **everywhere)


def diverging(*, dark: bool) -> list[tuple[float, str]]:
    """Blue below 0, orange above, the background at 0."""
    look = theme(dark=dark)
    return [(0.0, look.classes[0]), (0.5, look.panel), (1.0, look.classes[3])]


def states_map(activations: xr.DataArray, *, bar_at: float, dark: bool) -> go.Heatmap:
    """The states of all units in one sequence, a row each; ``bar_at`` is where the middle of the scale stands."""
    values = activations.transpose("unit", "step").values
    steps, units = activations["step"].values, [str(unit) for unit in activations["unit"].values]
    limit = float(np.nanmax(np.abs(values))) or 1.0
    return go.Heatmap(
        z=values.astype(np.float32),
        x=steps,
        y=np.arange(len(units)),
        customdata=np.repeat(np.array(units)[:, None], len(steps), axis=1),
        colorscale=diverging(dark=dark),
        zmin=-limit,
        zmax=limit,
        colorbar=colorbar(title="state", dark=dark) | {"len": 0.5, "y": bar_at},
        hovertemplate="unit %{customdata}<br>step %{x}<br>state %{z:.3f}<extra></extra>",
    )
