"""The panel of modes draws what is stored, at every epoch, in every basis, and has an answer where there is nothing."""

from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import xarray as xr
from dash import dcc
from numpy.testing import assert_allclose

from hiddenscope.analyses.pod import POD_STUDY, SEPARABILITY_STUDY
from hiddenscope.dashboard.figures.pod import LIMIT, modes, scree, trajectories
from hiddenscope.dashboard.figures.pod_course import progress, segmentation_strip
from hiddenscope.dashboard.library import Library
from hiddenscope.dashboard.panels import PANELS, all_panels
from hiddenscope.dashboard.panels.panel import Scene
from hiddenscope.dashboard.panels.pod import MEANS, NEWEST, OWN, PANEL, SINGLE, SORTED, basis, draw
from hiddenscope.embeddings.pod import POD
from test_pod_study import write


def figures_of(parts):
    found = {}
    for part in parts:
        for graph in [part] if isinstance(part, dcc.Graph) else [g for g in part.children if isinstance(g, dcc.Graph)]:
            found[graph.id if isinstance(graph.id, str) else graph.id["name"]] = graph.figure
    return found


def scene(run, layer, *, epoch=None, results=None, dark=False, units=(), **options):
    library = Library(Path(run.path).parent)
    (name,) = library.runs()
    view = library.view(name, layer)
    if results is None:
        results = {study.method: study.compute(run, layer) for study in (POD_STUDY, SEPARABILITY_STUDY)}
    return Scene(view, run, {"segmentation": None, **results}, epoch, units, options, dark)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return write(tmp_path_factory.mktemp("pair"), range(-1, 5), bad=(2,))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return write(tmp_path_factory.mktemp("alone"), range(4), layers=("other",))


def drawn_points(figure):
    parts = [np.stack([trace.x, trace.y, trace.z], axis=1) for trace in figure.data if trace.mode == "lines"]
    together = np.concatenate(parts)
    return together[~np.isnan(together[:, 0])]


def test_the_panel_is_on_the_page():
    assert "pod" in PANELS
    assert PANEL in all_panels()


@pytest.mark.parametrize("dark", [False, True])
def test_single_paths_are_the_coordinates_of_the_chosen_epoch(alone, dark):
    found = figures_of(draw(scene(alone, "other", epoch=2.0, dark=dark, basis=SORTED, show=SINGLE)))
    expected = POD(n_components=6).fit(alone.trace("other")).transform(alone.trace("other")).values[2][:, :, :3]
    points = drawn_points(found["pod-paths"])
    assert len(points) == expected.shape[0] * expected.shape[1]
    assert_allclose(np.sort(points, axis=0), np.sort(expected.reshape(-1, 3), axis=0), atol=1e-4)


@pytest.mark.parametrize("kind", [OWN, NEWEST, SORTED])
def test_every_basis_is_orthonormal_and_the_fixed_one_is_the_newest(pair, kind):
    found = POD_STUDY.compute(pair, "decoder")
    bases = [basis(found, at, kind).values for at in (0, 1, 4, 5)]
    for one in bases:
        assert_allclose(one.T @ one, np.eye(6), atol=1e-5)
    assert np.array_equal(bases[0], bases[-1]) == (kind == NEWEST)


def test_encoder_and_decoder_are_drawn_together_dotted_and_solid(pair):
    figure = figures_of(draw(scene(pair, "encoder", show=MEANS)))["pod-paths"]
    dashes = {trace.line.dash for trace in figure.data if trace.mode == "lines"}
    assert dashes == {"dot", "solid"}
    assert {trace.name for trace in figure.data} == {"a", "b", "c"}


def test_a_diverged_epoch_says_so_in_every_figure_and_the_caption(pair):
    parts = draw(scene(pair, "decoder", epoch=2.0))
    found = figures_of(parts)
    for name in ("pod-paths", "pod-scree", "pod-modes"):
        assert not found[name].data
        assert found[name].layout.annotations[0].text
    assert "diverged" in parts[0].children
    assert found["pod-course"].data


def test_an_epoch_that_is_not_studied_yet_shows_the_one_before(pair):
    early = POD_STUDY.compute(pair, "decoder").isel(epoch=slice(0, 2))
    shown = scene(pair, "decoder", epoch=4.0, results={"pod": early, "separability": None})
    assert "epoch 0:" in draw(shown)[0].children


def test_nothing_stored_yet_is_no_error(alone):
    found = figures_of(draw(scene(alone, "other", results={"pod": None, "separability": None})))
    assert set(found) == {"pod-paths", "pod-course"}
    assert "not computed" in found["pod-paths"].layout.annotations[0].text


