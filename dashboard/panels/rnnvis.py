"""RNNVis as a panel: chips, clouds and edges; how units answer to words; sentences that somebody types.

What is stored are co-clusters over the epochs (see `hiddenscope.analyses.cocluster`); the expected responses of the
epoch under the cursor are computed when they are looked at, from one epoch of the recording.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from dash import dcc, html

from hiddenscope.analyses.cocluster import COCLUSTER, UNASSIGNED, CoClusters
from hiddenscope.dashboard.answering import CHOICES, KEPT, clusters_at, codes_of, responses_at
from hiddenscope.dashboard.figures.rnnvis import NO_EVENTS, rnnvis
from hiddenscope.dashboard.figures.rnnvis_detail import co_cluster_agreement, unit_boxes, word_distributions
from hiddenscope.dashboard.figures.template import epoch_text, message
from hiddenscope.dashboard.panels.graph import plain_graph
from hiddenscope.dashboard.panels.panel import Panel, Scene, epoch_at
from hiddenscope.dashboard.panels.rnnvis_live import DISTRIBUTION, MAP, connect
from hiddenscope.dashboard.panels.rnnvis_sentence import sentence_room

METHOD = COCLUSTER.method
LINKS = {
    "20 % and more of the strongest": (0.2, 1.0),
    "all": (0.0, 1.0),
    "40 % and more": (0.4, 1.0),
    "60 % and more": (0.6, 1.0),
    "80 % and more": (0.8, 1.0),
    "below 40 %": (0.0, 0.4),
}
CLIPS = {"half of the largest": 0.5, "a tenth": 0.1, "a quarter": 0.25, "the largest": 1.0}


def draw(scene: Scene) -> list[Any]:
    """The main picture, the details of what is picked, co-clusters over the epochs, and room for a sentence."""
    run, layer, epoch = scene.run, scene.view.layer, epoch_at(scene.run.epochs, scene.epoch)
    responses = responses_at(run, layer, epoch)
    if responses is None:
        return [plain_graph("rnnvis-none", message(NO_EVENTS, dark=scene.dark))]
    found = clusters_at(run, layer, epoch, scene.options.get("clusters", KEPT), scene.results.get(METHOD))
    low, high = LINKS.get(scene.options.get("links", ""), next(iter(LINKS.values())))
    share = CLIPS.get(scene.options.get("clip", ""), next(iter(CLIPS.values())))
    largest = float(np.abs(responses["response"].values).max())
    picked = [str(unit) for unit in scene.units]
    figure = rnnvis(responses, found, low=low, high=high, clip=largest * share or None, picked=picked, dark=scene.dark)
    unit = picked[-1] if picked else None
    picked_words = codes_of(responses, scene.focus.words)
    return [
        html.Div(_caption(responses, found, epoch), className="card-foot"),
        html.Div(
            plain_graph(MAP, figure, clear_on_unhover=True),
            className="rnnvis-map",
        ),
        dcc.Store(id="rnnvis-step"),
        html.Div(
            className="rnnvis-details",
            children=[
                plain_graph(DISTRIBUTION, word_distributions(responses, picked_words, picked=picked, dark=scene.dark)),
                plain_graph("rnnvis-boxes", unit_boxes(responses, unit, dark=scene.dark)),
                plain_graph(
                    {"type": "panel-epochs", "name": "rnnvis-agreement"},
                    co_cluster_agreement(
                        scene.results.get(METHOD), scene.view.metrics, epoch=scene.epoch, dark=scene.dark
                    ),
                ),
            ],
        ),
        *sentence_room(scene, epoch, found),
    ]


PANEL = Panel(
    name="rnnvis",
    title="RNNVis",
    about=(
        "Chips of units and clouds of the words they answer to, joined by mean responses: orange raises a state, blue "
        "lowers it. Point at a word to see what it does to every unit; type a sentence to see what is kept of it."
    ),
    methods=(METHOD,),
    draw=draw,
    controls={
        "clusters": ("co-clusters", CHOICES),
        "links": ("edges", tuple(LINKS)),
        "clip": ("full color at", tuple(CLIPS)),
    },
    follows_cursor=True,
    connect=connect,
    waits=False,
)


def _caption(responses: xr.Dataset, found: CoClusters, epoch: float) -> str:
    what = {"token": "words", "symbol": "symbols", "value": "bins of the inputs", "class": "classes"}[
        responses.attrs["kind"]
    ]
    parts = [f"epoch {epoch_text(epoch)}", f"{responses.sizes['word']} {what}, {responses.sizes['unit']} units"]
    silent = int((found.units == UNASSIGNED).sum()), int((found.words == UNASSIGNED).sum())
    if any(silent):
        parts.append(f"{silent[0]} units and {silent[1]} {what} answer to nothing and are not drawn")
    parts.append("click words to compare them, and units to see what they answer to")
    return " \u00b7 ".join(parts)
