"""What the worker makes beside the pictures: studies in its free time, and what viewers ask for."""

import json
import time

import numpy as np
import pytest
import xarray as xr
from scipy.stats import spearmanr

from hiddenscope.analyses.matching import unit_correlations
from hiddenscope.analyses.studies import Study
from hiddenscope.dashboard import journal
from hiddenscope.dashboard.desk import Desk, Request, compute, other_picture, parse
from hiddenscope.dashboard.joint import joint_picture, why_not
from hiddenscope.dashboard.studio import Studio, live_studies
from hiddenscope.dashboard.worker import Worker
from hiddenscope.description import LayerDescription, RunDescription, Snapshot
from hiddenscope.results import ResultStore
from hiddenscope.run import open_run
from hiddenscope.store import SnapshotWriter

STEPS, UNITS, SAMPLES = 6, 5, 9


def describe(units=UNITS, probe="probe", steps=range(STEPS)):
    labels = np.arange(units) if isinstance(units, int) else np.asarray(units)
    return RunDescription(
        layers=(LayerDescription("lstm", "LSTM", labels, np.asarray(steps)),),
        samples=np.arange(SAMPLES),
        labels=None,
        label_names=None,
        probe_fingerprint=probe,
        model="Net",
    )


def snapshot(epoch, units=UNITS, seed=0):
    rng = np.random.default_rng([seed, int(epoch) + 1])
    return Snapshot(float(epoch), {"lstm": rng.normal(size=(STEPS, units, SAMPLES)).astype(np.float32)}, {})


def record(
    folder, epochs=range(4), *, units=UNITS, seed=0, probe="probe", steps=range(STEPS), change=lambda states: states
):
    """A run of noise; ``change`` makes other states of those of an epoch, (step, unit, sample)."""
    with SnapshotWriter.open(folder / "hiddenscope", describe(units, probe, steps)) as writer:
        for epoch in epochs:
            noise = snapshot(epoch, units if isinstance(units, int) else len(units), seed)
            writer.append(Snapshot(noise.epoch, {"lstm": change(noise.states["lstm"])[: len(steps)]}, {}))
        writer.finish("finished")
    return folder / "hiddenscope"


made: list[tuple[str, int]] = []


def count_epochs(run, layer):
    made.append(("epochs", len(run.epochs)))
    return xr.Dataset({"count": ((), len(run.epochs))})


def fail(run, layer):
    made.append(("fail", len(run.epochs)))
    raise ValueError("this network has no such thing")


EPOCHS = Study("epochs", "number of epochs", count_epochs, live=True)
LAST = Study("last", "number of epochs again", count_epochs, live=True)
FAILS = Study("fails", "never made", fail, live=True)
NOT_FOR_THIS = Study("none", "for other networks", lambda run, layer: None, live=True)


@pytest.fixture(autouse=True)
def forget():
    made.clear()


def test_studies_come_after_the_picture_once_per_state_of_the_run_and_failures_stop_nothing(tmp_path):
    folder = record(tmp_path)
    worker = Worker(tmp_path, studies=(FAILS, NOT_FOR_THIS, EPOCHS))
    assert worker.turn()
    assert open_run(folder).results.get("lstm", "mmphate") is not None
    assert made == [], "the picture comes first"
    turns = 0
    while worker.turn():
        turns += 1
        assert turns < 10
    worker.close()
    assert made == [("fail", 4), ("epochs", 4)]
    results = open_run(folder).results
    assert int(results.get("lstm", "epochs")["count"]) == 4
    entry = journal.read(folder)
    assert entry.studies == {"lstm/fails": "ValueError: this network has no such thing"}
    assert (entry.state, entry.doing) == ("idle", "")
    again = Worker(tmp_path, studies=(EPOCHS,))
    while again.turn():
        pass
    again.close()
    assert made == [("fail", 4), ("epochs", 4)], "what is stored and current is not made again"


def test_a_worker_that_begins_finds_the_first_study_that_is_missing_behind_those_that_are_not(tmp_path):
    folder = record(tmp_path)
    for studies in ((EPOCHS,), (EPOCHS, LAST)):
        worker = Worker(tmp_path, studies=studies)
        while worker.turn():
            continue
        worker.close()
    assert made == [("epochs", 4), ("epochs", 4)], "the same function, once for each study"
    assert open_run(folder).results.get("lstm", "last") is not None


def test_what_a_killed_worker_was_about_is_not_said_to_go_on(tmp_path):
    folder = record(tmp_path)
    worker = Worker(tmp_path)
    while worker.turn():
        continue
    worker.close()
    journal.write(folder, journal.Entry("embedding", layer="lstm", epoch=1.0, doing="never made"))
    after = Worker(tmp_path, studies=(EPOCHS,))
    while after.turn():
        continue
    after.close()
    assert made
    told = journal.read(folder)
    assert told is not None
    assert (told.state, told.doing) == ("idle", "")


