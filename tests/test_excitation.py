"""What excites the units of a recorded run, as a study that grows, and as pictures of one unit."""

import html

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from hiddenscope.analyses import excitation as study
from hiddenscope.analyses.excitation import ACTIVATIONS, activation_study, excitation, pattern_epochs
from hiddenscope.analyses.relevance import relevance
from hiddenscope.analyses.run_relevance import run_relevance
from hiddenscope.analyses.studies import make
from hiddenscope.callbacks.recording import record
from hiddenscope.dashboard.figures import activations as figures
from hiddenscope.dashboard.figures.search import found_inputs, query
from hiddenscope.dashboard.focus import Focus, place_of_word, words_of
from hiddenscope.dashboard.library import Library
from hiddenscope.dashboard.panels import activations as panel
from hiddenscope.dashboard.panels import search as search_panel
from hiddenscope.dashboard.panels.activation_look import WINDOWS, window_width
from hiddenscope.dashboard.panels.panel import Scene
from hiddenscope.results import ResultStore
from hiddenscope.run import open_run
from text_examples import record_reader

SAMPLES, STEPS, FEATURES, UNITS = 12, 40, 2, 5
TRIANGLE = 1 - np.abs(np.linspace(-1, 1, 9))


class Net(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.gru = nn.GRU(FEATURES, UNITS, batch_first=True, **options)
        self.head = nn.Linear(UNITS, 2)

    def forward(self, x):
        return self.head(self.gru(x)[0].mean(dim=1))


def inputs():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.2, size=(SAMPLES, STEPS, FEATURES))
    for row, start in zip(values, rng.integers(0, 30, SAMPLES), strict=True):
        row[start : start + 9, 0] += 2 * TRIANGLE
    return torch.from_numpy(values.astype(np.float32))


def recorded(folder, epochs=3, **options):
    torch.manual_seed(0)
    model, x = Net(**options), inputs()
    labels = torch.arange(SAMPLES) % 2
    with record(model, (x, labels), folder, strict=True) as recording:
        recording.snapshot(-1)
        for epoch in range(epochs - 1):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += 0.1 * torch.randn_like(parameter)
            recording.snapshot(epoch)
    return model


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    recorded(folder)
    return open_run(folder)


def test_the_study_holds_what_each_function_says_of_the_last_epoch(run):
    found = activation_study(run, "gru")
    assert found["threshold"].dims == ("epoch", "unit")
    last = run.trace("gru", epochs=run.epochs[-1]).isel(epoch=0)
    for place, unit in enumerate(last["unit"].values):
        one = excitation(last, run.probe, unit=unit)
        assert float(found["threshold"][-1, place]) == pytest.approx(one.threshold, rel=1e-6)
        assert int(found["period_count"][-1, place]) == len(one.periods)
        assert float(found["period_length"][-1, place]) == pytest.approx(one.periods["length"].mean(), rel=1e-6)
        if len(one.patterns.counts):
            assert int(found["cluster_count"][-1, place]) == len(one.patterns.counts)
            row = found["pattern_unit"].values.tolist().index(unit)
            kept = found["pattern_mean"].values[row, : len(one.patterns.counts)]
            np.testing.assert_allclose(kept, one.patterns.means, rtol=1e-5, atol=1e-6)
    assert np.isnan(found["drift"].values[0]).all(), "the first epoch has none before it"
    assert (found["drift"].values[1:][found["cluster_count"].values[1:] > 0] >= 0).all()
    assert set(found.attrs["unit_columns"]) <= set(found.data_vars)


def test_a_study_that_grew_with_the_training_equals_one_made_at_once(tmp_path):
    torch.manual_seed(1)
    model = Net()
    with record(model, inputs(), tmp_path, strict=True) as recording:
        for epoch in range(-1, 3):
            recording.snapshot(epoch)
            with torch.no_grad():
                model.gru.weight_hh_l0 += 0.2 * torch.randn_like(model.gru.weight_hh_l0)
    run = open_run(tmp_path)
    at_once = activation_study(run, "gru")
    part = at_once.isel(epoch=slice(0, 2)).assign_attrs(made_from=run.fingerprint("gru", count=2))
    with ResultStore.open(run.location, writable=True) as store:
        store.put("gru", ACTIVATIONS.method, ACTIVATIONS.parameters, part)
        grown = make(ACTIVATIONS, run, "gru", store)
    for name in at_once.data_vars:
        np.testing.assert_array_equal(grown[name], at_once[name])


