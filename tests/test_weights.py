"""Weights, inputs and token names beside the states: what is read is what the model had, epoch by epoch."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from torch import Tensor, nn

from hiddenscope import HiddenStateMonitor, open_run, record
from hiddenscope.callbacks.budget import Budget
from hiddenscope.callbacks.headline import headline
from hiddenscope.callbacks.layers import find_sources
from hiddenscope.callbacks.probe import as_probe
from hiddenscope.callbacks.recorder import StateRecorder
from hiddenscope.callbacks.weights import weight_reader
from hiddenscope.errors import RecordingError
from hiddenscope.locations import BRANCH, as_location, open_repository
from hiddenscope.store import LayerDescription, ModuleDescription, RunDescription, Snapshot, SnapshotWriter
from store_examples import assert_holds, description, snapshot, states, weights
from training_examples import LIGHTNINGS_OWN_WARNINGS, Classifier, assert_same_weights, fit

pytestmark = [pytest.mark.filterwarnings(warning) for warning in LIGHTNINGS_OWN_WARNINGS]
pytestmark.append(pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"))

PROBE = torch.randn(6, 9, 4, generator=torch.Generator().manual_seed(0))

MODULES = {
    "LSTM": lambda: nn.LSTM(4, 5, batch_first=True),
    "GRU, 2 levels": lambda: nn.GRU(4, 5, num_layers=2, batch_first=True),
    "RNN, relu, without biases": lambda: nn.RNN(4, 5, nonlinearity="relu", bias=False, batch_first=True),
    "LSTM, bidirectional, projected": lambda: nn.LSTM(4, 5, bidirectional=True, proj_size=2, batch_first=True),
}


class Inside(nn.Module):
    """A recurrent layer behind an embedding or a linear layer."""

    def __init__(self, first: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self.first, self.layer = first, layer

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(self.first(x))[0]
        return out


class Loop(nn.Module):
    """A cell in a Python loop."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        assert state is not None
        return state[0]


@pytest.mark.parametrize("kind", MODULES)
def test_a_module_rebuilt_from_recorded_weights_computes_the_recorded_states(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = MODULES[kind]()
    former = {}
    with record(model, PROBE, tmp_path, strict=True) as recorder:
        for epoch in range(3):
            former[epoch] = copy.deepcopy(model.state_dict())
            recorder.snapshot(epoch)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += 0.1 * torch.randn_like(parameter)
    run = open_run(tmp_path)
    layer = run.layers[-1]
    settings = run.description.layer(layer).settings
    for epoch in (0, 2):
        found = run.weights(layer, epoch)
        assert found is not None
        assert list(found) == list(former[epoch])
        for name, values in former[epoch].items():
            np.testing.assert_array_equal(found[name], values.numpy())
        options = {key: settings[key] for key in ("input_size", "hidden_size", "num_layers", "bidirectional", "bias")}
        if settings["nonlinearity"] is not None:
            options["nonlinearity"] = settings["nonlinearity"]
        if settings["proj_size"]:
            options["proj_size"] = settings["proj_size"]
        rebuilt = getattr(nn, str(settings["module_kind"]))(batch_first=settings["batch_first"], **options)
        rebuilt.load_state_dict({name: torch.from_numpy(values) for name, values in found.items()})
        fed = run.inputs(run.layers[0], epoch)
        assert fed is not None
        with torch.no_grad():
            replayed = rebuilt(torch.from_numpy(fed))[0]
        np.testing.assert_allclose(
            run.trace(layer, epochs=[epoch]).values[0], replayed.permute(1, 2, 0).numpy(), atol=1e-6
        )


def test_the_newest_epoch_is_read_unless_another_is_asked_for(tmp_path: Path) -> None:
    model = nn.LSTM(4, 5, batch_first=True)
    with record(model, PROBE, tmp_path, strict=True) as recorder:
        recorder.snapshot(0)
        nn.init.zeros_(model.weight_hh_l0)
        recorder.snapshot(1)
    run = open_run(tmp_path)
    newest, first = run.weights(), run.weights(epoch=0)
    assert newest is not None
    assert first is not None
    assert not newest["weight_hh_l0"].any()
    assert first["weight_hh_l0"].any()
    with pytest.raises(ValueError, match="got epoch 7; this run has epochs 0 to 1"):
        run.weights(epoch=7)
    with pytest.raises(ValueError, match='got layer "gru"; this run has layer "lstm"'):
        run.weights("gru")


def test_weights_of_a_parametrized_recurrence_are_those_in_force(tmp_path: Path) -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.LSTM(4, 5, batch_first=True), "weight_hh_l0")
    with record(layer, PROBE, tmp_path, strict=True) as recorder:
        recorder.snapshot(0)
    found = open_run(tmp_path).weights()
    assert found is not None
    np.testing.assert_array_equal(found["weight_hh_l0"], layer.weight_hh_l0.detach().numpy())


