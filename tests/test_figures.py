"""Figures hold the numbers they were given, in the right place, and have an answer for empty, single and missing."""

import itertools

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from hiddenscope.dashboard import figures
from hiddenscope.dashboard.figures.decimate import decimate, evenly
from hiddenscope.dashboard.figures.template import DARK, LIGHT, class_colors, colorscale


def cloud(epochs=4, steps=5, units=6, *, seed=0, first=-1):
    values = np.random.default_rng(seed).normal(size=(epochs, steps, units, 3)).astype(np.float32)
    coords = {"epoch": np.arange(first, first + epochs, dtype=float), "step": np.arange(0, 2 * steps, 2)}
    return xr.DataArray(values, dims=("epoch", "step", "unit", "component"), coords=coords | {"unit": np.arange(units)})


def curves_input(epochs=4):
    points = cloud(epochs)
    intra = points.std("unit").mean("component")
    inter = points.std("step").mean("component")
    loss = np.linspace(2, 1, epochs)
    metrics = pd.DataFrame({"train_loss": loss, "val_loss": loss + 0.1, "val_acc": 1 - loss / 2}, index=points["epoch"])
    return metrics, intra, inter


@pytest.mark.parametrize("dimensions", [2, 3])
def test_every_point_of_the_embedding_is_drawn_with_its_own_epoch_step_and_unit(dimensions):
    points = cloud()
    trace = figures.embedding(points, dimensions=dimensions).data[0]
    drawn = np.stack([trace[axis] for axis in "xyz"[:dimensions]], axis=1)
    assert drawn.dtype == np.float32
    assert len(drawn) == 4 * 5 * 6
    for row, (epoch, step, unit) in zip(drawn, trace.customdata, strict=True):
        expected = points.sel(epoch=epoch, step=step, unit=unit).values[:dimensions]
        np.testing.assert_array_equal(row, expected)


def test_an_epoch_is_one_contiguous_block_as_the_browser_expects():
    figure = figures.embedding(cloud())
    per_epoch = len(figure.layout.meta["steps"]) * len(figure.layout.meta["units"])
    for i, epoch in enumerate(figure.layout.meta["epochs"]):
        block = figure.data[0].customdata[i * per_epoch : (i + 1) * per_epoch]
        assert set(block[:, 0]) == {epoch}
        np.testing.assert_array_equal(block[:6, 2], np.arange(6))


@pytest.mark.parametrize("dim", ["epoch", "step", "unit"])
def test_color_by_a_coordinate_gives_each_point_its_own_label(dim):
    trace = figures.embedding(cloud(), color=dim).data[0]
    column = ["epoch", "step", "unit"].index(dim)
    np.testing.assert_array_equal(trace.marker.color, trace.customdata[:, column])


def test_colors_given_per_epoch_and_unit_reach_every_step_even_in_another_order():
    points = cloud()
    values = xr.DataArray(
        np.arange(24.0).reshape(6, 4), dims=("unit", "epoch"), coords={"unit": points.unit, "epoch": points.epoch}
    )
    shuffled = values.isel(unit=[3, 1, 5, 0, 2, 4])
    trace = figures.embedding(points, color=shuffled).data[0]
    for color, (epoch, _, unit) in zip(trace.marker.color, trace.customdata, strict=True):
        assert color == values.sel(epoch=epoch, unit=unit)


def test_class_codes_take_exactly_the_palette_and_unknown_classes_take_none():
    points = cloud()
    codes = xr.zeros_like(points.isel(component=0, drop=True), dtype=np.int32)
    codes[0] = 2
    codes[1] = -1
    marker = figures.embedding(points, color=codes.rename("class"), class_names=("a", "b", "c")).data[0].marker
    assert set(np.unique(marker.color[~np.isnan(marker.color)])) == {0, 2}
    assert np.isnan(marker.color).sum() == 30
    assert (marker.cmin, marker.cmax) == (-0.5, 2.5)
    assert {color for _, color in marker.colorscale} == set(class_colors(3, dark=False))
    assert marker.colorbar.ticktext == ("a", "b", "c")


def test_units_may_have_names():
    points = cloud().assign_coords(unit=[f"forward {i}" for i in range(6)])
    figure = figures.embedding(points, color="unit")
    assert figure.data[0].customdata[0][2] == "forward 0"
    assert figure.layout.meta["units"][5] == "forward 5"


