"""The contract of the run store, kept at every location."""

from __future__ import annotations

import math
import uuid
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from hiddenscope import open_run
from hiddenscope.errors import RecordingError, RunFormatError, RunLockedError, RunNotFoundError
from hiddenscope.layout import FORMAT
from hiddenscope.locations import BRANCH, as_location, commit, create_repository, open_repository
from hiddenscope.run import Run
from hiddenscope.store import LayerDescription, RunDescription, Snapshot, SnapshotWriter
from store_examples import SAMPLES, STEPS, UNITS, assert_holds, description, snapshot, states


class StoreContract:
    """What every location promises; subclasses give the location as a fixture."""

    @pytest.fixture
    def location(self) -> str:
        raise NotImplementedError

    def test_what_was_appended_is_read_back(self, location: str) -> None:
        with SnapshotWriter.open(location, description()) as writer:
            for epoch in range(-1, 4):
                writer.append(snapshot(epoch))
            np.testing.assert_array_equal(writer.epochs, [-1, 0, 1, 2, 3])
        assert_holds(open_run(location), dict.fromkeys(range(-1, 4), 0))

    def test_a_metric_that_appears_late_is_nan_before(self, location: str) -> None:
        with SnapshotWriter.open(location, description()) as writer:
            for epoch in range(4):
                writer.append(snapshot(epoch))
        late = open_run(location).metrics()["val_loss"]
        assert late.isna().tolist() == [True, True, False, False]

    def test_a_metric_that_goes_missing_is_nan_after(self, location: str) -> None:
        with SnapshotWriter.open(location, description()) as writer:
            writer.append(Snapshot(0, states(0), {"once": 3.0, "diverged": math.inf}))
            writer.append(Snapshot(1, states(1), {}))
        table = open_run(location).metrics()
        np.testing.assert_array_equal(table["once"], [3.0, np.nan])
        np.testing.assert_array_equal(table["diverged"], [np.inf, np.nan])

    def test_many_metrics_over_many_epochs_keep_their_places(self, location: str) -> None:
        names = [f"metric {number:02d}" for number in range(19)]
        with SnapshotWriter.open(location, tiny()) as writer:
            for epoch in range(140):  # more epochs and more names than fit in one chunk
                known = names[: 1 + epoch // 5]
                writer.append(Snapshot(epoch, {"rnn": np.full((1, 1, 1), epoch)}, dict.fromkeys(known, epoch)))
        run = open_run(location)
        table = run.metrics()[names].to_numpy()
        first = 5 * np.arange(19)
        expected = np.where(np.arange(140)[:, None] >= first, np.arange(140.0)[:, None], np.nan)
        np.testing.assert_array_equal(table, expected)
        np.testing.assert_array_equal(run.trace().values.ravel(), np.arange(140))

    def test_metrics_that_come_late_are_added_to_their_epoch_with_the_next_or_with_the_end(self, location: str) -> None:
        with SnapshotWriter.open(location, description()) as writer:
            for epoch in range(131):  # the first is in another chunk than the last
                writer.append(Snapshot(epoch, states(epoch), {"loss": epoch}))
            late = {0.0: {"late": 5.0}, 129.0: {"loss": -1.0}, 77.5: {"never": 1.0}}
            writer.append(Snapshot(131, states(131), {"loss": 131}, {}, late))
            between = open_run(location).metrics()
            writer.finish("interrupted", amended={131.0: {"late": 6.0, "last": math.nan}})
        table = open_run(location).metrics()
        assert between["late"].dropna().to_dict() == {0: 5}
        assert table["late"].dropna().to_dict() == {0: 5, 131: 6}
        assert table["loss"].tolist() == [*range(129), -1, 130, 131]
        assert table.columns.tolist() == ["loss", "late", "last"]
        assert open_run(location).status == "interrupted"

    def test_late_metrics_of_a_resumed_run_wait_for_its_first_epoch(self, location: str) -> None:
        with SnapshotWriter.open(location, description()) as writer:
            for epoch in range(3):
                writer.append(snapshot(epoch))
        SnapshotWriter.open(location, description(), resume_after=0).finish(amended={0.0: {"late": 1.0}})
        assert_holds(open_run(location), {0: 0, 1: 0, 2: 0})
        with SnapshotWriter.open(location, description(), resume_after=0) as writer:
            writer.append(Snapshot(1, states(1, seed=2), {}, {}, {0.0: {"late": 1.0}, 2.0: {"late": 2.0}}))
        assert open_run(location).metrics()["late"].dropna().to_dict() == {0: 1}

    def test_the_description_survives(self, location: str) -> None:
        with SnapshotWriter.open(location, description()) as writer:
            writer.append(snapshot(-1))
        found, given = open_run(location).description, description()
        assert [layer.name for layer in found.layers] == list(UNITS)
        assert [layer.settings for layer in found.layers] == [{"batch_first": True, "module": name} for name in UNITS]
        assert found.modules == given.modules
        assert open_run(location).token_names == ("the", "a", "naïve")
        for name, units in UNITS.items():
            np.testing.assert_array_equal(found.layer(name).units, units)
        np.testing.assert_array_equal(found.samples, given.samples)
        np.testing.assert_array_equal(found.labels, given.labels)
        np.testing.assert_array_equal(found.probe, given.probe)
        assert (found.label_names, found.model) == (given.label_names, given.model)
        assert (found.probe_fingerprint, found.settings) == (given.probe_fingerprint, {"every": 1})

    def test_resuming_supersedes_later_epochs_only_once_the_next_is_written(self, location: str) -> None:
        with SnapshotWriter.open(location, description()) as writer:
            for epoch in range(-1, 5):
                writer.append(snapshot(epoch))
        with SnapshotWriter.open(location, description(), resume_after=1) as writer:
            np.testing.assert_array_equal(writer.epochs, [-1, 0, 1])
            assert_holds(open_run(location), dict.fromkeys(range(-1, 5), 0))
            assert open_run(location).resumed_after == ()
            writer.append(snapshot(2, seed=1))
            assert_holds(open_run(location), {-1: 0, 0: 0, 1: 0, 2: 1})
            writer.append(snapshot(3, seed=1))
        assert_holds(open_run(location), {-1: 0, 0: 0, 1: 0, 2: 1, 3: 1})
        assert open_run(location).resumed_after == (1.0,)
        with SnapshotWriter.open(location, description(), resume_after=3) as writer:
            writer.append(snapshot(4))
        assert open_run(location).resumed_after == (1.0, 3.0)

    def test_resuming_without_a_new_epoch_loses_nothing(self, location: str) -> None:
        with SnapshotWriter.open(location, description()) as writer:
            for epoch in range(3):
                writer.append(snapshot(epoch))
        SnapshotWriter.open(location, description(), resume_after=0).finish("interrupted")
        run = open_run(location)
        assert_holds(run, {0: 0, 1: 0, 2: 0})
        assert run.status == "interrupted"

    def test_resuming_before_the_first_epoch_starts_over(self, location: str) -> None:
        with SnapshotWriter.open(location, description()) as writer:
            writer.append(snapshot(0))
            writer.append(snapshot(1))
        with SnapshotWriter.open(location, description(), resume_after=-5) as writer:
            writer.append(snapshot(-1, seed=3))
        assert_holds(open_run(location), {-1: 3})

    def test_resuming_where_nothing_is_begins_a_run(self, location: str) -> None:
        with SnapshotWriter.open(location, description(), resume_after=7) as writer:
            writer.append(snapshot(8))
        assert_holds(open_run(location), {8: 0})

    def test_fractional_epochs_are_kept_exactly(self, location: str) -> None:
        epochs = [-1, 0, 1 / 3, 0.5, 0.999, 1]
        with SnapshotWriter.open(location, description()) as writer:
            for epoch in epochs:
                writer.append(snapshot(epoch))
        np.testing.assert_array_equal(open_run(location).epochs, epochs)

    def test_a_run_with_epochs_is_not_begun_again(self, location: str) -> None:
        with SnapshotWriter.open(location, description()) as writer:
            writer.append(snapshot(0))
        with pytest.raises(RecordingError, match=r"already holds a run \(1 records\); choose another folder, or"):
            SnapshotWriter.open(location, description())

    def test_a_run_without_epochs_is_begun_again(self, location: str) -> None:
        SnapshotWriter.open(location, tiny()).finish("interrupted")
        with SnapshotWriter.open(location, description()) as writer:
            writer.append(snapshot(0))
        assert_holds(open_run(location), {0: 0})

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"model": "Other"}, "its model is Classifier, not Other"),
            ({"probe_fingerprint": "beef"}, "its probe holds other sequences"),
            ({"labels": None}, "it has known labels, not no labels"),
            ({"labels": np.zeros(SAMPLES)}, "it has other labels"),
            ({"layers": description().layers[:1]}, "its layers are 'lstm', 'decoder/gru.0', not 'lstm'"),
            (
                {
                    "layers": (
                        LayerDescription("lstm", "GRU", np.arange(7), np.arange(STEPS)),
                        description().layers[1],
                    )
                },
                "layer 'lstm' has kind LSTM, not GRU; layer 'lstm' has 3 units, not 7",
            ),
        ],
    )
    def test_another_model_or_probe_is_refused_with_what_differs(
        self, location: str, change: dict[str, object], message: str
    ) -> None:
        with SnapshotWriter.open(location, description()) as writer:
            writer.append(snapshot(0))
        with pytest.raises(RecordingError, match=message):
            SnapshotWriter.open(location, description(**change), resume_after=0)
        with SnapshotWriter.open(location, description(settings={"every": 2}), resume_after=0) as writer:
            writer.append(snapshot(1))  # and the refusal left no lock behind

    def test_another_precision_is_refused(self, location: str) -> None:
        with SnapshotWriter.open(location, description()) as writer:
            writer.append(snapshot(0))
        with pytest.raises(RecordingError, match="its states are float32, not float16"):
            SnapshotWriter.open(location, description(), resume_after=0, dtype="float16")

    def test_half_precision_is_read_as_float32(self, location: str) -> None:
        with SnapshotWriter.open(location, description(), dtype="float16") as writer:
            writer.append(snapshot(0))
        trace = open_run(location).trace("lstm")
        assert trace.dtype == np.float32
        np.testing.assert_array_equal(trace.values[0], states(0)["lstm"].astype(np.float16).astype(np.float32))

    def test_what_is_too_large_for_float16_is_infinite_and_no_warning(self, location: str) -> None:
        large = {name: np.full_like(values, 1e5) for name, values in states(0).items()}
        with SnapshotWriter.open(location, description(modules=()), dtype="float16") as writer:
            writer.append(Snapshot(0, large))
        assert np.isposinf(open_run(location).trace("lstm").values).all()

    def test_nan_and_infinite_states_are_kept(self, location: str) -> None:
        odd = states(0)
        odd["lstm"][:] = np.nan
        odd["decoder/gru.0"][0, 0, :3] = [np.inf, -np.inf, np.nan]
        with SnapshotWriter.open(location, description()) as writer:
            writer.append(Snapshot(0, odd, {"loss": math.nan}))
        run = open_run(location)
        for layer, values in odd.items():
            np.testing.assert_array_equal(run.trace(layer).values[0], values)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            (Snapshot(0, states(0)), "epochs must grow: got 0 after 3"),
            (Snapshot(3, states(3)), "epochs must grow: got 3 after 3"),
            (Snapshot(math.nan, states(4)), "an epoch is a finite number, got nan"),
            (Snapshot(4, {"lstm": states(4)["lstm"]}), r"states of layers \['decoder/gru.0', 'lstm'\], got \['lstm'\]"),
            (
                Snapshot(4, {**states(4), "lstm": np.zeros((STEPS, 3, SAMPLES + 1))}),
                r"layer 'lstm' need \(step, unit, sample\) = \(3, 3, 50\), got \(3, 3, 51\)",
            ),
        ],
    )
    def test_a_wrong_snapshot_is_refused_and_changes_nothing(
        self, location: str, wrong: Snapshot, message: str
    ) -> None:
        with SnapshotWriter.open(location, description()) as writer:
            writer.append(snapshot(3))
            with pytest.raises(ValueError, match=message):
                writer.append(wrong)
            writer.append(snapshot(4))
        assert_holds(open_run(location), {3: 0, 4: 0})

    def test_a_second_writer_is_refused_until_the_first_is_done(self, location: str) -> None:
        with SnapshotWriter.open(location, description()) as writer:
            writer.append(snapshot(0))
            with pytest.raises(RunLockedError, match="already has a writer"):
                SnapshotWriter.open(location, description(), resume_after=0)
            writer.append(snapshot(1))
        with SnapshotWriter.open(location, description(), resume_after=1) as writer:
            writer.append(snapshot(2))
        assert_holds(open_run(location), {0: 0, 1: 0, 2: 0})

    def test_the_status_follows_the_writer(self, location: str) -> None:
        writer = SnapshotWriter.open(location, description())
        writer.append(snapshot(0))
        run = open_run(location)
        assert run.status == "training"
        writer.finish()
        assert run.status == "finished"
        writer.finish("interrupted")  # too late: the first word counts
        assert open_run(location).status == "finished"
        again = SnapshotWriter.open(location, description(), resume_after=0)
        assert run.status == "training"
        again.finish("interrupted")
        assert run.status == "interrupted"

    def test_an_error_in_the_training_interrupts_the_run(self, location: str) -> None:
        def train() -> None:
            with SnapshotWriter.open(location, description()) as writer:
                writer.append(snapshot(0))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            train()
        assert open_run(location).status == "interrupted"

    def test_a_finished_writer_says_so(self, location: str) -> None:
        with SnapshotWriter.open(location, description()) as writer:
            writer.append(snapshot(0))
        with pytest.raises(ValueError, match="is finished; open another one"):
            writer.append(snapshot(1))
        with pytest.raises(ValueError, match="a training ends 'finished' or 'interrupted', got 'done'"):
            writer.finish("done")

    def test_a_reader_stays_at_its_commit_until_it_refreshes(self, location: str) -> None:
        with SnapshotWriter.open(location, description()) as writer:
            writer.append(snapshot(0))
            run = open_run(location)
            version = run.version
            assert not run.refresh()
            writer.append(snapshot(1))
            writer.append(snapshot(2))
            assert_holds(run, {0: 0})
            assert run.version == version
            assert run.refresh()
            assert run.version != version
            assert_holds(run, {0: 0, 1: 0, 2: 0})

    def test_a_pinned_reader_outlives_what_supersedes_it(self, location: str) -> None:
        with SnapshotWriter.open(location, description()) as writer:
            for epoch in range(4):
                writer.append(snapshot(epoch))
        run = open_run(location)
        with SnapshotWriter.open(location, description(), resume_after=0) as writer:
            writer.append(snapshot(1, seed=9))
        assert_holds(run, dict.fromkeys(range(4), 0))

    def test_other_tools_read_the_same_numbers_with_zarr_and_xarray(self, location: str) -> None:
        with SnapshotWriter.open(location, description()) as writer:
            for epoch in range(3):
                writer.append(snapshot(epoch))
        repository = open_repository(as_location(location) / "snapshots")
        assert repository is not None
        tree = xr.open_datatree(
            repository.readonly_session(BRANCH).store, engine="zarr", consolidated=False, zarr_format=3
        )
        with tree:
            layer = tree["layers/lstm"]
            assert layer["states"].dims == ("epoch", "step", "unit", "sample")
            np.testing.assert_array_equal(layer["epoch"], [0, 1, 2])
            np.testing.assert_array_equal(layer["unit"], UNITS["lstm"])
            np.testing.assert_array_equal(layer["states"][2], states(2)["lstm"])
            assert tree.attrs["hiddenscope_format"] == FORMAT

    def test_a_newer_format_is_refused_in_words(self, location: str) -> None:
        with SnapshotWriter.open(location, description()) as writer:
            writer.append(snapshot(0))
        rewrite_attributes(location, hiddenscope_format=FORMAT + 1, hiddenscope_version="99.0")
        message = f"run format {FORMAT + 1}, written by hiddenscope 99.0; this is .* reads formats up to {FORMAT}"
        with pytest.raises(RunFormatError, match=message):
            open_run(location)
        with pytest.raises(RunFormatError, match=message):
            SnapshotWriter.open(location, description(), resume_after=0)

    def test_a_run_without_an_epoch_says_that_it_waits(self, location: str) -> None:
        with (
            SnapshotWriter.open(location, description()),
            pytest.raises(RunNotFoundError, match=r"has no epoch yet \(begun \d+ s ago, training\)"),
        ):
            open_run(location)


