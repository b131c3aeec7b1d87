"""The worker makes pictures of what is recorded, survives what it meets, and ends with the dashboard."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
import weakref

import numpy as np
import pytest
import xarray as xr
from numba.core.dispatcher import Dispatcher

from hiddenscope.dashboard import journal
from hiddenscope.dashboard.journal import Entry
from hiddenscope.dashboard.picture import Painter, measured, most_active_class, picture, rehearse, thinned
from hiddenscope.dashboard.supervisor import Supervisor
from hiddenscope.dashboard.worker import EVERYBODY, Worker
from hiddenscope.description import LayerDescription, RunDescription, Snapshot
from hiddenscope.results import ResultStore
from hiddenscope.run import open_run
from hiddenscope.store import SnapshotWriter

STEPS, UNITS, SAMPLES = 6, 5, 9


def describe(layers=("lstm",)):
    return RunDescription(
        layers=tuple(LayerDescription(name, "LSTM", np.arange(UNITS), np.arange(STEPS)) for name in layers),
        samples=np.arange(SAMPLES),
        labels=np.arange(SAMPLES) % 3,
        label_names=("a", "b", "c"),
        probe_fingerprint="probe",
        model="Net",
    )


def snapshot(epoch, layers=("lstm",), seed=0):
    rng = np.random.default_rng([seed, int(epoch) + 1])
    states = {name: rng.normal(size=(STEPS, UNITS, SAMPLES)).astype(np.float32) for name in layers}
    return Snapshot(epoch, states, {"train_loss": 1 / (epoch + 2)})


def record(folder, epochs, layers=("lstm",), seed=0):
    with SnapshotWriter.open(folder / "hiddenscope", describe(layers)) as writer:
        for epoch in epochs:
            writer.append(snapshot(float(epoch), layers, seed))
        writer.finish("finished")
    return folder / "hiddenscope"


def until(condition, seconds=60.0, what="it"):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.02)
    return value


def test_a_picture_of_few_units_has_measures_too():
    trace = xr.DataArray(
        np.random.default_rng(0).normal(size=(5, 6, 2, 7)).astype(np.float32), dims=("epoch", "step", "unit", "sample")
    )
    shown = (trace - trace.mean("sample"))[..., :3].rename(sample="component")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measured(trace, shown)
    assert "fidelity_intra" not in found
    assert found["fidelity_inter"] > 1.2 * found["fidelity_inter_chance"]
    assert found["fidelity_trustworthiness"] > found["fidelity_trustworthiness_chance"]
    assert found["fidelity_rank_correlation"] > 0.3


def test_a_picture_holds_the_embedding_its_entropies_and_how_it_was_made(tmp_path):
    run = open_run(record(tmp_path, range(-1, 3)))
    made = picture(run, "lstm")
    assert dict(made["embedding"].sizes) == {"epoch": 4, "step": STEPS, "unit": UNITS, "component": 3}
    assert made["embedding"].dtype == np.float32
    assert made["intra_step_entropy"].dims == ("epoch", "step")
    assert made["inter_step_entropy"].dims == ("epoch", "unit")
    assert np.isfinite(made["embedding"].values).all()
    assert made.attrs["covers_epoch"] == 2.0
    assert made.attrs["made_from"] == run.fingerprint("lstm")
    assert made.attrs["note"] == ""
    xr.testing.assert_identical(made["embedding"], picture(run, "lstm")["embedding"])


def test_the_most_active_class_agrees_with_a_loop():
    rng = np.random.default_rng(3)
    labels = np.array([4, 4, 7, 7, 9, 9, 9])
    trace = xr.DataArray(rng.normal(size=(2, 3, 4, 7)), dims=("epoch", "step", "unit", "sample"))
    trace = trace.assign_coords(label=("sample", labels))
    trace[0, 0, 0] = np.nan
    trace[1, 1, 1, :2] = np.nan
    found = most_active_class(trace)
    for index in np.ndindex(2, 3, 4):
        means = {}
        for label in (4, 7, 9):
            values = [v for v, own in zip(trace.values[index], labels, strict=True) if own == label and not np.isnan(v)]
            if values:
                means[label] = sum(values) / len(values)
        assert found.values[index] == (max(means, key=means.get) if means else -1)


def test_without_labels_no_class_is_claimed():
    trace = xr.DataArray(np.ones((1, 2, 3, 4)), dims=("epoch", "step", "unit", "sample"))
    assert (most_active_class(trace) == -1).all()


def test_thinning_leaves_steps_out_before_epochs_and_keeps_what_it_chose_as_the_run_grows():
    before: set[int] = set(range(128))
    for epochs in range(1, 400, 7):
        stride, chosen = thinned({"epoch": epochs, "step": 128, "unit": 30}, 5_000)
        steps = set(range(128)[stride])
        assert steps <= before, "a step that was left out came back"
        assert len(steps) >= 8
        assert len(steps) * len(chosen) * 30 <= max(5_000, 8 * 2 * 30)
        assert chosen[0] == 0
        assert chosen[-1] == epochs - 1
        before = steps


def test_small_runs_are_embedded_whole():
    stride, chosen = thinned({"epoch": 10, "step": 6, "unit": 5}, 5_000)
    assert len(range(6)[stride]) == 6
    assert len(chosen) == 10


def test_the_worker_embeds_every_layer_of_every_run_once(tmp_path):
    record(tmp_path / "version_0", range(-1, 2), ("lstm", "gru"))
    record(tmp_path / "version_1", range(-1, 2))
    worker = Worker(tmp_path, dashboard=7)
    turns = 0
    while worker.turn():
        turns += 1
    worker.close()
    assert turns == 3
    for name, layers in (("version_0", ("lstm", "gru")), ("version_1", ("lstm",))):
        run = open_run(tmp_path / name)
        assert {key.layer for key in run.results.keys()} == set(layers)  # noqa: SIM118
        entry = journal.read(tmp_path / name / "hiddenscope")
        assert entry is not None
        assert (entry.state, entry.dashboard, entry.pid) == ("idle", 7, os.getpid())


def test_a_new_worker_makes_only_what_is_missing(tmp_path):
    folder = record(tmp_path, range(-1, 2))
    first = Worker(tmp_path)
    assert first.turn()
    first.close()
    version = open_run(folder).results.version
    second = Worker(tmp_path)
    assert not second.turn()
    second.close()
    assert open_run(folder).results.version == version


def test_a_new_epoch_gets_a_new_picture_while_the_training_goes_on(tmp_path):
    with SnapshotWriter.open(tmp_path / "hiddenscope", describe()) as writer:
        writer.append(snapshot(-1.0))
        worker = Worker(tmp_path)
        assert worker.turn()
        assert not worker.turn()
        writer.append(snapshot(0.0))
        assert worker.turn()
        worker.close()
    stored = open_run(tmp_path).results.get("lstm", "mmphate")
    assert stored is not None
    assert stored.attrs["covers_epoch"] == 0.0


def test_a_long_training_is_followed_and_its_end_makes_the_picture_anew(tmp_path, monkeypatch):
    monkeypatch.setattr("hiddenscope.dashboard.picture.ANEW_NODES", 2 * STEPS * UNITS)
    monkeypatch.setattr("hiddenscope.dashboard.picture.FIDELITY_NEIGHBORS", 2)
    made_live = []
    with SnapshotWriter.open(tmp_path / "hiddenscope", describe()) as writer:
        worker = Worker(tmp_path)
        for epoch in range(-1, 4):
            writer.append(snapshot(float(epoch)))
            assert worker.turn()
            stored = open_run(tmp_path).results.get("lstm", "mmphate")
            assert stored is not None
            assert stored["embedding"].sizes["epoch"] == stored["most_active_class"].sizes["epoch"] == epoch + 2
            assert np.isfinite(stored["embedding"].values).all()
            made_live.append(stored.attrs["made_live"])
            assert 0 < stored.attrs["fidelity_inter"] <= 1, "no picture is shown without its measure"
            assert 0 < stored.attrs["fidelity_trustworthiness"] <= 1
            assert stored.attrs["fidelity_trustworthiness_chance"] == pytest.approx(0.5, abs=0.1)
            assert abs(stored.attrs["fidelity_rank_correlation_chance"]) < 0.5
            assert ("fidelity_epochs" in stored.attrs) == made_live[-1]
        assert made_live == [False, False, True, True, True]
        assert not worker.turn()
        writer.finish("finished")
    assert worker.turn()
    assert not worker.turn()
    worker.close()
    run = open_run(tmp_path)
    stored = run.results.get("lstm", "mmphate")
    assert stored is not None
    assert not stored.attrs["made_live"]
    xr.testing.assert_identical(stored["embedding"], picture(run, "lstm")["embedding"])


def test_a_training_that_always_has_news_does_not_keep_an_ended_run_from_its_picture(tmp_path):
    worker = Worker(tmp_path)
    record(tmp_path / "ended", [-1, 0])
    with SnapshotWriter.open(tmp_path / "training" / "hiddenscope", describe()) as writer:
        made = []
        for epoch in range(-1, 2 * EVERYBODY):
            writer.append(snapshot(float(epoch)))
            assert worker.turn()
            stored = open_run(tmp_path / "training").results.get("lstm", "mmphate")
            made.append(stored is not None and stored.attrs["covers_epoch"] == epoch)
    worker.close()
    assert open_run(tmp_path / "ended").results.get("lstm", "mmphate") is not None
    assert made.count(False) == 1, "all other pictures are of the newest run"


@pytest.mark.parametrize("ends", ["finished", "removed"])
def test_a_run_that_has_ended_or_was_removed_takes_no_room_in_the_worker_any_more(tmp_path, ends):
    worker = Worker(tmp_path)
    with SnapshotWriter.open(tmp_path / "one" / "hiddenscope", describe()) as writer:
        for epoch in (-1.0, 0.0):
            writer.append(snapshot(epoch))
            assert worker.turn()
        kept = [weakref.ref(each) for each in (*worker._painters.values(), *worker._runs.values())]
        assert len(kept) == 2
        if ends == "finished":
            writer.finish("finished")
    if ends == "removed":
        shutil.rmtree(tmp_path / "one")
    assert not worker.turn(), "there is nothing left to do"
    gc.collect()
    assert [each() for each in kept] == [None, None]
    worker.close()


def test_a_picture_is_not_continued_over_epochs_that_were_trained_anew(tmp_path, monkeypatch):
    monkeypatch.setattr("hiddenscope.dashboard.picture.ANEW_NODES", 1)
    painter = Painter()
    folder = record(tmp_path, range(-1, 3))
    assert not painter.paint(open_run(folder), "lstm", training=True).attrs["made_live"]
    with SnapshotWriter.open(folder, describe(), resume_after=1.0) as writer:
        for epoch in (2.0, 3.0):
            writer.append(snapshot(epoch, seed=1))
        run = open_run(folder)
        assert not painter.paint(run, "lstm", training=True).attrs["made_live"]
        writer.append(snapshot(4.0, seed=1))
        run.refresh()
        assert painter.paint(run, "lstm", training=True).attrs["made_live"]


def test_an_epoch_that_was_trained_anew_gets_a_new_picture(tmp_path):
    folder = record(tmp_path, range(-1, 3))
    worker = Worker(tmp_path)
    assert worker.turn()
    with SnapshotWriter.open(folder, describe(), resume_after=1.0) as writer:
        writer.append(snapshot(2.0, seed=1))
        writer.finish("finished")
    assert worker.turn(), "the last epoch has the same number and other states"
    assert not worker.turn()
    worker.close()


def test_a_second_worker_leaves_the_run_to_the_first(tmp_path):
    folder = record(tmp_path, range(-1, 2))
    with ResultStore.open(folder, writable=True):
        worker = Worker(tmp_path, dashboard=9)
        assert not worker.turn()
        assert journal.read(folder) is None
        worker.close()


def test_a_failure_is_told_with_advice_and_the_other_runs_go_on(tmp_path, monkeypatch):
    record(tmp_path / "good", range(-1, 1))
    bad = record(tmp_path / "bad", range(-1, 1))
    real = Painter.paint

    def failing(self, run, layer, **options):
        if "bad" in run.path:
            raise MemoryError("the kernel would take 10 GiB")
        return real(self, run, layer, **options)

    monkeypatch.setattr(Painter, "paint", failing)
    worker = Worker(tmp_path)
    assert worker.turn()
    assert worker.turn()
    assert not worker.turn(), "a failed picture is not tried again at once"
    worker.close()
    entry = journal.read(bad)
    assert entry is not None
    assert entry.state == "failed"
    assert "10 GiB" in entry.error
    assert "fewer steps" in entry.advice
    assert open_run(tmp_path / "good").results.get("lstm", "mmphate") is not None


def test_a_picture_that_failed_is_tried_again_with_the_next_epoch(tmp_path, monkeypatch):
    with monkeypatch.context() as broken, SnapshotWriter.open(tmp_path / "hiddenscope", describe()) as writer:
        broken.setattr(Painter, "paint", lambda *_, **__: 1 / 0)
        writer.append(snapshot(-1.0))
        worker = Worker(tmp_path)
        assert worker.turn()
        assert not worker.turn()
        assert "at the next epoch" in journal.read(tmp_path / "hiddenscope").advice
        broken.undo()
        assert not worker.turn(), "nothing is new"
        writer.append(snapshot(0.0))
        assert worker.turn(), "the advice holds"
        worker.close()
    assert journal.read(tmp_path / "hiddenscope").state == "idle"
    assert open_run(tmp_path).results.get("lstm", "mmphate").attrs["covers_epoch"] == 0


def test_a_layer_that_fails_does_not_keep_the_next_from_its_picture(tmp_path, monkeypatch):
    record(tmp_path, range(-1, 1), ("lstm", "gru"))
    real = Painter.paint

    def failing(self, run, layer, **options):
        if layer == "lstm":
            raise ValueError("no picture of this one")
        return real(self, run, layer, **options)

    monkeypatch.setattr(Painter, "paint", failing)
    worker = Worker(tmp_path)
    assert worker.turn()
    assert worker.turn()
    assert not worker.turn()
    assert open_run(tmp_path).results.get("gru", "mmphate") is not None
    with ResultStore.open(tmp_path / "hiddenscope", writable=True):
        pass  # the run has ended and its picture is made, so another may write
    worker.close()


def test_a_journal_that_makes_no_sense_is_no_journal(tmp_path):
    assert journal.read(tmp_path) is None
    for text in ("", "[]", "{}", '{"state": 3}', "\x00" * 50, '{"state": "idle", "pid": "x"}', "[" * 10_000):
        (tmp_path / "worker.json").write_text(text)
        assert journal.read(tmp_path) is None, text[:30]


def test_what_is_written_in_the_journal_is_read_back_even_from_a_newer_version(tmp_path):
    entry = Entry("embedding", layer="lstm", epoch=3.0, dashboard=5)
    journal.write(tmp_path, entry)
    assert journal.read(tmp_path) == entry
    known = json.loads((tmp_path / "worker.json").read_text())
    (tmp_path / "worker.json").write_text(json.dumps(known | {"mood": "fine"}))
    assert journal.read(tmp_path) == entry
    assert [path.name for path in tmp_path.iterdir()] == ["worker.json"]


def test_the_worker_process_embeds_at_low_priority_and_ends_when_its_input_does(tmp_path):
    folder = record(tmp_path, range(-1, 2))
    command = [sys.executable, "-m", "hiddenscope.dashboard.worker", str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        until(lambda: open_run(folder).results.version and open_run(folder).results.get("lstm", "mmphate"), 120)
        assert os.getpriority(os.PRIO_PROCESS, process.pid) >= os.getpriority(os.PRIO_PROCESS, 0) + 10
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()


def test_the_supervisor_starts_a_crashed_worker_again_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("hiddenscope.dashboard.supervisor.FIRST_PAUSE", 0.05)
    script = (
        f"import sys, pathlib; p = pathlib.Path({str(tmp_path)!r}) / 'starts'; "
        "n = len(p.read_text()) if p.exists() else 0; p.write_text('x' * (n + 1)); "
        "sys.exit('no luck today') if n < 2 else sys.stdin.read()"
    )
    supervisor = Supervisor([sys.executable, "-c", script])
    supervisor.start()
    try:
        until(lambda: "no luck today" in supervisor.problem, 30, "the report of a crash")
        assert "code 1" in supervisor.problem
        until(lambda: (tmp_path / "starts").read_text() == "xxx", 30, "the third start")
        until(lambda: supervisor.problem == "", 30, "the end of the warning")
        process = supervisor.process
        assert process is not None
        assert process.poll() is None
    finally:
        supervisor.stop()
    assert process.poll() == 0


def test_a_killed_worker_is_told_by_its_signal(monkeypatch):
    monkeypatch.setattr("hiddenscope.dashboard.supervisor.FIRST_PAUSE", 60.0)
    supervisor = Supervisor([sys.executable, "-c", "import sys; sys.stdin.read()"])
    supervisor.start()
    try:
        process = until(lambda: supervisor.process, 30)
        process.send_signal(signal.SIGKILL)
        until(lambda: f"signal {signal.SIGKILL.value}" in supervisor.problem, 30, "the report of the signal")
    finally:
        supervisor.stop()


@pytest.mark.parametrize("limit", [1, 100, 10_000_000])
def test_thinning_never_asks_for_nothing(limit):
    stride, chosen = thinned({"epoch": 1, "step": 1, "unit": 300}, limit)
    assert len(range(1)[stride]) == 1
    assert len(chosen) == 1


def compiled_functions():
    """Every compiled function of the package that has been imported, and the argument types it was compiled for."""
    return {
        f"{name}.{attribute}": set(value.signatures)
        for name, module in list(sys.modules.items())
        if name.startswith("hiddenscope.") and module is not None
        for attribute, value in vars(module).items()
        if isinstance(value, Dispatcher)
    }


def test_after_the_rehearsal_nothing_is_left_to_compile(tmp_path, monkeypatch):
    rehearse()
    before = compiled_functions()
    assert before
    monkeypatch.setattr("hiddenscope.dashboard.picture.ANEW_NODES", 100)
    folder = record(tmp_path, range(-1, 4))
    painter, run = Painter(), open_run(folder)
    painter.paint(run, "lstm", training=True)
    with SnapshotWriter.open(folder, describe(), resume_after=3.0) as writer:
        writer.append(snapshot(4.0))
    assert run.refresh()
    assert painter.paint(run, "lstm", training=True).attrs["made_live"]
    assert compiled_functions() == before
