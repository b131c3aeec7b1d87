"""Units that develop alike, what each group of them can do alone, and which unit the network would miss."""

from __future__ import annotations

from typing import Any

from dash import html

from hiddenscope.dashboard.figures.analyses import cluster_trajectories, confusion_matrices, unit_importance
from hiddenscope.dashboard.panels.graph import graph
from hiddenscope.dashboard.panels.panel import Panel, Scene

MODES = {"in the recurrence": "recurrence", "in the readout only": "readout"}
PARTS = ("validation", "training", "probe")


def draw(scene: Scene) -> list[Any]:
    """Clusters and importance side by side, confusion matrices below."""
    clusters, silencing = scene.results.get("clusters"), scene.results.get("silencing")
    mode = MODES.get(scene.options.get("silent", ""), "recurrence")
    part = scene.options.get("data")
    matrices = confusion_matrices(silencing, part=part, mode=mode, class_names=scene.view.class_names, dark=scene.dark)
    tiles = [
        graph({"type": "panel-units", "name": "clusters"}, cluster_trajectories(
            clusters, picked=scene.units, dark=scene.dark), 340),
        graph({"type": "panel-units", "name": "importance"}, unit_importance(
            silencing, part=part, picked=scene.units, dark=scene.dark), 340),
    ]  # fmt: skip
    body: list[Any] = [html.Div(tiles, className="pod-tiles")]
    if silencing is not None:
        there = [str(name) for name in silencing["part"].values]
        shown = part if part in there else there[-1]
        told = f"Shown: {shown} data, of {', '.join(there)}. Rows are true classes, columns what they are taken for."
        body.append(html.Div(told, className="card-foot"))
    body.append(graph("confusions", matrices, 420 if silencing is not None else 120))
    return body


PANEL = Panel(
    name="clusters",
    title="Unit clusters",
    about="Units grouped by how their inter-step entropy develops; with the model, what each group can do alone.",
    methods=("clusters", "silencing"),
    draw=draw,
    controls={"silent": ("silenced", tuple(MODES)), "data": ("on", PARTS)},
)