def test_cells_and_modules_of_any_kind_have_weights_too(tmp_path: Path) -> None:
    block = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    for model, layer in ((Loop(), "cell"), (Inside(nn.Identity(), nn.Sequential(block)), "layer.0")):
        with record(model, PROBE, tmp_path / layer, layers=layer, strict=True) as recorder:
            recorder.snapshot(0)
        run = open_run(tmp_path / layer)
        found, module = run.weights(layer), model.get_submodule(layer)
        assert found is not None
        for name, values in module.named_parameters():
            np.testing.assert_array_equal(found[name], values.detach().numpy())
        assert run.description.layer(layer).settings["module"] == layer
        assert run.description.layer(layer).settings["module_kind"] == type(module).__name__


def test_double_weights_stay_double(tmp_path: Path) -> None:
    model = nn.GRU(4, 5, batch_first=True).double()
    with record(model, PROBE.double(), tmp_path, strict=True) as recorder:
        recorder.snapshot(0)
    found = open_run(tmp_path).weights()
    assert found is not None
    assert found["weight_ih_l0"].dtype == np.float64
    np.testing.assert_array_equal(found["weight_ih_l0"], model.weight_ih_l0.detach().numpy())


def test_the_largest_modules_are_left_out_when_the_budget_is_small_and_the_headline_says_which(tmp_path: Path) -> None:
    sources = find_sources(Inside(nn.LSTM(4, 5, batch_first=True), nn.GRU(5, 100)), None, record=("h",))
    small = weight_reader(sources, max_mb=0.1)
    assert [module.name for module in small.descriptions] == ["first"]
    assert small.bytes_per_epoch == 4 * (20 * 4 + 20 * 5 + 40)
    assert small.left_out == {"layer": 4 * (300 * 5 + 300 * 100 + 600) / 1e6}
    assert not weight_reader(sources, max_mb=0).descriptions
    recorder = StateRecorder(
        nn.GRU(4, 100, batch_first=True), as_probe(PROBE, max_samples=6, seed=0), budget=Budget(max_weights_mb=0.1)
    )
    assert "without the weights of gru (0.13 MB), in" in headline(
        recorder, "every epoch", "here", "here", dtype="float32"
    )
    with record(nn.GRU(4, 100, batch_first=True), PROBE, tmp_path, max_weights_mb=0.1, strict=True) as recording:
        recording.snapshot(0)
    assert open_run(tmp_path).weights() is None
    with pytest.raises(ValueError, match="max_weights_mb must be 0 or more, got -1"):
        Budget(max_weights_mb=-1)


def test_settings_say_module_and_level_and_quantity_of_every_layer() -> None:
    model = Inside(nn.Identity(), nn.LSTM(4, 5, num_layers=2, batch_first=True))
    recorder = StateRecorder(model, as_probe(PROBE, max_samples=6, seed=0), record=("h", "c", "gates", "inputs"))
    found = {layer.name: layer for layer in recorder.layers}
    for name, (level, quantity) in {
        "layer.l0": (0, "h"), "layer.l1": (1, "h"), "layer.l1.c": (1, "c"), "layer.l0.o": (0, "o"),
        "layer.inputs": (0, "inputs"),
    }.items():  # fmt: skip
        settings = found[name].settings
        assert (settings["module"], settings["module_kind"]) == ("layer", "LSTM")
        assert (settings["level"], settings["quantity"]) == (level, quantity)
        assert (settings["bias"], settings["nonlinearity"], settings["num_layers"]) == (True, None, 2)