def test_bars_carry_their_units_and_picked_ones_stand_out(alone):
    figure = figures_of(draw(scene(alone, "other", units=("3",))))["pod-modes"]
    bars = next(trace for trace in figure.data if isinstance(trace, go.Bar))
    assert list(bars.customdata) == [str(unit) for unit in range(8)]
    assert [color != bars.marker.color[0] for color in bars.marker.color] == [unit == 3 for unit in range(8)]


def test_a_stored_segmentation_adds_its_strip(alone):
    strip = xr.Dataset(
        {"label": ("step", [0, 0, 1, 1]), "truth": ("step", [0, 1, 1, 1]), "cut": ("piece", [2])},
        attrs={"names": ["walk", "run"]},
    )
    results = {"pod": POD_STUDY.compute(alone, "other"), "separability": None, "segmentation": strip}
    figure = figures_of(draw(scene(alone, "other", results=results)))["pod-segments"]
    assert figure.data[0].z.tolist() == [[0, 1, 1, 1], [0, 0, 1, 1]]
    assert {trace.name for trace in figure.data[1:]} == {"walk", "run"}


def test_the_scree_marks_how_many_modes_reach_each_threshold():
    energy = xr.DataArray(
        [[0.5, 0.3, 0.15, 0.05], [0.8, 0.15, 0.05, 0]], dims=("epoch", "mode"), coords={"epoch": [0.0, 1.0]}
    )
    dimension = xr.DataArray([[3, 3], [2, 2]], dims=("epoch", "threshold"), coords={"threshold": [0.9, 0.95]})
    figure = scree(energy, dimension=dimension.assign_coords(epoch=[0.0, 1.0]), epoch=1.0)
    share = next(trace for trace in figure.data if trace.name == "share")
    assert_allclose(share.y, [0.8, 0.15, 0.05, 0], rtol=1e-6)
    marks = [trace for trace in figure.data if isinstance(trace, go.Scatter) and trace.mode == "markers+text"]
    assert [(int(mark.x[0]), mark.y[0]) for mark in marks] == [(2, 0.9), (2, 0.95)]
    assert sum(shape.type == "line" for shape in figure.layout.shapes) == 2


@pytest.mark.parametrize(("shares", "word"), [([0.0, 0.0], "zero"), ([np.nan, np.nan], "diverged")])
def test_a_dead_or_diverged_layer_has_no_scree_but_a_word(shares, word):
    figure = scree(xr.DataArray([shares], dims=("epoch", "mode"), coords={"epoch": [0.0]}))
    assert word in figure.layout.annotations[0].text


def test_a_run_without_an_epoch_has_no_scree_yet():
    assert scree(xr.DataArray(np.zeros((0, 3)), dims=("epoch", "mode"), coords={"epoch": []})).layout.annotations


def test_many_points_are_thinned_and_fewer_than_three_modes_drawn():
    paths = np.random.default_rng(0).normal(size=(500, 60, 2))
    points = drawn_points(trajectories(paths, means=False))
    assert len(points) <= LIMIT
    assert (points[:, 2] == 0).all()


def test_padding_breaks_no_mean():
    paths = np.ones((6, 4, 3))
    paths[3:, 0] = np.nan
    figure = modes(
        xr.DataArray(np.eye(4)[:, :3], dims=("unit", "component"), coords={"unit": range(4)}), [("lstm", paths)]
    )
    curves = [trace for trace in figure.data if isinstance(trace, go.Scatter)]
    assert all((trace.y == 1).all() for trace in curves)


def test_the_course_shades_plateaus_and_marks_the_epoch(alone):
    metrics = pd.DataFrame({"train_loss": np.linspace(2, 1, 12)}, index=pd.Index(range(12), name="epoch"))
    flat = xr.Dataset(
        {name: ("epoch", np.ones(12)) for name in ("silhouette", "nearest_centroid", "ari")},
        coords={"epoch": np.arange(12.0)},
    ).assign(phase=("epoch", [0] * 5 + [2] * 4 + [3] * 3))
    figure = progress(None, flat, metrics, epoch=3.0)
    boxes = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    assert [(box.x0, box.x1) for box in boxes] == [(4.5, 8.5), (8.5, 11.0)]
    assert [shape.x0 for shape in figure.layout.shapes if shape.type == "line"] == [3.0]
    assert progress(None, None, metrics).layout.annotations


def test_a_strip_without_a_truth_has_one_bar_and_without_steps_a_word():
    assert segmentation_strip([0, 1, 1], errors=[np.nan, 0.1, 0.2]).data[0].z.shape == (1, 3)
    assert segmentation_strip([]).layout.annotations
