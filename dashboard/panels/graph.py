"""A figure as a graph on a panel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
from dash import dcc

Identity = str | Mapping[str, str]
_CONFIG = {"displaylogo": False, "responsive": True}


def graph(name: Identity, figure: go.Figure, height: int, **style: Any) -> dcc.Graph:
    """A graph so many pixels high; ``style`` places it on a grid."""
    return _graph(name, figure, _CONFIG, {"height": f"{height}px"} | style)


def plain_graph(name: Identity, figure: go.Figure, **options: Any) -> dcc.Graph:
    """A graph as high as its figure, without buttons."""
    config = _CONFIG | {"displayModeBar": False}
    return _graph(name, figure, config, {"height": f"{figure.layout.height or 330}px"}, **options)


def _graph(name: Any, figure: go.Figure, config: Any, style: Mapping[str, Any], **options: Any) -> dcc.Graph:
    return dcc.Graph(id=name, figure=figure, config=config, style={"minWidth": 0, **style}, **options)