class TestMemory(StoreContract):
    @pytest.fixture
    def location(self) -> str:
        return f"memory://{uuid.uuid4().hex}/hiddenscope"


class TestDisk(StoreContract):
    @pytest.fixture
    def location(self, tmp_path: Path) -> str:
        return str(tmp_path / "a run" / "hiddenscope")

    def test_a_path_object_and_a_file_address_are_the_same_place(self, tmp_path: Path) -> None:
        with SnapshotWriter.open(tmp_path / "a b" / "hiddenscope", description()) as writer:
            writer.append(snapshot(0))
        for path in (tmp_path / "a b", (tmp_path / "a b").as_uri(), str(tmp_path)):
            assert_holds(open_run(path), {0: 0})

    def test_a_failed_write_leaves_the_run_as_it_was(self, location: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with SnapshotWriter.open(location, description()) as writer:
            writer.append(snapshot(0))
            chunks = Path(location) / "snapshots" / "chunks"
            hidden = chunks.rename(chunks.with_name("elsewhere"))
            chunks.write_text("a file where a folder belongs")
            with pytest.raises(OSError, match="cannot be written"):
                writer.append(snapshot(1))
            chunks.unlink()
            hidden.rename(chunks)
            writer.append(snapshot(1, seed=1))
        assert_holds(open_run(location), {0: 0, 1: 1})

    def test_an_interruption_right_after_a_commit_costs_nothing(
        self, location: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*arguments: object, **named: object) -> str:
            commit(*arguments, **named)  # type: ignore[arg-type]
            raise KeyboardInterrupt

        with SnapshotWriter.open(location, description()) as writer:
            writer.append(snapshot(0))
            with monkeypatch.context() as patch:
                patch.setattr("hiddenscope.store.commit", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    writer.append(snapshot(1))
            assert_holds(open_run(location), {0: 0, 1: 0})
            writer.append(snapshot(1, seed=1))  # the writer does not know of it, and writes it again
            writer.append(snapshot(2, seed=1))
        assert_holds(open_run(location), {0: 0, 1: 1, 2: 1})

    def test_big_epochs_are_split_along_their_steps(self, tmp_path: Path) -> None:
        shape = (40, 256, 300)  # 12 MB
        layer = LayerDescription("rnn", "RNN", np.arange(shape[1]), np.arange(shape[0]))
        about = RunDescription((layer,), np.arange(shape[2]), None, None, "x", "M")
        values = np.random.default_rng(0).random(shape, dtype=np.float32)
        with SnapshotWriter.open(tmp_path, about) as writer:
            writer.append(Snapshot(0, {"rnn": values}))
            writer.append(Snapshot(1, {"rnn": -values}))
        run = Run(as_location(tmp_path))
        np.testing.assert_array_equal(run.trace(steps=slice(20, None)).values, np.stack([values, -values])[:, 20:])
        largest = max(path.stat().st_size for path in (tmp_path / "snapshots" / "chunks").iterdir())
        assert largest <= 8 * 2**20


def test_a_folder_of_somebody_else_is_not_written_over(tmp_path: Path) -> None:
    session = create_repository(as_location(tmp_path / "snapshots")).writable_session(BRANCH)
    zarr.create_group(session.store).create_array("precious", shape=(2,), dtype="f8")
    session.commit("not ours")
    with pytest.raises(RunFormatError, match="hiddenscope did not write it"):
        SnapshotWriter.open(tmp_path, description())


@pytest.mark.parametrize(
    ("address", "options", "message"),
    [
        ("ftp://host/run", None, "a run lies in a folder, at s3://bucket/prefix or at memory://name, got 'ftp://host"),
        ("s3://", None, "s3:// needs a bucket after it"),
        ("s3://bucket/run", {"endpoint": "x"}, "got storage option 'endpoint'; known are access_key_id, allow_http"),
        ("somewhere", {"region": "x"}, "got storage option 'region'; only s3:// takes options"),
    ],
)
def test_a_wrong_address_is_refused_in_words(address: str, options: dict[str, str] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_location(address, options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": ()}, "at least one layer"),
        ({"layers": (description().layers[0],) * 2}, "layers need different names, got 'lstm', 'lstm'"),
        ({"labels": np.arange(3)}, "one label per sample: got 3 labels for 50 samples"),
        ({"samples": np.arange(0.5, 50)}, "samples must be whole numbers, got dtype float64"),
        ({"probe": np.zeros((5, 2))}, r"the probe needs 50 samples first, got shape \(5, 2\)"),
        ({"probe": np.array(["a"] * SAMPLES)}, "the probe needs real numbers"),
        ({"settings": {"f": print}}, r"settings of the run must be plain JSON .* got a builtin"),
        ({"settings": {"f": math.nan}}, "settings of the run must be plain JSON"),
    ],
)
def test_a_description_that_cannot_be_stored_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        description(**changes)


def test_the_store_keeps_no_reference_to_the_description(tmp_path: Path) -> None:
    labels = np.arange(SAMPLES)
    about = description(labels=labels)
    labels[:] = 9
    assert about.labels is not None
    np.testing.assert_array_equal(about.labels, np.arange(SAMPLES))


def tiny() -> RunDescription:
    layer = LayerDescription("rnn", "RNN", np.arange(1), np.arange(1))
    return RunDescription((layer,), np.arange(1), None, None, "", "M")


def rewrite_attributes(location: str, **attributes: object) -> None:
    repository = open_repository(as_location(location) / "snapshots")
    assert repository is not None
    session = repository.writable_session(BRANCH)
    zarr.open_group(session.store, mode="r+").update_attributes(dict(attributes))
    session.commit("changed by a test")
