"""The panel RNNVis, drawn from real small runs, and what its callbacks answer."""

import numpy as np
import pytest

from hiddenscope.analyses.cocluster import COCLUSTER, study_co_clusters
from hiddenscope.analyses.studies import make
from hiddenscope.dashboard.app import create_app
from hiddenscope.dashboard.library import Library
from hiddenscope.dashboard.panels.panel import Scene
from hiddenscope.dashboard.panels.rnnvis import (
    CHOSEN,
    KEPT,
    PANEL,
    clusters_at,
    draw,
    responses_at,
    sentence_figures,
    states_of_sample,
    states_of_text,
)
from hiddenscope.results import ResultStore
from hiddenscope.run import open_run
from test_worker import record as record_states
from text_examples import NAMES, record_reader


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("logs")
    for name, seed in (("first", 0), ("second", 0), ("third", 1)):
        run, _ = record_reader(where / name, seed=seed)
        with ResultStore.open(run.location, writable=True) as store:
            make(COCLUSTER, run, "rnn", store)
    return where


def scene(folder, name="first", **changes):
    view, run = Library(folder).pinned(name, "rnn")
    values = {
        "view": view,
        "run": run,
        "results": {"cocluster": run.results.get("rnn", "cocluster")},
        "epoch": None,
        "units": [],
        "options": {name: choices[0] for name, (_, choices) in PANEL.controls.items()},
        "dark": False,
    }
    return Scene(**(values | changes))


def graphs(components):
    found = {}
    for component in components:
        if type(component).__name__ == "Graph":
            key = component.id["name"] if isinstance(component.id, dict) else component.id
            found[key] = component.figure
        children = getattr(component, "children", None)
        found |= graphs(children if isinstance(children, list) else [children] if children is not None else [])
    return found


def test_the_panel_draws_the_epoch_under_the_cursor_with_all_its_details(folder):
    drawn = graphs(draw(scene(folder, epoch=1.0, units=["2"])))
    assert set(drawn) == {"rnnvis-map", "rnnvis-distribution", "rnnvis-boxes", "rnnvis-agreement"}
    meta = drawn["rnnvis-map"].layout.meta
    responses = responses_at(scene(folder).run, "rnn", 1.0)
    assert meta["names"] == responses["name"].values.tolist()
    np.testing.assert_allclose(np.array(meta["responses"]) * meta["scale"], responses["response"], atol=meta["scale"])
    units = drawn["rnnvis-map"].data[meta["traces"]["units"]]
    assert list(units.marker.line.width) == [2.0 if unit == "2" else 0.0 for unit in meta["units"]]
    assert "unit 2" in drawn["rnnvis-boxes"].layout.title.text
    assert len(drawn["rnnvis-agreement"].data) == 3


def test_every_choice_of_every_control_can_be_drawn_in_the_dark_too(folder):
    for option, (_, choices) in PANEL.controls.items():
        for choice in (*choices[:4], choices[-1]):
            options = scene(folder).options | {option: choice}
            assert "rnnvis-map" in graphs(draw(scene(folder, options=options, dark=True)))


def test_clusters_are_those_of_the_study_unless_a_number_is_asked_for(folder):
    shown = scene(folder)
    study = shown.results["cocluster"]
    kept = clusters_at(shown.run, "rnn", 1.0, KEPT, study)
    np.testing.assert_array_equal(kept.units, study["unit_cluster"].sel(epoch=1.0))
    assert len(clusters_at(shown.run, "rnn", 1.0, "4", study).labels) <= 4
    assert len(clusters_at(shown.run, "rnn", 1.0, CHOSEN, None).labels) >= 1


def test_a_run_without_a_study_is_drawn_all_the_same(folder):
    assert "rnnvis-map" in graphs(draw(scene(folder, results={"cocluster": None})))


