"""A table as a figure, for places that have no grid: TensorBoard's tab, the report, a notebook."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from hiddenscope.dashboard.figures.template import SMALL, template, theme

MOST_ROWS = 12
ROW, HEAD = 24, 30


def table(
    columns: Sequence[tuple[str, str]], rows: Sequence[Mapping[str, Any]], *, weights: Sequence[float] = (), dark: bool
) -> go.Figure:
    """The first `MOST_ROWS` rows of a table, and dots where there are more; the layout's height is what they need.

    Args:
        columns: the key of each column, and what stands over it.
        rows: a value, or nothing, for each key.
        weights: relative widths of the columns; equal where they are not given.
        dark: for a dark page.
    """
    look = theme(dark=dark)
    clear = "rgba(0, 0, 0, 0)"
    shown = [*rows[:MOST_ROWS], *([{columns[0][0]: "\u2026"}] if len(rows) > MOST_ROWS else [])]

    def written(value: object) -> str:
        return "" if value is None else html.escape(f"{value:.4g}" if isinstance(value, float) else str(value))

    figure = go.Figure(
        go.Table(
            header={
                "values": [f"<b>{html.escape(title)}</b>" for _, title in columns],
                "align": "left",
                "fill": {"color": clear},
                "line": {"color": look.grid},
                "font": {"color": look.muted, "size": SMALL},
                "height": HEAD,
            },
            cells={
                "values": [[written(row.get(key)) for row in shown] for key, _ in columns],
                "align": "left",
                "fill": {"color": clear},
                "line": {"color": look.grid},
                "font": {"color": look.text, "size": SMALL + 1},
                "height": ROW,
            },
            columnwidth=list(weights) or None,
        )
    )
    figure.update_layout(
        template=template(dark=dark),
        height=HEAD + ROW * len(shown) + 24,
        margin={"l": 4, "r": 4, "t": 4, "b": 12},
    )
    return figure
