"""Each experiment at its smallest size, and the statements that its results rest on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import xarray as xr

from experiment_examples import write_nwb, write_uci
from hiddenscope.analyses.clusters import cluster_units
from hiddenscope.cli import main
from hiddenscope.dashboard.figures.grid import embedding_grid, widest_view
from hiddenscope.experiments.activities import paper_recipe as har_recipe
from hiddenscope.experiments.bifurcations import PUBLISHED, PUBLISHED_INTER, course, phase_table
from hiddenscope.experiments.datasets.bifurcations import simulate
from hiddenscope.experiments.full_figures import (
    animation,
    cluster_figure,
    confusion_figure,
    silencing_table,
    unit_table,
)
from hiddenscope.experiments.material import states
from hiddenscope.experiments.measuring import picture
from hiddenscope.experiments.nulls import order_correlation
from hiddenscope.experiments.reaches import paper_recipe as reaching_recipe
from hiddenscope.experiments.reaches import recorded_epoch
from hiddenscope.run import open_run

DIMS = ("epoch", "step", "unit", "component")


def carried_out(name: str, out: Path, *options: str) -> dict[str, object]:
    """The summary of a quick run through the command line."""
    assert main(["experiment", name, "--quick", "--no-png", "--out", str(out), *options]) == 0
    summary: dict[str, object] = json.loads((out / "summary.json").read_text())
    assert summary["status"] == "finished"
    return summary


def test_bifurcations(tmp_path: Path) -> None:
    summary = carried_out("bifurcations", tmp_path)
    table = pd.read_csv(tmp_path / "preservation.csv")
    assert set(table.method) == {"MM-PHATE", "PCA", "t-SNE", "PCA of raw activations"}
    assert (table["inter k=10"] > 2 * table["inter k=10 by chance"]).all()
    assert {f"grid-{PUBLISHED}.html", "entropies.html", "phases.csv"} <= set(summary["files"])  # type: ignore[call-overload]
    again = carried_out("bifurcations", tmp_path)
    assert again["computed"] == []
    assert again["numbers"] == summary["numbers"]
    assert main(["experiment", "bifurcations", "--scenario", "none", "--out", str(tmp_path)]) == 2


def test_the_published_pca_row_comes_out_of_the_experiments_own_measure() -> None:
    trace = simulate(PUBLISHED)
    made = picture(trace, "pca", seed=0, ks=(10, 40), intra_k=2, n_queries=None, normalized=False)
    np.testing.assert_allclose(made["inter"].values, PUBLISHED_INTER["PCA"], atol=1e-3)
    assert float(made["intra"]) < 1  # at k = 2, unlike at the published k, it can be less


def test_turning_points_are_told_apart_between_groups() -> None:
    trace = simulate("hopf_bif__no_warp")
    table = phase_table("hopf_bif__no_warp", course(trace), trace.attrs["crossings"])
    entropy = table[table.curve == "intra-step entropy (activations)"].set_index("group")
    assert entropy.truth.round(1).to_dict() == {"A": 33.3, "B": 25.0}
    assert (entropy.error.abs() <= 2).all()
    assert (entropy["by chance"] < 0.15).all()


def test_nulls(tmp_path: Path) -> None:
    carried_out("nulls", tmp_path)
    table = pd.read_csv(tmp_path / "nulls.csv").set_index("trace")
    assert list(table.index) == ["trained", "shuffled labels", "shuffled epochs", "drifting", "untrained", "noise"]
    assert table["held-out accuracy"].isna().tolist() == [False, False, True, True, False, True]
    real = states(open_run(tmp_path / "runs" / "trained"))
    assert real.sizes["epoch"] == 8
    assert real["step"].values.tolist() == [3, 7, 11, 15]  # counted back from the last


def test_baselines(tmp_path: Path) -> None:
    carried_out("baselines", tmp_path)
    table = pd.read_csv(tmp_path / "methods.csv").set_index("method")
    assert list(table.index) == ["MM-PHATE", "M-PHATE", "PCA", "t-SNE"]
    assert (table["cpu seconds"] > 0).all()
    assert np.isnan(table["order of steps"]["M-PHATE"])  # it knows no steps: all of an epoch are in one place


def test_har_on_a_folder_like_ucis(tmp_path: Path) -> None:
    write_uci(tmp_path / "data", per_class=3)
    summary = carried_out("har", tmp_path / "out", "--uci", str(tmp_path / "data"))
    files = set(summary["files"])  # type: ignore[call-overload]
    named = ("pictures", "mmphate", "animation", "curves", "entropies", "clusters", "confusion")
    assert {f"{name}.html" for name in named} <= files
    deviations = pd.read_csv(tmp_path / "out" / "deviations.csv").set_index("setting")
    assert set(deviations.index) == {"units", "epochs"}
    silenced = pd.read_csv(tmp_path / "out" / "silencing.csv")
    metrics = pd.read_csv(tmp_path / "out" / "metrics.csv")
    whole = silenced[(silenced.units == "all") & (silenced.part == "held out")]
    assert set(silenced["silenced in"].dropna()) == {"recurrence", "readout"}
    units = pd.read_csv(tmp_path / "out" / "units.csv")
    assert units["loss gained, held out, recurrence"].is_monotonic_decreasing
    assert float(whole.accuracy.iloc[0]) == pytest.approx(metrics.val_accuracy.iloc[-1], abs=1e-6)
    assert har_recipe().epochs == 1_000
    assert main(["experiment", "har", "--uci", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2


def test_area2bump_on_a_file_like_the_benchmarks(tmp_path: Path) -> None:
    write_nwb(tmp_path / "made.nwb", trials=96)
    summary = carried_out("area2bump", tmp_path / "out", "--nwb", str(tmp_path / "made.nwb"))
    assert summary["numbers"]["training accuracy"] > 0.2  # type: ignore[index]
    assert not any("synthetic" in note for note in summary["notes"])  # type: ignore[attr-defined]
    recipe = reaching_recipe()
    assert (recipe.units, recipe.learning_rate, recipe.batch_size, recipe.epochs) == (20, 1e-4, 64, 200)
    assert [epoch for epoch in range(42) if recorded_epoch(epoch)] == [*range(29), 30, 35, 40]


def test_architectures(tmp_path: Path) -> None:
    carried_out("architectures", tmp_path)
    table = pd.read_csv(tmp_path / "networks.csv").set_index("network")
    assert list(table.index) == ["LSTM 8", "GRU 8", "RNN 8", "LSTM 6"]
    # Weights of an LSTM with n units on 6 features: 4 n (6 + n + 2), and 7 (n + 1) of the readout.
    assert table.parameters.tolist() == [4 * 8 * 16 + 63, 3 * 8 * 16 + 63, 8 * 16 + 63, 4 * 6 * 14 + 49]
    assert table[["order of epochs", "order of steps"]].abs().le(1).all(axis=None)


def cloud(values: object) -> xr.DataArray:
    named = xr.DataArray(np.asarray(values, dtype=np.float64), dims=DIMS)
    return named.assign_coords({dim: np.arange(named.sizes[dim]) for dim in DIMS[:3]})


def test_order_of_a_path_is_one_of_its_shuffle_about_zero_and_of_a_point_unknown() -> None:
    path = np.arange(40.0)[:, None, None, None] * np.ones((1, 3, 2, 3))  # whole numbers: equal lengths are equal
    assert order_correlation(cloud(path), "epoch") == pytest.approx(1)
    shuffled = [order_correlation(cloud(np.random.default_rng(seed).permutation(path)), "epoch") for seed in range(10)]
    assert abs(np.mean(shuffled)) < 0.1
    assert np.isnan(order_correlation(cloud(path), "step"))
    with pytest.raises(ValueError, match="at least 3 places, got 2 along 'unit'"):
        order_correlation(cloud(path), "unit")


def test_the_widest_view_keeps_distances_of_a_flat_picture_and_its_gaps() -> None:
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(60, 2)) * [3, 1]
    turned = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    picture = cloud((np.pad(flat, ((0, 0), (0, 1))) @ turned).reshape(5, 4, 3, 3))
    picture[2, 1, 0] = np.nan
    seen = widest_view(picture).values.reshape(-1, 2)
    known = np.isfinite(seen).all(axis=1)
    assert known.sum() == 59
    found = np.linalg.norm(seen[known][:, None] - seen[known][None], axis=-1)
    np.testing.assert_allclose(found, np.linalg.norm(flat[known][:, None] - flat[known][None], axis=-1), atol=1e-9)
    assert np.nanvar(seen[:, 0]) > np.nanvar(seen[:, 1])


def test_a_grid_has_a_place_for_every_method_and_coloring_and_one_bar_per_row() -> None:
    picture = cloud(np.random.default_rng(0).normal(size=(4, 5, 6, 3)))
    group = xr.DataArray([0, 0, 0, 1, 1, 1], dims="unit", coords={"unit": np.arange(6)})
    colors: dict[str, str | xr.DataArray] = {"epoch": "epoch", "group": group}
    figure = embedding_grid({"one": picture, "two": picture}, colors, class_names={"group": ("A", "B")})
    assert [trace.xaxis for trace in figure.data] == ["x", "x2", "x3", "x4"]
    assert [bool(trace.marker.showscale) for trace in figure.data] == [False, True, False, True]
    assert figure.data[1].marker.colorbar.title.text == "epoch"
    assert [note.text for note in figure.layout.annotations] == ["one", "two"]
    np.testing.assert_array_equal(figure.data[2].marker.color, np.tile([0, 0, 0, 1, 1, 1], 20))
    assert embedding_grid({}, colors).layout.annotations[0].text == "no picture was made"


@pytest.mark.parametrize(("units", "epochs", "steps"), [(30, 8, 16), (100, 6, 6), (200, 6, 3), (1_000, 2, 2)])
def test_a_grid_of_a_wide_layer_has_fewer_steps_before_it_has_too_few_epochs(
    units: int, epochs: int, steps: int
) -> None:
    picture = cloud(np.zeros((21, 16, units, 2)))
    figure = embedding_grid({"one": picture}, {"epoch": "epoch", "step": "step"}, limit=4_000)
    shown = [np.unique(np.asarray(trace.marker.color, dtype=float)) for trace in figure.data]
    assert [len(values) for values in shown] == [epochs, steps]
    assert (shown[0][[0, -1]] == [0, 20]).all()
    assert (shown[1][[0, -1]] == [0, 15]).all()


def test_an_animation_has_a_frame_per_epoch_in_one_box() -> None:
    values = np.random.default_rng(0).normal(size=(7, 4, 3, 3))
    figure = animation(cloud(values).assign_coords(epoch=np.arange(-1, 6)), most_frames=4)
    assert [frame.name for frame in figure.frames] == ["untrained", "1", "3", "5"]
    assert len(figure.layout.sliders[0].steps) == 4
    low, high = figure.layout.scene.xaxis.range
    kept = values[[0, 2, 4, 6], ..., 0]
    assert (low, high) == (pytest.approx(kept.min()), pytest.approx(kept.max()))
    np.testing.assert_allclose(figure.frames[1].data[0].x, values[2, ..., 0].ravel())


def silenced() -> xr.Dataset:
    whole = np.array([[[8, 0], [0, 8]], [[3, 1], [2, 2]]])
    alone = np.stack([whole, whole[:, ::-1]], axis=1)[:, None]
    parts = {"part": ["training", "held out"], "mode": ["recurrence"], "cluster": ["A", "B"], "unit": [0, 1, 2]}
    places = ("part", "mode", "cluster")
    return xr.Dataset(
        {
            "confusion_whole": (("part", "true", "predicted"), whole),
            "confusion_alone": ((*places, "true", "predicted"), alone),
            "confusion_without": ((*places, "true", "predicted"), alone[:, :, ::-1]),
            "loss_whole": ("part", [0.1, 0.7]),
            "loss_alone": (places, np.arange(4.0).reshape(2, 1, 2)),
            "loss_without": (places, np.arange(4.0).reshape(2, 1, 2)),
            "unit_loss": (("part", "mode", "unit"), [[[0.1, 0.0, 0.2]], [[0.0, 0.3, 0.1]]]),
            "unit_accuracy": (("part", "mode", "unit"), np.zeros((2, 1, 3))),
            "importance": ("unit", [0.0, 0.3, 0.1]),
        },
        coords=parts,
    )


def test_silencing_is_told_with_how_many_units_are_left() -> None:
    table = silencing_table(silenced(), {"A": 4, "B": 1}).set_index(["part", "units"])
    assert table["accuracy"]["training", "all"] == 1
    assert table["accuracy"]["held out", "all"] == pytest.approx(5 / 8)
    assert table["accuracy"]["held out", "B alone"] == pytest.approx(3 / 8)
    assert table["accuracy"]["training", "without B"] == 1
    assert table["count"]["training", "without A"] == 1
    figure = confusion_figure(silenced(), {"A": 4, "B": 1}, ("x", "y"))
    np.testing.assert_allclose(figure.data[3].z, [[0.75, 0.25], [0.5, 0.5]])
    assert [note.text for note in figure.layout.annotations][:3] == [
        "all units: 1.00",
        "A alone (4): 1.00",
        "B alone (1): 0.00",
    ]


def test_units_are_listed_with_what_is_lost_without_them_the_most_important_first() -> None:
    clusters = xr.DataArray(["A", "B", "A"], dims="unit")
    table = unit_table(silenced(), clusters)
    assert table["unit"].tolist() == [1, 2, 0]
    assert table["cluster"].tolist() == ["B", "A", "A"]
    assert table["loss gained, held out, recurrence"].tolist() == [0.3, 0.1, 0.0]
    assert table["loss gained, training, recurrence"].tolist() == [0.0, 0.2, 0.1]


def test_every_cluster_is_drawn_with_its_center() -> None:
    rise = np.linspace(0, 1, 20)
    values = np.stack([rise, rise + 0.01, -rise, -rise - 0.01], axis=1)
    trajectories = xr.DataArray(values, dims=("epoch", "unit"), coords={"epoch": np.arange(20), "unit": np.arange(4)})
    figure = cluster_figure(trajectories, cluster_units(trajectories))
    assert isinstance(figure, go.Figure)
    assert [trace.name for trace in figure.data[-2:]] == ["cluster A: 2 units", "cluster B: 2 units"]
    np.testing.assert_allclose(figure.data[-2].y, rise + 0.005)