def test_a_run_that_has_only_classes_or_nothing_says_what_it_can(tmp_path):
    record_states(tmp_path / "a", range(-1, 2))
    view, run = Library(tmp_path).pinned("a", "lstm")
    given = scene_of(view, run)
    assert graphs(draw(given))["rnnvis-map"].layout.meta["names"] == ["a", "b", "c"]
    states, _, note = states_of_text(run, "lstm", 1.0, "hello")
    assert states is None
    assert "tokens" in note


def scene_of(view, run):
    results = {"cocluster": study_co_clusters(run, view.layer)}
    return Scene(view, run, results, None, [], {}, False)


def test_a_typed_sentence_is_answered_word_by_word_and_unknown_words_are_told(folder):
    run = scene(folder).run
    states, words, note = states_of_text(run, "rnn", 2.0, "Not a good film, xyzzy")
    assert words == ["not", "a", "good", "film", "xyzzy"], "this vocabulary has a token for unknown words"
    assert states.dims == ("step", "unit")
    assert note == ""
    assert states_of_text(run, "rnn", 2.0, "?!")[0] is None
    recorded, names, _ = states_of_sample(run, "rnn", 2.0, 0)
    assert names == list(NAMES[1:10])
    again, _, _ = states_of_text(run, "rnn", 2.0, " ".join(names))
    np.testing.assert_allclose(again, recorded, atol=1e-5)
    assert "1 to 24" in states_of_sample(run, "rnn", 2.0, 99)[2]


def test_two_equal_networks_are_drawn_alike_and_two_different_ones_on_one_scale(folder):
    runs = [open_run(folder / name) for name in ("first", "second", "third")]
    shown = [
        (run, "rnn", 2.0, clusters_at(run, "rnn", 2.0, KEPT, run.results.get("rnn", "cocluster")), "x") for run in runs
    ]
    first, second, third = sentence_figures(shown, "a very dull film", 0, dark=False)
    assert first.to_json() == second.to_json()
    assert first.to_json() != third.to_json()
    limits = [figure.data[figure.layout.meta["traces"]["units"]].marker.cmax for figure in (first, second, third)]
    assert len(set(limits)) == 1
    drawn = [graphs(draw(scene(folder, name)))["rnnvis-map"].to_json() for name in ("first", "second")]
    assert drawn[0] == drawn[1]


def post(app, output, inputs, state=()):
    def split(name):
        key, prop = name.rsplit(".", 1)
        return {"id": key, "property": prop}

    key = next(key for key in app.callback_map if key == output)
    body = {
        "output": key,
        "outputs": split(key),
        "inputs": [split(name) | {"value": value} for name, value in inputs.items()],
        "state": [split(name) | {"value": value} for name, value in dict(state).items()],
        "changedPropIds": [next(iter(inputs))],
    }
    return app.server.test_client().post("/_dash-update-component", json=body)


@pytest.mark.parametrize("odd", [None, 3, "nowhere", ["x"], {"a": 1}])
def test_whatever_a_browser_sends_is_answered(folder, odd):
    app = create_app(folder)
    for run in ("first", odd):
        inputs = {
            "rnnvis-text.value": odd,
            "rnnvis-sample.value": odd,
            "rnnvis-against.value": odd,
            "rnnvis-frame.data": odd,
        }
        state = {"run.value": run, "layer.value": odd, "panel-cursor.data": odd, "dark.data": odd}
        answer = post(app, "rnnvis-sentences.children", inputs, state)
        assert answer.status_code in (200, 204), answer.text
    for against, count in (("epoch 1", 2), ("run third", 2), ("epoch nan", 1), ("run nothing", 1)):
        inputs = {
            "rnnvis-text.value": "a good film",
            "rnnvis-sample.value": 1,
            "rnnvis-against.value": against,
            "rnnvis-frame.data": {"clusters": KEPT},
        }
        state = {"run.value": "first", "layer.value": "rnn", "panel-cursor.data": None, "dark.data": False}
        answer = post(app, "rnnvis-sentences.children", inputs, state)
        assert len(answer.get_json()["response"]["rnnvis-sentences"]["children"]) == count
