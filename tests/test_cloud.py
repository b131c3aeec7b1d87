"""What the picture of the page shows: methods, colors, parts, images of very many points, and what is said below it."""

import base64
import json
import struct
import zlib
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from hiddenscope.dashboard import cloud, figures, words
from hiddenscope.dashboard.cloud import Look, look_of, picture_figure, with_method
from hiddenscope.dashboard.figures.embedding import embedding_at
from hiddenscope.dashboard.figures.raster import png, rasterize
from hiddenscope.dashboard.figures.template import class_colors, colorscale, stepped
from hiddenscope.dashboard.library import Library, View
from hiddenscope.description import LayerDescription, RunDescription, Snapshot
from hiddenscope.results import ResultStore
from hiddenscope.store import SnapshotWriter

EPOCHS, STEPS, UNITS = 6, 5, 4


def points(epochs=EPOCHS, steps=STEPS, units=UNITS, seed=0):
    values = np.random.default_rng(seed).normal(size=(epochs, steps, units, 3)).astype(np.float32)
    coords = {"epoch": np.arange(epochs) - 1.0, "step": np.arange(steps), "unit": np.arange(units)}
    return xr.DataArray(values, dims=("epoch", "step", "unit", "component"), coords=coords)


def view(result=None, **changes):
    embedding = points()
    if result is None:
        result = xr.Dataset({"embedding": embedding})
    metrics = pd.DataFrame({"val_loss": [9.0] * EPOCHS, "train_loss": np.arange(EPOCHS)[::-1]}, embedding["epoch"])
    told = {
        "name": "version_0",
        "layer": "lstm",
        "layers": ("lstm",),
        "status": "finished",
        "epochs": embedding["epoch"].values,
        "updated_at": 0.0,
        "metrics": metrics,
        "class_names": None,
        "result": result,
        "version": "v",
        "result_version": "r",
    }
    return View(**told | changes)


def test_only_the_chosen_steps_and_epochs_are_drawn():
    figure = picture_figure(view(), look=Look(steps=(1, 2), epochs=(0, 3)))
    assert figure.layout.meta["steps"] == [1, 2]
    assert figure.layout.meta["epochs"] == [0, 1, 2, 3]
    assert len(figure.data[0].x) == 4 * 2 * UNITS
    nothing = picture_figure(view(), look=Look(steps=(50, 60)))
    assert "widen" in nothing.layout.annotations[0].text


def test_color_by_loss_takes_the_training_loss_of_each_epoch():
    trace = picture_figure(view(), color="loss").data[0]
    losses = dict(zip(points()["epoch"].values, range(EPOCHS - 1, -1, -1), strict=True))
    assert [losses[epoch] for epoch in trace.customdata[:, 0]] == trace.marker.color.tolist()
    assert trace.marker.colorbar.title.text == "train_loss"
    without = picture_figure(view(metrics=pd.DataFrame(index=points()["epoch"].values)), color="loss")
    assert "No loss" in without.layout.annotations[0].text


def test_color_by_cluster_gives_each_unit_the_color_of_its_cluster_and_units_without_one_none():
    names = xr.DataArray(["B", "A", "", "B"], dims="unit", coords={"unit": np.arange(UNITS)})
    marker = picture_figure(view(), look=Look(color="cluster"), clusters=names).data[0].marker
    by_unit = marker.color.reshape(-1, UNITS)
    np.testing.assert_array_equal(by_unit[0], [1, 0, np.nan, 1])
    assert marker.colorbar.ticktext == ("A", "B")
    assert "clustered after" in picture_figure(view(), color="cluster").layout.annotations[0].text


@pytest.mark.parametrize("color", ["epoch", "step", "unit"])
def test_an_epoch_in_full_has_the_colors_and_places_of_the_whole_cloud(color):
    cloud_ = points(10, 20, 6)
    whole = figures.embedding(cloud_, color=color, limit=10**6).data[0]
    frame = embedding_at(cloud_, 4.5, color=color).data[0]
    chosen = whole.customdata[:, 0] == 4
    np.testing.assert_array_equal(frame.x, whole.x[chosen])
    np.testing.assert_array_equal(frame.marker.color, whole.marker.color[chosen])
    assert (frame.marker.cmin, frame.marker.cmax) == (whole.marker.cmin, whole.marker.cmax)