def test_inputs_are_what_the_layer_was_fed_with_and_no_layer_themselves(tmp_path: Path) -> None:
    tokens = torch.randint(0, 7, (6, 9), generator=torch.Generator().manual_seed(2))
    model = Inside(nn.Embedding(7, 4), nn.LSTM(4, 5, num_layers=2, bidirectional=True, batch_first=True))
    with record(model, tokens, tmp_path, record=("h", "inputs"), token_names=list("abcdefg"), strict=True) as recorder:
        assert not any("inputs" in name for name in recorder.snapshot(0))
        nn.init.ones_(model.first.weight)
        recorder.snapshot(1)
    run = open_run(tmp_path)
    assert run.layers == ("layer.l0", "layer.l1")
    assert run.token_names == tuple("abcdefg")
    np.testing.assert_array_equal(run.probe, tokens.numpy())
    first = run.inputs("layer.l0", 0)
    assert first is not None
    assert first.shape == (6, 9, 4)
    assert np.unique(first.reshape(-1, 4), axis=0).shape == (*np.unique(tokens.numpy()).shape, 4)
    np.testing.assert_array_equal(run.inputs("layer.l0"), np.ones((6, 9, 4)))
    below = run.trace("layer.l0", epochs=[1]).values[0].transpose(2, 0, 1)
    np.testing.assert_array_equal(run.inputs("layer.l1"), below)


def test_inputs_of_packed_sequences_end_with_them(tmp_path: Path) -> None:
    packed = nn.utils.rnn.pack_sequence([torch.ones(3, 4), torch.ones(5, 4)], enforce_sorted=False)
    with record(nn.GRU(4, 5), packed, tmp_path, record=("h", "inputs"), strict=True) as recorder:
        recorder.snapshot(0)
    found = open_run(tmp_path).inputs()
    assert found is not None
    np.testing.assert_array_equal(np.isnan(found).sum(axis=(1, 2)), [2 * 4, 0])


def test_inputs_of_a_cell_are_those_of_all_steps(tmp_path: Path) -> None:
    with record(Loop(), PROBE, tmp_path, record=("h", "inputs"), strict=True) as recorder:
        recorder.snapshot(0)
    np.testing.assert_array_equal(open_run(tmp_path).inputs("cell"), PROBE.numpy())


def test_without_recorded_inputs_the_probe_serves_where_it_fits(tmp_path: Path) -> None:
    for name, first, serves in (("same", nn.Identity(), True), ("other", nn.Linear(4, 3), False)):
        model = Inside(first, nn.LSTM(4 if serves else 3, 5, num_layers=2, batch_first=True))
        with record(model, PROBE, tmp_path / name, strict=True) as recorder:
            recorder.snapshot(0)
        run = open_run(tmp_path / name)
        found = run.inputs("layer.l0")
        assert (found is not None) == serves
        if serves:
            np.testing.assert_array_equal(found, PROBE.numpy())
        assert run.inputs("layer.l1") is not None


def test_inputs_of_which_only_some_features_were_kept_are_not_given_for_the_whole(tmp_path: Path) -> None:
    model = Inside(nn.Linear(4, 30), nn.LSTM(30, 5, batch_first=True))
    with record(model, PROBE, tmp_path, record=("h", "inputs"), max_units=8, strict=True) as recorder:
        recorder.snapshot(0)
    run = open_run(tmp_path)
    assert run.inputs("layer") is None
    assert run.trace("layer.inputs").sizes["unit"] == 8


def test_a_monitored_training_records_weights_without_being_altered(tmp_path: Path) -> None:
    monitor = HiddenStateMonitor(record=["h", "inputs"], token_names=["none"], verbose=False, strict=True)
    model, _ = fit(tmp_path / "with", monitor)
    undisturbed, _ = fit(tmp_path / "without")
    assert_same_weights(model, undisturbed)
    run = open_run(tmp_path / "with")
    found, before = run.weights("lstm"), run.weights("lstm", -1)
    assert found is not None
    assert before is not None
    for name, values in model.lstm.named_parameters():
        np.testing.assert_array_equal(found[name], values.detach().numpy())
        assert not np.array_equal(before[name], found[name])
    assert run.token_names == ("none",)
    assert set(run.metrics().columns) >= {"hiddenscope/lstm/entropy"}
    assert isinstance(model, Classifier)