def test_a_result_of_superseded_epochs_is_not_trusted(tmp_path):
    recorded(tmp_path)
    run = open_run(tmp_path)
    at_once = activation_study(run, "gru")
    wrong = (at_once * 0).isel(epoch=slice(0, 2)).assign_attrs(made_from="another run")
    with ResultStore.open(run.location, writable=True) as store:
        store.put("gru", ACTIVATIONS.method, ACTIVATIONS.parameters, wrong)
    np.testing.assert_array_equal(activation_study(run, "gru")["threshold"], at_once["threshold"])


def test_epochs_with_patterns_keep_them_as_the_run_grows():
    for count in range(1, 200):
        chosen = pattern_epochs(count)
        assert chosen[-1] == count - 1
        assert chosen[0] == 0
        assert len(chosen) <= study.MOST_EPOCHS + 1
        assert set(pattern_epochs(count + 1)[:-1]) <= {*chosen, count}


def test_without_inputs_there_are_periods_and_a_reason_for_no_patterns():
    states = xr.DataArray(np.random.default_rng(0).normal(size=(30, 2, 4)), dims=("step", "unit", "sample"))
    found = excitation(states.assign_coords(unit=[0, 1]), None, unit=1)
    assert len(found.periods)
    assert found.patterns is None
    assert "not recorded" in found.reason


def test_a_dead_unit_is_an_empty_excitation():
    states = xr.DataArray(np.zeros((30, 1, 4)), dims=("step", "unit", "sample"), coords={"unit": [0]})
    found = excitation(states, np.zeros((4, 30, 2)), unit=0)
    assert found.periods.empty
    assert found.patterns.skipped


def test_recorded_relevance_is_that_of_the_model_in_memory(tmp_path):
    model = recorded(tmp_path, epochs=2)
    run = open_run(tmp_path)
    assert torch.equal(torch.from_numpy(run.weights("gru")["weight_hh_l0"]), model.gru.weight_hh_l0)
    found = run_relevance(run, "gru", unit=3, sample=4, step=20, conserve=True)
    expected = relevance(model.gru, run.probe[4], unit=3, step=20, conserve=True)
    np.testing.assert_allclose(found["relevance"], expected["relevance"], rtol=1e-6, atol=1e-9)
    assert found.attrs["epoch"] == run.epochs[-1]
    assert found["sample"].values.tolist() == [4]
    everywhere = run_relevance(run, "gru", unit="3", epoch=-1.0)
    assert everywhere.sizes["sample"] == SAMPLES
    recorded_last = run.trace("gru", epochs=-1.0).sel(unit=3).isel(epoch=0, step=-1).values
    np.testing.assert_allclose(everywhere["output"], recorded_last, atol=1e-5)


@pytest.mark.parametrize("options", [{"num_layers": 2}, {"bidirectional": True}])
def test_every_level_and_direction_of_a_recorded_run_is_explained(tmp_path, options):
    class Deep(Net):
        def forward(self, x):
            return self.gru(x)[0]

    torch.manual_seed(0)
    with record(Deep(**options), inputs(), tmp_path, strict=True) as recording:
        recording.snapshot(0)
    run = open_run(tmp_path)
    for layer in run.layers:
        for unit in (run.description.layer(layer).units[0], run.description.layer(layer).units[-1]):
            found = run_relevance(run, layer, unit=unit, step=20, conserve=True)
            np.testing.assert_allclose(found["unexplained"], 0, atol=1e-6)


def test_a_layer_that_does_not_read_the_probe_is_not_explained_with_it(tmp_path):
    class Scaled(Net):
        def forward(self, x):
            return super().forward(5 * x)

    torch.manual_seed(0)
    with record(Scaled(), inputs(), tmp_path, strict=True) as recording:
        recording.snapshot(0)
    run = open_run(tmp_path)
    with pytest.raises(ValueError, match="it reads something else"):
        run_relevance(run, "gru", unit=0)
    for options, words in (
        ({"unit": 99}, "got unit 99"),
        ({"unit": 0, "sample": 99}, "got sample 99"),
        ({"unit": 0, "epoch": 7.0}, "got epoch 7"),
    ):
        with pytest.raises(ValueError, match=words):
            run_relevance(run, "gru", **options)