def test_color_by_class_or_entropy_survives_decimation():
    points = cloud(10, 20, 6)
    codes = xr.DataArray(np.arange(20) % 3, dims="step", coords={"step": points.step})
    figure = figures.embedding(points, color=codes, class_names=("a", "b", "c"), limit=300)
    trace = figure.data[0]
    assert len(trace.x) == 300
    np.testing.assert_array_equal(trace.marker.color, (trace.customdata[:, 1] / 2) % 3)
    assert "300 of 1,200 points" in figure.layout.meta["note"]


@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 12), st.integers(50, 3000))
def test_decimation_keeps_every_unit_both_ends_of_training_and_the_limit(epochs, steps, units, limit):
    points = xr.DataArray(
        np.zeros((epochs, steps, units, 1)),
        dims=("epoch", "step", "unit", "component"),
        coords={"epoch": np.arange(epochs)},
    )
    shown, note = decimate(points, limit)
    assert shown.sizes["unit"] == units
    assert shown["epoch"].values[0] == 0
    assert shown["epoch"].values[-1] == epochs - 1
    count = shown.sizes["epoch"] * shown.sizes["step"] * units
    assert count <= max(limit, 2 * units)
    assert bool(note) == (count < epochs * steps * units)
    if epochs * units <= limit:
        assert shown.sizes["epoch"] == epochs


@given(st.integers(1, 500), st.integers(1, 600))
def test_evenly_keeps_both_ends_in_order_without_repeats(count, keep):
    chosen = evenly(count, keep)
    assert (np.diff(chosen) > 0).all()
    assert chosen[0] == 0
    assert len(chosen) <= max(1, keep)
    assert chosen[-1] == count - 1 or keep == 1


