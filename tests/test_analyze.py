"""All analyses of a run, made by one call or one command, stored in the run, and drawn by their panels."""

import numpy as np
import pytest
import torch
import xarray as xr
from dash import dcc
from torch import nn

from hiddenscope.analyses.analyze import analyze
from hiddenscope.analyses.models import ModelAccess
from hiddenscope.analyses.phases import activation_curves
from hiddenscope.cli import main
from hiddenscope.dashboard.figures import analyses as figures
from hiddenscope.dashboard.library import Library
from hiddenscope.dashboard.panels import checks as checks_panel
from hiddenscope.dashboard.panels import clusters as clusters_panel
from hiddenscope.dashboard.panels.panel import Scene
from hiddenscope.description import LayerDescription, ModuleDescription, RunDescription, Snapshot
from hiddenscope.results import ResultStore
from hiddenscope.run import open_run
from hiddenscope.store import SnapshotWriter

EPOCHS, STEPS, UNITS, SAMPLES = 14, 6, 7, 24
METHODS = ["clusters", "flow", "phases", "association", "linear_probes", "label_information", "entropies_by_method"]
MODEL_METHODS = ["silencing", "removal", "ablation"]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, UNITS, batch_first=True)
        self.head = nn.Linear(UNITS, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def network():
    torch.manual_seed(0)
    return Net()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A run of a network that is never trained but grows: its states with weights scaled up from epoch to epoch."""
    folder = tmp_path_factory.mktemp("logs") / "version_0"
    probe = torch.randn(SAMPLES, STEPS, 3, generator=torch.Generator().manual_seed(0))
    labels = np.arange(SAMPLES) % 3
    probe[:, :, 0] += torch.from_numpy(labels)[:, None]
    about = {"module": "lstm", "module_kind": "LSTM", "level": 0, "input_size": 3, "hidden_size": UNITS}
    shapes = {name: tuple(weight.shape) for name, weight in network().lstm.named_parameters()}
    description = RunDescription(
        layers=(LayerDescription("lstm", "LSTM", np.arange(UNITS), np.arange(STEPS), about),),
        samples=np.arange(SAMPLES),
        labels=labels,
        label_names=("a", "b", "c"),
        probe_fingerprint="probe",
        model="Net",
        probe=probe.numpy(),
        modules=(ModuleDescription("lstm", "LSTM", shapes),),
    )
    with SnapshotWriter.open(folder / "hiddenscope", description) as writer:
        for epoch in range(-1, EPOCHS - 1):
            model = network()
            with torch.no_grad():
                for weight in model.lstm.parameters():
                    weight *= 0.2 + 0.15 * (epoch + 1)
                states = model.lstm(probe)[0].permute(1, 2, 0).numpy()
            weights = {name: weight.detach().numpy() for name, weight in model.lstm.named_parameters()}
            metrics = {"loss": 1.0 / (epoch + 3)}
            writer.append(Snapshot(float(epoch), {"lstm": states}, metrics, {"lstm": weights}))
        writer.finish("finished")
    return folder


@pytest.fixture(scope="module")
def analyzed(recorded):
    return recorded, analyze(recorded, model=network(), methods=[*METHODS, *MODEL_METHODS], progress=False)


def test_every_analysis_is_made_and_stored(analyzed):
    recorded, outcomes = analyzed
    assert {one.method: one.status for one in outcomes} == dict.fromkeys([*METHODS, *MODEL_METHODS], "made")
    results = open_run(recorded).results
    sizes = {method: dict(results.get("lstm", method).sizes) for method in METHODS}
    assert sizes["linear_probes"] == {"epoch": EPOCHS, "step": STEPS}
    assert sizes["label_information"] == {"epoch": EPOCHS, "step": STEPS}
    assert sizes["flow"] == {"epoch": EPOCHS, "step": STEPS, "unit": UNITS}
    assert sizes["association"] == {"entropy": 2, "metric": 1, "of": 2}
    assert sizes["clusters"]["unit"] == UNITS
    assert sizes["entropies_by_method"] == {"picture": 3, "epoch": EPOCHS, "entropy": 2, "metric": 1, "of": 2}
    assert sizes["phases"]["curve"] == 3
    assert set(results.get("lstm", "clusters").attrs["unit_columns"]) == {"unit_cluster"}
    silenced = results.get("lstm", "silencing")
    assert silenced.part.values.tolist() == ["probe"]
    assert int(silenced.confusion_whole.sum()) == SAMPLES
    assert results.get("lstm", "ablation").loss_change.shape == (1, 2, STEPS)
    removed = results.get("lstm", "removal")
    np.testing.assert_allclose(  # both ways of taking a unit out cost the same, in nats
        removed["importance"], silenced["unit_loss"].sel(part="probe", mode="recurrence"), atol=1e-5
    )
    whole = np.trace(silenced.confusion_whole.values[0]) / SAMPLES
    np.testing.assert_allclose(removed["score"].isel(removed=0), whole)
    assert removed.attrs["quantity"] == "accuracy (probe)"
    assert removed.sizes["removed"] == UNITS + 1


def test_what_is_current_is_left_alone_and_another_model_is_not(analyzed):
    recorded, _ = analyzed
    again = analyze(recorded, model=network(), methods=["flow", *MODEL_METHODS], progress=False)
    assert [one.status for one in again] == ["current"] * 4
    other = network()
    other.head.weight.data += 1
    assert [o.status for o in analyze(recorded, model=other, methods=MODEL_METHODS, progress=False)] == ["made"] * 3
    forced = analyze(recorded, methods=["flow"], progress=False, again=True)
    assert [one.status for one in forced] == ["made"]


def test_analyses_that_need_a_model_are_not_made_without_one_and_names_are_checked(analyzed):
    recorded, _ = analyzed
    with pytest.raises(ValueError, match="got method 'silencing'; there are"):
        analyze(recorded, methods=["silencing"], progress=False)
    with pytest.raises(ValueError, match="got layer 'gru'; this run has 'lstm'"):
        analyze(recorded, layers=["gru"], progress=False)


def test_a_failure_is_warned_of_and_stops_no_other(analyzed):
    recorded, _ = analyzed
    broken = ModelAccess(network(), call=lambda model, x: model(x)[:, :2])  # three labels, two logits
    with pytest.warns(UserWarning, match=r"'silencing' of layer 'lstm' was not made: ValueError: labels lie in 0..1"):
        outcomes = analyze(recorded, model=broken, methods=["silencing", "flow"], progress=False, again=True)
    assert {one.method: one.status for one in outcomes} == {"silencing": "failed", "flow": "made"}


def test_units_are_removed_for_the_last_part_of_the_data_in_arrays_or_in_batches(analyzed):
    recorded, _ = analyzed
    run = open_run(recorded)
    inputs, labels = run.probe, run.labels.values
    for part in ((inputs, labels), [(inputs, labels), (inputs[:2], labels[:2])]):
        data = {"training": (inputs[:2], labels[:2]), "validation": part}
        analyze(recorded, model=network(), data=data, methods=["removal"], progress=False, again=True)
        found = open_run(recorded).results.get("lstm", "removal")
        assert found.attrs["quantity"] == "accuracy (validation)"
        with torch.no_grad():
            answers = network()(torch.from_numpy(inputs)).argmax(dim=1).numpy()
        np.testing.assert_allclose(found["score"].isel(removed=0), np.mean(answers == labels))


def test_the_command_says_what_it_made(analyzed, capsys):
    recorded, _ = analyzed
    assert main(["analyze", str(recorded), "--method", "flow", "--method", "clusters"]) == 0
    told = capsys.readouterr().out
    assert "lstm  flow: current" in told
    assert main(["analyze", str(recorded), "--method", "flow", "--again"]) == 0
    assert "lstm  flow: made in" in capsys.readouterr().out
    assert main(["analyze", str(recorded), "--model", "nowhere"]) == 2
    assert main(["analyze", str(recorded), "--checkpoint", "x.ckpt"]) == 2
    assert "needs --model" in capsys.readouterr().err


def test_results_are_refused_while_another_writes_them(analyzed):
    recorded, _ = analyzed
    with ResultStore.open(open_run(recorded).location, writable=True):
        assert main(["analyze", str(recorded), "--method", "flow"]) == 2


def scene(folder, panel, results, **changes):
    library = Library(folder)
    (name,) = library.runs()
    options = {control: choices[1][0] for control, choices in (panel.controls or {}).items()}
    given = {"epoch": None, "units": ["3"], "options": options, "dark": False} | changes
    run = open_run(folder)
    return Scene(view=library.view(name), run=run, results=results, **given)


def graphs(parts):
    found = []
    for part in parts if isinstance(parts, list) else [parts]:
        found += [part] if isinstance(part, dcc.Graph) else graphs(getattr(part, "children", None) or [])
    return [one for one in found if isinstance(one, dcc.Graph)]


@pytest.mark.parametrize("panel", [clusters_panel.PANEL, checks_panel.PANEL], ids=lambda panel: panel.name)
@pytest.mark.parametrize("dark", [False, True])
def test_panels_draw_what_is_stored_and_say_what_is_missing(analyzed, panel, dark):
    recorded, _ = analyzed
    stored = open_run(recorded).results
    full = {method: stored.get("lstm", method) for method in panel.methods}
    drawn = graphs(panel.draw(scene(recorded, panel, full, dark=dark)))
    assert len(drawn) == (4 if panel.name == "checks" else 3)
    assert all(graph.figure.data for graph in drawn)
    empty = graphs(panel.draw(scene(recorded, panel, dict.fromkeys(panel.methods), dark=dark)))
    texts = [note.text for graph in empty for note in graph.figure.layout.annotations]
    assert any("model" in text for text in texts)


def test_matrices_show_shares_of_each_true_class_and_the_accuracy(analyzed):
    recorded, _ = analyzed
    stored = open_run(recorded).results.get("lstm", "silencing")
    figure = figures.confusion_matrices(stored, mode="readout", class_names=("a", "b", "c"))
    clusters = stored.sizes["cluster"]
    assert len(figure.data) == 1 + 2 * clusters
    whole = stored.confusion_whole.isel(part=0).values
    np.testing.assert_allclose(figure.data[0].z, whole / whole.sum(axis=1, keepdims=True))
    assert list(figure.data[0].x) == ["a", "b", "c"]
    accuracy = np.trace(whole) / whole.sum()
    assert figure.layout.annotations[0].text == f"whole network · {accuracy:.0%}"


def test_units_are_ordered_by_what_the_network_loses_without_them(analyzed):
    recorded, _ = analyzed
    stored = open_run(recorded).results.get("lstm", "silencing")
    figure = figures.unit_importance(stored)
    losses = np.asarray(figure.data[0].y)
    assert (np.diff(losses) <= 0).all()
    assert figure.data[0].customdata[0] == str(int(stored.importance.values.argmax()))


def test_shades_stand_where_the_phases_are():
    epochs = np.arange(30.0)
    phases = xr.Dataset(
        {
            "p_value": ("curve", [0.01]),
            "value": (("curve", "epoch"), [epochs]),
            "line": (("curve", "epoch"), [epochs]),
            "phase_first": (("curve", "phase"), [[0.0, 10.0, 20.0]]),
            "phase_last": (("curve", "phase"), [[10.0, 20.0, 29.0]]),
            "phase_change": (("curve", "phase"), [[0.0, 5.0, -3.0]]),
            "phase_p_value": (("curve", "phase"), [[1.0, 0.01, 0.01]]),
            "phase_kind": (("curve", "phase"), [["steady", "processing", "compression"]]),
        },
        coords={"curve": ["spread"], "epoch": epochs},
    )
    figure = figures.phase_timeline(phases)
    assert [(shape.x0, shape.x1) for shape in figure.layout.shapes] == [(10.0, 20.0), (20.0, 29.0)]
    assert [row["kind"] for row in figures.phase_rows(phases.isel(curve=0))] == ["steady", "processing", "compression"]


def test_figures_have_an_answer_for_nothing():
    for figure in (
        figures.cluster_trajectories(None),
        figures.confusion_matrices(None),
        figures.unit_importance(None),
        figures.checks(None, None, None),
        figures.step_ablation(None),
        figures.phase_timeline(None),
        figures.entropies_by_embedding(None),
    ):
        assert not figure.data
        assert figure.layout.annotations


def test_curves_of_activations_agree_with_loops():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 4, 5, 6)) * 2.0
    values[:, 3, :, 2:4] = np.nan
    trace = xr.DataArray(values, dims=("epoch", "step", "unit", "sample"), coords={"epoch": [-1.0, 0.0, 2.0]})
    curves = activation_curves(trace)
    spread = [np.mean([np.log(np.nanstd(values[e, :, u])) for u in range(5)]) for e in range(3)]
    np.testing.assert_allclose(curves["spread"], spread)
    moved = [np.log(np.sqrt(np.nanmean((values[e] - values[e - 1]) ** 2)) / gap) for e, gap in ((1, 1.0), (2, 2.0))]
    np.testing.assert_allclose(curves["change per epoch"], [np.nan, moved[0], moved[1]])
    assert np.isfinite(curves["intra-step entropy (activations)"]).all()
