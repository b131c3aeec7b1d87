"""Figures of responses hold the numbers they are given, and the panel has an answer for every state of a run."""

import json

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import xarray as xr
from dash import dcc
from numpy.testing import assert_allclose

from hiddenscope.analyses.removal import agreement, rank_units, removal_curves
from hiddenscope.analyses.response_study import PERIODS, RANKED
from hiddenscope.dashboard.figures.removal import capacity, importance_against, removal
from hiddenscope.dashboard.figures.responses import bode, extremes, over_epochs, step_map, unit_bars, upright
from hiddenscope.dashboard.panels import all_panels
from hiddenscope.dashboard.panels.panel import Scene
from hiddenscope.dashboard.panels.responses import PANEL

UNITS = ["forward 0", "forward 1", "forward 2", "forward 3"]
KEEPS = np.array([0.5, 0.9, 0.98, 0.7])
STEP = np.arange(401)


def answers():
    signs = np.array([1.0, -0.5, 2.0, 0.0])
    return xr.DataArray(
        (signs[:, None] * (1 - KEEPS[:, None] ** STEP)).astype(np.float32),
        dims=("unit", "step"),
        coords={"unit": UNITS},
    )


def by_unit(values):
    return xr.DataArray(np.array(values, float), dims="unit", coords={"unit": UNITS})


def stored(epochs=(-1.0, 0.0, 1.0), *, isolated=True):
    """What the study stores, with numbers that follow from epoch, unit and period."""
    shape = (len(epochs), 4)
    base = np.arange(np.prod(shape), dtype=float).reshape(shape) + 1
    base[-1, 3] = np.nan
    period = np.array(PERIODS)
    variables = dict.fromkeys(("settling_time", "delay_time", "rise_time", "change"), (("epoch", "unit"), base))
    variables["overshoot"] = (("epoch", "unit"), base / 100)
    variables["reference_gain"] = (("epoch", "unit"), base / 10)
    variables["reference_phase"] = (("epoch", "unit"), -10 * base)
    for name in ("gain", "phase", "lag", "distortion", "correlation"):
        variables[name] = (("epoch", "unit", "period"), base[..., None] / period)
    flags = np.where(np.isnan(base), "dead", "")
    variables["step_flag"] = (("epoch", "unit"), flags)
    readings = ["in-network", "isolated"][: 2 if isolated else 1]
    traces = np.stack([answers().values] * len(readings))
    variables["step_response"] = (("reading", "unit", "step"), traces)
    if isolated:
        for name in ("isolated_settling_time", "isolated_overshoot", "coupling"):
            variables[name] = ("unit", base[-1])
        for name in ("isolated_gain", "isolated_phase"):
            variables[name] = (("unit", "period"), base[-1][:, None] / period)
    ranks = rank_units(dict.fromkeys(RANKED, base[-1]))
    variables["rank"] = (("metric", "unit"), ranks["rank"].values)
    variables["combined_rank"] = ("unit", ranks["combined"].values)
    coords = {
        "epoch": list(epochs),
        "unit": UNITS,
        "period": period,
        "reading": readings,
        "metric": list(RANKED),
        "step": STEP,
    }
    return xr.Dataset(variables, coords, attrs={"drive": "all inputs", "state": "h", "tolerance": 0.1})


class View:
    """What the panel takes from the page's view of a layer."""

    def __init__(self, metrics):
        self.metrics = metrics


def scene(result, *, removed=None, epoch=None, units=(), dark=False, **options):
    metrics = pd.DataFrame({"train_loss": [1.0, 0.5, 0.2]}, index=[-1.0, 0.0, 1.0])
    return Scene(View(metrics), None, {"responses": result, "removal": removed}, epoch, units, options, dark)


def graphs(component):
    found = [component] if isinstance(component, dcc.Graph) else []
    children = getattr(component, "children", None) or []
    for child in children if isinstance(children, list) else [children]:
        found += graphs(child) if not isinstance(child, str) else []
    return found


