"""RNNVis while it is looked at: words that are clicked, sentences that are typed, what happens under the pointer."""

from __future__ import annotations

from typing import Any

import xarray as xr
from dash import Dash, Input, Output, State, no_update

from hiddenscope.analyses.cocluster import COCLUSTER, CoClusters
from hiddenscope.dashboard.answering import CHOICES, KEPT, clusters_at, codes_of, responses_at
from hiddenscope.dashboard.clientside import browser_of
from hiddenscope.dashboard.figures.rnnvis_detail import word_distributions
from hiddenscope.dashboard.figures.template import epoch_text
from hiddenscope.dashboard.focus import focus_of
from hiddenscope.dashboard.library import Library
from hiddenscope.dashboard.panels.asked import run_asked
from hiddenscope.dashboard.panels.panel import epoch_at, number_of
from hiddenscope.dashboard.panels.rnnvis_sentence import NOTHING, sentence_figures, sentences, states_of_sentence
from hiddenscope.run import Run

MAP = {"type": "panel-units", "name": "rnnvis-map"}
DISTRIBUTION = {"type": "panel-units", "name": "rnnvis-distribution"}
_OFFERED = 200  # epochs, and runs, that a sentence can be seen beside


def connect(app: Dash, library: Library) -> None:
    """Register all that happens while the panel is open."""
    _compare_words(app, library)
    _read_sentences(app, library)
    _offer_others(app, library)
    _connect_browser(app)


def _compare_words(app: Dash, library: Library) -> None:
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
            states, _, _ = states_of_sentence(*found, _typed(text), _position(sample))
            actual = _update(states, number_of(step.get("step")))
        picked = [str(unit) for unit in units] if isinstance(units, list) else []
        return word_distributions(responses, words, actual=actual, picked=picked, dark=bool(dark))


def _read_sentences(app: Dash, library: Library) -> None:
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
        wanted = frame.get("clusters") if isinstance(frame, dict) else None
        choice = wanted if isinstance(wanted, str) and wanted in CHOICES else KEPT
        shown = [_sentence_of(library, str(run), *found, choice)]
        other = _other(library, against, found)
        if other is not None:
            shown.append(_sentence_of(library, *other, choice))
        picked = [str(unit) for unit in units] if isinstance(units, list) else []
        figures = sentence_figures(shown, _typed(text), _position(sample), picked=picked, dark=bool(dark))
        return sentences(figures)


def _offer_others(app: Dash, library: Library) -> None:
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
        newest = found[0].epochs.tolist()[: -_OFFERED - 1 : -1]
        # The label of an epoch between others is rounded, its value is not.
        epochs = [{"value": f"epoch {epoch}", "label": f"epoch {epoch:g}"} for epoch in newest]
        runs = [f"run {name}" for name in list(library.runs())[:_OFFERED] if name != run]
        return [NOTHING, *epochs, *({"value": name, "label": name} for name in runs)]


def _connect_browser(app: Dash) -> None:
    browser = browser_of(app, "rnnvis")
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


def _typed(text: object) -> str:
    return text if isinstance(text, str) else ""


def _position(sample: object) -> int:
    number = number_of(sample)
    return 0 if number is None else int(number) - 1


def _update(states: xr.DataArray | None, step: float | None) -> xr.DataArray | None:
    """What the units did at one step of a sentence."""
    if states is None or step is None or not 0 <= step < states.sizes["step"]:
        return None
    now = states.isel(step=int(step), drop=True)
    return now - states.isel(step=int(step) - 1, drop=True) if step >= 1 else now


def _asked(library: Library, run: object, layer: object, epoch: object) -> tuple[Run, str, float] | None:
    """The run, layer and epoch that a browser asks for; None where there is no such run."""
    found = run_asked(library, run, layer)
    if found is None or not len(found[1].epochs):
        return None
    view, pinned = found
    return pinned, view.layer, epoch_at(pinned.epochs, number_of(epoch))


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
    study = run.results.get(layer, COCLUSTER.method) if choice == KEPT else None
    found = clusters_at(run, layer, epoch, choice, study)
    return run, layer, epoch, found, f"{name}, epoch {epoch_text(epoch)}"
