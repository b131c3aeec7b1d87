"""Finding runs and reading them, whatever lies around them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import icechunk
import numpy as np
import pandas as pd
import pytest
import zarr

import hiddenscope as hs
from hiddenscope import run as run_module
from hiddenscope.errors import HiddenscopeError, RunFormatError, RunNotFoundError
from hiddenscope.locations import BRANCH, as_location, open_repository
from hiddenscope.store import Snapshot, SnapshotWriter
from store_examples import SAMPLES, STEPS, UNITS, assert_holds, description, snapshot, states


def record(folder: Path, epochs: range = range(-1, 3), *, seed: int = 0) -> Path:
    """A finished run in a log folder; returns the log folder."""
    with SnapshotWriter.open(folder / "hiddenscope", description()) as writer:
        for epoch in epochs:
            writer.append(snapshot(epoch, seed=seed))
    return folder


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("logs") / "version_0", range(-1, 8))


def test_a_run_is_found_from_every_folder_on_its_way(recorded: Path) -> None:
    ways = [recorded.parent, recorded, recorded / "hiddenscope", recorded / "hiddenscope" / "snapshots"]
    for way in ways:
        run = hs.open_run(way)
        assert (run.path, run.name) == (str(recorded / "hiddenscope"), "version_0")
        assert hs.open_run(str(way)).version == run.version


def test_a_relative_path_and_a_link_lead_to_a_run(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recorded.parent)
    assert hs.open_run("version_0").path == str(recorded / "hiddenscope")
    link = tmp_path / "latest"
    link.symlink_to(recorded, target_is_directory=True)
    assert hs.open_run(link).epochs.size == 9


def test_the_newest_run_is_opened_and_all_are_listed_newest_first(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        record(tmp_path / "logs" / f"version_{number}", range(number + 1))
    found = hs.find_runs(tmp_path)
    assert [info.name for info in found] == ["logs/version_1", "logs/version_0", "logs/version_2"]
    assert [info.epoch_count for info in found] == [2, 1, 3]
    assert {info.status for info in found} == {"finished"}
    assert found[0].layers == tuple(UNITS)
    assert found[0].last_epoch == 1
    assert hs.open_run(tmp_path).name == "logs/version_1"
    assert hs.open_run(found[2].path).version == found[2].version
    assert hs.find_runs(tmp_path / "nowhere") == []


def test_a_listing_is_never_stale(tmp_path: Path) -> None:
    record(tmp_path / "version_0", range(2))
    assert [info.epoch_count for info in hs.find_runs(tmp_path)] == [2]
    with SnapshotWriter.open(tmp_path / "version_0" / "hiddenscope", description(), resume_after=1) as writer:
        writer.append(snapshot(2))
        assert [(info.epoch_count, info.status) for info in hs.find_runs(tmp_path)] == [(3, "training")]
    assert [(info.epoch_count, info.status) for info in hs.find_runs(tmp_path)] == [(3, "finished")]
    shutil.rmtree(tmp_path / "version_0")
    assert hs.find_runs(tmp_path) == []
    record(tmp_path / "version_0", range(5), seed=1)  # another run in the same place
    (info,) = hs.find_runs(tmp_path)
    assert info.epoch_count == 5
    assert_holds(hs.open_run(tmp_path), dict.fromkeys(range(5), 1))


def test_a_run_that_has_only_begun_does_not_hide_an_older_one(tmp_path: Path) -> None:
    record(tmp_path / "version_0")
    with SnapshotWriter.open(tmp_path / "version_1" / "hiddenscope", description()):
        assert hs.open_run(tmp_path).name == "version_0"
        newest = hs.find_runs(tmp_path)[0]
        assert (newest.name, newest.status, newest.epoch_count, newest.last_epoch) == ("version_1", "training", 0, None)


def test_where_there_is_no_run_the_error_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError, match=rf"does not exist \(the path is there up to {tmp_path}\); train with"):
        hs.open_run(tmp_path / "a" / "b")
    with pytest.raises(RunNotFoundError, match=r"no run in .*, which holds nothing; train with"):
        hs.open_run(tmp_path)
    for number in range(7):
        (tmp_path / f"events.{number}").touch()
    with pytest.raises(RunNotFoundError, match=r"which holds events.0, events.1, .*events.4 and 2 more; train with"):
        hs.open_run(tmp_path)
    with pytest.raises(RunNotFoundError, match="is a file; a run is a folder named hiddenscope"):
        hs.open_run(tmp_path / "events.0")
    (tmp_path / "hiddenscope" / "snapshots").mkdir(parents=True)
    with pytest.raises(RunNotFoundError, match="has no epoch yet"):
        hs.open_run(tmp_path)
    with pytest.raises(FileNotFoundError):
        hs.open_run(tmp_path)


def test_a_trace_has_named_dims_and_coordinates(recorded: Path) -> None:
    trace = hs.open_run(recorded).trace("decoder/gru.0")
    assert trace.name == "decoder/gru.0"
    assert trace.dims == ("epoch", "step", "unit", "sample")
    assert trace.dtype == np.float32
    np.testing.assert_array_equal(trace.epoch, np.arange(-1, 8))
    np.testing.assert_array_equal(trace.step, np.arange(STEPS))
    np.testing.assert_array_equal(trace.unit, UNITS["decoder/gru.0"])
    np.testing.assert_array_equal(trace["sample"], np.arange(10, 10 + SAMPLES))
    np.testing.assert_array_equal(trace.label, np.arange(SAMPLES) % 3)
    assert trace.label.dims == ("sample",)
    assert trace.sel(unit="forward 0", epoch=3).shape == (STEPS, SAMPLES)
    assert hs.as_trace(trace) is not None


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (None, [-1, 0, 1, 2, 3, 4, 5, 6, 7]),
        (-1, [-1]),
        (7, [7]),
        ([5, 2, 2], [5, 2, 2]),
        (np.array([0.0, 7.0]), [0, 7]),
        ([0, 2, 4, 6], [0, 2, 4, 6]),
        (slice(5, None), [5, 6, 7]),
        (slice(None, 0), [-1, 0]),
        (slice(0.5, 2.5), [1, 2]),
        (slice(90, 99), []),
        ([], []),
    ],
)
@pytest.mark.parametrize(("steps", "kept"), [(None, [0, 1, 2]), (2, [2]), ([2, 0], [2, 0]), (slice(1, None), [1, 2])])
def test_epochs_and_steps_are_chosen_by_value(
    recorded: Path, epochs: object, expected: list[float], steps: object, kept: list[int]
) -> None:
    trace = hs.open_run(recorded).trace("lstm", epochs=epochs, steps=steps)  # type: ignore[arg-type]
    np.testing.assert_array_equal(trace.epoch, expected)
    np.testing.assert_array_equal(trace.step, kept)
    assert trace.shape == (len(expected), len(kept), 3, SAMPLES)
    for row, epoch in enumerate(expected):
        np.testing.assert_array_equal(trace.values[row], states(epoch)["lstm"][kept])


def test_a_wrong_choice_is_refused_in_words(recorded: Path) -> None:
    run = hs.open_run(recorded)
    with pytest.raises(ValueError, match=r'got layer "lstm2"; this run has layers "lstm", "decoder/gru\.0"'):
        run.trace("lstm2")
    with pytest.raises(ValueError, match=r'this run has layers "lstm", "decoder/gru\.0"; say which one'):
        run.trace()
    with pytest.raises(ValueError, match="got epoch 8, 99; this run has epochs -1 to 7"):
        run.trace("lstm", epochs=[0, 8, 99])
    with pytest.raises(ValueError, match="got step -1; this run has steps 0 to 2"):
        run.trace("lstm", steps=-1)
    with pytest.raises(ValueError, match="a slice of epochs has a first and a last, not a stride"):
        run.trace("lstm", epochs=slice(0, 4, 2))


def test_only_the_epochs_that_are_asked_for_are_read(tmp_path: Path) -> None:
    record(tmp_path, range(4))
    first = states(0)["lstm"].tobytes()
    chunks = (tmp_path / "hiddenscope" / "snapshots" / "chunks").iterdir()
    (lost,) = (path for path in chunks if path.read_bytes() == first)
    lost.unlink()
    run = hs.open_run(tmp_path)
    np.testing.assert_array_equal(run.trace("lstm", epochs=3).values[0], states(3)["lstm"])
    with pytest.raises(RunFormatError, match="cannot be read"):
        run.trace("lstm", epochs=0)


def test_metrics_are_a_table_by_epoch(recorded: Path) -> None:
    table = hs.open_run(recorded).metrics()
    assert isinstance(table, pd.DataFrame)
    assert table.index.name == "epoch"
    assert table.index.tolist() == list(range(-1, 8))
    assert set(table.columns) == {"train_loss", "val_loss"}
    assert table["val_loss"].notna().tolist() == [False] * 3 + [True] * 6
    np.testing.assert_array_equal(table["train_loss"], 1 / (np.arange(-1, 8) + 2))


def test_labels_and_probe_are_given_with_their_names(recorded: Path, tmp_path: Path) -> None:
    run = hs.open_run(recorded)
    assert run.labels is not None
    assert run.labels.dims == ("sample",)
    np.testing.assert_array_equal(run.labels.sel(sample=[10, 15]), [0, 2])
    assert run.label_names == ("walk", "run", "sit")
    assert run.probe is not None
    assert run.probe.shape == (SAMPLES, STEPS, 2)
    bare = description(labels=None, label_names=None, probe=None)
    with SnapshotWriter.open(tmp_path / "hiddenscope", bare) as writer:
        writer.append(snapshot(0))
    run = hs.open_run(tmp_path)
    assert (run.labels, run.label_names, run.probe) == (None, None, None)
    assert "label" not in run.trace("lstm").coords


def test_the_run_shows_itself_shortly(recorded: Path) -> None:
    run = hs.open_run(recorded)
    assert repr(run) == (
        '<hiddenscope.Run \'version_0\': finished, 9 epochs (-1 to 7), layers "lstm", "decoder/gru.0">'
    )
    page = run._repr_html_()
    assert "version_0" in page
    assert "<td>decoder/gru.0</td><td>GRU</td><td>3</td><td>2</td><td>50</td>" in page


def test_names_from_a_run_are_not_html(tmp_path: Path) -> None:
    layer = hs.open_run(record(tmp_path / "a")).description.layer("lstm")
    evil = "<script>alert(1)</script>"
    named = description(layers=(type(layer)(evil, evil, layer.units, layer.steps),))
    with SnapshotWriter.open(tmp_path / "b" / evil.replace("/", "|") / "hiddenscope", named) as writer:
        writer.append(Snapshot(0, {evil: states(0)["lstm"]}))
    page = hs.open_run(tmp_path / "b")._repr_html_()
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_results_are_at_hand_even_before_there_are_any(recorded: Path) -> None:
    run = hs.open_run(recorded)
    assert run.results.get("lstm", "mmphate") is None
    assert run.results.keys() == []
    assert run.results is run.results


def test_a_training_that_cannot_be_asked_counts_as_killed_after_long_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SnapshotWriter.open(tmp_path / "hiddenscope", description())
    writer.append(snapshot(0))
    writer.append(snapshot(1))
    run = hs.open_run(tmp_path)
    writer._lock.release()  # type: ignore[union-attr]  # as if the process had died …
    assert run.status == "killed"
    lock = tmp_path / "hiddenscope" / "snapshots.lock"
    lock.write_text(json.dumps({"host": "another machine", "pid": 1}))  # … or lived elsewhere, out of sight
    assert run.status == "training"
    last = run.updated_at
    monkeypatch.setattr(run_module.time, "time", lambda: last + 599)
    assert run.status == "training"
    monkeypatch.setattr(run_module.time, "time", lambda: last + 601)
    assert run.status == "killed"
    assert hs.find_runs(tmp_path)[0].status == "killed"


def test_a_training_with_long_epochs_may_be_silent_for_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = SnapshotWriter.open(tmp_path / "hiddenscope", description())
    start = 1_000_000.0
    for epoch, hours in enumerate([0, 1, 3]):
        monkeypatch.setattr("hiddenscope.store.time.time", lambda hours=hours: start + 3600 * hours)
        writer.append(snapshot(epoch))
    writer._lock.release()  # type: ignore[union-attr]
    (tmp_path / "hiddenscope" / "snapshots.lock").write_text("{}")
    run = hs.open_run(tmp_path)
    np.testing.assert_array_equal(run.written_at, start + 3600 * np.array([0.0, 1, 3]))
    for hours, status in ((12.9, "training"), (13.1, "killed")):  # five times the longest epoch of two hours
        monkeypatch.setattr(run_module.time, "time", lambda hours=hours: start + 3600 * hours)
        assert run.status == status


HOSTILE = {
    "hiddenscope_format": "1",
    "status": {"a": 1},
    "layers": [["lstm"]],
    "created_at": "yesterday",
    "states_dtype": 7,
    "label_names": 5,
}


@pytest.mark.parametrize("attribute", HOSTILE)
def test_nonsense_in_a_run_is_an_error_of_ours_and_hides_no_other_run(tmp_path: Path, attribute: str) -> None:
    record(tmp_path / "good")
    record(tmp_path / "odd")
    repository = open_repository(as_location(tmp_path / "odd" / "hiddenscope" / "snapshots"))
    assert repository is not None
    session = repository.writable_session(BRANCH)
    zarr.open_group(session.store, mode="r+").update_attributes({attribute: HOSTILE[attribute]})
    session.commit("nonsense")
    assert "good" in [info.name for info in hs.find_runs(tmp_path)]
    try:
        run = hs.open_run(tmp_path / "odd")
        for layer in run.layers:
            run.trace(layer)
    except HiddenscopeError:
        pass


def test_a_run_that_claims_endless_epochs_is_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    record(tmp_path)
    repository = open_repository(as_location(tmp_path / "hiddenscope" / "snapshots"))
    assert repository is not None
    session = repository.writable_session(BRANCH)
    root = zarr.open_group(session.store, mode="r+")
    del root["epoch"]
    root.create_array("epoch", shape=(10**13,), chunks=(10**9,), dtype="f8")
    session.commit("a bomb")
    with pytest.raises(RunFormatError, match=r"claims \(10000000000000,\) epochs"):
        hs.open_run(tmp_path)


@pytest.mark.parametrize("damage", ["emptied", "cut", "scrambled", "removed"])
def test_damaged_files_are_reported_and_hide_no_other_run(tmp_path: Path, damage: str) -> None:
    record(tmp_path / "good")
    original = record(tmp_path / "original")
    dice = np.random.default_rng(0)
    kinds = ("config.yaml", "refs", "snapshots", "manifests", "transactions", "chunks")
    for kind in kinds:
        odd = tmp_path / "odd"
        shutil.copytree(original, odd)
        place = odd / "hiddenscope" / "snapshots" / kind
        for path in [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]:
            content = path.read_bytes()
            if damage == "removed":
                path.unlink()
            elif damage == "emptied":
                path.write_bytes(b"")
            elif damage == "cut":
                path.write_bytes(content[: len(content) // 2])
            else:
                path.write_bytes(dice.bytes(len(content)))
        assert "good" in [info.name for info in hs.find_runs(tmp_path)], kind
        try:
            run = hs.open_run(odd)
            run.metrics()
            run.trace("lstm")
        except HiddenscopeError as error:
            told = str(error)
        else:
            told = str(odd)
        assert str(odd) in told, kind
        assert "\n" not in told, kind
        shutil.rmtree(odd)


def test_folders_that_only_look_like_runs_do_no_harm(tmp_path: Path) -> None:
    record(tmp_path / "good")
    (tmp_path / "looks" / "hiddenscope" / "snapshots" / "refs").mkdir(parents=True)
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "hiddenscope").write_text("not a folder")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / ".hidden").mkdir()
    record(tmp_path / ".hidden" / "run")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0)
    try:
        assert [info.name for info in hs.find_runs(tmp_path) if info.epoch_count] == ["good"]
    finally:
        locked.chmod(0o700)


def test_reading_a_run_imports_nothing_heavy(recorded: Path) -> None:
    code = (
        "import sys, hiddenscope as hs; run = hs.open_run(sys.argv[1]); run.trace('lstm'); run.metrics();"
        "print([name for name in ('torch', 'pytorch_lightning', 'phate', 'dash', 'plotly', 'sklearn', 'matplotlib')"
        " if name in sys.modules])"
    )
    told = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, recorded],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (told.stdout, told.stderr) == ("[]\n", "")


def test_a_read_only_folder_can_be_read(tmp_path: Path) -> None:
    record(tmp_path)
    paths = [tmp_path, *tmp_path.rglob("*")]
    for path in paths:
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        assert_holds(hs.open_run(tmp_path), dict.fromkeys(range(-1, 3), 0))
    finally:
        for path in paths:
            path.chmod(0o700 if path.is_dir() else 0o600)


def test_a_run_cannot_make_its_reader_read_other_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(states(0)["lstm"].tobytes())
    place = record(tmp_path / "run", range(1)) / "hiddenscope" / "snapshots"
    address = f"file://{tmp_path}/"
    config = icechunk.RepositoryConfig.default()
    config.set_virtual_chunk_container(
        icechunk.VirtualChunkContainer(address, icechunk.local_filesystem_store(str(tmp_path)))
    )
    repository = icechunk.Repository.open(
        icechunk.local_filesystem_storage(str(place)), config, authorize_virtual_chunk_access={address: None}
    )
    repository.save_config()
    session = repository.writable_session(BRANCH)
    session.store.set_virtual_ref(
        "layers/lstm/states/c/0/0/0/0", f"{address}secret", offset=0, length=secret.stat().st_size
    )
    session.commit("look over there")
    there = zarr.open_group(repository.readonly_session(BRANCH).store, mode="r")["layers/lstm/states"]
    np.testing.assert_array_equal(there[0], states(0)["lstm"])  # it works for those who allow it
    with pytest.raises(RunFormatError, match="cannot be read"):
        hs.open_run(tmp_path / "run").trace("lstm")