def drawn(panel_scene):
    return [graph for part in PANEL.draw(panel_scene) for graph in graphs(part)]


def test_the_map_orders_units_by_settling_time_and_puts_silent_ones_last():
    figure = step_map(answers(), by_unit([4, 22, 114, np.nan]), dark=True)
    heat, dots = figure.data
    assert list(heat.y) == ["forward 0", "forward 1", "forward 2", "forward 3"]
    figure = step_map(answers(), by_unit([114, 22, np.nan, 4]))
    heat, dots = figure.data
    assert list(heat.y) == ["forward 3", "forward 1", "forward 0", "forward 2"]
    assert_allclose(heat.z[1], answers().values[1][list(heat.x)], rtol=1e-6)
    assert heat.customdata[2][0] == "forward 0"
    assert list(dots.x) == [4, 22, 114]
    assert heat.x[-1] < 401  # only as far as something happens
    assert "1 of 4 have none" in figure.layout.title.text
    assert heat.zmax == -heat.zmin


def test_the_frequency_response_shows_median_band_and_picked_units():
    rng = np.random.default_rng(0)
    gain = xr.DataArray(
        rng.random((4, 3)) + 0.1, dims=("unit", "period"), coords={"unit": UNITS, "period": [8, 16, 32]}
    )
    phase = (gain * -80).where(gain.unit != "forward 2")
    figure = bode(gain, phase, isolated=(gain * 2, phase), selected=["forward 3"])
    traces = {(trace.name, trace.yaxis): trace for trace in figure.data if trace.name}
    assert_allclose(traces["median", "y"].y, np.median(gain, axis=0))
    assert_allclose(traces["median", "y2"].y, np.nanmedian(phase, axis=0))
    assert_allclose(traces["median, isolated", "y"].y, 2 * np.median(gain, axis=0))
    assert_allclose(traces["unit forward 3", "y"].y, gain.values[3])
    assert traces["unit forward 3", "y"].customdata[0] == "forward 3"
    assert_allclose(figure.data[0].y, np.percentile(gain, 10, axis=0))
    assert figure.layout.yaxis.type == "log"


def test_a_unit_that_answers_upside_down_is_drawn_as_its_mirror_image():
    """h = -a h: the same lag as h = a h, half a turn away; and a slow one whose lag passes a quarter turn."""
    period = np.array([8, 16, 32, 64])
    omega = 2 * np.pi / period
    lag = -np.degrees(np.arctan2(0.9 * np.sin(omega), 1 - 0.9 * np.cos(omega)))
    slow = -3.0 * np.degrees(omega)  # three steps of pure delay
    mirrored = (np.stack([lag, lag + 180, slow, slow + 180, slow * np.nan]) + 180) % 360 - 180
    phase = xr.DataArray(mirrored, dims=("unit", "period"), coords={"period": period})
    exact = np.stack([lag, lag, slow, slow, slow * np.nan])
    assert_allclose(upright(phase), exact, atol=1e-9)
    change = xr.DataArray([1.0, -1.0, 1.0, -1.0, np.nan], dims="unit")
    assert_allclose(upright(phase, change), exact, atol=1e-9)
    late = xr.DataArray([[-120.0, -110.0], [60.0, 70.0]], dims=("unit", "period"))  # more than a quarter turn
    assert_allclose(upright(late, xr.DataArray([0.3, -0.2], dims="unit")), [[-120, -110]] * 2)
    assert_allclose(upright(late)[0], [60, 70])  # which the phases alone cannot know
    figure = bode(abs(phase) + 1, phase, change=change)
    median = next(trace for trace in figure.data if trace.name == "median" and trace.yaxis == "y2")
    assert_allclose(median.y, np.median(exact[:4], axis=0))


