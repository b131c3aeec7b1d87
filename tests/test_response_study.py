"""Responses of a recorded run: those of its weights, epoch by epoch, bounded in number, and never computed twice."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from hiddenscope.analyses import response_study
from hiddenscope.analyses.models import ModelAccess
from hiddenscope.analyses.response_study import (
    RANKED,
    REFERENCE,
    RESPONSES,
    newest_numbers,
    remove_units,
    responses_of_run,
)
from hiddenscope.analyses.responses import drive_data, unit_responses
from hiddenscope.analyses.stepping import Silence
from hiddenscope.analyses.studies import all_studies, is_current, make
from hiddenscope.description import LayerDescription, ModuleDescription, RunDescription, Snapshot
from hiddenscope.results import ResultStore
from hiddenscope.run import open_run
from hiddenscope.store import SnapshotWriter

STEPS, SAMPLES = 4, 3
PROBE = np.random.default_rng(0).normal(1.0, 2.0, size=(SAMPLES, STEPS, 2)).astype(np.float32)


def module_of(epoch, kind=nn.LSTM, *, seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(100 * seed + int(epoch) + 1)
        return kind(2, 5, **options)


def record(
    folder, epochs, *, resume_after=None, seed=0, kind=nn.LSTM, units=None, layer=("lstm", {}), ended=(), **options
):
    name, place = layer
    first = module_of(0, kind, **options)
    shapes = {key: tuple(value.shape) for key, value in first.named_parameters()}
    units = np.arange(5) if units is None else units
    about = {"module": "lstm", "module_kind": kind.__name__, "level": 0, "input_size": 2, "hidden_size": 5} | place
    description = RunDescription(
        layers=(LayerDescription(name, kind.__name__, units, np.arange(STEPS), about),),
        samples=np.arange(SAMPLES),
        labels=None,
        label_names=None,
        probe_fingerprint="probe",
        model="Net",
        probe=PROBE,
        modules=(ModuleDescription("lstm", kind.__name__, shapes),),
    )
    with SnapshotWriter.open(folder / "hiddenscope", description, resume_after=resume_after) as writer:
        for epoch in epochs:
            module = module_of(epoch, kind, seed=seed, **options)
            weights = {key: value.detach().numpy() for key, value in module.named_parameters()}
            states = np.full((STEPS, len(units), SAMPLES), epoch + 10 * seed, np.float32)
            for sample in ended:
                states[ended[sample] :, :, sample] = np.nan
            writer.append(Snapshot(float(epoch), {name: states}, {}, {"lstm": weights}))
        writer.finish("finished")
    return open_run(folder)


def options_of(**others):
    return {"periods": [8, 16, 32, 64], "rest": 300, "steps": 400, "drive_along": drive_data(PROBE)} | others


def test_every_epoch_has_the_responses_of_its_weights(tmp_path):
    found = responses_of_run(record(tmp_path, range(-1, 3)), "lstm")
    assert found.epoch.values.tolist() == [-1, 0, 1, 2]
    for epoch in (-1, 2):
        exact = unit_responses(module_of(epoch), **options_of()).squeeze("state")
        inside = exact.sel(reading="in-network")
        for name in ("settling_time", "overshoot", "change", "gain", "phase"):
            assert_allclose(found[name].sel(epoch=epoch), inside[name], rtol=1e-5, atol=1e-4)
        assert_array_equal(found["step_flag"].sel(epoch=epoch), inside["step_flag"])
    assert_allclose(found["isolated_gain"], exact["gain"].sel(reading="isolated"), rtol=1e-5)
    assert_allclose(found["coupling"], exact["coupling"], rtol=1e-5)
    assert_allclose(found["reference_gain"].isel(epoch=-1), inside["gain"].sel(period=REFERENCE), rtol=1e-5)
    assert found["step_response"].sizes == {"reading": 2, "unit": 5, "step": 401}
    assert set(found.attrs["unit_columns"]) <= set(found.data_vars)
    for name in found.attrs["unit_columns"]:
        assert set(found[name].dims) in ({"unit"}, {"epoch", "unit"})
    assert sorted(found["rank"].sel(metric="gain").values) == [1, 2, 3, 4, 5]


def test_the_input_rests_at_the_mean_of_what_is_no_padding(tmp_path):
    run = record(tmp_path, [0, 1], ended={1: 2, 2: 1})
    there = PROBE.copy()
    there[1, 2:] = there[2, 1:] = np.nan
    exact = unit_responses(module_of(1), **options_of(drive_along=drive_data(there))).squeeze("state")
    found = responses_of_run(run, "lstm")
    assert_allclose(found["gain"].sel(epoch=1), exact["gain"].sel(reading="in-network"), rtol=1e-5)
    unmasked = unit_responses(module_of(1), **options_of()).squeeze("state")
    assert np.abs(found["gain"].sel(epoch=1) - unmasked["gain"].sel(reading="in-network")).max() > 1e-3


def test_a_long_run_is_characterized_at_a_bounded_number_of_epochs():
    before: list[float] = []
    for count in range(1, 1200, 37):
        epochs = np.arange(-1.0, count - 1)
        chosen = response_study._spread(epochs, 24)
        assert len(chosen) <= 25
        assert {epochs[0], epochs[-1]} <= set(chosen)
        old = {epoch for epoch in chosen if before and epoch < before[-1]}
        assert old <= set(before), "an epoch that was left out came back"
        before = chosen


def test_what_is_stored_is_not_computed_again_unless_it_was_superseded(tmp_path, monkeypatch):
    run = record(tmp_path, range(-1, 3))
    asked = []

    def counted(recurrence, **options):
        asked.append(recurrence.networks)
        return unit_responses(recurrence, **options)

    monkeypatch.setattr(response_study, "unit_responses", counted)
    with ResultStore.open(run.location, writable=True) as store:
        make(RESPONSES, run, "lstm", store)
        assert asked == [4, 1]  # all epochs side by side, and the newest in both readings
        assert is_current(RESPONSES, run, "lstm")
        asked.clear()
        run = record(tmp_path, range(3, 5), resume_after=2)
        again = make(RESPONSES, run, "lstm", store)
        assert asked == [2, 1]
        assert again.epoch.values.tolist() == [-1, 0, 1, 2, 3, 4]
        whole = run.results.get("lstm", "responses")
        asked.clear()
        run = record(tmp_path, range(1, 5), resume_after=0, seed=1)
        superseded = make(RESPONSES, run, "lstm", store)
        assert asked == [6, 1]
    assert_allclose(superseded["gain"].sel(epoch=[-1, 0]), whole["gain"].sel(epoch=[-1, 0]))
    assert np.abs(superseded["gain"].sel(epoch=3) - whole["gain"].sel(epoch=3)).max() > 1e-3


def test_cell_states_levels_and_recorded_units_are_told_apart(tmp_path):
    cells = responses_of_run(record(tmp_path / "c", [0], layer=("lstm.c", {"quantity": "c"})), "lstm.c")
    exact = unit_responses(module_of(0), states=["c"], **options_of()).squeeze("state")
    assert_allclose(cells["gain"].isel(epoch=0), exact["gain"].sel(reading="in-network"), rtol=1e-5)
    run = record(tmp_path / "l1", [0], kind=nn.GRU, num_layers=2, layer=("lstm.l1", {"level": 1}))
    above = unit_responses(module_of(0, nn.GRU, num_layers=2), **options_of())
    found = responses_of_run(run, "lstm.l1")
    assert_allclose(found["gain"].isel(epoch=0), above["gain"].isel(state=0, reading=0), rtol=1e-5)
    units = np.array(["forward 1", "backward 0", "forward 4"])
    run = record(tmp_path / "both", [0], kind=nn.RNN, bidirectional=True, units=units)
    assert responses_of_run(run, "lstm").unit.values.tolist() == ["forward 1", "forward 4"]


@pytest.mark.parametrize("place", [{"module_kind": "Transformer"}, {"quantity": "f"}, {"module": "other"}])
def test_layers_that_cannot_be_driven_have_no_responses(tmp_path, place):
    assert responses_of_run(record(tmp_path, [0], layer=("lstm", place)), "lstm") is None


def test_the_study_is_found_and_live():
    assert any(study.method == "responses" and study.live for study in all_studies())


class Reader(nn.Module):
    """The LSTM of an epoch and a readout of its last state."""

    def __init__(self, epoch):
        super().__init__()
        self.lstm = module_of(epoch)
        self.weights = nn.Parameter(torch.arange(1.0, 6.0))

    def forward(self, inputs):
        return self.lstm(inputs)[0][-1] @ self.weights


def test_what_units_are_worth_is_set_against_their_responses(tmp_path):
    units = np.array([4, 1, 2])
    run = record(tmp_path, [0, 1], units=units)
    model = Reader(1)
    inputs = torch.from_numpy(PROBE)
    whole = model(inputs).detach()
    found = remove_units(
        run, "lstm", ModelAccess(model), inputs, lambda y: -float(((y - whole) ** 2).mean()), random_orders=3
    )
    for unit in units.tolist():
        left = ModelAccess(model).answer(inputs, [Silence("lstm", [unit])])
        assert_allclose(found["importance"].sel(unit=unit), ((left - whole) ** 2).mean(), rtol=1e-4)
    assert found.metric.values[-1] == "combined"
    assert found.sizes["removed"] == 4  # units that are not recorded stay
    ranks = responses_of_run(run, "lstm")["combined_rank"].values
    assert_allclose(found["combined"], 4 - ranks)
    finite = [name for name in RANKED if np.isfinite(newest_numbers(responses_of_run(run, "lstm"))[name]).sum() > 1.5]
    assert found.metric.values.tolist() == [*finite, "combined"]
    with ResultStore.open(run.location, writable=True) as store:
        store.put("lstm", "removal", {}, found)
    assert run.results.get("lstm", "removal").identical(found)
    silent = record(tmp_path / "other", [0], layer=("lstm", {"quantity": "f"}))
    with pytest.raises(ValueError, match="has no responses"):
        remove_units(silent, "lstm", ModelAccess(model), inputs, float)
