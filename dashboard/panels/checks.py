"""Phases of the training, and entropies against what a linear readout and the labels say at every epoch and step."""

from __future__ import annotations

from typing import Any

from dash import html

from hiddenscope.dashboard.figures.analyses import (
    checks,
    entropies_by_embedding,
    phase_timeline,
    step_ablation,
)
from hiddenscope.dashboard.panels.graph import graph
from hiddenscope.dashboard.panels.panel import Panel, Scene

SHADES = "Shaded: green, the curve rises (processing); orange, it falls (compression), both beyond what noise does."

WHICH = {"intra-step": "intra", "inter-step": "inter"}


def draw(scene: Scene) -> list[Any]:
    """Phases and maps side by side, ablation and the entropies of other embeddings below."""
    results, picture = scene.results, scene.view.result
    entropy = None if picture is None else picture["intra_step_entropy"]
    timeline = phase_timeline(results.get("phases"), dark=scene.dark)
    maps = checks(entropy, results.get("linear_probes"), results.get("label_information"), dark=scene.dark)
    ablation = results.get("ablation")
    others = results.get("entropies_by_method")
    which = WHICH.get(scene.options.get("entropy", ""), "intra")
    lower = [
        graph("ablation", step_ablation(ablation, dark=scene.dark), 420 if ablation is not None else 100),
        graph(
            {"type": "panel-epochs", "name": "by-embedding"},
            entropies_by_embedding(others, which=which, dark=scene.dark),
            420 if others is not None else 100,
        ),
    ]
    tiles = [
        graph({"type": "panel-epochs", "name": "phases"}, timeline, 560),
        graph({"type": "panel-epochs", "name": "checks"}, maps, 560),
    ]
    return [
        html.Div(SHADES, className="card-foot"),
        html.Div(tiles, className="pod-tiles"),
        html.Div(lower, className="pod-tiles"),
    ]


PANEL = Panel(
    name="checks",
    title="Phases and checks",
    about="Where the training changes its course, and what can be read from the states at each epoch and step.",
    methods=("phases", "linear_probes", "label_information", "ablation", "entropies_by_method"),
    draw=draw,
    controls={"entropy": ("other embeddings", tuple(WHICH))},
)
