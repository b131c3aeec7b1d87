"""RNNVis as a panel: chips, clouds and edges; how units answer to words; sentences that somebody types.

What is stored are co-clusters over the epochs (see `hiddenscope.analyses.cocluster`); the expected responses of the
epoch under the cursor are computed when they are looked at, from one epoch of the recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dash_mantine_components as dmc
import numpy as np
import xarray as xr
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html, no_update

from hiddenscope.analyses.cocluster import UNASSIGNED, CoClusters, co_cluster
from hiddenscope.analyses.expected_response import events_of, run_responses
from hiddenscope.analyses.glyphs import glyph_scale, sentence_glyphs
from hiddenscope.analyses.sentences import replay_error, sentence_states, token_inputs, tokenize
from hiddenscope.dashboard.figures.rnnvis import NO_EVENTS, rnnvis
from hiddenscope.dashboard.figures.rnnvis_detail import co_cluster_agreement, unit_boxes, word_distributions
from hiddenscope.dashboard.figures.rnnvis_sentence import sentence_figure
from hiddenscope.dashboard.figures.template import epoch_text, message
from hiddenscope.dashboard.focus import focus_of, place_of_word
from hiddenscope.dashboard.library import Library
from hiddenscope.dashboard.panels.panel import Panel, Scene, number_of
from hiddenscope.dashboard.remembered import remembered
from hiddenscope.errors import HiddenscopeError
from hiddenscope.run import Run

METHOD = "cocluster"
MAP = {"type": "panel-units", "name": "rnnvis-map"}
DISTRIBUTION = {"type": "panel-units", "name": "rnnvis-distribution"}
KEPT = "as they developed"
CHOSEN = "chosen for this epoch"
LINKS = {
    "20 % and more of the strongest": (0.2, 1.0),
    "all": (0.0, 1.0),
    "40 % and more": (0.4, 1.0),
    "60 % and more": (0.6, 1.0),
    "80 % and more": (0.8, 1.0),
    "below 40 %": (0.0, 0.4),
}
NOTHING = {"value": "", "label": "nothing"}
CLIPS = {"half of the largest": 0.5, "a tenth": 0.1, "a quarter": 0.25, "the largest": 1.0}
TRUSTED = 1e-3
"""A rebuilt layer this close to the recording speaks for the network."""
_OFFERED = 200  # epochs, and runs, that a sentence can be seen beside
_LONGEST = 2000  # characters of a sentence


def draw(scene: Scene) -> list[Any]:
    """The main picture, the details of what is picked, co-clusters over the epochs, and room for a sentence."""
    run, layer, epoch = scene.run, scene.view.layer, _epoch(scene.run, scene.epoch)
    responses = responses_at(run, layer, epoch)
    if responses is None:
        return [_graph("rnnvis-none", message(NO_EVENTS, dark=scene.dark))]
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
            _graph(MAP, figure, clear_on_unhover=True),
            className="rnnvis-map",
        ),
        dcc.Store(id="rnnvis-step"),
        html.Div(
            className="rnnvis-details",
            children=[
                _graph(DISTRIBUTION, word_distributions(responses, picked_words, picked=picked, dark=scene.dark)),
                _graph("rnnvis-boxes", unit_boxes(responses, unit, dark=scene.dark)),
                _graph(
                    {"type": "panel-epochs", "name": "rnnvis-agreement"},
                    co_cluster_agreement(
                        scene.results.get(METHOD), scene.view.metrics, epoch=scene.epoch, dark=scene.dark
                    ),
                ),
            ],
        ),
        *_sentence_room(scene, epoch, found),
    ]


def responses_at(run: Run, layer: str, epoch: float) -> xr.Dataset | None:
    """The expected responses at one epoch, computed once for all viewers."""
    return remembered(("responses", *_place(run, layer, epoch)), lambda: run_responses(run, layer, epoch=epoch))


def clusters_at(run: Run, layer: str, epoch: float, choice: str, study: xr.Dataset | None) -> CoClusters:
    """The co-clusters of an epoch.

    Args:
        run: the run.
        layer: one of its layers.
        epoch: one of its epochs.
        choice: `KEPT` for those of the study, `CHOSEN` for as many as this epoch asks for, or a number.
        study: the stored study; where it does not cover the epoch, its nearest earlier epoch answers.
    """
    if choice == KEPT and study is not None:
        there = np.isfinite(study["response_size"].values) & (study["epoch"].values <= epoch)
        responses = responses_at(run, layer, epoch)
        if there.any() and responses is not None:
            row = study.isel(epoch=int(np.flatnonzero(there)[-1]))
            if np.array_equal(row["word"].values, responses["word"].values):
                return CoClusters(row["word_cluster"].values, row["unit_cluster"].values)
    count = int(choice) if choice.isdecimal() else None

    def compute() -> CoClusters:
        responses = responses_at(run, layer, epoch)
        if responses is None:
            units = run.description.layer(layer).units.size
            return CoClusters(np.zeros(0, dtype=np.int64), np.full(units, UNASSIGNED))
        return co_cluster(responses["response"].values, n_clusters=count)

    return remembered(("clusters", count, *_place(run, layer, epoch)), compute)


def codes_of(responses: xr.Dataset, names: Sequence[str]) -> list[int]:
    """The codes of words by their names, the last name first; those that are not known are left out."""
    codes = dict(zip(responses["name"].values.tolist(), responses["word"].values.tolist(), strict=True))
    return [codes[name] for name in names[::-1] if name in codes]


def states_of_text(run: Run, layer: str, epoch: float, text: str) -> tuple[xr.DataArray | None, list[str], str]:
    """What a layer does with a sentence.

    Returns:
        The states (step, unit) or None; the words they belong to; and what to know about them.
    """
    events = remembered(("events", run.path, run.version, layer), lambda: events_of(run, layer))
    if events is None or events.kind != "token" or run.token_names is None:
        return None, [], "Sentences can be typed where the probe consists of tokens whose names are recorded."
    inputs = remembered(
        ("inputs", *_place(run, layer, epoch)), lambda: token_inputs(run, layer, epoch=epoch, events=events)
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
            ("replay", *_place(run, layer, epoch)), lambda: replay_error(run, layer, epoch=epoch, events=events)
        )
    except (ValueError, HiddenscopeError) as problem:
        return None, [], str(problem)
    if error is not None and error > TRUSTED:
        notes.append(f"rebuilt from the recording, {error:.0%} off: the model does more than feed tokens to this layer")
    return states, [name for name, _ in known], " \u00b7 ".join(notes)


def states_of_sample(run: Run, layer: str, epoch: float, position: int) -> tuple[xr.DataArray | None, list[str], str]:
    """The recorded states of one probe sequence, as `states_of_text` gives those of a sentence."""
    events = remembered(("events", run.path, run.version, layer), lambda: events_of(run, layer))
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
        if text.strip():
            states, words, note = states_of_text(run, layer, epoch, text)
        else:
            states, words, note = states_of_sample(run, layer, epoch, sample)
        drawn.append((states, words, note, found, title))
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


def connect(app: Dash, library: Library) -> None:
    """Words that are clicked, sentences that are typed, and what happens under the pointer."""

    @app.callback(
        Output(DISTRIBUTION, "figure"),
        Input("focus", "data"),
        Input("rnnvis-step", "data"),
        Input("rnnvis-frame", "data"),
        State("run", "value"),
        State("layer", "value"),
        State("panel-cursor", "data"),
        State("units", "data"),
        State("dark", "data"),
        State("rnnvis-text", "value"),
        State("rnnvis-sample", "value"),
    )
    def compare_words(
        focus: object,
        step: object,
        _frame: object,
        run: object,
        layer: object,
        epoch: object,
        units: object,
        dark: object,
        text: object,
        sample: object,
    ) -> Any:
        found = _asked(library, run, layer, epoch)
        if found is None:
            return no_update
        responses = responses_at(*found)
        if responses is None:
            return no_update
        names = focus_of(focus, str(run)).words
        words, actual = codes_of(responses, names), None
        if isinstance(step, dict) and words and str(step.get("word")) == names[-1]:
            states, _, _ = _states_of(*found, text, sample)
            actual = _update(states, number_of(step.get("step")))
        picked = [str(unit) for unit in units] if isinstance(units, list) else []
        return word_distributions(responses, words, actual=actual, picked=picked, dark=bool(dark))

    @app.callback(
        Output("rnnvis-sentences", "children"),
        Input("rnnvis-text", "value"),
        Input("rnnvis-sample", "value"),
        Input("rnnvis-against", "value"),
        Input("rnnvis-frame", "data"),
        State("run", "value"),
        State("layer", "value"),
        State("panel-cursor", "data"),
        State("dark", "data"),
        State("units", "data"),
    )
    def read_sentence(
        text: object,
        sample: object,
        against: object,
        frame: object,
        run: object,
        layer: object,
        epoch: object,
        dark: object,
        units: object,
    ) -> Any:
        found = _asked(library, run, layer, epoch)
        if found is None:
            return no_update
        choice = frame.get("clusters", KEPT) if isinstance(frame, dict) else KEPT
        shown = [_sentence_of(library, str(run), *found, choice)]
        other = _other(library, against, found)
        if other is not None:
            shown.append(_sentence_of(library, *other, choice))
        typed = text if isinstance(text, str) else ""
        picked = [str(unit) for unit in units] if isinstance(units, list) else []
        figures = sentence_figures(shown, typed, _position(sample), picked=picked, dark=bool(dark))
        return _sentences(figures)

    @app.callback(
        Output("rnnvis-against", "data"),
        Input("rnnvis-frame", "data"),
        State("run", "value"),
        State("layer", "value"),
    )
    def offer_others(_frame: object, run: object, layer: object) -> Any:
        found = _asked(library, run, layer, None)
        if found is None:
            return [NOTHING]
        epochs = [f"epoch {value:g}" for value in found[0].epochs.tolist()[-_OFFERED:]]
        runs = [f"run {name}" for name in list(library.runs())[:_OFFERED] if name != run]
        return [NOTHING, *({"value": each, "label": each} for each in (*epochs[::-1], *runs))]

    def browser(function: str, *arguments: Any, **options: Any) -> None:
        clientside: Any = app.clientside_callback
        clientside(ClientsideFunction("rnnvis", function), *arguments, **options)

    again: dict[str, Any] = {"allow_duplicate": True}
    browser("show", Input("focus", "data"))
    browser("drawnAnew", Input("rnnvis-frame", "data"), Input("rnnvis-sentences", "children"), State("focus", "data"))
    browser("hoverMap", Input(MAP, "hoverData"), prevent_initial_call=True)
    browser("hoverUnits", Input(DISTRIBUTION, "hoverData"), prevent_initial_call=True)
    browser(
        "clickMap",
        Output("focus", "data", **again),
        Input(MAP, "clickData"),
        State("focus", "data"),
        State("run", "value"),
        prevent_initial_call=True,
    )
    browser(
        "sampleChosen",
        Output("focus", "data", **again),
        Input("rnnvis-sample", "value"),
        State("rnnvis-frame", "data"),
        State("focus", "data"),
        State("run", "value"),
        prevent_initial_call=True,
    )
    for name in ("0", "1"):
        sentence = {"type": "rnnvis-sentence", "name": name}
        browser("hoverSentence", Input(sentence, "hoverData"), State(sentence, "id"), prevent_initial_call=True)
        browser(
            "clickSentence",
            Output("focus", "data", **again),
            Output("rnnvis-step", "data", **again),
            Output("units", "data", **again),
            Input(sentence, "clickData"),
            State(sentence, "id"),
            State("focus", "data"),
            State("units", "data"),
            State("run", "value"),
            prevent_initial_call=True,
        )


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
        "clusters": ("co-clusters", (KEPT, CHOSEN, *map(str, range(2, 21)))),
        "links": ("edges", tuple(LINKS)),
        "clip": ("full color at", tuple(CLIPS)),
    },
    follows_cursor=True,
    connect=connect,
    waits=False,
)


def _states_of(
    run: Run, layer: str, epoch: float, text: object, sample: object
) -> tuple[xr.DataArray | None, list[str], str]:
    """The states of the sentence that is typed, or else of the probe sequence that is chosen."""
    if isinstance(text, str) and text.strip():
        return states_of_text(run, layer, epoch, text)
    return states_of_sample(run, layer, epoch, _position(sample))


def _position(sample: object) -> int:
    number = number_of(sample)
    return 0 if number is None else int(number) - 1


def _update(states: xr.DataArray | None, step: float | None) -> xr.DataArray | None:
    """What the units did at one step of a sentence."""
    if states is None or step is None or not 0 <= step < states.sizes["step"]:
        return None
    now = states.isel(step=int(step), drop=True)
    return now - states.isel(step=int(step) - 1, drop=True) if step >= 1 else now


def _sentence_room(scene: Scene, epoch: float, found: CoClusters) -> list[Any]:
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
        html.Div(
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
        ),
        html.Div(_sentences(figures), id="rnnvis-sentences"),
    ]


def _sentences(figures: Sequence[Any]) -> list[Any]:
    return [
        _graph({"type": "rnnvis-sentence", "name": str(i)}, figure, clear_on_unhover=True)
        for i, figure in enumerate(figures)
    ]


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


def _asked(library: Library, run: object, layer: object, epoch: object) -> tuple[Run, str, float] | None:
    """The run, layer and epoch that a browser asks for; None where there is no such run. It may send anything."""
    if not isinstance(run, str) or run not in library.runs():
        return None
    try:
        view, pinned = library.pinned(run, layer if isinstance(layer, str) else None)
    except (HiddenscopeError, OSError, KeyError):
        return None
    if not len(pinned.epochs):
        return None
    at = number_of(epoch)
    return pinned, view.layer, _epoch(pinned, at)


def _other(library: Library, against: object, found: tuple[Run, str, float]) -> tuple[str, Run, str, float] | None:
    """What a sentence is compared with: another epoch of the same run, or the newest of another run."""
    run, layer, _ = found
    if not isinstance(against, str) or not against:
        return None
    if against.startswith("epoch "):
        try:
            wanted = float(against.removeprefix("epoch "))
        except ValueError:
            return None
        return (run.name, run, layer, wanted) if wanted in run.epochs else None
    other = _asked(library, against.removeprefix("run "), layer, None)
    return None if other is None else (against.removeprefix("run "), *other)


def _sentence_of(
    library: Library, name: str, run: Run, layer: str, epoch: float, choice: str
) -> tuple[Run, str, float, CoClusters, str]:
    study = run.results.get(layer, METHOD) if choice == KEPT else None
    found = clusters_at(run, layer, epoch, choice, study)
    return run, layer, epoch, found, f"{name}, epoch {epoch_text(epoch)}"


def _epoch(run: Run, epoch: float | None) -> float:
    """The recorded epoch at or before the cursor; the newest without one."""
    epochs = run.epochs
    before = epochs if epoch is None else epochs[epochs <= epoch]
    return float(before[-1]) if len(before) else float(epochs[0])


def _place(run: Run, layer: str, epoch: float) -> tuple[object, ...]:
    return run.path, run.version, layer, epoch


def _graph(name: Any, figure: Any, **options: Any) -> dcc.Graph:
    return dcc.Graph(
        id=name,
        figure=figure,
        config={"displaylogo": False, "displayModeBar": False, "responsive": True},
        style={"height": f"{figure.layout.height or 330}px"},
        **options,
    )
