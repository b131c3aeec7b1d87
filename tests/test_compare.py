"""Runs beside each other: what is drawn of each, what the axes share, and two runs in one picture."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from hiddenscope.dashboard import cloud, words
from hiddenscope.dashboard.compare import _together, chosen
from hiddenscope.dashboard.desk import Request, parse
from hiddenscope.dashboard.figures.comparison import Column, joint, side_by_side
from hiddenscope.dashboard.journal import Entry, write
from hiddenscope.dashboard.library import Library
from hiddenscope.description import LayerDescription, RunDescription, Snapshot
from hiddenscope.results import ResultStore
from hiddenscope.store import SnapshotWriter

STEPS, UNITS = 4, 3


def result(epochs, seed=0):
    rng = np.random.default_rng(seed)
    cloud = xr.DataArray(
        rng.normal(size=(epochs, STEPS, UNITS, 3)).astype(np.float32),
        dims=("epoch", "step", "unit", "component"),
        coords={"epoch": np.arange(epochs) - 1.0, "step": np.arange(STEPS), "unit": np.arange(UNITS)},
    )
    return xr.Dataset(
        {
            "embedding": cloud,
            "intra_step_entropy": cloud.mean(["unit", "component"]),
            "inter_step_entropy": cloud.mean(["step", "component"]),
        }
    )


def column(epochs, seed=0, **options):
    metrics = pd.DataFrame({"train_loss": np.arange(epochs, 0.0, -1)}, index=np.arange(epochs) - 1.0)
    return Column(f"run {seed}", metrics, result(epochs, seed), **options)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_each_run_has_its_column_with_its_own_points_and_curves_on_shared_axes(count, dimensions):
    columns = [column(k + 2, k) for k in range(count)]
    figure = side_by_side(columns, dimensions=dimensions)
    clouds = figure.layout.meta["clouds"]
    assert len(clouds) == count
    for k, (one, own) in enumerate(zip(clouds, columns, strict=True)):
        trace = figure.data[one["at"]]
        expected = own.result["embedding"].values[..., 0].ravel()
        np.testing.assert_array_equal(trace.x, expected)
        assert one["epochs"] == own.result["epoch"].values.tolist()
        axis = "x" if k == 0 else f"x{k + 1}"
        loss, intra, inter = (curve for curve in figure.data if getattr(curve, "xaxis", None) == axis)
        np.testing.assert_array_equal(loss.y, own.metrics["train_loss"])
        np.testing.assert_allclose(intra.y, own.result["intra_step_entropy"].mean("step"), rtol=1e-5)
        np.testing.assert_allclose(inter.y, own.result["inter_step_entropy"].median("unit"), rtol=1e-5)
        if k:
            assert figure.layout[f"xaxis{k + 1}"].matches == "x"
            assert figure.layout[f"yaxis{k + 2}"].matches == "y"
    domains = [figure.layout["xaxis" if k == 0 else f"xaxis{k + 1}"].domain for k in range(count)]
    assert all(left[1] < right[0] for left, right in itertools.pairwise(domains))


def test_a_run_without_a_picture_shows_its_loss_and_says_so():
    bare = Column("bare", pd.DataFrame({"loss": [1.0]}, index=[0.0]), None)
    figure = side_by_side([bare, column(3)])
    assert len(figure.layout.meta["clouds"]) == 1
    assert any(note.text == "no picture yet" for note in figure.layout.annotations)
    odd = side_by_side([column(3, problem="no labels")])
    assert odd.layout.meta["clouds"] == []


def test_five_runs_are_too_many():
    with pytest.raises(ValueError, match="1 to 4 runs"):
        side_by_side([column(2)] * 5)


@pytest.mark.parametrize("color", ["epoch", "step", "unit"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_in_one_picture_each_run_keeps_its_own_epochs(color, dimensions):
    both = xr.concat([result(3, 0), result(2, 1)], dim="epoch").assign(
        run=("epoch", [0, 0, 0, 1, 1]),
        epoch_of_run=("epoch", [-1.0, 0.0, 1.0, -1.0, 0.0]),
        unit_of_first=("unit", np.arange(UNITS)),
        unit_of_second=("unit", np.arange(UNITS)),
    )
    figure = joint(both, ("a", "b"), color=color, dimensions=dimensions)
    assert [trace.name for trace in figure.data] == ["a", "b"]
    assert sorted(set(figure.data[0].customdata[:, 0])) == [-1, 0, 1]
    assert sorted(set(figure.data[1].customdata[:, 0])) == [-1, 0]
    np.testing.assert_array_equal(figure.data[1].x, result(2, 1)["embedding"].values[..., 0].ravel())
    assert figure.layout.meta["clouds"][1]["epochs"] == [-1, 0]


def of_two_sizes():
    """Two units of the first run have a match in the second, one is alone; so is one of the second."""
    both = xr.concat([result(2, 0), result(2, 1)], dim="epoch").drop_vars("unit")
    both = xr.concat([both, both.isel(unit=[0])], dim="unit", data_vars="minimal")
    both["embedding"][:2, :, 3] = np.nan
    both["embedding"][2:, :, 1] = np.nan
    return both.assign(
        run=("epoch", [0, 0, 1, 1]),
        epoch_of_run=("epoch", [0.0, 1.0, 0.0, 1.0]),
        unit_of_first=("unit", [0, 1, 2, -1]),
        unit_of_second=("unit", ["up", "", "down", "left"]),
    )


@pytest.mark.parametrize("dimensions", [2, 3])
def test_points_tell_both_units_and_a_pick_finds_the_match(dimensions):
    figure = joint(of_two_sizes(), ("a<b>", "b"), dimensions=dimensions)
    ours, theirs = figure.data
    assert list(ours.customdata[:3, 2]) == [0, 1, 2]
    assert ours.text[:4] == ("unit up", "no unit", "unit down", "unit up")
    assert ours.hovertemplate.startswith("unit %{customdata[2]} of a&lt;b&gt;<br>\u2194 %{text} of b<br>")
    assert list(theirs.customdata[:3, 2]) == ["up", "down", "left"]
    assert theirs.text[:3] == ("unit 0", "unit 2", "no unit")
    for trace in figure.data:
        assert len(trace.x) == len(trace.text) == 2 * STEPS * 3
        assert np.isfinite(trace.x).all(), "units that a run does not have are not drawn"
    first, second = figure.layout.meta["clouds"]
    assert (first["units"], first["picks"]) == ([0, 1, 2], [0, 1, 2])
    assert (second["units"], second["picks"]) == (["up", "down", "left"], [0, 2, None])
    first, second = joint(of_two_sizes(), ("a", "b"), picked_in=1, dimensions=dimensions).layout.meta["clouds"]
    assert (first["picks"], second["picks"]) == (["up", None, "down"], ["up", "down", "left"])


def test_matched_units_have_one_color_and_a_key_tells_the_runs_apart():
    figure = joint(of_two_sizes(), ("a", "b"), color="unit", dimensions=2)
    ours, theirs = figure.data
    assert ours.marker.color[:3].tolist() == [0, 1, 2]
    assert theirs.marker.color[:3].tolist() == [0, 2, 3]
    assert ours.marker.colorscale == theirs.marker.colorscale
    assert (ours.marker.cmin, ours.marker.cmax) == (theirs.marker.cmin, theirs.marker.cmax) == (-0.5, 3.5)
    assert ours.marker.colorbar.ticktext == ("0 \u2194 up", "1 \u2194 \u2013", "2 \u2194 down", "\u2013 \u2194 left")
    assert [note.text for note in figure.layout.annotations] == ["\u25cf a", "\u25c6 b"]
    assert ours.marker.colorbar.title.text == "unit of \u25cf \u2194 \u25c6"
    assert (ours.marker.symbol, theirs.marker.symbol) == ("circle", "diamond")


def test_a_picture_of_two_runs_from_before_units_were_matched_is_made_anew(tmp_path):
    for name in "ab":
        record(tmp_path / name)
    library = Library(tmp_path)
    one, two = (library.pinned(name, "lstm")[1] for name in "ab")
    old = xr.concat([result(1, 0), result(1, 1)], dim="epoch").assign(
        run=("epoch", [0, 1]), epoch_of_run=("epoch", [0.0, 0.0])
    )
    old.attrs = {"computed_at": 1.0, "made_from": [one.fingerprint("lstm"), two.fingerprint("lstm")]}
    with ResultStore.open(one.location, writable=True) as store:
        store.put("lstm", "joint", {"n_components": 3, "random_state": 0, "other": two.path}, old)
    asked = []
    supervisor = SimpleNamespace(ask=lambda line: asked.append(parse(line)))
    views = [library.view(name, "lstm") for name in "ab"]
    look = cloud.look_of({}, dark=False)
    for matching in ("auto", "response"):
        figure, note, _ = _together(library, ["a", "b"], views, look, matching, supervisor)
        assert (note, len(figure.data)) == ("", 0)
        assert asked.pop() == Request(one.path, "lstm", "joint", two.path, matching)
    told = Entry("idle", studies={Request(one.path, "lstm", "joint", "/elsewhere").name: "ValueError: no memory"})
    write(Path(one.path), told)
    _together(library, ["a", "b"], views, look, "auto", supervisor)
    assert asked, "that another pair failed says nothing of this one"


def test_the_matching_is_told_in_words():
    by_response = words.matched(
        {"matching": "response", "match_median": 0.834, "match_chance": 0.3, "began_alike": False},
        ["2 units of b alone"],
    )
    assert "answers most like it" in by_response
    assert by_response.endswith("half of the pairs correlate above 0.83 (0.30 by chance); 2 units of b alone")
    assert "same weights" in words.matched({"matching": "number", "began_alike": True})
    assert "no pair can be compared" in words.matched({"matching": "response"}), "as where a training has diverged"
    assert "means nothing" in words.matched({"matching": "number", "began_alike": False})


def record(folder, *, recorded=True):
    description = RunDescription(
        layers=(LayerDescription("lstm", "LSTM", np.arange(UNITS), np.arange(STEPS)),),
        samples=np.arange(2),
        labels=None,
        label_names=None,
        probe_fingerprint="probe",
        model="Net",
    )
    with SnapshotWriter.open(folder / "hiddenscope", description) as writer:
        if recorded:
            writer.append(Snapshot(0.0, {"lstm": np.zeros((STEPS, UNITS, 2), np.float32)}, {}))
        writer.finish("finished")


def test_only_runs_that_exist_and_have_an_epoch_are_compared_at_most_four_each_once(tmp_path):
    for name in "abcdef":
        record(tmp_path / name, recorded=name != "f")
    library = Library(tmp_path)
    assert chosen(library, "a", ["b", "a", "../a", "f", 7, None]) == ["a", "b"]
    assert chosen(library, "a", list("bcde")) == ["a", "b", "c", "d"]
    assert chosen(library, None, "nonsense") == []
