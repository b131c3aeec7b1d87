"""The panel RNNVis, drawn from real small runs, and what its callbacks answer."""

import base64

import numpy as np
import pytest

from hiddenscope.analyses.cocluster import COCLUSTER, study_co_clusters
from hiddenscope.analyses.studies import make
from hiddenscope.dashboard.answering import CHOSEN, KEPT, clusters_at, responses_at
from hiddenscope.dashboard.app import create_app
from hiddenscope.dashboard.focus import Focus
from hiddenscope.dashboard.library import Library
from hiddenscope.dashboard.panels.panel import Scene
from hiddenscope.dashboard.panels.rnnvis import PANEL, draw
from hiddenscope.dashboard.panels.rnnvis_sentence import sentence_figures, states_of_sample, states_of_text
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
    assert set(drawn) == {"rnnvis-map", "rnnvis-distribution", "rnnvis-boxes", "rnnvis-agreement", "0"}
    assert drawn["0"].layout.meta["words"] == list(NAMES[1:10]), "until one is typed, a sentence of the probe"
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
        }
        state = {
            "run.value": run,
            "layer.value": odd,
            "panel-cursor.data": odd,
            "dark.data": odd,
            "units.data": odd,
        }
        for frame in (odd, {"clusters": odd}):
            answer = post(app, "rnnvis-sentences.children", inputs | {"rnnvis-frame.data": frame}, state)
            assert answer.status_code in (200, 204), answer.text
    for against, count in (("epoch 1", 2), ("run third", 2), ("epoch nan", 1), ("run nothing", 1)):
        inputs = {
            "rnnvis-text.value": "a good film",
            "rnnvis-sample.value": 1,
            "rnnvis-against.value": against,
            "rnnvis-frame.data": {"clusters": KEPT},
        }
        state = {
            "run.value": "first",
            "layer.value": "rnn",
            "panel-cursor.data": None,
            "dark.data": False,
            "units.data": ["2"],
        }
        answer = post(app, "rnnvis-sentences.children", inputs, state)
        assert len(answer.get_json()["response"]["rnnvis-sentences"]["children"]) == count


def test_a_record_within_an_epoch_can_be_seen_beside(tmp_path):
    record_reader(tmp_path / "a", epochs=(1 / 3, 2 / 3))
    app = create_app(tmp_path)
    page = {"run.value": "a", "layer.value": "rnn"}
    offered = post(app, "rnnvis-against.data", {"rnnvis-frame.data": {}}, page).get_json()["response"]
    nothing, newest, first = offered["rnnvis-against"]["data"]
    assert [choice["label"] for choice in (nothing, newest, first)] == ["nothing", "epoch 0.666667", "epoch 0.333333"]
    inputs = {
        "rnnvis-text.value": "",
        "rnnvis-sample.value": 1,
        "rnnvis-against.value": first["value"],
        "rnnvis-frame.data": {"clusters": "8"},
    }
    state = {**page, "panel-cursor.data": None, "dark.data": False, "units.data": []}
    answer = post(app, "rnnvis-sentences.children", inputs, state).get_json()["response"]
    assert len(answer["rnnvis-sentences"]["children"]) == 2


def compared(app, focus, step=None, text="", sample=1, units=()):
    """The distribution that the page shows, by trace name."""
    inputs = {"focus.data": focus, "rnnvis-step.data": step, "rnnvis-frame.data": {}}
    state = {
        "run.value": "first",
        "layer.value": "rnn",
        "panel-cursor.data": None,
        "units.data": list(units),
        "dark.data": False,
        "rnnvis-text.value": text,
        "rnnvis-sample.value": sample,
    }
    output = next(key for key in app.callback_map if "rnnvis-distribution" in key)
    name, prop = output.rsplit(".", 1)

    def listed(values):
        return [dict(zip(("id", "property"), key.rsplit(".", 1), strict=True), value=v) for key, v in values.items()]

    body = {
        "output": output,
        "outputs": {"id": {"type": "panel-units", "name": "rnnvis-distribution"}, "property": prop},
        "inputs": listed(inputs),
        "state": listed(state),
        "changedPropIds": ["focus.data"],
    }
    answer = app.server.test_client().post("/_dash-update-component", json=body)
    assert answer.status_code == 200, (answer.text, name)
    return next(iter(answer.get_json()["response"].values()))["figure"]


def test_the_word_picked_last_is_compared_first_and_beside_what_it_did_in_the_sentence(folder):
    app = create_app(folder)
    text = "a very dull film"
    focus = {"by": "word", "run": "first", "words": ["good", "dull"]}
    figure = compared(app, focus, {"step": 2, "word": "dull"}, text, units=["3"])
    lines = [trace for trace in figure["data"] if trace.get("showlegend") is not False]
    assert [trace["name"].split(" ")[0] for trace in lines] == ["dull", "good", "in"]
    states, _, _ = states_of_text(scene(folder).run, "rnn", 2.0, text)
    update = (states[2] - states[1]).values
    shown = np.frombuffer(base64.b64decode(lines[-1]["y"]["bdata"]), lines[-1]["y"]["dtype"])
    order = [int(unit) for unit in lines[0]["customdata"]]
    np.testing.assert_allclose(shown, update[order], atol=1e-6)
    marked = next(trace for trace in figure["data"] if trace.get("name") == "picked")
    assert marked["text"] == ["3"]
    for step in (None, 7, {"step": 99, "word": "dull"}, {"step": 2, "word": "good"}, {"step": "x", "word": ["y"]}):
        names = [trace.get("name") for trace in compared(app, focus, step, text)["data"]]
        assert "in the sentence" not in names


def test_a_picked_sequence_is_the_one_that_is_read_and_a_picked_word_finds_one(folder):
    def chosen(focus):
        parts = draw(scene(folder, focus=focus))
        frame = next(part for part in parts if getattr(part, "id", None) == "rnnvis-frame")
        return frame.data["sample"]

    assert chosen(Focus("sequence", 5)) == 5
    assert chosen(Focus("sequence", 99)) == 23
    sample = chosen(Focus("word", words=("bad",)))
    assert "bad" in states_of_sample(scene(folder).run, "rnn", 2.0, sample)[1]


def test_a_sentence_tells_which_sequence_and_steps_it_is_and_outlines_the_picked_units(folder):
    run = open_run(folder / "first")
    shown = [(run, "rnn", 2.0, clusters_at(run, "rnn", 2.0, KEPT, None), "x")]
    (recorded,) = sentence_figures(shown, "", 3, picked=["2"], dark=False)
    (typed,) = sentence_figures(shown, "a dull film", 3, dark=False)
    assert recorded.layout.meta["sample"] == 3
    assert typed.layout.meta["sample"] is None
    assert recorded.layout.meta["steps"] == list(range(9))
    width = recorded.data[recorded.layout.meta["traces"]["units"]].marker.line.width
    assert [bool(value) for value in width] == [unit == 2 for unit in range(7)]