@pytest.mark.parametrize(
    ("values", "texts"),
    [([2.0, 60.0], ["3", "10", "30"]), ([4.0, 5.9], ["4", "6"]), ([0.5, 4e3], ["1", "10", "100", "1000"])],
)
def test_logarithmic_axes_have_a_few_round_numbers(values, texts):
    epochs = xr.DataArray([values * 200], dims=("epoch", "unit"), coords={"epoch": [0.0]})
    found = xr.Dataset({"settling_time": epochs, "reference_gain": epochs, "reference_phase": epochs})
    figure = over_epochs(found, pd.DataFrame({"loss": [1.0]}, index=[0.0]))
    ticks = [axis for axis in figure.select_yaxes() if axis.tickvals is not None]
    assert [list(axis.ticktext) for axis in ticks] == [texts] * 2
    for axis in ticks:
        assert (
            axis.range[0] - 1e-9 <= np.log10(min(axis.tickvals)) <= np.log10(max(axis.tickvals)) <= axis.range[1] + 1e-9
        )


def test_the_extremes_are_the_fastest_slowest_and_those_that_overshoot():
    figure = extremes(answers(), by_unit([4, 22, 114, np.nan]), by_unit([0.0, 0.5, 0.2, np.nan]), count=2)
    names = [trace.name.removeprefix("unit forward ") for trace in figure.data]
    assert names == ["0", "1", "2", "1", "1", "2"]
    assert_allclose(figure.data[0].y[:4], 1 - 0.5 ** np.arange(4), rtol=1e-5)  # a share of its own change
    assert_allclose(figure.data[1].y[:4], 1 - 0.9 ** np.arange(4), rtol=1e-3)


def test_bars_stand_in_the_order_of_the_mean_rank():
    numbers = xr.Dataset({"gain": by_unit([1, 4, 2, 3]), "lag": by_unit([1, 4, np.nan, 3])})
    ranks = rank_units(numbers)
    figure = unit_bars(numbers, ranks, selected=["forward 3"])
    assert [bar.meta for bar in figure.data] == ["gain", "lag"]
    assert list(figure.data[0].x) == ["forward 1", "forward 3", "forward 0", "forward 2"]
    assert list(figure.data[0].y) == [4, 3, 1, 2]
    assert list(figure.data[1].marker.color) == [1, 2, 3, 4]


def test_numbers_that_no_unit_has_are_named_and_get_no_row():
    numbers = xr.Dataset({"gain": by_unit([1, 2, 3, 4]), "settling_time": by_unit([np.nan] * 4)})
    figure = unit_bars(numbers, rank_units(numbers))
    assert [trace.meta for trace in figure.data] == ["gain"]
    assert figure.layout.title.text == "no unit has a number for: settling time"


def test_the_histograms_hold_the_share_of_units_at_each_epoch():
    result = stored()
    metrics = pd.DataFrame({"loss": [1.0, 0.5, 0.2]}, index=[-1.0, 0.0, 1.0])
    figure = over_epochs(result, metrics, period=16)
    heats = [trace for trace in figure.data if isinstance(trace, go.Heatmap)]
    assert len(heats) == 3
    for heat in heats:
        assert_allclose(np.nansum(heat.z, axis=0), [100, 100, 75])
    missing = [trace for trace in figure.data if trace.name == "units without a number (%)"]
    assert [list(trace.y) for trace in missing] == [[0, 0, 25]] * 3
    assert any(trace.name == "loss" for trace in figure.data)


@pytest.mark.parametrize("dark", [False, True])
def test_figures_of_nothing_say_so(dark):
    nothing = by_unit([np.nan] * 4)
    silent = xr.DataArray(np.full((4, 30), np.nan), dims=("unit", "step"), coords={"unit": UNITS})
    flat = xr.DataArray(np.full((4, 2), np.nan), dims=("unit", "period"), coords={"unit": UNITS, "period": [8, 16]})
    for figure in (
        step_map(silent, nothing, dark=dark),
        bode(flat, flat, dark=dark),
        extremes(silent, nothing, nothing, dark=dark),
        importance_against({}, np.array([np.nan]), [], {}, dark=dark),
        capacity({}, dark=dark),
    ):
        assert len(figure.data) == 0
        assert figure.layout.annotations[0].text
    one = stored(epochs=[0.0]).isel(unit=[3])
    assert over_epochs(one, pd.DataFrame(index=[0.0]), dark=dark).data == ()
    assert len(extremes(answers() * 0, by_unit([1, 1, 1, 1]), nothing, dark=dark).data) == 8


