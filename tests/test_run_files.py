"""Runs as files: traces from elsewhere, exports, and the table of runs."""

from __future__ import annotations

import itertools
import pickle
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import hiddenscope as hs
from hiddenscope.cli import main
from hiddenscope.errors import MissingExtraError, RecordingError
from hiddenscope.exporting import export_trace
from hiddenscope.listing import last_loss, layers_in_words
from hiddenscope.store import LayerDescription, RunDescription, SnapshotWriter
from hiddenscope.trace import TRACE_DIMS
from store_examples import UNITS, description, snapshot, states

TRACE = np.random.default_rng(0).normal(size=(6, 4, 3, 5)).astype(np.float32)  # (epoch, step, unit, sample)
numbers = itertools.count()


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A finished run of two layers and five epochs, in its log folder."""
    with SnapshotWriter.open(tmp_path / "logs" / "version_3" / "hiddenscope", description()) as writer:
        for epoch in range(-1, 4):
            writer.append(snapshot(epoch))
    return tmp_path / "logs" / "version_3"


@settings(max_examples=12)
@given(axes=st.permutations(TRACE_DIMS), missing=st.sets(st.sampled_from(["epoch", "step", "sample"])))
def test_axes_in_any_order_and_number_arrive_where_they_belong(axes: list[str], missing: set[str]) -> None:
    canonical = xr.DataArray(TRACE, dims=TRACE_DIMS).isel(dict.fromkeys(missing, 0))
    named = [axis for axis in axes if axis not in missing]
    run = hs.import_trace(canonical.transpose(*named).values, f"memory://axes-{next(numbers)}", axes=named)
    expected = canonical.expand_dims([dim for dim in TRACE_DIMS if dim in missing]).transpose(*TRACE_DIMS)
    np.testing.assert_array_equal(run.trace().values, expected.values)


def test_a_data_array_brings_its_names_and_coordinates(tmp_path: Path) -> None:
    trace = xr.DataArray(
        TRACE,
        dims=TRACE_DIMS,
        coords={
            "epoch": [-1, 0, 1, 2, 4, 8],
            "step": [0, 10, 20, 30],
            "unit": ["i", "j", "k"],
            "label": ("sample", ["x", "y", "x", "y", "y"]),
        },
        name="my lstm",
    )
    run = hs.import_trace(
        trace.transpose("sample", "epoch", "unit", "step"), tmp_path, metrics=pd.DataFrame({"loss": np.arange(6)})
    )
    assert run.layers == ("my lstm",)
    assert run.status == "finished"
    assert run.label_names == ("x", "y")
    found = run.trace()
    np.testing.assert_array_equal(found.values, TRACE)
    for name in ("epoch", "step", "unit"):
        np.testing.assert_array_equal(found[name], trace[name])
    np.testing.assert_array_equal(found.label, [0, 1, 0, 1, 1])
    assert run.metrics()["loss"].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "suffix", [".npy", ".npz", ".h5", ".labelled.h5", ".nc", ".zarr", ".array.zarr", ".labelled.zarr"]
)
def test_every_kind_of_file_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"keras{suffix}"
    swapped = TRACE.transpose(0, 3, 1, 2)  # as Keras has it: (epoch, sample, step, unit)
    axes = ("epoch", "sample", "step", "unit")
    if suffix == ".npy":
        np.save(path, swapped)
    elif suffix == ".npz":
        np.savez(path, keras=swapped, epoch=np.arange(6) * 2, noise=np.arange(3))
    elif suffix == ".nc":
        xr.Dataset({"keras": (axes, swapped)}, coords={"epoch": np.arange(6) * 2}).to_netcdf(path)
    elif suffix == ".labelled.zarr":
        dataset = xr.Dataset({"keras": (axes, swapped)}, coords={"epoch": np.arange(6) * 2})
        dataset.to_zarr(path, zarr_format=2, consolidated=False)
    elif suffix == ".array.zarr":
        zarr.save_array(path := tmp_path / "keras.zarr", swapped)
    elif suffix == ".zarr":
        zarr.save_group(path, keras=swapped, epoch=np.arange(6) * 2, other=np.zeros(3))
    else:
        with h5py.File(path, "w") as file:
            array = file.create_dataset("deep/keras", data=swapped)
            file["other"] = np.zeros((2, 2, 2, 2) if "labelled" in suffix else 3)
            file["epoch"] = np.arange(6) * 2
            if "labelled" in suffix:
                for axis, name in enumerate(axes):
                    array.dims[axis].label = name
    told = {} if suffix == ".nc" or "labelled" in suffix else {"axes": axes}  # these files name their axes themselves
    run = hs.import_trace(path, tmp_path / "logs", **told)  # type: ignore[arg-type]
    assert run.layers == (("keras",))
    np.testing.assert_array_equal(run.trace().values, TRACE)
    np.testing.assert_array_equal(run.epochs, np.arange(6) * (1 if suffix in (".npy", ".array.zarr") else 2))


@pytest.mark.parametrize("suffix", [".nc", ".zarr", ".npz"])
@pytest.mark.parametrize("layer", list(UNITS))
def test_an_export_holds_the_run(recorded: Path, tmp_path: Path, suffix: str, layer: str) -> None:
    path = tmp_path / f"trace{suffix}"
    run = hs.open_run(recorded)
    assert export_trace(run, path, layer=layer) == path
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["logs", path.name]
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            found = {name: archive[name] for name in archive.files}
    else:
        reader = xr.open_dataset if suffix == ".nc" else xr.open_zarr
        with reader(path, **({} if suffix == ".nc" else {"consolidated": False})) as dataset:
            found = {str(name): variable.values for name, variable in dataset.variables.items()}
            assert dataset["states"].dims == TRACE_DIMS
            assert dataset.attrs["model"] == "Classifier"
    trace = run.trace(layer)
    np.testing.assert_array_equal(found["states"], trace.values)
    for name in (*TRACE_DIMS, "label"):
        np.testing.assert_array_equal(found[name], trace[name])
    np.testing.assert_array_equal(found["metrics"], run.metrics().to_numpy())
    assert found["metric"].tolist() == list(run.metrics().columns)


@pytest.mark.parametrize("suffix", [".nc", ".zarr", ".npz"])
def test_an_export_comes_back_as_the_same_run(recorded: Path, tmp_path: Path, suffix: str) -> None:
    run = hs.open_run(recorded)
    for layer in run.layers:
        path = export_trace(run, tmp_path / f"{UNITS[layer].size}{suffix}", layer=layer)
        again = hs.import_trace(path, tmp_path / "back" / path.stem)
        xr.testing.assert_identical(again.trace(), run.trace(layer))
        pd.testing.assert_frame_equal(again.metrics(), run.metrics())
        assert again.label_names == run.label_names


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path(tmp_path / "exploded").touch, ())

    objects = np.array([Bomb(), Bomb()], dtype=object)
    np.save(tmp_path / "bomb.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "bomb.npz", keras=objects)
    (tmp_path / "raw.npy").write_bytes(pickle.dumps(Bomb()))
    for name in ("bomb.npy", "bomb.npz", "raw.npy"):
        with pytest.raises(ValueError, match=r"is not a plain array of numbers .*; pickles are never loaded"):
            hs.import_trace(tmp_path / name, tmp_path / "logs", axes=("unit",))
    assert not (tmp_path / "exploded").exists()
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axes": ("epoch", "unit")}, r"shape \(6, 4, 3, 5\), and 2 axes were named: epoch, unit; say what"),
        ({"axes": ("epoch", "time", "unit", "sample")}, "axes are different ones of epoch, step, unit, sample"),
        ({"axes": ("epoch", "step", "step", "sample")}, "axes are different ones of"),
        ({"labels": [0, 1]}, r"the trace has 5 entries along sample, got labels of shape \(2,\)"),
        ({"epochs": [0, 1, 2]}, r"the trace has 6 entries along epoch, got epochs of shape \(3,\)"),
        ({"epochs": [0, 1, 1, 2, 3, 4]}, "epochs must grow, got 0, 1, 1, 2, 3, 4"),
        ({"metrics": {"loss": [1.0]}}, r"6 entries along epoch, got metric 'loss' of shape \(1,\)"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        hs.import_trace(TRACE, tmp_path / "logs", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "logs").exists()


def test_wrong_sources_are_refused_in_words(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", one=TRACE, two=TRACE)
    (tmp_path / "trace.csv").touch()
    with pytest.raises(ValueError, match=r"one array of 4 axes in two.npz, which has 'one' \(4 axes\), 'two'"):
        hs.import_trace(tmp_path / "two.npz", tmp_path / "logs")
    with pytest.raises(ValueError, match=r"got variable 'three'; two\.npz has 'one', 'two'"):
        hs.import_trace(tmp_path / "two.npz", tmp_path / "logs", variable="three")
    assert hs.import_trace(tmp_path / "two.npz", tmp_path / "logs", variable="two").layers == ("two",)
    with pytest.raises(RecordingError, match=r"already holds a run \(6 records\)"):
        hs.import_trace(TRACE, tmp_path / "logs")
    with pytest.raises(ValueError, match=r"trace.csv is none of .npy, .npz, .h5, .hdf5, .nc"):
        hs.import_trace(tmp_path / "trace.csv", tmp_path / "other")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(ValueError, match=r"empty\.zarr is no Zarr array or group"):
        hs.import_trace(tmp_path / "empty.zarr", tmp_path / "other")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npy does not exist"):
        hs.import_trace(tmp_path / "nowhere.npy", tmp_path / "other")
    with pytest.raises(ValueError, match="a trace needs real numbers, got dtype complex64"):
        hs.import_trace(TRACE * 1j, tmp_path / "other")


def test_a_missing_reader_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trace.h5").touch()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"reading trace.h5 needs h5py, .* pip install 'hiddenscope\[files\]'"):
        hs.import_trace(tmp_path / "trace.h5", tmp_path / "logs")


def test_info_shows_every_run(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with SnapshotWriter.open(recorded.with_name("version_4") / "hiddenscope", description()):
        pass
    odd = recorded.with_name("version_5") / "hiddenscope" / "snapshots" / "refs" / "branch.main"
    odd.mkdir(parents=True)
    (odd / "ref.json").write_text("{")
    assert main(["info", str(recorded.parent)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["run", "status", "epochs"]
    by_name = {line.split()[0]: line for line in lines[1:]}
    assert "finished" in by_name["version_3"]
    assert "lstm 3×3×50, decoder/gru.0 3×2×50" in by_name["version_3"]  # noqa: RUF001
    assert "6 (val_loss)" in by_name["version_3"]
    assert by_name["version_4"].split()[1:3] == ["finished", "0"]
    assert "cannot be read" in by_name["version_5:"]


@pytest.mark.parametrize("command", [["info"], ["prune"], ["export", "--to", "x.nc"]])
def test_commands_without_a_run_say_so_and_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert main([*command, str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"hiddenscope {command[0]}: no run in {tmp_path}, which holds nothing; train with")
    assert error.count("\n") == 1


def test_export_from_the_command_line(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.npz"
    assert main(["export", str(recorded), "--to", str(target)]) == 2
    assert 'this run has layers "lstm", "decoder/gru.0"; say which one' in capsys.readouterr().err
    assert main(["export", str(recorded), "--to", str(target), "--layer", "lstm"]) == 0
    assert capsys.readouterr().out == f"wrote {target} (5 epochs of version_3)\n"
    with np.load(target) as archive:
        np.testing.assert_array_equal(archive["states"][0], states(-1)["lstm"])
    before = target.read_bytes()
    for to, message in (
        (target, "exists; remove it or choose another name"),
        (tmp_path / "out.csv", "a trace is exported to .nc, .zarr, .npz; got 'out.csv'"),
        (tmp_path / "no" / "out.nc", "is no folder; make it first"),
    ):
        assert main(["export", str(recorded), "--to", str(to), "--layer", "lstm"]) == 2
        assert message in capsys.readouterr().err
    assert target.read_bytes() == before


def test_layers_of_one_shape_are_listed_together() -> None:
    names = ["lstm", "lstm.c", *(f"lstm.{gate}" for gate in "ifgo"), "gru"]
    shapes = dict.fromkeys(names, (8, 6)) | {"gru": (8, 2)}
    layers = tuple(
        LayerDescription(name, "LSTM", np.arange(units), np.arange(steps)) for name, (steps, units) in shapes.items()
    )
    described = RunDescription(layers, np.arange(9), None, None, "", "Model")
    assert layers_in_words(described) == "lstm, lstm.c, lstm.i and 3 more 8×6×9, gru 8×2×9"  # noqa: RUF001


def test_the_loss_is_found_among_the_metrics() -> None:
    assert last_loss({"acc": [1.0], "train_loss": [2.0, float("nan")], "val_loss": [float("nan")]}) == "2 (train_loss)"
    assert last_loss({"acc": [1.0], "my/Loss_epoch": [0.123456]}) == "0.1235 (my/Loss_epoch)"
    assert last_loss({"acc": [1.0]}) == ""