def test_above_the_limit_all_points_are_an_image_and_zoomed_in_each_is_drawn():
    cloud_ = points(10, 20, 6)
    figure = figures.embedding(cloud_, dimensions=2, limit=300, rasterized=True)
    assert figure.data[0].opacity == 0
    assert len(figure.data[0].x) == 300
    image = figure.layout.images[0]
    xs, ys = cloud_.values[..., 0], cloud_.values[..., 1]
    assert image.x == pytest.approx(xs.min())
    assert image.x + image.sizex >= xs.max() - 1e-6
    assert image.y >= ys.max() - 1e-6
    assert "all 1,200 points as an image" in figure.layout.meta["note"]
    window = (0.0, 0.4, 0.0, 0.4)
    zoomed = figures.embedding(cloud_, dimensions=2, limit=300, rasterized=True, window=window)
    inside = (xs > 0) & (xs < 0.4) & (ys > 0) & (ys < 0.4)
    assert len(zoomed.data[1].x) == inside.sum()
    assert not zoomed.layout.images
    assert f"all {inside.sum():,} points here" in zoomed.layout.meta["note"]


@given(st.integers(1, 200), st.integers(0, 5))
def test_an_image_has_a_pixel_for_every_point_and_none_elsewhere(count, seed):
    rng = np.random.default_rng(seed)
    plane = rng.normal(size=(count, 2))
    plane[:: max(2, count // 3)] = np.nan
    if not np.isfinite(plane).any():
        return
    raster = rasterize(plane, rng.random(count), scale=colorscale("epoch", dark=False), low=0, high=1, blend=True)
    low_x, high_x, low_y, high_y = raster.window
    height, width = raster.pixels.shape[:2]
    expected = np.zeros((height, width), dtype=bool)
    for x, y in plane[np.isfinite(plane[:, 0])]:
        column = min(width - 1, int((x - low_x) / (high_x - low_x) * width + 1e-9))
        row = min(height - 1, int((y - low_y) / (high_y - low_y) * height + 1e-9))
        expected[height - 1 - row, column] = True
    filled = raster.pixels[..., 3] > 0
    assert filled.sum() <= count
    assert np.mean(filled != expected) < 1e-4, "up to rounding at the edges of cells"


def test_codes_in_one_cell_are_never_mixed_and_values_are_their_mean():
    plane = np.array([[0.0, 0.0]] * 4 + [[1.0, 1.0]])
    scale = stepped(class_colors(3, dark=False))
    exact = {tuple(int(color[i : i + 2], 16) for i in (1, 3, 5)) for color in class_colors(3, dark=False)}
    codes = rasterize(plane, np.array([0, 2, 0, 2, 1.0]), scale=scale, low=-0.5, high=2.5, blend=False, cells=8)
    assert {tuple(pixel[:3]) for pixel in codes.pixels.reshape(-1, 4).tolist() if pixel[3]} <= exact
    gray = [(0.0, "#000000"), (1.0, "#ffffff")]
    mean = rasterize(plane, np.array([0, 1, 0, 1, 1.0]), scale=gray, low=0, high=1, blend=True, cells=8)
    assert mean.pixels[-1, 0, :3].tolist() == [128, 128, 128]


def test_a_png_can_be_read_back():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 4)).astype(np.uint8)
    data = png(pixels)
    assert struct.unpack(">II", data[16:24]) == (5, 3)
    start = data.index(b"IDAT") + 4
    lines = np.frombuffer(zlib.decompress(data[start:-12]), np.uint8).reshape(3, -1)
    np.testing.assert_array_equal(lines[:, 1:].reshape(3, 5, 4), pixels)
    assert base64.b64encode(data).startswith(b"iVBOR")


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.sampled_from(["2", "umap", "loss"]),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(["method", "color", "range", "steps", "zoom", "dimensions"]), inner)
        ),
        max_leaves=8,
    )
)
def test_whatever_a_browser_sends_becomes_a_look_that_can_be_drawn(asked):
    look = look_of(asked, dark=False)
    assert look.method in cloud.CHOICES
    assert look.color in cloud.COLORS
    assert picture_figure(view(), look=look).layout is not None