class TestStore:
    """The rules of the store for parameters; that they go with their epoch is part of the store's contract."""

    def test_a_run_that_began_without_weights_goes_on_without(self, tmp_path: Path) -> None:
        place = str(tmp_path / "hiddenscope")
        with SnapshotWriter.open(place, description(modules=())) as writer:
            writer.append(Snapshot(0, states(0)))
        with SnapshotWriter.open(place, description(), resume_after=0) as writer:
            writer.append(snapshot(1))
        run = open_run(tmp_path)
        assert run.weights("lstm") is None
        np.testing.assert_array_equal(run.epochs, [0, 1])

    def test_an_epoch_without_weights_has_nan_in_their_place(self, tmp_path: Path) -> None:
        place = str(tmp_path / "hiddenscope")
        with SnapshotWriter.open(place, description()) as writer:
            writer.append(snapshot(0))
        with SnapshotWriter.open(place, description(modules=()), resume_after=0) as writer:
            writer.append(Snapshot(1, states(1)))
            writer.append(snapshot(2))
        run = open_run(tmp_path)
        for layer, parameters in weights(2).items():
            between, newest = run.weights(layer, 1), run.weights(layer, 2)
            assert between is not None
            assert newest is not None
            for name, values in parameters.items():
                assert np.isnan(between[name]).all()
                np.testing.assert_array_equal(newest[name], values)

    def test_a_run_of_an_earlier_version_is_read_and_continued(self, tmp_path: Path) -> None:
        place = tmp_path / "hiddenscope"
        with SnapshotWriter.open(place, description(modules=(), token_names=None)) as writer:
            writer.append(Snapshot(0, states(0)))
        repository = open_repository(as_location(place) / "snapshots")
        assert repository is not None
        session = repository.writable_session(BRANCH)
        root = zarr.open_group(session.store, mode="r+", zarr_format=3)
        for name in ("modules", "inputs"):
            del root.attrs[name]
        session.commit("as earlier versions wrote it")
        with SnapshotWriter.open(place, description(), resume_after=0) as writer:
            writer.append(snapshot(1))
        run = open_run(tmp_path)
        assert run.layers == ("lstm", "decoder/gru.0")
        assert run.weights("lstm") is None
        assert run.inputs("lstm") is None
        assert run.token_names is None
        np.testing.assert_array_equal(run.trace("lstm").values[1], states(1)["lstm"])

    def test_other_parameters_than_described_are_refused(self, tmp_path: Path) -> None:
        place = str(tmp_path / "hiddenscope")
        wrong: Any = {**weights(1), "lstm": {"weight_hh_l0": np.zeros((12, 3))}}
        with SnapshotWriter.open(place, description()) as writer:
            writer.append(snapshot(0))
            with pytest.raises(ValueError, match=r"module 'lstm' has parameters .*'bias_hh_l0'.* got "):
                writer.append(Snapshot(1, states(1), {}, wrong))
            writer.append(snapshot(1))
        assert_holds(open_run(tmp_path), {0: 0, 1: 0})
        changed = (ModuleDescription("lstm", "LSTM", {"weight_hh_l0": (8, 2)}),)
        with pytest.raises(RecordingError, match=r"module 'lstm' has parameters .*, not \{'weight_hh_l0': \(8, 2\)\}"):
            SnapshotWriter.open(place, description(modules=changed), resume_after=1)

    def test_parameters_larger_than_a_chunk_are_read_back(self, tmp_path: Path) -> None:
        size = 3_000_000  # 12 MB, chunks have 8
        large = RunDescription(
            layers=(LayerDescription("rnn", "RNN", np.arange(1), np.arange(1), {"module": "rnn"}),),
            samples=np.arange(1),
            labels=None,
            label_names=None,
            probe_fingerprint="",
            model="Model",
            modules=(ModuleDescription("rnn", "RNN", {"weight": (size,)}),),
        )
        values = np.random.default_rng(0).normal(size=size).astype(np.float32)
        with SnapshotWriter.open(str(tmp_path / "hiddenscope"), large) as writer:
            for epoch in range(2):
                writer.append(Snapshot(epoch, {"rnn": np.zeros((1, 1, 1))}, {}, {"rnn": {"weight": values + epoch}}))
        found = open_run(tmp_path).weights(epoch=0)
        assert found is not None
        np.testing.assert_array_equal(found["weight"], values)