def test_a_single_epoch_is_drawn_and_no_epoch_is_explained():
    assert len(figures.embedding(cloud(1)).data[0].x) == 30
    nothing = figures.embedding(cloud(2).isel(epoch=slice(0, 0)))
    assert not nothing.data
    assert "no epoch" in nothing.layout.annotations[0].text


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"dimensions": 4}, "2 or 3 dimensions"),
        ({"color": "loss"}, "color is 'epoch', 'step', 'unit'"),
        ({"color": xr.DataArray([1.0], dims="sample")}, "dims among"),
    ],
)
def test_a_wrong_request_says_what_is_possible(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        figures.embedding(cloud(), **options)


def test_two_components_cannot_be_drawn_in_three_dimensions():
    with pytest.raises(ValueError, match="3 components are needed"):
        figures.embedding(cloud().isel(component=slice(2)))


def test_the_curves_share_one_epoch_axis_and_hold_the_numbers():
    metrics, intra, inter = curves_input()
    figure = figures.curves(metrics, intra, inter)
    assert {trace.xaxis for trace in figure.data} == {"x"}
    by_name = {trace.name: trace for trace in figure.data}
    np.testing.assert_allclose(by_name["train_loss"].y, metrics["train_loss"])
    np.testing.assert_allclose(by_name["mean over steps"].y, intra.mean("step"), rtol=1e-6)
    np.testing.assert_array_equal(by_name["intra-step entropy"].z, intra.transpose("step", "epoch"))
    np.testing.assert_array_equal(by_name["intra-step entropy"].y, intra["step"])
    for unit in inter["unit"].values:
        np.testing.assert_array_equal(by_name[f"unit {unit}"].y, inter.sel(unit=unit))
    np.testing.assert_allclose(by_name["median"].y, inter.median("unit"))


def test_panels_do_not_overlap_and_fill_the_figure():
    metrics, intra, inter = curves_input()
    layout = figures.curves(metrics, intra, inter).to_dict()["layout"]
    domains = sorted(axis["domain"] for name, axis in layout.items() if name.startswith("yaxis") and "domain" in axis)
    assert len(domains) == 4
    assert domains[0][0] == pytest.approx(0)
    assert domains[-1][1] == 1
    for below, above in itertools.pairwise(domains):
        assert below[1] < above[0]


def test_losses_stand_left_and_other_metrics_right_and_our_own_scalars_stay_out():
    metrics, _, _ = curves_input()
    metrics["hiddenscope/lstm/change"] = 1.0
    metrics["never_logged"] = np.nan
    figure = figures.metrics(metrics)
    assert {trace.name: trace.yaxis for trace in figure.data} == {"train_loss": "y", "val_loss": "y", "val_acc": "y2"}


def test_epochs_without_a_value_are_left_out_of_a_metric():
    metrics = pd.DataFrame({"train_loss": [np.nan, 2.0, np.nan, 1.0]}, index=[-1.0, 0.0, 1.0, 2.0])
    trace = figures.metrics(metrics).data[0]
    np.testing.assert_array_equal(trace.x, [0, 2])
    np.testing.assert_array_equal(trace.y, [2, 1])


def test_the_loss_axis_is_logarithmic_only_when_asked():
    metrics, intra, inter = curves_input()
    assert figures.curves(metrics, intra, inter).layout.yaxis.type == "linear"
    assert figures.curves(metrics, intra, inter, log=True).layout.yaxis.type == "log"


def test_the_band_runs_from_the_10th_to_the_90th_percentile_of_the_steps():
    values = np.linspace(0, 1, 101)[None].repeat(2, axis=0)
    intra = xr.DataArray(values, dims=("epoch", "step"), coords={"epoch": [0, 1]})
    low, high, mean = figures.intra_entropy(intra).data
    np.testing.assert_allclose(low.y, 0.1, rtol=1e-6)
    np.testing.assert_allclose(high.y, 0.9, rtol=1e-6)
    np.testing.assert_allclose(mean.y, 0.5, rtol=1e-6)


def test_missing_entropies_break_no_curve():
    _, intra, inter = curves_input()
    intra[1] = np.nan
    inter[:, 2] = np.nan
    assert len(figures.intra_entropy(intra).data[-1].x) == 3
    median = figures.inter_entropy(inter).data[-1]
    np.testing.assert_allclose(median.y, inter.drop_isel(unit=2).median("unit"))
    nothing = figures.intra_entropy(xr.full_like(intra, np.nan))
    assert not nothing.data
    assert nothing.layout.annotations[0].text


def test_curves_before_the_first_picture_show_the_loss_and_say_what_is_awaited():
    metrics, _, _ = curves_input()
    figure = figures.curves(metrics, None, None)
    assert [trace.name for trace in figure.data] == ["train_loss", "val_loss", "val_acc"]
    assert sum("first picture" in note.text for note in figure.layout.annotations) == 3


def test_no_metric_and_no_epoch_are_explained_too():
    figure = figures.metrics(pd.DataFrame(index=pd.Index([], dtype=float)))
    assert "no metric" in figure.layout.annotations[0].text


def test_a_curve_of_one_epoch_is_visible():
    metrics, intra, inter = curves_input(1)
    for trace in figures.curves(metrics, intra, inter).data:
        if isinstance(trace, go.Scatter) and trace.name not in ("10th percentile", "90th percentile"):
            assert "markers" in trace.mode


def test_selected_units_come_to_the_front_in_color():
    _, _, inter = curves_input()
    figure = figures.inter_entropy(inter, selected=[1])
    line = next(trace for trace in figure.data if trace.name == "unit 1").line
    assert line.width > 2
    assert line.color == LIGHT.classes[0]
    assert figure.data[-2].name == "unit 1"


def luminance(color):
    r, g, b = (int(part) / 255 for part in color[4:-1].split(","))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (r, g, b)]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("quantity", ["epoch", "step", "value"])
@pytest.mark.parametrize("dark", [False, True])
def test_scales_grow_lighter_all_the_way_so_that_their_order_survives_color_blindness(quantity, dark):
    lightness = [luminance(color) for _, color in colorscale(quantity, dark=dark)]
    assert (np.diff(lightness) > 0).all()


def test_class_colors_differ_in_each_theme():
    for look in (LIGHT, DARK):
        assert len(set(look.classes)) == 10


def test_the_whole_figure_travels_as_float32():
    metrics, intra, inter = curves_input()
    for trace in [*figures.curves(metrics, intra, inter).data, *figures.embedding(cloud()).data]:
        for axis in ("y", "z"):
            if trace.type != "heatmap" and axis in trace and trace[axis] is not None:
                assert trace[axis].dtype == np.float32, trace.name


def phased():
    from hiddenscope.analyses.phases import phases_of_all

    epochs = np.arange(60.0)
    noise = 0.05 * np.random.default_rng(0).normal(size=60)
    values = np.interp(epochs, [0, 20, 40, 60], [0, 4, 4, 1]) + noise
    curve = xr.DataArray(values, dims="epoch", coords={"epoch": epochs})
    return phases_of_all({"intra-step entropy (picture)": curve, "other": curve * 0 + noise}, n_controls=49)