MEASURED = {
    "fidelity_intra": 0.79,
    "fidelity_intra_chance": 0.34,
    "fidelity_inter": 0.86,
    "fidelity_inter_chance": 0.04,
    "fidelity_trustworthiness": 0.97,
    "fidelity_trustworthiness_chance": 0.5,
    "fidelity_rank_correlation": -0.02,
    "fidelity_rank_correlation_chance": 0.001,
    "fidelity_epochs": 5.0,
}


def test_every_measure_of_trust_is_a_bar_below_the_picture_and_a_phrase_for_those_who_cannot_see_it():
    told = {"seconds": 1.0, "note": "5 of 9 steps", **MEASURED}
    bars, said = cloud.note(view(xr.Dataset({"embedding": points()}, attrs=told)), "", "")
    names = [part.children for part in bars.children if part.className == "trust-name"]
    assert names == ["true neighbors kept", "all points at once"]
    drawn = [part.children for part in bars.children if part.className == "trust-part"]
    shown = [
        (name, gauge.children[0].style["width"], gauge.children[1].style["left"], number.children[0].children)
        for name, gauge, number in drawn
    ]
    assert shown == [
        ("within a step", "79%", "34%", "7.9"),
        ("across steps", "86%", "4%", "8.6"),
        ("no false neighbors", "97%", "50%", "0.97"),
        ("distances in order", "0%", "0%", "-0.02"),
    ]
    for phrase in ("8.6 of 10 (0.4 by chance)", "no false neighbors 0.97 (0.50 by chance)", "distances in order -0.02"):
        assert phrase in bars.title
    assert bars.title == getattr(bars, "aria-label")
    assert said.children.endswith("trust measured on the newest 5 epochs")


@given(st.dictionaries(st.sampled_from(list(MEASURED)), st.floats() | st.text(max_size=3) | st.none()))
def test_odd_measures_in_a_stored_picture_draw_no_bar_outside_of_its_frame(attributes):
    for one in words.measures(attributes):
        assert 0 <= one.value <= 1
        assert one.chance is None or 0 <= one.chance <= 1
    json.dumps([asdict(one) for one in words.measures(attributes)], allow_nan=False)


class Asked:
    """A supervisor whose worker only writes down what it is asked for."""

    def __init__(self):
        self.lines = []

    def ask(self, line):
        self.lines.append(line)
        return True


@pytest.fixture
def recorded(tmp_path):
    description = RunDescription(
        layers=(LayerDescription("lstm", "LSTM", np.arange(UNITS), np.arange(STEPS)),),
        samples=np.arange(8),
        labels=None,
        label_names=None,
        probe_fingerprint="probe",
        model="Net",
    )
    rng = np.random.default_rng(0)
    with SnapshotWriter.open(tmp_path / "version_0" / "hiddenscope", description) as writer:
        for epoch in range(3):
            states = rng.normal(size=(STEPS, UNITS, 8)).astype(np.float32)
            writer.append(Snapshot(float(epoch), {"lstm": states}, {"loss": 1.0}))
        writer.finish("finished")
    return tmp_path


def test_pca_is_there_at_once_and_other_methods_are_asked_of_the_worker_until_they_are_stored(recorded):
    library, worker = Library(recorded), Asked()
    shown = library.view("version_0")
    at_once, _, _ = with_method(library, "version_0", shown, "pca", worker)
    assert at_once.result["embedding"].sizes["epoch"] == 3
    assert worker.lines == []
    waiting, text, _ = with_method(library, "version_0", shown, "isomap", worker)
    assert waiting.result is None
    assert "being computed" in text
    assert b"isomap" in worker.lines[0]
    _, text, _ = with_method(library, "version_0", shown, "isomap", None)
    assert "no worker" in text
    stored = at_once.result.assign_attrs(at_once.result.attrs | {"method": "isomap"})
    path = library.runs()["version_0"].path
    with ResultStore.open(path, writable=True) as store:
        store.put("lstm", "isomap", {}, stored)
    found, text, beside = with_method(library, "version_0", library.view("version_0"), "isomap", worker)
    assert (found.result.attrs["method"], text, beside) == ("isomap", "", "")
    assert len(worker.lines) == 1
