"""The studies of modes and separability grow with a run, and agree with computing all at once."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from hiddenscope.analyses.pod import POD_STUDY, SEPARABILITY_STUDY, parts_of
from hiddenscope.analyses.separability import separability
from hiddenscope.analyses.studies import STUDIES, all_studies, is_current, make
from hiddenscope.description import LayerDescription, RunDescription, Snapshot
from hiddenscope.embeddings.pod import POD
from hiddenscope.results import ResultStore
from hiddenscope.run import open_run
from hiddenscope.store import SnapshotWriter

STEPS, UNITS, SAMPLES = {"encoder": 5, "decoder": 7, "other": 4}, 8, 9


def write(folder, epochs, layers=("encoder", "decoder"), *, bad=(), labels=True, resume_after=None):
    description = RunDescription(
        layers=tuple(LayerDescription(name, "GRU", np.arange(UNITS), np.arange(STEPS[name])) for name in layers),
        samples=np.arange(SAMPLES),
        labels=np.arange(SAMPLES) % 3 if labels else None,
        label_names=("a", "b", "c") if labels else None,
        probe_fingerprint="probe",
        model="Net",
    )
    with SnapshotWriter.open(folder / "hiddenscope", description, resume_after=resume_after) as writer:
        for epoch in epochs:
            rng = np.random.default_rng([1, epoch + 1])
            scale = np.linspace(3, 0.5, UNITS)[:, None]
            states = {name: scale * rng.normal(size=(STEPS[name], UNITS, SAMPLES)) for name in layers}
            if epoch in bad:
                states["decoder" if "decoder" in states else layers[0]][2, 1, 3] = np.nan
            writer.append(Snapshot(float(epoch), states, {"train_loss": 1 / (epoch + 2)}))
        writer.finish("finished")
    return open_run(folder)


def test_the_studies_are_listed_and_live():
    assert {"pod", "separability"} <= {study.method for study in all_studies() if study.live}
    assert len(STUDIES) == len(set(STUDIES))


def test_an_encoder_and_a_decoder_are_studied_together_and_other_layers_alone(tmp_path):
    run = write(tmp_path, range(3), layers=("encoder", "decoder", "other"))
    assert parts_of(run, "encoder") == parts_of(run, "decoder") == ("encoder", "decoder")
    assert parts_of(run, "other") == ("other",)
    found = POD_STUDY.compute(run, "decoder")
    pod = POD(n_components=6).fit((run.trace("encoder"), run.trace("decoder")))
    assert_allclose(found["energy"], pod.energy_, rtol=1e-5)
    assert_allclose(found["modes"], pod.modes_, atol=1e-5)
    assert_allclose(found["dimension"], pod.dimensions_)
    assert_allclose(found["participation_ratio"], pod.participation_ratio_, rtol=1e-5)
    assert_allclose(found["percent_used"].sel(threshold=0.9), pod.percent_used_)
    turned = POD(n_components=6, align="rotation").fit((run.trace("encoder"), run.trace("decoder"))).modes_
    assert_allclose(np.einsum("euk,ekl->eul", found["modes"], found["rotation"]), turned, atol=1e-5)
    both = [run.trace(part).transpose("epoch", "unit", ...).values.reshape(3, UNITS, -1) for part in run.layers[:2]]
    energy = (np.concatenate(both, axis=2) ** 2).sum(axis=2)
    assert_allclose(found["unit_energy"], energy / energy.sum(axis=1, keepdims=True), rtol=1e-5)
    assert found.attrs["unit_columns"] == {"unit_energy": "energy share"}
    assert found["steering"].shape == (3, STEPS["encoder"])
    assert found["spread"].shape == found["recurrence"].shape == (3, STEPS["decoder"])
    alone = POD_STUDY.compute(run, "other")
    assert "steering" not in alone
    assert_allclose(alone["energy"], POD().fit(run.trace("other")).energy_, rtol=1e-5)


@pytest.mark.parametrize("study", [POD_STUDY, SEPARABILITY_STUDY])
@pytest.mark.parametrize("bad", [(), (2,), (0,)])
def test_a_study_that_grows_with_the_run_equals_one_made_at_the_end(tmp_path, study, bad, monkeypatch):
    run = write(tmp_path, range(3), bad=bad)
    with ResultStore.open(run.location, writable=True) as store:
        make(study, run, "decoder", store)
        run = write(tmp_path, range(3, 6), bad=bad, resume_after=2.0)
        read = []
        trace = run.trace
        monkeypatch.setattr(
            run, "trace", lambda *given, **named: read.append(named["epochs"]) or trace(*given, **named)
        )
        grown = make(study, run, "decoder", store)
        monkeypatch.undo()
    assert set(read) <= {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}
    assert 1.0 not in read  # neither the first, which tells what is padding, nor a new one
    assert_array_equal(grown["epoch"], range(6))
    fresh = study.compute(write(tmp_path / "anew", range(6), bad=bad), "decoder")
    assert set(fresh.variables) == set(grown.variables)
    for name in fresh.data_vars:
        assert_allclose(grown[name], fresh[name], atol=1e-5, err_msg=name)
    assert is_current(study, run, "decoder")


def test_a_resumed_run_that_went_another_way_is_studied_anew(tmp_path):
    run = write(tmp_path, range(4), bad=(3,))
    with ResultStore.open(run.location, writable=True) as store:
        make(POD_STUDY, run, "decoder", store)
        run = write(tmp_path, range(2, 6), resume_after=1.0)
        found = make(POD_STUDY, run, "decoder", store)
    assert not found["skipped"].any()


def test_a_diverged_epoch_is_marked_and_the_others_are_whole(tmp_path):
    run = write(tmp_path, range(-1, 4), bad=(1,))
    found = POD_STUDY.compute(run, "encoder")
    assert found["skipped"].values.tolist() == [False, False, True, False, False]
    assert np.isnan(found["energy"].values[2]).all()
    assert np.isfinite(found["energy"].values[[0, 1, 3, 4]]).all()
    assert np.isnan(found["steering"].values[2]).all()
    assert np.isnan(SEPARABILITY_STUDY.compute(run, "decoder")["silhouette"].values).tolist() == [0, 0, 1, 0, 0]


def test_separability_is_that_of_the_layers_own_states_and_wants_classes(tmp_path):
    run = write(tmp_path / "with", range(7), layers=("other",))
    found = SEPARABILITY_STUDY.compute(run, "other")
    expected = separability(run.trace("other"))
    for name in expected.data_vars:
        assert_allclose(found[name], expected[name])
    assert found["phase"].dims == found["overtraining"].dims == ("epoch",)
    without = write(tmp_path / "without", range(2), layers=("other",), labels=False)
    assert SEPARABILITY_STUDY.compute(without, "other") is None
    assert POD_STUDY.compute(without, "other") is not None