def test_phases_are_shaded_where_the_curve_rises_and_falls_and_not_where_it_does_neither():
    from hiddenscope.dashboard.figures.phases import chosen_phases

    metrics, intra, inter = curves_input()
    found = phased()
    kinds = [kind for _, _, kind in chosen_phases(found)]
    assert kinds == ["processing", "steady", "compression"]
    drawn = figures.curves(metrics, intra, inter, phases=found).layout
    shaded = [shape for shape in drawn.shapes if shape.layer == "below"]
    assert [shape.name for shape in shaded] == ["processing", "compression"]
    assert shaded[0].x0 == 0
    assert shaded[0].x1 == pytest.approx(20, abs=2)
    assert shaded[1].x0 == pytest.approx(40, abs=2)
    told = {note.text: note for note in drawn.annotations}
    assert (told["processing"].x, told["compression"].x) == (shaded[0].x0, shaded[1].x0)
    assert drawn.margin.t > told["processing"].yshift + 12, "the names stand above the captions, inside the figure"
    assert not figures.curves(metrics, intra, inter).layout.shapes


def test_a_caption_names_the_curves_that_fit_and_counts_the_others():
    values = pd.DataFrame({"train_loss": [1.0, 0.5], **{f"metric_{k}": [0.1, 0.2] for k in range(9)}})
    caption = figures.metrics(values).layout.annotations[0].text
    assert ">\u2501\u2009train_loss<" in caption
    shown = caption.count("metric_")
    assert 2 <= shown < 9
    assert caption.endswith(f"+{9 - shown} more")
    assert "&lt;b&gt;" in figures.metrics(pd.DataFrame({"<b>": [1.0]})).layout.annotations[0].text


def test_a_cloud_fills_the_view_at_equal_scale_along_all_axes():
    dice = np.random.default_rng(0)
    cloud = dice.normal(size=(3, 10, 40, 3)) * [1.0, 2.0, 0.5]
    ratio = figures.embedding(cloud).layout.scene.aspectratio
    extents = np.ptp(cloud.reshape(-1, 3), axis=0)
    scales = np.array([ratio.x, ratio.y, ratio.z]) / extents
    assert scales == pytest.approx(scales[0])
    middle = (cloud.reshape(-1, 3).max(axis=0) + cloud.reshape(-1, 3).min(axis=0)) / 2
    distance = scales[0] * np.linalg.norm(cloud.reshape(-1, 3) - middle, axis=1)
    assert (distance < 1.2).mean() > 0.98, "what is in view, however it is turned"
    flat = figures.embedding(np.ones((1, 2, 3, 3))).layout.scene.aspectratio
    assert min(flat.x, flat.y, flat.z) > 0


def test_units_take_the_color_of_their_cluster_and_its_median_stands_out():
    metrics, intra, inter = curves_input()
    units = inter["unit"].values
    names = xr.DataArray(["A"] * 2 + ["B"] * (len(units) - 2), dims="unit", coords={"unit": units})
    drawn = {trace.name: trace for trace in figures.curves(metrics, intra, inter, clusters=names).data}
    np.testing.assert_allclose(drawn["cluster A"].y, inter.sel(unit=units[:2]).median("unit").values, rtol=1e-6)
    assert drawn[f"unit {units[0]}"].line.color != drawn[f"unit {units[-1]}"].line.color
    assert "median" not in drawn
    one = figures.curves(metrics, intra, inter, clusters=names.copy(data=["A"] * len(units)))
    assert "median" in {trace.name for trace in one.data}, "one cluster is none"


def test_smoothing_is_off_by_default_and_keeps_the_values_behind_it():
    table = pd.DataFrame({"train_loss": [4.0, 0.0, 4.0, 0.0], "accuracy": [0.0, 1.0, 0.0, 1.0]})
    plain = {trace.name: trace for trace in figures.metrics(table).data}
    assert plain["train_loss"].y.tolist() == [4, 0, 4, 0]
    drawn = figures.metrics(table, smoothing=0.5).data
    curves = [trace for trace in drawn if trace.name == "train_loss"]
    by_pandas = table["train_loss"].ewm(alpha=0.5, adjust=True).mean()
    np.testing.assert_allclose(curves[0].y, by_pandas, rtol=1e-6)
    assert curves[1].y.tolist() == [4, 0, 4, 0]
    assert [trace.yaxis for trace in drawn] == ["y", "y2", "y", "y2"]