def test_while_a_run_trains_a_new_picture_is_made_before_the_next_study(tmp_path):
    slow = Study("slow", "a slow one", lambda run, layer: time.sleep(0.2) or count_epochs(run, layer), live=True)
    studies = (slow, EPOCHS)
    with SnapshotWriter.open(tmp_path / "hiddenscope", describe()) as writer:
        writer.append(snapshot(0))
        worker = Worker(tmp_path, studies=studies)
        assert worker.turn()
        assert worker.turn()
        assert made == [("epochs", 1)]
        assert not worker.turn(), "after a study of a run in training it rests"
        writer.append(snapshot(1))
        assert worker.turn()
        assert open_run(tmp_path).results.get("lstm", "mmphate").attrs["covers_epoch"] == 1.0
        assert made == [("epochs", 1)]
        deadline = time.monotonic() + 20
        while len(made) < 3 and time.monotonic() < deadline:
            worker.turn()
        assert made[1:] == [("epochs", 2), ("epochs", 2)], "in the end both are made of the newest epoch"
        worker.close()
        writer.finish("finished")


def test_the_rest_after_a_study_is_twice_its_duration_and_only_while_training(tmp_path):
    folder = record(tmp_path)
    run = open_run(folder)
    nap = Study("nap", "sleeps", lambda run, layer: time.sleep(0.3) or None, live=True)
    studio = Studio((nap, EPOCHS))
    with ResultStore.open(run.location, writable=True) as store:
        began = time.monotonic()
        studio.make(nap, run, "lstm", store)
        took = time.monotonic() - began
    assert studio.due(run.path, "lstm", run.version, training=True) is None
    assert studio.due(run.path, "lstm", run.version, training=False) is EPOCHS
    assert studio._rest_until - time.monotonic() == pytest.approx(2 * took, abs=0.3 * took + 0.1)


def test_every_live_study_can_be_loaded():
    found, problems = live_studies()
    assert problems == {}
    assert all(study.live for study in found)


def test_another_methods_picture_is_what_embed_gives_of_the_same_nodes(tmp_path):
    import hiddenscope as hs

    run = open_run(record(tmp_path))
    dataset = other_picture(run, "lstm", "pca")
    expected = hs.embed(run.trace("lstm"), method="pca", random_state=0)
    np.testing.assert_allclose(dataset["embedding"].values, expected.values, rtol=1e-5)
    assert dataset["inter_step_entropy"].dims == ("epoch", "unit")
    assert dataset.attrs["note"] == ""
    fewer = other_picture(run, "lstm", "pca", limit=30)
    assert fewer["embedding"].sizes["unit"] == UNITS
    assert fewer.attrs["note"] != ""


def test_two_runs_in_one_picture_tell_which_point_is_of_which_epoch_and_run(tmp_path):
    first = open_run(record(tmp_path / "a"))
    second = open_run(record(tmp_path / "b", range(-1, 2), seed=1))
    joint = joint_picture(first, second, "lstm")
    assert joint["run"].values.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert joint["epoch_of_run"].values.tolist() == [0, 1, 2, 3, -1, 0, 1]
    assert np.isfinite(joint["embedding"].values).all()


def test_a_run_beside_itself_lies_on_itself_as_much_as_the_kernel_allows(tmp_path):
    """Identical states are the same nodes to the kernel, so each is nearer to its twin than to most others."""
    first, twin = open_run(record(tmp_path / "a")), open_run(record(tmp_path / "b"))
    joint = joint_picture(first, twin, "lstm")["embedding"].transpose("epoch", "step", "unit", "component").values
    own, other = joint[:4].reshape(-1, 3), joint[4:].reshape(-1, 3)
    distances = np.linalg.norm(own[:, None] - other[None], axis=-1)
    ranks = (distances < np.diag(distances)[:, None]).mean(axis=1)
    assert np.median(ranks) < 0.1


def of_few_causes(seed, order):
    """States of eight units, mixed from three causes that all runs share, in any order of the units."""
    causes = np.random.default_rng(5).normal(size=(8, STEPS, 3, SAMPLES))
    mixing = np.random.default_rng(6).normal(size=(8, 3))[order]

    def change(noise):
        return (np.einsum("uc,scp->sup", mixing, causes[seed % 2]) + 0.3 * noise).astype(np.float32)

    return change