def test_removal_and_capacity_draw_what_they_are_given():
    weights = np.array([1.0, 4.0, 2.0, 3.0])
    numbers = {"gain": weights, "lag": weights[::-1]}
    curves = removal_curves(lambda keep: keep @ weights, rank_units(numbers)["rank"], random_orders=4)
    figure = removal(curves, quantity="accuracy")
    high = next(trace for trace in figure.data if trace.name == "high first")
    assert_allclose(high.y, [10, 6, 3, 1, 0])
    assert figure.layout.yaxis.title.text == "accuracy"
    assert figure.layout.annotations[0].text.startswith("gain: area")
    found = dict(zip(numbers, agreement(numbers, weights)["correlation"].values, strict=True))
    against = importance_against(numbers, weights, UNITS, found)
    assert_allclose(against.data[0].x, weights)
    assert list(against.data[0].customdata) == UNITS
    violins = capacity({"gain": {64: np.array([1.0, np.nan, 2.0]), 16: np.array([3.0])}})
    assert [trace.name for trace in violins.data] == ["16 units", "64 units"]
    assert_allclose(violins.data[1].y, [1.0, 2.0])


def test_a_violin_is_as_wide_as_its_own_density_allows():
    spread = np.linspace(0, 1, 16)
    violins = capacity({"gain": {16: spread / 100, 64: spread}, "lag": {16: 100 * spread, 64: spread}}).data
    assert len({trace.scalegroup for trace in violins}) == len(violins)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("isolated", [True, False])
@pytest.mark.parametrize("view", ["overview", "every unit"])
def test_the_panel_draws_every_view(view, isolated, dark):
    result = stored(isolated=isolated)
    found = drawn(scene(result, view=view, reading="isolated", dark=dark, units=["forward 1"], epoch=0.4))
    assert len(found) == {"overview": 4, "every unit": 1}[view]
    assert len({json.dumps(graph.id) for graph in found}) == len(found)
    assert all(len(graph.figure.data) > 0 for graph in found)
    if view == "overview":
        named = {graph.id["name"]: graph.figure for graph in found}
        assert "epoch 0:" in named["responses-bode"].layout.title.text  # the last epoch before the cursor
        assert not any(trace.name == "median, isolated" for trace in named["responses-bode"].data)


def test_the_panel_says_what_is_missing():
    (waiting,) = drawn(scene(None))
    assert "as soon as" in waiting.figure.layout.annotations[0].text
    (none,) = drawn(scene(None, view="removal"))
    assert "hiddenscope analyze" in none.figure.layout.annotations[0].text
    assert any(panel.name == "responses" for panel in all_panels())


def test_the_panel_draws_what_was_removed():
    numbers = xr.Dataset({"gain": by_unit([1, 4, 2, 3]), "lag": by_unit([1, 4, np.nan, 3])})
    worth = np.array([1.0, 4.0, 2.0, 3.0])
    curves = removal_curves(lambda keep: keep @ worth, rank_units(numbers)["rank"], random_orders=2)
    result = numbers.merge(curves).merge(agreement(numbers, worth))
    result["importance"] = ("unit", worth)
    curves_graph, worth_graph = drawn(scene(None, view="removal", removed=result.assign_attrs(quantity="accuracy")))
    assert curves_graph.figure.layout.yaxis.title.text == "accuracy"
    assert len(worth_graph.figure.data) == 2