def scene(run, folder_results=None, **changes):
    library = Library(run.location.folder.parent)
    name = next(iter(library.runs()))
    view, pinned = library.pinned(name, None)
    told = {"epoch": None, "units": [], "options": {}, "dark": False} | changes
    return Scene(view=view, run=pinned, results={"activations": folder_results}, **told)


def graphs(parts):
    """Every graph in a tree of components, by its name."""
    found = {}
    for part in parts if isinstance(parts, list) else [parts]:
        if type(part).__name__ == "Graph":
            found[part.id if isinstance(part.id, str) else part.id["name"] + ":" + part.id["type"]] = part.figure
        children = getattr(part, "children", None)
        if isinstance(children, list) or type(children).__module__.startswith("dash"):
            found |= graphs(children)
    return found


@pytest.mark.parametrize("sign", list(panel.SIGNS))
def test_the_panel_draws_the_unit_its_patterns_and_its_relevance(run, sign):
    found = activation_study(run, "gru")
    parts = panel.draw(scene(run, found, units=["2"], options={"sign": sign}, dark=sign == "low"))
    drawn = graphs(parts)
    assert len(drawn) == 5
    shown = drawn["activations:activations-sequence"]
    curve = shown.data[0]
    states = run.trace("gru", epochs=run.epochs[-1]).isel(epoch=0).sel(unit=2)
    assert any(np.allclose(curve.y, states.isel(sample=k)) for k in range(SAMPLES))
    maps = [trace for trace in shown.data if trace.type == "heatmap"]
    assert maps[0].zmin == -maps[0].zmax
    assert "unexplained" in " ".join(note.text for note in shown.layout.annotations)
    assert set(np.unique(drawn["activations-map:panel-units"].data[0].customdata)) == set("01234")


def test_the_panels_have_an_answer_for_dead_layers_other_epochs_and_odd_requests(run, tmp_path):
    drawn = graphs(panel.draw(scene(run, None, epoch=-1.0, options={"clusters": "Gaussian mixture"})))
    assert "activations-gallery" in drawn
    torch.manual_seed(0)
    model = Net()
    with torch.no_grad():
        for parameter in model.gru.parameters():
            parameter.zero_()
    with record(model, inputs(), tmp_path, strict=True) as recording:
        recording.snapshot(0)
    dead = open_run(tmp_path)
    for draw in (panel.draw, search_panel.draw):
        (figure,) = graphs(draw(scene(dead))).values()
        assert "no unit of this layer varies" in figure.layout.annotations[0].text
    for odd in (None, {}, {"rowId": "x"}, {"rowId": 10**9}):
        assert panel._wanted("activations-periods", "0", odd, None, []) is None
    assert panel._wanted("activations-sequence", "1", None, {"points": [{"x": 7.2}]}, None) == (1, 7)
    assert panel._wanted("activations-sequence", "1", None, {"points": [{"x": "inf"}]}, None) is None


def test_windows_follow_the_gradient_or_the_settling_time_and_fall_back(run, tmp_path):
    states = run.trace("gru", epochs=run.epochs[-1]).isel(epoch=0)

    def width(choice):
        return window_width(run, "gru", float(run.epochs[-1]), 2, states, sign="positive", choice=choice)

    fixed, settling, gradient, short = WINDOWS
    assert width(short) == 8
    assert width(fixed) == width(settling) == 32
    assert 1 <= width(gradient) < 32
    with ResultStore.open(run.location, writable=True) as store:
        times = xr.DataArray([[2.0, 3.0, 6.5, 1.0, 9.0]], dims=("epoch", "unit"), coords={"epoch": [1.0]})
        responses = xr.Dataset({"settling_time": times}).assign_coords(unit=np.arange(UNITS))
        store.put("gru", "responses", {}, responses)
    assert width(settling) == 7


