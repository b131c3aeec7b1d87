"""What a layer does with a sentence, typed or of the probe: the states, their pictures, and the form that asks for it.

The states of a typed sentence are rebuilt from the recording of the epoch under the cursor when they are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dash_mantine_components as dmc
import numpy as np
import plotly.graph_objects as go
import xarray as xr
from dash import dcc, html

from hiddenscope.analyses.cocluster import CoClusters
from hiddenscope.analyses.glyphs import glyph_scale, sentence_glyphs
from hiddenscope.analyses.sentences import replay_error, sentence_states, token_inputs, tokenize
from hiddenscope.dashboard.answering import KEPT, events_in, place
from hiddenscope.dashboard.figures.rnnvis_sentence import sentence_figure
from hiddenscope.dashboard.figures.template import epoch_text
from hiddenscope.dashboard.focus import place_of_word
from hiddenscope.dashboard.panels.graph import plain_graph
from hiddenscope.dashboard.panels.panel import Scene
from hiddenscope.dashboard.remembered import remembered
from hiddenscope.errors import HiddenscopeError
from hiddenscope.run import Run

NOTHING = {"value": "", "label": "nothing"}
TRUSTED = 1e-3
"""A rebuilt layer this close to the recording speaks for the network."""
_LONGEST = 2000  # characters of a sentence


def states_of_sentence(
    run: Run, layer: str, epoch: float, text: str, sample: int
) -> tuple[xr.DataArray | None, list[str], str]:
    """The states of the sentence that is typed, or else of the probe sequence that is chosen, as `states_of_text`."""
    if text.strip():
        return states_of_text(run, layer, epoch, text)
    return states_of_sample(run, layer, epoch, sample)


def states_of_text(run: Run, layer: str, epoch: float, text: str) -> tuple[xr.DataArray | None, list[str], str]:
    """What a layer does with a sentence.

    Returns:
        The states (step, unit) or None; the words they belong to; and what to know about them.
    """
    events = events_in(run, layer)
    if events is None or events.kind != "token" or run.token_names is None:
        return None, [], "Sentences can be typed where the probe consists of tokens whose names are recorded."
    inputs = remembered(
        ("inputs", *place(run, layer, epoch)), lambda: token_inputs(run, layer, epoch=epoch, events=events)
    )
    if inputs is None:
        return None, [], 'Record the inputs too, HiddenStateMonitor(record=("h", "inputs")), to type a sentence.'
    pairs = tokenize(text[:_LONGEST], events.names)
    known = [(name, code) for name, code in pairs if code >= 0 and np.isfinite(inputs.vectors[code]).all()]
    missing = [name for name, code in pairs if (name, code) not in known]
    notes = [f"not in the probe, left out: {', '.join(dict.fromkeys(missing))}"] if missing else []
    if not known:
        return None, [], " \u00b7 ".join(notes)
    try:
        states = sentence_states(run, layer, inputs.vectors[[code for _, code in known]], epoch=epoch)
        error = remembered(
            ("replay", *place(run, layer, epoch)), lambda: replay_error(run, layer, epoch=epoch, events=events)
        )
    except (ValueError, HiddenscopeError) as problem:
        return None, [], str(problem)
    if error is not None and error > TRUSTED:
        notes.append(f"rebuilt from the recording, {error:.0%} off: the model does more than feed tokens to this layer")
    return states, [name for name, _ in known], " \u00b7 ".join(notes)


def states_of_sample(run: Run, layer: str, epoch: float, position: int) -> tuple[xr.DataArray | None, list[str], str]:
    """The recorded states of one probe sequence, as `states_of_text` gives those of a sentence."""
    events = events_in(run, layer)
    count = run.description.samples.size
    if not 0 <= position < count:
        return None, [], f"The probe has sequences 1 to {count}."
    states = run.trace(layer, epochs=epoch).isel(epoch=0, sample=position)
    states = states.isel(step=np.isfinite(states.values).all(axis=1))
    words = [str(step) for step in states["step"].values.tolist()]
    if events is not None and events.words.shape[2] == 1 and events.kind in ("token", "symbol"):
        at = np.searchsorted(run.description.layer(layer).steps, states["step"].values)
        codes = events.words[position, at, 0].tolist()
        words = [events.names[code] if code >= 0 else "\u2013" for code in codes]
        real = [code >= 0 for code in codes]
        states, words = states.isel(step=real), [word for word, own in zip(words, real, strict=True) if own]
    return states.transpose("step", "unit"), words, ""


def sentence_figures(
    shown: Sequence[tuple[Run, str, float, CoClusters, str]],
    text: str,
    sample: int,
    *,
    picked: Sequence[str] = (),
    dark: bool,
) -> list[Any]:
    """One picture for each of some (run, layer, epoch, clusters, title), all of the same sentence on the same scale."""
    drawn = []
    for run, layer, epoch, found, title in shown:
        drawn.append((*states_of_sentence(run, layer, epoch, text, sample), found, title))
    glyphs = [sentence_glyphs(s.values, f.units) for s, _, _, f, _ in drawn if s is not None and s.sizes["step"]]
    scale = glyph_scale(*glyphs)
    largest = max((float(np.abs(s.values).max()) for s, *_ in drawn if s is not None and s.size), default=1.0)
    return [
        sentence_figure(
            states,
            words,
            found.units,
            scale=scale,
            title=title,
            note=note,
            clip=largest or 1.0,
            sample=None if text.strip() else sample,
            picked=picked,
            dark=dark,
        )
        for states, words, note, found, title in drawn
    ]


def sentence_room(scene: Scene, epoch: float, found: CoClusters) -> list[Any]:
    """A line to type a sentence in, a choice of probe sequences and of what to compare with, and the pictures."""
    run = scene.run
    count = run.description.samples.size
    sample = scene.focus.sample
    if sample is None:
        place = place_of_word(run, scene.view.layer, scene.focus.words)
        sample = 0 if place is None else place[0]
    sample = min(sample, count - 1)
    title = f"{scene.view.name}, epoch {epoch_text(epoch)}"
    shown = [(run, scene.view.layer, epoch, found, title)]
    figures = sentence_figures(shown, "", sample, picked=[str(unit) for unit in scene.units], dark=scene.dark)
    return [
        dcc.Store(
            id="rnnvis-frame",
            data={
                "clusters": scene.options.get("clusters", KEPT),
                "at": [scene.view.version, epoch, scene.dark],
                "sample": sample,
            },
        ),
        _form(count, sample),
        html.Div(sentences(figures), id="rnnvis-sentences"),
    ]


def _form(count: int, sample: int) -> html.Div:
    return html.Div(
        className="rnnvis-form",
        children=[
            dmc.TextInput(
                id="rnnvis-text",
                className="rnnvis-text",
                debounce=400,
                placeholder="type a sentence \u2026",
                size="xs",
                persistence="rnnvis",
                persistence_type="session",
                **{"aria-label": "sentence"},
            ),
            html.Label(
                [
                    html.Span(f"or probe sequence 1 to {count}"),
                    dmc.NumberInput(
                        id="rnnvis-sample",
                        min=1,
                        max=count,
                        step=1,
                        value=sample + 1,
                        debounce=300,
                        size="xs",
                        w=80,
                        **{"aria-label": "probe sequence"},
                    ),
                ],
                className="control",
            ),
            html.Label(
                [
                    html.Span("beside"),
                    dmc.Select(
                        id="rnnvis-against",
                        data=[NOTHING],
                        value="",
                        size="xs",
                        w=170,
                        searchable=True,
                        allowDeselect=False,
                        comboboxProps={"withinPortal": True},
                        persistence="rnnvis",
                        persistence_type="session",
                        **{"aria-label": "compare with"},
                    ),
                ],
                className="control",
            ),
        ],
    )


def sentences(figures: Sequence[go.Figure]) -> list[Any]:
    """Pictures of sentences as graphs."""
    return [
        plain_graph({"type": "rnnvis-sentence", "name": str(i)}, figure, clear_on_unhover=True)
        for i, figure in enumerate(figures)
    ]