def test_matched_by_response_what_lies_close_responds_alike_in_whichever_run(tmp_path):
    """Ties draw pairs together, right or wrong; what other units of the two runs are to each other shows the rest."""
    order = [5, 2, 7, 0, 3, 6, 1, 4]
    first = open_run(record(tmp_path / "a", range(6), units=8, change=of_few_causes(0, np.arange(8))))
    second = open_run(record(tmp_path / "b", range(6), units=8, seed=1, change=of_few_causes(0, order)))
    table = unit_correlations(first.trace("lstm"), second.trace("lstm")).values
    agreement = {}
    for matching in ("response", "number"):
        joint = joint_picture(first, second, "lstm", matching)
        places = joint["embedding"].values
        apart = np.linalg.norm(places[5][:, :, None] - places[11][:, None], axis=-1).mean(axis=0)
        alike = table[:, joint["unit_of_second"].values]
        assert (apart.argmin(axis=1) == np.arange(8)).mean() > 0.7, "a tie draws together"
        others = ~np.eye(8, dtype=bool)
        agreement[matching] = -spearmanr(apart[others], alike[others])[0]
    assert agreement["response"] > 0.5 > agreement["number"] + 0.2


ORDER = [3, 0, 4, 1, 2]


def test_a_run_and_its_copy_with_other_numbers_make_the_picture_of_the_run_and_its_copy(tmp_path):
    first, copy = open_run(record(tmp_path / "a")), open_run(record(tmp_path / "b"))
    twin = open_run(record(tmp_path / "c", change=lambda states: states[:, ORDER]))
    by_number = joint_picture(first, copy, "lstm", "number")
    matched = joint_picture(first, twin, "lstm", "response")
    np.testing.assert_allclose(matched["embedding"], by_number["embedding"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(matched["inter_step_entropy"], by_number["inter_step_entropy"], rtol=1e-4)
    assert matched["unit_of_first"].values.tolist() == list(range(UNITS))
    assert np.asarray(ORDER)[matched["unit_of_second"]].tolist() == list(range(UNITS))
    np.testing.assert_allclose(matched["match_correlation"], 1, rtol=1e-6)
    assert matched.attrs["match_median"] == pytest.approx(1)
    assert matched.attrs["match_chance"] < 0.8


def test_runs_of_one_beginning_are_matched_by_number_and_others_by_response(tmp_path):
    first, copy = open_run(record(tmp_path / "a")), open_run(record(tmp_path / "b", range(1, 3)))
    by_itself = joint_picture(first, copy, "lstm")
    assert (by_itself.attrs["matching"], by_itself.attrs["began_alike"]) == ("number", True)
    assert by_itself["unit_of_second"].values.tolist() == list(range(UNITS))
    other = open_run(record(tmp_path / "c", seed=1))
    apart = joint_picture(first, other, "lstm")
    assert (apart.attrs["matching"], apart.attrs["began_alike"]) == ("response", False)
    assert sorted(apart["unit_of_second"].values) == list(range(UNITS))
    forced = joint_picture(first, other, "lstm", "number")
    assert (forced.attrs["matching"], forced.attrs["began_alike"]) == ("number", False)
    assert forced.attrs["match_median"] < apart.attrs["match_median"]


@pytest.mark.parametrize(("ours", "theirs"), [(9, [0, 2, 4, 6, 8]), (["left", "right", "stop"], 8)])
def test_runs_of_different_size_share_a_picture_in_which_surplus_units_stay_alone(tmp_path, ours, theirs):
    first = open_run(record(tmp_path / "a", units=ours))
    second = open_run(record(tmp_path / "b", range(2), units=theirs, steps=range(1, 7), seed=3))
    joint = joint_picture(first, second, "lstm")
    assert joint.attrs["matching"] == "response"
    assert joint["step"].values.tolist() == [1, 2, 3, 4, 5]
    assert dict(joint["embedding"].sizes) == {
        "epoch": 6,
        "step": 5,
        "unit": max(map(count, (ours, theirs))),
        "component": 3,
    }
    present = np.isfinite(joint["embedding"].values).all(axis=(1, 3))
    nothing = {"unit_of_first": "" if isinstance(ours, list) else -1, "unit_of_second": -1}
    for which, (name, units) in enumerate((("unit_of_first", ours), ("unit_of_second", theirs))):
        labels = joint[name].values
        exists = labels != nothing[name]
        assert sorted(labels[exists]) == sorted(range(units) if isinstance(units, int) else units)
        np.testing.assert_array_equal(present[joint["run"] == which], np.tile(exists, (4 if which == 0 else 2, 1)))
    assert np.isfinite(joint["match_correlation"].values).sum() == min(map(count, (ours, theirs)))
    np.testing.assert_array_equal(np.isfinite(joint["inter_step_entropy"].values), present)
    with ResultStore.open(first.location, writable=True) as store:
        store.put("lstm", "joint", {"matching": "auto"}, joint)
    kept = first.results.get("lstm", "joint", {"matching": "auto"})
    assert kept["unit_of_first"].values.tolist() == joint["unit_of_first"].values.tolist()


def count(units):
    return units if isinstance(units, int) else len(units)


def test_units_that_are_missing_in_one_run_do_not_change_how_the_others_are_tied(tmp_path):
    """The reference builds the kernel outright; a row of missing nodes must leave it as it is without that row."""
    from hiddenscope.embeddings.kernel import multislice_kernel

    rng = np.random.default_rng(0)
    both = rng.normal(size=(6, 4, 5, 9))
    wider = np.concatenate([both, np.full((6, 4, 3, 9), np.nan)], axis=2)
    wider[:2, :, 5:] = rng.normal(size=(2, 4, 3, 9))
    options = {"inter_knn": 3}
    kernel = multislice_kernel(wider, **options)
    nodes = np.arange(6 * 4 * 8).reshape(24, 8)
    absent = nodes[8:, 5:].ravel()
    assert kernel[absent].sum() == kernel[:, absent].sum() == 0
    second = nodes[8:, :5].ravel()
    alone = multislice_kernel(both, **options)
    small = np.arange(6 * 4 * 5).reshape(24, 5)[8:].ravel()
    ours, theirs = kernel[second][:, second], alone[small][:, small]
    same_slice = np.repeat(np.arange(16), 5)[:, None] == np.repeat(np.arange(16), 5)
    dense = [np.asarray(part.todense()) if hasattr(part, "todense") else np.asarray(part) for part in (ours, theirs)]
    np.testing.assert_allclose(dense[0][same_slice], dense[1][same_slice], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "matching", "said"),
    [
        ({"units": 4}, "number", "5 and 4 units"),
        ({"units": [5, 6, 7, 8, 9]}, "number", "5 units each, but not the same"),
        ({"probe": "other"}, "auto", "different probe samples"),
        (
            {"steps": range(10, 14)},
            "auto",
            "no step was recorded in both, one has steps of 0 to 5, the other of 10 to 13",
        ),
    ],
)
def test_runs_that_do_not_match_are_refused_with_the_reason(tmp_path, change, matching, said):
    first, second = open_run(record(tmp_path / "a")), open_run(record(tmp_path / "b", **change))
    assert said in why_not(first, second, "lstm", matching)
    with pytest.raises(ValueError, match=said):
        joint_picture(first, second, "lstm", matching)
    assert (why_not(first, second, "lstm", "response") == "") == (matching == "number")


def test_a_way_of_matching_that_is_none_is_refused(tmp_path):
    run = open_run(record(tmp_path))
    with pytest.raises(ValueError, match=r"auto, number, response, got 'magic'"):
        joint_picture(run, run, "lstm", "magic")


def test_what_a_viewer_asks_for_is_computed_in_another_process_and_stored(tmp_path):
    folder = record(tmp_path)
    worker = Worker(tmp_path)
    worker.turn()
    worker.desk.ask(Request(str(folder), "lstm", "pca"))
    worker.desk.ask(Request(str(folder), "gru", "pca"))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        worker.turn()
        entry = journal.read(folder)
        if open_run(folder).results.get("lstm", "pca") is not None and "gru/pca" in entry.studies:
            break
        time.sleep(0.05)
    worker.close()
    assert open_run(folder).results.get("lstm", "pca").attrs["method"] == "pca"
    assert "gru" in journal.read(folder).studies["gru/pca"], "a wish that cannot be met says why"


def test_a_request_survives_being_sent_and_nonsense_is_no_request(tmp_path):
    request = Request(str(record(tmp_path)), "lstm", "joint", other="/elsewhere")
    assert parse(request.line()) == request
    by_response = Request("a", "lstm", "joint", other="b", matching="response")
    assert parse(by_response.line()) == by_response
    assert by_response.parameters() != Request("a", "lstm", "joint", other="b").parameters()
    assert by_response.name != Request("a", "lstm", "joint", other="c", matching="response").name
    for matching in ("magic", "", None, [], {}, 3):
        asked = {"run": "a", "layer": "lstm", "method": "joint", "other": "b", "matching": matching}
        assert parse(json.dumps(asked)) is None
    assert parse(b'{"run": "a", "layer": "b", "method": ["pca"]}') is None
    for line in (b"", b"[]", b'{"run": "a", "layer": "b", "method": "rm"}', b'{"run": "a"}', b"\xff\xfe"):
        assert parse(line) is None
    with pytest.raises(ValueError, match="no_such"):
        compute(Request(request.run, "no_such", "pca"))


def test_one_wish_is_kept_however_often_it_is_asked_for():
    desk = Desk()
    for _ in range(3):
        desk.ask(Request("a", "lstm", "pca"))
    assert desk.waiting() == Request("a", "lstm", "pca")
    assert desk.waiting() is None
    desk.close()