def test_the_search_panel_shows_the_inputs_of_the_best_matches(run):
    drawn = graphs(search_panel.draw(scene(run, units=["1"], options={"threshold": "each unit's 75 %"})))
    place = search_panel._place(run, "gru", None, {"threshold": "each unit's 75 %"}, dark=False)
    sample, start, end = search_panel.first_period(place, ["1"])
    matches = search_panel.searched(place, sample, start, end).table
    shown = drawn["search-inputs"]
    best = matches.iloc[0]
    second = next(trace for trace in shown.data if trace.xaxis == "x2")
    low, high = max(0, int(best["start"]) - 12), min(STEPS - 1, int(best["end"]) + 12)
    np.testing.assert_array_equal(second.x, np.arange(low, high + 1))
    np.testing.assert_allclose(second.y, run.probe[int(best["sample"]), low : high + 1, 0])
    for period in ((0, 0, 0), (3, 5, 39)):
        assert search_panel.search_view(place, *period, None)


def test_figures_have_an_answer_for_nothing():
    nothing = np.full((4, 2), np.nan)
    states = xr.DataArray(nothing, dims=("step", "unit"), coords={"step": np.arange(4), "unit": [0, 1]})
    empty = excitation(
        xr.DataArray(np.zeros((4, 1, 2)), dims=("step", "unit", "sample"), coords={"unit": [0]}), None, unit=0
    ).periods
    for dark in (False, True):
        for figure in (
            figures.activation_map(states, empty, dark=dark),
            figures.sequence(None, states[:, 0], empty, threshold=np.nan, dark=dark),
            figures.gallery(None, dark=dark),
            figures.course(None, dark=dark),
            figures.perturbation(None, dark=dark),
            query(states, np.zeros((4, 2), dtype=bool), start=0, end=1, pattern=[], dark=dark),
            found_inputs(None, (0, 0, 1), empty, dark=dark),
        ):
            assert figure.layout.annotations[0].text


def test_what_is_picked_elsewhere_is_what_the_panels_open_with(run):
    found = activation_study(run, "gru")
    period = excitation(run.trace("gru", epochs=run.epochs[-1]).isel(epoch=0), run.probe, unit=2).periods.iloc[3]
    focus = Focus("sequence", int(period["sample"]), int(period["start"]), int(period["end"]), ("2",))
    parts = panel.draw(scene(run, found, units=["2"], focus=focus))
    shown = graphs(parts)["activations:activations-sequence"]
    states = run.trace("gru", epochs=run.epochs[-1]).isel(epoch=0, sample=int(period["sample"])).sel(unit=2)
    np.testing.assert_allclose(shown.data[0].y, states)
    outlined = [shape for shape in shown.layout.shapes if shape.line.width == 1.4]
    assert {(shape.x0, shape.x1) for shape in outlined} == {(period["start"] - 0.5, period["end"] + 0.5)}
    explained = [shape.x0 for shape in shown.layout.shapes if shape.type == "line" and shape.x0 == shape.x1]
    assert set(explained) == {period["peak"]}
    query_figure = graphs(search_panel.draw(scene(run, focus=focus)))["search-query:panel-units"]
    assert query_figure.layout.shapes[0].x0 == period["start"] - 0.5
    assert query_figure.layout.shapes[0].x1 == period["end"] + 0.5
    whole = panel.draw(scene(run, found, focus=Focus("sequence", 7)))
    select = next(
        part
        for part in walk(whole)
        if getattr(part, "id", None) == {"type": "activations-sample", "name": "activations"}
    )
    assert select.value == "7"


def walk(parts):
    for part in parts if isinstance(parts, list) else [parts]:
        yield part
        children = getattr(part, "children", None)
        if children is not None:
            yield from walk(children)


def test_picked_words_are_marked_where_they_stand(tmp_path):
    run, _ = record_reader(tmp_path)
    focus = Focus("word", words=("dull",))
    drawn = graphs(panel.draw(scene(run, None, focus=focus)))
    shown, picture = drawn["activations:activations-sequence"], drawn["activations-map:panel-units"]
    place, _ = place_of_word(run, "rnn", ("dull",))
    here = words_of(run, "rnn", place)
    steps = [step for step, word in enumerate(here) if word == "dull"]
    for figure in (shown, picture):
        bands = {shape.x0 + 0.5 for shape in figure.layout.shapes if shape.opacity == 0.12}
        assert bands == set(steps)
    assert [html.unescape(text) for text in picture.layout.xaxis.ticktext] == [
        f"<b>{word}</b>" if word == "dull" else word for word in here
    ]
    query_figure = graphs(search_panel.draw(scene(run, None, focus=focus)))["search-query:panel-units"]
    assert query_figure.layout.shapes[0].x0 == steps[0] - 0.5
